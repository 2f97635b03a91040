"""The broker node: the ZeroMQ proxy that all others connect to."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from nodes.common import parser, run, topology_of
from zgrid.lifeline import read_topology_line, watch_parent
from zgrid.messaging import Address, is_port, run_proxy


def _main(arguments: argparse.Namespace) -> None:
    if arguments.file == "-":
        broker = json.loads(read_topology_line())[
            "broker"
        ]  # checked by the parent; the rest is not the proxy's concern
        watch_parent()
        run_proxy(broker["host"], arguments.ports or broker["ports"], _tell_parent)
    else:
        config = topology_of(arguments).broker
        run_proxy(config.host, arguments.ports or config.ports, _tell_person)


def _tell_parent(address: Address) -> None:
    print(json.dumps({"address": str(address)}), flush=True)


def _tell_person(address: Address) -> None:
    print(f"broker: listening; start the other nodes with --connect {address}", flush=True)


def _ports(text: str) -> tuple[int, int]:
    first, _, second = text.partition(",")
    if not (is_port(first) and is_port(second)):
        raise argparse.ArgumentTypeError(f"expected two ports from 1 to 65535, got {text!r}")
    return int(first), int(second)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the proxy until it is ended."""
    made = parser(
        "broker", "Run the ZeroMQ proxy.", "python -m nodes.broker topologies/3mg.yaml --ports 5555,5556", checks=False
    )
    made.add_argument(
        "--ports", metavar="PORT,PORT", type=_ports, help="default: broker.ports of FILE, or any free ones"
    )
    return run(_main, made.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
