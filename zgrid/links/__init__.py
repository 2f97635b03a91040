"""Faults of links: what delays, losses and attacks make of what agents hear. Without rules nothing of it is there."""

from __future__ import annotations

from zgrid.links.config import Delay, FalseData, GilbertElliott, LinkConfig
from zgrid.links.ears import Ears, Links, reaches
from zgrid.links.link import Counts, Link
from zgrid.links.totals import counted, summed

__all__ = [
    "Counts",
    "Delay",
    "Ears",
    "FalseData",
    "GilbertElliott",
    "Link",
    "LinkConfig",
    "Links",
    "counted",
    "reaches",
    "summed",
]
