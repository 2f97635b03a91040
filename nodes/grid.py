"""A grid node: one GridAgent in a process of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nodes.common import add_connect, address_of, finish_before_others, parser, run, topology_of
from zgrid.node import serve


def _main(arguments: argparse.Namespace) -> None:
    topology = topology_of(arguments)
    finish_before_others()
    serve(topology, arguments.id, address_of(arguments, topology))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until the env says that the run is over."""
    example = "python -m nodes.grid topologies/3mg.yaml mg_1 --connect 127.0.0.1:5555,5556"
    made = parser("grid", "Run one grid agent.", example, checks=False)
    made.add_argument("id", metavar="ID", help="id of the grid, as in mg_1")
    add_connect(made)
    return run(_main, made.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
