"""Host and Steward: agents on a broker; strangers are refused, failures are told, and the node lives on. What a node
says to itself stays there, and what it says to another in one phase is one frame.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import zmq
from conftest import small_topology
from wire import PATIENCE_S, RUN, listen, receive, running_proxy, say

from zgrid.agents import DeviceAgent
from zgrid.encoding import MAX_BYTES, decode, encode
from zgrid.errors import LostMessageError, UnknownNameError
from zgrid.host import Bus, Host, steward_of
from zgrid.messages import (
    ENV,
    Action,
    Batch,
    Body,
    DeviceState,
    Envelope,
    Failure,
    Item,
    NetworkState,
    NodeStats,
    Peer,
    Ready,
    Reset,
    Resume,
    Resumed,
    RollCall,
    Setpoint,
    StatsRequest,
    Stop,
    Stopped,
    channel,
)
from zgrid.messaging import Address, Delivery, InMemoryBroker, Inspector, MessageBroker, ZmqBroker
from zgrid.messaging.address import END
from zgrid.node import CONTROL, Steward, correspondents, make_agent, make_agents, make_bus
from zgrid.post import Post
from zgrid.topology import load
from zgrid.topology.nodes import node_plans
from zgrid.topology.traffic import lines

TOPOLOGY = load(small_topology())
DEVICE = "mg_1.dg_1"
RESET, SETPOINT, STATE = channel("reset", DEVICE), channel("setpoint", DEVICE), channel("state", DEVICE)
NODE = channel("node", DEVICE)
TO_DO = Setpoint((0.3, 0.0, 1.0), ())


class Anyone(frozenset[str]):
    """Every sender there is."""

    def __contains__(self, sender: object) -> bool:
        return True


class Env:
    """The env's ears."""

    id = ENV

    def __init__(self, *also: str) -> None:
        self.refused: Counter[str] = Counter()
        names = (NODE, channel("node", ENV), STATE, *also)
        self.hears: Mapping[str, frozenset[str]] = dict.fromkeys(names, Anyone())
        self.heard: list[Envelope] = []

    def receive(self, envelope: Envelope) -> list[Post]:
        self.heard.append(envelope)
        return []

    def bodies(self) -> list[Body]:
        return [envelope.body for envelope in self.heard]

    def said(self, kind: type) -> list[Any]:
        """What was said of one kind, in envelopes."""
        return [envelope for envelope in self.heard if type(envelope.body) is kind]


class Scripted:
    """An agent that does what its script says for each message."""

    def __init__(self, id: str, *script: Any, hears: Sequence[str] = ("mg_9",)) -> None:
        self.id = id
        self.refused: Counter[str] = Counter()
        self.hears: Mapping[str, frozenset[str]] = {channel("peer", id, other): frozenset((other,)) for other in hears}
        self.heard: list[Envelope] = []
        self._script = list(script)

    def receive(self, envelope: Envelope) -> Iterator[Post]:
        self.heard.append(envelope)
        for item in self._script.pop(0) if self._script else ():
            if isinstance(item, Exception):
                raise item
            yield item


@pytest.fixture
def env() -> Env:
    return Env()


@pytest.fixture
def host(env: Env) -> Host:
    """A host of one device agent and its steward, in memory, together with the env."""
    host = Host(InMemoryBroker(), RUN)
    for receiver in (env, *device_node(host)):
        host.add(receiver)
    return host


def device_node(host: Host) -> tuple[DeviceAgent, Steward]:
    """The agent and the steward of a node with one device."""
    agent = make_agent(TOPOLOGY, DEVICE)
    assert isinstance(agent, DeviceAgent)
    steward = Steward(DEVICE, [agent], TOPOLOGY.hash(), lambda agent: make_agent(TOPOLOGY, agent))
    steward.host = host
    return agent, steward


def reviving(host: Host) -> DeviceAgent:
    """The device's agent on a host that suspends it when it raises."""
    host.revive([DEVICE])
    (agent,) = (receiver for receiver in host.receivers if isinstance(receiver, DeviceAgent))
    return agent


def settle(*hosts: Host) -> None:
    """Deliver until nothing is left: a first quiet turn may have sent what somebody hears in the next one."""
    quiet = 0
    while quiet < 2:
        quiet = 0 if sum(host.pump(0.0) for host in hosts) else quiet + 1


class TestSteward:
    def test_answers_the_roll_call_with_its_agents_and_their_topology(self, host: Host, env: Env) -> None:
        host.send(ENV, CONTROL, 0, 0, RollCall(TOPOLOGY.hash(), 0))
        settle(host)
        assert env.bodies() == [Ready((DEVICE,), TOPOLOGY.hash(), 0)]
        assert env.heard[0].sender == steward_of(DEVICE) == "node:mg_1.dg_1"

    def test_answers_a_roll_call_of_another_topology_with_its_own_hash(self, host: Host, env: Env) -> None:
        host.send(ENV, CONTROL, 0, 0, RollCall("another", 0))
        settle(host)
        assert env.bodies() == [Ready((DEVICE,), TOPOLOGY.hash(), 0)]

    def test_answers_every_roll_call(self, host: Host, env: Env) -> None:
        for _ in range(3):
            host.send(ENV, CONTROL, 0, 0, RollCall(TOPOLOGY.hash(), 0))
        settle(host)
        assert len(env.heard) == 3

    def test_answers_with_the_epoch_it_was_asked_in(self, host: Host, env: Env) -> None:
        for epoch in (0, 1, 1, 3):
            host.send(ENV, CONTROL, 0, 0, RollCall(TOPOLOGY.hash(), epoch))
        settle(host)
        assert [body.epoch for body in env.bodies() if isinstance(body, Ready)] == [0, 1, 1, 3]

    def test_tells_what_was_sent_and_what_was_refused(self, host: Host, env: Env) -> None:
        host.send("mg_1", RESET, 1, 0, Reset(0))
        host.send("mg_1", SETPOINT, 2, 0, TO_DO)
        host.send("mg_1", SETPOINT, 2, 0, TO_DO)
        host.send("mg_7", SETPOINT, 3, 0, TO_DO)
        settle(host)
        host.send(ENV, CONTROL, 3, 0, StatsRequest())
        settle(host)
        stats = env.bodies()[-1]
        assert isinstance(stats, NodeStats)
        assert stats.node == DEVICE
        assert stats.sent == (("control", 1, 0), ("reset", 1, 0), ("setpoint", 3, 0), ("state", 2, 0))
        assert stats.refused == (("stale mg_1", 1, 0), ("stranger mg_7", 1, 0))

    def test_hears_stop_and_says_farewell(self, host: Host, env: Env) -> None:
        steward = host.receivers[-1]
        assert isinstance(steward, Steward)
        assert not steward.stopped
        host.send(ENV, CONTROL, 9, 0, Stop())
        settle(host)
        assert steward.stopped
        assert env.bodies() == [Stopped((DEVICE,))]
        assert env.heard[0].step == 9

    def test_does_not_hear_anybody_but_the_env(self, host: Host, env: Env) -> None:
        steward = host.receivers[-1]
        assert isinstance(steward, Steward)
        host.send("mg_1", CONTROL, 9, 0, Stop())
        settle(host)
        assert not steward.stopped
        assert env.heard == []
        assert host.refused() == {"stranger mg_1": 1}


