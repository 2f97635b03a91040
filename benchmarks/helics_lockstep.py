"""The lockstep of three microgrids over HELICS: 13 federates in as many processes and a broker, the same bytes a step.

Every message carries the number of its step; who takes it in checks that number and the rest of its content, so a
step that is counted is one whose 27 messages all arrived in order. ``python -m benchmarks.helics_lockstep`` compares

core types    the transports of HELICS
carriers      values (publications and subscriptions) or endpoints (messages)
ways          timed: every phase has a time of its own, and each federate asks for the next one that concerns it;
              event: federates ask for the end of time, and what is sent to them wakes them earlier
coordination  global: the broker grants times (its flag --globaltime); distributed: federates agree among themselves,
              which is the default of HELICS

``Setting()`` is what was fastest with the default core, zmq; tcp was faster still, and udp more so, but it promises
neither delivery nor order.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import random
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Self

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.bare import Grids, bodies, cpu_s, die_with_parent, end, grids_of, spawning
from benchmarks.stub import STUB
from zgrid.messages import ENV
from zgrid.topology import Topology, load

INSTALL = "pip install helics"
CORES = ("zmq", "zmq_ss", "tcp", "tcp_ss", "udp", "ipc")
WAYS = ("timed", "event")
CARRIERS = ("values", "endpoints")
COORDINATIONS = ("global", "distributed")

_PHASES = 5
"""Times in a step when waiting is timed: actions, setpoints, states, networks, reports; the last is the next step's
first."""
_START_S, _STEP_S = 30.0, 10.0
_SOME = 5
_STOP = (1 << 62) - 1
_STAMP = 8


class Setting(NamedTuple):
    """How HELICS is used."""

    core: str = "zmq"
    way: str = "timed"
    carrier: str = "values"
    coordination: str = "global"

    def __str__(self) -> str:
        return ", ".join((f"{self.core} core", *self[1:]))


class HelicsError(RuntimeError):
    """A federate failed or fell silent."""


def installed() -> bool:
    """Whether HELICS is there."""
    return importlib.util.find_spec("helics") is not None


class HelicsLoop:
    """Starts a broker and 13 federates, and has the env's federate play steps."""

    def __init__(self, topology: Topology, setting: Setting) -> None:
        said, grids = bodies(topology), grids_of(topology)
        self._children: list[BaseProcess] = []
        self._pipes: dict[Connection, str] = {}
        try:
            port = _free_port()
            self._start(_broker, "broker", (setting, port, 1 + len(grids) + sum(map(len, grids.values()))))
            self._hear("broker")
            for grid, devices in grids.items():
                self._start(_grid, grid, (setting, port, said, grid, devices))
                for device in devices:
                    self._start(_device, device, (setting, port, said, grid, device))
            self._env = self._start(_env, ENV, (setting, port, said, grids))
            self._hear(ENV)
        except BaseException:
            self._kill()
            raise
        self._pids = [child.pid or 0 for child in self._children]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def measure(self, seconds: float) -> dict[str, float]:
        """Steps per second and per CPU second."""
        try:
            cpu = cpu_s(self._pids)
            steps, elapsed = self._ask(seconds)
            return {"steps_per_s": steps / elapsed, "steps_per_cpu_s": steps / (cpu_s(self._pids) - cpu)}
        except BaseException:
            self._kill()
            raise

    def close(self) -> None:
        """Let all federates finish; kill those that do not."""
        with suppress(OSError):  # it may have ended
            self._env.send(None)
        end(reversed(self._children))
        self._kill()

    def _ask(self, seconds: float) -> tuple[int, float]:
        self._env.send(seconds)
        steps, elapsed = self._hear(ENV, seconds)
        return steps, elapsed

    def _start(self, run: Any, name: str, arguments: tuple[Any, ...]) -> Connection:
        here, there = spawning.Pipe()
        child = spawning.Process(target=_guarded, args=(there, run, arguments), daemon=True, name=name)
        child.start()
        there.close()
        self._children.append(child)
        self._pipes[here] = name
        return here

    def _hear(self, name: str, more_s: float = 0.0) -> Any:
        """What one child says next.

        Raises:
            HelicsError: another one says that it failed, one ends, or nobody says anything.
        """
        deadline = time.monotonic() + _START_S + more_s
        while (left := deadline - time.monotonic()) > 0.0:
            for pipe in wait(list(self._pipes), left):
                assert isinstance(pipe, Connection)
                try:
                    said = pipe.recv()
                except EOFError:
                    raise HelicsError(f"HELICS: {self._pipes[pipe]} ended") from None
                if isinstance(said, str):
                    raise HelicsError(f"HELICS: {self._pipes[pipe]}: {said}")
                if self._pipes[pipe] == name:
                    return said
        raise HelicsError(f"HELICS: {name} said nothing for {_START_S:g} s")

    def _kill(self) -> None:
        for child in self._children:
            if child.is_alive():
                child.kill()
        for child in self._children:
            child.join(5.0)
        for pipe in self._pipes:
            pipe.close()
        self._pipes.clear()


