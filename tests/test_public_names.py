"""What is offered can be had, what is exported is meant, and what is public is explained."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT

import zgrid

FILES = sorted(path for folder in ("zgrid", "nodes") for path in (ROOT / folder).rglob("*.py"))
EXTRAS = ("torch", "tensordict", "torchrl", "ray", "stable_baselines3", "onnx")
"""What modules of zgrid.rl import at once."""
PACKAGES = [path for path in FILES if path.name == "__init__.py" and path.parent.name not in ("zgrid", "nodes")]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def module_of(path: Path) -> ModuleType:
    try:
        return importlib.import_module(name_of(path))
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        pytest.skip(f"needs {error.name}, which is not installed")


def public_classes(module: ModuleType) -> list[type]:
    """The classes that a module itself makes and does not hide."""
    return [
        thing
        for name, thing in vars(module).items()
        if not name.startswith("_") and inspect.isclass(thing) and thing.__module__ == module.__name__
    ]


def public_methods(cls: type) -> dict[str, Any]:
    """The methods and properties that a class itself defines and does not hide."""
    return {
        name: thing
        for name, thing in vars(cls).items()
        if not name.startswith("_")
        and (inspect.isfunction(thing) or isinstance(thing, property | classmethod | staticmethod))
    }


def documented(cls: type, name: str) -> bool:
    """Whether a method, or one that it overrides, has a docstring."""
    return any(getattr(vars(base).get(name), "__doc__", None) for base in cls.__mro__)


class TestTheTop:
    def test_all_is_what_is_offered_lazily(self) -> None:
        lazy = {name for names in zgrid._HOME.values() for name in names}
        assert set(zgrid.__all__) == lazy | {"__version__"}

    def test_all_is_sorted_and_without_repetition(self) -> None:
        assert zgrid.__all__ == sorted(set(zgrid.__all__))

    def test_type_checkers_see_the_same(self) -> None:
        seen = {
            (node.module, alias.name)
            for node in ast.walk(ast.parse((ROOT / "zgrid" / "__init__.py").read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("zgrid")
            for alias in node.names
        }
        assert seen == {(module, name) for module, names in zgrid._HOME.items() for name in names}

    @pytest.mark.parametrize("name", zgrid.__all__)
    def test_every_name_can_be_had(self, name: str) -> None:
        assert getattr(zgrid, name) is not None

    def test_every_name_is_public_where_it_lives(self) -> None:
        for home, names in zgrid._HOME.items():
            module = importlib.import_module(home)
            assert set(names) <= set(getattr(module, "__all__", vars(module)))

    def test_dir_tells_the_names(self) -> None:
        assert dir(zgrid) == zgrid.__all__

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="module 'zgrid' has no attribute 'Grid'"):
            zgrid.Grid  # noqa: B018

    def test_star_import_brings_all(self) -> None:
        names: dict[str, Any] = {}
        exec("from zgrid import *", names)
        assert set(zgrid.__all__) <= names.keys()

    def test_the_version_is_three_numbers(self) -> None:
        assert all(part.isdigit() for part in zgrid.__version__.split("."))
        assert zgrid.__version__.count(".") == 2


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
class TestPackages:
    def test_all_is_what_is_imported_or_made(self, path: Path) -> None:
        made: set[str] = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith(name_of(path)):
                made |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                made.add(node.name)
            elif isinstance(node, ast.Assign):
                made |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        assert set(module_of(path).__all__) == {name for name in made if not name.startswith("_")}

    def test_every_name_in_all_can_be_had(self, path: Path) -> None:
        module = module_of(path)
        assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
class TestDocstrings:
    def test_the_first_line_of_a_file_says_what_it_is_for(self, path: Path) -> None:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring
        assert path.read_text(encoding="utf-8").startswith('"""')
        assert docstring.split("\n")[0].rstrip().endswith((".", ":", "?", "``", "``."))

    def test_every_public_class_and_function_is_explained(self, path: Path) -> None:
        made = ast.parse(path.read_text(encoding="utf-8")).body
        public = [
            node
            for node in made
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
        ]
        assert [node.name for node in public if not ast.get_docstring(node)] == []

    def test_every_public_method_is_explained_where_it_begins(self, path: Path) -> None:
        assert [
            f"{cls.__name__}.{name}"
            for cls in public_classes(module_of(path))
            for name in public_methods(cls)
            if not documented(cls, name)
        ] == []
