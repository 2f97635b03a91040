"""Running sums: what a participant gives away is said as the total it ever gave, so that nothing is lost for good.

A message that arrives makes up for all that were lost before it; one that comes twice, or after a later one, adds
nothing [Hadjicostis, Vaidya and Dominguez-Garcia 2016, Robust distributed average consensus via exchange of running
sums].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zgrid.messages import Floats
from zgrid.protocols.base import Heard


class RunningSums:
    """The totals that one participant has given each of its neighbours, and those that each has given it, in a step."""

    def __init__(self, neighbours: Iterable[str], entries: int) -> None:
        self.totals: Floats = (0.0,) * entries
        self._heard: dict[str, Floats] = dict.fromkeys(neighbours, self.totals)
        self._since: dict[str, int] = dict.fromkeys(self._heard, 0)

    def give(self, amounts: Floats) -> Floats:
        """Add to what every neighbour is given; the totals to send."""
        self.totals = tuple(total + amount for total, amount in zip(self.totals, amounts, strict=True))
        return self.totals

    def newest(self, sender: str, round: int, messages: Sequence[Heard]) -> Floats | None:
        """The message that was said last, if it was said after all that were taken before."""
        said, values = max(((round - heard.age, heard.values) for heard in messages), default=(0, ()))
        if said <= self._since[sender]:
            return None
        self._since[sender] = said
        return values

    def gain(self, sender: str, totals: Floats) -> Floats:
        """What a neighbour has given since it was last heard, by its totals."""
        before, self._heard[sender] = self._heard[sender], totals
        return tuple(now - then for now, then in zip(totals, before, strict=True))
