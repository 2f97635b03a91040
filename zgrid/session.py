"""Session: the node processes of one run; starts them, watches them, ends them."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from zgrid.child import Child, Process, alive, wait
from zgrid.errors import BrokerError, NodeDiedError, NodeSilentError
from zgrid.failure import FAIL, OnFailure, Restarts, strictest
from zgrid.machines import ANY, is_here, own_address
from zgrid.messaging import PROXY, Address
from zgrid.nursery import AVAILABLE, Nursery
from zgrid.runfile import RunFile
from zgrid.topology import Topology
from zgrid.topology.nodes import NodePlan, node_plans

FORKED = frozenset(("nodes.device", "nodes.grid"))
"""The modules of nodes that a nursery forks."""

_PROXY_START_S = 20.0
_LEAVE_S, _TERM_S, _KILL_S = 1.0, 1.3, 1.0


class Session:
    """Node processes of one topology on this machine.

    Each child gets the topology on its standard input and ends when that closes, so none outlives this process,
    however it ends.
    """

    def __init__(self, topology: Topology, source: str = "FILE", *, lenient: bool = False) -> None:
        """``source`` is how the topology was named on a command line, to tell what to type elsewhere. ``lenient``: what
        ends and is not begun anew is for an env on another machine to judge, so nothing is raised; and a child that
        hangs is noticed here, because that env can do nothing about it.
        """
        self.topology = topology
        self._lenient = lenient
        self._source = source
        self.plans = node_plans(topology)
        self.processes: dict[str, Process] = {}
        self.causes: dict[str, str] = {}
        """Why those have failed that were replaced or begun anew."""
        self._restarts = Restarts()
        self._pid = os.getpid()
        self._json = topology.model_dump_json()
        self.address: Address | None = None
        self._runfile: RunFile | None = None
        self._nursery: Nursery | None = None

    def start_proxy(self) -> Address:
        """Start the proxy and wait until it listens.

        Raises:
            BrokerError: it does not; the text has its last lines.
        """
        process = self.spawn(PROXY, "nodes.broker", ["-"], stdout=subprocess.PIPE)
        stdout = process.popen.stdout
        assert stdout is not None
        readable, _, _ = select.select([stdout], [], [], _PROXY_START_S)
        line = stdout.readline() if readable else ""
        if not line:
            process.popen.kill()
            process.popen.wait()
            raise BrokerError(f"the ZeroMQ proxy did not come up:\n{process.tail()}")
        self.address = address = Address.parse(json.loads(line)["address"])
        self._runfile = RunFile.write(str(address), self.topology.name, self.topology.broker.keys)
        return address

    def start_agents(self, address: Address) -> None:
        """Start a process for each node that runs here."""
        for name, plan in self.plans.items():
            if self.starts(plan):
                self.start_agent(name, address)

    def start_agent(self, name: str, address: Address, *options: str) -> None:
        """Start the process of one node."""
        module = module_of(self.topology, self.plans[name])
        self.spawn(name, module, ["-", name, "--connect", str(address), *options])

    def starts(self, plan: NodePlan) -> bool:
        """Whether a node is started from here, not by hand or on another machine."""
        return plan.run == "process" and (plan.host is None or is_here(plan.host))

    def spawn(self, name: str, module: str, arguments: Sequence[str], stdout: int | None = None) -> Process:
        """Start ``python -m module`` with the topology on its standard input."""
        log, begun_ms = tempfile.TemporaryFile(), time.time_ns() // 1_000_000  # noqa: SIM115 - closed in stop()
        listens, says = os.pipe() if self._lenient else (None, None)
        try:
            popen = self._start(name, module, arguments, log, says, stdout)
        except BaseException:
            log.close()
            if listens is not None:
                os.close(listens)
            raise
        finally:
            if says is not None:
                os.close(says)
        if listens is not None:
            os.set_blocking(listens, False)
        assert popen.stdin is not None
        with suppress(BrokenPipeError):  # it is dead already; check() tells
            popen.stdin.write(self._json + "\n")
            popen.stdin.flush()
        process = self.processes[name] = Process(name, popen, log, module, tuple(arguments), begun_ms, listens)
        return process

    def _start(
        self, name: str, module: str, arguments: Sequence[str], log: IO[bytes], signs: int | None, stdout: int | None
    ) -> Child:
        told = list(arguments) if signs is None else [*arguments, "--signs", str(signs)]
        if AVAILABLE and module in FORKED:
            return self._living_nursery().fork(name, module, told, child_environment(), log, signs)
        return subprocess.Popen(
            [sys.executable, "-m", module, *told],
            stdin=subprocess.PIPE,
            stdout=log if stdout is None else stdout,
            stderr=log,
            env=child_environment(),
            start_new_session=True,
            pass_fds=() if signs is None else (signs,),
            text=True,
        )

    def _living_nursery(self) -> Nursery:
        """What forks nodes; anew where it is gone."""
        if self._nursery is not None and not self._nursery.is_alive:
            self._nursery.close()
            self._nursery = None
        if self._nursery is None:
            self._nursery = Nursery(child_environment())
        return self._nursery

    def supervise(self) -> list[str]:
        """See whether all are alive; end and begin anew what may, as the topology declares. The names of those that
        have failed and were not told before.

        Raises:
            NodeDiedError: one is dead and should not be, or has died too often.
            NodeSilentError: one was stopped.
        """
        failed = []
        for process in list(self.processes.values()):
            if process.due is not None and self.is_over:
                process.due, process.may_end = None, True
            elif process.due is not None:
                self._begin_anew(process)
            elif not process.may_end and self._has_failed(process):
                failed.append(process.name)
        return failed

    def kill(self, name: str, incarnation: int | None = None) -> None:
        """Kill a process that is ours and does not answer; :meth:`supervise` begins it anew. With ``incarnation``, the
        time at which a node says that it was begun, in ms: only if it was not begun anew since.
        """
        process = self.processes.get(name)
        if process is None or process.due is not None:
            return
        if incarnation is None or process.begun_ms <= incarnation:
            process.popen.kill()

    def _has_failed(self, process: Process) -> bool:
        cause = self._cause(process)
        if not cause:
            return False
        policy, name = self._policy(process.name), process.name
        returns = not self._lenient or (process.has_lived and not self.is_over)
        delay_s = self._restarts.allow(name, policy, time.monotonic()) if returns else None
        if delay_s is None and policy.kind != "fallback" and not self._lenient:
            code = process.popen.returncode
            if code is not None:
                raise NodeDiedError(name, code, process.tail())
            raise NodeSilentError(name, self.agents_of(name), cause, process.tail())
        self.causes[name] = cause
        process.may_end = delay_s is None
        if delay_s is not None:
            process.popen.kill()
            process.due = time.monotonic() + delay_s
            if not self._lenient:  # else its last lines are to be shown before
                self._begin_anew(process)
        elif self._lenient and policy.kind != "fallback":
            process.popen.kill()  # it is stopped or hangs; nobody else here can
        return True

    @property
    def is_over(self) -> bool:
        """Whether one here was told that the run is over, where only they are told."""
        return self._lenient and any(process.popen.poll() == 0 for process in self.processes.values())

    def _cause(self, process: Process) -> str:
        """Why a process is taken for failed; empty where it is not."""
        code, hangs = process.popen.poll(), process.hangs(limit_s := self.topology.broker.silence_s)
        if code is not None:
            return "" if self._lenient and code == 0 else process.how_it_ended()
        if process.is_stopped():
            return "its process is stopped (SIGSTOP)"
        if hangs:
            return f"its process hangs: it has not said for {limit_s:g} s that it lives"
        return ""

    def _begin_anew(self, process: Process) -> None:
        """Start it again, when its time has come."""
        assert process.due is not None
        if time.monotonic() < process.due:
            return
        process.popen.wait()
        arguments = list(process.arguments)
        if process.name == PROXY:
            assert self.address is not None
            arguments = ["-", "--ports", f"{self.address.publish_port},{self.address.subscribe_port}"]
        self.spawn(process.name, process.module, arguments)
        process.close()

    def _policy(self, name: str) -> OnFailure:
        if name == PROXY:
            return self.topology.broker.on_failure
        policies = self.topology.on_failure()
        return strictest([policies[agent] for agent in self.agents_of(name)] or [FAIL])

    def agents_of(self, name: str) -> tuple[str, ...]:
        """The agents of a node; none of proxy and env."""
        return self.plans[name].agents if name in self.plans else ()

    def reason(self, name: str) -> str:
        """Why a node is not there, as far as that can be seen from here."""
        process = self.processes.get(name)
        if process is None:
            _, run, host = self.plans[name]
            where = [word for word in ("external" if run == "external" else "", f"on {host}" if host else "") if word]
            told = f"{', '.join(where)}, and it never answered; start it with\n" + " " * 6 + self.command(name)
            return told + self._refusals()
        code = process.popen.poll()
        state = "it runs, but never answered the roll call" if code is None else f"exited with code {code}"
        tail = process.tail()
        return f"{state}; its last lines:\n{tail}" if tail else state

    def command(self, name: str) -> str:
        """What to type on another machine to start a node."""
        return start_command(self.topology, name, self._source, self.address)

    def join_command(self, host: str) -> str:
        """What to type on another machine to start all nodes there."""
        return f"zgrid join {self._source} {_way(self.topology, host, self.address)}"

    def _refusals(self) -> str:
        """Whom the proxy turned away lately, in its own words."""
        proxy = self.processes.get(PROXY)
        lines = proxy.tail().splitlines() if proxy is not None else []
        told = [line.partition("refused a connection ")[2] for line in lines if "refused a connection " in line]
        return "".join(f"\n      the proxy refused a connection {line}" for line in told)

    def stop(self) -> None:
        """End all processes: those that were told to leave get a moment, then SIGTERM, then SIGKILL."""
        if os.getpid() != self._pid:
            return
        if self._runfile is not None:
            self._runfile.remove()
        try:
            self._end(list(self.processes.values()))
        finally:
            self.processes.clear()
            if self._nursery is not None:
                self._nursery.close()
                self._nursery = None

    def _end(self, everybody: Sequence[Process]) -> None:
        nodes = [process for process in everybody if process.name != PROXY]
        wait(nodes, _LEAVE_S if all(process.may_end for process in nodes) else 0.0)
        for group in (nodes, everybody):  # the proxy last, so that the env's Stop still gets through
            for process in alive(group):
                process.popen.terminate()
            wait(group, _TERM_S)
        for process in alive(everybody):
            process.popen.kill()
        wait(everybody, _KILL_S)
        for process in everybody:
            process.close()

    def let_go(self) -> None:
        """From now on agents may end by themselves: they were told that the run is over."""
        for process in self.processes.values():
            process.may_end = True


def start_command(topology: Topology, name: str, source: str, address: Address | None) -> str:
    """What to type to start a node by hand."""
    plan = node_plans(topology)[name]
    return f"python -m {module_of(topology, plan)} {source} {name} {_way(topology, plan.host, address)}"


def module_of(topology: Topology, plan: NodePlan) -> str:
    """The module that runs a node; that of grids also where their devices are with them."""
    return "nodes.grid" if plan.agents[-1] in topology.grids else "nodes.device"


def _way(topology: Topology, host: str | None, address: Address | None) -> str:
    """How a machine reaches the proxy, and with whose keys."""
    if address is not None and address.host == ANY:
        own = own_address(host) if host is not None else None
        address = address._replace(host=own or "ADDRESS_OF_THIS_MACHINE")
    way = f"--connect {address}"
    if topology.broker.keys is None:
        return way
    keys = Path(topology.broker.keys)
    return f"{way} --keys {keys.relative_to(Path.cwd()) if keys.is_relative_to(Path.cwd()) else keys}"


def child_environment() -> dict[str, str]:
    """The environment of a node: this process's import path, and one thread for linear algebra."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, "PYTHONPATH": path, **threads}
