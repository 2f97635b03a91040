"""A horizontal protocol of one's own: neighbours agree on the highest value any of them has.

``python examples/own_protocol.py`` runs it alone, without physics. Between the three grids of a topology:
``python launch.py topologies/3mg.yaml --set 'horizontal={kind: examples.own_protocol:MaxConsensus, rounds: 2}'``
plays it, and each grid sees the result in its observation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from zgrid.protocols import Inbox, Local, Outbox, Participant, Protocol, Result, RoundsConfig, Table


class MaxConsensusConfig(RoundsConfig):
    """What the topology says of it; unknown keys are errors."""

    value: str = Field("p_pcc_mw", pattern="^(p_pcc_mw|vm_mean_pu|price)$", description="the local value")


class MaxConsensus(Protocol):
    """x_i <- max(x_i, x_j): after as many rounds as the graph is wide, everybody has the maximum."""

    Config = MaxConsensusConfig
    RESULT = ("highest",)
    TOLERATES = frozenset(("loss", "delay"))

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        super().__init__(config, me, rng)
        self.x = 0.0

    def start(self, step: int, local: Local) -> Outbox:
        self.x = local.values[self.config.value]
        return dict.fromkeys(self.me.weights, (self.x,))

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        self.x = max([self.x, *(heard.values[0] for messages in inbox.values() for heard in messages)])
        return dict.fromkeys(self.me.weights, (self.x,))

    def result(self) -> Result:
        return Result((self.x,))


if __name__ == "__main__":
    table = Table(MaxConsensus, {"rounds": 2}, {"a": ["b"], "b": ["a", "c"], "c": ["b"]})
    run = table.play({name: Local({"p_pcc_mw": value}) for name, value in {"a": 3.0, "b": 1.0, "c": 2.0}.items()})
    print({name: result.values[0] for name, result in run.results.items()}, f"in {run.messages} messages")
