"""Load that can be shed and shifted: what is shed is lost, what is deferred is owed."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from zgrid.devices.base import AssetConfig, Control, Device, DeviceConfig, Effect, Market, SeriesSource
from zgrid.devices.elementwise import Value


class FlexibleLoadConfig(DeviceConfig):
    """Parameters of a flexible load."""

    demand: SeriesSource = Field(description="time series in pu of p_mw, or a constant")
    p_mw: float = Field(gt=0, description="active power at a demand of 1, MW")
    q_mvar: float | None = Field(None, description="reactive power at a demand of 1, Mvar; default: none")
    power_factor: float | None = Field(None, gt=0, le=1, description="inductive power factor, instead of q_mvar")
    shed_max: float = Field(0.0, ge=0, le=1, description="most that can be shed, share of the demand")
    shed_cost: float = Field(0.0, ge=0, description="$ per MWh shed")
    shift_max_mw: float = Field(0.0, ge=0, description="most power deferred, and caught up early, MW")
    backlog_max_mwh: float = Field(0.0, ge=0, description="most energy owed, MWh")
    recover_h: float = Field(
        24.0, gt=0, description="at least dt / recover_h of what is owed is served in each step, h"
    )
    shift_cost: float = Field(0.0, ge=0, description="$ per MWh deferred")
    waiting_cost: float = Field(0.0, ge=0, description="$ per MWh owed and hour")

    @model_validator(mode="after")
    def _parameters_fit(self) -> Self:
        if self.q_mvar is not None and self.power_factor is not None:
            raise ValueError("give q_mvar or power_factor, not both")
        if (self.shift_max_mw > 0.0) != (self.backlog_max_mwh > 0.0):
            raise ValueError("shifting needs both shift_max_mw and backlog_max_mwh above 0")
        return self

    def series(self) -> tuple[str | float, ...]:
        return (self.demand,)

    @property
    def q_per_p(self) -> float:
        """Reactive over active power, Mvar per MW."""
        if self.power_factor is not None:
            return math.sqrt(1.0 - self.power_factor * self.power_factor) / self.power_factor
        return 0.0 if self.q_mvar is None else self.q_mvar / self.p_mw


class FlexibleLoad(Device):
    """Equations, with d the demand p_mw max(series, 0) and b the backlog, the energy owed:

    - Shed: the setpoint's share of d within [0, shed_max]; what is left is d - shed.
    - Due: b / max(recover_h, dt), so that every step serves at least dt / recover_h of what is owed.
    - Caught up: -shift_mw where that is more than what is due, at most shift_max and b / dt.
    - Deferred: shift_mw, at most shift_max, what is left, and what fits into the backlog after the catching up.
    - Served: left - deferred + caught up; b' = b + (deferred - caught up) dt: nothing is lost by shifting.
    - Reactive power: in constant proportion to the served active power.
    - Cost: shed_cost per MWh shed, shift_cost per MWh deferred, waiting_cost b' dt.
    - Violation: shift_mw within +-shift_max, beyond what the step allows, over p_mw.

    A deadline is left out: the share that is due makes what is owed fade like exp(-t / recover_h).
    """

    Config: ClassVar[type[AssetConfig]] = FlexibleLoadConfig
    SETPOINT = ("shed", "shift_mw")
    STATE = ("backlog_mwh",)
    SERIES = ("demand",)
    COST = "flexibility_cost"

    def __init__(self, configs: Any, dt_h: float, m: Any) -> None:
        super().__init__(configs, dt_h, m)
        self.p_mw = self._parameter(lambda c: c.p_mw)
        self.q_per_p = self._parameter(lambda c: c.q_per_p)
        self.shed_max = self._parameter(lambda c: c.shed_max)
        self.shed_cost = self._parameter(lambda c: c.shed_cost)
        self.shift_max = self._parameter(lambda c: c.shift_max_mw)
        self.backlog_max = self._parameter(lambda c: c.backlog_max_mwh)
        self.recover = self._parameter(lambda c: max(c.recover_h, dt_h))
        self.recover_h = self._parameter(lambda c: c.recover_h)
        self.shift_cost = self._parameter(lambda c: c.shift_cost)
        self.waiting_cost = self._parameter(lambda c: c.waiting_cost)

    @classmethod
    def controls(cls, config: Any) -> tuple[Control, ...]:
        controls = []
        if config.shed_max > 0.0:
            controls.append(Control("shed", 0.0, config.shed_max))
        if config.shift_max_mw > 0.0:
            controls.append(Control("shift_mw", -config.shift_max_mw, config.shift_max_mw))
        return tuple(controls)

    def initial(self) -> tuple[Value, ...]:
        return (self.p_mw * 0.0,)

    def step(
        self, state: tuple[Value, ...], setpoint: tuple[Value, ...], series: tuple[Value, ...]
    ) -> tuple[tuple[Value, ...], Effect]:
        m, dt, demand = self.m, self.dt_h, self._demand(series[0])
        shed = m.clip(setpoint[0], 0.0, self.shed_max) * demand
        asked = m.clip(setpoint[1], -self.shift_max, self.shift_max)
        most, caught_up = self._limits(state[0], demand - shed, m.maximum(-asked, 0.0))
        deferred = m.minimum(m.maximum(asked, 0.0), most)
        served = demand - shed - deferred + caught_up
        backlog = m.clip(state[0] + (deferred - caught_up) * dt, 0.0, self.backlog_max)
        cost = (self.shed_cost * shed + self.shift_cost * deferred + self.waiting_cost * backlog) * dt
        missed = m.maximum(asked, 0.0) - deferred + m.maximum(-asked - caught_up, 0.0)
        return (backlog + 0.0,), self._effect(-served, -served * self.q_per_p, cost, missed / self.p_mw)

    def respond(self, state: tuple[Value, ...], series: tuple[Value, ...], market: Market) -> tuple[Value, ...]:
        """Shed where the price is above shed_cost; defer in the dear quarter of the day and catch up in the cheap one,
        if the spread pays what shifting and waiting for recover_h cost.
        """
        m, demand = self.m, self._demand(series[0])
        shed = m.where(market.price > self.shed_cost, self.shed_max, 0.0)
        dear = market.high - market.low > self.shift_cost + self.waiting_cost * self.recover_h
        wanted = m.where(market.price >= market.high, m.where(dear, self.shift_max, 0.0), 0.0)
        early = m.where(market.price <= market.low, m.minimum(self.shift_max, state[0] / self.dt_h), 0.0)
        early = m.where(wanted > 0.0, 0.0, early)
        most, _ = self._limits(state[0], demand - shed * demand, early)
        return shed, m.minimum(wanted, most) - early

    def _demand(self, series: Value) -> Value:
        return self.p_mw * self.m.maximum(series, 0.0)

    def _limits(self, backlog: Value, left: Value, early: Value) -> tuple[Value, Value]:
        """The most that can be deferred, and what is caught up of a backlog if ``early`` is wanted, MW."""
        m = self.m
        caught_up = m.maximum(m.minimum(early, backlog / self.dt_h), backlog / self.recover)
        room = m.maximum(self.backlog_max - backlog, 0.0) / self.dt_h + caught_up
        return m.minimum(m.minimum(self.shift_max, left), room), caught_up
