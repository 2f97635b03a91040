"""Horizontal protocol ``incremental_cost_consensus``: one price at which units meet the demand at least cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from zgrid.messages import Floats
from zgrid.protocols.base import (
    AveragingConfig,
    DispatchConfig,
    Inbox,
    Local,
    Outbox,
    Participant,
    Protocol,
    Result,
    RoundsConfig,
    Unit,
)
from zgrid.protocols.graph import Graph, islands, weight_matrix
from zgrid.protocols.running_sums import RunningSums

UNKNOWN = float(np.finfo(np.float64).max)
"""A bound that nobody has named: what is sent has to be finite."""


class IncrementalCostConsensusConfig(DispatchConfig, AveragingConfig):
    """Parameters of the incremental cost consensus."""

    kind: str = "incremental_cost_consensus"
    form: Literal["leader", "leaderless"] = Field(
        "leaderless", description="who moves the price by the mismatch: the first participant, or all"
    )
    running_sums: bool = Field(True, description="say totals, so that loss spares the balance; false: as published")
    step: float | None = Field(
        None,
        gt=0,
        description="change of price per mismatch, $/MWh per MW; null: gain over the slope of all units, which is "
        "learned on the way (running sums only)",
    )
    gain: float = Field(0.3, gt=0, le=1, description="part of the way to the price of balance that a round goes")
    price: float = Field(0.0, description="price to start from, $/MWh")
    warm_start: bool = Field(False, description="start from the price of the step before")
    rounds: int = Field(500, ge=1, le=10_000, description="most rounds per step; one message per neighbour each")

    @model_validator(mode="after")
    def _step_of_plain_form(self) -> IncrementalCostConsensusConfig:
        if self.step is None and not self.running_sums:
            raise ValueError("step: needed where running_sums is false; see step_bound")
        return self


class IncrementalCostConsensus(Protocol):
    """Price l_i, mismatch y_i, power P_i(l) of its units at a price, within their limits, W the weights:

        l_i <- sum_j w_ij l_j + e y_i            (leader: + e n y_i at the first, nothing at the others)
        y_i <- sum_j w_ij y_j - (P_i(l_i new) - P_i(l_i old)),   y_i = demand_i - P_i at the start

    so the sum of y is the mismatch of all [Yang, Tan and Xu 2013, Consensus based approach for economic dispatch
    problem in a smart grid; leader: Zhang and Chow 2012, Convergence analysis of the incremental cost consensus
    algorithm, here with the mismatch tracked by the same messages instead of measured]. ``running_sums: false`` is this
    and no more: a lost message takes its part of the mismatch with it, and all agree on a price that does not balance.

    With running sums y is given away in totals, with it the slope s_i = sum 1/(2a) of the units and z_i = 1. Then
    y_i / z_i -> mismatch / n and y_i / s_i -> mismatch / slope, the step of Newton's method; gain y_i / s_i takes the
    place of e y_i and e n y_i, or step y_i / z_i that of e y_i. Lowest and highest marginal cost of all are passed on
    and bound the price, so demand that cannot be met ends at a limit, and ``mismatch_mw`` (n y_i / z_i, demand less
    dispatch) says how much is missing. Loss, delay, duplication and reordering cost time only. Units need cost_a > 0:
    without, their power jumps at a price.
    """

    Config: ClassVar[type[RoundsConfig]] = IncrementalCostConsensusConfig
    RESULT = ("lambda", "mismatch_mw")
    TOLERATES = frozenset({"loss", "delay"})

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        super().__init__(config, me, rng)
        self._price = self._y = self._s = self._power = self._mismatch = 0.0
        self._z, self._low, self._high = 1.0, UNKNOWN, -UNKNOWN
        self._units: tuple[Unit, ...] | None = None
        self._sums = RunningSums((), 3)
        self._prices: dict[str, float | None] = {}
        self._keep = 1.0 - sum(me.weights.values())
        self._moves = config.form == "leaderless" or me.place == 0

    @classmethod
    def unit_misfits(cls, config: Any, graph: Graph, units: Mapping[str, Sequence[Unit]]) -> list[str]:
        """As ``misfits``, where the units of each participant are known: the bound of step or gain depends on them."""
        found = []
        for island in islands(graph):
            slope = sum(0.5 / unit.cost_a for name in island for unit in units[name] if unit.cost_a > 0.0)
            bound = step_bound(units, {name: graph[name] for name in island}, config)
            per_gain = slope / (1 if config.form == "leader" else len(island))
            what, chosen = ("gain", config.gain) if config.step is None else ("step", config.step)
            limit = bound * per_gain if config.step is None else bound
            if slope > 0.0 and chosen >= limit:
                names = ", ".join(island)
                found.append(f"{what} {chosen:g} is not below {limit:.3g}, the bound for the units of {names}")
        return found

    def start(self, step: int, local: Local) -> Outbox:
        if self._units is None or not self.config.warm_start:
            self._price = self.config.price
        self._units = local.units
        self._s = sum(0.5 / unit.cost_a for unit in local.units if unit.cost_a > 0.0)
        self._z = 1.0
        marginal = [2.0 * unit.cost_a * p + unit.cost_b for unit in local.units for p in (unit.p_min_mw, unit.p_max_mw)]
        self._low, self._high = min(marginal, default=UNKNOWN), max(marginal, default=-UNKNOWN)
        self._sums = RunningSums(self.me.weights, 3)
        self._prices = dict.fromkeys(self.me.weights)
        if not self.me.weights:
            self._price = balance_price(local.units, local.demand_mw)
        self._power = self._power_at(self._price)
        self._y = local.demand_mw - self._power
        self._mismatch = self._y * self.me.size
        return self._say()

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        before, self._y = self._y, self._keep * self._y
        self._s *= self._keep
        self._z *= self._keep
        heard = {}
        for neighbour in self.me.weights:
            values = self._sums.newest(neighbour, round, inbox[neighbour])
            if values is not None:
                heard[neighbour] = values[0]
                self._take(neighbour, values)
        self._prices |= heard
        # As published, who is not heard is left out; with running sums its last word holds.
        known = self._prices if self.config.running_sums else heard
        pull = sum(self.me.weights[name] * (price - self._price) for name, price in known.items() if price is not None)
        self._price += pull + (self._correction(before) if self._moves else 0.0)
        if self.config.running_sums and self._low <= self._high:
            self._price = min(max(self._price, self._low), self._high)
        power = self._power_at(self._price)
        self._y -= power - self._power
        self._power = power
        self._mismatch = self.me.size * self._y / self._z if self.config.running_sums else self.me.size * self._y
        return self._say()

    def residual(self) -> float:
        """The larger of the mismatch in MW, by its own estimate, and the difference to a neighbour's price, $/MWh."""
        apart = [float("inf") if price is None else abs(price - self._price) for price in self._prices.values()]
        return float("inf") if self._units is None else max([abs(self._mismatch), *apart])

    def result(self) -> Result:
        dispatch = {unit.id: unit.at_price(self._price) for unit in self._units or ()}
        return Result((self._price, self._mismatch), dispatch, price=self._price)

    def _take(self, neighbour: str, values: Floats) -> None:
        """Take one neighbour's part of what it gives away, and what it knows of the marginal costs."""
        weight = self.me.weights[neighbour]
        if not self.config.running_sums:
            self._y += weight * values[1]
            return
        y, s, z = self._sums.gain(neighbour, values[3:])
        self._y += weight * y
        self._s += weight * s
        self._z += weight * z
        self._low, self._high = min(self._low, values[1]), max(self._high, values[2])

    def _correction(self, before: float) -> float:
        """What the mismatch adds to the price, $/MWh; ``before``: its own part at the end of the last round, MW."""
        if self.config.step is None:
            return float(self.config.gain * self._y / self._s) if self._s > 0.0 else 0.0
        mismatch = self._y / self._z if self.config.running_sums else before
        return float(self.config.step * mismatch * (self.me.size if self.config.form == "leader" else 1))

    def _power_at(self, price: float) -> float:
        return sum(unit.at_price(price) for unit in self._units or ())

    def _say(self) -> Outbox:
        if not self.config.running_sums:
            return dict.fromkeys(self.me.weights, (self._price, self._y))
        totals = self._sums.give((self._y, self._s, self._z))
        return dict.fromkeys(self.me.weights, (self._price, self._low, self._high, *totals))


