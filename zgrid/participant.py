"""Participant: one participant of a protocol alone, on a broker, in a process of its own.

In lockstep it walks through its rounds as ``zgrid.protocols.Table`` does, with the same bits. In real time it waits for
nobody: a round takes its period, and what has not come by then is missing in it, or older when it does come. A protocol
that answers messages one by one is heard at once.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from zgrid.agents.talk import Talk
from zgrid.agents.timed_talk import TimedTalk
from zgrid.errors import StepTimeout
from zgrid.gather import TAKEN
from zgrid.host import Host
from zgrid.links import Ears, LinkConfig
from zgrid.messages import Envelope, Ready, Reset, channel
from zgrid.messaging import Address, ZmqBroker
from zgrid.post import Post
from zgrid.protocols import Local, Participant, Protocol, Result, Rounds, Status, Trade, Unit, seated
from zgrid.registry import resolve_class

CONVENER = "convener"
START = channel("control", "all")
PATIENCE_S = 30.0
SLICE_S = 0.2


class Job(NamedTuple):
    """What one participant's process is given: a step for each of ``locals``; ``period_s`` 0: lockstep; ``links``: what
    goes wrong on them, as rules."""

    protocol: str
    config: Mapping[str, Any]
    me: Participant
    locals: Sequence[Local]
    seed: int
    run: str
    period_s: float = 0.0
    links: Sequence[Mapping[str, Any]] = ()

    def dump(self) -> str:
        """As one line of JSON."""
        locals = [{**one._asdict(), "units": [unit._asdict() for unit in one.units]} for one in self.locals]
        return json.dumps(self._asdict() | {"me": self.me._asdict(), "locals": locals})

    @classmethod
    def load(cls, line: str) -> Job:
        """From such a line."""
        raw = json.loads(line)
        locals = [Local(**{**one, "units": tuple(Unit(**unit) for unit in one["units"])}) for one in raw.pop("locals")]
        me: dict[str, Any] = raw.pop("me")
        me |= {key: tuple(value) for key, value in me.items() if isinstance(value, list)}
        return cls(me=Participant(**me), locals=locals, **raw)

    def walk(self) -> Rounds:
        """The participant's protocol object in its rounds."""
        kind = resolve_class("protocol", self.protocol, {}, Protocol)
        config = kind.Config.model_validate(self.config)
        return seated(kind, config, self.me, self.seed, self.ears().carry if self.links else None)

    def ears(self) -> Ears:
        """What it hears with. By the clock, a round takes as long as it takes, whatever a rule assumes."""
        rules = [LinkConfig.model_validate(rule) for rule in self.links]
        if self.period_s:
            at_pace = {"period_s": self.period_s}
            rules = [rule if rule.period_s is None else rule.model_copy(update=at_pace) for rule in rules]
        return Ears(rules, self.me.id, seed=self.seed)


class Outcome(NamedTuple):
    """What one participant came to in its last step."""

    result: Result
    status: Status
    rounds: int
    messages: int

    def dump(self) -> str:
        """As one line of JSON; floats survive to the bit."""
        result = {**self.result._asdict(), "trades": [trade._asdict() for trade in self.result.trades]}
        return json.dumps({**self._asdict(), "result": result})

    @classmethod
    def load(cls, line: str) -> Outcome:
        """From such a line."""
        raw = json.loads(line)
        result = raw.pop("result")
        trades = tuple(Trade(**trade) for trade in result.pop("trades"))
        return cls(Result(**{**result, "values": tuple(result["values"]), "trades": trades}), **raw)


class Seat(ABC):
    """One participant on a broker, from the start on."""

    def __init__(self, job: Job, hears: dict[str, frozenset[str]]) -> None:
        self.id = job.me.id
        self.refused: Counter[str] = Counter()
        self.started = False
        self.error: Exception | None = None
        """What the protocol raised."""
        self.hears = hears | {START: frozenset((CONVENER,))}

    def receive(self, envelope: Envelope) -> list[Post]:
        """The start, or a neighbour's frame in; frames out."""
        try:
            if isinstance(envelope.body, Reset):
                self.started = True
                return self._begin()
            return self._take(envelope)
        except Exception as error:
            self.error = error
            raise

    def _begin(self) -> list[Post]:
        return []

    @abstractmethod
    def _take(self, envelope: Envelope) -> list[Post]:
        """A neighbour's frame."""


