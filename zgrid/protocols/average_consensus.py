"""Horizontal protocol ``average_consensus``: neighbours agree on the mean of a local value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from zgrid.messages import Floats
from zgrid.protocols.base import HorizontalProtocol, Outbox, ProtocolConfig


class AverageConsensusConfig(ProtocolConfig):
    """Parameters of the consensus."""

    kind: str = "average_consensus"
    value: Literal["p_pcc_mw", "vm_mean_pu", "price"] = Field(
        "p_pcc_mw", description="the local value: import at the PCC, mean voltage of the last step, or price"
    )
    rounds: int = Field(5, ge=1, le=1000, description="rounds per step; each sends one message to each neighbour")


class AverageConsensus(HorizontalProtocol):
    """x_i <- x_i + sum_j w_ij (x_j - x_i), with Metropolis weights, a fixed number of rounds per step.

    On a ring of n the error contracts by (1 + 2 cos(2 pi / n)) / 3 a round [Xiao and Boyd 2004, Fast linear
    iterations for distributed averaging]. It starts anew from the local value in each step.
    """

    Config: ClassVar[type[ProtocolConfig]] = AverageConsensusConfig
    RESULT = ("consensus",)

    def __init__(self, config: Any, weights: Mapping[str, float]) -> None:
        super().__init__(config, weights)
        self._x = 0.0

    def start(self, step: int, local: Mapping[str, float]) -> Outbox:
        self._x = local[self.config.value]
        return self._to_all()

    def on_round(self, round: int, inbox: Mapping[str, Floats]) -> Outbox:
        x = self._x
        change = 0.0
        for neighbour, weight in self.weights.items():
            change += weight * (inbox[neighbour][0] - x)
        self._x = x + change
        return self._to_all() if round < self.config.rounds else {}

    def result(self) -> Floats:
        return (self._x,)

    def _to_all(self) -> Outbox:
        return dict.fromkeys(self.weights, (self._x,))
