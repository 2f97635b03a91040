"""Nursery: a process that has imported what every node needs, as its parent sees it; it forks a node when asked to.

What nodes import is in memory once, not once in each: they share its pages, and a processor's caches with them. They
also start sooner. A nursery has no threads, no sockets of ZeroMQ and no agents, so that nothing is forked in the middle
of anything. Linux; elsewhere, and where a node is started by hand, it is a program of its own.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
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

_ANSWER_S, _END_S, _WORD_S = 60.0, 5.0, 1.0
_WAIT_S = 0.1
_TAIL = 4000
_LARGEST = 4096


class Nursery:
    """A nursery of this process. It ends with it, and so do the nodes it has forked."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._children: dict[int, Sprout] = {}
        self._asked = 0
        self._gone = False
        self._lock = threading.RLock()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nodes.nursery", str(there.fileno()), str(os.getpid())],
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

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked."""
        return not self._gone and self._process.poll() is None

    def fork(
        self, name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: IO[bytes],
        signs: int | None = None,
    ) -> Sprout:  # fmt: skip
        """A node of this name that does what ``python -m module arguments`` does; the descriptor ``signs`` stays open
        in it, with the number that it has here.

        Raises:
            NodeDiedError: the nursery is gone.
            OSError: it could not fork, or no descriptor is left.
        """
        told: dict[str, Any] = {
            "name": name, "module": module, "arguments": list(arguments), "environment": dict(environment),
            "folder": os.getcwd(), "signs": [] if signs is None else [signs],
        }  # fmt: skip
        end, start = os.pipe()
        try:
            with self._lock:
                self._ask(told, end, log.fileno(), *told["signs"])
                pid, pidfd = self._answer(name)
                child = self._children[pid] = Sprout(self, pid, pidfd, os.fdopen(start, "w", encoding="utf-8"))
        except BaseException:
            os.close(start)
            raise
        finally:
            os.close(end)
        return child

    def listen(self, seconds: float) -> bool:
        """Take word of a node that has ended, for which to wait at most so long; whether there was any."""
        with self._lock:
            if self._gone or not _ready([self._here.fileno()], seconds):
                return False
            told, descriptors = self._receive()
            for descriptor in descriptors:  # the answer to a question that nobody waits for any more
                os.close(descriptor)
            return told is not None

    def close(self) -> None:
        """End it; the nodes that still run end too."""
        while self.listen(0.0):
            pass
        self._gone = True
        with suppress(OSError):
            self._here.shutdown(socket.SHUT_RDWR)  # also where a fork of this process still has it open
        self._here.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _ask(self, told: Mapping[str, Any], *descriptors: int) -> None:
        """Say what node is wanted: in a file in memory, as an environment may be larger than a message."""
        self._asked += 1
        file = os.memfd_create("node")
        try:
            os.write(file, json.dumps(told).encode())
            with suppress(ConnectionError):  # no answer comes either
                socket.send_fds(self._here, [str(self._asked).encode()], [file, *descriptors])
        finally:
            os.close(file)

    def _answer(self, name: str) -> tuple[int, int]:
        """The pid of the node that was asked for, and a descriptor of its process."""
        deadline = time.monotonic() + _ANSWER_S
        while not self._gone and _ready([self._here.fileno()], max(0.0, deadline - time.monotonic())):
            told, descriptors = self._receive()
            if told is not None and told.get("serial") == self._asked:
                if "error" in told:
                    raise OSError(f"node {name} cannot be forked: {told['error']}")
                if not descriptors:
                    raise OSError(errno.EMFILE, f"node {name}: no descriptor is left for it")
                return told["pid"], descriptors[0]
            for descriptor in descriptors:
                os.close(descriptor)
        self._gone = True
        self._process.kill()
        code, log = self._process.wait(), self._log.fileno()
        last_lines = os.pread(log, _TAIL, max(0, os.fstat(log).st_size - _TAIL)).decode(errors="replace")
        raise NodeDiedError(f"{name}, or rather what forks nodes,", code, last_lines)

    def _receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        """What it says, with a descriptor or none; None where it is gone. Word of an end is taken at once."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._here, _LARGEST, 1, socket.MSG_DONTWAIT)
        except ConnectionError:  # it left without reading what it was asked
            data, descriptors = b"", []
        if not data:
            self._gone = True
            return None, descriptors
        told: dict[str, Any] = json.loads(data)
        child = self._children.pop(told["pid"], None) if "code" in told else None
        if child is not None:
            child.returncode = told["code"]
        return told, descriptors


class Sprout:
    """A node that a nursery has forked, with what :class:`subprocess.Popen` has of one."""

    stdout = None

    def __init__(self, nursery: Nursery, pid: int, pidfd: int, stdin: IO[str]) -> None:
        self.pid, self.stdin = pid, stdin
        self.returncode: int | None = None
        self._nursery, self._pidfd = nursery, pidfd
        self._ended_at: float | None = None

    def poll(self) -> int | None:
        """Its exit code; None while it runs. Negative: the signal that ended it."""
        while self.returncode is None and self._nursery.listen(0.0):
            pass
        if self.returncode is None and _ready([self._pidfd], 0.0):
            self._ended_at = self._ended_at or time.monotonic()
            if time.monotonic() - self._ended_at > _WORD_S:  # what forked it is gone, or stopped: nobody can tell how
                self.returncode = ORPHANED
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not, in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            left = _WAIT_S if deadline is None else deadline - time.monotonic()
            if left < 0.0:
                raise subprocess.TimeoutExpired(f"node {self.pid}", timeout or 0.0)
            if not self._nursery.listen(min(left, _WAIT_S)):
                _ready([] if self._ended_at is not None else [self._pidfd], min(left, _WAIT_S))
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Forget it; it has ended. Again is harmless."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _ready(descriptors: Sequence[int], seconds: float) -> set[int]:
    """Those that can be read, or will be within some seconds."""
    poll = select.poll()  # select has no more than 1,024
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(1000.0 * seconds)}
