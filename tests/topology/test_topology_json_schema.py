"""The JSON schema, for editors: it accepts what zgrid accepts, and knows every key and every kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, small_topology

from zgrid.agents.reward import REWARDS
from zgrid.devices import DEVICES
from zgrid.policies import POLICIES
from zgrid.protocols import HORIZONTAL, VERTICAL
from zgrid.topology import json_schema, load

SCHEMA = json_schema()
TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "number": (int, float),
    "integer": int,
}  # fmt: skip


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """Whether a schema accepts a value, for the keywords that this schema uses."""
    if "$ref" in schema:
        return accepts(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], value)
    if "anyOf" in schema and not any(accepts(option, value) for option in schema["anyOf"]):
        return False
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        return False
    if "type" in schema and (not isinstance(value, TYPES[schema["type"]]) or _is_flag_as_number(schema, value)):
        return False
    if isinstance(value, str):
        return len(value) >= schema.get("minLength", 0) and bool(re.search(schema.get("pattern", ""), value))
    if isinstance(value, dict):
        return _accepts_mapping(schema, value)
    if isinstance(value, list):
        return all(accepts(schema.get("items", {}), item) for item in value)
    return _is_in_range(schema, value)


def _is_flag_as_number(schema: dict[str, Any], value: Any) -> bool:
    return isinstance(value, bool) and schema["type"] in ("number", "integer")


def _accepts_mapping(schema: dict[str, Any], value: dict[str, Any]) -> bool:
    if not set(schema.get("required", ())) <= value.keys() or len(value) < schema.get("minProperties", 0):
        return False
    return all(_accepts_entry(schema, key, item) for key, item in value.items())


def _accepts_entry(schema: dict[str, Any], key: str, item: Any) -> bool:
    if key in schema.get("properties", {}):
        return accepts(schema["properties"][key], item)
    fitting = [one for pattern, one in schema.get("patternProperties", {}).items() if re.search(pattern, key)]
    if fitting:
        return all(accepts(one, item) for one in fitting)
    rest = schema.get("additionalProperties", True)
    return rest if isinstance(rest, bool) else accepts(rest, item)


def _is_in_range(schema: dict[str, Any], value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    return low <= value <= high and value > schema.get("exclusiveMinimum", value - 1)


def all_values(schema: Any) -> Iterator[tuple[str, Any]]:
    """Every (keyword, value) at any depth."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            yield key, value
            yield from all_values(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from all_values(value)


def keys_of(value: Any) -> set[str]:
    """The names of all keys of a topology, not its ids."""
    if not isinstance(value, dict):
        return set()
    holders = [inner for key, inner in value.items() if key in ("grids", "devices") and isinstance(inner, dict)]
    named = {inner_id for holder in holders for inner_id in holder}
    taps = set(value.get("taps", {})) if isinstance(value.get("taps"), dict) else set()
    below = {key for inner in value.values() for key in keys_of(inner)}
    return (set(value) | below) - named - taps


def test_is_json() -> None:
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert SCHEMA["$schema"].startswith("https://json-schema.org/")


def test_every_reference_in_it_leads_somewhere() -> None:
    references = {value for key, value in all_values(SCHEMA) if key == "$ref"}
    assert references
    assert references <= {f"#/$defs/{name}" for name in SCHEMA["$defs"]}


def test_names_every_built_in_kind() -> None:
    constants = {value for key, value in all_values(SCHEMA) if key == "const"}
    for table in (DEVICES, REWARDS, POLICIES, VERTICAL, HORIZONTAL):
        assert table.keys() <= constants


@pytest.mark.parametrize("path", sorted((ROOT / "topologies").glob("*.yaml")), ids=lambda path: path.stem)
def test_knows_every_key_of_the_shipped_topologies_and_accepts_them(path: Path) -> None:
    topology = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = {name for key, value in all_values(SCHEMA) if key in ("properties", "patternProperties") for name in value}
    assert keys_of(topology) <= known
    assert accepts(SCHEMA, topology)


@pytest.mark.parametrize("grids", [1, 3])
def test_accepts_a_good_topology(grids: int) -> None:
    assert accepts(SCHEMA, small_topology(grids))


def test_accepts_short_and_long_forms_of_kinds() -> None:
    topology = small_topology()
    topology |= {"reward": "economic", "policy": {"kind": "idle"}, "vertical": {"kind": "setpoint"}}
    topology["grids"]["mg_1"]["network"] = "ieee13"
    assert accepts(SCHEMA, topology)


def test_accepts_a_plug_in_with_any_parameters() -> None:
    topology = small_topology() | {"policy": {"kind": "my_package.mine:Mine", "greed": 0.5}}
    topology["grids"]["mg_1"]["devices"]["fc_1"] = {"kind": "my_package.mine:FuelCell", "anything": 1}
    assert accepts(SCHEMA, topology)


def test_accepts_the_bare_name_of_a_plug_in() -> None:
    assert accepts(SCHEMA, small_topology() | {"policy": "my_package.mine:Mine"})


def test_accepts_a_dumped_topology() -> None:
    assert accepts(SCHEMA, json.loads(load(small_topology()).model_dump_json()))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("colour", 1),
        ("dt_h", "x"),
        ("dt_h", 0),
        ("message_broker", "kafka"),
        ("policy", "best"),
        ("grids", {}),
        ("reward", {"kind": "economic", "colour": 1}),
        ("reward", {"penalty": 3.0}),
        ("network", 5),
    ],
)
def test_refuses_what_load_refuses(key: str, value: Any) -> None:
    assert not accepts(SCHEMA, small_topology() | {key: value})


@pytest.mark.parametrize(
    "change", [{"kind": "generater"}, {"colour": 1}, {"p_max_mw": -1.0}, {"p_max_mw": "lots"}, {"run": "cloud"}]
)
def test_refuses_a_device_with_a_value_that_load_refuses(change: dict[str, Any]) -> None:
    topology = small_topology()
    topology["grids"]["mg_1"]["devices"]["dg_1"] |= change
    assert not accepts(SCHEMA, topology)


@pytest.mark.parametrize("key", ["kind", "bus", "p_max_mw"])
def test_refuses_a_device_without_what_it_needs(key: str) -> None:
    topology = small_topology()
    del topology["grids"]["mg_1"]["devices"]["dg_1"][key]
    assert not accepts(SCHEMA, topology)
