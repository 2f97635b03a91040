"""The env's own end of the bus."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from zgrid.errors import AgentError
from zgrid.gather import TAKEN, Gather
from zgrid.messages import ENV, KIND, DeviceState, Envelope, Failure, NodeStats, Ready, Report, Stopped, channel
from zgrid.node import steward_of
from zgrid.post import Post
from zgrid.topology import Topology

_LATENCIES = 10_000


class EnvPort:
    """Takes in what agents and nodes say to the env."""

    id = ENV

    def __init__(self, topology: Topology, remote: Iterable[str]) -> None:
        self.refused: Counter[str] = Counter()
        self.states: Gather[DeviceState] = Gather(device.id for device in topology.device_specs)
        self.reports: Gather[Report] = Gather(topology.grids)
        self.waiting = set(remote)
        self.stopping = set(remote)
        self.wrong_topology: set[str] = set()
        self.node_stats: dict[str, NodeStats] = {}
        self.latency_ns: dict[str, deque[int]] = {}
        of_grids, of_devices = (topology.hash(one) for one in (next(iter(topology.grids)), topology.device_specs[0].id))
        self._hash_of = {agent: of_grids if agent in topology.grids else of_devices for agent in topology.placement()}
        self._step = 0
        agents = frozenset(topology.placement())
        stewards = frozenset(map(steward_of, agents))
        self.hears = dict.fromkeys((channel(kind, ENV) for kind in ("ready", "stats", "stopped")), stewards)
        self.hears[channel("failure", ENV)] = agents
        self.hears |= {channel("state", device.id): frozenset((device.id,)) for device in topology.device_specs}
        self.hears |= {channel("report", grid): frozenset((grid,)) for grid in topology.grids}

    def open(self, step: int) -> None:
        """Wait for the states and reports of this step from now on."""
        self._step = step
        self.states.open(step)
        self.reports.open(step)

    def receive(self, envelope: Envelope) -> list[Post]:
        """Keep what is said.

        Raises:
            AgentError: an agent failed in the open step, or for a reason outside any step.
        """
        body = envelope.body
        kind = type(body)
        if kind is DeviceState or kind is Report:
            gather: Gather[Any] = self.states if kind is DeviceState else self.reports
            verdict = gather.add(envelope.sender, body, envelope.step)
            if verdict is not TAKEN:
                self.refused[f"{verdict} {envelope.sender}"] += 1
            else:
                self._note_latency(KIND[kind], envelope.sent_ns)
        elif isinstance(body, Ready):
            self._on_ready(body)
        elif isinstance(body, Failure) and 0 < body.step < self._step:
            self.refused[f"stale {body.agent}"] += 1
        elif isinstance(body, Failure):
            raise AgentError(body.agent, body.step, body.cause, body.traceback)
        elif isinstance(body, NodeStats):
            self.node_stats[body.node] = body
        elif isinstance(body, Stopped):
            self.stopping.difference_update(body.agents)
        return []

    def _on_ready(self, ready: Ready) -> None:
        if all(ready.topology_hash == self._hash_of.get(agent) for agent in ready.agents):
            self.waiting.difference_update(ready.agents)
            self.wrong_topology.difference_update(ready.agents)
        else:
            self.wrong_topology.update(ready.agents)

    def _note_latency(self, kind: str, sent_ns: int) -> None:
        latencies = self.latency_ns.get(kind)
        if latencies is None:
            latencies = self.latency_ns[kind] = deque(maxlen=_LATENCIES)
        latencies.append(time.time_ns() - sent_ns)


def percentiles(latencies_ns: Iterable[int]) -> Mapping[str, float]:
    """Median and 99th percentile of latencies, in ms."""
    values = np.fromiter(latencies_ns, dtype=np.float64) * 1e-6
    p50, p99 = np.percentile(values, (50.0, 99.0))
    return {"p50": float(p50), "p99": float(p99)}
