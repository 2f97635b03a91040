"""What a schema cannot say of protocols: that the graph carries them, and that their parameters fit it."""

from __future__ import annotations

from collections.abc import Iterator

from zgrid.errors import Finding
from zgrid.protocols import Graph, horizontal_class, islands
from zgrid.topology.kinds import UNSETTLED
from zgrid.topology.schema import Topology


def check_protocols(topology: Topology) -> Iterator[Finding]:
    """That all grids reach each other, and what the horizontal protocol itself has to say of the graph."""
    horizontal = topology.horizontal
    if horizontal is None or horizontal.kind == UNSETTLED:
        return
    kind = horizontal_class(horizontal.kind)
    graph = {name: grid.neighbours for name, grid in topology.grids.items()}
    if not all(other in graph for neighbours in graph.values() for other in neighbours):
        return  # told already
    if kind.ROLES and len(graph) > 1:
        yield from _check_connected(graph)
    for text in kind.misfits(horizontal, graph):
        yield Finding("horizontal", text)


def _check_connected(graph: Graph) -> Iterator[Finding]:
    first, *others = islands(graph)
    if others:
        names = " / ".join(", ".join(island) for island in (first, *others))
        text = f"the graph falls apart into {1 + len(others)} groups ({names}); expected all grids to be connected"
        yield Finding(f"grids.{others[0][0]}.neighbours", text)
