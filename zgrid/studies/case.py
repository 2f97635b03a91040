"""A protocol alone: who talks to whom, and what each has to solve, drawn from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from zgrid.errors import UnknownNameError
from zgrid.links import LinkConfig
from zgrid.protocols import (
    VERTICAL,
    Graph,
    Local,
    Participant,
    Protocol,
    ProtocolConfig,
    Unit,
    horizontal_class,
    peers,
    star,
    vertical_class,
)

Range: TypeAlias = Annotated[
    tuple[float, float], BeforeValidator(lambda given: (given, given) if isinstance(given, int | float) else given)
]
"""From where to where a number is drawn, evenly; a single number is itself."""

VALUES: dict[str, tuple[float, float]] = {
    "p_pcc_mw": (-1.0, 1.0),
    "vm_mean_pu": (0.95, 1.05),
    "price": (60.0, 60.0),
    "feed_in_price": (20.0, 20.0),
    "position_mw": (-1.0, 1.0),
    "deviation_hz": (-0.1, 0.1),
}
"""What participants measure or are told where a study does not say; prices in $/MWh are those of one supplier."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GraphPart(_Section):
    """Who has whom as neighbours."""

    kind: Literal["ring", "line", "star", "complete", "grid"] = Field(
        "ring", description="star: the first in the middle; grid: as near to a square as the size allows"
    )
    size: int = Field(8, ge=1, le=1000, description="participants")


class UnitPart(_Section):
    """A unit that is drawn, or listed where its ranges are single numbers."""

    p_min_mw: Range = (0.0, 0.0)
    p_max_mw: Range = (60.0, 100.0)
    cost_a: Range = Field((0.03, 0.06), description="$/(MW^2 h)")
    cost_b: Range = Field((2.0, 4.0), description="$/MWh")
    cost_c: Range = Field((0.0, 0.0), description="$/h")

    @model_validator(mode="after")
    def _ordered(self) -> UnitPart:
        for name in UnitPart.model_fields:
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: expected low <= high, got {low:g} and {high:g}")
        if self.p_min_mw[1] > self.p_max_mw[0]:
            raise ValueError("expected every p_min_mw below every p_max_mw")
        if self.cost_a[0] < 0.0:
            raise ValueError("cost_a: expected at least 0")
        return self

    def draw(self, id: str, rng: np.random.Generator) -> Unit:
        """A unit; every number is drawn, so that the order of draws does not depend on what is fixed."""
        low, high, a, b, c = (float(rng.uniform(*getattr(self, name))) for name in UnitPart.model_fields)
        return Unit(id, low, high, a, b, c)


class ProtocolPart(_Section):
    """The section ``protocol`` of a study."""

    kind: str = Field(description="a horizontal protocol, or a vertical one whose devices are asked")
    config: Mapping[str, Any] = Field({}, description="its parameters, as in a topology")
    graph: GraphPart = GraphPart.model_validate({})
    units: UnitPart | tuple[UnitPart, ...] = Field(
        UnitPart.model_validate({}),
        description="one unit of each participant, drawn from the seed; a list is dealt out in turn",
    )
    demand_share: float = Field(0.5, ge=0, le=1, description="demand, as a share of the range of all units")
    demand_mw: float | None = Field(None, description="demand of all, instead of demand_share")
    values: Mapping[str, Range] = Field({}, description="what participants measure, by name, drawn from the seed")
    links: tuple[LinkConfig, ...] = Field((), description="faults of links, as in a topology")


class Case:
    """A protocol, its participants and their problems, for one seed."""

    def __init__(self, part: ProtocolPart, seed: int) -> None:
        """Raises:
        UnknownNameError: no such kind, or one whose participants do not talk.
        ValidationError: parameters that are not its own.
        """
        self.protocol: type[Protocol] = protocol_class(part.kind)
        self.config: ProtocolConfig = _config_class(part.kind).model_validate({"kind": part.kind, **part.config})
        names = [f"a{k + 1}" for k in range(part.graph.size)]
        self.graph = make_graph(part.graph.kind, names)
        centred = "peer" not in self.protocol.ROLES
        self.participants: Mapping[str, Participant] = star(names[0], names[1:]) if centred else peers(self.graph)
        rng = np.random.default_rng(seed)
        workers = names[1:] if centred else names
        specs = (part.units,) if isinstance(part.units, UnitPart) else part.units
        self.units = {name: specs[k % len(specs)].draw(f"{name}.unit", rng) for k, name in enumerate(workers)}
        floor = sum(unit.p_min_mw for unit in self.units.values())
        span = sum(unit.p_max_mw for unit in self.units.values()) - floor
        self.demand_mw = floor + part.demand_share * span if part.demand_mw is None else part.demand_mw
        ranges = {**VALUES, **part.values}
        askers = names[:1] if centred else names
        self.locals = {
            name: Local(
                {key: float(rng.uniform(*ends)) for key, ends in ranges.items()},
                (self.units[name],) if name in self.units else (),
                self.demand_mw / len(askers) if name in askers else 0.0,
            )
            for name in names
        }

    def misfits(self) -> list[str]:
        """What of it does not fit."""
        found = list(self.protocol.misfits(self.config, self.graph))
        if not self.units:
            found.append("a coordinator alone: expected graph.size of at least 2")
        return found


def protocol_class(kind: str) -> type[Protocol]:
    """What the participants of a kind are.

    Raises:
        UnknownNameError: no such kind, or one whose participants do not talk.
    """
    found = vertical_class(kind).NEGOTIATION if kind in VERTICAL and kind != "none" else horizontal_class(kind)
    if found is None or kind == "none":
        raise UnknownNameError(f"protocol {kind!r}: nobody talks in it")
    result: type[Protocol] = found
    return result


def _config_class(kind: str) -> type[ProtocolConfig]:
    config: type[ProtocolConfig] = vertical_class(kind).Config if kind in VERTICAL else horizontal_class(kind).Config
    return config


def make_graph(kind: str, names: list[str]) -> Graph:
    """A graph of so many: ring, line, star, complete or grid."""
    n = len(names)
    if kind == "star":
        edges = {(0, k) for k in range(1, n)}
    elif kind == "complete":
        edges = {(j, k) for k in range(n) for j in range(k)}
    elif kind == "grid":
        width = max(k for k in range(1, int(n**0.5) + 1) if n % k == 0)
        edges = {(k, k + width) for k in range(n - width)} | {(k, k + 1) for k in range(n - 1) if (k + 1) % width}
    else:
        edges = {(k, k + 1) for k in range(n - 1)} | ({(n - 1, 0)} if kind == "ring" and n > 2 else set())
    near: dict[str, list[int]] = {name: [] for name in names}
    for j, k in edges:
        near[names[j]].append(k)
        near[names[k]].append(j)
    return {name: [names[k] for k in sorted(others)] for name, others in near.items()}
