"""Electrical networks. To add one: write a file beside these, and a line in ``NETWORKS`` (base.py)."""

from __future__ import annotations

from zgrid.networks.base import NETWORKS, Network, PandapowerNetwork, TableNetwork, find_network
from zgrid.networks.tables import Names, NetworkTables, TapRange

__all__ = [
    "NETWORKS",
    "Names",
    "Network",
    "NetworkTables",
    "PandapowerNetwork",
    "TableNetwork",
    "TapRange",
    "find_network",
]
