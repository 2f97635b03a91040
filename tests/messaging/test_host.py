"""Host and Steward: agents on a broker; strangers are refused, failures are told, and the node lives on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest
from conftest import small_topology
from wire import PATIENCE_S, RUN, listen, receive, running_proxy, say

from zgrid.agents import DeviceAgent
from zgrid.errors import UnknownNameError
from zgrid.host import Host
from zgrid.messages import (
    ENV,
    Body,
    DeviceState,
    Envelope,
    Failure,
    NodeStats,
    Peer,
    Ready,
    Reset,
    RollCall,
    Setpoint,
    StatsRequest,
    Stop,
    Stopped,
    channel,
)
from zgrid.messaging import Address, InMemoryBroker, ZmqBroker
from zgrid.node import CONTROL, Steward, make_agent
from zgrid.post import Post
from zgrid.topology import load

TOPOLOGY = load(small_topology())
DEVICE = "mg_1.dg_1"
RESET, SETPOINT, STATE = channel("reset", DEVICE), channel("setpoint", DEVICE), channel("state", DEVICE)
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
        names = (*(channel(kind, ENV) for kind in ("ready", "failure", "stats", "stopped")), STATE, *also)
        self.hears: Mapping[str, frozenset[str]] = dict.fromkeys(names, Anyone())
        self.heard: list[Envelope] = []

    def receive(self, envelope: Envelope) -> list[Post]:
        self.heard.append(envelope)
        return []

    def bodies(self) -> list[Body]:
        return [envelope.body for envelope in self.heard]


class Scripted:
    """An agent that does what its script says for each message."""

    def __init__(self, id: str, *script: Any) -> None:
        self.id = id
        self.refused: Counter[str] = Counter()
        self.hears: Mapping[str, frozenset[str]] = {channel("peer", id): frozenset(("mg_9",))}
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
    steward = Steward("node:" + DEVICE, [DEVICE], TOPOLOGY.hash())
    steward.host = host
    for receiver in (env, make_agent(TOPOLOGY, DEVICE), steward):
        host.add(receiver)
    return host


def settle(host: Host) -> None:
    """Deliver until nothing is left."""
    while host.pump(0.0):
        pass


class TestSteward:
    def test_answers_the_roll_call_with_its_agents_and_their_topology(self, host: Host, env: Env) -> None:
        host.send(ENV, CONTROL, 0, 0, RollCall(TOPOLOGY.hash()))
        settle(host)
        assert env.bodies() == [Ready((DEVICE,), TOPOLOGY.hash())]
        assert env.heard[0].sender == "node:" + DEVICE

    def test_answers_a_roll_call_of_another_topology_with_its_own_hash(self, host: Host, env: Env) -> None:
        host.send(ENV, CONTROL, 0, 0, RollCall("another"))
        settle(host)
        assert env.bodies() == [Ready((DEVICE,), TOPOLOGY.hash())]

    def test_answers_every_roll_call(self, host: Host, env: Env) -> None:
        for _ in range(3):
            host.send(ENV, CONTROL, 0, 0, RollCall(TOPOLOGY.hash()))
        settle(host)
        assert len(env.heard) == 3

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
        assert stats.node == "node:" + DEVICE
        assert stats.sent == (("control", 1, 0), ("reset", 1, 0), ("setpoint", 3, 0), ("state", 2, 0))
        assert stats.refused == (("stale", 1, 0), ("stranger mg_7", 1, 0))

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
        host.send("mg_9", "peer/mg_1/", 7, 2, Peer(()))
        settle(host)
        (envelope,) = env.heard
        failure = envelope.body
        assert isinstance(failure, Failure)
        assert (envelope.sender, envelope.step) == ("mg_1", 7)
        assert failure[:3] == ("mg_1", 7, "ValueError: no such thing")
        assert "Traceback (most recent call last)" in failure.traceback
        assert "in receive" in failure.traceback
        host.send("mg_9", "peer/mg_1/", 8, 0, Peer(()))
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
        host.send("mg_9", "peer/mg_1/", 1, 0, Peer(()))
        settle(host)
        assert [type(body) for body in env.bodies()] == [Reset, Failure]

    def test_all_who_hear_a_channel_get_a_message_once(self, env: Env) -> None:
        host = Host(InMemoryBroker(), RUN)
        one, two = Scripted("mg_1"), Scripted("mg_2")
        two.hears = one.hears
        for receiver in (one, two):
            host.add(receiver)
        host.send("mg_9", "peer/mg_1/", 1, 0, Peer((0.5,)))
        settle(host)
        assert one.heard == two.heard
        assert len(one.heard) == 1

    def test_counts_a_sequence_for_each_sender_and_channel(self, env: Env) -> None:
        host = Host(InMemoryBroker(), RUN, incarnation=4)
        host.add(env)
        for sender, to in (("a", STATE), ("a", STATE), ("a", channel("stats", ENV)), ("b", STATE), ("a", STATE)):
            host.send(sender, to, 1, 0, Stop())
        settle(host)
        assert [(e.sender, e.sequence) for e in env.heard] == [("a", 0), ("a", 1), ("a", 0), ("b", 0), ("a", 2)]
        assert {(e.run, e.incarnation) for e in env.heard} == {(RUN, 4)}
        assert host.sent() == {"state": 4, "stats": 1}
        assert not host.sent_bytes()

    def test_says_whether_there_was_anything(self, host: Host) -> None:
        assert not host.pump(0.0)
        host.send("mg_1", RESET, 1, 0, Reset(0))
        assert host.pump(0.0)


class TestOverZeroMq:
    """A node's host before and after it has joined a run."""

    @pytest.fixture
    def node(self, address: Address) -> Iterator[Host]:
        with closing(ZmqBroker(address)) as broker:
            host = Host(broker, "")
            steward = Steward("node:" + DEVICE, [DEVICE], TOPOLOGY.hash())
            steward.host = host
            for receiver in (make_agent(TOPOLOGY, DEVICE), steward):
                host.add(receiver)
            broker.prove(PATIENCE_S)
            yield host

    @pytest.fixture
    def ears(self, address: Address) -> Iterator[ZmqBroker]:
        with closing(ZmqBroker(address, RUN)) as broker:
            listen(broker, *Env().hears)
            yield broker

    def test_joins_the_run_of_the_first_roll_call(self, node: Host, ears: ZmqBroker) -> None:
        ears.publish(CONTROL, say(0, ENV, body=RollCall("x")))
        assert node.pump(PATIENCE_S)
        assert node.run == RUN
        assert [envelope.body for _, envelope in receive(ears, 1)] == [Ready((DEVICE,), TOPOLOGY.hash())]

    def test_then_refuses_every_other_run(self, node: Host, ears: ZmqBroker) -> None:
        ears.publish(CONTROL, say(0, ENV, body=RollCall("x")))
        ears.publish(RESET, say(0, "mg_1", run="yesterday", body=Reset(0)))
        ears.publish(CONTROL, say(1, ENV, run="yesterday", body=Stop()))
        ears.publish(RESET, say(0, "mg_1", body=Reset(0)))
        assert node.pump(PATIENCE_S)
        assert node.pump(PATIENCE_S)
        assert [type(envelope.body) for _, envelope in receive(ears, 2)] == [Ready, DeviceState]
        assert node.refused() == {"other_run mg_1": 1, "other_run env": 1}

    def test_counts_the_bytes_it_sends(self, node: Host, ears: ZmqBroker) -> None:
        ears.publish(CONTROL, say(0, ENV, body=RollCall("x")))
        assert node.pump(PATIENCE_S)
        assert node.sent() == {"ready": 1}
        assert 64 < node.sent_bytes()["ready"] < 300

    def test_does_nothing_before_the_roll_call(self, node: Host, ears: ZmqBroker) -> None:
        ears.publish(RESET, say(0, "mg_1", run="yesterday", step=500, body=Reset(0)))
        ears.publish(CONTROL, say(0, ENV, body=RollCall("x")))
        ears.publish(RESET, say(0, "mg_1", step=1, body=Reset(0)))
        for _ in range(3):
            node.pump(0.2)
        heard = [ears.poll(1.0) for _ in range(2)]
        assert [type(delivery.envelope.body) for delivery in heard if delivery] == [Ready, DeviceState]

    def test_a_stranger_with_a_gap_is_refused_and_harmless(self, node: Host, ears: ZmqBroker) -> None:
        ears.publish(CONTROL, say(0, ENV, body=RollCall("x")))
        for sequence in (0, 5):
            ears.publish(SETPOINT, say(sequence, "intruder", body=TO_DO))
        for _ in range(3):
            node.pump(PATIENCE_S)
        assert node.refused()["stranger intruder"] >= 1


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
