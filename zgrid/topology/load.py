"""Read a topology: YAML, overrides, schema, and everything that can be checked before anything starts."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError

from zgrid.errors import Finding, ProfileError, TopologyError
from zgrid.profiles.files import SHIPPED, find_file
from zgrid.topology.check import check
from zgrid.topology.kinds import findings_of, settle
from zgrid.topology.schema import Topology

ONNX = "onnx:"
GRID = "{grid}"
SHIPPED_FOLDERS = tuple(Path(__file__).parents[up] / "topologies" for up in (1, 2))
"""What ships with zgrid: installed, and in the repository."""

Source: TypeAlias = str | Path | Mapping[str, Any] | Topology
"""A topology file, its content, or a topology that is loaded already."""


def load(source: Source, overrides: Mapping[str, Any] | None = None, *, checked: bool = True) -> Topology:
    """The topology of a file (or its content), checked completely.

    ``overrides`` are dotted keys, as for ``--set``; ``*`` stands for every key: ``{"grids.*.policy": "idle"}``. A node
    that gets a topology from its parent has no need to look again for what it names: ``checked=False``.

    Raises:
        TopologyError: with every finding and its path.
    """
    topology, findings = examine(source, overrides, checked=checked)
    if topology is None or findings:
        raise TopologyError(_title(source), findings)
    return topology


def examine(
    source: Source, overrides: Mapping[str, Any] | None = None, *, checked: bool = True
) -> tuple[Topology | None, list[Finding]]:
    """The topology, where it has the right shape, and everything that is wrong with it."""
    source = find_topology(source) if isinstance(source, str) else source
    raw, findings = _read(source)
    if raw is None:
        return None, findings
    folder = Path(source).resolve().parent if isinstance(source, str | Path) else Path.cwd()
    for key, value in (overrides or {}).items():
        findings += override(raw, key, value)
    _find_networks(raw, folder)
    _find_keys(raw, folder)
    missing = _find_policies(raw, folder)
    findings += missing if checked else []
    findings += _find_files(raw, folder) if checked else []
    findings += settle(raw)
    try:
        topology = Topology.model_validate(raw)
    except ValidationError as error:
        findings += findings_of(error)
        if not _drop_unknown_keys(raw, error):
            return None, findings
        topology = Topology.model_validate(raw)
    return topology, findings + (check(topology) if checked else [])


def _drop_unknown_keys(raw: dict[str, Any], error: ValidationError) -> bool:
    """Take out what is unknown, so that the rest can be looked at too; False if more than that is wrong."""
    errors = error.errors()
    if any(one["type"] != "extra_forbidden" for one in errors):
        return False
    for one in errors:
        *way, last = one["loc"]
        holder: Any = raw
        for key in way:
            holder = holder[key]
        del holder[last]
    return True


def find_topology(name: str) -> str | Path:
    """The file of a topology that ships with zgrid (``3mg``), or the name itself."""
    if Path(name).suffix or Path(name).is_file():
        return name
    for folder in SHIPPED_FOLDERS:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    return name


def _title(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else "topology"


def _read(source: Source) -> tuple[dict[str, Any] | None, list[Finding]]:
    if isinstance(source, Topology):
        return source.model_dump(mode="python"), []
    if isinstance(source, Mapping):
        return copy.deepcopy(dict(source)), []
    return read_yaml(source)


def read_yaml(file: str | Path) -> tuple[dict[str, Any] | None, list[Finding]]:
    """The mapping in a YAML file, and what is wrong with the file; None where nothing can be made of it."""
    try:
        text = Path(file).read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        return None, [Finding("file", f"cannot be read: {error}")]
    except yaml.YAMLError as error:
        return None, [Finding("file", f"not YAML: {error}")]
    if not isinstance(raw, dict):
        return None, [Finding("file", "expected a mapping at the top")]
    findings = _duplicates(node, "")
    return (None if any("alias" in finding.message for finding in findings) else raw), findings


def _duplicates(node: yaml.Node | None, path: str, within: frozenset[int] = frozenset()) -> list[Finding]:
    """Keys given twice, which YAML readers otherwise settle in silence."""
    findings: list[Finding] = []
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            findings += _duplicates(item, f"{path}.{index}", within)
    if not isinstance(node, yaml.MappingNode):
        return findings
    seen: set[str] = set()
    if id(node) in within:
        return [Finding(path, "an alias of a section that holds it")]
    within = within | {id(node)}
    for key, value in node.value:
        here = f"{path}.{key.value}" if path else str(key.value)
        if key.value in seen:
            findings.append(Finding(here, f"duplicate id or key, again in line {key.start_mark.line + 1}"))
        seen.add(key.value)
        findings += _duplicates(value, here, within)
    return findings


def override(raw: dict[str, Any], key: str, value: Any) -> list[Finding]:
    """Set a dotted key in place; missing sections on the way are made, so that the schema can judge them."""
    *way, last = key.split(".")
    holders: list[Any] = [raw]
    for part in way:
        holders = [inner for holder in holders for inner in _step_into(holder, part)]
    holders = [holder for holder in holders if isinstance(holder, dict)]
    for holder in holders:
        for name in list(holder) if last == "*" else [last]:
            holder[name] = copy.deepcopy(value)
    return [] if holders else [Finding(key, "the override fits nothing")]


def _step_into(holder: Any, part: str) -> list[Any]:
    """The sections that a part of a key leads to; a list is entered by an entry's place."""
    if isinstance(holder, list):
        inside = holder if part == "*" else [holder[int(part)]] if part.isdecimal() and int(part) < len(holder) else []
        return [inner for inner in inside if isinstance(inner, dict | list)]
    if part == "*":
        return [inner for inner in holder.values() if isinstance(inner, dict | list)]
    inner = holder.get(part)
    if isinstance(inner, str):
        inner = holder[part] = {"kind": inner}
    if inner is None:
        inner = holder[part] = {}
    return [inner] if isinstance(inner, dict | list) else []


