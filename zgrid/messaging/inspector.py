"""Inspector: what a broker that crosses process boundaries checks of each envelope before it hands it on."""

from __future__ import annotations

import logging
from collections import Counter

from zgrid.errors import LostMessageError
from zgrid.messages import Envelope, RollCall

logger = logging.getLogger(__name__)

_CAUSES = 1000
_NAME = 80


class Inspector:
    """Right run, newest incarnation, no gap. What is refused is counted per cause and sender, and logged once."""

    def __init__(self, refused: Counter[str], run: str | None, *, tolerant: bool = False) -> None:
        """``run`` None: belong to none yet, and hear nothing but roll calls, until :meth:`adopt`. ``tolerant``: count a
        gap, and take what comes after it.
        """
        self._tolerant = tolerant
        self.speakers: dict[str, set[str]] = {}
        """Who speaks on a channel, where that is known."""
        self._refused = refused
        self._run = run
        self._incarnation: dict[str, int] = {}
        self._next: dict[tuple[str, str], tuple[int, int]] = {}

    def adopt(self, run: str) -> None:
        """Belong to this run, unless to one already."""
        if self._run is None:
            self._run = run

    def follows(self, run: str, key: tuple[str, str], incarnation: int, sequence: int) -> bool:
        """Whether this is simply the next in line, of (sender, channel), as nearly all are; :meth:`accepts` knows the
        rest.
        """
        if run == self._run and self._next.get(key) == (incarnation, sequence):
            self._next[key] = (incarnation, sequence + 1)
            return True
        return False

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
        if type(envelope.body) is RollCall:
            return True  # also of another run: whoever hosts agents decides whether to leave for it
        if self._run is None:
            return self.refuse("no_run_yet", sender)
        if run != self._run:
            return self.refuse("other_run", sender)
        return self._judge(sender, channel, incarnation, sequence)

    def admits(self, sender: str, incarnation: int) -> bool:
        """Whether this incarnation of a sender is to be heard; from now on no older one is."""
        known = self._incarnation.get(sender, 0)
        if incarnation < known:
            return self.refuse("old_incarnation", sender)
        if incarnation > known:
            self._succeed(sender, incarnation)
        return True

    def _succeed(self, sender: str, incarnation: int) -> None:
        """A new incarnation speaks: its sequences begin anew."""
        self._incarnation[sender] = incarnation
        self._next = {key: value for key, value in self._next.items() if key[0] != sender}

    def forget(self) -> None:
        """Expect nothing of anybody's next sequence: whatever comes first is taken."""
        self._next.clear()

    def _judge(self, sender: str, channel: str, incarnation: int, sequence: int) -> bool:
        """Whether to hand on what is of this run, but not simply the next in line."""
        if sender not in self.speakers.get(channel, (sender,)):
            return True  # a stranger, for the hearers to refuse; what it claims to be is not believed
        known = self._incarnation.get(sender, -1)
        if incarnation < known:
            return self.refuse("old_incarnation", sender)
        if incarnation > known:
            self._succeed(sender, incarnation)
        _, expected = self._next.get((sender, channel), (incarnation, sequence))
        if sequence < expected:
            return self.refuse("duplicate", sender)
        self._next[sender, channel] = (incarnation, sequence + 1)
        if sequence > expected:
            self.refuse("gap", sender)
            if self._tolerant:
                return True
            raise LostMessageError(sender, channel, expected, sequence)
        return True

    def refuse(self, cause: str, sender: str = "") -> bool:
        """Count a refusal, and log it if it is the first of its kind; always False."""
        if count_refusal(self._refused, cause, sender) == 1:
            logger.warning("refused a message: %s (told once; see the counters)", f"{cause} {sender}".strip())
        return False


def count_refusal(refused: Counter[str], cause: str, sender: str) -> int:
    """Count a refusal by cause and sender; how often it happened. Names off the wire do not fill the memory: past
    1,000 different ones only the cause is counted.
    """
    key = f"{cause} {sender[:_NAME]}".strip()
    if key not in refused and len(refused) >= _CAUSES:
        key = cause
    refused[key] += 1
    return refused[key]
