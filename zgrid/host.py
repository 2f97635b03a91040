"""Host: the only join of agents and a broker."""

from __future__ import annotations

import os
import time
import traceback
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from zgrid import tables
from zgrid.errors import LostMessageError, MessageError
from zgrid.messages import ENV, KIND, Batch, Beat, Body, Columns, Envelope, Failure, Item, Reset, channel, make
from zgrid.messaging import MessageBroker, count_refusal
from zgrid.post import Post

_LATENCIES = 500
_EVERYBODY: frozenset[str] = frozenset(("*",))


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


class Crew(Protocol):
    """Takes what a node says in columns in place of the receivers whom it concerns."""

    def hear(self, node: str, envelope: Envelope) -> Sequence[Columns] | None:
        """Take it; what to answer the env in columns. None: it is for the receivers, one by one."""

    def release(self) -> None:
        """Something else is handed to a receiver: let them all know what was taken for them."""


class Bus(NamedTuple):
    """What a node knows of the others, so that it can keep what concerns nobody else and batch what goes to one.

    ``hearers`` maps channels of agents to the nodes that hear them, ``homes`` agents to their nodes.
    """

    name: str
    hearers: Mapping[str, frozenset[str]]
    homes: Mapping[str, str]


def steward_of(node: str) -> str:
    """The id of a node's own voice."""
    return f"node:{node}"


