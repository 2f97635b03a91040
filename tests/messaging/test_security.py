"""Security: who may not connect, say or hear something does not, is told so within a second, and harms nobody else."""

from __future__ import annotations

import dataclasses
import itertools
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
import zmq
from conftest import small_topology, wait_until
from secure import WITHIN_S, SecuredProxy, make_keys, raw_socket, secured_proxy
from wire import PATIENCE_S, RUN, listen, receive, running_proxy, say

import zgrid
from zgrid.encoding import MAX_BYTES, encode
from zgrid.errors import LostMessageError, RefusedError
from zgrid.messages import Envelope
from zgrid.messaging import PROXY, Address, Credentials, Rights, Tap, ZmqBroker
from zgrid.messaging.address import END
from zgrid.messaging.checking_proxy import CheckingProxy
from zgrid.messaging.gatekeeper import peer_of, shut_down
from zgrid.messaging.keys import KeyRing, for_node, for_proxy, revoke, rotate
from zgrid.watching import Ear

STATE = "state/mg_1.pv_1/"
OWN = "probe/mg_1.pv_1/"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredProxy]:
    """A proxy with keys, shared by tests that leave its folder as it is."""
    with secured_proxy(tmp_path_factory.mktemp("shared") / "keys") as proxy:
        yield proxy


@pytest.fixture
def own_proxy(tmp_path: Path) -> Iterator[SecuredProxy]:
    """A proxy with keys for a test that changes them."""
    with secured_proxy(tmp_path / "keys") as proxy:
        yield proxy


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test opens."""
    with ExitStack() as stack:
        yield stack


def broker_of(stack: ExitStack, proxy: SecuredProxy, name: str) -> ZmqBroker:
    """A node's broker, not proven yet."""
    return stack.enter_context(closing(ZmqBroker(proxy.address, RUN, for_node(proxy.keys, name))))


def connected(stack: ExitStack, proxy: SecuredProxy, name: str, *channels: str) -> ZmqBroker:
    """A node's broker that listens on the channels."""
    broker = broker_of(stack, proxy, name)
    listen(broker, *channels)
    return broker


def raw_of(stack: ExitStack, proxy: SecuredProxy, kind: int, name: str) -> zmq.Socket[bytes]:
    """A node's key in the hands of somebody who sends what he likes."""
    return stack.enter_context(raw_socket(kind, proxy.address, for_node(proxy.keys, name)))


def strange(proxy: SecuredProxy, name: str = "mg_1.pv_1") -> Credentials:
    """A pair of keys that nobody knows, for the right proxy."""
    public, secret = zmq.curve_keypair()
    return Credentials(name, public, secret, for_node(proxy.keys, "env").server_public)


def refused(address: Address, own: Credentials | None) -> RefusedError:
    """The error of a node that cannot connect, which comes within a second."""
    with closing(ZmqBroker(address, RUN, own)) as broker:
        begin = time.monotonic()
        with pytest.raises(RefusedError) as caught:
            broker.prove(PATIENCE_S)
        assert time.monotonic() - begin < WITHIN_S
    return caught.value


