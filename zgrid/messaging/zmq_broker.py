"""ZmqBroker: a connection to a ZeroMQ proxy. Nodes connect; only the proxy binds."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable

import zmq

from zgrid.encoding import FREQUENT, MAX_BYTES, Familiar, decode, encode, packer
from zgrid.errors import BrokerError, MessageError
from zgrid.messages import Envelope, Probe, channel, make
from zgrid.messaging.address import END, Address
from zgrid.messaging.base import Delivery, MessageBroker
from zgrid.messaging.handshake import HandshakeWatch
from zgrid.messaging.inspector import Inspector
from zgrid.messaging.keys import Credentials
from zgrid.messaging.pulse import Pulse

LINGER_MS = 500
HEARTBEAT_MS = 500
HEARTBEAT_TIMEOUT_MS = 1500
HANDSHAKE_MS = 3000
MAX_CHANNEL = 512
_PROBE_EVERY_S = 0.02
_LOOK_S = 0.5
"""While nothing comes, how often to see whether a handshake was refused."""

_PROBE = b"probe/"


class _Forks:
    """How many forks lie between this process and the one that started: asked per message, so no system call."""

    count = 0

    @classmethod
    def happened(cls) -> None:
        cls.count += 1


os.register_at_fork(after_in_child=_Forks.happened)


class ZmqBroker(MessageBroker):
    """One PUB and one SUB socket in a context of their own.

    High-water marks are 0: lockstep never has more than a step in flight, and the default of 1000 loses bursts
    without a word. Not for use by two threads, nor in a forked child.
    """

    def __init__(
        self,
        address: Address,
        run: str | None = None,
        credentials: Credentials | None = None,
        *,
        tolerant: bool = False,
    ) -> None:
        """Connect; ``run`` None: hear nothing but roll calls until :meth:`adopt`. With ``credentials`` the proxy has to
        be the one they name, and everything is encrypted. ``tolerant``: a gap is counted, but no error, because what
        is missing will be said again.

        Raises:
            BrokerError: an address that is none.
        """
        super().__init__()
        self.address = address
        self.inspector = Inspector(self.refused, run, tolerant=tolerant)
        self._pid = os.getpid()
        self._forks = _Forks.count
        self._packer = packer()
        self._heads: dict[str, bytes] = {}
        self._last: Envelope | None = None
        self._body = b""
        self._channels: dict[bytes, str] = {}
        self._familiar: dict[bytes, Familiar] = {}
        self._closed = False
        self._pulse: Pulse | None = None
        self._credentials = credentials
        self._context = zmq.Context()
        self._pub, self._sub = self._make(zmq.PUB), self._make(zmq.SUB)
        self._handshakes = HandshakeWatch(str(address), credentials, (self._pub, self._sub))
        try:
            self._pub.connect(f"tcp://{address.host}:{address.publish_port}")
            self._sub.connect(f"tcp://{address.host}:{address.subscribe_port}")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise BrokerError(f"cannot connect to {address}: {error}") from error
        self._timeout_s = -1.0

    def publish(self, channel: str, envelope: Envelope) -> int:
        if self._closed or self._forks != _Forks.count:
            self._check()
        last = self._last
        if last is not None and envelope.body is last.body and envelope[:-1] == last[:-1]:
            body = self._body  # the same to several: only the channel is another
        else:
            self._body = body = encode(envelope, self._packer)
            self._last = envelope
        head = self._heads.get(channel) or self._heads.setdefault(channel, channel.encode() + END)
        self._pub.send(head + body)
        return len(body)

    def subscribe(self, channel: str) -> None:
        self._check()
        self._channels[channel.encode()] = channel
        self._sub.setsockopt_string(zmq.SUBSCRIBE, channel)

    def poll(self, timeout_s: float) -> Delivery | None:
        if self._closed or self._forks != _Forks.count:
            self._check()
        if timeout_s != self._timeout_s:
            self._wait_at_most(timeout_s)
            self._timeout_s = timeout_s
        deadline = 0.0
        while not deadline or time.monotonic() < deadline:
            try:
                delivery = self._take(self._sub.recv())
                if delivery is not None:
                    return delivery
                deadline = deadline or time.monotonic() + timeout_s  # however much there is to refuse
            except zmq.Again:
                self._handshakes.check()
                if timeout_s <= _LOOK_S:
                    return None
                deadline = deadline or time.monotonic() + timeout_s - _LOOK_S
                self._wait_at_most(deadline - time.monotonic())
        return None

    def _take(self, frame: bytes) -> Delivery | None:
        """What is in a frame, or None where it is refused."""
        head, _, body = frame.partition(END)
        familiar = self._familiar.get(head)
        if familiar is not None:
            envelope = familiar.decode(body)
            if envelope is not None and self.inspector.follows(
                familiar.run, familiar.key, familiar.incarnation, envelope.sequence
            ):
                return make(Delivery, (familiar.key[1], envelope))
        return self._inspect(head, body)

    def _inspect(self, head: bytes, body: bytes) -> Delivery | None:
        """The same for what is not as the message before it on its channel."""
        channel = self._channels.get(head)
        if channel is None:
            if not head.startswith(_PROBE):
                self.inspector.refuse("malformed")
            return None
        try:
            envelope = decode(body)
        except MessageError as error:
            self.inspector.refuse(str(error).partition(":")[0])
            return None
        if type(envelope.body) is not Probe and self.inspector.accepts(channel, envelope):
            if type(envelope.body) in FREQUENT:
                self._familiar[head] = Familiar(channel, envelope)
            return Delivery(channel, envelope)
        return None

    def prove(self, timeout_s: float) -> None:
        """Send probes to oneself through the proxy until one comes back: then both directions work, and all
        subscriptions made before.

        Raises:
            BrokerError: none came back in time.
            RefusedError: the proxy refuses this node's key, or one of the two has keys and the other none.
        """
        me = uuid.uuid4().hex if self._credentials is None else f"{self._credentials.name}/{uuid.uuid4().hex}"
        probing = channel("probe", me)
        self.subscribe(probing)
        deadline = time.monotonic() + timeout_s
        sequence = 0
        while time.monotonic() < deadline:
            self.publish(probing, Envelope(me, "", 0, sequence, 0, 0, time.time_ns(), Probe(me)))
            sequence += 1
            self._wait_at_most(_PROBE_EVERY_S)
            try:
                head = self._sub.recv().partition(END)[0]
            except zmq.Again:
                self._handshakes.check()
                continue
            if head == probing.encode():
                self._sub.setsockopt_string(zmq.UNSUBSCRIBE, probing)
                del self._channels[head]
                return
        raise BrokerError(f"no answer from a proxy at {self.address} within {timeout_s:g} s; is it running there?")

    def adopt(self, run: str) -> None:
        self.inspector.adopt(run)

    def start_pulse(self, own: str, beat: Callable[[], Envelope], others: Iterable[str]) -> Pulse:
        """Beat on the channel ``own`` from a thread of its own, and hear the beats of others, until :meth:`close`."""
        assert self._pulse is None
        self._pulse = Pulse(self._connect, self.address, own, beat, others)
        self._pulse.start()
        return self._pulse

    def expect(self, channel: str, senders: Iterable[str]) -> None:
        self.inspector.speakers.setdefault(channel, set()).update(senders)

    def admits(self, sender: str, incarnation: int) -> bool:
        return self.inspector.admits(sender, incarnation)

    def forget(self) -> None:
        self.inspector.forget()

    def close(self) -> None:
        if self._closed or self._forks != _Forks.count:
            return
        self._closed = True
        if self._pulse is not None:
            self._pulse.stop()
        self._handshakes.close()
        self._pub.close()
        self._sub.close(linger=0)
        self._context.term()

    def _wait_at_most(self, seconds: float) -> None:
        """How long the next receive may wait."""
        self._timeout_s = -1.0
        self._sub.setsockopt(zmq.RCVTIMEO, max(0, round(min(seconds, _LOOK_S) * 1000.0)))

    def _connect(self, kind: int, port: int) -> zmq.Socket[bytes]:
        socket = self._make(kind)
        socket.connect(f"tcp://{self.address.host}:{port}")
        return socket

    def _make(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        configure(socket)
        own = self._credentials
        if own is not None:
            socket.curve_publickey, socket.curve_secretkey = own.public, own.secret
            socket.curve_serverkey = own.server_public
        return socket

    def _check(self) -> None:
        if self._closed:
            raise BrokerError("ZeroMQ broker: closed")
        if self._forks != _Forks.count:
            raise BrokerError(
                f"ZeroMQ broker of process {self._pid} used in its forked child {os.getpid()}; "
                f"make a new environment in the child"
            )


def configure(socket: zmq.Socket[bytes]) -> None:
    """The options of every socket, node's and proxy's: nothing dropped, bounded sizes and waits, heartbeats."""
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES + MAX_CHANNEL)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
