"""Parley: a protocol alone, without physics, each participant in a process of its own, over a ZeroMQ proxy.

In lockstep the result is that of ``zgrid.protocols.Table`` to the bit. In real time nobody waits: a round takes its
period, and what has not come by then is missing in it, or older when it does come.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any, NamedTuple

from zgrid.agents.talk import Talk
from zgrid.errors import BrokerError, NodeDiedError, StartTimeout, StepTimeout
from zgrid.gather import TAKEN
from zgrid.host import Host
from zgrid.links import LinkConfig, Links
from zgrid.messages import Envelope, Peer, Ready, Reset, channel
from zgrid.messaging import Address, ZmqBroker
from zgrid.post import Post
from zgrid.protocols import (
    Graph,
    Heard,
    Local,
    Participant,
    Protocol,
    ProtocolConfig,
    Result,
    Rounds,
    Run,
    Status,
    Trade,
    Unit,
    generator,
    peers,
)
from zgrid.protocols.rounds import as_sent
from zgrid.registry import resolve_class

CONVENER = "convener"
START = channel("control", "all")
_PATIENCE_S = 30.0
_SLICE_S = 0.2


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
        carry = as_sent if ears is None else ears.carry
        return Rounds(kind(config, self.me, generator(self.seed, self.me.id)), carry)


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
            return self._take(envelope)
        except Exception as error:
            self.error = error
            raise

    def _take(self, envelope: Envelope) -> list[Post]:
        if isinstance(envelope.body, Reset):
            self.started = True
            return [] if self._job.period_s else self._next_step()
        assert isinstance(envelope.body, Peer)
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
        broker.prove(_PATIENCE_S)
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
        spoken = host.pump(_SLICE_S)
        if seat.error is not None:
            raise seat.error
        if spoken:
            heard = time.monotonic()
        elif time.monotonic() - heard > _PATIENCE_S:
            raise StepTimeout(0, kind, missing, _PATIENCE_S)


def _in_real_time(host: Host, seat: Seat, job: Job) -> Outcome:
    """Rounds by the clock: say, wait for the period, take what has come. Status ``timeout``: not converged by then."""
    protocol, rounds, messages = seat.walk.protocol, 0, 0
    cap = int(getattr(protocol.config, "rounds", 1))
    quiet = getattr(protocol.config, "stop", "fixed") == "local"
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
            outbox = protocol.on_round(rounds, _take_arrived(seat, step, rounds))
    return Outcome(protocol.result(), "converged" if protocol.done() else "timeout", rounds, messages)


def _take_arrived(seat: Seat, step: int, round: int) -> dict[str, list[Heard]]:
    """What came of this step; what is of a later one waits, what is of an older one has come too late."""
    inbox: dict[str, list[Heard]] = {}
    for sender, frames in seat.arrived.items():
        now = [(said, frame) for at, said, frame in frames if at == step]
        inbox[sender] = [Heard(frame.values, max(0, round - said)) for said, frame in now if frame.values is not None]
        seat.arrived[sender] = [one for one in frames if one[0] > step]
    return inbox


# ---- the convener ------------------------------------------------------------------------------------------------


def meet(
    protocol: type[Protocol],
    config: ProtocolConfig | Mapping[str, Any],
    participants: Graph | Mapping[str, Participant],
    locals: Mapping[str, Local | Sequence[Local]],
    *,
    seed: int = 0,
    period_s: float = 0.0,
    links: Sequence[LinkConfig] = (),
) -> Run:
    """Let participants meet, each in a process of its own on this machine: the result of the last step.

    ``locals`` has a participant's problem, or one for each step. With ``period_s`` rounds go by the clock, and results
    depend on what came in time; without, they are those of ``Table`` to the bit. ``links`` has rules of what goes
    wrong, as in a topology; in lockstep only, because the clock has its own. No history is kept.

    Raises:
        ValueError: links, or a stop that all agree on, and a period.
        StartTimeout: a participant did not come up. NodeDiedError: one ended without a result.
    """
    if not isinstance(config, ProtocolConfig):
        config = protocol.Config.model_validate({"kind": protocol.__name__, **config})
    if links and period_s:
        raise ValueError("links are for lockstep; with period_s messages take the time that they take")
    if period_s and getattr(config, "stop", "fixed") not in ("fixed", "local"):
        raise ValueError("stop: with period_s nobody waits for others to agree; expected fixed or local")
    rules = [rule.model_dump(mode="json") for rule in links]
    members = {name: one for name, one in participants.items() if isinstance(one, Participant)}
    members |= peers({name: tuple(one) for name, one in participants.items() if not isinstance(one, Participant)})
    kind, run = f"{protocol.__module__}:{protocol.__qualname__}", uuid.uuid4().hex
    jobs = {
        name: Job(kind, config.model_dump(mode="json"), me, _steps(locals[name]), seed, run, period_s, rules)
        for name, me in members.items()
    }
    outcomes = dict(_convene(jobs, run))
    return Run(
        {name: outcomes[name].result for name in members},
        {name: outcomes[name].status for name in members},
        max(outcome.rounds for outcome in outcomes.values()),
        sum(outcome.messages for outcome in outcomes.values()),
        (),
    )


def _steps(locals: Local | Sequence[Local]) -> Sequence[Local]:
    return [locals] if isinstance(locals, Local) else list(locals)


def _convene(jobs: Mapping[str, Job], run: str) -> Iterator[tuple[str, Outcome]]:
    with ExitStack() as stack:
        proxy = stack.enter_context(_Child(["nodes.broker", "-"], _PROXY_JSON))
        address = Address.parse(json.loads(proxy.line("the proxy"))["address"])
        broker = ZmqBroker(address, run)
        stack.callback(broker.close)
        for name in jobs:
            broker.subscribe(channel("node", name))
        broker.prove(_PATIENCE_S)
        command = ["nodes.participant", "--connect", str(address)]
        children = {name: stack.enter_context(_Child(command, job.dump())) for name, job in jobs.items()}
        _wait_for(broker, children)
        broker.publish(START, Envelope(CONVENER, run, 0, 0, 0, 0, time.time_ns(), Reset(0)))
        for name, child in children.items():
            yield name, Outcome.load(child.line(name))


def _wait_for(broker: ZmqBroker, children: Mapping[str, _Child]) -> None:
    missing, begin = set(children), time.monotonic()
    while missing:
        delivery = broker.poll(_SLICE_S)
        if delivery is not None:
            missing.discard(delivery.envelope.sender)
        for name in missing:
            children[name].check(name)
        waited = time.monotonic() - begin
        if missing and waited > _PATIENCE_S:
            raise StartTimeout(dict.fromkeys(missing, "it did not say that it is ready"), waited)


class _Child:
    """``python -m`` something, which ends when its standard input closes, and says one line."""

    def __init__(self, arguments: Sequence[str], line: str) -> None:
        self._arguments, self._line = arguments, line

    def __enter__(self) -> _Child:
        self._log: IO[bytes] = tempfile.TemporaryFile()
        self._popen = subprocess.Popen(
            [sys.executable, "-m", *self._arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, start_new_session=True,
        )  # fmt: skip
        assert self._popen.stdin is not None
        self._popen.stdin.write(self._line + "\n")
        self._popen.stdin.flush()
        return self

    def __exit__(self, *error: object) -> None:
        self._popen.kill()
        self._popen.communicate()
        self._log.close()

    def check(self, name: str) -> None:
        """Raise if it has ended."""
        code = self._popen.poll()
        if code is not None and code != 0:
            self._log.seek(0)
            raise NodeDiedError(name, code, self._log.read().decode(errors="replace")[-2000:])

    def line(self, name: str) -> str:
        """The line it says.

        Raises:
            NodeDiedError: it ended without.
        """
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            self._popen.wait(_PATIENCE_S)
            self.check(name)
            raise BrokerError(f"{name} ended without a word")
        return line


_PROXY_JSON = json.dumps({"broker": {"host": "127.0.0.1", "ports": None, "keys": None}})
