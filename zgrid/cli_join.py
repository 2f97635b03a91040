"""``zgrid join``: start all nodes of this machine, for a run whose proxy and env are on another."""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from zgrid.child import Process
from zgrid.command import BAD_INPUT, FAILED, INTERRUPTED, OK, TERMINATED, Terminated, sigterm_raises, tell
from zgrid.errors import BrokerError, Finding, TopologyError, ZgridError
from zgrid.machines import ANY, is_here, is_loopback, resolve
from zgrid.messaging import Address, credentials_of
from zgrid.session import Session
from zgrid.topology import Topology, load, parse_overrides
from zgrid.topology.nodes import node_plans

_LOOK_S = 0.1
_PAUSE_S = 2.0
_FOR_EVER_S = 1e9


def add_join(commands: Any) -> None:
    """The command and its arguments."""
    made = commands.add_parser(
        "join",
        help="start the nodes of this machine, for a run on another",
        description="Start every node whose host is this machine, and end with the run. What they log is shown. Needs "
        "neither pandapower nor PettingZoo, nor the files of time series and policies of devices.",
        epilog="example: zgrid join my.yaml --connect 192.0.2.10:5555,5556 --keys keys --forever",
    )
    made.add_argument("file", metavar="FILE", help="topology file, the same as where the run is started")
    made.add_argument(
        "--connect", metavar="HOST:PORT,PORT", help="the proxy; default: broker.host and broker.ports of FILE"
    )
    made.add_argument("--host", metavar="HOST", help="be this machine of FILE; default: whose address is one of ours")
    made.add_argument("--keys", metavar="FOLDER", help="folder of keys (zgrid keys); default: broker.keys of FILE")
    made.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override a key; repeatable")
    made.add_argument("--forever", action="store_true", help="wait for the next run when one is over, or not there yet")


def join(arguments: argparse.Namespace) -> int:
    """Start the nodes of this machine and wait for their end; the exit code."""
    try:
        topology = load(arguments.file, _overrides(arguments), checked=False)
        names = nodes_of(topology, arguments.host)
        address = _address(arguments.connect, topology)
        for name in names:
            credentials_of(topology.broker.keys, name)  # say now what is missing, of any of them
        with sigterm_raises():
            well = _take_part(topology, names, address)
            while arguments.forever:
                if not well:
                    time.sleep(_PAUSE_S)  # a proxy that refuses is not asked all the time
                well = _take_part(topology, names, address)
    except TopologyError as error:
        return tell(str(error), BAD_INPUT)
    except ZgridError as error:
        return tell(f"error: {error}", BAD_INPUT)
    except KeyboardInterrupt:
        return tell("interrupted; all nodes of this machine have ended", INTERRUPTED)
    except Terminated:
        return tell("terminated; all nodes of this machine have ended", TERMINATED)
    return OK if well else FAILED


def nodes_of(topology: Topology, host: str | None) -> list[str]:
    """The nodes of one machine, None: of this one.

    Raises:
        TopologyError: it has none.
    """
    plans = node_plans(topology)
    names = [name for name, plan in plans.items() if plan.host is not None and _is_meant(plan.host, host)]
    if not names:
        known = ", ".join(sorted({plan.host for plan in plans.values() if plan.host is not None})) or "nobody's"
        what = f"no node has the host {host}" if host is not None else "no node has a host that is this machine"
        raise TopologyError(topology.name, [Finding("host", f"{what}; the topology names {known}")])
    return names


def _is_meant(named: str, host: str | None) -> bool:
    """Whether a host of the topology is the machine to be; a loopback address is the env's own machine."""
    if host is None:
        return not is_loopback(named) and is_here(named)
    return named == host or (resolve(named) or named) == resolve(host)


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    overrides: dict[str, Any] = parse_overrides(arguments.set)
    if arguments.keys is not None:
        overrides["broker.keys"] = os.path.abspath(arguments.keys)
    if arguments.forever:
        overrides["broker.ready_timeout_s"] = _FOR_EVER_S
    return overrides


def _address(given: str | None, topology: Topology) -> Address:
    """Where the proxy is.

    Raises:
        BrokerError: not HOST:PORT,PORT, or nobody says it.
    """
    if given is not None:
        return Address.parse(given)
    host, ports = topology.broker.host, topology.broker.ports
    if ports is None or host == ANY or is_loopback(host):
        raise BrokerError("where is the proxy? Give --connect HOST:PORT,PORT; the command that starts the run tells it")
    return Address(host, *ports)


def _take_part(topology: Topology, names: Sequence[str], address: Address) -> bool:
    """Start the nodes, show what they log, and wait until all have ended; whether all were told that the run is over.

    Those with ``on_failure: restart`` are begun anew, if they have taken part and as long as no other was told that the
    run is over; of the rest it is the env's to decide.
    """
    session = Session(topology, lenient=True)
    try:
        for name in names:
            session.start_agent(name, address, "--verbose")
            _say(name, f"pid {session.processes[name].popen.pid}; connecting to {address}")
        _follow(session)
        return all(process.popen.returncode == 0 for process in session.processes.values())
    finally:
        session.stop()


def _follow(session: Session) -> None:
    """Show what the processes write until the last has ended, and begin anew those that may."""
    shown: dict[Process, int] = {}
    running = list(session.processes)
    while running and not _are_left_behind(session, running):
        looked_at = [session.processes[name] for name in running]
        waits = next((process for process in looked_at if process.popen.poll() is None), None)
        if waits is None:
            time.sleep(_LOOK_S)
        else:
            with suppress(subprocess.TimeoutExpired):
                waits.popen.wait(_LOOK_S)
        ended = [process for process in looked_at if process.popen.poll() is not None]
        for process in looked_at:
            shown[process] = _show(process, shown.get(process, 0))
        for name in session.supervise():
            if session.processes[name].due is not None:
                _say(name, f"{session.causes[name]}; it begins anew")
        for process in ended:
            if session.processes[process.name] is process and process.due is None and process.may_end:
                _say(process.name, f"ended with code {process.popen.returncode}; it is not begun anew")
                running.remove(process.name)
            elif process.popen.returncode == 0:
                _say(process.name, "the run is over")
                running.remove(process.name)


def _are_left_behind(session: Session, running: Sequence[str]) -> bool:
    """Whether the run is over, and those that still run are stopped or hang and will not hear of it."""
    return session.is_over and all(session.processes[name].may_end for name in running)


def _show(process: Process, start: int) -> int:
    """Print the lines a process has written since ``start``; where they end."""
    fd = process.log.fileno()
    text = os.pread(fd, os.fstat(fd).st_size - start, start)
    whole = text[: text.rfind(b"\n") + 1] if process.popen.returncode is None else text
    for line in whole.decode(errors="replace").splitlines():
        _say(process.name, line)
    return start + len(whole)


def _say(name: str, text: str) -> None:
    print(f"{name} | {text}", flush=True)
