"""ZeroMQ: nothing is lost in bursts, nothing malformed gets through or kills, and misuse is told."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import yaml
import zmq
from conftest import small_topology
from hypothesis import given, settings
from hypothesis import strategies as st
from wire import LINE, PATIENCE_S, RUN, frame, greet, listen, raw_peer, receive, running_proxy, say

from zgrid.encoding import MAX_BYTES, VERSION, encode
from zgrid.errors import BrokerError, LostMessageError
from zgrid.messages import Envelope, Failure, Peer, Probe, Report
from zgrid.messaging import Address, ZmqBroker
from zgrid.messaging.address import END
from zgrid.messaging.zmq_broker import MAX_CHANNEL

BURST = 20_000


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    with running_proxy() as address:
        yield address


@pytest.fixture
def publisher(address: Address) -> Iterator[ZmqBroker]:
    broker = ZmqBroker(address, RUN)
    broker.prove(PATIENCE_S)
    yield broker
    broker.close()


@pytest.fixture
def subscriber(address: Address) -> Iterator[ZmqBroker]:
    broker = ZmqBroker(address, RUN)
    listen(broker, LINE)
    yield broker
    broker.close()


@pytest.fixture
def raw(address: Address, subscriber: ZmqBroker) -> Iterator[zmq.Socket[bytes]]:
    """A peer that sends what it likes, heard by the subscriber."""
    with raw_peer(address, subscriber) as peer:
        yield peer


@pytest.fixture
def small_file(tmp_path: Path) -> str:
    """A small topology as a file."""
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(small_topology()), encoding="utf-8")
    return str(file)


def fields(**changes: Any) -> list[Any]:
    """The entries of a good message, by position, some of them changed."""
    entries = {"version": VERSION, "kind": "peer", **say(0, "raw")._asdict()}
    entries["body"] = [[1.0], 0, 0]
    return list((entries | changes).values())


def noted(length: int) -> Envelope:
    """A message of about this length."""
    return say(0, "raw", body=Failure("mg_1", 1, "", "x" * length))


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_burst_loses_nothing(publisher: ZmqBroker, subscriber: ZmqBroker) -> None:
    for k in range(BURST):
        publisher.publish(LINE, say(k))
    heard = [envelope.sequence for _, envelope in receive(subscriber, BURST)]
    assert heard == list(range(BURST))
    assert not subscriber.refused


def test_the_same_to_several_is_not_taken_for_what_only_equals_it(publisher: ZmqBroker, subscriber: ZmqBroker) -> None:
    """A body that is said again is encoded once; 0.0 equals -0.0, but is another number."""
    zero = say(0, body=Peer((0.0,), 0, 0))
    bodies = [zero.body, Peer((-0.0,), 0, 0), Peer((0.0,), 0, 0), zero.body]
    names = [f"{LINE}{k}/" for k in range(len(bodies))]
    for name in names:
        subscriber.subscribe(name)
    subscriber.prove(PATIENCE_S)
    for name, body in zip(names, bodies, strict=True):
        publisher.publish(name, zero._replace(body=body))
    heard = receive(subscriber, len(bodies))
    assert [name for name, _ in heard] == names
    assert [str(envelope.body) for _, envelope in heard] == list(map(str, bodies))


def test_a_message_of_almost_the_largest_size_arrives(publisher: ZmqBroker, subscriber: ZmqBroker) -> None:
    observation = np.random.default_rng(0).normal(size=MAX_BYTES // 8 - 20)
    size = publisher.publish(LINE, say(0, body=Report(0.0, (), observation)))
    assert MAX_BYTES - 160 < size <= MAX_BYTES
    ((_, envelope),) = receive(subscriber, 1)
    assert envelope.body.observation.tobytes() == observation.tobytes()


def test_the_tests_good_message_is_good(raw: zmq.Socket[bytes], subscriber: ZmqBroker) -> None:
    raw.send(frame(LINE, msgpack.packb(fields())))
    assert [envelope.sender for _, envelope in receive(subscriber, 1)] == ["raw"]


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        pytest.param(b"", "malformed", id="empty"),
        pytest.param(b"\xc1\xff\x00random", "malformed", id="no MessagePack"),
        pytest.param(np.random.default_rng(0).bytes(300), "malformed", id="random"),
        pytest.param(encode(say(0))[:-1], "malformed", id="cut off"),
        pytest.param(encode(say(0)) + b"\0", "malformed", id="too long"),
        pytest.param(b"\x91" * 5000, "malformed", id="deep"),
        pytest.param(msgpack.packb({"a": 1}), "malformed", id="no array"),
        pytest.param(msgpack.packb(fields(sender=5)), "malformed", id="sender is a number"),
        pytest.param(msgpack.packb(fields(sequence=-1)), "malformed", id="negative sequence"),
        pytest.param(msgpack.packb(fields(body=[[float("nan")]])), "malformed", id="not finite"),
        pytest.param(msgpack.packb(fields(body=[[1.0], 2])), "malformed", id="too many fields"),
        pytest.param(msgpack.packb(fields(version=VERSION + 1)), "version", id="version"),
        pytest.param(msgpack.packb(fields(kind="order")), "unknown kind", id="kind"),
        pytest.param(msgpack.packb(fields(run="yesterday")), "other_run raw", id="run"),
    ],
)
def test_what_is_malformed_is_counted_and_the_next_message_arrives(
    raw: zmq.Socket[bytes], publisher: ZmqBroker, subscriber: ZmqBroker, body: bytes, cause: str
) -> None:
    raw.send(frame(LINE, body))
    raw.send(frame(LINE, encode(say(0, "raw"))))
    publisher.publish(LINE, say(0))
    assert {envelope.sender for _, envelope in receive(subscriber, 2)} == {"a", "raw"}
    assert subscriber.refused == {cause: 1}


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([LINE.encode()], id="a channel and no end of it"),
        pytest.param([LINE.encode(), encode(say(0))], id="channel and body in two frames, as before version 3"),
        pytest.param([frame("", encode(say(0)))], id="no channel"),
        pytest.param([encode(say(0))], id="a body alone"),
        pytest.param([frame(f"x{LINE}", encode(say(0)))], id="a channel that is not heard here"),
        pytest.param([frame(f"{LINE}mg_3/", encode(say(0)))], id="a longer channel"),
        pytest.param([LINE.encode() + END + END + encode(say(0))], id="two ends"),
    ],
)
def test_what_is_not_one_channel_and_one_body_in_one_frame_is_counted_by_the_frame(
    raw: zmq.Socket[bytes], subscriber: ZmqBroker, frames: list[bytes]
) -> None:
    """A ZeroMQ socket filters by the first frame of a message alone; so a good one goes first to get them here."""
    raw.send_multipart((frame(LINE, encode(say(0, "raw"))), *frames))
    raw.send(frame(LINE, encode(say(1, "raw"))))
    assert receive(subscriber, 2) == [(LINE, say(0, "raw")), (LINE, say(1, "raw"))]
    assert subscriber.refused == {"malformed": len(frames)}


def test_a_channel_that_is_no_text_is_counted_as_malformed(raw: zmq.Socket[bytes], subscriber: ZmqBroker) -> None:
    raw.send(frame(LINE.encode() + b"\xff\xfe/", encode(say(0))))
    raw.send(frame(LINE, encode(say(0))))
    assert receive(subscriber, 1) == [(LINE, say(0))]
    assert subscriber.refused == {"malformed": 1}


def test_a_probe_of_somebody_else_is_not_delivered(publisher: ZmqBroker, subscriber: ZmqBroker) -> None:
    publisher.publish(LINE, say(0, body=Probe("somebody")))
    publisher.publish(LINE, say(0))
    assert receive(subscriber, 1) == [(LINE, say(0))]
    assert not subscriber.refused


def test_a_message_of_the_largest_size_on_the_longest_channel_arrives(
    raw: zmq.Socket[bytes], subscriber: ZmqBroker
) -> None:
    name = "x" * (MAX_CHANNEL - 2) + "/"
    listen(subscriber, name)
    size = next(n for n in range(MAX_BYTES - 200, MAX_BYTES) if len(encode(noted(n))) == MAX_BYTES)
    whole = frame(name, encode(noted(size)))
    assert len(whole) == MAX_BYTES + MAX_CHANNEL
    raw.send(whole)
    assert receive(subscriber, 1) == [(name, noted(size))]
    assert not subscriber.refused


def test_a_body_that_is_too_long_is_counted_and_the_next_message_arrives(
    raw: zmq.Socket[bytes], subscriber: ZmqBroker
) -> None:
    raw.send(frame(LINE, encode(say(0, "raw")).ljust(MAX_BYTES + 1, b"\0")))
    raw.send(frame(LINE, encode(say(0, "raw"))))
    assert receive(subscriber, 1) == [(LINE, say(0, "raw"))]
    assert subscriber.refused == {"oversize": 1}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        pytest.param(LINE.ljust(MAX_BYTES + MAX_CHANNEL, "x"), b"", id="channel"),
        pytest.param(LINE, bytes(MAX_BYTES + MAX_CHANNEL - len(LINE)), id="body"),
    ],
)
def test_an_oversize_frame_ends_only_the_connection_of_its_sender(
    raw: zmq.Socket[bytes], publisher: ZmqBroker, subscriber: ZmqBroker, name: str, body: bytes
) -> None:
    whole = frame(name, body)
    assert len(whole) == MAX_BYTES + MAX_CHANNEL + 1
    raw.send(whole)
    for k in range(3):
        publisher.publish(LINE, say(k))
    assert receive(subscriber, 3) == [(LINE, say(k)) for k in range(3)]
    assert not subscriber.refused
    greet(raw, subscriber)  # it may come back


def test_a_gap_is_an_error_and_the_broker_lives_on(publisher: ZmqBroker, subscriber: ZmqBroker) -> None:
    for sequence in (0, 2, 3):
        publisher.publish(LINE, say(sequence))
    assert receive(subscriber, 1) == [(LINE, say(0))]
    with pytest.raises(LostMessageError, match="expected sequence 1, got 2"):
        subscriber.poll(PATIENCE_S)
    assert receive(subscriber, 1) == [(LINE, say(3))]


@pytest.fixture(scope="module")
def hearer(address: Address) -> Iterator[ZmqBroker]:
    broker = ZmqBroker(address, RUN)
    yield broker
    broker.close()


@pytest.fixture(scope="module")
def speaker(address: Address, hearer: ZmqBroker) -> Iterator[zmq.Socket[bytes]]:
    """A peer that sends what it likes, heard by the hearer."""
    with raw_peer(address, hearer, LINE) as peer:
        yield peer


class TestGarbage:
    """Whatever the bytes are, poll does not raise."""

    GOOD = encode(say(0, "raw", run="yesterday"))

    def settle(self, speaker: zmq.Socket[bytes], hearer: ZmqBroker, name: bytes, body: bytes) -> None:
        """Send garbage and then a good message, which has to be the only one that arrives."""
        marker = say(0, f"raw-{time.monotonic_ns()}")
        refused = hearer.refused.total()
        speaker.send(frame(name, body))
        speaker.send(frame(LINE, encode(marker)))
        assert receive(hearer, 1) == [(LINE, marker)]
        assert hearer.refused.total() == refused + 1

    @settings(deadline=None, max_examples=150)
    @given(suffix=st.binary(max_size=20), body=st.binary(max_size=200))
    def test_random_bytes(self, speaker: zmq.Socket[bytes], hearer: ZmqBroker, suffix: bytes, body: bytes) -> None:
        self.settle(speaker, hearer, LINE.encode() + suffix, body)

    @settings(deadline=None, max_examples=150)
    @given(position=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
    def test_a_message_of_another_run_with_any_byte_changed(
        self, speaker: zmq.Socket[bytes], hearer: ZmqBroker, position: int, byte: int
    ) -> None:
        changed = bytearray(self.GOOD)
        changed[position] = byte
        self.settle(speaker, hearer, LINE.encode(), bytes(changed))

    @settings(deadline=None, max_examples=150)
    @given(
        entries=st.lists(
            st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
            min_size=8,
            max_size=11,
        ),
        kind=st.sampled_from(
            ["peer", "report", "network", "setpoint", "state", "stop", "failure", "batch", "resume", "beat"]
        ),
    )
    def test_message_pack_of_anything(
        self, speaker: zmq.Socket[bytes], hearer: ZmqBroker, entries: list[Any], kind: str
    ) -> None:
        self.settle(speaker, hearer, LINE.encode(), msgpack.packb([VERSION, kind, *entries]))


class TestMisuse:
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_is_told_and_the_parent_goes_on(self, publisher: ZmqBroker, subscriber: ZmqBroker) -> None:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, "\n".join(_use_all(publisher)).encode())
            finally:
                os._exit(0)
        os.close(writer)
        try:
            readable, _, _ = select.select([reader], [], [], PATIENCE_S)
            told = os.read(reader, 65536).decode().splitlines() if readable else []
        finally:
            os.close(reader)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert [line.split(":")[0] for line in told] == ["BrokerError"] * 3 + ["closed"]
        assert f"of process {os.getpid()} used in its forked child {child}" in told[0]
        publisher.publish(LINE, say(0))
        assert receive(subscriber, 1) == [(LINE, say(0))]

    def test_prove_says_that_no_proxy_answers_within_its_patience(self) -> None:
        address = Address("127.0.0.1", free_port(), free_port())
        broker = ZmqBroker(address, RUN)
        begin = time.monotonic()
        with pytest.raises(BrokerError, match=f"no answer from a proxy at {address} within 1 s; is it running there"):
            broker.prove(1.0)
        assert 0.9 < time.monotonic() - begin < 3.0
        begin = time.monotonic()
        broker.close()
        assert time.monotonic() - begin < 2.0

    def test_prove_needs_both_directions(self, address: Address) -> None:
        deaf = ZmqBroker(address._replace(subscribe_port=free_port()), RUN)
        mute = ZmqBroker(address._replace(publish_port=free_port()), RUN)
        for broker in (deaf, mute):
            with pytest.raises(BrokerError, match="no answer"):
                broker.prove(0.3)
            broker.close()

    @pytest.mark.parametrize("taken_first", [True, False])
    def test_a_proxy_on_a_taken_port_says_so(self, small_file: str, taken_first: bool) -> None:
        with closing(socket.socket()) as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            taken = holder.getsockname()[1]
            ports = (taken, free_port()) if taken_first else (free_port(), taken)
            done = _node("broker", small_file, "--ports", f"{ports[0]},{ports[1]}")
        assert done.returncode == 1
        assert done.stdout == ""
        assert f"error: cannot bind 127.0.0.1:{taken}: Address already in use" in done.stderr
        assert "is another run using it?" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("ports", ["5555", "x,y", "5555,"])
    def test_ports_that_are_none_are_told(self, ports: str) -> None:
        done = _node("broker", "small.yaml", "--ports", ports)
        assert done.returncode == 2
        assert "--ports" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_port_out_of_range_is_told(self, small_file: str) -> None:
        done = _node("broker", small_file, "--ports", f"{free_port() + 65536},{free_port()}")
        assert done.returncode != 0
        assert "Traceback" not in done.stderr


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "parsed"),
        [
            ("127.0.0.1:5555,5556", ("127.0.0.1", 5555, 5556)),
            ("grid.example.org:1,65535", ("grid.example.org", 1, 65535)),
        ],
    )
    def test_survives_a_trip_through_text(self, text: str, parsed: tuple[str, int, int]) -> None:
        assert Address.parse(text) == parsed
        assert str(Address.parse(text)) == text

    @pytest.mark.parametrize(
        "text",
        [
            *("", "x", "1,2", ":1,2", "host", "host:", "host:1", "host:1,", "host:,2", "host:a,b", "host:1,2,3"),
            *("host:-1,2", "host: 1,2", "host:1.5,2", "host 1,2"),
        ],
    )
    def test_text_of_another_form_is_told(self, text: str) -> None:
        with pytest.raises(BrokerError, match="expected HOST:PORT,PORT, got "):
            Address.parse(text)

    @pytest.mark.parametrize("text", ["host:0,1", "host:1,65536", "host:99999,1"])
    def test_a_port_out_of_range_is_told(self, text: str) -> None:
        with pytest.raises(BrokerError):
            Address.parse(text)

    def test_a_superscript_is_no_port(self) -> None:
        with pytest.raises(BrokerError):
            Address.parse("host:²,3")

    @pytest.mark.parametrize("host", ["a b", "*"])
    def test_a_host_that_cannot_be_one_is_told(self, small_file: str, host: str) -> None:
        done = _node("device", small_file, "mg_1.dg_1", "--connect", f"{host}:1,2")
        assert done.returncode != 0
        assert host in done.stderr
        assert "Traceback" not in done.stderr


def _use_all(broker: ZmqBroker) -> Iterator[str]:
    """What the forked child is told when it uses its parent's broker."""
    for use in (lambda: broker.publish(LINE, say(0)), lambda: broker.subscribe(LINE), lambda: broker.poll(0.0)):
        try:
            use()
            yield "nothing"
        except BrokerError as error:
            yield f"BrokerError: {error}"
    broker.close()
    yield "closed"


def _node(kind: str, *arguments: str, patience_s: float = 30.0) -> subprocess.CompletedProcess[str]:
    """``python -m nodes.KIND`` until it ends; code 0 where it has to be ended."""
    command = [sys.executable, "-m", f"nodes.{kind}", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            out, err = process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            return subprocess.CompletedProcess(command, 0, out, err)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_poll_ends_in_time_however_much_there_is_to_refuse() -> None:
    with (
        running_proxy() as address,
        closing(ZmqBroker(address, RUN)) as broker,
        closing(ZmqBroker(address, "x")) as other,
    ):
        listen(broker, "state/mg_1.dg_1/")
        other.prove(PATIENCE_S)
        stop = threading.Event()
        pub = other._pub

        def shout() -> None:
            while not stop.wait(0.02):
                pub.send(frame("state/mg_1.dg_1/", b"junk"))

        shouting = threading.Thread(target=shout)
        shouting.start()
        try:
            begin = time.monotonic()
            assert broker.poll(0.2) is None
            assert time.monotonic() - begin < 1.0
        finally:
            stop.set()
            shouting.join()
