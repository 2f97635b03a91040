"""Stopping: a Ctrl-C or SIGTERM ends a training after the iteration under way, so that it can be saved."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Use as a context around a training run. The first signal only asks for the end; the second one forces it, by a
    KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        """128 + the signal that asked for the end, as shells tell it; 0 where none did."""
        self._before: list[Any] = []

    @property
    def is_asked(self) -> bool:
        """Whether to end."""
        return self.exit_code != 0

    def __enter__(self) -> Self:
        self._before = [signal.signal(number, self._on_signal) for number in _SIGNALS]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for number, before in zip(_SIGNALS, self._before, strict=True):
            signal.signal(number, before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.exit_code = 128 + number
