"""Which grids are alike, so that whoever hosts many of them can step them, with their devices, as arrays.

It is worth it where there are a few of each sort, and possible where arrays give the same bits as one agent after the
other: built-in kinds, whose arithmetic is exact, setpoints as they are told, no rounds with neighbours, and links
without faults.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from zgrid.agents import GridSpec
from zgrid.messages import ENV
from zgrid.topology.nodes import NodePlan
from zgrid.topology.schema import Topology
from zgrid.topology.traffic import homes

SMALLEST = 4
"""Grids of one sort from which on arrays are faster than agents."""

Groups: TypeAlias = tuple[tuple[str, ...], ...]
"""Ids of grids, those that are alike together."""


def alike(topology: Topology, grids: Iterable[str] | None = None) -> Groups:
    """The grids, all or these, in groups of one sort; empty where they cannot, or should not, be stepped as arrays."""
    wanted = set(topology.grids if grids is None else grids)
    specs = [spec for spec in topology.grid_specs if spec.id in wanted]
    if not all(map(_is_exact, specs)):
        return ()
    groups: dict[Any, list[str]] = {}
    for spec in specs:
        groups.setdefault(_sort(topology, spec), []).append(spec.id)
    return tuple(map(tuple, groups.values())) if len(specs) >= SMALLEST * max(len(groups), 1) else ()


def squads(topology: Topology, plans: Mapping[str, NodePlan]) -> dict[str, Groups]:
    """The groups of each node, where all agents of the topology can be stepped so: each grid with all its devices."""
    home = homes(dict(plans), topology)
    if any(home[device.id] != home[device.grid] for device in topology.device_specs) or ENV in map(
        home.__getitem__, topology.grids
    ):
        return {}
    found = {name: alike(topology, [agent for agent in plan.agents if agent in topology.grids])
             for name, plan in plans.items()}  # fmt: skip
    return found if all(found.values()) else {}


def _is_exact(spec: GridSpec) -> bool:
    """Whether arrays give the same bits: not if there is a plug-in, nor with an exponential in the reward."""
    kinds = [spec.reward.kind, spec.vertical.kind, *(device.config.kind for device in spec.devices)]
    plugged = any(":" in kind for kind in kinds)
    alone = not spec.weights and not spec.links
    return not plugged and alone and spec.vertical.kind == "setpoint" and _shape_of_reward(spec) != "bowl"


def _shape_of_reward(spec: GridSpec) -> str:
    return str(getattr(spec.reward, "voltage", ""))


def _sort(topology: Topology, spec: GridSpec) -> Any:
    """What grids share that are alike: all that makes their messages as long, and their rewards the same function."""
    config = topology.grids[spec.id]
    devices = tuple((device.config.kind, len(device.controls)) for device in spec.devices)
    return config.network.kind, config.connect_at is None, devices, spec.reward