def _find_files(raw: dict[str, Any], folder: Path) -> list[Finding]:
    """Make the paths of files absolute, so that a topology means the same in every process."""
    findings: list[Finding] = []
    profiles = raw.get("profiles")
    if isinstance(profiles, dict) and "file" in profiles:
        given = profiles["file"]
        names = [str(name) for name in (given if isinstance(given, list | tuple) else [given])]
        found = []
        for name in names:
            try:
                path = find_file(name, folder)
                found.append(name if name.startswith(SHIPPED) else str(path.resolve()))
            except ProfileError as error:
                findings.append(Finding("profiles.file", str(error)))
                found.append(name)
        profiles["file"] = found
    return findings


def _find_policies(raw: dict[str, Any], folder: Path) -> list[Finding]:
    """Spell out every ``policy: onnx:FILE`` as the absolute path of the file and what is in it.

    ``{grid}`` in a file's name stands for a grid. Only a file that is there is spelt out: the machine of a device needs
    none.
    """
    grids = raw.get("grids")
    named = {name: grid for name, grid in grids.items() if isinstance(grid, dict)} if isinstance(grids, dict) else {}
    _spell(raw)
    if GRID in _file_of(raw):
        for grid in named.values():
            if grid.get("policy") is None:
                grid["policy"] = copy.deepcopy(raw["policy"])
        raw["policy"] = "idle"  # nobody's
    findings = _find_policy(raw, "policy", "", folder)
    for name, grid in named.items():
        _spell(grid)
        findings += _find_policy(grid, f"grids.{name}.policy", name, folder)
    return findings


def _spell(holder: dict[str, Any]) -> None:
    policy = holder.get("policy")
    if isinstance(policy, str) and policy.startswith(ONNX):
        holder["policy"] = {"kind": "onnx", "file": policy.removeprefix(ONNX)}


def _file_of(holder: dict[str, Any]) -> str:
    policy = holder.get("policy")
    return str(policy.get("file", "")) if isinstance(policy, dict) and policy.get("kind") == "onnx" else ""


def _find_policy(holder: dict[str, Any], path: str, grid: str, folder: Path) -> list[Finding]:
    """Where the policy's file is, and the hash of its bytes."""
    name = _file_of(holder).replace(GRID, grid)
    if not name or holder["policy"].get("sha256") is not None:
        return []
    for file in (folder / name, *(place / name for place in SHIPPED_FOLDERS)):
        if file.is_file():
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            holder["policy"] |= {"file": str(file.resolve()), "sha256": digest}
            return []
    holder["policy"]["file"] = str((folder / name).resolve())
    return [Finding(path, f"no file {holder['policy']['file']}")]


def _find_networks(raw: dict[str, Any], folder: Path) -> None:
    """Spell out every ``network: ieee13``, and make the paths of JSON files absolute."""
    grids = raw.get("grids")
    for holder in (raw, *(grids.values() if isinstance(grids, dict) else ())):
        if isinstance(holder, dict):
            _find_network(holder, folder)


def _find_network(holder: dict[str, Any], folder: Path) -> None:
    network = holder.get("network")
    if isinstance(network, str):
        network = holder["network"] = {"kind": network}
    kind = network.get("kind") if isinstance(network, dict) else None
    if isinstance(network, dict) and isinstance(kind, str) and kind.endswith(".json") and (folder / kind).is_file():
        network["kind"] = str((folder / kind).resolve())


def _find_keys(raw: dict[str, Any], folder: Path) -> None:
    """Make the path of the folder of keys absolute."""
    broker = raw.get("broker")
    if isinstance(broker, dict) and isinstance(broker.get("keys"), str):
        broker["keys"] = str((folder / broker["keys"]).resolve())
