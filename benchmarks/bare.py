"""Bare pyzmq loops: the messages of a lockstep through the proxy of zgrid, with no content looked at: the ceiling.

One has a process for each agent; the batched one has a few workers that host many agents each, and puts what goes to
the same worker in the same phase in one frame.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Self, TypeAlias

import numpy as np
import zmq

from benchmarks.stub import STUB
from zgrid.encoding import encode
from zgrid.environment import NetworkedGridEnv
from zgrid.messages import Action, Body, DeviceState, Envelope, NetworkState, Report, Setpoint, channel
from zgrid.messaging import PROXY, Address
from zgrid.session import Session
from zgrid.topology import Topology

Job: TypeAlias = tuple[Callable[..., None], tuple[Any, ...]]
Grids: TypeAlias = dict[str, list[str]]

_START_S, _STEP_S, _LEAVE_S = 60.0, 20.0, 5.0
_SOME = 20
"""Steps between two looks at the clock."""

spawning = multiprocessing.get_context("forkserver")
spawning.set_forkserver_preload(["benchmarks.bare"])  # imported once, not in every process


def cpu_s(pids: Sequence[int]) -> float:
    """CPU seconds that processes have used so far."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def rate(pids: Sequence[int], seconds: float, play: Callable[[], int]) -> dict[str, float]:
    """Call ``play``, which tells how many steps it made, for some seconds: steps per second and per CPU second."""
    steps, begin, cpu = 0, time.perf_counter(), cpu_s(pids)
    while time.perf_counter() - begin < seconds:
        steps += play()
    elapsed, used = time.perf_counter() - begin, cpu_s(pids) - cpu
    return {"steps_per_s": steps / elapsed, "steps_per_cpu_s": steps / max(used, 0.01)}


def die_with_parent() -> None:
    """End this child as soon as its parent has ended, however that did."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end(workers: Iterable[BaseProcess]) -> None:
    """Give children a moment to leave, then kill those that have not."""
    deadline = time.monotonic() + _LEAVE_S
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join(_LEAVE_S)


def bodies(topology: Topology) -> dict[str, bytes]:
    """One real message of each kind of a step, encoded."""
    env = NetworkedGridEnv(topology, {**STUB, "centralized": True})
    env.reset(seed=0)
    env.step(dict.fromkeys(env.agents))
    outcome = env._outcome
    assert outcome is not None
    report = outcome.reports[0]
    network = NetworkState(True, (13, 9, 2), np.ones(24), 0.5, 0.1, 0.0, 0.0, (1.0,) * 3, (1.0,) * 6, (0.0, 1.0))
    said: dict[str, Body] = {
        "action": Action((0.1,) * len(topology.grid_specs[0].controls)),
        "setpoint": Setpoint((0.1, 0.0, 1.0), (0.5,)),
        "state": DeviceState(0.1, 0.0, 1.0, 0.0, (0.5,)),
        "network": network,
        "report": Report(report.reward, report.terms, report.observation),
    }
    return {
        kind: encode(Envelope("mg_1.dg_1", "0" * 32, 0, 100_000, 100_000, 0, time.time_ns(), body))
        for kind, body in said.items()
    }


def grids_of(topology: Topology) -> Grids:
    """The devices of each grid."""
    return {spec.id: [device.id for device in spec.devices] for spec in topology.grid_specs}


class Loop(ABC):
    """The env's end of a bare loop: starts the proxy and the workers, and plays steps with them."""

    def __init__(self, topology: Topology) -> None:
        self._said = bodies(topology)
        self._grids = grids_of(topology)
        self._workers: list[BaseProcess] = []
        self._context: zmq.Context[Any] | None = None
        self._session = Session(topology)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def measure(self, seconds: float) -> dict[str, float]:
        """Steps per second and per CPU second."""
        return rate(self._pids, seconds, self._some)

    def close(self) -> None:
        """End the workers and the proxy."""
        if self._context is not None:
            with suppress(zmq.ZMQError):
                self._pub.send_multipart((b"stop/", b""))
        end(self._workers)
        if self._context is not None:
            self._context.destroy(linger=0)
        self._session.stop()

    @abstractmethod
    def jobs(self, address: Address) -> list[Job]:
        """What the workers run."""

    @abstractmethod
    def hears(self) -> list[str]:
        """The channels that the env hears."""

    @abstractmethod
    def step(self) -> None:
        """Play one step."""

    def _start(self) -> None:
        address = self._session.start_proxy()
        self._context, self._pub, self._sub = _sockets(address, ["ready/env/", *self.hears()])
        _prove(self._pub, self._sub, "env")  # before anybody could say that it is ready
        for run, args in self.jobs(address):
            worker = spawning.Process(target=run, args=args, daemon=True)
            worker.start()
            self._workers.append(worker)
        self._sub.setsockopt(zmq.RCVTIMEO, round(_START_S * 1e3))
        for _ in self._workers:
            self._sub.recv_multipart()
        self._sub.setsockopt(zmq.RCVTIMEO, round(_STEP_S * 1e3))
        proxy = self._session.processes[PROXY].popen.pid
        self._pids = [os.getpid(), proxy, *(worker.pid or 0 for worker in self._workers)]

    def _some(self) -> int:
        for _ in range(_SOME):
            self.step()
        return _SOME


