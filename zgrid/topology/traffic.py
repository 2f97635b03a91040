"""Who says what to whom: every channel of a run, its one speaker and its hearers, derived from the topology."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from zgrid.messages import ENV, channel
from zgrid.messaging import PROXY, WATCHER, Rights
from zgrid.topology.nodes import NodePlan, node_plans
from zgrid.topology.schema import Topology

CONTROL = channel("control", "all")


class Line(NamedTuple):
    """One channel of agents: who speaks on it and who hears it; ids of agents, or ``env``."""

    channel: str
    speaker: str
    hearers: tuple[str, ...]


def lines(topology: Topology) -> Iterator[Line]:
    """The channels of agents. The env also hears what those hear that may be restarted or replaced, so that it can
    tell their successors.
    """
    recalled = {agent for agent, policy in topology.on_failure().items() if policy.kind != "fail"}

    def line(name: str, speaker: str, *hearers: str) -> Line:
        known = ENV in (speaker, *hearers) or not recalled.intersection(hearers)
        return Line(name, speaker, hearers if known else (*hearers, ENV))

    for spec in topology.grid_specs:
        grid = spec.id
        yield from (line(channel(kind, grid), ENV, grid) for kind in ("action", "reset", "network"))
        yield line(channel("report", grid), grid, ENV)
        yield from (line(channel("peer", grid, other), other, grid) for other in spec.weights)
        for device in spec.devices if spec.head is not None else ():
            yield line(channel("brief", device.id), grid, device.id)
            yield line(channel("peer", device.id, grid), grid, device.id)
            yield line(channel("peer", grid, device.id), device.id, grid)
        for device in spec.devices:
            yield from (line(channel(kind, device.id), grid, device.id) for kind in ("setpoint", "reset"))
            yield line(channel("state", device.id), device.id, grid, ENV)


def homes(plans: dict[str, NodePlan], topology: Topology) -> dict[str, str]:
    """The node of each agent; what is inline, and the env itself, is at ``env``."""
    home = dict.fromkeys((*topology.runs(), ENV), ENV)
    return home | {agent: name for name, plan in plans.items() for agent in plan.agents}


def hearers(topology: Topology) -> dict[str, frozenset[str]]:
    """The nodes that hear each channel of agents."""
    home = homes(node_plans(topology), topology)
    return {line.channel: frozenset(home[agent] for agent in line.hearers) for line in lines(topology)}


def rights(topology: Topology) -> Rights:
    """What the proxy of a run with keys grants to each node; default deny.

    A node says what its agents say, a batch of that to each node that hears some of it, and of itself; the env may also
    say what those say for whom it may stand in.
    """
    plans = node_plans(topology)
    home = homes(plans, topology)
    publish: dict[str, set[str]] = defaultdict(set)
    hear: dict[str, set[str]] = defaultdict(set)
    replaced = {agent for agent, policy in topology.on_failure().items() if policy.kind == "fallback"}
    for line in lines(topology):
        speakers = {home[line.speaker], ENV} if line.speaker in replaced else {home[line.speaker]}
        listeners = {home[agent] for agent in line.hearers}
        for speaker in speakers:
            publish[speaker] |= {line.channel, *(channel("batch", node, speaker) for node in listeners - {speaker})}
        for node in listeners:
            hear[node] |= {line.channel, *(channel("batch", node, speaker) for speaker in speakers - {node})}
    publish[ENV].add(CONTROL)
    hear[ENV].add(channel("beat", PROXY))
    for node in (*plans, ENV):
        publish[node] |= {channel("node", node), channel("beat", node)}
        hear[ENV] |= {channel("node", node), channel("beat", node)}
        hear[node] |= {CONTROL, channel("resume", node)}
        publish[ENV].add(channel("resume", node))
    for spec in topology.device_specs:
        if spec.config.watchdog_s is not None:
            hear[home[spec.id]] |= {channel("beat", home[spec.grid]), channel("beat", ENV)}
    return Rights(_frozen(publish), _frozen(hear), frozenset((WATCHER,)))


def _frozen(channels: dict[str, set[str]]) -> dict[str, frozenset[str]]:
    return {node: frozenset(names) for node, names in channels.items()}
