"""Coordination protocols. To add one: write a file beside these, and a line in ``VERTICAL`` or ``HORIZONTAL``."""

from __future__ import annotations

from typing import Any

from zgrid.protocols.base import (
    Controls,
    Heard,
    Inbox,
    Local,
    LocalControl,
    Outbox,
    Participant,
    Protocol,
    ProtocolConfig,
    Result,
    RoundsConfig,
    Status,
    Trade,
    Unit,
    VerticalProtocol,
)
from zgrid.protocols.graph import Graph, metropolis_weights, peers, star
from zgrid.protocols.rounds import Frame, Rounds
from zgrid.protocols.run import Run, Table, generator
from zgrid.registry import resolve_class

__all__ = [
    "HORIZONTAL",
    "VERTICAL",
    "Controls",
    "Frame",
    "Graph",
    "Heard",
    "Inbox",
    "Local",
    "LocalControl",
    "Outbox",
    "Participant",
    "Protocol",
    "ProtocolConfig",
    "Result",
    "Rounds",
    "RoundsConfig",
    "Run",
    "Status",
    "Table",
    "Trade",
    "Unit",
    "VerticalProtocol",
    "generator",
    "horizontal_class",
    "metropolis_weights",
    "peers",
    "star",
    "vertical_class",
]

VERTICAL = {"setpoint": "zgrid.protocols.setpoint:SetpointProtocol"}
HORIZONTAL = {
    "average_consensus": "zgrid.protocols.average_consensus:AverageConsensus",
    "double_auction": "zgrid.protocols.double_auction:DoubleAuction",
    "p2p_trading": "zgrid.protocols.p2p_trading:P2PTrading",
}


def vertical_class(kind: str) -> Any:
    """The :class:`VerticalProtocol` subclass of a kind.

    Raises:
        UnknownNameError: no such kind.
    """
    return resolve_class("vertical protocol", kind, VERTICAL, VerticalProtocol)


def horizontal_class(kind: str) -> Any:
    """The :class:`Protocol` subclass of a kind.

    Raises:
        UnknownNameError: no such kind.
    """
    return resolve_class("horizontal protocol", kind, HORIZONTAL, Protocol)
