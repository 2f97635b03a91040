"""Session: the node processes of one run; starts them, watches them, ends them."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from zgrid.errors import BrokerError, NodeDiedError
from zgrid.messaging import Address
from zgrid.topology import Topology

PROXY = "broker"
_PROXY_START_S = 20.0
_TAIL_BYTES = 4000
_TAIL_LINES = 12
_LEAVE_S, _TERM_S, _KILL_S = 1.0, 1.3, 1.0


@dataclass(slots=True)
class Process:
    """One child. Its messages go to ``log``, a file without a name, so nothing is left however it ends."""

    name: str
    popen: subprocess.Popen[str]
    log: IO[bytes]
    may_end: bool = False

    def tail(self) -> str:
        """The last lines it wrote."""
        fd = self.log.fileno()
        size = os.fstat(fd).st_size
        text = os.pread(fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES)).decode(errors="replace")
        return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])


class Session:
    """Node processes of one topology on this machine.

    Each child gets the topology on its standard input and ends when that closes, so none outlives this process,
    however it ends.
    """

    def __init__(self, topology: Topology, source: str = "FILE") -> None:
        """``source`` is how the topology was named on a command line, to tell what to type elsewhere."""
        self.topology = topology
        self._source = source
        self.processes: dict[str, Process] = {}
        self._pid = os.getpid()
        self._json = topology.model_dump_json()
        self.address: Address | None = None

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
        return address

    def start_agents(self, address: Address) -> None:
        """Start a process for each agent that the topology places in one."""
        for agent, run in self.topology.placement().items():
            if run == "process":
                module = "nodes.grid" if agent in self.topology.grids else "nodes.device"
                self.spawn(agent, module, ["-", agent, "--connect", str(address)])

    def spawn(self, name: str, module: str, arguments: Sequence[str], stdout: int | None = None) -> Process:
        """Start ``python -m module`` with the topology on its standard input."""
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        popen = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=log if stdout is None else stdout,
            stderr=log,
            env=_environment(),
            start_new_session=True,
            text=True,
        )
        assert popen.stdin is not None
        with suppress(BrokenPipeError):  # it is dead already; check() tells
            popen.stdin.write(self._json + "\n")
            popen.stdin.flush()
        process = self.processes[name] = Process(name, popen, log)
        return process

    def check(self) -> None:
        """See whether all are alive.

        Raises:
            NodeDiedError: one is not.
        """
        for process in self.processes.values():
            code = process.popen.poll()
            if code is not None and not process.may_end:
                raise NodeDiedError(process.name, code, process.tail())

    def reason(self, agent: str) -> str:
        """Why an agent is not there, as far as that can be seen from here."""
        process = self.processes.get(agent)
        if process is None:
            return "external, and it never answered; start it with\n" + " " * 6 + self.command(agent) + self._refusals()
        code = process.popen.poll()
        state = "it runs, but never answered the roll call" if code is None else f"exited with code {code}"
        tail = process.tail()
        return f"{state}; its last lines:\n{tail}" if tail else state

    def command(self, agent: str) -> str:
        """What to type on another machine to start an agent."""
        return start_command(self.topology, agent, self._source, self.address)

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
        everybody = list(self.processes.values())
        nodes = [process for process in everybody if process.name != PROXY]
        _wait(nodes, _LEAVE_S if all(process.may_end for process in nodes) else 0.0)
        for group in (nodes, everybody):  # the proxy last, so that the env's Stop still gets through
            for process in _alive(group):
                process.popen.terminate()
            _wait(group, _TERM_S)
        for process in _alive(everybody):
            process.popen.kill()
        _wait(everybody, _KILL_S)
        for process in everybody:
            for stream in (process.popen.stdin, process.popen.stdout, process.log):
                if stream is not None:
                    with suppress(BrokenPipeError):  # unread input of a process that is gone
                        stream.close()
        self.processes.clear()

    def let_go(self) -> None:
        """From now on agents may end by themselves: they were told that the run is over."""
        for process in self.processes.values():
            process.may_end = True


def start_command(topology: Topology, agent: str, source: str, address: Address | None) -> str:
    """What to type to start an agent by hand."""
    kind = "grid" if agent in topology.grids else "device"
    where = str(address).replace("0.0.0.0", "ADDRESS_OF_THIS_MACHINE")
    return f"python -m nodes.{kind} {source} {agent} --connect {where}"


def _alive(processes: Sequence[Process]) -> Iterator[Process]:
    return (process for process in processes if process.popen.poll() is None)


def _wait(processes: Sequence[Process], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.popen.wait(max(0.0, deadline - time.monotonic()))


def _environment() -> dict[str, str]:
    """The environment of a node: this process's import path, and one thread for linear algebra."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, "PYTHONPATH": path, **threads}
