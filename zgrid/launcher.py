"""Launcher: play a topology from one command, in this process or as many."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NoReturn

from zgrid.child import Process
from zgrid.command import sigterm_raises
from zgrid.errors import Finding, NodeDiedError, TopologyError, ZgridError
from zgrid.messaging import PROXY, Address
from zgrid.play import Plan
from zgrid.session import Session
from zgrid.topology import Topology
from zgrid.view import ConsoleView, relay

ENV_NODE = "env"
_LAST_WORD_S = 2.0
_LOOK_S = 0.1


def launch(topology: Topology, plan: Plan, view: ConsoleView, source: str = "FILE") -> dict[str, Any]:
    """Play the plan and show it; the summary. ``source`` is how the topology was named on the command line.

    Raises:
        ZgridError: the run failed; everything that was started has ended.
        Terminated: SIGTERM came; likewise.
    """
    with sigterm_raises(), view:
        if topology.mode == "zmq":
            return _launch_nodes(topology, plan, view, source)
        return _play_here(topology, plan, view)


def _play_here(topology: Topology, plan: Plan, view: ConsoleView) -> dict[str, Any]:
    with view.waiting("loading pandapower and the network"):
        from zgrid.environment import NetworkedGridEnv
        from zgrid.play import play

        env = NetworkedGridEnv(topology)
    try:
        return play(env, plan, view)
    finally:
        env.close()


def _launch_nodes(topology: Topology, plan: Plan, view: ConsoleView, source: str) -> dict[str, Any]:
    """Start proxy, env node and agent nodes, and relay what the env node tells."""
    session = Session(topology, source)
    try:
        address = session.start_proxy()
        env = session.spawn(ENV_NODE, "nodes.env", _env_arguments(plan, address), stdout=subprocess.PIPE)
        lines = _lines(env, session)
        with view.waiting("loading pandapower, solving the network"):
            _await_check(lines, session, env, view)
        session.start_agents(address)
        view.coming(_states(session, address))
        for host, names in _elsewhere(session).items():
            if host is not None:
                view.say(f"waiting for {', '.join(names)}; on {host} type: {session.join_command(host)}")
            for name in names if host is None else ():
                view.say(f"waiting for {name}; start it with: {session.command(name)}")
        return _follow(lines, session, env, view)
    finally:
        session.stop()


def _env_arguments(plan: Plan, address: Address) -> list[str]:
    arguments = ["-", "--connect", str(address)]
    if plan.episodes is not None:
        arguments += ["--episodes", str(plan.episodes)]
    if plan.steps is not None:
        arguments += ["--steps", str(plan.steps)]
    if plan.out is not None:
        arguments += ["--out", str(plan.out.absolute())]
    return arguments


def _elsewhere(session: Session) -> dict[str | None, list[str]]:
    """The nodes that somebody else starts, by their machines; None: where that is not said."""
    nodes: dict[str | None, list[str]] = {}
    for name, plan in session.plans.items():
        if not session.starts(plan):
            nodes.setdefault(plan.host, []).append(name)
    return nodes


def _states(session: Session, address: Address) -> dict[str, str]:
    """What is known of each process; broker and env first."""
    states = {name: f"pid {session.processes[name].popen.pid}" for name in (PROXY, ENV_NODE)}
    states[PROXY] += f" at {address}"
    for name, plan in session.plans.items():
        started = name in session.processes
        states[name] = f"pid {session.processes[name].popen.pid}" if started else plan.host or "external"
    return states


def _await_check(lines: Iterator[str], session: Session, env: Process, view: ConsoleView) -> None:
    """Wait until the env node has built the network and solved it: before that no agent starts.

    Raises:
        TopologyError: it cannot run.
        ZgridError: the env failed.
    """
    for line in lines:
        if _heard(line, session, view)[0] == "checked":
            return
    _fail(session, env)


def _heard(line: str, session: Session, view: ConsoleView) -> tuple[str, Any]:
    """Relay one event of the env node, and raise what it says has failed."""
    event, value = relay(line, view)
    if event == "silent":
        session.kill(*value)
    if event == "findings":
        session.let_go()
        source, findings = value
        raise TopologyError(source, [Finding(*finding) for finding in findings])
    if event == "error":
        session.let_go()
        raise ZgridError(value)
    return event, value


def _follow(lines: Iterator[str], session: Session, env: Process, view: ConsoleView) -> dict[str, Any]:
    """Relay the env node's events until it is done, and see that everybody lives.

    Raises:
        ZgridError: the env failed, or a node died.
    """
    for line in lines:
        event, value = _heard(line, session, view)
        if event == "finish":
            session.let_go()
            summary: dict[str, Any] = value
            return summary
    return _fail(session, env)


def _fail(session: Session, env: Process) -> NoReturn:
    """The env node ended without a word: say why.

    Raises:
        ZgridError: always.
    """
    with suppress(subprocess.TimeoutExpired):
        env.popen.wait(_LOOK_S)
    session.supervise()
    raise ZgridError(f"the env node ended without a result; its last lines:\n{env.tail()}")


def _lines(process: Process, session: Session) -> Iterator[str]:
    """The lines a process writes to its standard output, while all processes live."""
    assert process.popen.stdout is not None
    fd = process.popen.stdout.fileno()
    rest = b""
    looked = patience = 0.0
    while True:
        readable, _, _ = select.select([fd], [], [], _LOOK_S)
        if time.monotonic() - looked > _LOOK_S:
            looked = time.monotonic()
            try:
                session.supervise()
            except NodeDiedError as error:
                patience = patience or looked + _LAST_WORD_S
                if error.exit_code != 0 or looked > patience:
                    raise  # else the env has told it to stop, and is about to say why
        if not readable:
            continue
        part = os.read(fd, 65536)
        if not part:
            return
        *lines, rest = (rest + part).split(b"\n")
        yield from (line.decode() for line in lines)
