"""CPU time of one solve, ``fast`` beside ``runpp``, on the same cases in one run: set injections, solve, read results.

``python -m benchmarks.powerflow`` takes random injections within what the topology's devices can do, and the loads of
random rows of its data. Backends take turns, so that a noisy machine is noisy for all; the best of the rounds is told.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from zgrid.powerflow import PowerFlow, kernels
from zgrid.powerflow.fast import FastPowerFlow
from zgrid.powerflow.runpp import RunppPowerFlow
from zgrid.topology import load
from zgrid.topology.generated import generate
from zgrid.world import World

MARKS = {("3mg", "fast, numpy"): 100, ("3mg", "fast, numba"): 300, ("100 microgrids", "fast, numba"): 80}


def cases(world: World, count: int) -> list[tuple[Any, ...]]:
    """Injections of a quarter of the rating at most, and loads of random hours."""
    rng = np.random.default_rng(0)
    n = world.network.n_devices
    rows = rng.integers(0, world.calendar.n_rows, count)
    return [(rng.uniform(-0.05, 0.1, n), rng.uniform(-0.05, 0.05, n), world.load_scale(row)) for row in rows]


def cpu_us(flow: PowerFlow, drawn: Sequence[tuple[Any, ...]]) -> float:
    """CPU time of a solve, microseconds."""
    begin = time.process_time()
    for case in drawn:
        flow.set_injections(*case)
        flow.solve()
    return (time.process_time() - begin) / len(drawn) * 1e6


def measure(topology: Any, rounds: int) -> tuple[str, dict[str, float], int]:
    """What the default power flow says of itself, CPU microseconds a solve by backend, and how many cases diverged."""
    world = World(load(topology))
    flows: dict[str, PowerFlow] = {
        "runpp": RunppPowerFlow(world.network),
        "fast, numpy": FastPowerFlow(world.network, use_numba=False),
    }
    if kernels.AVAILABLE:
        flows["fast, numba"] = FastPowerFlow(world.network, use_numba=True)
    drawn = cases(world, 200)
    best = dict.fromkeys(flows, np.inf)
    for _ in range(rounds):
        for name, flow in flows.items():
            best[name] = min(best[name], cpu_us(flow, drawn[:10] if name == "runpp" else drawn))
    diverged = 0
    for case in drawn:
        flows["fast, numpy"].set_injections(*case)
        diverged += not flows["fast, numpy"].solve().converged
    return FastPowerFlow(world.network).describe(), best, diverged


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.powerflow",
        description=__doc__,
        epilog="example: python -m benchmarks.powerflow --rounds 5",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the best of each is told (default: 5)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[10, 100], help="microgrids of generated networks")
    arguments = parser.parse_args(argv)
    console = Console()
    table = Table(title="one solve, CPU time", caption="over: how many times as fast as runpp")
    for heading in ("network, default method", "backend", "us", "over", "mark", "diverged"):
        table.add_column(heading, justify="right" if heading in ("us", "over", "mark") else "left")
    topologies: dict[str, Any] = {name: name for name in ("3mg", "33bw", "ieee123", "cigre_mv")}
    topologies |= {f"{n} microgrids": generate(n, seed=0) for n in arguments.sizes}
    for name, topology in topologies.items():
        with console.status(name):
            method, best, diverged = measure(topology, arguments.rounds)
        for backend, us in best.items():
            mark = MARKS.get((name, backend))
            first = f"{name}: {method}" if backend == "runpp" else ""
            row = (first, backend, f"{us:,.0f}", f"{best['runpp'] / us:,.0f}", f"{mark}" if mark else "")
            table.add_row(*row, str(diverged))
        table.add_section()
    console.print(table)


if __name__ == "__main__":
    main()
