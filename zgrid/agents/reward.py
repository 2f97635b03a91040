"""Rewards of a grid: from what its devices did and what its area of the network shows, to $ and named terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from zgrid.messages import DeviceState, Floats, NetworkState
from zgrid.registry import resolve_class


class RewardConfig(BaseModel):
    """What every reward says in a topology; a kind adds its own parameters. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str
    penalty: float = Field(10.0, ge=0, description="$ per unit of safety")
    vm_min_pu: float = Field(0.95, gt=0, description="lower voltage limit")
    vm_max_pu: float = Field(1.05, gt=0, description="upper voltage limit")
    diverged_cost: float = Field(200.0, ge=0, description="$ of a step whose power flow diverged, instead of all costs")
    diverged_safety: float = Field(20.0, ge=0, description="safety of a step whose power flow diverged")

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if not self.vm_min_pu < self.vm_max_pu:
            raise ValueError(f"vm_min_pu {self.vm_min_pu} is not below vm_max_pu {self.vm_max_pu}")
        return self


class Reward(ABC):
    """The reward of one grid: minus its cost, minus ``penalty`` x safety."""

    Config: ClassVar[type[RewardConfig]]

    def __init__(self, config: Any, cost_names: Sequence[str], dt_h: float) -> None:
        """``cost_names`` has the cost term of each device, in their order."""
        self.config = config
        self.dt_h = dt_h
        self.cost_names = tuple(cost_names)
        self._cost_terms = tuple(dict.fromkeys(cost_names))
        self._term_of_device = tuple(self._cost_terms.index(name) for name in cost_names)

    @property
    @abstractmethod
    def term_names(self) -> tuple[str, ...]:
        """Names of the terms, in the order of :meth:`assess`."""

    @abstractmethod
    def assess(self, states: Sequence[DeviceState], network: NetworkState, price: float) -> tuple[float, Floats]:
        """The reward of a step in $, and its terms. ``price`` is the step's, in $/MWh."""

    def _device_costs(self, states: Sequence[DeviceState]) -> list[float]:
        """The cost terms of the devices, $ of this step."""
        costs = [0.0] * len(self._cost_terms)
        for term, state in zip(self._term_of_device, states, strict=True):
            costs[term] += state.cost
        return costs