class TestHost:
    def test_delivers_to_the_agent_and_sends_what_it_answers(self, host: Host, env: Env) -> None:
        host.send("mg_1", RESET, 1, 0, Reset(0))
        host.send("mg_1", SETPOINT, 2, 0, TO_DO)
        settle(host)
        first, second = env.heard
        assert (first.sender, first.run, first.step, first.sequence) == (DEVICE, RUN, 1, 0)
        assert (second.step, second.sequence) == (2, 1)
        assert isinstance(second.body, DeviceState)
        assert second.body.p_mw == 0.3

    def test_refuses_and_counts_a_stranger_on_an_agents_channel(self, host: Host, env: Env) -> None:
        for _ in range(3):
            host.send("mg_2", RESET, 1, 0, Reset(0))
        settle(host)
        assert env.heard == []
        assert host.receivers[1].refused == {"stranger mg_2": 3}
        host.send("mg_1", RESET, 1, 0, Reset(0))
        settle(host)
        assert len(env.heard) == 1

    def test_an_agent_that_raises_is_told_to_the_env_and_the_host_lives_on(self, env: Env) -> None:
        agent = Scripted("mg_1", [ValueError("no such thing")], [Post(STATE, 3, 0, Reset(1))])
        host = Host(InMemoryBroker(), RUN)
        for receiver in (env, agent):
            host.add(receiver)
        host.send("mg_9", "peer/mg_1/mg_9/", 7, 2, Peer(()))
        settle(host)
        (envelope,) = env.heard
        failure = envelope.body
        assert isinstance(failure, Failure)
        assert (envelope.sender, envelope.step) == ("node:env", 7)
        assert failure[:3] == ("mg_1", 7, "ValueError: no such thing")
        assert "Traceback (most recent call last)" in failure.traceback
        assert "in receive" in failure.traceback
        host.send("mg_9", "peer/mg_1/mg_9/", 8, 0, Peer(()))
        settle(host)
        assert env.bodies()[1:] == [Reset(1)]

    def test_a_setpoint_of_the_wrong_length_is_a_failure_of_its_device(self, host: Host, env: Env) -> None:
        host.send("mg_1", SETPOINT, 1, 0, Setpoint((0.3,), ()))
        settle(host)
        (failure,) = env.bodies()
        assert isinstance(failure, Failure)
        assert failure[:2] == (DEVICE, 1)
        host.send("mg_1", SETPOINT, 2, 0, TO_DO)
        settle(host)
        assert isinstance(env.bodies()[-1], DeviceState)

    def test_what_an_agent_said_before_it_raised_was_said(self, env: Env) -> None:
        host = Host(InMemoryBroker(), RUN)
        agent = Scripted("mg_1", [Post(STATE, 1, 0, Reset(1)), RuntimeError("then this")])
        for receiver in (env, agent):
            host.add(receiver)
        host.send("mg_9", "peer/mg_1/mg_9/", 1, 0, Peer(()))
        settle(host)
        assert [type(body) for body in env.bodies()] == [Reset, Failure]

    def test_all_who_hear_a_channel_get_a_message_once(self, env: Env) -> None:
        host = Host(InMemoryBroker(), RUN)
        one, two = Scripted("mg_1"), Scripted("mg_2")
        two.hears = one.hears
        for receiver in (one, two):
            host.add(receiver)
        host.send("mg_9", "peer/mg_1/mg_9/", 1, 0, Peer((0.5,)))
        settle(host)
        assert one.heard == two.heard
        assert len(one.heard) == 1

    def test_counts_a_sequence_for_each_sender_and_channel(self, env: Env) -> None:
        host = Host(InMemoryBroker(), RUN, incarnation=4)
        host.add(env)
        for sender, to in (("a", STATE), ("a", STATE), ("a", NODE), ("b", STATE), ("a", STATE)):
            host.send(sender, to, 1, 0, Stop())
        settle(host)
        assert [(e.sender, e.sequence) for e in env.heard] == [("a", 0), ("a", 1), ("a", 0), ("b", 0), ("a", 2)]
        assert {e.run for e in env.heard} == {RUN}
        assert host.sent() == {"state": 4, "node": 1}
        assert not host.sent_bytes()

    def test_an_agent_is_the_first_incarnation_of_itself_whatever_that_of_its_process(self, env: Env) -> None:
        host = Host(InMemoryBroker(), RUN, incarnation=4)
        host.add(env)
        host.send("a", STATE, 1, 0, Stop())
        host.tell_failure("a", 1, ValueError("no"))
        settle(host)
        assert [(e.sender, e.incarnation) for e in env.heard] == [("a", 0), ("node:env", 4)]

    def test_a_successor_speaks_as_its_incarnation_and_begins_its_sequences_anew(self, env: Env) -> None:
        host = Host(InMemoryBroker(), RUN)
        host.add(env)
        for sender in ("a", "a", "b"):
            host.send(sender, STATE, 1, 0, Stop())
        host.succeed("a", 2)
        for sender in ("a", "b", "a"):
            host.send(sender, STATE, 1, 0, Stop())
        settle(host)
        assert [(e.sender, e.incarnation, e.sequence) for e in env.heard] == [
            *(("a", 0, 0), ("a", 0, 1), ("b", 0, 0)),
            *(("a", 2, 0), ("b", 0, 1), ("a", 2, 1)),
        ]

    def test_says_whether_there_was_anything(self, host: Host) -> None:
        assert not host.pump(0.0)
        host.send("mg_1", RESET, 1, 0, Reset(0))
        assert host.pump(0.0)


