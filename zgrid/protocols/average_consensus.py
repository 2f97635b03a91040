"""Horizontal protocol ``average_consensus``: neighbours agree on the mean of a local value."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from zgrid.protocols.base import Inbox, Local, Outbox, Participant, Protocol, ProtocolConfig, Result, RoundsConfig


class AverageConsensusConfig(RoundsConfig):
    """Parameters of the consensus."""

    kind: str = "average_consensus"
    value: Literal["p_pcc_mw", "vm_mean_pu", "price"] = Field(
        "p_pcc_mw", description="the local value: import at the PCC, mean voltage of the last step, or price"
    )
    rounds: int = Field(5, ge=1, le=10_000, description="rounds per step; each sends one message to each neighbour")


class AverageConsensus(Protocol):
    """x_i <- x_i + sum_j w_ij (x_j - x_i), with Metropolis weights.

    On a ring of n the error contracts by (1 + 2 cos(2 pi / n)) / 3 a round [Xiao and Boyd 2004, Fast linear
    iterations for distributed averaging]. It starts anew from the local value in each step. A neighbour that was not
    heard in a round is left out of it, so the mean drifts under loss: ratio_consensus does not.
    """

    Config: ClassVar[type[ProtocolConfig]] = AverageConsensusConfig
    RESULT = ("consensus",)

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        super().__init__(config, me, rng)
        self._x, self._spread = 0.0, float("inf")

    def start(self, step: int, local: Local) -> Outbox:
        self._x, self._spread = local.values[self.config.value], float("inf")
        return self._to_all()

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        x = self._x
        change = spread = 0.0
        for neighbour, weight in self.me.weights.items():
            for values, _ in inbox[neighbour][-1:]:
                change += weight * (values[0] - x)
                spread = max(spread, abs(values[0] - x))
        self._x, self._spread = x + change, spread
        return self._to_all()

    def residual(self) -> float:
        return self._spread

    def result(self) -> Result:
        return Result((self._x,))

    def _to_all(self) -> Outbox:
        return dict.fromkeys(self.me.weights, (self._x,))
