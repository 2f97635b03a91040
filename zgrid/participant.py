"""Participant: one participant of a protocol alone, on a broker, in a process of its own.

In lockstep it walks through its rounds as ``zgrid.protocols.Table`` does, with the same bits. In real time it waits for
nobody: a round takes its period, and what has not come by then is missing in it, or older when it does come.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from zgrid.agents.talk import Talk
from zgrid.errors import StepTimeout
from zgrid.gather import TAKEN
from zgrid.host import Host
from zgrid.links import LinkConfig, Links
from zgrid.messages import Envelope, Peer, Ready, Reset, channel
from zgrid.messaging import Address, ZmqBroker
from zgrid.post import Post
from zgrid.protocols import Heard, Local, Participant, Protocol, Result, Rounds, Status, Trade, Unit, seated
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
        ears = Links([LinkConfig.model_validate(rule) for rule in self.links], self.seed).into(self.me.id)
        return seated(kind, config, self.me, self.seed, None if ears is None else ears.carry)


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


class Seat:
    """One participant on a broker: hears the start, then its neighbours, and plays its steps one after the other."""

    def __init__(self, job: Job) -> None:
        self.id = job.me.id
        self.refused: Counter[str] = Counter()
        self.walk = job.walk()
        self.started = self.over = False
        self.error: Exception | None = None
        """What the protocol raised."""
        self.arrived: dict[str, list[tuple[int, int, Peer]]] = {other: [] for other in job.me.weights}
        """In real time: what came since it was last looked at, each with its step and round."""
        self._job = job
        self._talk = Talk(self.id, job.me.weights)
        self._step = 0
        self.hears = self._talk.hears | {START: frozenset((CONVENER,))}

    def receive(self, envelope: Envelope) -> list[Post]:
        """The start, or a neighbour's frame in; frames out."""
        try:
            return self._on_start() if type(envelope.body) is Reset else self._on_frame(envelope)
        except Exception as error:
            self.error = error
            raise

    def _on_start(self) -> list[Post]:
        self.started = True
        return [] if self._job.period_s else self._next_step()

    def _on_frame(self, envelope: Envelope) -> list[Post]:
        assert type(envelope.body) is Peer
        if self._job.period_s:
            self.arrived[envelope.sender].append((envelope.step, envelope.round, envelope.body))
            return []
        verdict = self._talk.hear(envelope)
        if verdict is not TAKEN:
            self.refused[f"{verdict} {envelope.sender}"] += 1
            return []
        return self._go_on()

    def _next_step(self) -> list[Post]:
        if self._step == len(self._job.locals):
            self.over = True
            return []
        self._step += 1
        self._talk.open(self._step)
        frames = self.walk.start(self._step, self._job.locals[self._step - 1])
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


def attend(job: Job, address: Address) -> Outcome:
    """Play one participant's part in this process.

    Raises:
        StepTimeout: a neighbour, or the start, was not heard in time.
        BrokerError: no proxy there.
    """
    broker = ZmqBroker(address, job.run)
    try:
        host, seat = Host(broker, job.run), Seat(job)
        host.add(seat)
        broker.prove(PATIENCE_S)
        host.send(seat.id, channel("node", seat.id), 0, 0, Ready((seat.id,), "", 0))
        _pump_until(host, seat, lambda: seat.started, "start", [CONVENER])
        if job.period_s:
            return _in_real_time(host, seat, job)
        _pump_until(host, seat, lambda: seat.over, "peer", list(job.me.weights))
        walk = seat.walk
        return Outcome(walk.protocol.result(), walk.status, walk.done_rounds, walk.messages)
    finally:
        broker.close()


def _pump_until(host: Host, seat: Seat, holds: Callable[[], bool], kind: str, missing: Sequence[str]) -> None:
    heard = time.monotonic()
    while not holds():
        spoken = host.pump(SLICE_S)
        if seat.error is not None:
            raise seat.error
        if spoken:
            heard = time.monotonic()
        elif time.monotonic() - heard > PATIENCE_S:
            raise StepTimeout(0, kind, missing, PATIENCE_S)


def _in_real_time(host: Host, seat: Seat, job: Job) -> Outcome:
    """Rounds by the clock: say, wait for the period, take what has come. Status ``timeout``: not converged by then."""
    protocol, rounds, messages = seat.walk.protocol, 0, 0
    cap = int(protocol.config.rounds)
    quiet = protocol.config.stop == "local"
    for step, local in enumerate(job.locals, 1):
        rounds = messages = 0
        outbox = protocol.start(step, local)
        deadline = time.monotonic()
        while rounds < cap:
            rounds += 1
            for to, values in () if quiet and rounds > 1 and protocol.done() else outbox.items():
                host.send(seat.id, channel("peer", to, seat.id), step, rounds, Peer(tuple(values)))
                messages += 1
            deadline += job.period_s
            while (left := deadline - time.monotonic()) > 0.0:
                host.pump(left)
            outbox = protocol.on_round(rounds, take_arrived(seat, step, rounds))
    return Outcome(protocol.result(), "converged" if protocol.done() else "timeout", rounds, messages)


def take_arrived(seat: Seat, step: int, round: int) -> dict[str, list[Heard]]:
    """What came of this step; what is of a later one waits, what is of an older one has come too late."""
    inbox: dict[str, list[Heard]] = {}
    for sender, frames in seat.arrived.items():
        now = [(said, frame) for at, said, frame in frames if at == step]
        inbox[sender] = [Heard(frame.values, max(0, round - said)) for said, frame in now if frame.values is not None]
        seat.arrived[sender] = [one for one in frames if one[0] > step]
    return inbox