def _free_port() -> int:
    """A port below those that the system gives to clients, with the next one free too: a broker takes several."""
    for port in random.sample(range(21000, 31000, 100), 20):
        with socket.socket() as one, socket.socket() as other, suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 1))
            return port
    raise HelicsError("HELICS: no two free ports")


# ---- in the children ---------------------------------------------------------------------------------------------


def _guarded(pipe: Connection, run: Any, arguments: tuple[Any, ...]) -> None:
    """Run a role; what goes wrong is told, and this process ends whatever threads HELICS has."""
    die_with_parent()
    try:
        run(pipe, *arguments)
    except Exception as error:  # noqa: BLE001 - told to the parent, which raises it
        pipe.send(f"{type(error).__name__}: {error}")
        os._exit(1)
    os._exit(0)


def _broker(pipe: Connection, setting: Setting, port: int, federates: int) -> None:
    import helics  # type: ignore[import-not-found, unused-ignore]

    where = f"--name=lockstep_{port}" if setting.core == "ipc" else f"--port={port}"
    how = "--globaltime" if setting.coordination == "global" else ""
    broker = helics.helicsCreateBroker(setting.core, "", f"--federates={federates} {where} --loglevel=error {how}")
    if not helics.helicsBrokerIsConnected(broker):
        raise HelicsError("the broker does not listen")
    pipe.send(None)
    while helics.helicsBrokerIsConnected(broker):
        helics.helicsBrokerWaitForDisconnect(broker, 1000)


def _env(pipe: Connection, setting: Setting, port: int, said: dict[str, bytes], grids: Grids) -> None:
    devices = [device for several in grids.values() for device in several]
    link = _Link(setting, port, ENV, said)
    for kind in ("action", "network"):
        for grid in grids:
            link.says(f"{kind}/{grid}", to=[grid])
    link.hears("state", devices)
    link.hears("report", grids)
    link.start()
    steps = itertools.count()

    def play() -> int:
        for _ in range(_SOME):
            step = next(steps)
            for grid in grids:
                link.say(f"action/{grid}", step)
            link.take("state", step, 3)
            for grid in grids:
                link.say(f"network/{grid}", step)
            link.take("report", step, 5)
        return _SOME

    play()
    pipe.send(None)
    while (seconds := pipe.recv()) is not None:
        done, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            done += play()
        pipe.send((done, time.perf_counter() - begin))
    for grid in grids:
        link.say(f"action/{grid}", _STOP)
    link.leave()


def _grid(
    pipe: Connection, setting: Setting, port: int, said: dict[str, bytes], grid: str, devices: Sequence[str]
) -> None:
    link = _Link(setting, port, grid, said)
    for device in devices:
        link.says(f"setpoint/{device}", to=[device])
    link.says(f"report/{grid}", to=[ENV])
    link.hears("action", [grid])
    link.hears("network", [grid])
    link.hears("state", devices, wakes=False)
    link.start()
    for step in itertools.count():
        stop = link.take("action", step, 1)
        for device in devices:
            link.say(f"setpoint/{device}", _STOP if stop else step)
        if stop:
            break
        link.take("network", step, 4)
        link.take("state", step)
        link.say(f"report/{grid}", step)
    link.leave()