class TestHandshake:
    def test_a_key_that_is_listed_connects(self, proxy: SecuredProxy, stack: ExitStack) -> None:
        connected(stack, proxy, "mg_1.pv_1")

    def test_a_stranger_is_refused_on_both_sides(self, proxy: SecuredProxy) -> None:
        own = strange(proxy)
        error = refused(proxy.address, own)
        assert (error.node, error.fingerprint, error.address) == (own.name, own.fingerprint, str(proxy.address))
        assert "zgrid keys list" in str(error)
        assert own.secret.decode() not in str(error)
        assert proxy.tells("refused a connection from 127.0.0.1", "stranger key", own.fingerprint)

    def test_a_revoked_key_is_refused_on_both_sides(self, own_proxy: SecuredProxy) -> None:
        own = for_node(own_proxy.keys, "mg_1.pv_1")
        revoke(own_proxy.keys, "mg_1.pv_1")
        assert refused(own_proxy.address, own).fingerprint == own.fingerprint
        assert own_proxy.tells("revoked key", own.fingerprint, "mg_1.pv_1")

    def test_a_rotated_key_connects_at_once_and_the_old_one_does_not(
        self, own_proxy: SecuredProxy, stack: ExitStack
    ) -> None:
        old = for_node(own_proxy.keys, "mg_1.pv_1")
        rotate(own_proxy.keys, "mg_1.pv_1")
        connected(stack, own_proxy, "mg_1.pv_1")
        refused(own_proxy.address, old)

    def test_a_key_for_another_proxy_is_refused_on_both_sides(self, own_proxy: SecuredProxy) -> None:
        public, _ = zmq.curve_keypair()
        own = dataclasses.replace(for_node(own_proxy.keys, "mg_1"), server_public=public)
        error = refused(own_proxy.address, own)
        assert "public/broker.key" in error.remedy
        assert own_proxy.tells("refused a connection from 127.0.0.1", "keys for another proxy")

    def test_a_node_without_keys_is_refused_on_both_sides(self, own_proxy: SecuredProxy) -> None:
        error = refused(own_proxy.address, None)
        assert error.fingerprint == ""
        assert "broker.keys" in error.remedy
        assert own_proxy.tells("refused a connection from", " keys"), own_proxy.log

    def test_a_node_with_keys_at_a_proxy_without_is_told(self, proxy: SecuredProxy) -> None:
        with running_proxy() as address:
            error = refused(address, for_node(proxy.keys, "mg_1"))
        assert "the proxy was started without keys" in error.remedy

    def test_a_proxy_that_comes_back_with_another_key_is_noticed_during_a_run(
        self, tmp_path: Path, stack: ExitStack
    ) -> None:
        """The node polls, and hears of it within a second of its next handshake."""
        with secured_proxy(tmp_path / "first") as first:
            broker = connected(stack, first, "mg_1")
        with secured_proxy(tmp_path / "second", ports=first.address[1:]), pytest.raises(RefusedError):
            _poll_until_refused(broker)


def _poll_until_refused(broker: ZmqBroker) -> None:
    begin = time.monotonic()
    while time.monotonic() - begin < PATIENCE_S:
        broker.poll(1.0)


class TestRevokedWhileRunning:
    def test_what_it_says_is_dropped_at_once(self, own_proxy: SecuredProxy, stack: ExitStack) -> None:
        grid = connected(stack, own_proxy, "mg_1", STATE, "control/all/")
        device, env = connected(stack, own_proxy, "mg_1.pv_1"), connected(stack, own_proxy, "env")
        device.publish(STATE, say(0))
        assert receive(grid, 1) == [(STATE, say(0))]
        revoke(own_proxy.keys, "mg_1.pv_1")
        sequence = itertools.count(1)
        told = "revoked_key mg_1.pv_1"
        assert wait_until(lambda: device.publish(STATE, say(next(sequence))) > 0 and told in own_proxy.log, WITHIN_S)
        while grid.poll(0.1) is not None:
            pass
        device.publish(STATE, say(next(sequence)))
        env.publish("control/all/", say(0))
        assert receive(grid, 1) == [("control/all/", say(0))]

    def test_it_hears_no_more_and_the_others_lose_nothing(self, own_proxy: SecuredProxy, stack: ExitStack) -> None:
        env, grid = connected(stack, own_proxy, "env"), connected(stack, own_proxy, "mg_1", "control/all/")
        spy = connected(stack, own_proxy, "mg_1.pv_1", "control/all/")
        env.publish("control/all/", say(0))
        assert receive(spy, 1) == receive(grid, 1) == [("control/all/", say(0))]
        revoke(own_proxy.keys, "mg_1.pv_1")
        for k in range(1, 200):
            env.publish("control/all/", say(k))
            heard = grid.poll(PATIENCE_S)
            assert heard is not None
            assert heard.envelope.sequence == k  # in order: a gap would have raised
        assert wait_until(lambda: _is_cut_off(spy), PATIENCE_S)

    def test_nobody_else_is_cut(self, own_proxy: SecuredProxy, stack: ExitStack) -> None:
        spy, env = connected(stack, own_proxy, "mg_1.pv_1", "control/all/"), connected(stack, own_proxy, "env")
        grid = raw_of(stack, own_proxy, zmq.SUB, "mg_1")
        monitor = grid.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        grid.subscribe(b"control/all/")
        assert wait_until(lambda: env.publish("control/all/", say(0)) > 0 and grid.poll(10) > 0, PATIENCE_S)
        revoke(own_proxy.keys, "mg_1.pv_1")
        assert wait_until(lambda: _is_cut_off(spy), PATIENCE_S)
        assert monitor.poll(0) == 0
        grid.disable_monitor()
        monitor.close(linger=0)

    def test_it_is_told_by_its_own_poll(self, own_proxy: SecuredProxy, stack: ExitStack) -> None:
        node = connected(stack, own_proxy, "mg_1.pv_1", "control/all/")
        revoke(own_proxy.keys, "mg_1.pv_1")
        with pytest.raises(RefusedError):
            _poll_until_refused(node)


