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
from typing import Any

from zgrid.devices import DEVICES
from zgrid.lifeline import end_with
from zgrid.nursery import LARGEST

_MODULES = ("nodes.device", "nodes.grid", "zgrid.node")
_NAME = 15
"""Bytes of a process's name."""


def serve(parent: socket.socket) -> dict[str, Any] | None:
    """Fork until the parent is gone: then None. In each node that is forked: what it is asked to be."""
    poll, pids = select.poll(), dict[int, int]()
    poll.register(parent, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor != parent.fileno():
                poll.unregister(descriptor)
                pid, status = os.waitpid(pids.pop(descriptor), 0)
                os.close(descriptor)
                parent.send(json.dumps({"pid": pid, "code": os.waitstatus_to_exitcode(status)}).encode())
                continue
            data, given, _, _ = socket.recv_fds(parent, LARGEST, 8)
            if not data:
                return None
            asked: dict[str, Any] = {**json.loads(data), "parent": os.getpid()}
            pid = os.fork()
            if pid == 0:
                parent.close()
                for other in pids:
                    os.close(other)
                _take_place(given, asked["signs"])
                return asked
            for other in given:
                os.close(other)
            pidfd = os.pidfd_open(pid)
            pids[pidfd] = pid
            poll.register(pidfd, select.POLLIN)
            socket.send_fds(parent, [json.dumps({"pid": pid}).encode()], [pidfd])


def _take_place(given: list[int], signs: list[int]) -> None:
    """Standard input, output and error, and signs, as a program of its own would find them."""
    os.setsid()
    wanted = [0, 1, *signs]
    above = 1 + max(wanted)  # so that none is overwritten before its turn
    kept = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, above) for descriptor in given]
    for descriptor in given:
        os.close(descriptor)
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
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [entry for entry in path if entry and entry not in sys.path]
    importlib.invalidate_caches()
    with open("/proc/self/comm", "w", encoding="utf-8") as file:
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
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    return 0 if asked is None else become(asked)


if __name__ == "__main__":
    sys.exit(main())
