"""Two machines on one computer: network namespaces that a virtual cable joins, and processes in them."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, wait_until

_COUNT = itertools.count()


class Process:
    """A process on one of the machines; what it writes goes to a file."""

    def __init__(self, command: Sequence[str], folder: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            self.popen = subprocess.Popen(
                command, cwd=folder, stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": str(ROOT)}
            )

    @property
    def said(self) -> str:
        """All that it wrote to standard output and error."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def says(self, text: str, within_s: float) -> bool:
        """Whether it writes a text in time; False also where it ends without it."""
        wait_until(lambda: text in self.said or self.popen.poll() is not None, within_s)
        return text in self.said

    def end(self) -> None:
        """End it, if it runs."""
        self.popen.kill()
        self.popen.wait()


class Machine:
    """A network namespace with an address, a folder, and an end of the cable."""

    def __init__(self, namespace: str, address: str, folder: Path) -> None:
        self.namespace, self.address, self.folder = namespace, address, folder
        self.processes: list[Process] = []
        folder.mkdir()

    def start(self, *arguments: str) -> Process:
        """Start Python in the machine's folder."""
        command = ["ip", "netns", "exec", self.namespace, sys.executable, *arguments]
        process = Process(command, self.folder, self.folder / f"log_{len(self.processes)}")
        self.processes.append(process)
        return process

    def zgrid(self, *arguments: str) -> Process:
        """Start the command ``zgrid``."""
        return self.start("-c", "import sys; from zgrid.cli import main; sys.exit(main())", *arguments)

    def cable(self, state: str) -> None:
        """Take this end of the cable ``down`` or ``up``; the other end sees that nobody is there."""
        _ip("-n", self.namespace, "link", "set", "cable", state)


@contextmanager
def two_machines(folder: Path) -> Iterator[tuple[Machine, Machine]]:
    """Two machines and their cable; everything in them is ended and removed afterwards.

    Skips the test where this computer has no ``ip`` or does not let us.
    """
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip (iproute2) to make network namespaces")
    number = next(_COUNT)
    names = [f"zgrid_{os.getpid()}_{number}_{letter}" for letter in "ab"]
    machines = [Machine(name, f"10.83.0.{at + 1}", folder / name[-1]) for at, name in enumerate(names)]
    made: list[str] = []
    try:
        for machine in machines:
            _ip_or_skip("netns", "add", machine.namespace)
            made.append(machine.namespace)
        _ip_or_skip(
            *("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        )
        for machine in machines:
            _ip("-n", machine.namespace, "address", "add", f"{machine.address}/24", "dev", "cable")
            _ip("-n", machine.namespace, "link", "set", "lo", "up")
            machine.cable("up")
        first, second = machines
        yield first, second
    finally:
        for machine in machines:
            for process in machine.processes:
                process.end()
        for name in made:
            _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10.0)


def _ip_or_skip(*arguments: str) -> None:
    try:
        _ip(*arguments)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"may not make network namespaces here: ip {' '.join(arguments)}: {error.stderr.decode().strip()}")