# ---- nodes that know of each other ----------------------------------------------------------------------------------

HOMES = {"mg_1": "pool_1", "mg_2": "pool_1", "mg_3": "pool_2", "mg_4": "pool_2", "mg_5": "pool_3", ENV: ENV}
AGENTS = tuple(agent for agent in HOMES if agent != ENV)
TO_ALL = channel("report", "mg_1")
HEARERS = {channel("peer", to, by): frozenset((HOMES[to],)) for to, by in permutations(AGENTS, 2)}
HEARERS |= {TO_ALL: frozenset(("pool_1", "pool_2", "pool_3"))}


class Wire(MessageBroker):
    """A broker as ZeroMQ is one, without the sockets: what is said is heard by all of its ends, also by its own."""

    def __init__(self, published: list[Delivery], ends: list[Wire], run: str = RUN) -> None:
        super().__init__()
        self.published = published
        """All that anybody has published, in order."""
        self._inspector = Inspector(self.refused, run)
        self._waiting: deque[Delivery] = deque()
        self._subscribed: set[str] = set()
        self._ends = ends
        ends.append(self)

    def publish(self, channel: str, envelope: Envelope) -> int:
        data = encode(envelope)
        self.published.append(Delivery(channel, envelope))
        for end in self._ends:
            if channel in end._subscribed:
                end._waiting.append(Delivery(channel, decode(data)))
        return len(data)

    def subscribe(self, channel: str) -> None:
        self._subscribed.add(channel)

    def poll(self, timeout_s: float) -> Delivery | None:
        while self._waiting:
            delivery = self._waiting.popleft()
            if self._inspector.accepts(*delivery):
                return delivery
        return None

    def admits(self, sender: str, incarnation: int) -> bool:
        return self._inspector.admits(sender, incarnation)

    def close(self) -> None:
        self._waiting.clear()


class Nodes:
    """The nodes pool_1 (mg_1, mg_2), pool_2 (mg_3, mg_4) and pool_3 (mg_5), and what goes between them."""

    def __init__(self, **scripts: Sequence[Any]) -> None:
        self.published: list[Delivery] = []
        self._ends: list[Wire] = []
        self.agents = {
            name: Scripted(name, *scripts.get(name, ()), hears=[other for other in AGENTS if other != name])
            for name in AGENTS
        }
        self.hosts = {name: self._host(name) for name in ("pool_1", "pool_2", "pool_3")}

    def _host(self, name: str) -> Host:
        host = Host(self.end(), RUN, 5, Bus(name, HEARERS, HOMES))
        for agent in AGENTS:
            if HOMES[agent] == name:
                host.add(self.agents[agent])
        host.hear_batches([node for node in ("pool_1", "pool_2", "pool_3", ENV) if node != name])
        return host

    def end(self) -> Wire:
        """One more end of the wire."""
        return Wire(self.published, self._ends)

    def settle(self) -> None:
        """Deliver until nobody has anything left."""
        settle(*self.hosts.values())

    def spoken(self) -> list[tuple[str, str, int, int]]:
        """What was published: channel, sender, sequence, and how many messages it has."""
        return [
            (to, said.sender, said.sequence, len(said.body.items) if isinstance(said.body, Batch) else 1)
            for to, said in self.published
        ]

    def heard(self, agent: str) -> list[tuple[str, int, int, Body]]:
        """What an agent has heard: sender, step, round and body."""
        return [(said.sender, said.step, said.round, said.body) for said in self.agents[agent].heard]

    def refused(self) -> dict[str, Counter[str]]:
        """What nodes have refused, those without aside."""
        return {name: host.refused() for name, host in self.hosts.items() if host.refused()}


def to_peer(to: str, by: str, value: float = 0.5, *, step: int = 3, round: int = 1) -> Post:
    return Post(channel("peer", to, by), step, round, Peer((value,)))


def item(to: str, by: str, value: float = 0.5, *, incarnation: int = 0) -> Item:
    return Item(channel("peer", to, by), "peer", by, incarnation, 3, 1, Peer((value,)))


def trigger(nodes: Nodes, *agents: str) -> None:
    """Let agents do what comes next in their script, all in one phase."""
    for agent in agents:
        other = next(one for one in AGENTS if HOMES[one] == HOMES[agent] and one != agent)
        nodes.hosts[HOMES[agent]].send(other, *to_peer(agent, other, 0.0))


class TestLocalDelivery:
    def test_what_agents_of_one_node_say_to_each_other_does_not_touch_the_broker(self) -> None:
        nodes = Nodes(mg_2=[[to_peer("mg_1", "mg_2", 0.25, round=2)]])
        host = nodes.hosts["pool_1"]
        host.send("mg_1", *to_peer("mg_2", "mg_1", 0.75))
        assert nodes.agents["mg_2"].heard == []  # not before the next turn
        nodes.settle()
        (heard,) = nodes.agents["mg_2"].heard
        assert heard == Envelope("mg_1", RUN, 0, 0, 3, 1, heard.sent_ns, Peer((0.75,)))
        assert abs(time.time_ns() - heard.sent_ns) < 1e9 * PATIENCE_S
        assert nodes.heard("mg_1") == [("mg_2", 3, 2, Peer((0.25,)))]
        assert nodes.published == []
        assert host.sent() == {"peer": 2}
        assert host.sent_bytes() == {}
        assert nodes.refused() == {}

    def test_agents_of_one_node_are_heard_in_the_order_in_which_they_speak(self) -> None:
        nodes = Nodes()
        for k in range(5):
            for by, to in (("mg_1", "mg_2"), ("mg_2", "mg_1")):
                nodes.hosts["pool_1"].send(by, *to_peer(to, by, float(k)))
        nodes.settle()
        for by, to in (("mg_1", "mg_2"), ("mg_2", "mg_1")):
            assert nodes.heard(to) == [(by, 3, 1, Peer((float(k),))) for k in range(5)]

    def test_a_stranger_within_a_node_is_refused_as_any_other(self) -> None:
        nodes = Nodes()
        nodes.hosts["pool_1"].send("mg_3", *to_peer("mg_2", "mg_1"))
        nodes.settle()
        assert nodes.heard("mg_2") == []
        assert nodes.agents["mg_2"].refused == {"stranger mg_3": 1}

    def test_what_is_heard_here_and_elsewhere_is_heard_once_by_each(self) -> None:
        """Over ZeroMQ a node hears itself, where it hears the channel."""
        nodes = Nodes()
        for agent in ("mg_2", "mg_3"):
            nodes.agents[agent].hears = {TO_ALL: frozenset(("mg_1",))}
            nodes.hosts[HOMES[agent]].add(nodes.agents[agent])
        for k in range(2):
            nodes.hosts["pool_1"].send("mg_1", TO_ALL, 3, 0, Peer((float(k),)))
            nodes.settle()
        for agent in ("mg_2", "mg_3"):
            assert nodes.heard(agent) == [("mg_1", 3, 0, Peer((0.0,))), ("mg_1", 3, 0, Peer((1.0,)))]
        assert nodes.spoken() == [(TO_ALL, "mg_1", 0, 1), (TO_ALL, "mg_1", 1, 1)]
        assert nodes.refused() == {}

    def test_what_nobody_else_hears_is_not_published(self) -> None:
        nodes = Nodes()
        nodes.hosts["pool_2"].send("mg_3", *to_peer("mg_4", "mg_3"))
        nodes.hosts["pool_2"].flush()
        assert nodes.published == []

    def test_an_agent_that_raises_is_told_by_its_node_on_the_channel_of_that(self) -> None:
        nodes = Nodes(mg_1=[[ValueError("no such thing")]])
        trigger(nodes, "mg_1")
        nodes.settle()
        ((to, said),) = nodes.published
        assert (to, said.sender, said.incarnation, said.step) == ("node/pool_1/", "node:pool_1", 5, 3)
        assert isinstance(said.body, Failure)
        assert said.body[:3] == ("mg_1", 3, "ValueError: no such thing")


