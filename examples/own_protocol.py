"""A horizontal protocol of one's own: neighbours agree on the highest value any of them has.

``python launch.py topologies/3mg.yaml --set 'horizontal={kind: examples.own_protocol:MaxConsensus, rounds: 2}'``
plays it between the three grids; each sees the result in its observation.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from zgrid import HorizontalProtocol, ProtocolConfig


class MaxConsensusConfig(ProtocolConfig):
    """What the topology says of it; unknown keys are errors."""

    value: str = Field("p_pcc_mw", pattern="^(p_pcc_mw|vm_mean_pu|price)$", description="the local value")
    rounds: int = Field(3, ge=1, description="rounds per step; as many as the graph is wide")


class MaxConsensus(HorizontalProtocol):
    """x_i <- max(x_i, x_j): after as many rounds as the graph is wide, everybody has the maximum."""

    Config = MaxConsensusConfig
    RESULT = ("highest",)

    def __init__(self, config: Any, weights: Any) -> None:
        super().__init__(config, weights)
        self.x = 0.0

    def start(self, step: int, local: Any) -> dict[str, tuple[float, ...]]:
        self.x = local[self.config.value]
        return dict.fromkeys(self.weights, (self.x,))

    def on_round(self, round: int, inbox: Any) -> dict[str, tuple[float, ...]]:
        self.x = max(self.x, *(values[0] for values in inbox.values()))
        return dict.fromkeys(self.weights, (self.x,)) if round < self.config.rounds else {}

    def result(self) -> tuple[float, ...]:
        return (self.x,)