class Host:
    """Delivers a broker's messages to the receivers of one process, and sends what they answer.

    Without a ``bus`` every message goes through the broker. With one, receivers here hear each other directly, and what
    else is to be said waits until nobody here has anything left to do; then what goes to the same node goes as one.
    """

    def __init__(self, broker: MessageBroker, run: str, incarnation: int = 0, bus: Bus | None = None) -> None:
        """``incarnation`` is that of this process; an agent begins as the first, 0."""
        self.broker = broker
        self.run = run
        self.incarnation = incarnation
        self.receivers: list[Receiver] = []
        self._bus = bus
        self._node = steward_of(bus.name if bus is not None else ENV)
        self._routes: dict[str, list[tuple[Receiver, frozenset[str]]]] = {}
        self._latency: dict[type, deque[int]] = defaultdict(lambda: deque(maxlen=_LATENCIES))
        self._mine: set[str] = set()
        self._taps: dict[str, Callable[[str, Envelope], None]] = {}
        self._origins: dict[str, str] = {}
        self._incarnations: dict[str, int] = {}
        self._sequence: dict[tuple[str, str], int] = {}
        self._messages: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._batches: Counter[str] = Counter()
        self._beats = 0
        self._here: deque[tuple[str, Envelope]] = deque()
        self._out: list[Item] = []
        self._elsewhere: dict[str, frozenset[str]] = {}
        self._pending: dict[str, list[tuple[str, Envelope]]] = {}
        self._revived: frozenset[str] = frozenset()
        self._raised: set[str] = set()
        self._said: list[tuple[str, str, int, int, Body]] | None = None
        self._crew: Crew | None = None
        self._column_taps: list[Callable[[Envelope], None]] = []

    # ---- who is here -----------------------------------------------------------------------------------------------

    def add(self, receiver: Receiver) -> None:
        """Host a receiver: subscribe to what it hears."""
        self.receivers.append(receiver)
        if self._bus is not None:
            self._mine.add(receiver.id)
        for name, senders in receiver.hears.items():
            self._routes.setdefault(name, []).append((receiver, senders))
            self.broker.expect(name, senders)
            self.broker.subscribe(name)

    def tap(self, names: Iterable[str], hear: Callable[[str, Envelope], None]) -> None:
        """Let ``hear`` know of every message on these channels, before their receivers."""
        for name in names:
            self._taps[name] = hear
            self._routes.setdefault(name, [])
            self.broker.subscribe(name)

    def remove(self, receiver: Receiver) -> None:
        """Host a receiver no longer; its counts stay."""
        self._release()
        self.receivers.remove(receiver)
        self._mine.discard(receiver.id)
        self.broker.refused.update(receiver.refused)
        for name in receiver.hears:
            self._routes[name] = [route for route in self._routes[name] if route[0] is not receiver]

    def hear_batches(self, nodes: Iterable[str]) -> None:
        """Take batches of these nodes."""
        assert self._bus is not None
        for node in nodes:
            name = channel("batch", self._bus.name, node)
            self._origins[name] = node
            self.broker.expect(name, (steward_of(node),))
            self.broker.subscribe(name)

    def man(self, crew: Crew) -> None:
        """Let a crew hear what comes in columns first."""
        self._crew = crew

    def tap_columns(self, hear: Callable[[Envelope], None]) -> None:
        """Let ``hear`` know of all that is said here in columns, and of what is heard and not taken apart."""
        self._column_taps.append(hear)

    def suspend(self, agent: str) -> None:
        """Keep what an agent here hears, until :meth:`resume`."""
        self._release()
        self._pending.setdefault(agent, [])

    def revive(self, agents: Iterable[str]) -> None:
        """Suspend these when they raise: each is told what it has missed, or hears a Reset."""
        self._revived = frozenset(agents)

    def resume(self, agent: str) -> list[tuple[str, Envelope]]:
        """No longer keep what an agent hears: what was kept."""
        self._raised.discard(agent)
        return self._pending.pop(agent, [])

    def remember(self) -> None:
        """Keep what was said in the last step, for :meth:`say_again`."""
        self._said = []

    def say_again(self) -> None:
        """Send what was said in the last step once more, to those elsewhere."""
        for sender, to, step, round, body in self._said or ():
            if type(body) is Columns:
                self._publish_columns(to, step, body)
            elif self._nodes_elsewhere(to):
                incarnation = self._incarnations.get(sender, 0)
                self._out.append(Item(to, KIND[type(body)], sender, incarnation, step, round, body))

    def succeed(self, agent: str, incarnation: int) -> None:
        """From now on an agent speaks from here as this incarnation, and its sequences begin anew."""
        self._incarnations[agent] = incarnation
        self._sequence = {key: value for key, value in self._sequence.items() if key[0] != agent}

    # ---- what is said ----------------------------------------------------------------------------------------------

    def send(self, sender: str, to: str, step: int, round: int, body: Body, now_ns: int | None = None) -> None:
        """Send one body: now, or with the next :meth:`flush`. ``now_ns``: that of all that is said at once."""
        self._messages[to] += 1
        if self._bus is None:
            self._publish(sender, to, step, round, body, now_ns)
            return
        if self._said is not None and to in self._bus.hearers:
            self._keep(sender, to, step, round, body)
        if to in self._routes:
            self._here.append((to, self._envelope(sender, step, round, body, 0)))
        nodes = self._elsewhere.get(to)
        if self._nodes_elsewhere(to) if nodes is None else nodes:
            incarnation = self._incarnations.get(sender, 0)
            self._out.append(make(Item, (to, KIND[type(body)], sender, incarnation, step, round, body)))

    def send_columns(self, node: str, step: int, columns: Columns) -> None:
        """Send at once what all here have to say to those of a node in one phase."""
        assert self._bus is not None
        to = channel("batch", node, self._bus.name)
        for table in columns.tables:
            self._messages[f"{table.kind}/"] += tables.count(table.agents)
        if self._said is not None:
            self._keep(self._node, to, step, 0, columns)
        for hear in self._column_taps:
            hear(self._envelope(self._node, step, 0, columns, 0))
        self._publish_columns(to, step, columns)

    def _publish_columns(self, to: str, step: int, columns: Columns) -> None:
        try:
            self._publish(self._node, to, step, 0, columns)
        except MessageError:  # too much for one frame
            self._out += tables.items(columns, step)
        else:
            self._batches[to] += 1

    def _keep(self, sender: str, to: str, step: int, round: int, body: Body) -> None:
        assert self._said is not None
        if self._said and self._said[-1][2] < step:
            self._said.clear()
        self._said.append((sender, to, step, round, body))

    def flush(self) -> None:
        """Publish what waits: alone, or as a batch where several go to one node."""
        items, self._out = self._out, []
        if len(items) == 1:
            self._publish_item(items[0])
            return
        batches: dict[str, list[Item]] = {}
        for item in items:
            nodes = self._nodes_elsewhere(item.channel)
            if len(nodes) > 1 or nodes is _EVERYBODY:
                self._publish_item(item)
            else:
                (node,) = nodes
                batches.setdefault(node, []).append(item)
        for node, batch in batches.items():
            self._publish_batch(node, batch)

    def _publish_batch(self, node: str, items: list[Item]) -> None:
        if len(items) == 1:
            self._publish_item(items[0])
            return
        assert self._bus is not None
        to = channel("batch", node, self._bus.name)
        try:
            self._publish(self._node, to, items[-1].step, 0, Batch(tuple(items)))
        except MessageError:  # too much for one frame, or one of them cannot be said at all
            half = len(items) // 2
            self._publish_batch(node, items[:half])
            self._publish_batch(node, items[half:])
        else:
            self._batches[to] += 1

    def _publish_item(self, item: Item) -> None:
        """Publish one; what an agent says that cannot be encoded is a failure of the agent."""
        try:
            self._publish(item.sender, item.channel, item.step, item.round, item.body)
        except MessageError as error:
            if item.sender in (ENV, self._node):
                raise
            self.tell_failure(item.sender, item.step, error)

    def _publish(self, sender: str, to: str, step: int, round: int, body: Body, now_ns: int | None = None) -> None:
        key = (sender, to)
        sequence = self._sequence.get(key, 0)
        incarnation = self.incarnation if sender == self._node else self._incarnations.get(sender, 0)
        envelope = (sender, self.run, incarnation, sequence, step, round, now_ns or time.time_ns(), body)
        size = self.broker.publish(to, make(Envelope, envelope))
        self._sequence[key] = sequence + 1
        if size:
            self._bytes[to] += size

    def _envelope(self, sender: str, step: int, round: int, body: Body, sequence: int) -> Envelope:
        incarnation = self.incarnation if sender == self._node else self._incarnations.get(sender, 0)
        return make(Envelope, (sender, self.run, incarnation, sequence, step, round, time.time_ns(), body))

    def _nodes_elsewhere(self, to: str) -> frozenset[str]:
        """The other nodes that hear a channel; of a channel that is not of agents, anybody may be one."""
        nodes = self._elsewhere.get(to)
        if nodes is None:
            assert self._bus is not None
            known = self._bus.hearers.get(to)
            nodes = self._elsewhere[to] = _EVERYBODY if known is None else known - {self._bus.name}
        return nodes

    # ---- what is heard ---------------------------------------------------------------------------------------------

    def pump(self, timeout_s: float) -> bool:
        """Take one delivery, from here or from the broker, to everybody here who hears its channel; False if none came
        in time.

        Raises:
            LostMessageError: a gap in the sequence of somebody who is heard here.
        """
        if self._here:
            self._deliver(*self._here.popleft())
            return True
        while self._out:
            self.flush()
        try:
            delivery = self.broker.poll(timeout_s)
        except LostMessageError as error:
            if self._is_batch(error.channel, error.sender) or self._is_heard(error.sender, error.channel):
                raise
            count_refusal(self.broker.refused, "stranger", error.sender)
            return True
        if delivery is None:
            return False
        name, envelope = delivery
        if envelope.sender in self._mine:
            return True  # said from here, and heard here before it went out
        kind = type(envelope.body)
        self._latency[kind].append(time.time_ns() - envelope.sent_ns)
        if kind is Batch or kind is Columns:
            self._unpack(name, envelope)
        else:
            self._deliver(name, envelope)
        return True

    def _unpack(self, name: str, envelope: Envelope) -> None:
        """Put what is in a batch in line, as if it had been said alone, or let the crew take it all."""
        if not self._is_batch(name, envelope.sender):
            count_refusal(self.broker.refused, "stranger", envelope.sender)
            return
        origin, batch = self._origins[name], envelope.body
        if isinstance(batch, Columns) and self._is_taken(origin, envelope):
            return
        assert self._bus is not None
        assert isinstance(batch, Batch | Columns)
        homes = self._bus.homes
        said_here = batch.items if isinstance(batch, Batch) else tables.items(batch, envelope.step)
        for to, _, sender, incarnation, step, round, body in said_here:
            if origin != ENV and homes.get(sender) != origin:
                count_refusal(self.broker.refused, "stranger", sender)
            elif self.broker.admits(sender, incarnation):
                said = (sender, envelope.run, incarnation, 0, step, round, envelope.sent_ns, body)
                self._here.append((to, make(Envelope, said)))

    def _is_taken(self, origin: str, envelope: Envelope) -> bool:
        """Whether the crew takes what a node says in columns, and so it is answered in columns."""
        if self._crew is None or self._incarnations or self._pending:
            return False
        answer = self._crew.hear(origin, envelope)
        if answer is None:
            return False
        for hear in self._column_taps:
            hear(envelope)
        for columns in answer:
            self.send_columns(ENV, envelope.step, columns)
        return True

    def _release(self) -> None:
        if self._crew is not None:
            self._crew.release()

    def _is_batch(self, name: str, sender: str) -> bool:
        """Whether a channel is for batches of the node whose steward speaks."""
        return name in self._origins and sender == steward_of(self._origins[name])

    def _deliver(self, name: str, envelope: Envelope) -> None:
        if self._taps and name in self._taps:
            self._taps[name](name, envelope)
        for receiver, senders in self._routes.get(name, ()):
            if envelope.sender not in senders:
                count_refusal(receiver.refused, "stranger", envelope.sender)
            elif receiver.id == ENV:
                receiver.receive(envelope)
            elif self._pending and receiver.id in self._pending and not self._begins_anew(receiver, envelope):
                self._pending[receiver.id].append((name, envelope))
            else:
                self._let_act(receiver, envelope)

    def _begins_anew(self, receiver: Receiver, envelope: Envelope) -> bool:
        """Whether one that has raised hears a Reset, so that what it missed concerns nobody any more."""
        anew = receiver.id in self._raised and type(envelope.body) is Reset
        if anew:
            self.resume(receiver.id)
        return anew

    def _is_heard(self, sender: str, name: str) -> bool:
        return any(sender in senders for _, senders in self._routes.get(name, ()))

    def _let_act(self, receiver: Receiver, envelope: Envelope) -> None:
        """Hand on, and send the answers. An agent that raises is told to the env, which decides; the node lives."""
        if self._crew is not None:
            self._crew.release()
        try:
            posts = receiver.receive(envelope)
            now_ns = time.time_ns()
            for to, step, round, body in posts:
                self.send(receiver.id, to, step, round, body, now_ns)
        except Exception as error:  # noqa: BLE001 - agents are users' code; whatever they raise is told, not lost
            self.tell_failure(receiver.id, envelope.step, error)

    def tell_failure(self, agent: str, step: int, error: BaseException) -> None:
        """Tell the env that an agent here raised. What it hears until it is brought back is kept for its successor."""
        if agent in self._revived:
            self.suspend(agent)
            self._raised.add(agent)
        failure = Failure(agent, step, f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))
        self.send(self._node, channel("node", self._node.partition(":")[2]), step, 0, failure)

    def beat(self) -> Envelope:
        """That this node lives, and its figures; for the thread that says so."""
        sent, size = self.sent(), self.sent_bytes()
        figures = tuple((kind, count, size[kind]) for kind, count in sorted(sent.items()))
        latency = tuple(_percentiles_us(kind, latencies) for kind, latencies in self.latency_ns().items())
        refused = tuple((cause, count, 0) for cause, count in sorted(self.refused().items()))
        agents = tuple(receiver.id for receiver in tuple(self.receivers) if receiver.id != self._node)
        beat = Beat(agents, os.getpid(), figures, latency, refused)
        self._beats += 1
        return Envelope(self._node, self.run, self.incarnation, self._beats, 0, 0, time.time_ns(), beat)

    # ---- figures ---------------------------------------------------------------------------------------------------

    def sent(self) -> Counter[str]:
        """Messages sent so far, by the kind of their channel; ``batch`` counts the frames that held several."""
        return _by_kind(self._messages) + _by_kind(self._batches)

    def latency_ns(self) -> dict[str, list[int]]:
        """How long the last messages of each kind took from elsewhere to here, by both ends' clocks."""
        return {KIND[kind]: list(latencies.copy()) for kind, latencies in tuple(self._latency.items())}

    def sent_bytes(self) -> Counter[str]:
        """Bytes published so far, by the kind of their channel; nothing where the broker does not encode."""
        return _by_kind(self._bytes)

    def refused(self) -> Counter[str]:
        """What broker and receivers refused, by cause."""
        total: Counter[str] = Counter(self.broker.refused)
        for receiver in tuple(self.receivers):
            total.update(receiver.refused.copy())
        return total


def _percentiles_us(kind: str, latencies_ns: list[int]) -> tuple[str, int, int]:
    """Median and 99th percentile in us; a clock that is behind gives 0."""
    ordered = sorted(latencies_ns)
    p50, p99 = (ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 99))
    return kind, max(0, p50 // 1000), max(0, p99 // 1000)


def _by_kind(counts: Counter[str]) -> Counter[str]:
    total: Counter[str] = Counter()
    for to, count in tuple(counts.items()):  # at once: a thread may ask while messages go on
        total[to.partition("/")[0]] += count
    return total
