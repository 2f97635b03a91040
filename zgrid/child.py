"""Child: the process of one node, as its parent sees it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from zgrid.lifeline import LIVES
from zgrid.nursery import Sprout

Child: TypeAlias = "subprocess.Popen[str] | Sprout"
_TAIL_BYTES = 4000
_TAIL_LINES = 12
_STOPPED_S, _LOOKED_S = 1.0, 0.8


@dataclass(slots=True, eq=False)
class Process:
    """One child. Its messages go to ``log``, a file without a name, so nothing is left however it ends."""

    name: str
    popen: Child
    log: IO[bytes]
    module: str
    arguments: tuple[str, ...]
    begun_ms: int
    signs: int | None = None
    """The pipe over which it says that it lives: :class:`zgrid.lifeline.Signs`."""
    may_end: bool = False
    stopped_at: float | None = None
    looked_at: float = 0.0
    due: float | None = None
    """When it begins anew."""
    lives: bool = False
    has_lived: bool = False
    """Whether it has ever said that it lives."""
    heard_at: float = 0.0
    listened_at: float = 0.0

    def tail(self) -> str:
        """The last lines it wrote."""
        fd = self.log.fileno()
        size = os.fstat(fd).st_size
        text = os.pread(fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES)).decode(errors="replace")
        return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])

    def is_stopped(self) -> bool:
        """Whether it has been stopped for a while, as by SIGSTOP (Linux)."""
        try:
            state = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        now = time.monotonic()
        fresh = self.stopped_at is None or now - self.looked_at > _LOOKED_S  # it may have run in between
        self.looked_at = now
        self.stopped_at = (now if fresh else self.stopped_at) if state in "Tt" else None
        return self.stopped_at is not None and now - self.stopped_at > _STOPPED_S

    def hangs(self, limit_s: float) -> bool:
        """Whether it takes part in a run and has not said for so long that it lives. A pause of this process is not
        counted.
        """
        if self.signs is None:
            return False
        now = time.monotonic()
        said = b""
        with suppress(BlockingIOError):
            said = os.read(self.signs, 65536)
        if said:
            self.lives = said.endswith(LIVES)
            self.has_lived |= LIVES in said
        if said or now - self.listened_at > _LOOKED_S:
            self.heard_at = now
        self.listened_at = now
        return self.lives and now - self.heard_at > limit_s

    def how_it_ended(self) -> str:
        """In words."""
        code = self.popen.returncode
        assert code is not None
        return f"killed by signal {-code}" if code < 0 else f"exited with code {code}"

    def close(self) -> None:
        """Close its pipes and its log; it has ended. Again is harmless."""
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # unread input of a process that is gone
                    stream.close()
        if self.signs is not None:
            os.close(self.signs)
            self.signs = None
        if isinstance(self.popen, Sprout):
            self.popen.close()
        self.log.close()


def alive(processes: Sequence[Process]) -> Iterator[Process]:
    """Those that have not ended."""
    return (process for process in processes if process.popen.poll() is None)


def wait(processes: Sequence[Process], patience_s: float) -> None:
    """Let them end, but not longer than so many seconds in all."""
    deadline = time.monotonic() + patience_s
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.popen.wait(max(0.0, deadline - time.monotonic()))
