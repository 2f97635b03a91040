"""Gather: the only synchronisation, one message from each expected sender of one step and round.

Early messages wait, late ones are refused, and what is handed over is in the order of the expected senders, so that
arithmetic never depends on the order of arrival.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

TAKEN, STALE, DUPLICATE, STRANGER = "taken", "stale", "duplicate", "stranger"


class Gather(Generic[T]):
    """Collects one value per expected sender for the open (step, round), and holds those of later ones."""

    def __init__(self, expected: Iterable[str]) -> None:
        self.expected = tuple(expected)
        self._senders = frozenset(self.expected)
        self._count = len(self.expected)
        self._open = (-1, 0)
        self._values: dict[str, T] = {}
        self._early: dict[tuple[int, int], dict[str, T]] = {}
        self.complete = not self._count
        """Whether every expected sender has been heard for the open step and round."""

    def open(self, step: int, round: int = 0) -> None:
        """Wait for this step and round from now on; anything older is refused."""
        self._open = key = (step, round)
        self._values = values = self._early.pop(key, {}) if self._early else {}
        self.complete = len(values) == self._count
        if self._early:
            self._early = {other: values for other, values in self._early.items() if other > key}

    def add(self, sender: str, value: T, step: int, round: int = 0) -> str:
        """Take a value: "taken" (also when it is early), or why it is refused: "stale", "duplicate", "stranger"."""
        if sender not in self._senders:
            return STRANGER
        key = (step, round)
        if key == self._open:
            values = self._values
        elif key < self._open:
            return STALE
        else:
            values = self._early.setdefault(key, {})
        if sender in values:
            return DUPLICATE
        values[sender] = value
        self.complete = len(self._values) == self._count
        return TAKEN

    @property
    def missing(self) -> tuple[str, ...]:
        """Expected senders not heard yet, in order."""
        return tuple(sender for sender in self.expected if sender not in self._values)

    def values(self) -> list[T]:
        """The values in the order of the expected senders; call when complete."""
        values = self._values
        return [values[sender] for sender in self.expected]