def excursions(vm_pu: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """How far each voltage is outside [low, high], pu, (n_bus,) float64; a dead bus counts as 0 pu."""
    alive = np.fmax(vm_pu, 0.0)  # fmax takes 0 where the other is NaN
    return np.asarray(alive - np.minimum(np.maximum(alive, low), high))


def voltage_l1(vm_pu: NDArray[np.float64], low: float, high: float) -> float:
    """Sum of the excursions outside [low, high], pu."""
    return float(np.abs(excursions(vm_pu, low, high)).sum())


def voltage_l2(vm_pu: NDArray[np.float64], low: float, high: float) -> float:
    """Sum of the squared excursions outside [low, high], pu^2."""
    outside = excursions(vm_pu, low, high)
    return float((outside * outside).sum())


def voltage_bowl(vm_pu: NDArray[np.float64], low: float, high: float) -> float:
    """Sum of bowl-shaped barriers: flat around the middle of the band, steep outside.

    2 |dv| - 0.095 outside the band and 0.04 - 0.01 N(dv; 0, 0.1) inside, dv from the middle of the band scaled to a
    half width of 0.05 [Wang et al. 2021, Multi-agent reinforcement learning for active voltage control on power
    distribution networks, section 4].
    """
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    alive = np.fmax(vm_pu, 0.0)
    dv = np.abs(alive - middle) * (0.05 / half)
    inside = 0.04 - 0.01 * np.exp(-50.0 * dv * dv) / (0.1 * np.sqrt(2.0 * np.pi))
    return float(np.where(dv > 0.05, 2.0 * dv - 0.095, inside).sum())


VOLTAGE = {"l1": voltage_l1, "l2": voltage_l2, "bowl": voltage_bowl}


def overload(loading_percent: NDArray[np.float64]) -> float:
    """Sum of the loadings above 100 %, in pu; a dead element carries nothing."""
    return 0.01 * float(np.fmax(loading_percent, 100.0).sum() - 100.0 * loading_percent.size)


class EconomicConfig(RewardConfig):
    """Parameters of the reward ``economic``."""

    kind: str = "economic"
    voltage: Literal["l1", "l2", "bowl"] = Field("l1", description="shape of the voltage penalty")
    sell_discount: float = Field(0.9, ge=0, le=1, description="share of the price that an export is paid")
    voltage_weight: float = Field(1.0, ge=0, description="safety per unit of the voltage penalty")
    overload_weight: float = Field(1.0, ge=0, description="safety per pu of overload")
    device_weight: float = Field(0.1, ge=0, description="safety per pu of device limit violation")
    lost_load_cost: float = Field(5000.0, ge=0, description="$ per MWh of load at dead buses")
    forming_cost: float = Field(
        200.0, ge=0, description="$ per MWh that the forming unit gives or takes beyond its setpoint while islanded"
    )


class Economic(Reward):
    """-(device costs + price x import) - penalty x safety.

    An import costs the price, an export is paid ``sell_discount`` of it; load at dead buses and what the forming unit
    of an islanded grid has to balance cost their own prices. Safety sums the weighted voltage penalty,
    the overloads of lines and transformers, and what devices were asked beyond their limits.
    """

    Config: ClassVar[type[RewardConfig]] = EconomicConfig

    @property
    def term_names(self) -> tuple[str, ...]:
        costs = ("energy_cost", "lost_load_cost", "forming_cost", "divergence_cost")
        return (*self._cost_terms, *costs, "voltage", "overload", "device_limits", "safety")

    def assess(self, states: Sequence[DeviceState], network: NetworkState, price: float) -> tuple[float, Floats]:
        config = self.config
        if not network.converged:
            cost, safety = config.diverged_cost, config.diverged_safety
            nothing = (0.0,) * len(self._cost_terms)
            return -cost - config.penalty * safety, (*nothing, 0.0, 0.0, 0.0, cost, 0.0, 0.0, 0.0, safety)
        costs = self._device_costs(states)
        energy_mwh = network.p_pcc_mw * self.dt_h
        energy_cost = price * (energy_mwh if energy_mwh >= 0.0 else energy_mwh * config.sell_discount)
        lost = config.lost_load_cost * network.p_unserved_mw * self.dt_h
        formed = config.forming_cost * abs(network.p_forming_mw) * self.dt_h
        voltage = VOLTAGE[config.voltage](network.vm_pu, config.vm_min_pu, config.vm_max_pu)
        loading = overload(network.loading)
        limits = 0.0
        for state in states:
            limits += state.violation
        safety = config.voltage_weight * voltage + config.overload_weight * loading + config.device_weight * limits
        reward = -(sum(costs) + energy_cost + lost + formed) - config.penalty * safety
        return reward, (*costs, energy_cost, lost, formed, 0.0, voltage, loading, limits, safety)


class ReferenceConfig(RewardConfig):
    """Parameters of the reward ``reference``: those of every reward."""

    kind: str = "reference"


class Reference(Reward):
    """The reward of the public three-microgrid case (PowerGym): -device costs - penalty x safety.

    Safety sums voltage excursions at the grid's buses, 0.01 x line loading above 100 %, and device limits. Imports,
    exports and transformers do not count.
    """

    Config: ClassVar[type[RewardConfig]] = ReferenceConfig

    @property
    def term_names(self) -> tuple[str, ...]:
        return (*self._cost_terms, "divergence_cost", "voltage", "overload", "device_limits", "safety")

    def assess(self, states: Sequence[DeviceState], network: NetworkState, price: float) -> tuple[float, Floats]:
        config = self.config
        if not network.converged:
            cost, safety = config.diverged_cost, config.diverged_safety
            nothing = (0.0,) * len(self._cost_terms)
            return -cost - config.penalty * safety, (*nothing, cost, 0.0, 0.0, 0.0, safety)
        costs = self._device_costs(states)
        voltage = voltage_l1(network.vm_pu, config.vm_min_pu, config.vm_max_pu)
        loading = overload(network.line_loading)
        limits = 0.0
        for state in states:
            limits += state.violation
        safety = voltage + loading + limits
        return -sum(costs) - config.penalty * safety, (*costs, 0.0, voltage, loading, limits, safety)


REWARDS = {"economic": "zgrid.agents.reward:Economic", "reference": "zgrid.agents.reward:Reference"}


def reward_class(kind: str) -> Any:
    """The :class:`Reward` subclass of a kind.

    Raises:
        UnknownNameError: no such kind.
    """
    return resolve_class("reward", kind, REWARDS, Reward)
