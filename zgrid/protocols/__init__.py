"""Coordination protocols. To add one: write a file beside these, and a line in ``VERTICAL`` or ``HORIZONTAL``."""

from __future__ import annotations

from typing import Any

from zgrid.errors import UnknownNameError
from zgrid.protocols.base import (
    AveragingConfig,
    Controls,
    DispatchConfig,
    EventProtocol,
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
    TradingConfig,
    Unit,
    VerticalProtocol,
)
from zgrid.protocols.graph import Graph, islands, metropolis_weights, peers, star, weight_misfits
from zgrid.protocols.rounds import Rounds, checked
from zgrid.protocols.run import Run, Table, generator, prepared, seated
from zgrid.registry import resolve_class

__all__ = [
    "HORIZONTAL",
    "VERTICAL",
    "AveragingConfig",
    "Controls",
    "DispatchConfig",
    "EventProtocol",
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
    "TradingConfig",
    "Unit",
    "VerticalProtocol",
    "checked",
    "generator",
    "horizontal_class",
    "islands",
    "metropolis_weights",
    "peers",
    "prepared",
    "seated",
    "star",
    "vertical_class",
    "weight_misfits",
]

VERTICAL = {
    "droop": "zgrid.protocols.droop:DroopProtocol",
    "none": "zgrid.protocols.none:NoVertical",
    "price_signal": "zgrid.protocols.price_signal:PriceSignalProtocol",
    "setpoint": "zgrid.protocols.setpoint:SetpointProtocol",
}
HORIZONTAL = {
    "average_consensus": "zgrid.protocols.average_consensus:AverageConsensus",
    "consensus_admm": "zgrid.protocols.consensus_admm:ConsensusAdmm",
    "double_auction": "zgrid.protocols.double_auction:DoubleAuction",
    "exchange_admm": "zgrid.protocols.exchange_admm:ExchangeAdmm",
    "incremental_cost_consensus": "zgrid.protocols.incremental_cost_consensus:IncrementalCostConsensus",
    "none": "zgrid.protocols.none:NoHorizontal",
    "p2p_trading": "zgrid.protocols.p2p_trading:P2PTrading",
    "ratio_consensus": "zgrid.protocols.ratio_consensus:RatioConsensus",
    "secondary_control": "zgrid.protocols.secondary_control:SecondaryControl",
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
        UnknownNameError: no such kind, or one whose ``Config`` says nothing of rounds.
    """
    found = resolve_class("horizontal protocol", kind, HORIZONTAL, Protocol)
    if not issubclass(found.Config, RoundsConfig):
        raise UnknownNameError(f"horizontal protocol {kind!r}: its Config has to be a zgrid.protocols.RoundsConfig")
    return found
