"""Env steps per CPU-second and what they are made of, from one run: modes, resets, one more device, many copies.

``python -m benchmarks.step`` plays random actions. Every figure is the best of interleaved rounds, CPU time of all
processes together; the ZeroMQ run stands beside a bare pyzmq loop of the same messages (wall time).
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.bare import measure_bare
from benchmarks.lockstep import MODES, measure_env
from benchmarks.stub import STUB
from zgrid.environment import NetworkedGridEnv
from zgrid.topology import load
from zgrid.topology.generated import generate
from zgrid.vector import vector_env

NUMPY = {"power_flow.kind": "benchmarks.stub:NumpyPowerFlow"}
CENTRALIZED, IN_MEMORY, ZEROMQ = MODES["centralized"], MODES["in-memory"], MODES["ZeroMQ"]
MORE = 6
"""Devices added to each grid to see what one costs."""


def with_more_devices() -> dict[str, Any]:
    """3mg with more batteries in every grid, as the content of a topology file."""
    raw: dict[str, Any] = load("3mg").model_dump(mode="python")
    for grid in raw["grids"].values():
        grid["devices"] = {name: config.model_dump() for name, config in load("3mg").grids["mg_1"].devices.items()}
        for k in range(MORE):
            grid["devices"][f"ess_{k + 2}"] = {**grid["devices"]["ess_1"], "p_max_mw": 0.01, "s_rated_mva": 0.012}
    return raw


def measure_vector(copies: int, seconds: float) -> float:
    """Env steps per second of wall time of many copies of 3mg."""
    env = vector_env("3mg", copies, **{"profiles.split": "all"})
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = [
        {agent: rng.uniform(-1, 1, env.action_space(agent).shape).astype(np.float32) for agent in env.agents}
        for _ in range(10)
    ]
    env.step(actions[0])
    steps, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        for action in actions:
            env.step(action)
        steps += copies * len(actions)
    return steps / (time.perf_counter() - begin)


def profile(steps: int = 2000) -> None:
    """Print where the time of a step of 3mg goes, by cProfile."""
    env = NetworkedGridEnv("3mg", {"centralized": True, "episode_steps": 1_000_000, "profiles.split": "all"})
    env.reset(seed=0)
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    env.step(actions)
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(steps):
        env.step(actions)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("cumulative").print_stats("zgrid", 32)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step",
        description=__doc__,
        epilog="example: python -m benchmarks.step --seconds 2 --rounds 3",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per measurement (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the best of each is told (default: 3)")
    parser.add_argument("--profile", action="store_true", help="instead, where the time of a centralized step goes")
    arguments = parser.parse_args(argv)
    if arguments.profile:
        profile()
        return
    seconds, console = arguments.seconds, Console()
    large = generate(100, seed=0)
    more = with_more_devices()
    work: dict[str, Callable[[], dict[str, float]]] = {
        "3mg centralized": lambda: measure_env("3mg", CENTRALIZED, seconds),
        "3mg centralized, numpy only": lambda: measure_env("3mg", CENTRALIZED | NUMPY, seconds),
        "3mg centralized, power flow stubbed": lambda: measure_env("3mg", CENTRALIZED | STUB, seconds),
        "3mg in memory": lambda: measure_env("3mg", IN_MEMORY, seconds),
        f"3mg centralized, {3 * MORE} devices more": lambda: measure_env(more, CENTRALIZED, seconds),
        "100 microgrids centralized": lambda: measure_env(large, CENTRALIZED, seconds),
        "256 copies of 3mg": lambda: {"steps_per_s": measure_vector(256, seconds)},
        "3mg over ZeroMQ": lambda: measure_env("3mg", ZEROMQ, seconds),
        "3mg over ZeroMQ, power flow stubbed": lambda: measure_env("3mg", ZEROMQ | STUB, seconds),
        "bare pyzmq loop": lambda: measure_bare(load("3mg", ZEROMQ), seconds),
    }
    best: dict[str, dict[str, float]] = {}
    for turn in range(arguments.rounds):
        for name, measure in work.items():
            with console.status(f"round {turn + 1} of {arguments.rounds}: {name}"):
                for key, value in measure().items():
                    kept = best.setdefault(name, {}).get(key, value)
                    best[name][key] = min(kept, value) if key == "reset_ms" else max(kept, value)
    report(console, best)


def report(console: Console, best: dict[str, dict[str, float]]) -> None:
    """Print the table and what follows from it."""
    table = Table(title="steps, random actions")
    for heading in ("what", "steps per CPU-second", "steps/s", "reset, ms"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for name, row in best.items():
        figures = (row.get("steps_per_cpu_s"), row.get("steps_per_s"))
        reset = row.get("reset_ms", float("nan"))
        table.add_row(name, *("" if one is None else f"{one:,.0f}" for one in figures), f"{reset:.2f}")
    console.print(table)
    plain, memory = best["3mg centralized"]["steps_per_cpu_s"], best["3mg in memory"]["steps_per_cpu_s"]
    larger = best[f"3mg centralized, {3 * MORE} devices more"]["steps_per_cpu_s"]
    bare, bus = best["bare pyzmq loop"]["steps_per_s"], best["3mg over ZeroMQ"]["steps_per_s"]
    stubbed = best["3mg over ZeroMQ, power flow stubbed"]["steps_per_s"]
    console.print(f"in memory over centralized: {memory / plain:.2f} (mark 0.6)")
    console.print(f"one more device: {(1 / larger - 1 / plain) / (3 * MORE) * 1e6:.1f} us (mark 40)")
    console.print(f"ZeroMQ: {1e3 / bus:.2f} ms a step, {1e3 / stubbed:.2f} with a stubbed power flow, bare loop "
                  f"{1e3 / bare:.2f}: the physics adds {bare * (1 / bus - 1 / stubbed):.0%} to the bare loop, "
                  f"everything {bare / bus - 1:.0%} (mark 40 %)")  # fmt: skip


if __name__ == "__main__":
    main()
