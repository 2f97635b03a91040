"""The gate of a proxy with keys: it answers ZeroMQ's question whether a key may connect, and tells who was refused."""

from __future__ import annotations

import logging
import socket as sockets
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import zmq
from zmq.utils import z85

from zgrid.messaging.keys import fingerprint

logger = logging.getLogger(__name__)

_ZAP = "inproc://zeromq.zap.01"
_EVENTS = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
)
_CAUSES = {0x11000001: "keys for another proxy", 0x11000002: "no keys"}
_PEERS = 10_000


class Gatekeeper:
    """Answers by an explicit list of keys (ZAP, RFC 27), in the thread of the proxy."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], count: Callable[[str, str], int]) -> None:
        """``count`` takes the cause and the key of every refusal."""
        self.accepted: Mapping[bytes, str] = {}
        """Names by public key: these may connect."""
        self.revoked: Mapping[bytes, str] = {}
        self._count = count
        self._zap = context.socket(zmq.REP)
        self._zap.setsockopt(zmq.LINGER, 0)
        self._zap.bind(_ZAP)
        self._monitors: dict[zmq.Socket[bytes], zmq.Socket[bytes]] = {}
        self._peers: dict[int, str] = {}
        self._why = ""
        self._told: set[tuple[str, str]] = set()
        self.sockets: list[zmq.Socket[bytes]] = [self._zap]
        """What to poll."""

    def watch(self, socket: zmq.Socket[bytes]) -> None:
        """Tell of failed handshakes on a socket; before it binds."""
        monitor = socket.get_monitor_socket(_EVENTS)
        self._monitors[socket] = monitor
        self.sockets.append(monitor)

    def release(self, socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
        """Watch a socket no more; its monitor, for the caller to end."""
        monitor = self._monitors.pop(socket)
        self.sockets.remove(monitor)
        return monitor

    def serve(self, ready: Collection[zmq.Socket[bytes]]) -> None:
        """Handle what waits at the gate."""
        if self._zap in ready:
            self._answer(self._zap.recv_multipart())
        for monitor in self._monitors.values():
            while monitor in ready and monitor.poll(0):
                self._note(*monitor.recv_multipart()[:1])

    def _answer(self, request: list[bytes]) -> None:
        """One question of ZAP: version, number, domain, address, identity, mechanism, key."""
        version, number, _, address, _, mechanism, *credentials = (*request, b"", b"", b"", b"", b"", b"", b"")[:7]
        key = z85.encode(credentials[0]) if mechanism == b"CURVE" and len(credentials[0]) == 32 else b""
        if key in self.accepted:
            self._zap.send_multipart((version, number, b"200", b"OK", key, b""))
            return
        cause = "revoked_key" if key in self.revoked else "stranger_key"
        self._zap.send_multipart((version, number, b"400", cause.encode(), b"", b""))
        self._count(cause, key.decode())
        name = self.revoked.get(key, "somebody")
        self._tell(address.decode(errors="replace"), f"{cause.replace('_', ' ')} {fingerprint(key)} of {name}")

    def _note(self, event: bytes) -> None:
        """One event of a monitor: where somebody comes from, that its handshake failed, that it is gone."""
        kind, value = struct.unpack("=hi", event)
        if kind == zmq.EVENT_ACCEPTED:
            if len(self._peers) >= _PEERS:
                self._peers.clear()
            self._peers[value] = peer_of(value)
        elif kind == zmq.EVENT_DISCONNECTED:
            peer = self._peers.pop(value, "unknown")
            if self._why:
                self._count("handshake", "")
                self._tell(peer.rpartition(":")[0], self._why)
                self._why = ""
        elif kind == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._why = _CAUSES.get(value, "no handshake of ZeroMQ")
        elif kind == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._why = "it left or fell silent during the handshake; without keys?"

    def _tell(self, host: str, why: str) -> None:
        if (host, why) not in self._told and len(self._told) < _PEERS:
            self._told.add((host, why))
            logger.warning("refused a connection from %s: %s (told once)", host or "unknown", why)


def peer_of(descriptor: int) -> str:
    """Who is at the other end of a connection of this process, if it still is."""
    if descriptor < 0:
        return ""
    try:
        with _borrowed(descriptor) as connection:
            return _name_of_peer(connection)
    except (OSError, ValueError):  # gone, or its descriptor is something else by now
        return ""


def shut_down(descriptor: int, peer: str) -> bool:
    """End a connection of this process, if it is still the one to this peer; whether that peer is certainly gone."""
    if not peer:
        return False
    try:
        with _borrowed(descriptor) as connection:
            if _name_of_peer(connection) == peer:
                connection.shutdown(sockets.SHUT_RDWR)
    except (OSError, ValueError):
        pass  # no connection, or none any more
    return True


@contextmanager
def _borrowed(descriptor: int) -> Iterator[sockets.socket]:
    """A descriptor of somebody else as a socket: a copy would need one more, and there may be none left."""
    connection = sockets.socket(fileno=descriptor)
    try:
        yield connection
    finally:
        connection.detach()


def _name_of_peer(connection: sockets.socket) -> str:
    host, port = connection.getpeername()[:2]
    return f"{host}:{port}"