def _is_cut_off(broker: ZmqBroker) -> bool:
    try:
        broker.poll(0.1)
    except RefusedError:
        return True
    return False


class TestMessages:
    @pytest.mark.parametrize(
        "channel",
        [
            "control/all/",
            "report/mg_1/",
            "setpoint/mg_1.dg_1/",
            "state/mg_1.dg_1/",
            "probe/mg_1/",
            "new/",
            "",
            STATE[:-1],
        ],
    )
    def test_the_right_key_on_a_wrong_channel_is_dropped(
        self, proxy: SecuredProxy, stack: ExitStack, channel: str
    ) -> None:
        watch = connected(stack, proxy, "watch", STATE, channel)
        device = connected(stack, proxy, "mg_1.pv_1")
        device.publish(channel, say(0))
        device.publish(STATE, say(0))
        assert receive(watch, 1) == [(STATE, say(0))]
        assert proxy.tells("may_not_publish mg_1.pv_1")

    def test_another_sender_on_ones_own_channel_is_for_the_hearer_to_refuse(
        self, proxy: SecuredProxy, stack: ExitStack
    ) -> None:
        """A channel has one speaker, so its name is known without the sender; hosts take it from that sender only."""
        grid, device = connected(stack, proxy, "mg_1", STATE), connected(stack, proxy, "mg_1.pv_1")
        device.publish(STATE, say(0, "env"))
        assert [(name, envelope.sender) for name, envelope in receive(grid, 1)] == [(STATE, "env")]

    def test_a_watcher_hears_all_and_says_nothing(self, proxy: SecuredProxy, stack: ExitStack) -> None:
        spy = raw_of(stack, proxy, zmq.SUB, "watch")
        spy.setsockopt(zmq.RCVTIMEO, 100)
        spy.subscribe(b"")
        grid = connected(stack, proxy, "mg_1", "control/all/")
        watch, env = connected(stack, proxy, "watch"), connected(stack, proxy, "env")
        heard: list[bytes] = []
        assert wait_until(lambda: _hears_a_probe(spy, env, heard), PATIENCE_S)
        watch.publish("control/all/", say(0, "watch"))
        assert proxy.tells("may_not_publish watch")
        env.publish("control/all/", say(0, "env"))
        assert [envelope.sender for _, envelope in receive(grid, 1)] == ["env"]
        while heard[-1] != b"control/all/":
            heard.append(spy.recv().partition(END)[0])

    @pytest.mark.parametrize(
        "frames",
        [
            pytest.param([b""], id="nothing"),
            pytest.param([STATE.encode()], id="no body"),
            pytest.param([STATE.encode() + END + encode(say(0, "bad")), b"more"], id="two frames"),
            pytest.param([STATE.encode() + END] * 100, id="many frames"),
            pytest.param([b"\xff\xfe/" + END + b"x"], id="no text"),
            pytest.param([STATE.encode() + END + b"x" * (MAX_BYTES + 512)], id="oversize"),
            pytest.param([b"c" * (MAX_BYTES + 512) + END + b"x"], id="oversize channel"),
        ],
    )
    def test_what_is_malformed_ends_nothing(self, proxy: SecuredProxy, stack: ExitStack, frames: list[bytes]) -> None:
        grid, device = connected(stack, proxy, "mg_1", STATE), connected(stack, proxy, "mg_1.pv_1")
        device._pub.send_multipart(frames)
        with closing(ZmqBroker(proxy.address, RUN, for_node(proxy.keys, "mg_1.pv_1"))) as again:
            again.prove(PATIENCE_S)
            again.publish(STATE, say(0))
            assert receive(grid, 1) == [(STATE, say(0))]
        assert proxy.is_alive


