"""The topology file: schema, loading, checking."""

from __future__ import annotations

from zgrid.topology.check import load_calendar, may_bind, open_bind
from zgrid.topology.json_schema import json_schema
from zgrid.topology.load import Source, examine, load
from zgrid.topology.overrides import parse_overrides
from zgrid.topology.schema import GridConfig, NetworkConfig, Topology

__all__ = [
    "GridConfig",
    "NetworkConfig",
    "Source",
    "Topology",
    "examine",
    "json_schema",
    "load",
    "load_calendar",
    "may_bind",
    "open_bind",
    "parse_overrides",
]
