"""Parley: a protocol alone, without physics, each participant in a process of its own, over a ZeroMQ proxy."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from zgrid.errors import BrokerError, NodeDiedError, StartTimeout
from zgrid.links import LinkConfig
from zgrid.messages import Envelope, Reset, channel
from zgrid.messaging import Address, ZmqBroker
from zgrid.participant import CONVENER, PATIENCE_S, SLICE_S, START, Job, Outcome
from zgrid.protocols import Graph, Local, Participant, Protocol, ProtocolConfig, Run, prepared
from zgrid.session import child_environment


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
    wrong, as in a topology; by the clock on top of what messages really take. No history is kept.

    Raises:
        ValueError: a stop that all agree on, and a period.
        StartTimeout: a participant did not come up. NodeDiedError: one ended without a result.
    """
    checked, members = prepared(protocol, config, participants)
    if period_s and checked.stop not in ("fixed", "local"):
        raise ValueError("stop: with period_s nobody waits for others to agree; expected fixed or local")
    rules = [rule.model_dump(mode="json") for rule in links]
    kind, run = f"{_module_of(protocol)}:{protocol.__qualname__}", uuid.uuid4().hex
    jobs = {
        name: Job(kind, checked.model_dump(mode="json"), me, _steps(locals[name]), seed, run, period_s, rules)
        for name, me in members.items()
    }
    outcomes = dict(_convene(jobs, run))
    return Run(
        {name: outcomes[name].result for name in members},
        {name: outcomes[name].status for name in members},
        max(outcome.rounds for outcome in outcomes.values()),
        sum(outcome.messages for outcome in outcomes.values()),
        (),
        math.fsum(job.locals[-1].demand_mw for job in jobs.values()),
    )


def _module_of(protocol: type[Protocol]) -> str:
    """The module by which other processes find a class: that of a script is named as its file."""
    main = sys.modules[protocol.__module__]
    if main.__name__ != "__main__":
        return main.__name__
    return main.__spec__.name if main.__spec__ is not None else Path(main.__file__ or "").stem


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
        broker.prove(PATIENCE_S)
        command = ["nodes.participant", "--connect", str(address)]
        children = {name: stack.enter_context(_Child(command, job.dump())) for name, job in jobs.items()}
        _wait_for(broker, children)
        broker.publish(START, Envelope(CONVENER, run, 0, 0, 0, 0, time.time_ns(), Reset(0)))
        for name, child in children.items():
            yield name, Outcome.load(child.line(name))


def _wait_for(broker: ZmqBroker, children: Mapping[str, _Child]) -> None:
    missing, begin = set(children), time.monotonic()
    while missing:
        delivery = broker.poll(SLICE_S)
        if delivery is not None:
            missing.discard(delivery.envelope.sender)
        for name in missing:
            children[name].check(name)
        waited = time.monotonic() - begin
        if missing and waited > PATIENCE_S:
            raise StartTimeout(dict.fromkeys(missing, "it did not say that it is ready"), waited)


class _Child:
    """``python -m`` something, which ends when its standard input closes, and says one line."""

    def __init__(self, arguments: Sequence[str], line: str) -> None:
        self._arguments, self._line = arguments, line

    def __enter__(self) -> _Child:
        self._log: IO[bytes] = tempfile.TemporaryFile()
        self._popen = subprocess.Popen(
            [sys.executable, "-m", *self._arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            env=child_environment(), text=True, start_new_session=True,
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
            self._popen.wait(PATIENCE_S)
            self.check(name)
            raise BrokerError(f"{name} ended without a word")
        return line


_PROXY_JSON = json.dumps({"broker": {"host": "127.0.0.1", "ports": None, "keys": None}})
