"""Who says and hears what in a topology: what the proxy of a run with keys grants."""

from __future__ import annotations

from collections import defaultdict

from zgrid.messages import ENV, channel
from zgrid.messaging.keys import WATCHER
from zgrid.messaging.rights import Rights
from zgrid.topology.schema import Topology


def rights(topology: Topology) -> Rights:
    """The channels of every node; agents that run inline are the env's."""
    publish: dict[str, set[str]] = defaultdict(set)
    hear: dict[str, set[str]] = defaultdict(set)
    placement = topology.placement()
    node = {agent: ENV if run == "inline" else agent for agent, run in placement.items()}
    publish[ENV].add(channel("control", "all"))
    for agent in placement:
        publish[node[agent]] |= {channel(kind, ENV) for kind in ("ready", "stats", "stopped", "failure")}
        hear[node[agent]].add(channel("control", "all"))
    hear[ENV] |= {channel(kind, ENV) for kind in ("ready", "stats", "stopped", "failure")}
    for grid in topology.grid_specs:
        here = node[grid.id]
        publish[ENV] |= {channel(kind, grid.id) for kind in ("reset", "action", "network")}
        hear[here] |= {channel(kind, grid.id) for kind in ("reset", "action", "network", "peer")}
        publish[here] |= {channel("report", grid.id), *(channel("peer", other) for other in grid.weights)}
        hear[ENV].add(channel("report", grid.id))
        for device in grid.devices:
            there = node[device.id]
            publish[here] |= {channel(kind, device.id) for kind in ("reset", "setpoint")}
            hear[there] |= {channel(kind, device.id) for kind in ("reset", "setpoint")}
            publish[there].add(channel("state", device.id))
            hear[here].add(channel("state", device.id))
            hear[ENV].add(channel("state", device.id))
    return Rights(
        {name: frozenset(channels) for name, channels in publish.items()},
        {name: frozenset(channels) for name, channels in hear.items()},
        frozenset((WATCHER,)),
    )
