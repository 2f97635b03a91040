"""Horizontal protocol ``ratio_consensus``: equal shares of the units' ranges, or a mean, exact under loss too."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from zgrid.protocols.base import DispatchConfig, Inbox, Local, Outbox, Participant, Protocol, Result, RoundsConfig
from zgrid.protocols.running_sums import RunningSums


class RatioConsensusConfig(DispatchConfig):
    """Parameters of the ratio consensus."""

    kind: str = "ratio_consensus"
    value: Literal["share", "p_pcc_mw", "vm_mean_pu", "price"] = Field(
        "share",
        description="what to agree on: share, of the units' ranges that meets the demand; or the mean of a local "
        "value: import at the PCC, mean voltage of the last step, or price",
    )
    rounds: int = Field(50, ge=1, le=10_000, description="most rounds per step; one message per neighbour each")


class RatioConsensus(Protocol):
    """y_i and z_i are spread by the same weights, 1 / (1 + degree); everywhere y_i / z_i -> sum y / sum z = r.

    ``share``: y_i = demand_i - sum p_min, z_i = sum (p_max - p_min) of its units, and each unit runs at
    p_min + r (p_max - p_min), r within [0, 1] [Dominguez-Garcia and Hadjicostis 2010, Coordination and control of
    distributed energy resources for provision of ancillary services]. Demand that cannot be met shows as a ratio of
    0 or 1. Other values: y_i is the value and z_i = 1, so r is the mean.

    A message holds the totals of y and z given so far, so loss, delay, duplication and reordering cost time only.
    """

    Config: ClassVar[type[RoundsConfig]] = RatioConsensusConfig
    RESULT = ("ratio",)
    TOLERATES = frozenset({"loss", "delay"})

    @classmethod
    def needs(cls, config: Any) -> tuple[str, ...]:
        return () if config.value == "share" else (config.value,)

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        super().__init__(config, me, rng)
        self._y = self._z = self._ratio = 0.0
        self._local = Local()
        self._sums = RunningSums((), 2)
        self._apart: dict[str, float] = {}

    def start(self, step: int, local: Local) -> Outbox:
        self._local = local
        if self.config.value == "share":
            self._y = local.demand_mw - sum(unit.p_min_mw for unit in local.units)
            self._z = sum(unit.p_max_mw - unit.p_min_mw for unit in local.units)
        else:
            self._y, self._z = local.values[self.config.value], 1.0
        self._ratio = self._y / self._z if self._z > 0.0 else 0.0
        self._sums = RunningSums(self.me.weights, 2)
        self._apart = dict.fromkeys(self.me.weights, float("inf"))
        return self._give()

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        told: dict[str, float] = {}
        for neighbour in self.me.weights:
            totals = self._sums.newest(neighbour, round, inbox[neighbour])
            if totals is None:
                continue
            y, z = self._sums.gain(neighbour, totals)
            self._y += y
            self._z += z
            if z > 0.0:
                told[neighbour] = y / z
        if self._z > 0.0:
            self._ratio = self._y / self._z
        self._apart |= {neighbour: abs(ratio - self._ratio) for neighbour, ratio in told.items()}
        return self._give()

    def residual(self) -> float:
        """The largest difference to the ratio that a neighbour was last heard to have."""
        return max(self._apart.values(), default=0.0)

    def result(self) -> Result:
        if self.config.value != "share":
            return Result((self._ratio,))
        ratio = min(max(self._ratio, 0.0), 1.0)
        units = self._local.units
        dispatch = {unit.id: unit.p_min_mw + ratio * (unit.p_max_mw - unit.p_min_mw) for unit in units}
        return Result((ratio,), dispatch)

    def _give(self) -> Outbox:
        """Give every neighbour, and keep, the same part of y and z."""
        share = 1.0 / (1.0 + len(self.me.weights))
        self._y *= share
        self._z *= share
        return dict.fromkeys(self.me.weights, self._sums.give((self._y, self._z)))
