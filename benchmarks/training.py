"""Train MAPPO centralized, by messages in memory and over ZeroMQ, with one seed: the same curve, and what it costs.

python -m benchmarks.training
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import statistics
import sys
import time
import warnings
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from zgrid.errors import ZgridError

MODES: dict[str, dict[str, Any]] = {
    "centralized": {"centralized": True},
    "in_memory": {"centralized": False, "message_broker": "in_memory"},
    "zmq": {"centralized": False, "message_broker": "zmq"},
}
PACKAGES = ("zgrid", "ray", "torch", "numpy", "pyzmq", "pandapower", "numba")


class Run:
    """One mode: its trainer, its curve and what its iterations took."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.curve: list[float] = []
        self.seconds: list[float] = []

    def train(self) -> None:
        """One iteration."""
        begin = time.perf_counter()
        self.curve.append(self.trainer.train())
        self.seconds.append(time.perf_counter() - begin)

    def digest(self) -> str:
        """SHA-256 over the curve and all weights, to the bit."""
        sha = hashlib.sha256(np.array(self.curve).tobytes())
        for name, value in sorted(self.trainer.weights().items()):
            sha.update(name.encode())
            sha.update(value.numpy().tobytes())
        return sha.hexdigest()


def measure(topology: str, iterations: int, seed: int, epochs: int, minibatch: int) -> dict[str, Any]:
    """All modes, an iteration each in turn, so that what else the machine does falls on all alike."""
    from zgrid.rl.rllib import Settings, Trainer
    from zgrid.topology import load

    warnings.filterwarnings("ignore", message=".*Overriding environment")  # RLlib registers one for each trainer
    settings = Settings(epochs=epochs, minibatch=minibatch)
    with ExitStack() as stack:
        runs = {
            mode: Run(stack.enter_context(Trainer(load(topology, keys), settings, seed)))
            for mode, keys in MODES.items()
        }
        for iteration in range(iterations):
            for run in runs.values():
                run.train()
            told = "   ".join(f"{mode} {run.seconds[-1]:5.2f} s" for mode, run in runs.items())
            first = next(iter(runs.values())).curve[-1]
            print(f"{iteration + 1:4d} of {iterations}   {first:10.2f} $/day   {told}", file=sys.stderr, flush=True)
        processes = len(runs["zmq"].trainer.topology.runs()) + 1
        return {
            "topology": topology, "iterations": iterations, "seed": seed, "processes": processes,
            "epochs": epochs, "minibatch": minibatch,
            "env_steps": next(iter(runs.values())).trainer.env_steps // iterations,
            "modes": {
                mode: {"digest": run.digest(), "curve": run.curve, "seconds": run.seconds} for mode, run in runs.items()
            },
        }  # fmt: skip


def report(measured: dict[str, Any]) -> str:
    """The table, in Markdown. The first iteration warms up and is not counted."""
    modes = measured["modes"]
    base = modes["centralized"]["seconds"][1:]
    lines = [
        "| mode | first | last | s per iteration | over centralized | curve and weights |",
        "|---|---|---|---|---|---|",
    ]
    for mode, run in modes.items():
        seconds = run["seconds"][1:]
        ratio = statistics.median(own / other for own, other in zip(seconds, base, strict=True))
        lines.append(
            f"| {mode} | {run['curve'][0]:.2f} | {run['curve'][-1]:.2f} | {statistics.median(seconds):.2f} "
            f"| {ratio:.3f} | {run['digest'][:12]} |"
        )
    same = len({run["digest"] for run in modes.values()}) == 1
    lines += [
        "",
        f"{measured['iterations']} iterations of {measured['env_steps']} env steps, "
        f"{measured['epochs']} epochs, minibatches of {measured['minibatch']}, seed {measured['seed']}; returns "
        "in $ per day over all grids; medians, ratios paired by iteration; ZeroMQ: "
        f"{measured['processes']} processes beside the trainer's. "
        f"Curves and weights are {'equal to the bit' if same else 'DIFFERENT'}.",
        "",
        f"{platform.machine()}, {_cores()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{package} {_version(package)}" for package in PACKAGES),
    ]
    return "\n".join(lines)


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> int:
    """Measure and tell; exit code 1 where the curves differ."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description="Train MAPPO in all three modes with one seed: equal curves, and the time of an iteration of each.",
        epilog="example: python -m benchmarks.training --iterations 20 --out training.json",
    )
    parser.add_argument("topology", nargs="?", default="3mg", help="topology file or shipped name (default: 3mg)")
    parser.add_argument("--iterations", type=int, default=30, help="of 42 days each (default: 30)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=30, help="of PPO (default: 30, as RLlib's)")
    parser.add_argument("--minibatch", type=int, default=128, help="steps of a grid (default: 128, as RLlib's)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write everything as JSON")
    arguments = parser.parse_args()
    if arguments.iterations < 2:
        parser.error("--iterations: expected at least 2, the first warms up")
    try:
        from zgrid.rl import needs

        needs("rllib")
        measured = measure(
            arguments.topology, arguments.iterations, arguments.seed, arguments.epochs, arguments.minibatch
        )
    except ZgridError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report(measured))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    return 0 if len({run["digest"] for run in measured["modes"].values()}) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
