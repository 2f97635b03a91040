"""What commands share: exit codes, arguments that several take, how they tell an error, and SIGTERM."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from zgrid.errors import Finding, TopologyError, ZgridError

OK, FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def make_folder(out: Path) -> None:
    """Make the folder of results now, not after the run.

    Raises:
        TopologyError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TopologyError("command line", [Finding("--out", f"expected a folder: {error}")]) from error


def policy_settings(text: str) -> dict[str, Any]:
    """``--policy`` as overrides: every grid plays it."""
    return {"policy": policy_text(text), "grids.*.policy": None}


def policy_text(text: str) -> str:
    """A policy named on a command line; a file is looked for where the command is started, then among the shipped."""
    kind, colon, file = text.partition(":")
    if kind != "onnx" or not colon:
        return text
    return f"onnx:{Path(file).absolute()}" if Path(file).exists() or "{grid}" in file or "/" in file else text


def count(text: str) -> int:
    """An argument that counts something, at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected at least 1")
    return number


def tell(text: str, code: int) -> int:
    """Print a text to standard error; the exit code, for the caller to return."""
    print(text, file=sys.stderr)
    return code


def add_connect(made: argparse.ArgumentParser) -> None:
    """Which run to watch."""
    made.add_argument(
        "--connect", metavar="HOST:PORT,PORT", help="the run's proxy (default: the newest run on this machine)"
    )
    made.add_argument("--keys", metavar="FOLDER", help="folder with the key of a watcher (default: as that run has it)")


def seconds(text: str) -> float:
    """An argument that is a time."""
    number = float(text)
    if not 0.0 < number < 1e9:
        raise argparse.ArgumentTypeError("expected seconds, more than 0")
    return number


def guarded(command: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command; errors become a line on standard error and an exit code."""
    try:
        return command(arguments)
    except TopologyError as error:
        return tell(str(error), BAD_INPUT)
    except ZgridError as error:
        return tell(f"error: {error}", FAILED)
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED


def nothing_heard(address: object, listened_s: float) -> int:
    """Say that there was nothing at a proxy; the exit code."""
    return tell(
        f"nothing heard at {address} within {listened_s:g} s; is a run going on? start one with: "
        f"python launch.py topologies/3mg.yaml --episodes 200",
        FAILED,
    )


class Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def sigterm_raises(kind: type[BaseException] = Terminated) -> Iterator[None]:
    """Let SIGTERM unwind like Ctrl-C, so that everything is ended in order.

    Raises:
        Terminated: when it comes, or what else ``kind`` is.
    """

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        raise kind

    before = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
