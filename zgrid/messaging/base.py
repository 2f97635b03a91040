"""What a message broker is. A new one (Kafka, NATS, ...) implements these four calls and passes the contract suite."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

from zgrid.messages import Envelope
from zgrid.messaging.pulse import Pulse


class Delivery(NamedTuple):
    """An envelope and the channel it came on."""

    channel: str
    envelope: Envelope


class MessageBroker(ABC):
    """One participant's connection: publish to channels, subscribe to channels, poll for what comes.

    Order per sender and channel is kept. A channel ends with its delimiter, so none is a prefix of another.
    """

    ALONE: ClassVar[bool] = False
    """Whether nobody outside this process publishes: then nothing will ever come once ``poll`` gives None."""

    address: Any = None
    """Where others connect, if they can."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        """What was dropped, by cause and, where it is known, sender: ``"malformed"``, ``"other_run mg_1"``."""

    @abstractmethod
    def publish(self, channel: str, envelope: Envelope) -> int:
        """Send to everybody who subscribed to the channel; the bytes it took (0: not encoded). Never blocks.

        Raises:
            BrokerError: closed, or used in a forked child.
            MessageError: the envelope cannot be encoded.
        """

    @abstractmethod
    def subscribe(self, channel: str) -> None:
        """Hear a channel from now on.

        Raises:
            BrokerError: closed, or used in a forked child.
        """

    @abstractmethod
    def poll(self, timeout_s: float) -> Delivery | None:
        """The next delivery, or None if none comes in time. What is malformed is counted in ``refused`` and dropped.

        Raises:
            BrokerError: closed, or used in a forked child.
            LostMessageError: a gap in a sender's sequence.
        """

    def prove(self, timeout_s: float) -> None:  # noqa: B027 - most brokers have nothing to prove
        """Return once what is published arrives, and what was subscribed to so far is heard; call it before the first
        message.

        Raises:
            BrokerError: not in time.
        """

    def adopt(self, run: str) -> None:  # noqa: B027 - a broker within one process knows its run
        """Belong to this run from now on; until then nothing but roll calls is heard."""

    def start_pulse(self, own: str, beat: Callable[[], Envelope], others: Iterable[str]) -> Pulse | None:
        """Tell others that this process lives, and hear of them; None where all live and die together."""
        return None

    def expect(self, channel: str, senders: Iterable[str]) -> None:  # noqa: B027 - who is in this process is trusted
        """Only these speak on a channel: what others say there is handed on for its hearers to refuse, and changes
        nothing that is known of who they say they are."""

    def admits(self, sender: str, incarnation: int) -> bool:
        """Whether this incarnation of a sender, who speaks within a batch, is to be heard; an old one is counted."""
        return True

    def forget(self) -> None:  # noqa: B027 - nothing is lost within one process
        """The proxy was replaced: what was lost with it is no gap."""

    @abstractmethod
    def close(self) -> None:
        """End the connection; again is harmless."""
