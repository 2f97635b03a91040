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
from zgrid.messaging import Address, ZmqBroker, credentials_of
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
        self.left = False
        """Whether a new run has called: its first one has ended without a word."""
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
            if not self._join(envelope.run):
                return
            yield Post(channel("ready", ENV), envelope.step, 0, Ready(self._agents, self._hash))
        elif isinstance(body, StatsRequest):
            yield Post(channel("stats", ENV), envelope.step, 0, self._stats())
        elif isinstance(body, Stop):
            self.stopped = True
            yield Post(channel("stopped", ENV), envelope.step, 0, Stopped(self._agents))

    def _join(self, run: str) -> bool:
        host = self.host
        assert host is not None
        if not host.run:
            host.run = run
            host.broker.adopt(run)
            logger.info("joined run %s", run)
        self.left = host.run != run
        return not self.left

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


def serve(topology: Topology, agent_id: str, address: Address, incarnation: int = 0) -> None:
    """Host an agent until the env says Stop. Where a new run calls before that, begin anew with it.

    Raises:
        UnknownNameError: an agent that the topology does not have.
        BrokerError: no proxy answers at the address. RefusedError: it refuses this node's key.
        KeyFileError: the topology has keys, and this node's is not here.
        LostMessageError: a message was lost on the way here.
    """
    while not _serve_run(topology, agent_id, address, incarnation):
        logger.info("%s: a new run has called", agent_id)


def _serve_run(topology: Topology, agent_id: str, address: Address, incarnation: int) -> bool:
    """Host an agent for one run; whether that was ended by a Stop."""
    agent = make_agent(topology, agent_id)
    broker = ZmqBroker(address, credentials=credentials_of(topology.broker.keys, agent_id))
    host = Host(broker, "", incarnation)
    steward = Steward(steward_of(agent_id), (agent_id,), topology.hash(agent_id))
    steward.host = host
    try:
        host.add(agent)
        host.add(steward)
        broker.prove(topology.broker.ready_timeout_s)
        logger.info("%s: connected to %s", agent_id, address)
        while not (steward.stopped or steward.left):
            host.pump(_POLL_S)
    except LostMessageError as error:
        failure = Failure(agent_id, 0, f"LostMessageError: {error}", traceback.format_exc())
        host.send(agent_id, channel("failure", ENV), 0, 0, failure)
        raise
    finally:
        broker.close()
    return steward.stopped
