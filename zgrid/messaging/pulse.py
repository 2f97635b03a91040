"""Pulse: a thread that tells others that this process lives, and knows since when each of the others is silent."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import zmq

from zgrid.encoding import decode, encode
from zgrid.errors import MessageError
from zgrid.messages import Beat, Envelope
from zgrid.messaging.address import END, Address

EVERY_S = 0.3
_LOOK_S = 0.1
_PAUSE_S = 0.5


class Pulse:
    """Beats from its own thread and sockets, so an agent that thinks for long is not taken for a dead one.

    What it heard is there for the main thread to read. A pause of this process itself is not counted as the silence of
    others.
    """

    def __init__(
        self,
        connect: Callable[[int, int], zmq.Socket[bytes]],
        address: Address,
        own: str,
        beat: Callable[[], Envelope],
        others: Iterable[str],
    ) -> None:
        """``own`` is the channel to beat on, ``beat`` makes one, ``others`` are the channels to hear."""
        self.beats: dict[str, Envelope] = {}
        """The last beat on each channel."""
        self.lost = 0
        """How often the connection to the proxy was lost, and own beats with it."""
        self._own, self._beat, self._run_id = own, beat, ""
        self._suspect, self._last = False, 0
        self._looked = time.monotonic()
        self._heard = dict.fromkeys(others, time.monotonic())
        self._stop = threading.Event()
        self._connect, self._address = connect, address
        self._thread = threading.Thread(target=self._run, name=f"pulse {own}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the thread."""
        self._stop.set()
        self._thread.join()

    def silence_s(self, channel: str) -> float:
        """For how long nothing was heard on a channel, when the thread looked last; for ever, if it has ended."""
        return self._looked - self._heard[channel] if self._thread.is_alive() else math.inf

    def expect(self, channel: str) -> None:
        """Count a channel's silence from now on."""
        self._heard[channel] = time.monotonic()

    def _run(self) -> None:
        with self._connect(zmq.PUB, self._address.publish_port) as pub:
            pub.setsockopt(zmq.LINGER, 0)
            if not self._heard:
                self._live(pub, None, None)
                return
            with self._connect(zmq.SUB, self._address.subscribe_port) as sub:
                monitor = sub.get_monitor_socket(zmq.EVENT_DISCONNECTED)
                try:
                    self._live(pub, sub, monitor)
                finally:
                    sub.disable_monitor()
                    monitor.close(linger=0)

    def _live(self, pub: zmq.Socket[bytes], sub: zmq.Socket[bytes] | None, monitor: Any) -> None:
        if sub is not None:
            for name in self._heard:
                sub.setsockopt_string(zmq.SUBSCRIBE, name)
        head = self._own.encode() + END
        due = self._looked = time.monotonic()
        while not self._stop.is_set():
            now = time.monotonic()
            if now - self._looked > _PAUSE_S:
                self._forgive(now - self._looked)
            self._looked = now
            if now >= due:
                with suppress(RuntimeError, MessageError):  # a count grew while it was read; the next beat tells
                    envelope = self._beat()
                    self._run_id = envelope.run
                    pub.send(head + encode(envelope))
                due = max(due + EVERY_S, now)
            if sub is None:
                self._stop.wait(max(0.0, due - time.monotonic()))
            elif sub.poll(round(1000.0 * min(_LOOK_S, max(0.0, due - now)))):
                self._hear(sub)
            if monitor is not None and monitor.poll(0):
                monitor.recv_multipart()
                self._suspect = True

    def _forgive(self, pause_s: float) -> None:
        for name in self._heard:
            self._heard[name] = min(self._heard[name] + pause_s, time.monotonic())

    def _hear(self, sub: zmq.Socket[bytes]) -> None:
        head, _, body = sub.recv().partition(END)
        name = head.decode(errors="replace")
        try:
            envelope = decode(body)
        except MessageError:
            return  # whoever cannot beat properly is silent
        if name not in self._heard or type(envelope.body) is not Beat or envelope.run not in (self._run_id, ""):
            return
        self.beats[name] = envelope  # also of a newcomer that belongs to no run yet
        if envelope.run == self._run_id:
            self._heard[name] = time.monotonic()
        if name == self._own:
            self.lost += self._suspect and 0 < self._last != envelope.sequence - 1
            self._suspect, self._last = False, envelope.sequence