def _hears_a_probe(spy: zmq.Socket[bytes], speaker: ZmqBroker, heard: list[bytes]) -> bool:
    """Whether the spy hears what is not meant for it."""
    speaker.prove(PATIENCE_S)
    try:
        heard.append(spy.recv().partition(END)[0])
    except zmq.Again:
        return False
    return True


class TestSubscriptions:
    @pytest.mark.parametrize("topic", ["", "s", "state/", "report/mg_1/", STATE, "probe/", "probe/mg_1/"])
    def test_what_a_node_may_not_hear_it_does_not(self, proxy: SecuredProxy, stack: ExitStack, topic: str) -> None:
        spy = raw_of(stack, proxy, zmq.SUB, "mg_1.dg_1")
        for name in (topic, "control/all/"):
            spy.subscribe(name.encode())
        grid, device = connected(stack, proxy, "mg_1"), connected(stack, proxy, "mg_1.pv_1")
        env = connected(stack, proxy, "env")
        spy.setsockopt(zmq.RCVTIMEO, 20)
        heard: list[bytes] = []
        sequence = iter(range(1000))

        def say_all() -> bool:
            grid.publish("report/mg_1/", say(0))
            device.publish(STATE, say(0))
            env.publish("control/all/", say(next(sequence)))
            try:
                heard.append(spy.recv().partition(END)[0])
            except zmq.Again:
                return False
            return len(heard) >= 3

        assert wait_until(say_all, PATIENCE_S)
        assert set(heard) == {b"control/all/"}
        assert proxy.tells("may_not_hear mg_1.dg_1")

    def test_who_sends_what_is_no_subscription_is_banned_and_nobody_loses_anything(
        self, own_proxy: SecuredProxy, stack: ExitStack
    ) -> None:
        env, grid = connected(stack, own_proxy, "env"), connected(stack, own_proxy, "mg_1", "control/all/")
        attacker = raw_of(stack, own_proxy, zmq.XSUB, "mg_1.dg_1")
        attacker.send(b"\x05junk")
        for k in range(300):
            env.publish("control/all/", say(k))
            assert grid.poll(PATIENCE_S) is not None  # a gap would raise
        assert own_proxy.tells("no_subscription mg_1.dg_1")
        refused(own_proxy.address, for_node(own_proxy.keys, "mg_1.dg_1"))
        connected(stack, own_proxy, "mg_1.pv_1")

    def test_nobody_gets_what_was_granted_to_another(self, tmp_path: Path, stack: ExitStack) -> None:
        """The order in which libzmq, left alone, grants the watcher's subscription to the attacker."""
        keys = make_keys(tmp_path / "keys")
        context = stack.enter_context(zmq.Context())
        stack.callback(context.destroy, linger=0)
        rights = Rights({}, {"mg_1": frozenset(("allowed/",)), "mg_1.dg_1": frozenset()}, frozenset(("watch",)))
        checking = CheckingProxy(context, for_proxy(keys), KeyRing(keys), rights)
        address = checking.bind("127.0.0.1", None)
        peers: dict[str, zmq.Socket[bytes]] = {}
        for name in ("mg_1.dg_1", "watch", "mg_1"):  # who connects first is read first
            peers[name] = stack.enter_context(raw_socket(zmq.XSUB, address, for_node(keys, name)))
            peers[name].send(f"\x01probe/{name}/".encode())
            _turn_until(checking, peers, name, f"probe/{name}/")
        peers["mg_1.dg_1"].send(b"\x05junk")
        peers["watch"].send(b"\x01secret/")
        peers["mg_1"].send(b"\x01allowed/")
        wait_until(lambda: False, 0.2)  # until all three wait in one queue, which nothing tells
        _turn_until(checking, peers, "watch", "secret/")
        _turn_until(checking, peers, "mg_1", "allowed/")
        checking._out.send(b"secret/" + END + b"x")
        assert peers["watch"].poll(1000)
        assert not peers["mg_1"].poll(200)
        assert checking.refused["no_subscription mg_1.dg_1"] == 1


