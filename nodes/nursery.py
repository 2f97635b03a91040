"""A nursery: imports what every agent node needs, and forks one whenever its parent asks; :mod:`zgrid.nursery`."""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import select
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from zgrid.devices import DEVICES
from zgrid.lifeline import end_with

_MODULES = ("nodes.device", "nodes.grid", "zgrid.node")
_NAME = 15
"""Bytes of a process's name."""

_LARGEST, _DESCRIPTORS = 4096, 8


class Nursery:
    """Forks until its parent is gone."""

    def __init__(self, parent: socket.socket, parent_pid: int) -> None:
        self._parent, self._parent_pid = parent, parent_pid
        self._lifeline = os.pidfd_open(parent_pid)
        self._poll, self._pids = select.poll(), dict[int, int]()
        for descriptor in (parent.fileno(), self._lifeline):
            self._poll.register(descriptor, select.POLLIN)

    def serve(self) -> dict[str, Any] | None:
        """None when the parent is gone; in each node that is forked: what it is asked to be.

        The parent's end is seen by its process, not only by the socket, which a fork of it may keep open.
        """
        while os.getppid() == self._parent_pid:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._lifeline:
                    return None
                if descriptor in self._pids:
                    self._tell_end(descriptor)
                    continue
                data, given, _, _ = socket.recv_fds(self._parent, _LARGEST, _DESCRIPTORS)
                if not data:
                    return None
                asked = self._fork(int(data), given)
                if asked is not None:
                    return asked
        return None

    def _tell_end(self, pidfd: int) -> None:
        """A node has ended: say how."""
        self._poll.unregister(pidfd)
        pid, status = os.waitpid(self._pids.pop(pidfd), 0)
        os.close(pidfd)
        self._say({"pid": pid, "code": os.waitstatus_to_exitcode(status)})

    def _fork(self, serial: int, given: list[int]) -> dict[str, Any] | None:
        """Fork one, and say which; in it: what it is asked to be."""
        try:
            file, *others = given
            asked: dict[str, Any] = json.loads(os.pread(file, os.fstat(file).st_size, 0)) | {"parent": os.getpid()}
            pid = os.fork()
        except (OSError, ValueError) as error:  # no descriptor or no process is left, here or on the way here
            self._say({"serial": serial, "error": str(error)})
            _close(given)
            return None
        if pid == 0:
            self._parent.close()
            _close((file, self._lifeline, *self._pids))
            _take_place(others, asked["signs"])
            return asked
        _close(given)
        pidfd = os.pidfd_open(pid)
        self._pids[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)
        self._say({"serial": serial, "pid": pid}, pidfd)
        return None

    def _say(self, told: dict[str, Any], *descriptors: int) -> None:
        with suppress(ConnectionError):  # the parent has gone; the next look tells
            socket.send_fds(self._parent, [json.dumps(told).encode()], list(descriptors))


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _take_place(given: list[int], signs: list[int]) -> None:
    """Standard input, output and error, and signs, as a program of its own would find them."""
    os.setsid()
    wanted = [0, 1, *signs]
    above = 1 + max(wanted)  # so that none is overwritten before its turn
    kept = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, above) for descriptor in given]
    _close(given)
    for descriptor, place in zip(kept, wanted, strict=True):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.dup2(1, 2)


def become(asked: dict[str, Any]) -> int:
    """Run the node that this process is now; its exit code."""
    gc.enable()
    end_with(asked["parent"])
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    mine = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    _, *others = sys.path  # the first is the folder of the nursery
    sys.path[:] = [asked["folder"], *mine, *(entry for entry in others if entry not in mine)]
    importlib.invalidate_caches()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # else all nodes would draw the same
    with suppress(OSError), open("/proc/self/comm", "w", encoding="utf-8") as file:
        file.write(asked["name"][:_NAME])
    module = importlib.import_module(asked["module"])
    sys.argv = [str(module.__file__), *asked["arguments"]]
    return int(module.main(asked["arguments"]))


def main() -> int:
    """Until the parent is gone; in a node, until that ends."""
    for name in (*_MODULES, *(place.partition(":")[0] for place in DEVICES.values())):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is here by now stays for good, and is not touched to see whether it does
    gc.disable()
    asked = Nursery(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])).serve()
    return 0 if asked is None else become(asked)


if __name__ == "__main__":
    sys.exit(main())
