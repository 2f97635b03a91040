"""One charging point for electric cars that come and go by a schedule of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from zgrid.devices.base import AssetConfig, Clock, Control, Device, DeviceConfig, Effect, FloatArray, Market
from zgrid.devices.elementwise import Value


class Spread(BaseModel):
    """A normal distribution."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: float = Field(ge=0)
    std: float = Field(0.0, ge=0)


class EvChargerConfig(DeviceConfig):
    """Parameters of a charging point and of the cars that come to it."""

    p_max_mw: float = Field(gt=0, description="most charging power, MW")
    eta: float = Field(0.95, gt=0, le=1, description="energy in the car per energy taken from the network")
    seed: int = Field(0, ge=0, description="seed of the schedule, beside the device's id")
    days_with_car: float = Field(1.0, ge=0, le=1, description="share of the days on which a car comes")
    arrival_h: Spread = Field(Spread(mean=18.0, std=1.5), description="hour of the day it comes")
    stay_h: Spread = Field(Spread(mean=12.0, std=2.0), description="hours it stays")
    energy_mwh: Spread = Field(
        Spread(mean=0.02, std=0.005), description="energy it needs, MWh; cut to what its stay allows"
    )
    missed_cost: float = Field(500.0, ge=0, description="$ per MWh that a car leaves without")

    @model_validator(mode="after")
    def _hours_fit(self) -> Self:
        if self.arrival_h.mean >= 24.0:
            raise ValueError(f"arrival_h.mean {self.arrival_h.mean} is no hour of a day, 0 to 24")
        return self

    def columns(
        self, column: Callable[[str | float], FloatArray], clock: Clock, rng: np.random.Generator
    ) -> list[FloatArray]:
        """The schedule, day by day: normal draws for a car's arrival within the day, its stay and its need.

        A stay is at least one step and may go past midnight, and at the end of the data on at its begin. A car that
        finds the point taken drives on. The need is at most what full power delivers over the stay.
        """
        draw = np.random.default_rng((self.seed, int(rng.integers(2**63))))
        arriving, left = np.zeros(clock.n_rows), np.zeros(clock.n_rows)
        for day in range(clock.n_days):
            row, steps, energy = self._car(clock, draw)
            rows = (day * clock.steps_per_day + row + np.arange(steps)) % clock.n_rows
            if draw.random() < self.days_with_car and not left[rows].any():
                left[rows] = np.arange(steps, 0, -1) * clock.dt_h
                arriving[rows[0]] = energy
        return [arriving, left]

    def _car(self, clock: Clock, draw: np.random.Generator) -> tuple[int, int, float]:
        """The step of the day it comes in, how many steps it stays, and what it needs, MWh."""
        arrival, stay, energy = (
            float(draw.normal(one.mean, one.std)) for one in (self.arrival_h, self.stay_h, self.energy_mwh)
        )
        row = min(max(int(arrival // clock.dt_h), 0), clock.steps_per_day - 1)
        steps = min(max(round(stay / clock.dt_h), 1), clock.n_rows)
        return row, steps, min(max(energy, 0.0), self.p_max_mw * self.eta * steps * clock.dt_h)


class EvCharger(Device):
    """Equations, with p <= 0 charging and n the energy that the car still needs:

    - A car that arrives brings n and leaves after the step in which ``hours_left`` is at most dt.
    - Active power: the setpoint within [-p_max, 0], while a car is there, and at most n / (eta dt). No reactive power.
    - n' = n + p eta dt.
    - When it leaves, what is missing costs missed_cost n', and is a violation of n' over what it needed on arrival.

    An episode that begins with a car at the point finds it charged.
    """

    Config: ClassVar[type[AssetConfig]] = EvChargerConfig
    SETPOINT = ("p_mw",)
    STATE = ("needed_mwh", "brought_mwh")
    SERIES = ("arriving_mwh", "hours_left")
    COST = "charging_cost"

    def __init__(self, configs: Any, dt_h: float, m: Any) -> None:
        super().__init__(configs, dt_h, m)
        self.p_max = self._parameter(lambda c: c.p_max_mw)
        self.eta = self._parameter(lambda c: c.eta)
        self.missed_cost = self._parameter(lambda c: c.missed_cost)

    @classmethod
    def controls(cls, config: Any) -> tuple[Control, ...]:
        return (Control("p_mw", -config.p_max_mw, 0.0),)

    def initial(self) -> tuple[Value, ...]:
        return self.p_max * 0.0, self.p_max * 0.0

    def step(
        self, state: tuple[Value, ...], setpoint: tuple[Value, ...], series: tuple[Value, ...]
    ) -> tuple[tuple[Value, ...], Effect]:
        m, dt, left = self.m, self.dt_h, series[1]
        needed, brought = self._needs(state, series)
        taken = m.minimum(m.maximum(-setpoint[0], 0.0), self._most(needed))
        needed = m.maximum(needed - taken * self.eta * dt, 0.0)
        needed = m.where(needed > _NOTHING_MWH, needed, 0.0)
        stays = m.where(left > 1.5 * dt, 1.0, 0.0)
        missed = needed * (1.0 - stays)
        violation = missed / m.maximum(brought, _NOTHING_MWH)
        nothing = taken * 0.0
        state = (needed * stays + 0.0, brought * stays + 0.0)
        return state, self._effect(-taken, nothing, self.missed_cost * missed, violation)

    def respond(self, state: tuple[Value, ...], series: tuple[Value, ...], market: Market) -> tuple[Value, ...]:
        """Charge at once; in the dear quarter of the day wait, while full power later is enough."""
        m = self.m
        needed, _ = self._needs(state, series)
        hours = needed / (self.p_max * self.eta)
        waits = m.where(series[1] - self.dt_h >= hours, market.price >= market.high, False)
        return (m.where(waits, 0.0, -self._most(needed)),)

    def _needs(self, state: tuple[Value, ...], series: tuple[Value, ...]) -> tuple[Value, Value]:
        """What the car needs now and what it needed on arrival, MWh; nothing where there is none."""
        arriving = self.m.maximum(series[0], 0.0)
        here = self.m.where(series[1] > 0.0, 1.0, 0.0)
        return (state[0] + arriving) * here, (state[1] + arriving) * here

    def _most(self, needed: Value) -> Value:
        return self.m.minimum(self.p_max, needed / (self.eta * self.dt_h))


_NOTHING_MWH = 1e-12
