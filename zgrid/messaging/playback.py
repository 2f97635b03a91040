"""Playback: a proxy whose only publisher is a recording."""

from __future__ import annotations

import threading

import zmq

from zgrid.messaging.address import END, Address
from zgrid.messaging.proxy import bind
from zgrid.messaging.zmq_broker import configure


class Playback:
    """Watchers connect to it as to the proxy of a run. What they publish is not passed on."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        """Bind two free ports.

        Raises:
            BrokerError: an address that cannot be bound.
        """
        self._timer = threading.Event()
        self._context = zmq.Context()
        self._deaf, self._out = self._context.socket(zmq.XSUB), self._context.socket(zmq.XPUB)
        for socket in (self._deaf, self._out):
            configure(socket)
        try:
            self.address = Address(host, bind(self._deaf, host, 0), bind(self._out, host, 0))
        except BaseException:
            self.close()
            raise

    def await_watcher(self, timeout_s: float) -> bool:
        """Wait until somebody has subscribed to anything; whether that happened in time."""
        return bool(self._out.poll(round(1000.0 * timeout_s)))

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        if seconds > 0.0:
            self._timer.wait(seconds)

    def publish(self, channel: str, body: bytes) -> None:
        """Send one message as it was."""
        self._out.send(channel.encode() + END + body)

    def close(self) -> None:
        """End; what was sent still gets a moment to arrive."""
        self._deaf.close(linger=0)
        self._out.close()
        self._context.term()
