"""The places in a topology where a ``kind`` chooses a class, and with it the parameters that may stand there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from zgrid.agents.reward import REWARDS, RewardConfig, reward_class
from zgrid.devices import DEVICES, AssetConfig, device_class
from zgrid.errors import Finding, UnknownNameError
from zgrid.policies import POLICIES, PolicyConfig, policy_class
from zgrid.protocols import HORIZONTAL, VERTICAL, ProtocolConfig, horizontal_class, vertical_class


class Family(NamedTuple):
    """One family of kinds: the keys it stands at, its base config, its built-in names and how a kind is resolved."""

    base: type[BaseModel]
    table: Mapping[str, str]
    find: Callable[[str], Any]

    def config(self, kind: str) -> type[BaseModel]:
        """The config class of a kind.

        Raises:
            UnknownNameError: no such kind.
        """
        config: type[BaseModel] = self.find(kind).Config
        return config


DEVICE = Family(AssetConfig, DEVICES, device_class)
REWARD = Family(RewardConfig, REWARDS, reward_class)
POLICY = Family(PolicyConfig, POLICIES, policy_class)
VERTICAL_PROTOCOL = Family(ProtocolConfig, VERTICAL, vertical_class)
HORIZONTAL_PROTOCOL = Family(ProtocolConfig, HORIZONTAL, horizontal_class)

AT_TOP = {
    "reward": REWARD,
    "policy": POLICY,
    "vertical": VERTICAL_PROTOCOL,
    "horizontal": HORIZONTAL_PROTOCOL,
}
AT_GRID = {"reward": REWARD, "policy": POLICY, "vertical": VERTICAL_PROTOCOL}


UNSETTLED = "?"
"""The kind of a config that stands in for one that is wrong."""


class Place(NamedTuple):
    """Where a kind stands: the mapping that holds it, its key there, its dotted path and its family."""

    holder: dict[Any, Any]
    key: Any
    path: str
    family: Family


def places(raw: dict[Any, Any]) -> Iterator[Place]:
    """Every place in a raw topology where a kind stands."""
    yield from _places_at(raw, "", AT_TOP)
    grids: Any = raw.get("grids")
    for grid_id, grid in grids.items() if isinstance(grids, dict) else ():
        if not isinstance(grid, dict):
            continue
        yield from _places_at(grid, f"grids.{grid_id}.", AT_GRID)
        devices: Any = grid.get("devices")
        for name in devices if isinstance(devices, dict) else ():
            yield Place(devices, name, f"grids.{grid_id}.devices.{name}", DEVICE)


def _places_at(holder: dict[Any, Any], prefix: str, families: Mapping[str, Family]) -> Iterator[Place]:
    for key, family in families.items():
        if holder.get(key) is not None:
            yield Place(holder, key, prefix + key, family)


def settle(raw: dict[Any, Any]) -> list[Finding]:
    """Replace every kind's raw mapping by its validated config; what is wrong comes back as findings.

    A place that is wrong is filled with an unchecked config, so that the rest of the topology can be looked at too.
    """
    findings: list[Finding] = []
    for holder, key, path, family in list(places(raw)):
        value = holder[key]
        if isinstance(value, str):
            value = {"kind": value}
        holder[key] = _config(value, path, family, findings)
    return findings


def _config(value: Any, path: str, family: Family, findings: list[Finding]) -> BaseModel:
    filler = family.base.model_construct(kind=UNSETTLED)
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        findings.append(Finding(f"{path}.kind", f"missing; one of {', '.join(sorted(family.table))}"))
        return filler
    try:
        config = family.config(value["kind"])
    except UnknownNameError as error:
        findings.append(Finding(f"{path}.kind", str(error)))
        return filler
    try:
        return config.model_validate(value)
    except ValidationError as error:
        findings.extend(findings_of(error, path))
        return filler


def findings_of(error: ValidationError, prefix: str = "") -> list[Finding]:
    """A pydantic error as findings, with dotted paths."""
    findings = []
    for one in error.errors():
        where = ".".join(str(part) for part in one["loc"] if part != "[key]")
        text = {"missing": "missing", "extra_forbidden": "unknown key"}.get(one["type"], one["msg"])
        text = text.removeprefix("Value error, ")
        if one["type"] not in ("missing", "extra_forbidden", "value_error"):
            text += f", got {one['input']!r}"
        findings.append(Finding(".".join(part for part in (prefix, where) if part) or "topology", text))
    return findings
