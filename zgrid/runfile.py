"""Run files: where the runs of this user and machine can be watched, one small file each while they live."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self


class RunFile(NamedTuple):
    """A run that goes on, or went on when its process was killed."""

    path: Path
    pid: int
    address: str
    """``HOST:PORT,PORT`` of its proxy."""
    topology: str
    keys: str | None
    """Its folder of keys."""
    started: float
    """Seconds since 1970."""

    @classmethod
    def write(cls, address: str, topology: str, keys: str | None = None) -> Self | None:
        """Tell of a run of this process; None where the folder is not ours to write: a run goes on without."""
        pid, started = os.getpid(), time.time()
        path = folder() / f"{pid}-{address.rpartition(',')[2]}.json"
        content = {"pid": pid, "address": address, "topology": topology, "keys": keys, "started": started}
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            if not _is_ours(path.parent):
                return None
            path.unlink(missing_ok=True)  # of a process that had the same pid
            with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                json.dump(content, file)
        except OSError:
            return None
        return cls(path, pid, address, topology, keys, started)

    def remove(self) -> None:
        """The run is over; again is harmless."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def folder() -> Path:
    """Where they are."""
    return Path(tempfile.gettempdir()) / f"zgrid-{os.getuid()}"


def living() -> list[RunFile]:
    """The runs of this user whose process lives, newest first. Those that were left behind are removed."""
    if not _is_ours(folder()):
        return []
    runs = []
    for run in _readable():
        if _is_alive(run.pid):
            runs.append(run)
        else:
            run.remove()
    return sorted(runs, key=lambda run: run.started, reverse=True)


def _readable() -> Iterator[RunFile]:
    runs = (_read(path) for path in folder().glob("*.json"))
    return (run for run in runs if run is not None)


def _read(path: Path) -> RunFile | None:
    """What a run file says; None of one that is written or removed at this moment, or is none of ours."""
    try:
        raw = json.loads(path.read_text())
        keys = None if raw["keys"] is None else str(raw["keys"])
        return RunFile(path, int(raw["pid"]), str(raw["address"]), str(raw["topology"]), keys, float(raw["started"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _is_ours(path: Path) -> bool:
    """Whether a folder belongs to this user alone: anybody may make one in the folder of temporary files."""
    try:
        state = path.lstat()
    except OSError:
        return False
    return state.st_uid == os.getuid() and not path.is_symlink() and state.st_mode & 0o077 == 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
