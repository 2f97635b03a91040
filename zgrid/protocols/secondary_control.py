"""Horizontal protocol ``secondary_control``: neighbours bring frequency or voltage back with equal effort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from zgrid.protocols.base import AveragingConfig, Inbox, Local, Outbox, Participant, Protocol, Result, RoundsConfig


class SecondaryControlConfig(AveragingConfig):
    """Parameters of the control. ``tolerance`` is of the difference of efforts between neighbours."""

    kind: str = "secondary_control"
    value: Literal["voltage", "frequency"] = Field(
        "voltage",
        description="what is brought back: the mean voltage of the last step (vm_mean_pu), or the frequency "
        "(deviation_hz)",
    )
    rounds: int = Field(20, ge=1, le=10_000, description="rounds per step; each sends one message to each neighbour")
    integral_gain: float = Field(
        0.5, gt=0, description="share of the error that a step is to take away; it must be below 2"
    )
    v_ref_pu: float = Field(1.0, gt=0, description="voltage to bring back, pu")
    rise_pu: float = Field(
        0.05, gt=0, description="how much the mean voltage rises when all go from no effort to full effort, pu"
    )
    effort_max_hz: float = Field(5.0, gt=0, description="most effort for frequency, Hz; for voltage it is 1 pu")


class SecondaryControl(Protocol):
    """Distributed-averaging proportional-integral control (DAPI) [Simpson-Porco, Doerfler and Bullo 2013,
    Synchronization and power sharing for droop-controlled inverters in islanded microgrids]:

        k_i dO_i/dt = -error_i - sum_j a_ij (O_i - O_j)

    Here the integral acts once a step and the averaging in rounds, with weights w, Metropolis where none are given:

    - start:  O_i <- O_i - integral_gain error_i / rise
    - round:  O_i <- O_i + sum_j w_ij (O_j - O_i)

    - ``frequency``: the error is the deviation in Hz and rise is 1. The effort O is in Hz: a grid with the droop gain
      D_i in MW/Hz gives D_i (O_i - deviation), so the shares stay those of the droop alone while the deviation goes
      to 0.
    - ``voltage``: the error is vm_mean_pu - v_ref. The effort is ``q_pu``, pu of ratings, so equal effort is an equal
      share of what each has. Voltages of different grids cannot all be brought back by equal shares [Simpson-Porco et
      al. 2015, Secondary frequency and voltage control of islanded microgrids via distributed averaging]: with many
      rounds the efforts are equal and the mean voltage is right, with few each minds its own voltage more.

    The effort is kept over the steps of an episode and cut to its limits, where the integral stops. The error
    is multiplied by 1 - integral_gain a step if rise is right, so it settles iff integral_gain < 2, without swinging
    below 1. Who is not heard in a round is left out of it: a loss disturbs the efforts of a step and the integral takes
    that away in the next ones, so within one step the result is another, and loss is not among what it declares.
    """

    Config: ClassVar[type[RoundsConfig]] = SecondaryControlConfig
    RESULT = ("effort",)

    @classmethod
    def needs(cls, config: Any) -> tuple[str, ...]:
        return ("vm_mean_pu",) if config.value == "voltage" else ("deviation_hz",)

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        super().__init__(config, me, rng)
        self._effort = 0.0
        self._spread = float("inf")

    @classmethod
    def misfits(cls, config: Any, graph: Mapping[str, Sequence[str]]) -> list[str]:
        gain = config.integral_gain
        if gain < 2.0:
            return []
        return [f"secondary_control: with an integral_gain of {gain:g} the error grows; it must be below its bound, 2"]

    def start(self, step: int, local: Local) -> Outbox:
        config = self.config
        if config.value == "frequency":
            error, rise = local.values["deviation_hz"], 1.0
        else:
            voltage = local.values["vm_mean_pu"]
            error, rise = (voltage - config.v_ref_pu if voltage > 0.0 else 0.0), config.rise_pu
        limit = 1.0 if config.value == "voltage" else config.effort_max_hz
        self._effort = min(max(self._effort - config.integral_gain * error / rise, -limit), limit)
        self._spread = float("inf") if self.me.weights else 0.0
        return self._to_all()

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        change = spread = 0.0
        for neighbour, weight in self.me.weights.items():
            for values, _ in inbox[neighbour][-1:]:
                change += weight * (values[0] - self._effort)
                spread = max(spread, abs(values[0] - self._effort))
        self._effort, self._spread = self._effort + change, spread
        return self._to_all()

    def residual(self) -> float:
        return self._spread

    def result(self) -> Result:
        voltage = self.config.value == "voltage"
        return Result((self._effort,), q_pu=min(max(self._effort, -1.0), 1.0) if voltage else None)

    def _to_all(self) -> Outbox:
        return dict.fromkeys(self.me.weights, (self._effort,))
