"""What every broker does: one suite over all of them. For one of your own, subclass and give a ``pair``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from wire import LINE, PATIENCE_S, RUN, listen, receive, running_proxy, say

from zgrid.errors import BrokerError, MessageError
from zgrid.messages import (
    Action,
    Batch,
    Beat,
    Body,
    DeviceState,
    Failure,
    Item,
    NetworkState,
    NodeStats,
    Notice,
    Peer,
    Ready,
    Rearm,
    Report,
    Resend,
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
from zgrid.messaging import Address, InMemoryBroker, MessageBroker, ZmqBroker

ITEM = Item("action/mg_1/", "action", "env", 0, 1, 0, Action((0.5,)))
BODIES: tuple[Body, ...] = (
    RollCall("c0ffee", 0),
    Ready(("mg_1", "mg_1.dg_1"), "c0ffee", 0),
    Reset(7),
    Action((-1.0, 0.25)),
    Action(None),
    Peer((0.1, 1e-300)),
    Setpoint((0.5, 0.0, 1.0), (0.7,)),
    DeviceState(0.5, -0.0, 3.25, 0.0, (0.5,)),
    Failure("mg_1", 3, "ValueError: größer als möglich", "Traceback\n  line"),
    StatsRequest(),
    NodeStats("mg_1", (("state", 3, 120),), (("malformed", 1, 0),)),
    Beat(("mg_1",), 4711, (("state", 3, 120),), (("state", 150, 900),), (("malformed", 1, 0),)),
    Resume("mg_1", 1, 3, (0.5,), (2, 4), (ITEM,), True),
    Resumed("mg_1", 1),
    Resend(),
    Rearm("mg_1.dg_1"),
    Notice("mg_1.dg_1", "watchdog", "nothing was heard"),
    Stop(),
    Stopped(("mg_1",)),
    Batch((ITEM, ITEM._replace(round=2))),
)


class Pair(NamedTuple):
    """Two connected brokers, or twice the same where all are in one process."""

    publisher: MessageBroker
    subscriber: MessageBroker


class BrokerContract:
    """Subclasses give ``pair``: connected, proven, closed afterwards."""

    @pytest.fixture
    def pair(self) -> Iterator[Pair]:
        raise NotImplementedError

    @pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
    def test_what_is_published_arrives_equal_on_its_channel(self, pair: Pair, body: Body) -> None:
        listen(pair.subscriber, LINE)
        sent = say(body=body)
        pair.publisher.publish(LINE, sent)
        assert receive(pair.subscriber, 1) == [(LINE, sent)]

    def test_arrays_arrive_to_the_bit(self, pair: Pair) -> None:
        listen(pair.subscriber, LINE)
        vm_pu = np.array([1.0, np.nan, 0.1 + 0.2, -0.0])
        network = NetworkState(True, (4, 0, 0), vm_pu, 0.1, -0.2, 0.0, 0.0, (1.0,), (30.0,), (0.0, 1.0))
        report = Report(-1.5, (0.1, 0.2), np.array([0.1, -100.0], dtype=np.float32))
        pair.publisher.publish(LINE, say(0, body=network))
        pair.publisher.publish(LINE, say(1, body=report))
        (_, first), (_, second) = receive(pair.subscriber, 2)
        assert first.body.vm_pu.tobytes() == vm_pu.tobytes()
        assert second.body.observation.tobytes() == report.observation.tobytes()
        assert second.body.observation.dtype == np.float32

    def test_what_nobody_subscribed_to_is_not_delivered(self, pair: Pair) -> None:
        listen(pair.subscriber, LINE)
        pair.publisher.publish("peer/mg_2/", say(0))
        pair.publisher.publish(LINE, say(0))
        assert [name for name, _ in receive(pair.subscriber, 1)] == [LINE]
        assert pair.subscriber.poll(0.05) is None

    def test_mg_1_does_not_hear_mg_10(self, pair: Pair) -> None:
        listen(pair.subscriber, channel("action", "mg_1"))
        pair.publisher.publish(channel("action", "mg_10"), say(0))
        pair.publisher.publish(channel("action", "mg_1"), say(0))
        assert [name for name, _ in receive(pair.subscriber, 1)] == ["action/mg_1/"]
        assert pair.subscriber.poll(0.05) is None

    def test_a_device_of_mg_1_does_not_hear_mg_1(self, pair: Pair) -> None:
        listen(pair.subscriber, channel("reset", "mg_1.dg_1"))
        pair.publisher.publish(channel("reset", "mg_1"), say(0))
        pair.publisher.publish(channel("reset", "mg_1.dg_1"), say(0))
        assert [name for name, _ in receive(pair.subscriber, 1)] == ["reset/mg_1.dg_1/"]

    def test_every_sender_is_heard_in_its_order(self, pair: Pair) -> None:
        listen(pair.subscriber, LINE, "peer/mg_2/")
        expected: dict[tuple[str, str], list[int]] = {}
        for k in range(1000):
            sender, name = "ab"[k % 2], (LINE, "peer/mg_2/")[k % 3 == 0]
            sequences = expected.setdefault((sender, name), [])
            pair.publisher.publish(name, say(len(sequences), sender))
            sequences.append(len(sequences))
        heard: dict[tuple[str, str], list[int]] = {}
        for name, envelope in receive(pair.subscriber, 1000):
            heard.setdefault((envelope.sender, name), []).append(envelope.sequence)
        assert heard == expected

    def test_subscribing_twice_gives_one_copy(self, pair: Pair) -> None:
        """A ZeroMQ publisher sends one copy to each connection, however many of its subscriptions fit."""
        listen(pair.subscriber, LINE, LINE)
        pair.publisher.publish(LINE, say(0))
        assert len(receive(pair.subscriber, 1)) == 1
        assert pair.subscriber.poll(0.05) is None
        assert not pair.subscriber.refused

    def test_poll_without_patience_returns_at_once(self, pair: Pair) -> None:
        listen(pair.subscriber, LINE)
        begin = time.monotonic()
        assert pair.subscriber.poll(0.0) is None
        assert time.monotonic() - begin < 0.2

    def test_poll_with_patience_gives_up_in_time(self, pair: Pair) -> None:
        listen(pair.subscriber, LINE)
        begin = time.monotonic()
        assert pair.subscriber.poll(0.1) is None
        waited = time.monotonic() - begin
        assert waited < 1.0
        assert pair.subscriber.ALONE or waited > 0.05

    def test_publish_tells_the_bytes_it_took(self, pair: Pair) -> None:
        short, long = pair.publisher.publish(LINE, say(0)), pair.publisher.publish(LINE, say(1, "a" * 50))
        assert (short, long) == (0, 0) or 0 < short < long

    def test_nothing_is_refused_where_nothing_is_wrong(self, pair: Pair) -> None:
        listen(pair.subscriber, LINE)
        for k in range(10):
            pair.publisher.publish(LINE, say(k))
        assert len(receive(pair.subscriber, 10)) == 10
        assert not pair.subscriber.refused

    def test_closing_twice_is_harmless(self, pair: Pair) -> None:
        for broker in pair:
            broker.close()
            broker.close()

    def test_a_closed_broker_cannot_be_used(self, pair: Pair) -> None:
        for broker in pair:
            broker.close()
            with pytest.raises(BrokerError, match="closed"):
                broker.publish(LINE, say(0))
            with pytest.raises(BrokerError, match="closed"):
                broker.subscribe(LINE)
            with pytest.raises(BrokerError, match="closed"):
                broker.poll(0.0)


class TestInMemoryBroker(BrokerContract):
    @pytest.fixture
    def pair(self) -> Iterator[Pair]:
        broker = InMemoryBroker()
        yield Pair(broker, broker)
        broker.close()

    def test_hands_the_very_object_on(self, pair: Pair) -> None:
        listen(pair.subscriber, LINE)
        sent = say(0)
        pair.publisher.publish(LINE, sent)
        assert receive(pair.subscriber, 1)[0].envelope is sent

    def test_keeps_one_order_over_all_channels(self, pair: Pair) -> None:
        names = [f"peer/mg_{k % 7}/" for k in range(50)]
        listen(pair.subscriber, *names)
        for name in names:
            pair.publisher.publish(name, say(0))
        assert [name for name, _ in receive(pair.subscriber, 50)] == names


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    with running_proxy() as address:
        yield address


class TestZmqBroker(BrokerContract):
    @pytest.fixture
    def pair(self, address: Address) -> Iterator[Pair]:
        pair = Pair(ZmqBroker(address, RUN), ZmqBroker(address, RUN))
        pair.publisher.prove(PATIENCE_S)
        yield pair
        for broker in pair:
            broker.close()

    def test_every_subscriber_gets_one_copy(self, pair: Pair, address: Address) -> None:
        others = [ZmqBroker(address, RUN) for _ in range(3)]
        try:
            for broker in (pair.subscriber, *others):
                listen(broker, LINE)
            pair.publisher.publish(LINE, say(0))
            for broker in (pair.subscriber, *others):
                assert receive(broker, 1) == [(LINE, say(0))]
                assert broker.poll(0.02) is None
        finally:
            for broker in others:
                broker.close()

    def test_hears_itself(self, pair: Pair) -> None:
        listen(pair.publisher, LINE)
        pair.publisher.publish(LINE, say(0))
        assert receive(pair.publisher, 1) == [(LINE, say(0))]

    def test_does_not_publish_what_cannot_be_encoded_and_lives_on(self, pair: Pair) -> None:
        listen(pair.subscriber, LINE)
        with pytest.raises(MessageError):
            pair.publisher.publish(LINE, say(0, body=Failure("mg_1", 1, "x" * (1 << 20), "")))
        pair.publisher.publish(LINE, say(0))
        assert receive(pair.subscriber, 1) == [(LINE, say(0))]
