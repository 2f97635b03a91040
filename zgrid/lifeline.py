"""Lifeline: a node's standard input brings its topology and, when it closes, its end; over a pipe it says it lives."""

from __future__ import annotations

import os
import select
import sys
import threading
from contextlib import suppress

ORPHANED = 70
"""Exit code of a node whose parent has gone."""

LIVES, RESTS = b"+", b"-"
"""What a node says over its pipe: it lives; it does not take part in a run."""

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


def end_with(parent: int) -> None:
    """End this process when its parent has ended, also before it has a topology; from a thread of its own (Linux)."""
    threading.Thread(target=_outlive_nobody, args=(parent,), daemon=True, name="parent").start()


def _outlive_nobody(parent: int) -> None:
    with suppress(ProcessLookupError):  # it has ended
        process = os.pidfd_open(parent)
        if os.getppid() == parent:
            select.select([process], [], [])
    os._exit(ORPHANED)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        readable, _, _ = select.select([sys.stdin], [], [], _LOOK_S)
        if readable and not os.read(sys.stdin.fileno(), 1024):
            break
    os._exit(ORPHANED)


class Signs:
    """What a node tells its parent over a pipe, where that listens: that it lives, or that it takes part in no run."""

    def __init__(self, pipe: int | None = None) -> None:
        """``pipe`` is a descriptor to write to; None: nobody listens."""
        self._pipe = pipe
        if pipe is not None:
            os.set_blocking(pipe, False)

    def live(self) -> None:
        """Say that it lives; to be said again and again, by a thread that stands still when all of it does."""
        self._say(LIVES)

    def rest(self) -> None:
        """Say that nothing more is to be expected for now."""
        self._say(RESTS)

    def _say(self, word: bytes) -> None:
        if self._pipe is not None:
            with suppress(BlockingIOError, BrokenPipeError):  # a parent that does not listen ends it in another way
                os.write(self._pipe, word)
