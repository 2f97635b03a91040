"""Chance without a generator: every draw is a hash of what it is for, so neither order nor placement can change it."""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct

LOSS, START, CHAIN, BURST, DUPLICATE, REORDER, DELAY, JITTER = range(8)
"""What a draw is for."""

_PACK = Struct("<5q")
_UNIT = 2.0**-52


class Draws:
    """The draws of one link: BLAKE2b, keyed by the episode's seed, source, destination and kind."""

    def __init__(self, seed: int, source: str, destination: str, kind: str) -> None:
        self._key = blake2b("\0".join((str(seed), source, destination, kind)).encode(), digest_size=32).digest()

    def uniform(self, step: int, round: int, rule: int, purpose: int, copy: int = 0) -> float:
        """A number in (0, 1), the ends not within, for the message of a step and round: 52 bits of the hash."""
        what = _PACK.pack(step, round, rule, purpose, copy)
        bits = int.from_bytes(blake2b(what, key=self._key, digest_size=8).digest(), "little") >> 12
        return (bits + 0.5) * _UNIT
