"""Steps per second of one topology in every mode, beside a bare pyzmq loop of the same messages.

``python -m benchmarks.lockstep`` prints, from one run: centralized, in-memory and ZeroMQ (13 processes and a proxy)
with the real power flow and with a stubbed one, and the bare loop. CPU time is that of all processes together.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import zmq
from rich.console import Console
from rich.table import Table

from zgrid.encoding import encode
from zgrid.environment import NetworkedGridEnv
from zgrid.messages import Action, DeviceState, Envelope, NetworkState, Report, Setpoint, channel
from zgrid.messaging import Address
from zgrid.session import Session
from zgrid.topology import Topology, load

STUB = {"power_flow.kind": "benchmarks.stub:FlatPowerFlow"}
MODES: dict[str, dict[str, Any]] = {
    "centralized": {"centralized": True},
    "in-memory": {"centralized": False, "message_broker": "in_memory"},
    "ZeroMQ": {"centralized": False, "message_broker": "zmq"},
}


def cpu_s(pids: Sequence[int]) -> float:
    """CPU seconds that processes have used so far."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure_env(topology: str, overrides: dict[str, Any], seconds: float) -> dict[str, float]:
    """Steps per second and per CPU second of an env under random actions, and the median reset in ms."""
    env = NetworkedGridEnv(topology, {**overrides, "episode_steps": 1_000_000, "profiles.split": "all"})
    try:
        env.reset(seed=0)
        spaces = [env.action_space(agent) for agent in env.agents]
        actions = [dict(zip(env.agents, (space.sample() for space in spaces), strict=True)) for _ in range(50)]
        for action in actions[:20]:
            env.step(action)
        session = getattr(env._execution, "_session", None)
        pids = [os.getpid(), *(p.popen.pid for p in session.processes.values())] if session else [os.getpid()]
        steps, begin, cpu = 0, time.perf_counter(), cpu_s(pids)
        while time.perf_counter() - begin < seconds:
            for action in actions:
                env.step(action)
            steps += len(actions)
        elapsed, used = time.perf_counter() - begin, cpu_s(pids) - cpu
        return {"steps_per_s": steps / elapsed, "steps_per_cpu_s": steps / used, "reset_ms": _median_reset_ms(env)}
    finally:
        env.close()


def _median_reset_ms(env: NetworkedGridEnv) -> float:
    times = []
    for _ in range(30):
        begin = time.perf_counter()
        env.reset()
        times.append((time.perf_counter() - begin) * 1e3)
    return float(np.median(times))


# ---- the bare loop -----------------------------------------------------------------------------------------------


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
    while True:
        pub.send_multipart((probe, b""))
        if sub.poll(20):
            sub.recv_multipart()
            return


def _bare_device(address: Address, device: str, body: bytes) -> None:
    context, pub, sub = _sockets(address, [channel("setpoint", device), "stop/"])
    _prove(pub, sub, device)
    out = channel("state", device).encode()
    pub.send_multipart((b"ready/env/", b""))
    while True:
        name = sub.recv_multipart()[0]
        if name.startswith(b"setpoint"):
            pub.send_multipart((out, body))
        elif name.startswith(b"stop"):
            break
    context.destroy(linger=0)


def _bare_grid(address: Address, grid: str, devices: Sequence[str], setpoint: bytes, report: bytes) -> None:
    hears = [channel("action", grid), channel("network", grid), *(channel("state", d) for d in devices), "stop/"]
    context, pub, sub = _sockets(address, hears)
    _prove(pub, sub, grid)
    outs = [channel("setpoint", device).encode() for device in devices]
    answer = channel("report", grid).encode()
    pub.send_multipart((b"ready/env/", b""))
    while True:
        name = sub.recv_multipart()[0]
        if name.startswith(b"action"):
            for out in outs:
                pub.send_multipart((out, setpoint))
        elif name.startswith(b"network"):
            pub.send_multipart((answer, report))
        elif name.startswith(b"stop"):
            break
    context.destroy(linger=0)


def _bodies(topology: Topology) -> dict[str, bytes]:
    """One real message of each kind of a step, encoded."""
    env = NetworkedGridEnv(topology, {**STUB, "centralized": True})
    env.reset(seed=0)
    env.step(dict.fromkeys(env.agents))
    outcome = env._outcome
    assert outcome is not None
    report = outcome.reports[0]
    network = NetworkState(True, (13, 9, 2), np.ones(24), 0.5, 0.1, 0.0, 0.0, (1.0,) * 3, (1.0,) * 6, (0.0, 1.0))
    bodies = {
        "action": Action((0.1,) * len(topology.grid_specs[0].controls)),
        "setpoint": Setpoint((0.1, 0.0, 1.0), (0.5,)),
        "state": DeviceState(0.1, 0.0, 1.0, 0.0, (0.5,)),
        "network": network,
        "report": Report(report.reward, report.terms, report.observation),
    }
    return {
        kind: encode(Envelope("mg_1.dg_1", "0" * 32, 0, 100_000, 100_000, 0, time.time_ns(), body))
        for kind, body in bodies.items()
    }


