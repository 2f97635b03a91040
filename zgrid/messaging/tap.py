"""Tap: hears everything that a proxy passes on, without ever being waited for."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NamedTuple, Self

import zmq

from zgrid.errors import BrokerError, RefusedError
from zgrid.messaging.address import END, Address
from zgrid.messaging.handshake import HandshakeWatch
from zgrid.messaging.keys import Credentials
from zgrid.messaging.zmq_broker import configure

CAPACITY = 100_000
_LOOK_MS = 50


class Heard(NamedTuple):
    """A message as it was on the wire. ``received_ns`` is the clock of whoever listens."""

    received_ns: int
    channel: str
    body: bytes


class Tap:
    """A subscriber outside the run. A thread empties its socket into a bounded queue: who reads too slowly loses
    messages, counted in ``dropped``, and neither the proxy nor the run notices.

    The bound is not ZeroMQ's own: a socket that is full stops reading, answers no heartbeats, is disconnected, and
    libzmq 4.3.5 can abort the whole process when it then connects again.
    """

    def __init__(
        self,
        address: Address,
        prefixes: Iterable[str] = ("",),
        credentials: Credentials | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        """Connect, and hear the channels that begin with one of ``prefixes`` as soon as the connection stands.

        Raises:
            BrokerError: an address that is none.
        """
        self.dropped = 0
        """Messages that came while ``capacity`` others waited to be read."""
        self.address = address
        self._capacity = capacity
        self._queue: deque[Heard] = deque()
        self._news = threading.Condition()
        self._refused: RefusedError | None = None
        self._stop = threading.Event()
        self._context = zmq.Context()
        try:
            self._socket = self._connect(address, prefixes, credentials)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise BrokerError(f"cannot connect to {address}: {error}") from error
        self._thread = threading.Thread(target=self._listen, name=f"tap {address}", daemon=True)
        self._thread.start()

    def poll(self, timeout_s: float) -> Heard | None:
        """The next message, or None if none comes in time.

        Raises:
            RefusedError: the proxy refuses the watcher's key, or one of the two has keys and the other none.
        """
        if self._refused is not None:
            raise self._refused
        with self._news:
            if not self._queue:
                self._news.wait_for(lambda: self._queue, timeout_s)
            return self._queue.popleft() if self._queue else None

    def listen(self, seconds: float | None = None) -> Iterator[Heard | None]:
        """What comes within a time, or for ever; None a few times a second while nothing does."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            yield self.poll(0.2 if end is None else max(0.0, min(0.2, end - time.monotonic())))

    def close(self) -> None:
        """End the connection; again is harmless."""
        self._stop.set()
        self._thread.join()
        self._handshakes.close()
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self, address: Address, prefixes: Iterable[str], credentials: Credentials | None) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.SUB)
        configure(socket)
        if credentials is not None:
            socket.curve_publickey, socket.curve_secretkey = credentials.public, credentials.secret
            socket.curve_serverkey = credentials.server_public
        for prefix in prefixes:
            socket.setsockopt_string(zmq.SUBSCRIBE, prefix)
        self._handshakes = HandshakeWatch(str(address), credentials, (socket,))
        socket.connect(f"tcp://{address.host}:{address.subscribe_port}")
        return socket

    def _listen(self) -> None:
        """Empty the socket, as much at a time as there is."""
        while not self._stop.is_set():
            if self._socket.poll(_LOOK_MS):
                self._take()
            else:
                self._look()

    def _look(self) -> None:
        """While nothing comes: is it because the handshake was refused?"""
        try:
            self._handshakes.check()
        except RefusedError as error:
            self._refused = error

    def _take(self) -> None:
        taken: list[Heard] = []
        try:
            while len(taken) < 1000:
                head, _, body = self._socket.recv(zmq.NOBLOCK).partition(END)
                taken.append(Heard(time.time_ns(), head.decode(errors="replace"), body))
        except zmq.Again:
            pass
        with self._news:
            room = max(0, self._capacity - len(self._queue))
            self._queue.extend(taken[:room])
            self.dropped += len(taken) - len(taken[:room])
            self._news.notify()