def _device(pipe: Connection, setting: Setting, port: int, said: dict[str, bytes], grid: str, device: str) -> None:
    link = _Link(setting, port, device, said)
    link.says(f"state/{device}", to=[grid, ENV])
    link.hears("setpoint", [device])
    link.start()
    step = 0
    while not link.take("setpoint", step, 2):
        link.say(f"state/{device}", step)
        step += 1
    link.leave()


class _Link:
    """One federate: what it says and hears, and how it waits."""

    def __init__(self, setting: Setting, port: int, name: str, said: dict[str, bytes]) -> None:
        import helics  # type: ignore[import-not-found, unused-ignore]

        self._h, self._setting, self._name, self._said = helics, setting, name, said
        info = helics.helicsCreateFederateInfo()
        helics.helicsFederateInfoSetCoreTypeFromString(info, setting.core)
        where = f"--broker=lockstep_{port}" if setting.core == "ipc" else f"--brokerport={port}"
        helics.helicsFederateInfoSetCoreInitString(info, f"--federates=1 {where} --loglevel=error")
        timed = setting.way == "timed"
        helics.helicsFederateInfoSetTimeProperty(info, helics.HELICS_PROPERTY_TIME_DELTA, 1.0 if timed else 1e-3)
        helics.helicsFederateInfoSetFlagOption(info, helics.HELICS_FLAG_UNINTERRUPTIBLE, timed)
        create = helics.helicsCreateValueFederate
        if setting.carrier == "endpoints":
            create = helics.helicsCreateMessageFederate
        self._federate = create(name, info)
        self._outs: dict[str, Any] = {}
        self._ins: dict[str, dict[str, Any]] = {}
        self._inbox: Any = None
        self._got: dict[str, dict[str, bytes]] = {}

    def says(self, topic: str, to: Iterable[str]) -> None:
        """Register what this federate says."""
        h = self._h
        if self._setting.carrier == "values":
            kind = h.HELICS_DATA_TYPE_RAW
            self._outs[topic] = h.helicsFederateRegisterGlobalPublication(self._federate, topic, kind, "")
            return
        self._outs[topic] = out = h.helicsFederateRegisterGlobalTargetedEndpoint(self._federate, topic, "")
        for other in to:
            h.helicsEndpointAddDestinationTarget(out, f"inbox/{other}")

    def hears(self, kind: str, names: Iterable[str], *, wakes: bool = True) -> None:
        """Register what this federate hears, and whether that ends a wait."""
        h = self._h
        self._got[kind] = {}
        if self._setting.carrier == "endpoints":
            if self._inbox is None:
                box = f"inbox/{self._name}"
                self._inbox = h.helicsFederateRegisterGlobalTargetedEndpoint(self._federate, box, "")
            self._ins[kind] = dict.fromkeys(names)
            return
        self._ins[kind] = {
            name: h.helicsFederateRegisterSubscription(self._federate, f"{kind}/{name}", "") for name in names
        }
        if not wakes:
            for each in self._ins[kind].values():
                h.helicsInputSetOption(each, h.HELICS_HANDLE_OPTION_IGNORE_INTERRUPTS, 1)

    def start(self) -> None:
        """Wait for all other federates."""
        self._h.helicsFederateEnterExecutingMode(self._federate)

    def say(self, topic: str, step: int) -> None:
        """Publish the bytes of a message with the number of a step as its last ones."""
        data = self._said[topic.partition("/")[0]][:-_STAMP] + step.to_bytes(_STAMP, "big")
        if self._setting.carrier == "values":
            self._h.helicsPublicationPublishBytes(self._outs[topic], data)
        else:
            self._h.helicsEndpointSendBytes(self._outs[topic], data)

    def take(self, kind: str, step: int, phase: int | None = None) -> bool:
        """Wait for the messages of a kind from all who are heard, and check them; whether they say that it is over."""
        got, names = self._got[kind], self._ins[kind]
        self._collect(kind)
        deadline = time.monotonic() + _STEP_S
        while len(got) < len(names):
            if time.monotonic() > deadline:
                raise HelicsError(f"{self._name}: step {step}: {kind} of {sorted(names.keys() - got.keys())} missing")
            self._wait(kind, step, phase)
            self._collect(kind)
        body, stop = self._said[kind][:-_STAMP], False
        for name, data in got.items():
            stamp = int.from_bytes(data[-_STAMP:], "big")
            stop = stop or stamp == _STOP
            if data[:-_STAMP] != body or not (stop or stamp == step):
                raise HelicsError(f"{self._name}: step {step}: {kind} of {name} is that of step {stamp}")
        got.clear()
        return stop

    def leave(self) -> None:
        """Say what is left to say, and end."""
        self._h.helicsFederateDisconnect(self._federate)
        self._h.helicsFederateFree(self._federate)
        self._h.helicsCloseLibrary()

    def _wait(self, kind: str, step: int, phase: int | None) -> None:
        h = self._h
        if self._setting.way == "timed":
            if phase is None:
                raise HelicsError(f"{self._name}: step {step}: {kind} not here in time")
            h.helicsFederateRequestTime(self._federate, float(_PHASES * step + phase))
        else:
            h.helicsFederateRequestTime(self._federate, h.HELICS_TIME_MAXTIME)

    def _collect(self, wanted: str) -> None:
        """Take in what is new."""
        h = self._h
        if self._setting.carrier == "values":
            got = self._got[wanted]
            for name, each in self._ins[wanted].items():
                if name not in got and h.helicsInputIsUpdated(each):
                    got[name] = h.helicsInputGetBytes(each)
            return
        while h.helicsEndpointHasMessage(self._inbox):
            message = h.helicsEndpointGetMessage(self._inbox)
            kind, _, name = h.helicsMessageGetSource(message).partition("/")
            if name in self._got[kind]:
                raise HelicsError(f"{self._name}: {kind} of {name} twice")
            self._got[kind][name] = h.helicsMessageGetBytes(message)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.helics_lockstep",
        description=__doc__,
        epilog="example: python -m benchmarks.helics_lockstep --cores zmq tcp_ss --ways timed --seconds 1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cores", nargs="+", choices=CORES, default=list(CORES), metavar="CORE", help=" ".join(CORES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=" ".join(WAYS))
    parser.add_argument("--carriers", nargs="+", choices=CARRIERS, default=list(CARRIERS), metavar="CARRIER",
                        help=" ".join(CARRIERS))  # fmt: skip
    parser.add_argument("--coordination", nargs="+", choices=COORDINATIONS, default=list(COORDINATIONS),
                        metavar="WHO", help=" ".join(COORDINATIONS))  # fmt: skip
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per measurement (default: 1)")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each; the median is told (default: 3)")
    arguments = parser.parse_args(argv)
    console = Console()
    if not installed():
        console.print(f"HELICS is not installed; {INSTALL}")
        return
    topology = load("3mg", {**STUB, "centralized": False})
    table = Table(title="HELICS, the lockstep of three microgrids, 13 federates")
    for heading in ("what", "steps/s", "steps per CPU-second"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    every = itertools.product(arguments.cores, arguments.ways, arguments.carriers, arguments.coordination)
    for setting in itertools.starmap(Setting, every):
        try:
            with console.status(str(setting)), HelicsLoop(topology, setting) as loop:
                rows = [loop.measure(arguments.seconds) for _ in range(arguments.repeat)]
        except HelicsError as error:
            table.add_row(str(setting), str(error)[:60], "")
            continue
        medians = {key: float(np.median([row[key] for row in rows])) for key in rows[0]}
        table.add_row(str(setting), f"{medians['steps_per_s']:,.0f}", f"{medians['steps_per_cpu_s']:,.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