class LockstepSeat(Seat):
    """Waits for its neighbours in each round, and plays its steps one after the other."""

    def __init__(self, job: Job) -> None:
        self.walk = job.walk()
        self.over = False
        self._locals = job.locals
        self._talk = Talk(job.me.id, job.me.weights)
        self._step = 0
        super().__init__(job, self._talk.hears)

    def _begin(self) -> list[Post]:
        return self._next_step()

    def _take(self, envelope: Envelope) -> list[Post]:
        verdict = self._talk.hear(envelope)
        if verdict is not TAKEN:
            self.refused[f"{verdict} {envelope.sender}"] += 1
            return []
        return self._go_on()

    def _next_step(self) -> list[Post]:
        if self._step == len(self._locals):
            self.over = True
            return []
        self._step += 1
        self._talk.open(self._step)
        frames = self.walk.start(self._step, self._locals[self._step - 1])
        if not frames:
            return self._next_step()
        return self._talk.begin(self.walk, frames) + self._go_on()

    def _go_on(self) -> list[Post]:
        heard = self._talk.collect()
        if heard is None:
            return []
        frames = self.walk.take(heard)
        posts = self._talk.go_on(frames)
        return posts + (self._go_on() if frames else self._next_step())


class TimedSeat(Seat):
    """Waits for nobody."""

    def __init__(self, job: Job) -> None:
        self.talk = TimedTalk(job.walk().protocol, job.ears())
        super().__init__(job, self.talk.hears)

    def _take(self, envelope: Envelope) -> list[Post]:
        return self.talk.hear(envelope)


def attend(job: Job, address: Address) -> Outcome:
    """Play one participant's part in this process.

    Raises:
        StepTimeout: a neighbour, or the start, was not heard in time.
        BrokerError: no proxy there.
    """
    broker = ZmqBroker(address, job.run)
    try:
        host = Host(broker, job.run)
        return _in_real_time(host, TimedSeat(job), job) if job.period_s else _in_lockstep(host, LockstepSeat(job), job)
    finally:
        broker.close()


def _sit_down(host: Host, seat: Seat) -> None:
    """Say that it is here, and wait for the start."""
    host.add(seat)
    host.broker.prove(PATIENCE_S)
    host.send(seat.id, channel("node", seat.id), 0, 0, Ready((seat.id,), "", 0))
    _pump_until(host, seat, lambda: seat.started, "start", [CONVENER])


def _pump_until(host: Host, seat: Seat, holds: Callable[[], bool], kind: str, missing: Sequence[str]) -> None:
    heard = time.monotonic()
    while not holds():
        spoken = _pump(host, seat, SLICE_S)
        if spoken:
            heard = time.monotonic()
        elif time.monotonic() - heard > PATIENCE_S:
            raise StepTimeout(0, kind, missing, PATIENCE_S)


def _pump(host: Host, seat: Seat, timeout_s: float) -> bool:
    spoken = host.pump(timeout_s)
    if seat.error is not None:
        raise seat.error
    return spoken


def _in_lockstep(host: Host, seat: LockstepSeat, job: Job) -> Outcome:
    _sit_down(host, seat)
    _pump_until(host, seat, lambda: seat.over, "peer", list(job.me.weights))
    walk = seat.walk
    return Outcome(walk.protocol.result(), walk.status, walk.done_rounds, walk.messages)


def _in_real_time(host: Host, seat: TimedSeat, job: Job) -> Outcome:
    """Rounds by the clock: say, answer what comes until the period is over. ``timeout``: not converged by then."""
    _sit_down(host, seat)
    talk, protocol, rounds = seat.talk, seat.talk.protocol, 0
    for step, local in enumerate(job.locals, 1):
        posts, deadline = talk.start(step, local), time.monotonic()
        while talk.round:
            rounds = talk.round
            for post in posts:
                host.send(seat.id, *post)
            deadline += job.period_s
            while (left := deadline - time.monotonic()) > 0.0:
                _pump(host, seat, left)
            posts = talk.go_on()
    return Outcome(protocol.result(), "converged" if protocol.done() else "timeout", rounds, talk.messages)
