"""Imports point down, third-party packages have one home, and who decides does no I/O and knows no mode."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROOT

LAYERS: tuple[tuple[str, ...], ...] = (
    ("zgrid.errors", "zgrid.kpis", "zgrid.machines", "zgrid.study_labels"),
    (
        "zgrid.registry",
        "zgrid.failure",
        "zgrid.messages",
        "zgrid.gather",
        "zgrid.profiles",
        "zgrid.lifeline",
        "zgrid.runfile",
        "zgrid.command",
        "zgrid.scores",
        "zgrid.scoreboard",
    ),
    ("zgrid.post", "zgrid.nursery", "zgrid.tables", "zgrid.readers", "zgrid.devices", "zgrid.networks"),
    ("zgrid.encoding", "zgrid.outcome", "zgrid.muster", "zgrid.child"),
    ("zgrid.messaging", "zgrid.protocols", "zgrid.policies", "zgrid.powerflow"),
    ("zgrid.links",),
    ("zgrid.agents", "zgrid.recording", "zgrid.watching"),
    ("zgrid.topology", "zgrid.watch_view"),
    ("zgrid.host", "zgrid.world", "zgrid.fleet", "zgrid.spaces", "zgrid.view", "zgrid.plots", "zgrid.study_plots"),
    ("zgrid.chronicle", "zgrid.session", "zgrid.participant", "zgrid.squad", "zgrid.overview"),
    ("zgrid.node", "zgrid.parley"),
    ("zgrid.port", "zgrid.replaying", "zgrid.testing"),
    ("zgrid.guard", "zgrid.execution"),
    ("zgrid.lockstep",),
    ("zgrid.environment", "zgrid.vector", "zgrid.survey", "zgrid.foresight"),
    ("zgrid.play", "zgrid.evaluation", "zgrid.studies"),
    (
        "zgrid.launcher",
        "zgrid.cli_evaluate",
        "zgrid.cli_join",
        "zgrid.cli_keys",
        "zgrid.cli_record",
        "zgrid.cli_study",
        "zgrid.cli_watch",
        "zgrid.rl",
    ),
    ("zgrid.cli", "nodes"),
)
"""Lowest first. Those of one layer do not know each other; within a package its modules may."""

HOMES = {
    "zmq": {"zgrid.messaging"},
    "msgpack": {"zgrid.encoding", "zgrid.recording"},
    "pandapower": {"zgrid.networks", "zgrid.powerflow"},
    "scipy": {"zgrid.networks", "zgrid.powerflow", "zgrid.foresight", "zgrid.scores"},
    "pettingzoo": {"zgrid.environment"},
    "gymnasium": {"zgrid.environment", "zgrid.spaces", "zgrid.vector"},
    "numba": {"zgrid.powerflow"},
    "yaml": {"zgrid.topology"},
    "matplotlib": {"zgrid.plots", "zgrid.study_plots"},
    "rich": {"zgrid.view", "zgrid.scoreboard", "zgrid.watch_view"},
    "onnxruntime": {"zgrid.policies"},
    "pyarrow": {"zgrid.studies"},
    "onnx": {"zgrid.rl"},
    "torch": {"zgrid.rl"},
    "torchrl": {"zgrid.rl"},
    "tensordict": {"zgrid.rl"},
    "ray": {"zgrid.rl"},
    "stable_baselines3": {"zgrid.rl"},
}
EVERYWHERE = {"numpy", "pydantic"}
PURE = ("zgrid.agents", "zgrid.devices", "zgrid.links", "zgrid.protocols", "zgrid.policies")
IO = {
    *("asyncio", "atexit", "concurrent", "ctypes", "datetime", "fcntl", "glob", "http", "io", "json", "logging"),
    *("mmap", "multiprocessing", "os", "pathlib", "pickle", "queue", "random", "select", "selectors", "shutil"),
    *("signal", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid"),
    *("yaml", "zmq", "msgpack"),
}
KNOW_THE_MODE = (*("zgrid.topology", "zgrid.environment", "zgrid.launcher", "zgrid.view", "zgrid.play", "zgrid.cli"),)


class Import(NamedTuple):
    """One import statement's target, and whether it is at the top of its module."""

    module: str
    at_top: bool


def modules() -> dict[str, Path]:
    """Every module of zgrid and nodes, by its dotted name."""
    files = [*(ROOT / "zgrid").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in sorted(files)}


MODULES = modules()


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> tuple[Import, ...]:
    """What a module imports, also inside functions; not what only type checkers see."""
    return tuple(_imports(tree(module), True))


