"""How long it takes to notice a failure, to get over it, and to end a run.

``python -m benchmarks.failures`` kills or stops (SIGSTOP) each role of the three-microgrid case between two steps, and
tells the seconds until the next step has raised its error, or has ended with a successor or a stand-in; the median of
some repetitions. Nothing else is disturbed.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from zgrid.environment import NetworkedGridEnv
from zgrid.errors import ZgridError

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP}
NODES = {"device": "mg_1.dg_1", "grid": "mg_1", "proxy": "broker"}
KEYS = {
    "device": "grids.mg_1.devices.dg_1.on_failure",
    "grid": "grids.mg_1.on_failure",
    "proxy": "broker.on_failure",
}


def measure(role: str, sent: str, policy: str) -> tuple[float, float]:
    """Seconds until the step after the fault is over, in whatever way, and of the end of the run."""
    overrides: dict[str, Any] = {"centralized": False, "message_broker": "zmq", KEYS[role]: policy}
    env = NetworkedGridEnv("3mg", overrides)
    try:
        env.reset(seed=0)
        env.step(dict.fromkeys(env.agents))
        session = getattr(env._execution, "_session")  # noqa: B009 - benchmarks look inside
        os.kill(session.processes[NODES[role]].popen.pid, SIGNALS[sent])
        begin = time.perf_counter()
        try:
            env.step(dict.fromkeys(env.agents))
            survived = True
        except ZgridError:
            survived = False
        noticed = time.perf_counter() - begin
        assert survived == (policy != "fail"), (role, sent, policy)
    finally:
        begin = time.perf_counter()
        env.close()
    return noticed, time.perf_counter() - begin


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.failures",
        description=__doc__,
        epilog="example: python -m benchmarks.failures --repeat 3",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeat", type=int, default=3, help="repetitions; the median is told (default: 3)")
    arguments = parser.parse_args(argv)
    logging.getLogger("zgrid").setLevel(logging.ERROR)
    console = Console()
    table = Table(title=f"3mg, 13 processes, median of {arguments.repeat}")
    for heading in ("who", "fault", "declared", "step is over after, s", "run ends in, s"):
        table.add_column(heading, justify="right" if ", s" in heading else "left")
    for role in NODES:
        for sent in SIGNALS:
            for policy in ("fail", "restart", *(("fallback",) if role != "proxy" else ())):
                with console.status(f"{role}, {sent}, {policy}"):
                    rows = np.array([measure(role, sent, policy) for _ in range(arguments.repeat)])
                noticed, ended = np.median(rows, axis=0)
                table.add_row(role, sent, policy, f"{noticed:.2f}", f"{ended:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
