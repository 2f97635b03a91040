"""Nursery: a process that has imported what every node needs, as its parent sees it; it forks a node when asked to.

What nodes import is in memory once, not once in each: they share its pages, and a processor's caches with them. They
also start sooner. A nursery has no threads, no sockets of ZeroMQ and no agents, so that nothing is forked in the middle
of anything. Linux; elsewhere, and where a node is started by hand, it is a program of its own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from zgrid.errors import NodeDiedError
from zgrid.lifeline import ORPHANED


def _is_available() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # another system, or a sandbox that forbids it
        return False
    return hasattr(socket, "send_fds")


AVAILABLE = _is_available()
"""Whether this system can have one."""

LARGEST = 1 << 20
"""Bytes of a request: arguments, import path and environment of a node."""

_ANSWER_S, _END_S = 60.0, 5.0
_TAIL = 4000


class Nursery:
    """A nursery of this process. It ends with it, and so do the nodes it has forked."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._children: dict[int, Sprout] = {}
        self._gone = False
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nodes.nursery", str(there.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=dict(environment),
                pass_fds=(there.fileno(),),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def fork(
        self, name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: IO[bytes],
        signs: Sequence[int] = (),
    ) -> Sprout:  # fmt: skip
        """A node of this name that does what ``python -m module arguments`` does; ``signs`` stay open in it, as
        they are numbered here.

        Raises:
            NodeDiedError: the nursery is gone.
        """
        end, start = os.pipe()
        told = {
            "name": name, "module": module, "arguments": list(arguments), "environment": dict(environment),
            "folder": os.getcwd(), "signs": list(signs),
        }  # fmt: skip
        try:
            with suppress(BrokenPipeError):  # no answer comes either
                socket.send_fds(self._here, [json.dumps(told).encode()], [end, log.fileno(), *signs])
            pid, pidfd = self._answer(name)
        except BaseException:
            os.close(start)
            raise
        finally:
            os.close(end)
        child = self._children[pid] = Sprout(self, pid, pidfd, os.fdopen(start, "w", encoding="utf-8"))
        return child

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    def listen(self, seconds: float) -> bool:
        """Take word of a node that has ended, for which to wait at most so long; whether there was any."""
        if self._gone:
            return self._look(seconds)
        if not _ready([self._here.fileno()], seconds):
            return False
        data, _ = self._receive()
        if not data:
            self._gone = True
            return self._look(0.0)
        self._take(json.loads(data))
        return True

    def close(self) -> None:
        """End it; the nodes that still run end too."""
        self._gone = True
        self._here.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _answer(self, name: str) -> tuple[int, int]:
        """The pid of the node that was asked for, and a descriptor of its process."""
        deadline = time.monotonic() + _ANSWER_S
        while _ready([self._here.fileno()], max(0.0, deadline - time.monotonic())):
            data, descriptors = self._receive()
            if not data:
                break
            told = json.loads(data)
            if descriptors:
                return told["pid"], descriptors[0]
            self._take(told)
        self._process.kill()
        code, log = self._process.wait(), self._log.fileno()
        raise NodeDiedError(
            f"{name}, or rather what forks nodes,", code, os.pread(log, _TAIL, 0).decode(errors="replace")
        )

    def _receive(self) -> tuple[bytes, list[int]]:
        """What it says, with a descriptor or none; nothing where it is gone."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._here, LARGEST, 1)
        except ConnectionResetError:  # it left without reading what it was asked
            return b"", []
        return data, descriptors

    def _take(self, told: Mapping[str, Any]) -> None:
        child = self._children.pop(told["pid"], None)
        if child is not None:
            child.returncode = told["code"]

    def _look(self, seconds: float) -> bool:
        """The same after it is gone: its nodes end by themselves, and nobody can tell how."""
        ended = _ready([child.pidfd for child in self._children.values()], seconds)
        for child in [child for child in self._children.values() if child.pidfd in ended]:
            self._take({"pid": child.pid, "code": ORPHANED})
        return bool(ended)


class Sprout:
    """A node that a nursery has forked, with what :class:`subprocess.Popen` has of one."""

    stdout = None

    def __init__(self, nursery: Nursery, pid: int, pidfd: int, stdin: IO[str]) -> None:
        self.pid, self.pidfd, self.stdin = pid, pidfd, stdin
        self.returncode: int | None = None
        self._nursery = nursery

    def poll(self) -> int | None:
        """Its exit code; None while it runs. Negative: the signal that ended it."""
        while self.returncode is None and self._nursery.listen(0.0):
            pass
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not, in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = _ANSWER_S if deadline is None else deadline - time.monotonic()
            if left < 0.0 and self.poll() is None:
                raise subprocess.TimeoutExpired(f"node {self.pid}", timeout or 0.0)
            self._nursery.listen(max(0.0, left))
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Forget it; it has ended."""
        os.close(self.pidfd)


def _ready(descriptors: Sequence[int], seconds: float) -> set[int]:
    """Those that can be read, or will be within some seconds."""
    poll = select.poll()  # select has no more than 1,024
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(1000.0 * seconds)}
