"""Replaying: a node's agents hear again what a recorded run told them, and must say the same bytes again."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from zgrid.encoding import encode
from zgrid.errors import MessageError, RecordingError, UnknownNameError
from zgrid.host import Host, steward_of
from zgrid.messages import ENV, KIND, Batch, Columns, Envelope, Failure, Item, Ready, Reset, RollCall, Stop
from zgrid.messaging import Delivery, Heard, Inspector, MessageBroker
from zgrid.node import Steward, correspondents, make_agent, make_agents, make_bus, man
from zgrid.recording import Reader
from zgrid.tables import items
from zgrid.topology import Topology
from zgrid.topology.nodes import node_plans
from zgrid.watching import messages

_LONGEST = 400


class Difference(NamedTuple):
    """The first message that is not the same. None: one side has nothing to say there."""

    channel: str
    recorded: Envelope | None
    replayed: Envelope | None


class Result(NamedTuple):
    """What came of a replay, message by message of the node."""

    equal: int
    different: int
    kinds: Counter[str]
    """Of the equal ones; what is in a batch is counted too, as ``in batches``."""
    steps: tuple[int, int]
    """The first and the last step."""
    episodes: int
    first: Difference | None
    beyond: int
    """What the agents said after the recording ended."""
    other_topology: bool
    """Whether the recorded node was built from another topology."""


class _Record(NamedTuple):
    channel: str
    envelope: Envelope
    body: bytes


def replay(path: Path, topology: Topology, node: str) -> Result:
    """Let the agents of ``node`` hear a recording, from the first Reset in it on.

    They are hosted as in the node's process. Only a send time, a run, and where the sequences began, are taken from the
    recorded message before the two are compared byte for byte.

    Raises:
        UnknownNameError: a node that the topology does not have.
        RecordingError: no recording, or there is nothing in it to replay.
        LostMessageError: the recorder has lost something that was said to the node.
    """
    plans = node_plans(topology)
    if node not in plans:
        raise UnknownNameError(f"no node {node!r} in the topology; there is {', '.join(plans)}")
    records = _of_first_run(path)
    return _Replay(topology, node, plans[node].agents).run(records, _first_step(records))


def _of_first_run(path: Path) -> list[_Record]:
    """The messages of the first run that has begun an episode."""
    records: list[_Record] = []
    for heard in Reader(path):
        records += _record(heard)
    run = next((record.envelope.run for record in records if _resets(record)), None)
    if run is None:
        raise RecordingError(f"{path}: no episode begins in it, so there is nothing to replay")
    return [record for record in records if record.envelope.run == run]


def _record(heard: Heard) -> Iterator[_Record]:
    try:
        yield _Record(heard.channel, next(messages(heard)).envelope, heard.body)
    except MessageError:
        return  # nobody took it for a message then


def _resets(record: _Record) -> bool:
    """Whether an episode begins with this message of the env."""
    envelope, body = record.envelope, record.envelope.body
    if type(body) is Batch:
        return any(type(item.body) is Reset and item.sender == ENV for item in body.items)
    return type(body) is Reset and envelope.sender == ENV


def _first_step(records: Iterable[_Record]) -> int:
    return next(record.envelope.step for record in records if _resets(record))


class _Script(MessageBroker):
    """A broker that hears what was recorded, and keeps what is said."""

    ALONE = True

    def __init__(self, run: str, records: Sequence[_Record]) -> None:
        super().__init__()
        self.said: list[Delivery] = []
        self._inspector = Inspector(self.refused, run)
        self._records = deque(records)
        self._subscribed: set[str] = set()

    def publish(self, channel: str, envelope: Envelope) -> int:
        self.said.append(Delivery(channel, envelope))
        return 0

    def subscribe(self, channel: str) -> None:
        self._subscribed.add(channel)

    def poll(self, timeout_s: float) -> Delivery | None:
        while self._records:
            channel, envelope, _ = self._records.popleft()
            if channel in self._subscribed and self._inspector.accepts(channel, envelope):
                return Delivery(channel, envelope)
        return None

    def admits(self, sender: str, incarnation: int) -> bool:
        return self._inspector.admits(sender, incarnation)

    def forget(self) -> None:
        self._inspector.forget()

    def close(self) -> None:
        """Nothing to end."""


class _Replay:
    """One node, hosted as in ``zgrid.node``, on a script."""

    def __init__(self, topology: Topology, node: str, agents: Sequence[str]) -> None:
        self._topology, self._node, self._agents = topology, node, agents
        self._bus = make_bus(topology, node)
        self._hash = topology.hash(agents[-1])

    def run(self, records: Sequence[_Record], first_step: int) -> Result:
        """Replay, and compare."""
        heard = [one for one in records if one.envelope.step >= first_step or type(one.envelope.body) is RollCall]
        broker = _Script(records[0].envelope.run, heard)
        host = self._host(broker, records[0].envelope.run)
        while host.pump(0.0):
            pass
        host.flush()
        recorded = [one for one in records if self._says(one) and one.envelope.step >= first_step]
        said = [one for one in broker.said if self._counts(*one)]
        complete = any(type(one.envelope.body) is Stop for one in records)
        return self._compare(recorded, said, complete, records)

    def _host(self, broker: _Script, run: str) -> Host:
        host = Host(broker, run, 0, self._bus)
        agents = make_agents(self._topology, self._agents)
        steward = Steward(self._node, agents, self._hash, lambda agent: make_agent(self._topology, agent))
        steward.host = host
        if self._topology.broker.on_failure.kind == "restart":
            host.remember()
        for receiver in (*agents, steward):
            host.add(receiver)
        host.hear_batches(correspondents(self._topology, self._bus))
        man(host, self._topology, self._node, steward.agents)
        return host

    def _says(self, record: _Record) -> bool:
        return self._counts(record.channel, record.envelope)

    def _counts(self, channel: str, envelope: Envelope) -> bool:
        """Whether a message is the node's own, and of its agents: they are functions of what they hear; its figures
        and the like are not.
        """
        sender = envelope.sender
        if type(envelope.body) is Failure:
            return sender == steward_of(self._node)
        if type(envelope.body) in (Batch, Columns):
            return sender == steward_of(self._node)
        return channel in self._bus.hearers and self._bus.homes.get(sender) == self._node

    def _compare(
        self, recorded: Sequence[_Record], said: Sequence[Delivery], complete: bool, records: Sequence[_Record]
    ) -> Result:
        waiting: dict[tuple[str, str], deque[_Record]] = {}
        for one in recorded:
            waiting.setdefault((one.channel, one.envelope.sender), deque()).append(one)
        began = {key: queue[0].envelope.sequence for key, queue in waiting.items()}
        kinds: Counter[str] = Counter()
        differences: list[Difference] = []
        equal = beyond = 0
        for channel, envelope in said:
            key = (channel, envelope.sender)
            queue = waiting.get(key)
            if not queue:
                beyond += not complete
                if complete:
                    differences.append(Difference(channel, None, envelope))
                continue
            before = queue.popleft()
            again = _in_its_place(envelope, before.envelope, began[key], steward_of(self._node))
            if encode(again) == before.body:
                equal += 1
                kinds.update(_kinds(again))
            else:
                differences.append(Difference(channel, before.envelope, again))
        unsaid = [one for queue in waiting.values() for one in queue]
        differences += [Difference(one.channel, one.envelope, None) for one in unsaid]
        return Result(
            equal, len(differences), kinds, _span(recorded), _episodes(recorded, records),
            min(differences, key=_step_of, default=None), beyond, self._is_of_another(records),
        )  # fmt: skip

    def _is_of_another(self, records: Iterable[_Record]) -> bool:
        """Whether the node said that it was built from another topology; its Ready need not have been recorded."""
        me = steward_of(self._node)
        said = (one.envelope.body for one in records if one.envelope.sender == me)
        return any(type(body) is Ready and body.topology_hash != self._hash for body in said)


def _in_its_place(envelope: Envelope, recorded: Envelope, began: int, steward: str) -> Envelope:
    """A replayed envelope with the recorded send time and run; its sequence counts from where the recording began, or
    anew where an agent speaks as another incarnation. A process's own incarnation is the time of its start.
    """
    placed = envelope._replace(run=recorded.run, sent_ns=recorded.sent_ns, sequence=envelope.sequence + began)
    if envelope.sender == steward:
        return placed._replace(incarnation=recorded.incarnation, sequence=recorded.sequence)
    return placed if not envelope.incarnation else placed._replace(sequence=envelope.sequence)


def _kinds(envelope: Envelope) -> Iterator[str]:
    yield KIND[type(envelope.body)]
    if type(envelope.body) is Batch:
        yield from ("in batches" for _ in envelope.body.items)
    elif type(envelope.body) is Columns:
        yield from ("in batches" for _ in items(envelope.body, envelope.step))


def _span(records: Sequence[_Record]) -> tuple[int, int]:
    steps = [record.envelope.step for record in records] or [0]
    return min(steps), max(steps)


def _episodes(recorded: Sequence[_Record], records: Sequence[_Record]) -> int:
    first, last = _span(recorded)
    return len({one.envelope.step for one in records if _resets(one) and first <= one.envelope.step <= last})


def _step_of(difference: Difference) -> tuple[int, int]:
    envelope = difference.recorded or difference.replayed
    assert envelope is not None
    return envelope.step, envelope.round


def describe(difference: Difference) -> list[str]:
    """A difference in lines: where, and field by field what was recorded and what is said now."""
    channel, recorded, replayed = difference
    one = recorded or replayed
    assert one is not None
    lines = [f"first difference: step {one.step}, round {one.round}, {one.sender} on {channel}"]
    if recorded is None or replayed is None:
        who = "the recorded run said this, the replay does not" if recorded else "only the replay says this"
        return [*lines, f"  {who}: {_short(one.body)}"]
    if type(recorded.body) is Batch and type(replayed.body) is Batch:
        return lines + _batch_lines(recorded.body.items, replayed.body.items)
    return lines + _field_lines(recorded, replayed)


def _batch_lines(recorded: Sequence[Item], replayed: Sequence[Item]) -> list[str]:
    if [item[:6] for item in recorded] != [item[:6] for item in replayed]:
        return [f"  recorded batch: {', '.join(item.channel for item in recorded)}",
                f"  replayed batch: {', '.join(item.channel for item in replayed)}"]  # fmt: skip
    for one, other in zip(recorded, replayed, strict=True):
        fields = _body_lines(one.body, other.body)
        if fields:
            return [f"  in its batch, {one.kind} on {one.channel}", *fields]
    return []


def _field_lines(recorded: Envelope, replayed: Envelope) -> list[str]:
    heads = [
        f"  {name}: recorded {one!r}, replayed {other!r}"
        for name, one, other in zip(Envelope._fields[:-1], recorded[:-1], replayed[:-1], strict=True)
        if one != other
    ]
    return heads + _body_lines(recorded.body, replayed.body)


def _body_lines(recorded: object, replayed: object) -> list[str]:
    if type(recorded) is not type(replayed) or not isinstance(recorded, tuple) or not isinstance(replayed, tuple):
        return [f"  recorded {recorded!r}", f"  replayed {replayed!r}"]
    names = getattr(type(recorded), "_fields", ())
    return [
        f"  {name}: recorded {_short(one)}, replayed {_short(other)}"
        for name, one, other in zip(names, recorded, replayed, strict=True)
        if repr(one) != repr(other)
    ]


def _short(value: object) -> str:
    text = repr(value).replace("\n", "")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text):,} characters)"
