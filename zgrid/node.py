"""Node: a process that hosts agents of a topology on a ZeroMQ broker, from the first probe to the last Stop."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from zgrid.agents import DeviceAgent, GridAgent
from zgrid.chronicle import Agent, Memory, recall
from zgrid.errors import LostMessageError, UnknownNameError
from zgrid.host import Bus, Host, steward_of
from zgrid.lifeline import Signs
from zgrid.links import counted
from zgrid.messages import (
    ENV,
    Envelope,
    Item,
    NodeStats,
    Notice,
    Ready,
    Rearm,
    Resend,
    Resume,
    Resumed,
    RollCall,
    StatsRequest,
    Stop,
    Stopped,
    channel,
)
from zgrid.messaging import Address, Pulse, ZmqBroker, credentials_of
from zgrid.post import Post
from zgrid.squad import Squad
from zgrid.topology import Topology
from zgrid.topology.alike import squads
from zgrid.topology.nodes import node_plans
from zgrid.topology.traffic import CONTROL, hearers, homes, lines

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_PART = 500
"""Links in a message, well below the most bytes that one may have."""


class Steward:
    """A node's own voice: answers the roll call and requests for figures, brings agents back, and hears Stop."""

    def __init__(self, name: str, agents: Sequence[Agent], topology_hash: str, build: Callable[[str], Agent]) -> None:
        """``build`` makes an agent anew."""
        self.id = steward_of(name)
        self.left = False
        """Whether a new run has called: its first one has ended without a word."""
        self.refused: Counter[str] = Counter()
        self.stopped = False
        self.host: Host | None = None
        self.agents = {agent.id: agent for agent in agents}
        self.patience_s = 10.0
        self._name, self._hash, self._build = name, topology_hash, build
        self._epoch = 0
        self._histories: dict[str, tuple[Item, ...]] = {}
        self._answers = channel("node", name)

    @property
    def hears(self) -> Mapping[str, frozenset[str]]:
        """The env, on the control channel and on one of its own."""
        return dict.fromkeys((CONTROL, channel("resume", self._name)), frozenset((ENV,)))

    def receive(self, envelope: Envelope) -> Iterator[Post]:
        """RollCall, StatsRequest, Resume, Resend, Rearm or Stop in, the answer out."""
        body, step = envelope.body, envelope.step
        if isinstance(body, RollCall):
            if self._join(envelope, body):
                yield self._answer(step, Ready(tuple(self.agents), self._hash, body.epoch))
        elif isinstance(body, StatsRequest):
            for figures in self._stats():
                yield self._answer(step, figures)
        elif isinstance(body, Resume) and body.agent in self.agents:
            yield from self._resume(step, body)
        elif isinstance(body, Resend):
            self._host.say_again()
        elif isinstance(body, Rearm):
            self._rearm(body.agent)
        elif isinstance(body, Stop):
            self.stopped = True
            yield self._answer(step, Stopped(tuple(self.agents)))

    @property
    def _host(self) -> Host:
        assert self.host is not None
        return self.host

    def _answer(self, step: int, body: Ready | NodeStats | Resumed | Stopped) -> Post:
        return Post(self._answers, step, 0, body)

    def _join(self, envelope: Envelope, call: RollCall) -> bool:
        """Join the run that calls, unless in another; in a run that has begun without this node, wait to be told what
        its agents have missed.
        """
        host, run = self._host, envelope.run
        if not host.run:
            host.run = run
            host.broker.adopt(run)
            self._epoch = call.epoch
            logger.info("joined run %s", run)
            for agent in self.agents if envelope.step > 0 else ():
                host.suspend(agent)
        self.left = host.run != run
        if not self.left and call.epoch > self._epoch:
            self._epoch = call.epoch
            host.broker.forget()
            host.broker.prove(self.patience_s)
        return not self.left

    def _resume(self, step: int, body: Resume) -> Iterator[Post]:
        """Build an agent anew from what it has heard, and let it speak of the open step."""
        history = self._histories.pop(body.agent, ()) + body.history
        if not body.last:
            self._histories[body.agent] = history
            return
        host, agent = self._host, self._build(body.agent)
        logger.warning("%s: begins anew, as incarnation %d", body.agent, body.incarnation)
        host.remove(self.agents[body.agent])
        self.agents[body.agent] = agent
        host.succeed(body.agent, body.incarnation)
        host.add(agent)
        known = {(item.channel, item.step, item.round) for item in history}
        heard = [(to, e) for to, e in host.resume(body.agent) if (to, e.step, e.round) not in known]
        later = tuple(Item(to, "", e.sender, e.incarnation, e.step, e.round, e.body) for to, e in heard)
        try:
            posts = recall(agent, Memory(body.at, body.state, body.fallen, history + later), step)
        except Exception as error:  # noqa: BLE001 - users' code, as wherever an agent acts
            host.tell_failure(body.agent, step, error)
            return
        for to, at, round, said in posts:
            host.send(body.agent, to, at, round, said)
        yield self._answer(step, Resumed(body.agent, body.incarnation))

    def _rearm(self, agent_id: str) -> None:
        agent = self.agents.get(agent_id)
        if isinstance(agent, DeviceAgent) and agent.latched:
            agent.rearm()
            logger.warning("%s: rearmed", agent_id)

    def _stats(self) -> Iterator[NodeStats]:
        """The figures, and before them as many parts of the links as do not fit into one message."""
        host = self._host
        size = host.sent_bytes()
        sent = tuple((kind, count, size[kind]) for kind, count in sorted(host.sent().items()))
        refused = tuple((cause, n, 0) for cause, n in sorted(host.refused().items()))
        links = counted(agent.ears for agent in self.agents.values())
        while len(links) > _PART:
            yield NodeStats(self._name, (), (), links[:_PART], last=False)
            links = links[_PART:]
        yield NodeStats(self._name, sent, refused, links)


