"""Totals: what has become of the messages on all links with faults, as rows that add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple
from typing import Any

from zgrid.links.ears import Ears
from zgrid.links.link import COUNTED, Counts
from zgrid.messages import LinkCounts

LINK = ("source", "destination", "kind")
"""What tells a link from others."""


def counted(ears: Iterable[Ears | None]) -> tuple[LinkCounts, ...]:
    """What these have counted in this episode: one for each link with faults over which something was said."""
    return tuple(
        LinkCounts(sender, one.id, kind, *astuple(counts))
        for one in ears
        if one is not None
        for (kind, sender), counts in one.counts().items()
    )


def summed(records: Iterable[Mapping[str, Any]], by: Sequence[str] = LINK) -> list[dict[str, Any]]:
    """Counts by name, added up where they are alike in ``by``, in the order of that: these names, those of ``Counts``,
    and ``age_mean``, the mean over all periods.
    """
    totals: dict[tuple[str, ...], Counts] = {}
    for one in records:
        total = totals.setdefault(tuple(one[name] for name in by), Counts())
        total.add(Counts(*(one[name] for name in COUNTED)))
    return [
        {**dict(zip(by, key, strict=True)), **asdict(total), "age_mean": total.age_mean}
        for key, total in sorted(totals.items(), key=lambda pair: pair[0])
    ]
