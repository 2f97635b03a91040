"""Lifeline: a node's standard input brings its topology and, when it closes, its end."""

from __future__ import annotations

import os
import select
import sys
import threading

ORPHANED = 70
"""Exit code of a node whose parent has gone."""

_LOOK_S = 1.0


def read_topology_line() -> str:
    """The topology as one line of JSON."""
    line = bytearray()
    while not line.endswith(b"\n"):
        part = os.read(sys.stdin.fileno(), 65536)
        if not part:
            break
        line += part
    return line.decode()


def watch_parent() -> None:
    """End this process at once when its standard input closes or its parent changes, from a thread of its own."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="lifeline").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        readable, _, _ = select.select([sys.stdin], [], [], _LOOK_S)
        if readable and not os.read(sys.stdin.fileno(), 1024):
            break
    os._exit(ORPHANED)