def balance_price(units: Sequence[Unit], demand_mw: float) -> float:
    """The price at which units meet a demand, $/MWh, by bisection; a limit where they cannot; 0 of none."""
    marginal = [2.0 * unit.cost_a * p + unit.cost_b for unit in units for p in (unit.p_min_mw, unit.p_max_mw)]
    low, high = min(marginal, default=0.0), max(marginal, default=0.0)
    while low < (middle := 0.5 * (low + high)) < high:
        if sum(unit.at_price(middle) for unit in units) < demand_mw:
            low = middle
        else:
            high = middle
    return high


def step_bound(units: Mapping[str, Sequence[Unit]], graph: Graph, config: IncrementalCostConsensusConfig) -> float:
    """The ``step`` from which a form does not converge, $/MWh per MW, on a connected graph without loss and delay.

    It is where an eigenvalue of the iteration without limits, other than the one at 1 (the demand, which stays), leaves
    the unit circle. A unit at its limit has no slope, which raises the bound. For a ``gain`` multiply by the slope of
    all units, sum 1/(2a), and where all move the price divide by the number of participants: 2 or more for units alike,
    down to 0.24 was found on lines and stars of ten where a third has no unit and slopes differ by a factor of 300.
    """
    weights, n = weight_matrix(graph, config.weights), len(graph)
    slopes = np.array([sum(0.5 / unit.cost_a for unit in units[name] if unit.cost_a > 0.0) for name in graph])
    if not slopes.any():
        return float("inf")
    acts = np.eye(n) if config.form == "leaderless" else np.diag([float(n)] + [0.0] * (n - 1))
    acts = acts @ weights if config.running_sums else acts  # there the price moves by what the round has brought

    def converges(step: float) -> bool:
        moved = np.hstack([weights, step * acts])
        held = np.hstack([-np.eye(n), np.zeros((n, n))])
        mismatch = np.hstack([np.zeros((n, n)), weights]) - slopes[:, None] * (moved + held)
        sizes = np.sort(np.abs(np.linalg.eigvals(np.vstack([moved, mismatch]))))
        return bool(sizes[-1] < 1.0 + 1e-9 and sizes[-2] < 1.0)

    low, high = 0.0, 1.0 / float(slopes.sum())
    while converges(high) and high < 1e12:
        low, high = high, 2.0 * high
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if converges(middle) else (low, middle)
    return low