def _imports(node: ast.AST, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, at_top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative import"
            assert child.module is not None
            yield from (Import(_target(child.module, alias.name), at_top) for alias in child.names)
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imports(child, at_top and not inside)


def _target(module: str, name: str) -> str:
    """``from module import name``: the module it imports."""
    return f"{module}.{name}" if f"{module}.{name}" in MODULES else module


def own(module: str) -> bool:
    return module.partition(".")[0] in ("zgrid", "nodes")


def is_in(module: str, homes: set[str] | tuple[str, ...]) -> bool:
    return any(module == home or module.startswith(home + ".") for home in homes)


def unit(module: str) -> str:
    """The package or module that has a place in the layers."""
    return "nodes" if module.startswith("nodes") else ".".join(module.split(".")[:2])


HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}


def test_every_module_has_a_layer_and_every_layer_its_modules() -> None:
    assert {unit(module) for module in MODULES} - {"zgrid"} == HEIGHT.keys()


def test_the_public_package_imports_nothing_of_its_own() -> None:
    assert [one for one in imports("zgrid") if own(one.module)] == []


@pytest.mark.parametrize("module", [module for module in MODULES if module != "zgrid"])
def test_imports_point_down(module: str) -> None:
    wrong = [
        target
        for target, _ in imports(module)
        if own(target) and unit(target) != unit(module) and HEIGHT[unit(target)] >= HEIGHT[unit(module)]
    ]
    assert wrong == []


def cycles(only_at_top: bool) -> list[list[str]]:
    """Groups of modules that reach each other; imports of a package's __init__ by its own modules count."""
    graph = {
        module: {target for target, at_top in imports(module) if own(target) and (at_top or not only_at_top)}
        for module in MODULES
    }
    reach = {module: _reachable(graph, module) for module in graph}
    groups = {tuple(sorted(other for other in reach[m] if m in reach[other])) for m in reach if m in reach[m]}
    return [list(group) for group in sorted(groups)]


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += graph.get(module, ())
    return found


def test_no_modules_import_each_other() -> None:
    assert cycles(only_at_top=True) == []


def test_no_modules_import_each_other_inside_functions_either() -> None:
    assert cycles(only_at_top=False) == []


@pytest.mark.parametrize("package", HOMES)
def test_a_third_party_package_has_one_home(package: str) -> None:
    users = {module for module in MODULES for one in imports(module) if is_in(one.module, {package})}
    assert users
    assert {module for module in users if not is_in(module, HOMES[package])} == set()


def test_no_other_third_party_package_is_used() -> None:
    known = {*HOMES, *EVERYWHERE, *sys.stdlib_module_names, "zgrid", "nodes"}
    used = {one.module.partition(".")[0] for module in MODULES for one in imports(module)}
    assert used - known == set()


@pytest.mark.parametrize("module", [module for module in MODULES if is_in(module, PURE)])
def test_who_decides_imports_no_io(module: str) -> None:
    assert [one.module for one in imports(module) if one.module.partition(".")[0] in IO] == []


@pytest.mark.parametrize("module", [module for module in MODULES if is_in(module, PURE)])
def test_who_decides_imports_nothing_that_does_io(module: str) -> None:
    """Nothing but what is below and as pure."""
    below = ("zgrid.errors", "zgrid.registry", "zgrid.failure", "zgrid.messages", "zgrid.gather", "zgrid.post")
    allowed = (*PURE, *below)
    assert [one.module for one in imports(module) if own(one.module) and not is_in(one.module, allowed)] == []


@pytest.mark.parametrize("module", [module for module in MODULES if not is_in(module, KNOW_THE_MODE)])
def test_no_one_else_asks_for_the_mode(module: str) -> None:
    names = {"centralized", "mode", "message_broker"}
    asked = [
        (node.lineno, found)
        for node in ast.walk(tree(module))
        if (found := node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else "")
        in names
    ]
    assert asked == []


@pytest.mark.parametrize("module", [module for module in MODULES if not is_in(module, ("zgrid.messaging",))])
def test_no_one_asks_for_the_class_of_a_broker(module: str) -> None:
    asked = [
        node.lineno
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"
        if any("Broker" in ast.dump(argument) for argument in node.args[1:])
    ]
    assert asked == []


@pytest.mark.parametrize("module", [module for module in MODULES if own(module)])
def test_library_code_does_not_print_or_exit(module: str) -> None:
    allowed = (
        "nodes",
        "zgrid.cli",
        "zgrid.cli_evaluate",
        "zgrid.cli_join",
        "zgrid.cli_keys",
        "zgrid.cli_record",
        "zgrid.cli_study",
        "zgrid.cli_watch",
        "zgrid.command",
    )
    called = [
        node.func.id
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "exit", "quit")
    ]
    if module == "zgrid.environment":
        assert called == ["print"]  # render_mode "human"
    elif not is_in(module, allowed):
        assert called == []
