"""Which agents share a node, and where it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from zgrid.topology.schema import Pool, Run, Topology


class NodePlan(NamedTuple):
    """A process: its agents, and how and on which machine it runs (None: that of the env)."""

    agents: tuple[str, ...]
    run: Run
    host: str | None


def node_plans(topology: Topology) -> dict[str, NodePlan]:
    """Every agent node of a topology by its name; what runs inline is part of the env node.

    A node of one agent has its name. With ``placement: grid`` a grid's node hosts its devices too, with ``pool: N``
    there are ``pool_1`` to ``pool_N``; a device that names no machine is on that of its grid then. What is on another
    machine than its grid, or external, is a node of its own.
    """
    plans: dict[str, NodePlan] = {}
    for agent, node, run, host in _places(topology):
        before = plans.get(node, NodePlan((), run, host))
        plans[node] = before._replace(agents=(*before.agents, agent))
    return plans


def _places(topology: Topology) -> Iterator[tuple[str, str, Run, str | None]]:
    """(agent, node, run, host), devices before grids."""
    workers = _workers(topology)
    for grid_id, grid in topology.grids.items():
        for name, device in grid.devices.items():
            agent = f"{grid_id}.{name}"
            apart = topology.placement == "agent" or device.run != grid.run or device.host not in (None, grid.host)
            if device.run != "inline" and apart:
                yield agent, agent, device.run, device.host
            elif device.run != "inline":
                yield agent, workers[grid_id], grid.run, grid.host
    for grid_id, grid in topology.grids.items():
        if grid.run != "inline":
            yield grid_id, workers[grid_id], grid.run, grid.host


def _workers(topology: Topology) -> dict[str, str]:
    """The node of each grid's agent; a pool takes grids in equal parts, in their order."""
    workers = {grid_id: grid_id for grid_id in topology.grids}
    if isinstance(topology.placement, Pool):
        pooled = [name for name, grid in topology.grids.items() if grid.run == "process" and grid.host is None]
        count = min(topology.placement.pool, len(pooled))
        workers |= {name: f"pool_{at * count // len(pooled) + 1}" for at, name in enumerate(pooled)}
    return workers
