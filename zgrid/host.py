"""Host: the only join of agents and a broker."""

from __future__ import annotations

import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Protocol

from zgrid.messages import ENV, KIND, Body, Envelope, Failure, channel
from zgrid.messaging import Delivery, MessageBroker
from zgrid.post import Post


class Receiver(Protocol):
    """What can be hosted: an agent, or the env's own end.

    ``hears`` maps each channel to the one sender that may be heard there; "" leaves that to the receiver.
    """

    id: str
    refused: Counter[str]

    @property
    def hears(self) -> Mapping[str, str]: ...

    def receive(self, envelope: Envelope) -> Iterable[Post]: ...


class Host:
    """Delivers a broker's messages to the receivers of one process, and sends what they answer."""

    def __init__(self, broker: MessageBroker, run: str, incarnation: int = 0) -> None:
        self.broker = broker
        self.run = run
        self.incarnation = incarnation
        self.receivers: list[Receiver] = []
        self.sent: Counter[str] = Counter()
        self.sent_bytes: Counter[str] = Counter()
        self._routes: defaultdict[str, list[tuple[Receiver, str]]] = defaultdict(list)
        self._sequence: defaultdict[tuple[str, str], int] = defaultdict(int)

    def add(self, receiver: Receiver) -> None:
        """Host a receiver: subscribe to what it hears."""
        self.receivers.append(receiver)
        for name, sender in receiver.hears.items():
            self._routes[name].append((receiver, sender))
            self.broker.subscribe(name)

    def send(self, sender: str, to: str, step: int, round: int, body: Body) -> None:
        """Publish one body."""
        key = (sender, to)
        sequence = self._sequence[key]
        self._sequence[key] = sequence + 1
        envelope = Envelope(sender, self.run, self.incarnation, sequence, step, round, time.time_ns(), body)
        size = self.broker.publish(to, envelope)
        kind = KIND[type(body)]
        self.sent[kind] += 1
        if size:
            self.sent_bytes[kind] += size

    def pump(self, timeout_s: float) -> bool:
        """Take one delivery from the broker to its receivers; False if none came in time."""
        delivery = self.broker.poll(timeout_s)
        if delivery is None:
            return False
        self.deliver(delivery)
        return True

    def deliver(self, delivery: Delivery) -> None:
        """Hand a delivery to everybody here who hears its channel from that sender."""
        name, envelope = delivery
        for receiver, sender in self._routes.get(name, ()):
            if sender and sender != envelope.sender:
                receiver.refused[f"stranger {envelope.sender}"] += 1
                continue
            self._hand(receiver, envelope)

    def refused(self) -> Counter[str]:
        """What broker and receivers refused, by cause."""
        total: Counter[str] = Counter(self.broker.refused)
        for receiver in self.receivers:
            total.update(receiver.refused)
        return total

    def _hand(self, receiver: Receiver, envelope: Envelope) -> None:
        """Let a receiver act. An agent that raises is told to the env, which raises it there; the node lives on."""
        if receiver.id == ENV:
            receiver.receive(envelope)
            return
        try:
            posts = list(receiver.receive(envelope))
        except Exception as error:  # noqa: BLE001 - agents are users' code; whatever they raise is told, not lost
            cause = f"{type(error).__name__}: {error}"
            failure = Failure(receiver.id, envelope.step, cause, traceback.format_exc())
            self.send(receiver.id, channel("failure", ENV), envelope.step, 0, failure)
            return
        for to, step, round, body in posts:
            self.send(receiver.id, to, step, round, body)
