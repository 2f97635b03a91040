"""What a node sees of its own handshakes: a refusal, which ZeroMQ itself retries without a word, becomes an error."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import zmq
from zmq.utils.monitor import recv_monitor_message

from zgrid.errors import RefusedError

if TYPE_CHECKING:
    from zgrid.messaging.keys import Credentials

EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_FAILURES, _WITHIN_S = 3, 2.0
"""A handshake that ends without a reason may be a proxy that is just going: so many in a row, so quickly, are not."""


class HandshakeWatch:
    """Monitors of a node's sockets. Nothing is looked at per message: :meth:`check` is for when nothing comes."""

    def __init__(self, address: str, credentials: Credentials | None, sockets: Sequence[zmq.Socket[bytes]]) -> None:
        """Call before the sockets connect."""
        self._address, self._credentials = address, credentials
        self._sockets = tuple(sockets)
        self._monitors = [socket.get_monitor_socket(EVENTS) for socket in sockets]
        self._failed: list[list[float]] = [[] for _ in sockets]

    def check(self) -> None:
        """Look at what happened since the last time.

        Raises:
            RefusedError: a handshake was refused, or fails again and again.
        """
        for monitor, failed in zip(self._monitors, self._failed, strict=True):
            while int(monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                self._take(recv_monitor_message(monitor)["event"], failed)

    def close(self) -> None:
        """End the monitors; before their sockets."""
        for socket, monitor in zip(self._sockets, self._monitors, strict=True):
            socket.disable_monitor()
            monitor.close(linger=0)

    def _take(self, event: int, failed: list[float]) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            failed.clear()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise self._error("the proxy refuses this key", _STRANGER)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            raise self._error("one side has keys and the other has none", self._one_sided())
        else:
            failed.append(time.monotonic())
            if len(failed) >= _FAILURES and failed[-1] - failed[-_FAILURES] < _WITHIN_S:
                raise self._error("the handshake fails again and again", self._silent())

    def _error(self, cause: str, remedy: str) -> RefusedError:
        own = self._credentials
        name, fingerprint = (own.name, own.fingerprint) if own is not None else ("", "")
        return RefusedError(name, fingerprint, self._address, cause, remedy.replace("NAME", name))

    def _one_sided(self) -> str:
        return _NO_KEYS_HERE if self._credentials is None else _NO_KEYS_THERE

    def _silent(self) -> str:
        return _NO_KEYS_HERE if self._credentials is None else f"{_WRONG_SERVER}; or {_NO_KEYS_THERE}"


_STRANGER = (
    "it is unknown there (copy public/NAME.key of this node into public/ of the proxy's folder of keys), or it was "
    "revoked (zgrid keys list, on the proxy's machine; then zgrid keys rotate NAME, and copy the new secret here)"
)
_WRONG_SERVER = (
    "the proxy has another key than public/broker.key says here (copy that file from the proxy's machine anew, and "
    "see that the address is the right one)"
)
_NO_KEYS_HERE = (
    "the proxy wants keys, and this node has none (name the folder: broker.keys in the topology, or --keys FOLDER); "
    "or what listens there is no proxy of zgrid"
)
_NO_KEYS_THERE = "the proxy was started without keys (name the folder there: broker.keys, or --keys FOLDER)"
