"""The proxy of a run with keys: it checks who connects, who says what on which channel, and who hears what.

It holds to three rules. What is not granted is denied. Nothing that a peer sends ends it. And a message costs one
receive, one send and two look-ups, no more: all else happens once per batch, or once per refusal.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import zmq

from zgrid.encoding import encode
from zgrid.errors import BrokerError, MessageError
from zgrid.messages import Beat, Envelope, channel
from zgrid.messaging.address import END, Address
from zgrid.messaging.gatekeeper import Gatekeeper, peer_of, shut_down
from zgrid.messaging.inspector import count_refusal
from zgrid.messaging.keys import PROXY, Credentials, KeyRing, fingerprint, for_proxy
from zgrid.messaging.proxy import BACKLOG, bind
from zgrid.messaging.pulse import EVERY_S
from zgrid.messaging.rights import NOTHING, Rights, probe_prefix
from zgrid.messaging.zmq_broker import configure

logger = logging.getLogger(__name__)

_BATCH = 1000
_WAIT_MS = 300
_LOOK_S = 0.01
"""How often to look whether a key was revoked: as good as at once, and a tenth of the price of a look per message."""

_RETURN_S = 1.0
_UNBIND_MS = 2000
_NONE: frozenset[bytes] = frozenset()
_USER = "User-Id"
_BEAT = channel("beat", PROXY).encode() + END


def run_checking_proxy(
    host: str, ports: Sequence[int] | None, bound: Callable[[Address], None], keys: Path, rights: Rights
) -> None:
    """Bind, tell ``bound`` where, and forward what is granted until the process ends.

    Raises:
        BrokerError: an address that cannot be bound.
        KeyFileError: the proxy's own key is not in the folder, or others may read it.
    """
    credentials, ring = for_proxy(keys), KeyRing(keys)
    context = zmq.Context()
    try:
        proxy = CheckingProxy(context, credentials, ring, rights)
        address = proxy.bind(host, ports)
    except BrokerError:
        context.destroy(linger=0)
        raise
    bound(address)
    proxy.run()


class CheckingProxy:
    """Two sockets that speak CURVE only, and what each key is granted on them."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], own: Credentials, ring: KeyRing, rights: Rights
    ) -> None:
        self.refused: Counter[str] = Counter()
        """What was not forwarded, by cause and node."""
        self._context, self._own, self._ring, self._rights = context, own, ring, rights
        self._banned: set[bytes] = set()
        self._names: dict[str, str] = {}
        self._says: dict[str, frozenset[bytes]] = {}
        self._granted: set[tuple[str, bytes]] = set()
        self._connections: dict[tuple[int, str], set[str]] = {}
        """Whose subscriptions came over a connection: a descriptor, and who is at its other end. As a rule that is one
        key; where a descriptor was taken over by another before it was looked at, it may seem to be two."""
        self._awaited: set[tuple[str, bytes]] | None = None
        self._deadline = self._next_look = self._next_beat = 0.0
        self._beats, self._begun_ms = 0, time.time_ns() // 1_000_000
        self._gate = Gatekeeper(context, self._count)
        self._in = self._open(zmq.XSUB)
        self._out = self._open(zmq.XPUB)
        self._poller = self._sources()
        self._settle()

    def bind(self, host: str, ports: Sequence[int] | None) -> Address:
        """Bind both sockets.

        Raises:
            BrokerError: an address that cannot be bound.
        """
        wanted = ports or (0, 0)
        self._address = Address(host, bind(self._in, host, wanted[0]), bind(self._out, host, wanted[1]))
        self._in.send(b"\x01")  # all that is published comes here
        return self._address

    def run(self) -> NoReturn:
        """Forward for ever."""
        while True:
            self.turn(_WAIT_MS)

    def turn(self, wait_ms: int) -> None:
        """Wait until something happens, and handle it."""
        ready = {socket for socket, _ in self._poller.poll(wait_ms)}
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_S
            self._look_at_the_keys()
        if now >= self._next_beat:
            self._next_beat = now + EVERY_S
            self._tell_figures()
        self._gate.serve(ready)
        if self._out in ready:
            self._admit()
        if self._awaited is not None:
            self._see_who_is_back()
        elif self._in in ready:
            self._forward()

    def _tell_figures(self) -> None:
        """Beat as a node does, so that the env and watchers know what was refused here."""
        refused = tuple((cause, count, 0) for cause, count in sorted(self.refused.items()))
        beat = Beat((), os.getpid(), (), (), refused)
        self._beats += 1
        envelope = Envelope(f"node:{PROXY}", "", self._begun_ms, self._beats, 0, 0, time.time_ns(), beat)
        with suppress(MessageError):  # a name that is no text; the log has it
            self._out.send(_BEAT + encode(envelope))

    # ---- messages --------------------------------------------------------------------------------------------------

    def _forward(self) -> None:
        """Pass on what waits, up to a batch. The hot path: the channel has to be one that the sender's key may use."""
        recv, send, says = self._in.recv, self._out.send, self._says
        try:
            for _ in range(_BATCH):
                frame = recv(zmq.NOBLOCK, copy=False)
                data = frame.bytes
                if data[: data.find(END)] in says.get(_user_of(frame), _NONE) and not frame.more:
                    send(data)
                else:
                    self._judge(frame, data)
        except zmq.Again:
            pass

    def _judge(self, frame: zmq.Frame, data: bytes) -> None:
        """A message that is not simply granted: a probe of oneself, or to be refused."""
        user = _user_of(frame)
        while self._in.getsockopt(zmq.RCVMORE):
            self._in.recv(copy=False)
        name = self._names.get(user, "")
        channel, end, _ = data.partition(END)
        if frame.more or not end:
            self._refuse("malformed", user)
        elif not name:
            self._refuse("revoked_key", user, channel)
        elif channel.startswith(probe_prefix(name).encode()) and self._rights.knows(name):
            self._out.send(data)
        else:
            self._refuse("may_not_publish", user, channel)

    # ---- subscriptions ---------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Grant or refuse the subscriptions that wait.

        libzmq remembers whose subscription was read last, and grants to that peer. A peer that sends anything else
        makes it count wrong until its queue is empty: what was asked by one would be granted to another. So nothing
        is granted from there on, the peer is banned, and the rest ask again on a new socket.
        """
        for _ in range(_BATCH):
            try:
                frame = self._out.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            asked, user = frame.bytes, _user_of(frame)
            if asked[:1] == b"\x01":
                self._subscribe(user, asked[1:], _connection_of(frame))
            elif asked[:1] == b"\x00":
                self._out.setsockopt(zmq.UNSUBSCRIBE, asked[1:])
                self._granted.discard((user, asked[1:]))
            else:
                self._ban(user)
                return

    def _subscribe(self, user: str, topic: bytes, connection: tuple[int, str]) -> None:
        name = self._names.get(user)
        if name is None or not self._rights.may_hear(name, topic.decode(errors="replace")):
            self._refuse("may_not_hear", user, topic)
            return
        self._out.setsockopt(zmq.SUBSCRIBE, topic)
        self._granted.add((user, topic))
        if user not in self._connections.get(connection, ()):
            for one in [one for one, keys in self._connections.items() if user in keys]:
                if peer_of(one[0]) not in (one[1], ""):
                    del self._connections[one]  # it has gone, and another has its descriptor
            self._connections.setdefault(connection, set()).add(user)
        if self._awaited:
            self._awaited.discard((user, topic))

    def _ban(self, user: str) -> None:
        self._refuse("no_subscription", user)
        if user:
            self._banned.add(user.encode())
        self._settle()
        self._reopen()

    def _look_at_the_keys(self) -> None:
        """See whether the folder changed. Who was revoked hears no more."""
        if self._ring.refresh():
            self._settle()
            for user in {user for user, _ in self._granted} - self._names.keys():
                self._cut(user)

    def _cut(self, user: str) -> None:
        """Close the connections over which a key has subscribed; whoever has it connects again, and is refused.

        ZeroMQ closes none by itself, so this ends them below it, if there still is who was there. Where that cannot be
        told, all are cut.
        """
        mine = [one for one, keys in self._connections.items() if user in keys]
        certain = bool(mine) and all(len(self._connections[one]) == 1 for one in mine)
        for descriptor, peer in mine if certain else ():
            certain = shut_down(descriptor, peer) and certain
            del self._connections[descriptor, peer]
        self._granted = {one for one in self._granted if one[0] != user}
        if not certain:
            self._reopen()

    def _reopen(self) -> None:
        """A new socket for subscribers on the same port. What was sent is still delivered, and what comes waits until
        everybody has subscribed again, but not longer than a second.
        """
        old, monitor = self._out, self._gate.release(self._out)
        old.unbind(old.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0"))
        while monitor.poll(_UNBIND_MS) and monitor.recv_multipart()[0][:2] != _CLOSED:
            pass
        old.disable_monitor()
        monitor.close(linger=0)
        old.close()
        self._out = self._open(zmq.XPUB)
        bind(self._out, self._address.host, self._address.subscribe_port)
        self._awaited = {one for one in self._granted if one[0] in self._names}
        self._granted, self._connections = set(), {}
        self._deadline = time.monotonic() + _RETURN_S
        self._poller = self._sources()

    def _see_who_is_back(self) -> None:
        """After a new socket: go on once all have subscribed again."""
        if not self._awaited or time.monotonic() > self._deadline:
            self._awaited = None
            self._poller = self._sources()

    def _sources(self) -> zmq.Poller:
        """What to wait for: no messages, as long as subscribers are awaited."""
        poller = zmq.Poller()
        for socket in (self._out, *self._gate.sockets, *(() if self._awaited is not None else (self._in,))):
            poller.register(socket, zmq.POLLIN)
        return poller

    # ---- keys ------------------------------------------------------------------------------------------------------

    def _open(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        configure(socket)
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self._own.public, self._own.secret
        socket.zap_domain = b"zgrid"
        if kind == zmq.XPUB:
            socket.setsockopt(zmq.XPUB_MANUAL, 1)
            socket.setsockopt(zmq.SNDHWM, BACKLOG)
        self._gate.watch(socket)
        return socket

    def _settle(self) -> None:
        """Take over the keys of the folder: names and channels by key, as ZeroMQ tells it with each frame."""
        accepted = {key: name for key, name in self._ring.accepted.items() if key not in self._banned}
        self._gate.accepted, self._gate.revoked = accepted, self._ring.revoked
        self._names = {key.decode(): name for key, name in accepted.items()}
        watchers = self._rights.watchers
        self._says = {
            key: frozenset(one.encode() for one in (self._rights.publish.get(name, NOTHING)))
            for key, name in self._names.items()
            if name not in watchers
        }

    def _refuse(self, cause: str, user: str, what: bytes = b"") -> None:
        """Count a refusal, and log the first of its kind."""
        if self._count(cause, user) == 1:
            about = f" {what[:80]!r}" if what else ""
            logger.warning("refused: %s%s (told once; see the counters)", f"{cause} {self._who(user)}".strip(), about)

    def _count(self, cause: str, user: str) -> int:
        """Count a refusal by cause and node; how often it happened."""
        return count_refusal(self.refused, cause, self._who(user))

    def _who(self, user: str) -> str:
        """Whose key it is or was; of a stranger's, the fingerprint."""
        key = user.encode()
        name = self._ring.accepted.get(key) or self._ring.revoked.get(key)
        return name or (f"key:{fingerprint(key)}" if user else "")


_CLOSED = int(zmq.EVENT_CLOSED).to_bytes(2, sys.byteorder)


def _connection_of(frame: zmq.Frame) -> tuple[int, str]:
    """The connection that a frame came over: its descriptor, and who is at the other end."""
    try:
        descriptor = int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return -1, ""  # it is gone already
    return descriptor, peer_of(descriptor)


def _user_of(frame: zmq.Frame) -> str:
    """The key of the peer that a frame came from, as the handshake proved it."""
    try:
        return str(frame.get(_USER))
    except zmq.ZMQError:
        return ""
