"""The env's own end of the bus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from zgrid.errors import AgentError
from zgrid.gather import TAKEN, Gather
from zgrid.host import steward_of
from zgrid.messages import (
    ENV,
    KIND,
    DeviceState,
    Envelope,
    Failure,
    LinkCounts,
    NodeStats,
    Notice,
    Ready,
    Report,
    Resumed,
    Stopped,
    channel,
)
from zgrid.muster import Muster
from zgrid.post import Post
from zgrid.topology import Topology
from zgrid.topology.nodes import NodePlan


class EnvPort:
    """Takes in what agents and nodes say to the env."""

    id = ENV

    def __init__(self, topology: Topology, plans: Mapping[str, NodePlan]) -> None:
        self.refused: Counter[str] = Counter()
        self.states: Gather[DeviceState] = Gather(device.id for device in topology.device_specs)
        self.reports: Gather[Report] = Gather(topology.grids)
        self.muster = Muster(self.refused)
        """Takes what nodes say in columns."""
        self.plans = plans
        self.nodes = tuple(plans)
        self.epoch = 0
        self.ready: dict[str, int] = {}
        """The nodes that have answered the roll call of this epoch, and their incarnations."""
        self.incarnations: dict[str, int] = {}
        """The last known incarnation of each node."""
        self.stopping = set(self.nodes)
        self.wrong_topology: set[str] = set()
        self.node_stats: dict[str, NodeStats] = {}
        """The figures of each node that has told all of them since they were last asked for."""
        self.links: dict[tuple[str, str, str], LinkCounts] = {}
        """What nodes have told of their links since then: by source, destination, and kind."""
        self.resumed: set[tuple[str, int]] = set()
        self.notices: list[Notice] = []
        of_grids, of_devices = (topology.hash(one) for one in (next(iter(topology.grids)), topology.device_specs[0].id))
        self._expected = {
            node: (plan.agents, of_grids if plan.agents[-1] in topology.grids else of_devices)
            for node, plan in plans.items()
        }
        self._step = 0
        self.hears = {channel("node", node): frozenset((steward_of(node),)) for node in (*self.nodes, ENV)}
        self.hears |= {channel("state", device.id): frozenset((device.id,)) for device in topology.device_specs}
        self.hears |= {channel("report", grid): frozenset((grid,)) for grid in topology.grids}

    @property
    def waiting(self) -> tuple[str, ...]:
        """The nodes that have not answered the roll call of this epoch, in their order."""
        return tuple(node for node in self.nodes if node not in self.ready)

    def open(self, step: int) -> None:
        """Wait for the states and reports of this step from now on."""
        self._step = step
        self.states.open(step)
        self.reports.open(step)
        self.muster.close()

    def ask_anew(self) -> None:
        """The figures of all nodes are about to be asked for."""
        self.node_stats.clear()
        self.links.clear()

    def begin_epoch(self) -> None:
        """Everybody has to answer the roll call anew."""
        self.epoch += 1
        self.ready.clear()

    def receive(self, envelope: Envelope) -> list[Post]:
        """Keep what is said.

        Raises:
            AgentError: an agent failed in the open step, or for a reason outside any step.
        """
        body = envelope.body
        kind = type(body)
        if kind is DeviceState or kind is Report:
            gather: Gather[Any] = self.states if kind is DeviceState else self.reports
            muster = self.muster  # who speaks for itself is in no column
            if muster.is_open and envelope.step == self._step and muster.kind == KIND[kind]:
                for item in muster.dissolve():
                    gather.add(item.sender, item.body, item.step)
            verdict = gather.add(envelope.sender, body, envelope.step)
            if verdict is not TAKEN:
                self.refused[f"{verdict} {envelope.sender}"] += 1
        elif isinstance(body, Ready):
            self._on_ready(envelope, body)
        elif isinstance(body, Failure) and 0 < body.step < self._step:
            self.refused[f"stale {body.agent}"] += 1
        elif isinstance(body, Failure):
            raise AgentError(body.agent, body.step, body.cause, body.traceback)
        elif isinstance(body, NodeStats):
            self.links.update((link[:3], link) for link in body.links)
            if body.last:
                self.node_stats[body.node] = body
        elif isinstance(body, Resumed):
            self.resumed.add((body.agent, body.incarnation))
        elif isinstance(body, Notice):
            self.notices.append(body)
        elif isinstance(body, Stopped):
            self.stopping.discard(_node(envelope))
        return []

    def _on_ready(self, envelope: Envelope, ready: Ready) -> None:
        node = _node(envelope)
        if (ready.agents, ready.topology_hash) == self._expected.get(node):
            if ready.epoch == self.epoch:
                self.ready[node] = envelope.incarnation
            self.incarnations[node] = envelope.incarnation
            self.wrong_topology.discard(node)
        else:
            self.wrong_topology.add(node)


def _node(envelope: Envelope) -> str:
    """The node whose steward speaks."""
    return envelope.sender.partition(":")[2]