class Watchdog:
    """Lets devices go to their safe setpoints when nothing was heard of their grid's node for the time they declare.

    Where the env may act for the grid, it is enough to hear the env.
    """

    def __init__(self, topology: Topology, agents: Mapping[str, Agent], home: Mapping[str, str]) -> None:
        """``agents`` are those of the node, as they are replaced."""
        self._agents = agents
        self._armed: dict[str, Agent] = {}
        self._limits: dict[str, tuple[str, float, tuple[str, ...]]] = {}
        for spec in topology.device_specs:
            limit_s = spec.config.watchdog_s
            if spec.id in agents and limit_s is not None and home[spec.grid] != home[spec.id]:
                replaced = topology.grids[spec.grid].on_failure.kind == "fallback"
                nodes = {home[spec.grid], ENV} if replaced else {home[spec.grid]}
                self._limits[spec.id] = (spec.grid, limit_s, tuple(channel("beat", node) for node in sorted(nodes)))
        self.channels = frozenset(name for _, _, names in self._limits.values() for name in names)
        self.poll_s = min((limit_s / 4 for _, limit_s, _ in self._limits.values()), default=_POLL_S)

    def look(self, pulse: Pulse) -> Iterator[Notice]:
        """Trip the devices whose grid is silent; what to tell the env."""
        for agent_id, (grid, limit_s, names) in self._limits.items():
            agent = self._agents[agent_id]
            if not isinstance(agent, DeviceAgent) or agent.latched:
                self._armed.pop(agent_id, None)
                continue
            if agent is not self._armed.get(agent_id):  # it begins, or is rearmed: whoever told it to has been heard
                self._armed[agent_id] = agent
                for name in names:
                    pulse.expect(name)
            if min(map(pulse.silence_s, names)) > limit_s:
                agent.trip()
                del self._armed[agent_id]
                cause = f"nothing was heard of {grid} for {limit_s:g} s"
                logger.warning("%s: watchdog: %s; it keeps to its safe setpoint until it is rearmed", agent_id, cause)
                yield Notice(agent_id, "watchdog", cause)


def make_agent(topology: Topology, agent_id: str) -> Agent:
    """The agent with this id.

    Raises:
        UnknownNameError: the topology has none.
    """
    return make_agents(topology, (agent_id,))[0]


