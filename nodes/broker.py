"""The broker node: the ZeroMQ proxy that all others connect to."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nodes.common import parser, run, topology_of
from zgrid.errors import Finding, TopologyError
from zgrid.lifeline import read_topology_line, watch_parent
from zgrid.messaging import Address, is_port, run_checking_proxy, run_proxy

if TYPE_CHECKING:
    from zgrid.topology import Source, Topology


def _main(arguments: argparse.Namespace) -> None:
    if arguments.file == "-":
        raw = json.loads(read_topology_line())
        broker = raw["broker"]  # checked by the parent; without keys the rest is not the proxy's concern
        watch_parent()
        ports = arguments.ports or broker["ports"]
        if broker["keys"] is None:
            run_proxy(broker["host"], ports, _tell_parent)
        else:
            _run_checking(raw, ports, _tell_parent)
    else:
        topology = topology_of(arguments)
        ports = arguments.ports or topology.broker.ports
        if topology.broker.keys is None:
            _refuse_to_be_open(topology)
            run_proxy(topology.broker.host, ports, _tell_person)
        else:
            _run_checking(topology, ports, _tell_person)


def _run_checking(source: Source, ports: tuple[int, int] | None, tell: Callable[[Address], None]) -> None:
    """Run the proxy that knows who may say and hear what."""
    from zgrid.topology import load
    from zgrid.topology.traffic import rights

    topology = load(source, checked=False)
    assert topology.broker.keys is not None
    run_checking_proxy(topology.broker.host, ports, tell, Path(topology.broker.keys), rights(topology))


def _refuse_to_be_open(topology: Topology) -> None:
    """No address that others reach, without keys.

    Raises:
        TopologyError: it is one.
    """
    from zgrid.topology import may_bind, open_bind

    if not may_bind(topology.broker):
        raise TopologyError(topology.name, [Finding("broker.host", open_bind(topology.broker.host))])


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
