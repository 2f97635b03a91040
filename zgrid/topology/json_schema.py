"""The JSON schema of a topology file, for editors."""

from __future__ import annotations

from typing import Any

from zgrid.topology.kinds import AT_GRID, AT_TOP, DEVICE, Family
from zgrid.topology.schema import Topology


def json_schema() -> dict[str, Any]:
    """The schema, with the parameters of every kind that ships with zgrid; a plug-in's are not checked."""
    schema = Topology.model_json_schema()
    definitions = schema["$defs"]
    grid = definitions["GridConfig"]["properties"]
    for key, family in AT_TOP.items():
        schema["properties"][key] = _or_null(_choice(family, definitions), schema["properties"][key])
    for key, family in AT_GRID.items():
        grid[key] = _or_null(_choice(family, definitions), grid[key])
    grid["devices"]["patternProperties"] = {"": _choice(DEVICE, definitions)}
    for holder in (schema["properties"], grid):
        holder["network"] = {"anyOf": [{"type": "string"}, holder["network"]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _choice(family: Family, definitions: dict[str, Any]) -> dict[str, Any]:
    """One of the family's kinds with its parameters, the bare name of one that needs none, or a plug-in."""
    options: list[dict[str, Any]] = []
    for kind in family.table:
        own = family.config(kind).model_json_schema()
        definitions |= own.pop("$defs", {})
        own["properties"]["kind"] = {"const": kind}
        required = set(own.get("required", ())) - {"kind"}
        own["required"] = sorted(required | {"kind"})
        options.append(own)
        if not required:
            options.append({"const": kind})
    options.append({"type": "string", "pattern": ":"})
    options.append({"type": "object", "properties": {"kind": {"type": "string", "pattern": ":"}}, "required": ["kind"]})
    return {"anyOf": options}


def _or_null(choice: dict[str, Any], was: dict[str, Any]) -> dict[str, Any]:
    """The choice, and null where the key may be left out."""
    optional = {"type": "null"} in was.get("anyOf", ())
    return {"anyOf": [*choice["anyOf"], {"type": "null"}]} if optional else choice