def make_agents(topology: Topology, agent_ids: Sequence[str]) -> list[Agent]:
    """The agents with these ids; sooner than one by one.

    Raises:
        UnknownNameError: the topology does not have one of them.
    """
    specs = {spec.id: spec for spec in topology.grid_specs}
    devices = {device.id: device for spec in specs.values() for device in spec.devices}
    unknown = [agent for agent in agent_ids if agent not in specs and agent not in devices]
    if unknown:
        raise UnknownNameError(f"no agent {unknown[0]!r} in the topology; there is {', '.join(topology.runs())}")
    return [GridAgent(specs[agent]) if agent in specs else DeviceAgent(devices[agent]) for agent in agent_ids]


def man(host: Host, topology: Topology, name: str, agents: Mapping[str, Agent]) -> None:
    """Let a squad of a node's agents hear what comes in columns, where it has one; ``agents`` as they are replaced."""
    groups = squads(topology, node_plans(topology)).get(name)
    if groups:
        host.man(Squad({spec.id: spec for spec in topology.grid_specs}, groups, agents))


def make_bus(topology: Topology, name: str) -> Bus:
    """What a node knows of the others."""
    return Bus(name, hearers(topology), homes(node_plans(topology), topology))


def serve(topology: Topology, name: str, address: Address, signs: Signs | None = None) -> None:
    """Run a node until the env says Stop. Where a new run calls before that, begin anew with it. ``signs`` tell its
    parent that it lives.

    Raises:
        UnknownNameError: a node that the topology does not have.
        BrokerError: no proxy answers at the address. RefusedError: it refuses this node's key.
        KeyFileError: the topology has keys, and this node's is not here.
        LostMessageError: a message was lost on the way here.
    """
    plans = node_plans(topology)
    if name not in plans:
        raise UnknownNameError(f"no node {name!r} in the topology; there is {', '.join(plans)}")
    while not _serve_run(topology, name, plans[name].agents, address, signs or Signs()):
        logger.info("%s: a new run has called", name)


def _serve_run(topology: Topology, name: str, agent_ids: Sequence[str], address: Address, signs: Signs) -> bool:
    """Host a node's agents for one run; whether that was ended by a Stop."""
    bus = make_bus(topology, name)
    agents = make_agents(topology, agent_ids)
    credentials = credentials_of(topology.broker.keys, name)
    broker = ZmqBroker(address, credentials=credentials, tolerant=topology.tolerates_gaps)
    host = Host(broker, "", time.time_ns() // 1_000_000, bus)
    steward = Steward(name, agents, topology.hash(agent_ids[-1]), lambda agent: make_agent(topology, agent))
    steward.host, steward.patience_s = host, topology.broker.ready_timeout_s
    policies = topology.on_failure()
    host.revive(agent for agent in agent_ids if policies[agent].kind == "restart")
    watchdog = Watchdog(topology, steward.agents, bus.homes)
    if topology.broker.on_failure.kind == "restart":
        host.remember()

    def beat() -> Envelope:
        signs.live()
        return host.beat()

    try:
        for receiver in (*agents, steward):
            host.add(receiver)
        host.hear_batches(correspondents(topology, bus))
        man(host, topology, name, steward.agents)
        broker.prove(topology.broker.ready_timeout_s)
        pulse = broker.start_pulse(channel("beat", name), beat, watchdog.channels)
        logger.info("%s: connected to %s", name, address)
        while not (steward.stopped or steward.left):
            host.pump(watchdog.poll_s)
            for notice in watchdog.look(pulse) if watchdog.channels else ():
                host.send(steward.id, channel("node", name), 0, 0, notice)
        host.flush()
    except LostMessageError as error:
        host.tell_failure(agent_ids[-1], 0, error)
        host.flush()
        raise
    finally:
        broker.close()
        signs.rest()
    return steward.stopped


def correspondents(topology: Topology, bus: Bus) -> frozenset[str]:
    """The nodes that say something to this one, and so may say several things at once; also the env, where it may act
    for one of their agents.
    """
    speakers = {line.speaker for line in lines(topology) if bus.name in bus.hearers[line.channel]}
    policies = topology.on_failure()
    replaced = {ENV for speaker in speakers - {ENV} if policies[speaker].kind == "fallback"}
    return frozenset(({bus.homes[speaker] for speaker in speakers} | replaced) - {bus.name})
