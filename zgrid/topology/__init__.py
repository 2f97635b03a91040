"""The topology file: schema, loading, checking."""

from __future__ import annotations

from zgrid.topology.check import load_calendar, may_bind, open_bind
from zgrid.topology.json_schema import json_schema
from zgrid.topology.kinds import findings_of
from zgrid.topology.load import SHIPPED_FOLDERS, Source, examine, load, override, read_yaml
from zgrid.topology.overrides import parse_overrides
from zgrid.topology.schema import GridConfig, NetworkConfig, Topology

__all__ = [
    "SHIPPED_FOLDERS",
    "GridConfig",
    "NetworkConfig",
    "Source",
    "Topology",
    "examine",
    "findings_of",
    "json_schema",
    "load",
    "load_calendar",
    "may_bind",
    "open_bind",
    "override",
    "parse_overrides",
    "read_yaml",
]
