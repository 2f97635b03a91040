"""The env node: owns the power flow and plays episodes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nodes.common import add_connect, address_of, parser, run, topology_of
from zgrid.environment import NetworkedGridEnv
from zgrid.play import Plan, play
from zgrid.view import ConsoleView, JsonView, View


def _main(arguments: argparse.Namespace) -> None:
    topology = topology_of(arguments)
    view: View = JsonView(sys.stdout) if arguments.file == "-" else ConsoleView(topology, quiet=arguments.quiet)
    plan = Plan(arguments.episodes, arguments.steps, topology.seed, arguments.out)
    with view:
        address = address_of(arguments, topology)
        env = NetworkedGridEnv(topology, connect=address, on_ready=view.ready, on_silent=view.silent)
        view.checked()
        try:
            play(env, plan, view)
        finally:
            env.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the env until its episodes are played."""
    example = "python -m nodes.env topologies/3mg.yaml --connect 127.0.0.1:5555,5556 --episodes 7"
    made = parser("env", "Run the env: power flow and episodes.", example, checks=True)
    add_connect(made)
    add_plan(made)
    return run(_main, made.parse_args(argv))


def add_plan(made: argparse.ArgumentParser) -> None:
    """What to play."""
    made.add_argument("--episodes", metavar="N", type=int, default=None, help="episodes to play (default: 7)")
    made.add_argument("--steps", metavar="N", type=int, default=None, help="stop after N steps in all")
    made.add_argument(
        "--out", metavar="DIR", type=Path, default=None, help="write summary.json, steps.csv and day.png to DIR"
    )
    made.add_argument("--quiet", action="store_true", help="print nothing but errors")


if __name__ == "__main__":
    sys.exit(main())