def _turn_until(checking: CheckingProxy, peers: dict[str, zmq.Socket[bytes]], name: str, topic: str) -> None:
    """Let the proxy work until a node's subscription is granted; peers resubscribe only while they poll."""

    def is_granted() -> bool:
        checking.turn(10)
        for peer in peers.values():
            peer.poll(0)
        return (name, topic) in {(checking._names.get(user), one.decode()) for user, one in checking._granted}

    assert wait_until(is_granted, PATIENCE_S)


class TestGarbage:
    """Whatever is sent, neither the proxy nor a node ends, and the next good message passes."""

    @pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
    @pytest.mark.timeout(600)
    def test_mutated_frames(self, proxy: SecuredProxy, stack: ExitStack, count: int) -> None:
        grid = connected(stack, proxy, "mg_1", STATE)
        speaker = connected(stack, proxy, "mg_1.pv_1")
        send = speaker._pub.send_multipart
        mutate = Mutator(count)
        for k in range(count):
            send(mutate.frames())
            if k % 500 == 499:
                speaker.publish(STATE, say(k, f"good-{k}"))
                while (heard := _next_good(grid)) is not None and heard.sender != f"good-{k}":
                    pass
                assert heard is not None, f"nothing after {k} frames of seed {count}"
        assert proxy.is_alive
        assert grid.refused["malformed"] > count / 10

    def test_subscriptions_to_anything(self, proxy: SecuredProxy, stack: ExitStack) -> None:
        rng = np.random.default_rng(5)
        asking = raw_of(stack, proxy, zmq.XSUB, "mg_1.pv_1")
        for _ in range(5_000):
            kind = (b"\x00", b"\x01")[int(rng.integers(2))]
            asking.send(kind + rng.bytes(int(rng.integers(40))))
        grid, device = connected(stack, proxy, "mg_1", STATE), connected(stack, proxy, "mg_1.pv_1")
        device.publish(STATE, say(0))
        assert receive(grid, 1) == [(STATE, say(0))]
        assert not asking.poll(100)
        assert proxy.is_alive

    def test_bytes_that_are_no_zeromq(self, proxy: SecuredProxy, stack: ExitStack) -> None:
        rng = np.random.default_rng(3)
        greeting = b"\xff" + b"\0" * 8 + b"\x7f\x03\x01CURVE" + b"\0" * 47
        grid, speaker = connected(stack, proxy, "mg_1", STATE), connected(stack, proxy, "mg_1.pv_1")
        for k in range(200):
            port = (proxy.address.publish_port, proxy.address.subscribe_port)[k % 2]
            changed = bytearray(greeting + rng.bytes(int(rng.integers(300))))
            changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
            with closing(socket.create_connection((proxy.address.host, port), PATIENCE_S)) as peer:
                peer.sendall(changed)
        speaker.publish(STATE, say(0))
        assert receive(grid, 1) == [(STATE, say(0))]
        assert proxy.is_alive


