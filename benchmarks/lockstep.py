"""Steps per second of one topology in every mode, beside a bare pyzmq loop of the same messages.

``python -m benchmarks.lockstep`` prints, from one run: centralized, in-memory and ZeroMQ (13 processes and a proxy)
with the real power flow and with a stubbed one, and the bare loop. CPU time is that of all processes together.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.bare import measure_bare, rate
from benchmarks.stub import STUB
from zgrid.environment import NetworkedGridEnv
from zgrid.topology import load

MODES: dict[str, dict[str, Any]] = {
    "centralized": {"centralized": True},
    "in-memory": {"centralized": False, "message_broker": "in_memory"},
    "ZeroMQ": {"centralized": False, "message_broker": "zmq"},
}


class EnvLoop:
    """An environment that plays random actions."""

    def __init__(self, topology: Any, overrides: dict[str, Any]) -> None:
        self._env = NetworkedGridEnv(topology, {**overrides, "episode_steps": 1_000_000, "profiles.split": "all"})
        try:
            self._env.reset(seed=0)
            spaces = {agent: self._env.action_space(agent) for agent in self._env.agents}
            self._actions = [{agent: space.sample() for agent, space in spaces.items()} for _ in range(50)]
            for action in self._actions[:20]:
                self._env.step(action)
        except BaseException:
            self._env.close()
            raise
        session = getattr(self._env._execution, "_session", None)
        children = session.processes.values() if session else ()
        self._pids = [os.getpid(), *(child.popen.pid for child in children)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def measure(self, seconds: float) -> dict[str, float]:
        """Steps per second and per CPU second."""
        return rate(self._pids, seconds, self._some)

    def median_reset_ms(self) -> float:
        """How long a reset takes."""
        times = []
        for _ in range(30):
            begin = time.perf_counter()
            self._env.reset()
            times.append((time.perf_counter() - begin) * 1e3)
        return float(np.median(times))

    def close(self) -> None:
        """End the environment and its processes."""
        self._env.close()

    def _some(self) -> int:
        for action in self._actions:
            self._env.step(action)
        return len(self._actions)


def measure_env(topology: Any, overrides: dict[str, Any], seconds: float) -> dict[str, float]:
    """Steps per second and per CPU second of an env under random actions, and the median reset in ms."""
    with EnvLoop(topology, overrides) as loop:
        return {**loop.measure(seconds), "reset_ms": loop.median_reset_ms()}


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
