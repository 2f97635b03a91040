"""What every node's command line shares."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from zgrid.errors import TopologyError, ZgridError
from zgrid.lifeline import Signs, read_topology_line, watch_parent
from zgrid.messaging import Address

if TYPE_CHECKING:
    from zgrid.topology import Topology

BAD_INPUT = 2
FAILED = 1
_NODES_PER_CORE = 2


def parser(kind: str, what: str, example: str, *, checks: bool) -> argparse.ArgumentParser:
    """The arguments that all nodes take. ``checks``: whether this node needs the networks and time series of FILE."""
    made = argparse.ArgumentParser(
        prog=f"python -m nodes.{kind}",
        description=what,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("file", metavar="FILE", help="topology file, the same for all nodes; - : from a parent process")
    made.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override a key; repeatable")
    made.add_argument("--keys", metavar="FOLDER", help="folder of keys (zgrid keys); default: broker.keys of FILE")
    made.set_defaults(checks=checks)
    made.add_argument("--verbose", action="store_true", help="log what happens")
    return made


def add_connect(made: argparse.ArgumentParser) -> None:
    """Where the proxy is."""
    made.add_argument(
        "--connect", metavar="HOST:PORT,PORT", help="the proxy; default: broker.host and broker.ports of FILE"
    )


def topology_of(arguments: argparse.Namespace) -> Topology:
    """The topology a node was started with.

    Raises:
        TopologyError: it cannot run.
    """
    from zgrid.topology import load, parse_overrides  # the proxy starts sooner without

    if arguments.file == "-":
        raw: dict[str, Any] = json.loads(read_topology_line())
        watch_parent()
        return load(raw, checked=False)
    overrides = parse_overrides(arguments.set)
    if arguments.keys is not None:
        overrides["broker.keys"] = os.path.abspath(arguments.keys)
    return load(arguments.file, overrides, checked=arguments.checks)


def address_of(arguments: argparse.Namespace, topology: Topology) -> Address:
    """The proxy's address, from the command line or the topology.

    Raises:
        BrokerError: not HOST:PORT,PORT.
        ZgridError: neither says it.
    """
    if arguments.connect is not None:
        return Address.parse(arguments.connect)
    if topology.broker.ports is None:
        raise ZgridError("no --connect HOST:PORT,PORT, and the topology has no broker.ports")
    return Address(topology.broker.host, *topology.broker.ports)


def finish_before_others() -> None:
    """Do not interrupt a running process when a message wakes this one (Linux).

    In lockstep nobody is in a hurry: a node that sleeps until a core is free finds several messages at once. With many
    more nodes than cores that makes steps about a tenth faster; with few it gains nothing, and beside other programs
    they would wait for those.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return
    with suppress(OSError):  # a sandbox may forbid it; it is only for speed
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def agent_main(kind: str, example_id: str, argv: Sequence[str] | None) -> int:
    """Run a node that hosts one agent, until the env says that the run is over."""
    example = f"python -m nodes.{kind} topologies/3mg.yaml {example_id} --connect 127.0.0.1:5555,5556"
    made = parser(kind, f"Run one {kind} agent.", example, checks=False)
    made.add_argument("id", metavar="NODE", help=f"its name: its agent's, as in {example_id}, or pool_1 of a pool")
    add_connect(made)
    made.add_argument("--signs", type=int, metavar="FD", help=argparse.SUPPRESS)  # from a parent that wants to know
    return run(_host_agent, made.parse_args(argv))


def _host_agent(arguments: argparse.Namespace) -> None:
    from zgrid.node import serve
    from zgrid.topology.nodes import node_plans

    topology = topology_of(arguments)
    if len(node_plans(topology)) > _NODES_PER_CORE * (os.cpu_count() or 1):
        finish_before_others()
    serve(topology, arguments.id, address_of(arguments, topology), Signs(arguments.signs))


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM unwinds, so that an env node can still tell everybody that the run is over."""
    raise SystemExit(128 + number)


def run(main: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> int:
    """Run a node's main function; errors become a line on standard error and an exit code."""
    sys.path.insert(0, os.getcwd())
    level = logging.INFO if arguments.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _leave)
    try:
        main(arguments)
    except TopologyError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except ZgridError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130
    return 0