class AgentLoop(Loop):
    """Each agent is a process, and each message a frame of its own: 27 a step with three grids of three devices."""

    def jobs(self, address: Address) -> list[Job]:
        said, jobs = self._said, list[Job]()
        for grid, devices in self._grids.items():
            jobs.append((_grid, (address, grid, devices, said["setpoint"], said["report"])))
            jobs += [(_device, (address, device, said["state"])) for device in devices]
        return jobs

    def hears(self) -> list[str]:
        reports = [channel("report", grid) for grid in self._grids]
        return reports + [channel("state", device) for devices in self._grids.values() for device in devices]

    def _start(self) -> None:
        super()._start()
        self._actions = [channel("action", grid).encode() for grid in self._grids]
        self._networks = [channel("network", grid).encode() for grid in self._grids]
        self._devices = sum(map(len, self._grids.values()))

    def step(self) -> None:
        send, recv = self._pub.send_multipart, self._sub.recv_multipart
        for out in self._actions:
            send((out, self._said["action"]))
        for _ in range(self._devices):
            recv()
        for out in self._networks:
            send((out, self._said["network"]))
        for _ in self._grids:
            recv()


class BatchedLoop(Loop):
    """A few workers host the grids with their devices. What goes to or comes from one in one phase is one frame; the
    setpoints stay inside."""

    def __init__(self, topology: Topology, workers: int) -> None:
        self._names = [f"worker_{k}" for k in range(workers)]
        super().__init__(topology)

    def jobs(self, address: Address) -> list[Job]:
        hosted = [list(self._grids.values())[k :: len(self._names)] for k in range(len(self._names))]
        states = [self._said["state"] * sum(map(len, grids)) for grids in hosted]
        reports = [self._said["report"] * len(grids) for grids in hosted]
        placed = list(zip(self._names, hosted, strict=True))
        self._out = [
            [(channel(kind, name).encode(), self._said[kind] * len(grids)) for name, grids in placed]
            for kind in ("action", "network")
        ]
        return [(_worker, (address, *each)) for each in zip(self._names, states, reports, strict=True)]

    def hears(self) -> list[str]:
        return [channel(kind, name) for kind in ("state", "report") for name in self._names]

    def step(self) -> None:
        for frames in self._out:
            for frame in frames:
                self._pub.send_multipart(frame)
            for _ in frames:
                self._sub.recv_multipart()


def measure_bare(topology: Topology, seconds: float) -> dict[str, float]:
    """The same 27 messages a step between as many processes, through the same proxy, with no content looked at."""
    with AgentLoop(topology) as loop:
        return {**loop.measure(seconds), "reset_ms": float("nan")}


# ---- in the workers ----------------------------------------------------------------------------------------------


def _sockets(address: Address, hears: Sequence[str]) -> tuple[zmq.Context[Any], zmq.Socket[bytes], zmq.Socket[bytes]]:
    context = zmq.Context()
    pub, sub = context.socket(zmq.PUB), context.socket(zmq.SUB)
    for socket in (pub, sub):
        socket.setsockopt(zmq.LINGER, 500)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
    pub.connect(f"tcp://{address.host}:{address.publish_port}")
    sub.connect(f"tcp://{address.host}:{address.subscribe_port}")
    for name in hears:
        sub.setsockopt_string(zmq.SUBSCRIBE, name)
    return context, pub, sub


def _prove(pub: zmq.Socket[bytes], sub: zmq.Socket[bytes], me: str) -> None:
    probe = f"probe/{me}/".encode()
    sub.setsockopt(zmq.SUBSCRIBE, probe)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        pub.send_multipart((probe, b""))
        if sub.poll(20):
            sub.recv_multipart()
            sub.setsockopt(zmq.UNSUBSCRIBE, probe)  # from here on, late ones are not heard
            return
    raise TimeoutError(f"{me}: nothing comes back from the proxy")


def meet(
    address: Address, me: str, hears: Sequence[str]
) -> tuple[zmq.Context[Any], zmq.Socket[bytes], zmq.Socket[bytes]]:
    """Connect, see that both directions work, and say so."""
    context, pub, sub = _sockets(address, hears)
    _prove(pub, sub, me)
    pub.send_multipart((b"ready/env/", b""))
    return context, pub, sub


def _serve(address: Address, me: str, answers: dict[str, list[tuple[bytes, bytes]]], ignored: Sequence[str]) -> None:
    """Answer what comes on each channel with its frames, until told to stop."""
    die_with_parent()
    context, pub, sub = meet(address, me, [*answers, *ignored, "stop/"])
    frames_of = {name.encode(): frames for name, frames in answers.items()}
    while (name := sub.recv_multipart()[0]) != b"stop/":
        for frame in frames_of.get(name, ()):
            pub.send_multipart(frame)
    context.destroy(linger=0)


def _device(address: Address, device: str, state: bytes) -> None:
    _serve(address, device, {channel("setpoint", device): [(channel("state", device).encode(), state)]}, ())


def _grid(address: Address, grid: str, devices: Sequence[str], setpoint: bytes, report: bytes) -> None:
    answers = {
        channel("action", grid): [(channel("setpoint", device).encode(), setpoint) for device in devices],
        channel("network", grid): [(channel("report", grid).encode(), report)],
    }
    _serve(address, grid, answers, [channel("state", device) for device in devices])


def _worker(address: Address, name: str, states: bytes, reports: bytes) -> None:
    answers = {
        channel("action", name): [(channel("state", name).encode(), states)],
        channel("network", name): [(channel("report", name).encode(), reports)],
    }
    _serve(address, name, answers, ())
