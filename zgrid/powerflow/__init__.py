"""Power flow backends. To add one: write a file beside these, and a line in ``POWER_FLOWS``."""

from __future__ import annotations

from typing import Any

from zgrid.powerflow.base import PowerFlow, Solution
from zgrid.registry import resolve_class

__all__ = ["POWER_FLOWS", "PowerFlow", "Solution", "power_flow_class"]

POWER_FLOWS = {
    "fast": "zgrid.powerflow.fast:FastPowerFlow",
    "runpp": "zgrid.powerflow.runpp:RunppPowerFlow",
}


def power_flow_class(kind: str) -> Any:
    """The :class:`PowerFlow` subclass of a kind.

    Raises:
        UnknownNameError: no such kind.
    """
    return resolve_class("power flow", kind, POWER_FLOWS, PowerFlow)
