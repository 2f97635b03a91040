"""Weather-driven generator (PV or wind) behind an inverter: curtailable, with optional reactive power."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from zgrid.devices.base import Control, Device, DeviceConfig, Effect, Market, SeriesSource
from zgrid.devices.elementwise import Value
from zgrid.devices.inverter import InverterConfig, LocalControl


class RenewableConfig(DeviceConfig):
    """Parameters of a PV or wind plant."""

    availability: SeriesSource = Field(description="time series in pu of p_max_mw, or a constant")
    p_max_mw: float = Field(gt=0, description="power at an availability of 1, MW")
    s_rated_mva: float = Field(gt=0, description="rating of the inverter, MVA")
    q_control: bool = Field(False, description="whether the action sets the reactive power too")
    curtailment_cost: float = Field(0.0, ge=0, description="$ per MWh available but not fed in")
    limited_by: Literal["availability", "rating"] = Field(
        "availability", description="rating: freely dispatchable up to p_max_mw, whatever the weather"
    )

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.p_max_mw > self.s_rated_mva:
            raise ValueError(f"p_max_mw {self.p_max_mw} is above s_rated_mva {self.s_rated_mva}")
        return self

    def series(self) -> tuple[str | float, ...]:
        return (self.availability,)


class Renewable(Device):
    """Equations:

    - Available power: series x p_max, or p_max where ``limited_by: rating``.
    - Active power: the setpoint within [0, available]; the rest is curtailed.
    - Reactive power: within the inverter's circle sqrt(s^2 - p^2).
    - Cost: curtailment_cost x curtailed energy.
    - Violation: reactive power asked beyond the circle, over s_rated. Asking for more than is available is none.
    """

    Config: ClassVar[type[DeviceConfig]] = RenewableConfig
    STATE: ClassVar[tuple[str, ...]] = ("available_mw",)
    SERIES = ("availability",)
    COST = "curtailment_cost"

    def __init__(self, configs: Any, dt_h: float, m: Any) -> None:
        super().__init__(configs, dt_h, m)
        self.p_max = self._parameter(lambda c: c.p_max_mw)
        self.s_rated = self._parameter(lambda c: c.s_rated_mva)
        self.curtailment_cost = self._parameter(lambda c: c.curtailment_cost)
        self.ignores_weather = self._parameter(lambda c: 1.0 if c.limited_by == "rating" else 0.0)

    @classmethod
    def controls(cls, config: Any) -> tuple[Control, ...]:
        p = Control("p_mw", 0.0, config.p_max_mw)
        return (p, Control("q_mvar", -config.s_rated_mva, config.s_rated_mva)) if config.q_control else (p,)

    def initial(self) -> tuple[Value, ...]:
        return (self.p_max * 0.0,)

    def step(
        self, state: tuple[Value, ...], setpoint: tuple[Value, ...], series: tuple[Value, ...]
    ) -> tuple[tuple[Value, ...], Effect]:
        available = self._available(series[0])
        p = self.m.clip(setpoint[0], 0.0, available)
        q_limit = self._circle(self.s_rated, p)
        q = self.m.clip(setpoint[1], -q_limit, q_limit)
        cost = self.curtailment_cost * (available - p) * self.dt_h
        return (available + 0.0,), self._effect(p, q, cost, self._shortfall(0.0, setpoint[1] - q, self.s_rated))

    def respond(self, state: tuple[Value, ...], series: tuple[Value, ...], market: Market) -> tuple[Value, ...]:
        """Feed in what is available unless each MWh costs more than its curtailment."""
        available = self._available(series[0])
        p = self.m.where(market.price + self.curtailment_cost >= 0.0, available, 0.0)
        return p, p * 0.0

    def _available(self, availability: Value) -> Value:
        share = self.m.where(self.ignores_weather > 0.0, 1.0, self.m.clip(availability, 0.0, 1.0))
        return share * self.p_max


class SmartRenewableConfig(InverterConfig, RenewableConfig):
    """Parameters of a plant whose inverter answers to the voltage at its bus."""


class SmartRenewable(Renewable):
    """A :class:`Renewable` with the local voltage control of :mod:`zgrid.devices.inverter`.

    - Volt-watt: the power fed in is at most limit p_max, where the limit follows its curve; the rest is curtailed.
    - Volt-var: the reactive power follows its curve, within what the active power leaves of the circle; no action.
    - Neither is a violation. With ``control_mode: none`` it does what a :class:`Renewable` does.
    """

    Config: ClassVar[type[DeviceConfig]] = SmartRenewableConfig
    STATE = ("available_mw", "q_mvar", "p_limit_pu")
    MEASURES = ("vm_pu",)

    def __init__(self, configs: Any, dt_h: float, m: Any) -> None:
        super().__init__(configs, dt_h, m)
        self.local = LocalControl.of(m, self._parameter)

    @classmethod
    def controls(cls, config: Any) -> tuple[Control, ...]:
        controls = super().controls(config)
        return controls[:1] if config.sets_q else controls

    def initial(self) -> tuple[Value, ...]:
        return self.p_max * 0.0, self.p_max * 0.0, self.p_max * 0.0 + 1.0

    def step(
        self, state: tuple[Value, ...], setpoint: tuple[Value, ...], series: tuple[Value, ...]
    ) -> tuple[tuple[Value, ...], Effect]:
        m, vm_pu = self.m, series[-1]
        limit = self.local.p_limit_pu(state[2], vm_pu)
        p = m.clip(m.minimum(setpoint[0], limit * self.p_max), 0.0, self._available(series[0]))
        q_limit = self._circle(self.s_rated, p)
        q = self.local.within(self.local.q_mvar(state[1], vm_pu, self.s_rated, setpoint[1]), q_limit)
        (available,), effect = super().step(state, (p, q), series)
        return (available, effect.q_mvar, limit + 0.0), effect