class TestBatches:
    def test_several_messages_for_one_node_in_one_phase_are_one_frame(self) -> None:
        nodes = Nodes(
            mg_1=[[to_peer("mg_3", "mg_1", 0.1), to_peer("mg_4", "mg_1", 0.2)]],
            mg_2=[[to_peer("mg_3", "mg_2", 0.3, round=2)]],
        )
        trigger(nodes, "mg_1", "mg_2")
        nodes.settle()
        ((to, said),) = nodes.published
        assert to == "batch/pool_2/pool_1/"
        assert said == Envelope(
            "node:pool_1", RUN, 5, 0, 3, 0, said.sent_ns,
            Batch((
                Item("peer/mg_3/mg_1/", "peer", "mg_1", 0, 3, 1, Peer((0.1,))),
                Item("peer/mg_4/mg_1/", "peer", "mg_1", 0, 3, 1, Peer((0.2,))),
                Item("peer/mg_3/mg_2/", "peer", "mg_2", 0, 3, 2, Peer((0.3,))),
            )),
        )  # fmt: skip
        assert nodes.heard("mg_3") == [("mg_1", 3, 1, Peer((0.1,))), ("mg_2", 3, 2, Peer((0.3,)))]
        assert nodes.heard("mg_4") == [("mg_1", 3, 1, Peer((0.2,)))]
        assert {envelope.run for envelope in nodes.agents["mg_3"].heard} == {RUN}
        assert nodes.refused() == {}

    def test_a_single_message_travels_plain(self) -> None:
        nodes = Nodes(mg_1=[[to_peer("mg_3", "mg_1", 0.1)]])
        trigger(nodes, "mg_1")
        nodes.settle()
        ((to, said),) = nodes.published
        assert (to, said) == ("peer/mg_3/mg_1/", Envelope("mg_1", RUN, 0, 0, 3, 1, said.sent_ns, Peer((0.1,))))
        assert nodes.heard("mg_3") == [("mg_1", 3, 1, Peer((0.1,)))]

    def test_each_node_gets_its_own(self) -> None:
        nodes = Nodes(mg_1=[[to_peer("mg_3", "mg_1"), to_peer("mg_5", "mg_1"), to_peer("mg_4", "mg_1")]])
        trigger(nodes, "mg_1")
        nodes.settle()
        assert nodes.spoken() == [("batch/pool_2/pool_1/", "node:pool_1", 0, 2), ("peer/mg_5/mg_1/", "mg_1", 0, 1)]
        assert [len(nodes.heard(agent)) for agent in AGENTS] == [1, 0, 1, 1, 1]

    def test_what_several_nodes_hear_travels_plain_beside_a_batch(self) -> None:
        nodes = Nodes(mg_1=[[to_peer("mg_3", "mg_1"), Post(TO_ALL, 3, 0, Peer(())), to_peer("mg_4", "mg_1")]])
        trigger(nodes, "mg_1")
        nodes.settle()
        assert sorted(nodes.spoken()) == [("batch/pool_2/pool_1/", "node:pool_1", 0, 2), (TO_ALL, "mg_1", 0, 1)]

    def test_what_is_no_channel_of_agents_travels_plain(self) -> None:
        nodes = Nodes()
        for _ in range(2):
            nodes.hosts["pool_1"].send(ENV, CONTROL, 0, 0, StatsRequest())
        nodes.settle()
        assert nodes.spoken() == [(CONTROL, ENV, 0, 1), (CONTROL, ENV, 1, 1)]

    def test_a_batch_leaves_no_gap_in_what_its_senders_say_plain(self) -> None:
        alone, together = [to_peer("mg_3", "mg_1")], [to_peer("mg_3", "mg_1"), to_peer("mg_4", "mg_1")]
        nodes = Nodes(mg_1=[alone, together, alone, together])
        for _ in range(4):
            trigger(nodes, "mg_1")
            nodes.settle()
        plain, batch = ("peer/mg_3/mg_1/", "mg_1"), ("batch/pool_2/pool_1/", "node:pool_1")
        assert nodes.spoken() == [(*plain, 0, 1), (*batch, 0, 2), (*plain, 1, 1), (*batch, 1, 2)]
        assert len(nodes.heard("mg_3")) == 4
        assert nodes.refused() == {}

    def test_a_phase_ends_when_nobody_here_has_anything_left_to_do(self) -> None:
        """What mg_2 says because of what mg_1 said to it goes with what mg_1 said to others."""
        nodes = Nodes(
            mg_1=[[to_peer("mg_3", "mg_1"), to_peer("mg_2", "mg_1")]],
            mg_2=[[to_peer("mg_4", "mg_2"), to_peer("mg_1", "mg_2")]],
        )
        trigger(nodes, "mg_1")
        nodes.settle()
        assert nodes.spoken() == [("batch/pool_2/pool_1/", "node:pool_1", 0, 2)]

    def test_a_successor_speaks_as_its_incarnation_in_batches_too(self) -> None:
        nodes = Nodes(mg_1=[[to_peer("mg_3", "mg_1"), to_peer("mg_4", "mg_1")]])
        nodes.hosts["pool_1"].succeed("mg_1", 2)
        trigger(nodes, "mg_1")
        nodes.settle()
        (((_, said)),) = nodes.published
        assert isinstance(said.body, Batch)
        assert [item.incarnation for item in said.body.items] == [2, 2]
        assert [envelope.incarnation for envelope in nodes.agents["mg_3"].heard] == [2]

    def test_a_batch_that_is_too_large_for_one_frame_is_split_and_everything_arrives(self) -> None:
        large = [float(k) + 0.5 for k in range(40_000)]  # 360 kB: two fit into a frame, three do not
        posts = [Post(channel("peer", to, "mg_1"), 3, r, Peer((r + 0.25, *large))) for r in (1, 2, 3) for to in
                 ("mg_3", "mg_4")]  # fmt: skip
        nodes = Nodes(mg_1=[posts[:5]])
        trigger(nodes, "mg_1")
        nodes.settle()
        assert [(to, sequence, count) for to, _, sequence, count in nodes.spoken()] == [
            ("batch/pool_2/pool_1/", 0, 2),
            ("peer/mg_3/mg_1/", 0, 1),
            ("batch/pool_2/pool_1/", 1, 2),
        ]
        assert all(len(encode(said)) <= MAX_BYTES for _, said in nodes.published)
        assert nodes.heard("mg_3") == [("mg_1", *post[1:]) for post in posts[:5:2]]
        assert nodes.heard("mg_4") == [("mg_1", *post[1:]) for post in posts[1:5:2]]
        assert nodes.refused() == {}

    def test_figures_count_messages_and_bytes_by_their_channel_and_batches_by_the_frame(self) -> None:
        nodes = Nodes(mg_1=[[to_peer("mg_3", "mg_1"), to_peer("mg_4", "mg_1"), to_peer("mg_5", "mg_1")]])
        trigger(nodes, "mg_1")
        nodes.settle()
        host, size = nodes.hosts["pool_1"], {to.partition("/")[0]: len(encode(said)) for to, said in nodes.published}
        assert host.sent_bytes() == size == {"batch": size["batch"], "peer": size["peer"]}
        assert host.sent() == {"peer": 4, "batch": 1}

    def test_a_single_message_that_is_too_large_is_a_failure_of_who_said_it(self) -> None:
        much = Post(channel("peer", "mg_3", "mg_1"), 3, 1, Peer((0.5,) * (MAX_BYTES // 8)))
        nodes = Nodes(mg_1=[[much, to_peer("mg_4", "mg_1")]])
        trigger(nodes, "mg_1")
        nodes.settle()
        failures = [said.body for _, said in nodes.published if isinstance(said.body, Failure)]
        assert [failure.agent for failure in failures] == ["mg_1"]
        assert nodes.heard("mg_4") == [("mg_1", 3, 1, Peer((0.5,)))]


class TestSayingAgain:
    """What a proxy took with it is said again."""

    def test_is_what_was_said_to_others_in_the_last_step(self) -> None:
        nodes = Nodes()
        host = nodes.hosts["pool_1"]
        host.remember()
        for step in (3, 4):
            for to in ("mg_2", "mg_3", "mg_4"):
                host.send("mg_1", *to_peer(to, "mg_1", 0.1 * step, step=step))
            host.send(ENV, CONTROL, step, 0, StatsRequest())
        nodes.settle()
        nodes.published.clear()
        host.say_again()
        nodes.settle()
        ((to, said),) = nodes.published
        assert (to, said.sequence) == ("batch/pool_2/pool_1/", 1)
        again = [item("mg_3", "mg_1", 0.4), item("mg_4", "mg_1", 0.4)]
        assert said.body == Batch(tuple(one._replace(step=4) for one in again))
        assert [len(nodes.heard(agent)) for agent in ("mg_2", "mg_3", "mg_4")] == [2, 3, 3]

    def test_is_nothing_where_nobody_wanted_it_to_be_remembered(self) -> None:
        nodes = Nodes()
        host = nodes.hosts["pool_1"]
        host.send("mg_1", *to_peer("mg_3", "mg_1"))
        nodes.settle()
        host.say_again()
        nodes.settle()
        assert nodes.spoken() == [("peer/mg_3/mg_1/", "mg_1", 0, 1)]


class TestTap:
    def test_hears_what_others_say_here_and_elsewhere_before_who_is_meant(self) -> None:
        nodes = Nodes()
        host = nodes.hosts["pool_2"]
        order: list[tuple[str, int]] = []
        names = [channel("peer", "mg_3", "mg_4"), channel("peer", "mg_3", "mg_1"), channel("peer", "mg_4", "mg_1")]
        host.tap(names[:2], lambda name, _: order.append((name, len(nodes.agents["mg_3"].heard))))
        host.send("mg_4", *to_peer("mg_3", "mg_4"))
        for to in ("mg_3", "mg_4"):
            nodes.hosts["pool_1"].send("mg_1", *to_peer(to, "mg_1"))
        nodes.settle()
        assert order == [(names[0], 0), (names[1], 1)]
        assert [len(nodes.heard(agent)) for agent in ("mg_3", "mg_4")] == [2, 1]


class TestWaiting:
    def test_what_a_suspended_agent_hears_is_kept_in_order_until_it_goes_on(self) -> None:
        nodes = Nodes()
        host = nodes.hosts["pool_2"]
        host.suspend("mg_3")
        for value, to in ((0.1, "mg_3"), (0.2, "mg_4"), (0.3, "mg_3")):
            nodes.hosts["pool_1"].send("mg_1", *to_peer(to, "mg_1", value))
        host.send("mg_4", *to_peer("mg_3", "mg_4", 0.4))
        nodes.settle()
        assert nodes.heard("mg_3") == []
        assert len(nodes.heard("mg_4")) == 1
        kept = host.resume("mg_3")
        assert {(name, *said.body.values) for name, said in kept} == {
            ("peer/mg_3/mg_1/", 0.1), ("peer/mg_3/mg_1/", 0.3), ("peer/mg_3/mg_4/", 0.4),
        }  # fmt: skip
        assert [said.body.values for name, said in kept if name == "peer/mg_3/mg_1/"] == [(0.1,), (0.3,)]
        nodes.hosts["pool_1"].send("mg_1", *to_peer("mg_3", "mg_1", 0.5))
        nodes.settle()
        assert nodes.heard("mg_3") == [("mg_1", 3, 1, Peer((0.5,)))]
        assert host.resume("mg_3") == []

    def test_one_that_is_brought_back_after_it_raised_misses_nothing_that_came_meanwhile(
        self, host: Host, env: Env
    ) -> None:
        """The env took down what it had heard when it was told; what passed the proxy after that is only here."""
        agent = reviving(host)
        host.send("mg_1", RESET, 1, 0, Reset(0))
        settle(host)
        host.send("mg_1", SETPOINT, 2, 0, Setpoint((0.3,), ()))  # too short: it raises
        host.send("mg_1", SETPOINT, 3, 0, TO_DO)
        settle(host)
        (failure,) = env.said(Failure)
        assert (failure.step, failure.body.agent) == (2, DEVICE)
        assert [said.step for said in env.said(DeviceState)] == [1]
        known = (Item(SETPOINT, "setpoint", "mg_1", 0, 2, 0, TO_DO),)
        host.send(ENV, channel("resume", DEVICE), 3, 0, Resume(DEVICE, 1, 1, agent.state, (), known, True))
        settle(host)
        assert [(said.step, said.incarnation) for said in env.said(DeviceState)] == [(1, 0), (3, 1)]
        host.send("mg_1", SETPOINT, 4, 0, TO_DO)
        settle(host)
        assert env.said(DeviceState)[-1].step == 4

    def test_a_reset_begins_anew_with_one_that_raised_and_was_not_brought_back(self, host: Host, env: Env) -> None:
        reviving(host)
        host.send("mg_1", SETPOINT, 1, 0, Setpoint((0.3,), ()))
        host.send("mg_1", SETPOINT, 2, 0, TO_DO)
        settle(host)
        assert env.said(DeviceState) == []
        for step, body in ((3, Reset(0)), (4, TO_DO)):
            host.send("mg_1", RESET if type(body) is Reset else SETPOINT, step, 0, body)
        settle(host)
        assert [said.step for said in env.said(DeviceState)] == [3, 4]


class TestBatchesOfOthers:
    """What is in a batch is checked as if it had been said alone."""

    def take(self, *items: Item, by: str = "pool_1", to: str | None = None, sender: str | None = None) -> Nodes:
        """Let pool_2 hear a batch."""
        nodes = Nodes()
        batch = Batch(items)
        envelope = Envelope(sender or steward_of(by), RUN, 5, 0, 3, 0, 0, batch)
        nodes.end().publish(to or channel("batch", "pool_2", by), envelope)
        nodes.settle()
        return nodes

    def test_an_item_whose_sender_lives_at_another_node_is_refused_and_the_others_are_taken(self) -> None:
        nodes = self.take(
            item("mg_3", "mg_1", 0.1), item("mg_4", "mg_5", 0.2), item("mg_4", "mg_3"), item("mg_4", "mg_2")
        )
        assert nodes.heard("mg_3") == [("mg_1", 3, 1, Peer((0.1,)))]
        assert nodes.heard("mg_4") == [("mg_2", 3, 1, Peer((0.5,)))]
        assert nodes.refused() == {"pool_2": {"stranger mg_5": 1, "stranger mg_3": 1}}

    @pytest.mark.parametrize("sender", ["mg_9", ENV, "node:pool_1", "node:pool_3", ""])
    def test_so_is_one_of_nobody_or_of_somebody_who_is_no_agent(self, sender: str) -> None:
        nodes = self.take(item("mg_3", "mg_1")._replace(sender=sender), item("mg_4", "mg_1"))
        assert nodes.heard("mg_3") == []
        assert len(nodes.heard("mg_4")) == 1
        assert nodes.refused() == {"pool_2": {f"stranger {sender}".strip(): 1}}

    def test_one_that_lives_there_but_is_not_heard_on_the_channel_is_refused_by_the_receiver(self) -> None:
        nodes = self.take(item("mg_3", "mg_1")._replace(sender="mg_2"))
        assert nodes.heard("mg_3") == []
        assert nodes.agents["mg_3"].refused == {"stranger mg_2": 1}
        assert nodes.refused() == {"pool_2": {"stranger mg_2": 1}}

    def test_one_for_nobody_here_is_not_taken(self) -> None:
        nodes = self.take(item("mg_5", "mg_1"), item("mg_3", "mg_1"))
        assert [len(nodes.heard(agent)) for agent in AGENTS] == [0, 0, 1, 0, 0]

    def test_the_env_may_speak_for_an_agent_that_it_stands_in_for(self) -> None:
        nodes = self.take(item("mg_3", "mg_1", incarnation=1), item("mg_3", "mg_5", incarnation=1), by=ENV)
        assert [sender for sender, *_ in nodes.heard("mg_3")] == ["mg_1", "mg_5"]
        assert nodes.refused() == {}

    def test_an_old_incarnation_is_refused(self) -> None:
        nodes = self.take(
            item("mg_3", "mg_1", 0.1, incarnation=1),
            item("mg_3", "mg_1", 0.2, incarnation=0),
            item("mg_3", "mg_2", 0.3, incarnation=0),
            item("mg_4", "mg_1", 0.4, incarnation=0),
            item("mg_4", "mg_1", 0.5, incarnation=1),
        )
        assert nodes.heard("mg_3") == [("mg_1", 3, 1, Peer((0.1,))), ("mg_2", 3, 1, Peer((0.3,)))]
        assert nodes.heard("mg_4") == [("mg_1", 3, 1, Peer((0.5,)))]
        assert nodes.refused() == {"pool_2": {"old_incarnation mg_1": 2}}

    def test_an_incarnation_is_known_to_batches_and_plain_messages_alike(self) -> None:
        nodes = self.take(item("mg_3", "mg_1", 0.1, incarnation=1), item("mg_4", "mg_1", 0.1, incarnation=1))
        end, name = nodes.end(), channel("peer", "mg_3", "mg_1")
        end.publish(name, Envelope("mg_1", RUN, 0, 7, 4, 1, 0, Peer((0.2,))))
        end.publish(name, Envelope("mg_1", RUN, 2, 0, 4, 1, 0, Peer((0.3,))))
        again = Batch((item("mg_3", "mg_1", 0.4, incarnation=1), item("mg_3", "mg_1", 0.5, incarnation=2)))
        end.publish("batch/pool_2/pool_1/", Envelope("node:pool_1", RUN, 5, 1, 4, 0, 0, again))
        nodes.settle()
        assert [body for *_, body in nodes.heard("mg_3")] == [Peer((0.1,)), Peer((0.3,)), Peer((0.5,))]
        assert nodes.refused() == {"pool_2": {"old_incarnation mg_1": 2}}

    def test_a_gap_in_the_batches_of_a_node_is_an_error_that_names_it(self) -> None:
        nodes = Nodes()
        for sequence in (0, 2):
            envelope = Envelope("node:pool_1", RUN, 5, sequence, 3, 0, 0, Batch((item("mg_3", "mg_1"),)))
            nodes.end().publish("batch/pool_2/pool_1/", envelope)
        with pytest.raises(LostMessageError) as raised:
            nodes.settle()
        error = raised.value
        expected = ("node:pool_1", "batch/pool_2/pool_1/", 1, 2)
        assert (error.sender, error.channel, error.expected, error.got) == expected

    def test_a_batch_of_a_stranger_is_refused_whatever_is_in_it(self) -> None:
        nodes = self.take(item("mg_3", "mg_1"), sender="intruder")
        assert nodes.heard("mg_3") == []
        assert nodes.refused() == {"pool_2": {"stranger intruder": 1}}

    def test_a_stranger_with_a_gap_is_refused_and_harmless(self) -> None:
        nodes = Nodes()
        for sequence in (0, 5):
            envelope = Envelope("intruder", RUN, 0, sequence, 3, 0, 0, Batch((item("mg_3", "mg_1"),)))
            nodes.end().publish("batch/pool_2/pool_1/", envelope)
        nodes.settle()
        assert nodes.refused()["pool_2"]["stranger intruder"] >= 1

    @pytest.mark.parametrize("sender", ["mg_1", "node:pool_1"])
    def test_a_batch_on_a_channel_that_is_not_for_batches_is_refused(self, sender: str) -> None:
        nodes, env = Nodes(), Env(channel("node", "pool_1"), TO_ALL)
        host = Host(nodes.end(), RUN, 5, Bus(ENV, HEARERS, HOMES))
        host.add(env)
        inside = Item("node/pool_1/", "stats_request", sender, 0, 3, 0, StatsRequest())
        nodes.end().publish(TO_ALL, Envelope("mg_1", RUN, 0, 0, 3, 0, 0, Batch((inside,))))
        settle(host)
        assert env.heard == []
        assert host.refused().total() == 1


class TestCorrespondents:
    """Who may send batches has to be heard."""

    @pytest.mark.parametrize("placement", ["agent", "grid", {"pool": 2}], ids=str)
    def test_are_all_who_speak_here_and_nobody_else(self, placement: Any) -> None:
        topology = load(small_topology(3), {"placement": placement, "horizontal": "average_consensus"})
        for node in (*node_plans(topology), ENV):
            bus = make_bus(topology, node)
            spoken = Counter(
                bus.homes[line.speaker]
                for line in lines(topology)
                if node in bus.hearers[line.channel] and bus.homes[line.speaker] != node
            )
            assert correspondents(topology, bus) == spoken.keys()

    def test_a_neighbour_that_says_two_rounds_in_one_phase_is_heard(self) -> None:
        """As a grid does whose neighbour was faster: the round that it answers was there before its action."""
        horizontal = {"kind": "average_consensus", "rounds": 2}
        topology = load(small_topology(2), {"placement": "grid", "horizontal": horizontal})
        published: list[Delivery] = []
        ends: list[Wire] = []
        hosts = []
        for node, plan in node_plans(topology).items():
            bus = make_bus(topology, node)
            host = Host(Wire(published, ends), RUN, 0, bus)
            for agent in make_agents(topology, plan.agents):
                host.add(agent)
            host.hear_batches(correspondents(topology, bus))
            hosts.append(host)
        env = Wire(published, ends)
        network = NetworkState(
            True, (1, 0, 0), np.ones(1), 0.2, 0.0, 0.0, 0.0, (1.0,) * 3, (30.0, 20.0, 40.0, 0.5, 0.5), (0.0, 1.0)
        )
        for step, kind, body in ((1, "reset", Reset(0)), (1, "network", network), (2, "action", Action((0.0,) * 4))):
            for grid in topology.grids:
                env.publish(channel(kind, grid), Envelope(ENV, RUN, 0, 0, step, 0, 0, body))
                settle(*hosts)
        bodies = [said.body for _, said in published]
        said = [item for body in bodies if isinstance(body, Batch) for item in body.items]
        assert Counter(item.round for item in said if item.kind == "peer") == {1: 1, 2: 1}, "it was faster"
        states = {item.sender for item in said if item.kind == "state" and item.step == 2}
        assert states == {device.id for device in topology.device_specs}


# ---- over ZeroMQ -----------------------------------------------------------------------------------------------------


class TestOverZeroMq:
    """A node's host before and after it has joined a run."""

    @pytest.fixture
    def node(self, address: Address) -> Iterator[Host]:
        with closing(ZmqBroker(address)) as broker:
            host = Host(broker, "", 5, make_bus(TOPOLOGY, DEVICE))
            for receiver in device_node(host):
                host.add(receiver)
            broker.prove(PATIENCE_S)
            yield host

    @pytest.fixture
    def ears(self, address: Address) -> Iterator[ZmqBroker]:
        with closing(ZmqBroker(address, RUN)) as broker:
            listen(broker, *Env().hears)
            yield broker

    def test_joins_the_run_of_the_first_roll_call(self, node: Host, ears: ZmqBroker) -> None:
        ears.publish(CONTROL, say(0, ENV, step=0, body=RollCall("x", 0)))
        assert node.pump(PATIENCE_S)
        assert node.run == RUN
        node.flush()
        ((name, envelope),) = receive(ears, 1)
        assert (name, envelope.sender, envelope.incarnation) == (NODE, "node:mg_1.dg_1", 5)
        assert envelope.body == Ready((DEVICE,), TOPOLOGY.hash(), 0)

    def test_then_refuses_every_other_run(self, node: Host, ears: ZmqBroker) -> None:
        ears.publish(CONTROL, say(0, ENV, step=0, body=RollCall("x", 0)))
        ears.publish(RESET, say(0, "mg_1", run="yesterday", body=Reset(0)))
        ears.publish(CONTROL, say(1, ENV, run="yesterday", body=Stop()))
        ears.publish(RESET, say(0, "mg_1", body=Reset(0)))
        assert node.pump(PATIENCE_S)
        assert node.pump(PATIENCE_S)
        node.flush()
        assert [type(envelope.body) for _, envelope in receive(ears, 2)] == [Ready, DeviceState]
        assert node.refused() == {"other_run mg_1": 1, "other_run env": 1}

    def test_counts_the_bytes_it_sends(self, node: Host, ears: ZmqBroker) -> None:
        ears.publish(CONTROL, say(0, ENV, step=0, body=RollCall("x", 0)))
        assert node.pump(PATIENCE_S)
        assert node.sent() == {"node": 1}
        assert not node.sent_bytes()
        node.flush()
        assert node.sent_bytes().keys() == {"node"}
        assert 64 < node.sent_bytes()["node"] < 300

    def test_does_nothing_before_the_roll_call(self, node: Host, ears: ZmqBroker) -> None:
        ears.publish(RESET, say(0, "mg_1", run="yesterday", step=500, body=Reset(0)))
        ears.publish(CONTROL, say(0, ENV, step=0, body=RollCall("x", 0)))
        ears.publish(RESET, say(0, "mg_1", step=1, body=Reset(0)))
        for _ in range(3):
            node.pump(0.2)
        heard = [ears.poll(1.0) for _ in range(2)]
        assert [type(delivery.envelope.body) for delivery in heard if delivery] == [Ready, DeviceState]
        assert node.refused() == {"no_run_yet mg_1": 1}

    def test_in_a_run_that_has_begun_without_it_it_waits_until_it_is_told_what_it_has_missed(
        self, node: Host, ears: ZmqBroker
    ) -> None:
        resume, missed = channel("resume", DEVICE), Item(RESET, "reset", "mg_1", 0, 1, 0, Reset(0))
        ears.publish(CONTROL, say(0, ENV, step=2, body=RollCall("x", 0)))
        ears.publish(SETPOINT, say(0, "mg_1", step=2, body=TO_DO))
        while node.pump(0.5):
            pass
        assert [type(envelope.body) for _, envelope in receive(ears, 1)] == [Ready]
        assert ears.poll(0.2) is None
        ears.publish(resume, say(0, ENV, step=2, body=Resume(DEVICE, 3, 0, (), (), (missed,), True)))
        ears.publish(SETPOINT, say(1, "mg_1", step=3, body=TO_DO))
        while node.pump(0.5):
            pass
        (_, state), (_, resumed), (_, next) = receive(ears, 3)
        assert resumed.body == Resumed(DEVICE, 3)
        for envelope, step in ((state, 2), (next, 3)):
            assert (envelope.sender, envelope.incarnation, envelope.step) == (DEVICE, 3, step)
            assert envelope.body.p_mw == 0.3
        assert node.refused() == {}

    def test_a_stranger_with_a_gap_is_refused_and_harmless(self, node: Host, ears: ZmqBroker) -> None:
        ears.publish(CONTROL, say(0, ENV, step=0, body=RollCall("x", 0)))
        for sequence in (0, 5):
            ears.publish(SETPOINT, say(sequence, "intruder", body=TO_DO))
        for _ in range(3):
            node.pump(PATIENCE_S)
        assert node.refused()["stranger intruder"] >= 1


def test_what_a_node_says_is_one_frame_on_the_wire(address: Address) -> None:
    context = zmq.Context()
    sub = context.socket(zmq.SUB)
    sub.connect(f"tcp://{address.host}:{address.subscribe_port}")
    sub.setsockopt(zmq.SUBSCRIBE, b"")
    sub.setsockopt(zmq.RCVTIMEO, round(PATIENCE_S * 1000.0))
    bus = Bus("pool_1", HEARERS, HOMES)
    try:
        with closing(ZmqBroker(address, RUN)) as broker, closing(ZmqBroker(address, RUN)) as other:
            host = Host(broker, RUN, 5, bus)
            hearer = Host(other, RUN, 5, Bus("pool_2", HEARERS, HOMES))
            agents = [Scripted(name, hears=("mg_1", "mg_2")) for name in ("mg_3", "mg_4")]
            for agent in agents:
                hearer.add(agent)
            hearer.hear_batches(["pool_1"])
            for one in (broker, other):
                one.prove(PATIENCE_S)
            while sub.recv_multipart()[0].startswith(b"probe/") and sub.poll(100):
                pass  # the watcher hears as well
            posts = [("mg_1", to_peer("mg_3", "mg_1", 0.1)), ("mg_2", to_peer("mg_4", "mg_2", 0.2))]
            for sender, post in posts:
                host.send(sender, *post)
            host.flush()
            host.send("mg_1", *to_peer("mg_3", "mg_1", 0.3))
            host.flush()
            for _ in range(4):
                hearer.pump(PATIENCE_S)
            heard = (sub.recv_multipart() for _ in range(1000))
            said = (parts for parts in heard if not parts[0].startswith(b"probe/"))  # a late probe may still come
            frames = [next(said), next(said)]
    finally:
        context.destroy(linger=0)
    assert [len(parts) for parts in frames] == [1, 1]
    (batched, _, batch), (name, _, plain) = (parts[0].partition(END) for parts in frames)
    assert (batched, name) == (b"batch/pool_2/pool_1/", b"peer/mg_3/mg_1/")
    assert decode(batch).body == Batch((item("mg_3", "mg_1", 0.1), item("mg_4", "mg_2", 0.2)))
    assert (decode(plain).sender, decode(plain).body) == ("mg_1", Peer((0.3,)))
    assert [[envelope.body for envelope in agent.heard] for agent in agents] == [
        [Peer((0.1,)), Peer((0.3,))],
        [Peer((0.2,))],
    ]


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    with running_proxy() as address:
        yield address


def test_agents_are_made_by_id() -> None:
    assert isinstance(make_agent(TOPOLOGY, DEVICE), DeviceAgent)
    assert make_agent(TOPOLOGY, "mg_1").id == "mg_1"


def test_an_unknown_agent_is_told_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"no agent 'mg_1.dg_9' in the topology; there is mg_1.dg_1, "):
        make_agent(TOPOLOGY, "mg_1.dg_9")