class Mutator:
    """Frames that were good once: with bits flipped, cut off, spliced, doubled, or random from the start."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        old = [say(k, "old", run="yesterday", step=k) for k in range(3)]
        self._good = [encode(one) for one in old]
        self._channels = [STATE.encode(), OWN.encode(), b"control/all/"]

    def frames(self) -> list[bytes]:
        """One message, mostly of one frame."""
        rng = self._rng
        roll = rng.integers(100)
        channel = self._channels[0] if roll < 70 else self._mutated(self._channels[roll % 3])
        body = self._mutated(self._good[roll % 3])
        if roll < 95:
            return [channel + END + body]
        return [channel + body] + [b"x"] * int(rng.integers(3))

    def _mutated(self, frame: bytes) -> bytes:
        rng = self._rng
        how, at, other = (int(x) for x in rng.integers((0, 0, 0), (5, len(frame), len(frame))))
        if how == 0:
            changed = bytearray(frame)
            changed[at] ^= 1 << int(rng.integers(8))
            return bytes(changed)
        if how == 1:
            return frame[:at]
        if how == 2:
            return frame[:at] + frame[other:]
        if how == 3:
            return frame[:at] + rng.bytes(4) + frame[at:]
        return rng.bytes(at)


def _next_good(broker: ZmqBroker) -> Envelope | None:
    while True:
        try:
            delivery = broker.poll(PATIENCE_S)
        except LostMessageError:
            continue
        return None if delivery is None else delivery.envelope


def test_what_the_proxy_refuses_is_counted_by_its_sender_and_told_to_the_env_and_to_watchers(
    tmp_path: Path, stack: ExitStack
) -> None:
    keys = make_keys(tmp_path / "keys")
    env = stack.enter_context(closing(zgrid.parallel_env(small_topology(), **{"broker.keys": str(keys)})))
    env.reset(seed=0)
    proxy = env._execution._session.processes[PROXY]
    address = env._execution._session.address
    assert not any("may_not" in cause for cause in env.stats()["refused"])
    pub = stack.enter_context(raw_socket(zmq.XPUB, address, for_node(keys, "mg_1.dg_1")))
    sub = stack.enter_context(raw_socket(zmq.SUB, address, for_node(keys, "mg_1.dg_1")))
    sub.setsockopt(zmq.SUBSCRIBE, b"action/mg_1/")
    counted = {"may_not_publish mg_1.dg_1": 7, "may_not_hear mg_1.dg_1": 1}
    assert wait_until(lambda: env.stats()["refused"].get("may_not_hear mg_1.dg_1") == 1, PATIENCE_S)
    assert pub.recv() == b"\x01"  # the proxy hears it
    for _ in range(7):
        pub.send(b"action/mg_1/" + END + b"spoofed")
    assert wait_until(lambda: counted.items() <= env.stats()["refused"].items(), PATIENCE_S)
    with Tap(address, ["beat/broker/"], for_node(keys, "watch")) as tap:
        ear, heard = Ear(), tap.poll(PATIENCE_S)
        assert heard is not None
        ear.take(heard)
    assert ear.nodes["broker"].beat.pid == proxy.popen.pid
    assert counted.items() <= {cause: count for cause, count, _ in ear.nodes["broker"].beat.refused}.items()
    env.step(dict.fromkeys(env.agents))


class TestConnectionsBelowZeroMQ:
    @pytest.fixture
    def ends(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Both ends of a connection."""
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as far,
            server.accept()[0] as near,
        ):
            yield near, far

    def test_one_is_shut_down_also_where_no_descriptor_is_left(self, ends: tuple[socket.socket, socket.socket]) -> None:
        near, far = ends
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        peer = "{}:{}".format(*far.getsockname())
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(near.fileno())
            assert peer_of(near.fileno()) == peer
            assert shut_down(near.fileno(), peer)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert far.recv(1) == b""

    def test_one_to_somebody_else_is_let_alone(self, ends: tuple[socket.socket, socket.socket]) -> None:
        near, far = ends
        assert shut_down(near.fileno(), "127.0.0.1:1")  # that one is gone
        assert not shut_down(near.fileno(), "")  # who knows
        near.sendall(b"x")
        assert far.recv(1) == b"x"

    def test_what_is_none_any_more_is_gone(self) -> None:
        with socket.socket() as one:
            descriptor = one.fileno()
            assert peer_of(descriptor) == ""
            assert shut_down(descriptor, "127.0.0.1:1")
        assert peer_of(descriptor) == peer_of(-1) == ""
        assert shut_down(descriptor, "127.0.0.1:1")
