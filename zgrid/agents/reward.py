"""Rewards of a grid: from what its devices did and what its area of the network shows, to $ and named terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from zgrid.devices import ARRAYS, FLOATS
from zgrid.devices.elementwise import Value
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

    def assess_rows(self, states: Sequence[Any], network: Any, price: Any) -> tuple[Any, tuple[Any, ...]]:
        """The same for a batch, whose every number is an array (n_rows,), and ``network.measured`` (n_rows, n).

        Row by row where a kind does not know better.
        """
        found = []
        for row in range(len(price)):
            mine = [_row_of(state, row) for state in states]
            found.append(self.assess(mine, _row_of(network, row), float(price[row])))
        rewards = np.array([reward for reward, _ in found])
        return rewards, tuple(np.array([terms for _, terms in found]).T)

    def _device_costs(self, states: Sequence[DeviceState]) -> list[float]:
        """The cost terms of the devices, $ of this step."""
        costs = [0.0] * len(self._cost_terms)
        for term, state in zip(self._term_of_device, states, strict=True):
            costs[term] += state.cost
        return costs


def _row_of(body: Any, row: int) -> Any:
    """One row of a state whose fields are arrays, or tuples of arrays, with a leading axis of rows."""

    def pick(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(pick(one) for one in value)
        if not isinstance(value, np.ndarray):
            return value
        return value[row] if value.ndim > 1 else value[row].item()

    return type(body)._make(map(pick, body))


class _Solved(Reward):
    """A reward that says what a solved step is worth, once for floats and for arrays, and what a diverged one costs."""

    def assess(self, states: Sequence[DeviceState], network: NetworkState, price: float) -> tuple[float, Floats]:
        return self._assess(states, network, price) if network.converged else self._diverged()

    def assess_rows(self, states: Sequence[Any], network: Any, price: Any) -> tuple[Any, tuple[Any, ...]]:
        reward, terms = self._assess(states, network, price)
        good = network.converged
        if good.all():
            return reward, terms
        diverged, costs = self._diverged()
        return np.where(good, reward, diverged), tuple(np.where(good, *pair) for pair in zip(terms, costs, strict=True))

    @abstractmethod
    def _assess(self, states: Sequence[Any], network: Any, price: Any) -> tuple[Any, tuple[Any, ...]]:
        """The reward of a solved step, and its terms."""

    def _diverged(self) -> tuple[float, Floats]:
        """The reward of a step that has no solution, and its terms: a fixed cost and a fixed safety."""
        cost, safety = self.config.diverged_cost, self.config.diverged_safety
        told = {"divergence_cost": cost, "safety": safety}
        return -cost - self.config.penalty * safety, tuple(told.get(name, 0.0) for name in self.term_names)


def added(values: Iterable[Value]) -> Value:
    """One after the other, as arrays add; ``sum`` compensates floats from Python 3.12 on, and gives other bits."""
    total: Value = 0.0
    for value in values:
        total = total + value
    return total


def excursions(vm_pu: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """How far each voltage is outside [low, high], pu, (n_bus,) float64; a dead bus counts as 0 pu."""
    alive = np.fmax(vm_pu, 0.0)  # fmax takes 0 where the other is NaN
    return np.asarray(alive - np.minimum(np.maximum(alive, low), high))


def _total(values: NDArray[np.float64]) -> Value:
    """The sum over the last axis: a float, or an array of a batch."""
    total = values.sum(axis=-1)
    return float(total) if total.ndim == 0 else total


def _are_within(values: NDArray[np.float64], low: float, high: float) -> bool:
    """Whether those of one grid are, and none is NaN: as a rule they are, and a list tells it in less code than arrays
    do, which counts where a process wakes for one message.
    """
    if values.ndim > 1:
        return False
    told = values.tolist()
    return not told or (isfinite(sum(told)) and low <= min(told) and max(told) <= high)


def voltage_l1(vm_pu: NDArray[np.float64], low: float, high: float) -> Value:
    """Sum of the excursions outside [low, high], pu."""
    if _are_within(vm_pu, low, high):
        return 0.0
    return _total(np.abs(excursions(vm_pu, low, high)))


def voltage_l2(vm_pu: NDArray[np.float64], low: float, high: float) -> Value:
    """Sum of the squared excursions outside [low, high], pu^2."""
    if _are_within(vm_pu, low, high):
        return 0.0
    outside = excursions(vm_pu, low, high)
    return _total(outside * outside)


def voltage_bowl(vm_pu: NDArray[np.float64], low: float, high: float) -> Value:
    """Sum of bowl-shaped barriers: flat around the middle of the band, steep outside.

    2 |dv| - 0.095 outside the band and 0.04 - 0.01 N(dv; 0, 0.1) inside, dv from the middle of the band scaled to a
    half width of 0.05 [Wang et al. 2021, Multi-agent reinforcement learning for active voltage control on power
    distribution networks, section 4].
    """
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    alive = np.fmax(vm_pu, 0.0)
    dv = np.abs(alive - middle) * (0.05 / half)
    inside = 0.04 - 0.01 * np.exp(-50.0 * dv * dv) / (0.1 * np.sqrt(2.0 * np.pi))
    return _total(np.where(dv > 0.05, 2.0 * dv - 0.095, inside))


VOLTAGE = {"l1": voltage_l1, "l2": voltage_l2, "bowl": voltage_bowl}


def overload(loading_percent: NDArray[np.float64]) -> Value:
    """Sum of the loadings above 100 %, in pu; a dead element carries nothing."""
    if _are_within(loading_percent, 0.0, 100.0):
        return 0.0
    return 0.01 * (_total(np.fmax(loading_percent, 100.0)) - 100.0 * loading_percent.shape[-1])


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


class Economic(_Solved):
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

    def _assess(self, states: Sequence[Any], network: Any, price: Any) -> tuple[Any, tuple[Any, ...]]:
        config = self.config
        costs = self._device_costs(states)
        energy_mwh = network.p_pcc_mw * self.dt_h
        m = ARRAYS if isinstance(energy_mwh, np.ndarray) else FLOATS
        energy_cost = price * m.where(energy_mwh >= 0.0, energy_mwh, energy_mwh * config.sell_discount)
        lost = config.lost_load_cost * network.p_unserved_mw * self.dt_h
        formed = config.forming_cost * abs(network.p_forming_mw) * self.dt_h
        voltage = VOLTAGE[config.voltage](network.vm_pu, config.vm_min_pu, config.vm_max_pu)
        loading = overload(network.loading)
        limits = added(state.violation for state in states)
        safety = config.voltage_weight * voltage + config.overload_weight * loading + config.device_weight * limits
        reward = -(added(costs) + energy_cost + lost + formed) - config.penalty * safety
        return reward, (*costs, energy_cost, lost, formed, energy_cost * 0.0, voltage, loading, limits, safety)


class ReferenceConfig(RewardConfig):
    """Parameters of the reward ``reference``: those of every reward."""

    kind: str = "reference"


class Reference(_Solved):
    """The reward of the public three-microgrid case (PowerGym): -device costs - penalty x safety.

    Safety sums voltage excursions at the grid's buses, 0.01 x line loading above 100 %, and device limits. Imports,
    exports and transformers do not count.
    """

    Config: ClassVar[type[RewardConfig]] = ReferenceConfig

    @property
    def term_names(self) -> tuple[str, ...]:
        return (*self._cost_terms, "divergence_cost", "voltage", "overload", "device_limits", "safety")

    def _assess(self, states: Sequence[Any], network: Any, price: Any) -> tuple[Any, tuple[Any, ...]]:
        config = self.config
        costs = self._device_costs(states)
        voltage = voltage_l1(network.vm_pu, config.vm_min_pu, config.vm_max_pu)
        loading = overload(network.line_loading)
        limits = added(state.violation for state in states)
        safety = voltage + loading + limits
        return -added(costs) - config.penalty * safety, (*costs, safety * 0.0, voltage, loading, limits, safety)


REWARDS = {"economic": "zgrid.agents.reward:Economic", "reference": "zgrid.agents.reward:Reference"}


def reward_class(kind: str) -> Any:
    """The :class:`Reward` subclass of a kind.

    Raises:
        UnknownNameError: no such kind.
    """
    return resolve_class("reward", kind, REWARDS, Reward)
