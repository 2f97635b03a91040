"""Watching: what can be told of a run from its messages alone, without taking part in it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median, pstdev
from typing import NamedTuple

from zgrid.encoding import decode
from zgrid.errors import BrokerError, MessageError
from zgrid.messages import KIND, Batch, Beat, Columns, Counts, Envelope, Stop
from zgrid.messaging import WATCHER, Address, Heard, Tap, credentials_of
from zgrid.runfile import living
from zgrid.tables import items

SILENT_S = 1.5
_INTERVALS = 10_000
_BEATS = 5


def find(connect: str | None) -> tuple[Address, str | None]:
    """The proxy to watch, and where that is known its folder of keys: the one that is named, or that of the newest run
    of this user on this machine.

    Raises:
        BrokerError: not HOST:PORT,PORT, or no run is going on.
    """
    runs = living()
    if connect is not None:
        known = {run.address: run.keys for run in runs}
        return Address.parse(connect), known.get(connect)
    if not runs:
        raise BrokerError(
            "no run of yours goes on here; start one with: python launch.py topologies/3mg.yaml --episodes 200\n"
            "or name the proxy of one elsewhere with --connect HOST:PORT,PORT"
        )
    return Address.parse(runs[0].address), runs[0].keys


def tap(connect: str | None, keys: str | None, prefixes: Iterable[str] = ("",)) -> Tap:
    """Listen to a run, as the watcher whom its keys name; ``keys`` is the folder, None: as :func:`find` knows it.

    Raises:
        BrokerError: as :func:`find`. KeyFileError: there is no key of a watcher in the folder.
    """
    address, known = find(connect)
    return Tap(address, prefixes, credentials_of(keys or known, WATCHER))


class Message(NamedTuple):
    """What somebody said, alone or in a batch."""

    received_ns: int
    channel: str
    envelope: Envelope
    size: int
    """Bytes on the wire; 0 in a batch, whose bytes are counted on its own channel."""

    @property
    def kind(self) -> str:
        """Of its body."""
        return KIND[type(self.envelope.body)]


def messages(heard: Heard) -> Iterator[Message]:
    """A frame as a message, and after it those it holds.

    Raises:
        MessageError: it is none.
    """
    received_ns, channel, data = heard
    envelope = decode(data)
    yield Message(received_ns, channel, envelope, len(data))
    body = envelope.body
    if isinstance(body, Batch | Columns):
        within = body.items if isinstance(body, Batch) else items(body, envelope.step)
        for to, _, sender, incarnation, step, round, one in within:
            said = Envelope(sender, envelope.run, incarnation, 0, step, round, envelope.sent_ns, one)
            yield Message(received_ns, to, said, 0)


class Gaps:
    """Counts what was said but not heard, by the sequences of each sender on each channel."""

    def __init__(self) -> None:
        self.lost = 0
        self._next: dict[tuple[str, str], tuple[str, int, int]] = {}

    def look(self, channel: str, envelope: Envelope) -> int:
        """How many are missing before this one."""
        sender, run, incarnation, sequence, *_ = envelope
        known = self._next.get((channel, sender))
        self._next[channel, sender] = (run, incarnation, sequence + 1)
        if known is None or known[:2] != (run, incarnation) or sequence < known[2]:
            return 0
        self.lost += sequence - known[2]
        return sequence - known[2]


@dataclass(slots=True)
class ChannelFigures:
    """One channel, as heard so far."""

    channel: str
    kind: str
    speakers: set[str] = field(default_factory=set)
    messages: int = 0
    bytes: int = 0
    last: Message | None = None
    intervals_ms: list[float] = field(default_factory=list)

    def add(self, message: Message) -> None:
        """Count one more."""
        if self.last is not None and len(self.intervals_ms) < _INTERVALS:
            self.intervals_ms.append((message.received_ns - self.last.received_ns) * 1e-6)
        self.speakers.add(message.envelope.sender)
        self.kind, self.last = message.kind, message
        self.messages += 1
        self.bytes += message.size

    @property
    def jitter_ms(self) -> tuple[float, float, float, float]:
        """Mean, standard deviation, least and greatest of the times between two messages."""
        times = self.intervals_ms
        return sum(times) / len(times), pstdev(times), min(times), max(times)


class Ear:
    """All channels that were heard, what got lost, and what was no message."""

    def __init__(self) -> None:
        self.channels: dict[str, ChannelFigures] = {}
        self.nodes: dict[str, NodeFigures] = {}
        self.gaps = Gaps()
        self.malformed = 0
        self.frames = 0
        self.stopped = False
        """Whether the run has ended with a word."""

    def take(self, heard: Heard) -> list[Message]:
        """Count a frame; the messages in it."""
        self.frames += 1
        try:
            found = list(messages(heard))
        except MessageError:
            self.malformed += 1
            return []
        self.gaps.look(heard.channel, found[0].envelope)
        for message in found:
            figures = self.channels.get(message.channel)
            if figures is None:
                figures = self.channels[message.channel] = ChannelFigures(message.channel, message.kind)
            figures.add(message)
        body = found[0].envelope.body
        if type(body) is Beat:
            node = found[0].envelope.sender.partition(":")[2]
            self.nodes.setdefault(node, NodeFigures(node, heard.received_ns)).add(found[0], body)
        elif type(body) is Stop:
            self.stopped = True
        return found


class Rate(NamedTuple):
    """Per second."""

    messages: float
    bytes: float


class NodeFigures:
    """One node, as its beats tell it."""

    def __init__(self, name: str, first_ns: int) -> None:
        self.name = name
        self.first_ns = first_ns
        """When it was first heard."""
        self.last_ns = first_ns
        self.incarnation = 0
        self.beat = Beat((), 0, (), (), ())
        self.rates: dict[str, Rate] = {}
        """By kind of channel, over the last second or so, by the node's own clock."""
        self._sent: deque[tuple[int, Counts]] = deque(maxlen=_BEATS)

    def add(self, message: Message, beat: Beat) -> None:
        """Take one more beat."""
        envelope = message.envelope
        if envelope.incarnation != self.incarnation:
            self.first_ns, self.rates = message.received_ns, {}
            self._sent.clear()
        self._sent.append((envelope.sent_ns, beat.sent))
        self.last_ns, self.incarnation, self.beat = message.received_ns, envelope.incarnation, beat
        began_ns, before = self._sent[0]
        seconds = (envelope.sent_ns - began_ns) * 1e-9
        if seconds > 0.0:
            earlier = {kind: (count, size) for kind, count, size in before}
            for kind, count, size in beat.sent:
                fewer, smaller = earlier.get(kind, (0, 0))
                self.rates[kind] = Rate((count - fewer) / seconds, (size - smaller) / seconds)

    @property
    def rate(self) -> Rate:
        """Of all kinds."""
        return Rate(*(sum(values) for values in zip((0.0, 0.0), *self.rates.values(), strict=True)))

    def silence_s(self, now_ns: int) -> float:
        """For how long nothing was heard of it."""
        return max(0.0, (now_ns - self.last_ns) * 1e-9)

    def is_up(self, now_ns: int) -> bool:
        """Whether its beats still come."""
        return self.silence_s(now_ns) < SILENT_S


class KindFigures(NamedTuple):
    """A kind of channel over all nodes. Latencies in us: the middle node's median, the worst node's 99th percentile."""

    kind: str
    rate: Rate
    p50_us: float | None
    p99_us: float | None


def by_kind(nodes: dict[str, NodeFigures]) -> list[KindFigures]:
    """The kinds of all nodes, busiest first."""
    rates: dict[str, Rate] = {}
    medians: dict[str, list[int]] = {}
    worst: Counter[str] = Counter()
    for node in nodes.values():
        for kind, rate in node.rates.items():
            before = rates.get(kind, Rate(0.0, 0.0))
            rates[kind] = Rate(before.messages + rate.messages, before.bytes + rate.bytes)
        for kind, p50, p99 in node.beat.latency:
            medians.setdefault(kind, []).append(p50)
            worst[kind] = max(worst[kind], p99)
    rows = [
        KindFigures(
            kind,
            rates.get(kind, Rate(0.0, 0.0)),
            median(medians[kind]) if kind in medians else None,
            worst[kind] if kind in medians else None,
        )
        for kind in sorted(rates.keys() | medians.keys())
    ]
    return sorted(rows, key=lambda row: -row.rate.messages)
