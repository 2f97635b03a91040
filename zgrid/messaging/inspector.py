"""Inspector: what a broker that crosses process boundaries checks of each envelope before it hands it on."""

from __future__ import annotations

import logging
from collections import Counter

from zgrid.errors import LostMessageError
from zgrid.messages import Envelope

logger = logging.getLogger(__name__)


class Inspector:
    """Right run, newest incarnation, no gap. What is refused is counted per cause and sender, and logged once."""

    def __init__(self, refused: Counter[str], run: str | None) -> None:
        """``run`` None: adopt the run of the first envelope that :meth:`adopt` is called with."""
        self._refused = refused
        self._run = run
        self._incarnation: dict[str, int] = {}
        self._next: dict[tuple[str, str], tuple[int, int]] = {}

    def adopt(self, run: str) -> None:
        """Belong to this run, unless to one already."""
        if self._run is None:
            self._run = run

    def accepts(self, channel: str, envelope: Envelope) -> bool:
        """Whether to hand the envelope on.

        Raises:
            LostMessageError: the sender's sequence on this channel has a gap.
        """
        sender, run, incarnation, sequence, *_ = envelope
        key = (sender, channel)
        if run == self._run and self._next.get(key) == (incarnation, sequence):
            self._next[key] = (incarnation, sequence + 1)
            return True
        return self._judge(key, run, incarnation, sequence)

    def _judge(self, key: tuple[str, str], run: str, incarnation: int, sequence: int) -> bool:
        """Whether to hand on what is not simply the next in line."""
        sender, channel = key
        if run != self._run and self._run is not None:
            return self.refuse("other_run", sender)
        known = self._incarnation.get(sender, -1)
        if incarnation < known:
            return self.refuse("old_incarnation", sender)
        self._incarnation[sender] = incarnation
        expected = self._next.get(key, (incarnation, sequence))
        if expected[0] == incarnation and sequence < expected[1]:
            return self.refuse("duplicate", sender)
        self._next[key] = (incarnation, sequence + 1)
        if expected[0] == incarnation and sequence > expected[1]:
            self._refused[f"gap {sender}"] += 1
            raise LostMessageError(sender, channel, expected[1], sequence)
        return True

    def refuse(self, cause: str, sender: str = "") -> bool:
        """Count a refusal, and log it if it is the first of its kind; always False."""
        key = f"{cause} {sender}".strip()
        self._refused[key] += 1
        if self._refused[key] == 1:
            logger.warning("refused a message: %s (told once; see the counters)", key)
        return False