def measure_bare(topology: Topology, seconds: float) -> dict[str, float]:
    """The same 27 messages a step between as many processes, through the same proxy, with no content looked at."""
    bodies = _bodies(topology)
    session = Session(topology)
    address = session.start_proxy()
    grids = {spec.id: [device.id for device in spec.devices] for spec in topology.grid_specs}
    spawn = multiprocessing.get_context("spawn")
    workers = []
    for grid, devices in grids.items():
        workers.append(
            spawn.Process(target=_bare_grid, args=(address, grid, devices, bodies["setpoint"], bodies["report"]))
        )
        workers += [spawn.Process(target=_bare_device, args=(address, device, bodies["state"])) for device in devices]
    for worker in workers:
        worker.start()
    hears = ["ready/env/", *(channel("report", grid) for grid in grids)]
    hears += [channel("state", device) for devices in grids.values() for device in devices]
    context, pub, sub = _sockets(address, hears)
    _prove(pub, sub, "env")
    for _ in workers:
        sub.recv_multipart()
    pids = [os.getpid(), session.processes["broker"].popen.pid, *(worker.pid or 0 for worker in workers)]
    actions = [channel("action", grid).encode() for grid in grids]
    networks = [channel("network", grid).encode() for grid in grids]
    count = sum(len(devices) for devices in grids.values())
    steps, begin, cpu = 0, time.perf_counter(), cpu_s(pids)
    while time.perf_counter() - begin < seconds:
        for out in actions:
            pub.send_multipart((out, bodies["action"]))
        for _ in range(count):
            sub.recv_multipart()
        for out in networks:
            pub.send_multipart((out, bodies["network"]))
        for _ in grids:
            sub.recv_multipart()
        steps += 1
    elapsed, used = time.perf_counter() - begin, cpu_s(pids) - cpu
    pub.send_multipart((b"stop/", b""))
    for worker in workers:
        worker.join(5.0)
        if worker.is_alive():
            worker.kill()
    context.destroy(linger=0)
    session.stop()
    return {"steps_per_s": steps / elapsed, "steps_per_cpu_s": steps / used, "reset_ms": float("nan")}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lockstep",
        description=__doc__,
        epilog="example: python -m benchmarks.lockstep --seconds 5",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", default="3mg", help="topology (default: 3mg)")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds per measurement (default: 5)")
    parser.add_argument("--repeat", type=int, default=3, help="interleaved repetitions; the median of each is told")
    arguments = parser.parse_args(argv)
    console = Console()
    results: dict[str, list[dict[str, float]]] = {}
    flows: dict[str, dict[str, Any]] = {"fast": {}, "runpp": {"power_flow.kind": "runpp"}, "stubbed": STUB}
    cases = [
        (f"{mode}, {flow}", overrides | extra) for flow, extra in flows.items() for mode, overrides in MODES.items()
    ]
    for repetition in range(arguments.repeat):
        for name, overrides in cases:
            with console.status(f"{repetition + 1}/{arguments.repeat}: {name}"):
                results.setdefault(name, []).append(measure_env(arguments.file, overrides, arguments.seconds))
        with console.status(f"{repetition + 1}/{arguments.repeat}: bare pyzmq loop"):
            bare = measure_bare(load(arguments.file, MODES["ZeroMQ"]), arguments.seconds)
            results.setdefault("bare pyzmq loop, 13 processes", []).append(bare)
    table = Table(title=f"lockstep, {arguments.file}, {arguments.seconds:g} s each, median of {arguments.repeat}")
    for heading in ("what", "steps/s", "steps per CPU-second", "reset ms"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    medians = {name: _median(rows) for name, rows in results.items()}
    for name, row in medians.items():
        table.add_row(name, f"{row['steps_per_s']:,.0f}", f"{row['steps_per_cpu_s']:,.0f}", f"{row['reset_ms']:.2f}")
    console.print(table)
    ratio = medians["ZeroMQ, stubbed"]["steps_per_s"] / medians["bare pyzmq loop, 13 processes"]["steps_per_s"]
    console.print(f"ZeroMQ with a stubbed power flow over the bare loop: {ratio:.2f}")


def _median(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.median([row[key] for row in rows])) for key in rows[0]}


if __name__ == "__main__":
    main()
