"""InMemoryBroker: all agents in one process, one queue, nothing encoded."""

from __future__ import annotations

from collections import deque

from zgrid.errors import BrokerError
from zgrid.messages import Envelope
from zgrid.messaging.base import Delivery, MessageBroker


class InMemoryBroker(MessageBroker):
    """One first-in-first-out queue. ``poll`` never waits: None means that nothing is left, so a deadlock shows."""

    ALONE = True

    def __init__(self) -> None:
        super().__init__()
        self._queue: deque[Delivery] = deque()
        self._subscribed: set[str] = set()
        self._closed = False

    def publish(self, channel: str, envelope: Envelope) -> int:
        if self._closed:
            raise BrokerError("in-memory broker: closed")
        if channel in self._subscribed:
            self._queue.append(Delivery(channel, envelope))
        return 0

    def subscribe(self, channel: str) -> None:
        if self._closed:
            raise BrokerError("in-memory broker: closed")
        self._subscribed.add(channel)

    def poll(self, timeout_s: float) -> Delivery | None:
        if self._closed:
            raise BrokerError("in-memory broker: closed")
        return self._queue.popleft() if self._queue else None

    def close(self) -> None:
        self._closed = True
        self._queue.clear()
