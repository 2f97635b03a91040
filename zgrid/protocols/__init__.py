"""Coordination protocols. To add one: write a file beside these, and a line in ``VERTICAL`` or ``HORIZONTAL``."""

from __future__ import annotations

from typing import Any

from zgrid.protocols.base import (
    Controls,
    HorizontalProtocol,
    Outbox,
    ProtocolConfig,
    VerticalProtocol,
    metropolis_weights,
)
from zgrid.registry import resolve_class

__all__ = [
    "HORIZONTAL",
    "VERTICAL",
    "Controls",
    "HorizontalProtocol",
    "Outbox",
    "ProtocolConfig",
    "VerticalProtocol",
    "horizontal_class",
    "metropolis_weights",
    "vertical_class",
]

VERTICAL = {"setpoint": "zgrid.protocols.setpoint:SetpointProtocol"}
HORIZONTAL = {"average_consensus": "zgrid.protocols.average_consensus:AverageConsensus"}


def vertical_class(kind: str) -> Any:
    """The :class:`VerticalProtocol` subclass of a kind.

    Raises:
        UnknownNameError: no such kind.
    """
    return resolve_class("vertical protocol", kind, VERTICAL, VerticalProtocol)


def horizontal_class(kind: str) -> Any:
    """The :class:`HorizontalProtocol` subclass of a kind.

    Raises:
        UnknownNameError: no such kind.
    """
    return resolve_class("horizontal protocol", kind, HORIZONTAL, HorizontalProtocol)
