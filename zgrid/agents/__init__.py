"""Agents: decision logic without I/O; messages in, messages out."""

from __future__ import annotations

from zgrid.agents.device import DeviceAgent
from zgrid.agents.grid import GridAgent
from zgrid.agents.spec import DeviceSpec, GridSpec

__all__ = ["DeviceAgent", "DeviceSpec", "GridAgent", "GridSpec"]
