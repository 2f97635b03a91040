"""Node: a process that hosts agents of a topology on a ZeroMQ broker, from the first probe to the last Stop."""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from zgrid.agents import DeviceAgent, GridAgent
from zgrid.errors import LostMessageError, UnknownNameError
from zgrid.host import Host
from zgrid.messages import ENV, Envelope, Failure, NodeStats, Ready, RollCall, StatsRequest, Stop, Stopped, channel
from zgrid.messaging import Address, ZmqBroker
from zgrid.post import Post
from zgrid.topology import Topology

logger = logging.getLogger(__name__)

CONTROL = channel("control", "all")
_POLL_S = 1.0


def steward_of(agent: str) -> str:
    """The id of the steward of the node that hosts an agent first."""
    return f"node:{agent}"


class Steward:
    """A node's own voice: answers the roll call and requests for figures, and hears Stop."""

    def __init__(self, name: str, agents: Sequence[str], topology_hash: str) -> None:
        self.id = name
        self.refused: Counter[str] = Counter()
        self.stopped = False
        self.host: Host | None = None
        self._agents, self._hash = tuple(agents), topology_hash

    @property
    def hears(self) -> Mapping[str, frozenset[str]]:
        """The env, on the control channel."""
        return {CONTROL: frozenset((ENV,))}

    def receive(self, envelope: Envelope) -> Iterator[Post]:
        """RollCall, StatsRequest or Stop in, the answer out."""
        body = envelope.body
        if isinstance(body, RollCall):
            self._join(envelope.run)
            yield Post(channel("ready", ENV), envelope.step, 0, Ready(self._agents, self._hash))
        elif isinstance(body, StatsRequest):
            yield Post(channel("stats", ENV), envelope.step, 0, self._stats())
        elif isinstance(body, Stop):
            self.stopped = True
            yield Post(channel("stopped", ENV), envelope.step, 0, Stopped(self._agents))

    def _join(self, run: str) -> None:
        host = self.host
        assert host is not None
        if not host.run:
            host.run = run
            host.broker.adopt(run)
            logger.info("joined run %s", run)

    def _stats(self) -> NodeStats:
        host = self.host
        assert host is not None
        size = host.sent_bytes()
        sent = tuple((kind, count, size[kind]) for kind, count in sorted(host.sent().items()))
        return NodeStats(self.id, sent, tuple((cause, n, 0) for cause, n in sorted(host.refused().items())))


def make_agent(topology: Topology, agent_id: str) -> GridAgent | DeviceAgent:
    """The agent with this id.

    Raises:
        UnknownNameError: the topology has none.
    """
    for grid in topology.grid_specs:
        if grid.id == agent_id:
            return GridAgent(grid)
        for device in grid.devices:
            if device.id == agent_id:
                return DeviceAgent(device)
    raise UnknownNameError(f"no agent {agent_id!r} in the topology; there is {', '.join(topology.placement())}")


def serve(topology: Topology, agent_ids: Sequence[str], address: Address, incarnation: int = 0) -> None:
    """Host these agents until the env says Stop.

    Raises:
        UnknownNameError: an agent that the topology does not have.
        BrokerError: no proxy answers at the address.
        LostMessageError: a message was lost on the way here.
    """
    agents = [make_agent(topology, agent_id) for agent_id in agent_ids]
    broker = ZmqBroker(address)
    host = Host(broker, "", incarnation)
    try:
        steward = Steward(steward_of(agent_ids[0]), agent_ids, topology.hash())
        steward.host = host
        for agent in agents:
            host.add(agent)
        host.add(steward)
        broker.prove(topology.broker.ready_timeout_s)
        logger.info("%s: connected to %s", ", ".join(agent_ids), address)
        while not steward.stopped:
            host.pump(_POLL_S)
    except LostMessageError as error:
        failure = Failure(agent_ids[0], 0, f"LostMessageError: {error}", traceback.format_exc())
        host.send(agent_ids[0], channel("failure", ENV), 0, 0, failure)
        raise
    finally:
        broker.close()
