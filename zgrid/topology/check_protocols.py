"""What a schema cannot say of protocols: that the graph carries them, and that their parameters fit it."""

from __future__ import annotations

from collections.abc import Iterator

from zgrid.agents.coordination import VALUES
from zgrid.devices import device_class
from zgrid.errors import Finding
from zgrid.protocols import (
    AveragingConfig,
    Graph,
    Unit,
    horizontal_class,
    islands,
    vertical_class,
    weight_misfits,
)
from zgrid.topology.kinds import UNSETTLED
from zgrid.topology.schema import GridConfig, Topology


def check_protocols(topology: Topology) -> Iterator[Finding]:
    """That all grids reach each other, and what the protocols themselves have to say of graph and units."""
    for name, grid in topology.grids.items():
        yield from _check_vertical(topology, name, grid)
    horizontal = topology.horizontal
    if horizontal is None or horizontal.kind in (UNSETTLED, "none"):
        return
    kind = horizontal_class(horizontal.kind)
    graph = {name: grid.neighbours for name, grid in topology.grids.items()}
    if not all(other in graph for neighbours in graph.values() for other in neighbours):
        return  # told already
    yield from _check_connected(graph)
    for value in kind.needs(horizontal):
        if value not in VALUES:
            known = ", ".join(VALUES)
            yield Finding(
                "horizontal", f"it starts from {value!r}, which no environment tells a grid; known are {known}"
            )
    units = {name: list(_units(topology, name, grid).values()) for name, grid in topology.grids.items()}
    given = horizontal.weights if isinstance(horizontal, AveragingConfig) else None
    wrong = [] if given is None else weight_misfits(graph, given)
    for text in wrong or [*kind.misfits(horizontal, graph), *kind.unit_misfits(horizontal, graph, units)]:
        yield Finding("horizontal", text)


def _check_vertical(topology: Topology, name: str, grid: GridConfig) -> Iterator[Finding]:
    vertical = grid.vertical or topology.vertical
    if vertical.kind == UNSETTLED:
        return
    kind = vertical_class(vertical.kind).NEGOTIATION
    if kind is None:
        return
    units = {f"{name}.{device}": [unit] for device, unit in _units(topology, name, grid).items()}
    graph: Graph = {name: tuple(units), **dict.fromkeys(units, (name,))}
    path = "vertical" if grid.vertical is None else f"grids.{name}.vertical"
    for text in [*kind.misfits(vertical, graph), *kind.unit_misfits(vertical, graph, units)]:
        yield Finding(path, f"{name}: {text}")


def _units(topology: Topology, name: str, grid: GridConfig) -> dict[str, Unit]:
    """The units of a grid as an episode begins."""
    found = {}
    for device, config in grid.devices.items():
        if config.kind != UNSETTLED:
            one = device_class(config.kind).one(config, topology.dt_h)
            full = (1.0,) * (len(one.SERIES) + len(one.MEASURES))  # as much of everything as there can be
            offer = one.offer(one.initial(), full)
            if offer is not None:
                found[device] = Unit(f"{name}.{device}", *offer)
    return found


def _check_connected(graph: Graph) -> Iterator[Finding]:
    first, *others = islands(graph)
    if others:
        names = " / ".join(", ".join(island) for island in (first, *others))
        text = f"the graph falls apart into {1 + len(others)} groups ({names}); expected all grids to be connected"
        yield Finding(f"grids.{others[0][0]}.neighbours", text)
