"""Host: the only join of agents and a broker."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol

from zgrid.errors import LostMessageError
from zgrid.messages import ENV, Body, Envelope, Failure, channel
from zgrid.messaging import MessageBroker, count_refusal
from zgrid.post import Post


class Receiver(Protocol):
    """What can be hosted: an agent, or the env's own end.

    ``refused`` counts, by cause, what it was handed and did not take.
    """

    id: str
    refused: Counter[str]

    @property
    def hears(self) -> Mapping[str, frozenset[str]]:
        """The channels it hears, and who may be heard on each."""

    def receive(self, envelope: Envelope) -> Iterable[Post]:
        """Take a message; what is to be sent because of it."""


class Host:
    """Delivers a broker's messages to the receivers of one process, and sends what they answer."""

    def __init__(self, broker: MessageBroker, run: str, incarnation: int = 0) -> None:
        self.broker = broker
        self.run = run
        self.incarnation = incarnation
        self.receivers: list[Receiver] = []
        self._routes: dict[str, list[tuple[Receiver, frozenset[str]]]] = {}
        self._sequence: dict[tuple[str, str], int] = {}
        self._bytes: Counter[str] = Counter()

    def add(self, receiver: Receiver) -> None:
        """Host a receiver: subscribe to what it hears."""
        self.receivers.append(receiver)
        for name, senders in receiver.hears.items():
            self._routes.setdefault(name, []).append((receiver, senders))
            self.broker.subscribe(name)

    def send(self, sender: str, to: str, step: int, round: int, body: Body) -> None:
        """Publish one body."""
        key = (sender, to)
        sequence = self._sequence.get(key, 0)
        self._sequence[key] = sequence + 1
        envelope = Envelope(sender, self.run, self.incarnation, sequence, step, round, time.time_ns(), body)
        size = self.broker.publish(to, envelope)
        if size:
            self._bytes[to] += size

    def pump(self, timeout_s: float) -> bool:
        """Take one delivery from the broker to everybody here who hears its channel; False if none came in time.

        Raises:
            LostMessageError: a gap in the sequence of somebody who is heard here.
        """
        try:
            delivery = self.broker.poll(timeout_s)
        except LostMessageError as error:
            if self._is_heard(error.sender, error.channel):
                raise
            count_refusal(self.broker.refused, "stranger", error.sender)
            return True
        if delivery is None:
            return False
        name, envelope = delivery
        for receiver, senders in self._routes.get(name, ()):
            if envelope.sender not in senders:
                count_refusal(receiver.refused, "stranger", envelope.sender)
            elif receiver.id == ENV:
                receiver.receive(envelope)
            else:
                self._let_act(receiver, envelope)
        return True

    def _is_heard(self, sender: str, name: str) -> bool:
        return any(sender in senders for _, senders in self._routes.get(name, ()))

    def sent(self) -> Counter[str]:
        """Messages sent so far, by the kind of their channel."""
        total: Counter[str] = Counter()
        for (_, to), count in self._sequence.items():
            total[to.partition("/")[0]] += count
        return total

    def sent_bytes(self) -> Counter[str]:
        """Bytes sent so far, by the kind of their channel; nothing where the broker does not encode."""
        total: Counter[str] = Counter()
        for to, size in self._bytes.items():
            total[to.partition("/")[0]] += size
        return total

    def refused(self) -> Counter[str]:
        """What broker and receivers refused, by cause."""
        total: Counter[str] = Counter(self.broker.refused)
        for receiver in self.receivers:
            total.update(receiver.refused)
        return total

    def _let_act(self, receiver: Receiver, envelope: Envelope) -> None:
        """Hand on, and send the answers. An agent that raises is told to the env, which raises it; the node lives."""
        try:
            for to, step, round, body in receiver.receive(envelope):
                self.send(receiver.id, to, step, round, body)
        except Exception as error:  # noqa: BLE001 - agents are users' code; whatever they raise is told, not lost
            cause = f"{type(error).__name__}: {error}"
            failure = Failure(receiver.id, envelope.step, cause, traceback.format_exc())
            self.send(receiver.id, channel("failure", ENV), envelope.step, 0, failure)
