"""Battery storage: charging and discharging efficiency, energy limits, wear and optional reactive power."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from zgrid.devices.base import Control, Device, DeviceConfig, Effect, Market
from zgrid.devices.elementwise import Value
from zgrid.devices.inverter import InverterConfig, LocalControl, Point


class StorageConfig(DeviceConfig):
    """Parameters of a battery. Discharging counts positive."""

    p_max_mw: float = Field(gt=0, description="most charging and most discharging power, MW")
    s_rated_mva: float = Field(gt=0, description="rating of the inverter, MVA")
    capacity_mwh: float = Field(gt=0, description="energy at a state of charge of 1, MWh")
    soc_min: float = Field(0.0, ge=0, le=1, description="least state of charge, pu of capacity_mwh")
    soc_max: float = Field(1.0, ge=0, le=1, description="most state of charge, pu of capacity_mwh")
    soc_init: float = Field(0.5, ge=0, le=1, description="state of charge at reset, pu of capacity_mwh")
    eta_charge: float = Field(gt=0, le=1, description="stored energy per energy taken from the network")
    eta_discharge: float = Field(gt=0, le=1, description="energy fed in per energy taken from the store")
    wear_cost: float = Field(0.0, ge=0, description="$ per MWh charged or discharged, at the network's side")
    q_control: bool = Field(False, description="whether the action sets the reactive power too")

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.p_max_mw > self.s_rated_mva:
            raise ValueError(f"p_max_mw {self.p_max_mw} is above s_rated_mva {self.s_rated_mva}")
        if not self.soc_min < self.soc_max:
            raise ValueError(f"soc_min {self.soc_min} is not below soc_max {self.soc_max}")
        if not self.soc_min <= self.soc_init <= self.soc_max:
            raise ValueError(f"soc_init {self.soc_init} is outside its band, {self.soc_min} to {self.soc_max}")
        return self


class Storage(Device):
    """Equations, with p > 0 discharging:

    - Active power: the setpoint within +-p_max, then cut so that soc stays in its band: discharging at most
      (soc - soc_min) capacity eta_discharge / dt, charging at most (soc_max - soc) capacity / (eta_charge dt).
    - soc' = soc - p dt / (eta_discharge capacity) while discharging, soc - p eta_charge dt / capacity while charging.
    - Reactive power: within the inverter's circle sqrt(s^2 - p^2).
    - Cost: wear_cost |p| dt.
    - Violation: power and reactive power asked beyond these limits, over s_rated.
    """

    Config: ClassVar[type[DeviceConfig]] = StorageConfig
    STATE: ClassVar[tuple[str, ...]] = ("soc",)
    COST = "wear_cost"

    def __init__(self, configs: Any, dt_h: float, m: Any) -> None:
        super().__init__(configs, dt_h, m)
        self.p_max = self._parameter(lambda c: c.p_max_mw)
        self.s_rated = self._parameter(lambda c: c.s_rated_mva)
        self.capacity = self._parameter(lambda c: c.capacity_mwh)
        self.soc_min = self._parameter(lambda c: c.soc_min)
        self.soc_max = self._parameter(lambda c: c.soc_max)
        self.soc_init = self._parameter(lambda c: c.soc_init)
        self.eta_charge = self._parameter(lambda c: c.eta_charge)
        self.eta_discharge = self._parameter(lambda c: c.eta_discharge)
        self.wear_cost = self._parameter(lambda c: c.wear_cost)

    @classmethod
    def controls(cls, config: Any) -> tuple[Control, ...]:
        p = Control("p_mw", -config.p_max_mw, config.p_max_mw)
        return (p, Control("q_mvar", -config.s_rated_mva, config.s_rated_mva)) if config.q_control else (p,)

    def initial(self) -> tuple[Value, ...]:
        return (self.soc_init,)

    def step(
        self, state: tuple[Value, ...], setpoint: tuple[Value, ...], series: tuple[Value, ...]
    ) -> tuple[tuple[Value, ...], Effect]:
        m, dt, soc = self.m, self.dt_h, state[0]
        asked = self.m.clip(setpoint[0], -self.p_max, self.p_max)
        p = self._feasible(soc, asked)
        out, into = m.maximum(p, 0.0), m.maximum(-p, 0.0)
        change = (into * self.eta_charge - out / self.eta_discharge) * dt / self.capacity
        soc = self.m.clip(soc + change, self.soc_min, self.soc_max)
        q_limit = self._circle(self.s_rated, p)
        q = self.m.clip(setpoint[1], -q_limit, q_limit)
        cost = self.wear_cost * (out + into) * dt
        return (soc + 0.0,), self._effect(p, q, cost, self._shortfall(asked - p, setpoint[1] - q, self.s_rated))

    def respond(self, state: tuple[Value, ...], series: tuple[Value, ...], market: Market) -> tuple[Value, ...]:
        """Charge in the cheap quarter of the day and discharge in the dear one, if the spread pays losses and wear."""
        m = self.m
        taken = 1.0 / (self.eta_charge * self.eta_discharge)  # MWh bought per MWh sold; both wear
        pays = m.where(market.high > market.low * taken + self.wear_cost * (1.0 + taken), self.p_max, 0.0)
        p = m.where(market.price >= market.high, pays, m.where(market.price <= market.low, -pays, 0.0))
        return self._feasible(state[0], p), p * 0.0

    def _feasible(self, soc: Value, p_mw: Value) -> Value:
        """The power, cut so that a step keeps the state of charge in its band, MW."""
        m, dt = self.m, self.dt_h
        most_out = m.maximum(soc - self.soc_min, 0.0) * self.capacity * self.eta_discharge / dt
        most_in = m.maximum(self.soc_max - soc, 0.0) * self.capacity / (self.eta_charge * dt)
        return m.clip(p_mw, -most_in, most_out)


class SmartStorageConfig(InverterConfig, StorageConfig):
    """Parameters of a battery whose inverter answers to the voltage at its bus.

    Where a unit can take power too, category B lets volt-watt go down to nothing.
    """

    volt_watt: tuple[Point, Point] = Field(
        ((1.06, 1.0), (1.1, 0.0)), description="most discharging power over voltage: (pu, pu of p_max_mw) points"
    )


class SmartStorage(Storage):
    """A :class:`Storage` with the local voltage control of :mod:`zgrid.devices.inverter`.

    - Volt-watt: the battery discharges with at most limit p_max, where the limit follows its curve; it may charge.
    - Volt-var: the reactive power follows its curve, within what the active power leaves of the circle; no action.
    - Neither is a violation. With ``control_mode: none`` it does what a :class:`Storage` does.
    """

    Config: ClassVar[type[DeviceConfig]] = SmartStorageConfig
    STATE = ("soc", "q_mvar", "p_limit_pu")
    MEASURES = ("vm_pu",)

    def __init__(self, configs: Any, dt_h: float, m: Any) -> None:
        super().__init__(configs, dt_h, m)
        self.local = LocalControl.of(m, self._parameter)

    @classmethod
    def controls(cls, config: Any) -> tuple[Control, ...]:
        controls = super().controls(config)
        return controls[:1] if config.sets_q else controls

    def initial(self) -> tuple[Value, ...]:
        return self.soc_init, self.p_max * 0.0, self.p_max * 0.0 + 1.0

    def step(
        self, state: tuple[Value, ...], setpoint: tuple[Value, ...], series: tuple[Value, ...]
    ) -> tuple[tuple[Value, ...], Effect]:
        m, vm_pu = self.m, series[-1]
        limit = self.local.p_limit_pu(state[2], vm_pu)
        asked = m.minimum(m.clip(setpoint[0], -self.p_max, self.p_max), limit * self.p_max)
        q_limit = self._circle(self.s_rated, self._feasible(state[0], asked))
        q = self.local.within(self.local.q_mvar(state[1], vm_pu, self.s_rated, setpoint[1]), q_limit)
        (soc,), effect = super().step(state, (asked, q), series)
        return (soc, effect.q_mvar, limit + 0.0), effect
