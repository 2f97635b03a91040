"""Fixed load that follows a time series; it has no controls."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from zgrid.devices.base import Control, Device, DeviceConfig, Effect, Market, SeriesSource
from zgrid.devices.elementwise import Value


class LoadConfig(DeviceConfig):
    """Parameters of a load."""

    demand: SeriesSource = Field(description="time series in pu of p_mw and q_mvar, or a constant")
    p_mw: float = Field(ge=0, description="active power at a demand of 1, MW")
    q_mvar: float = Field(0.0, description="reactive power at a demand of 1, Mvar")
    scale: float = Field(1.0, ge=0, description="factor on the series")

    def series(self) -> tuple[str | float, ...]:
        return (self.demand,)


class Load(Device):
    """Injection: -p scale series and -q scale series. No cost, no violation, no controls."""

    Config: ClassVar[type[DeviceConfig]] = LoadConfig
    SERIES = ("demand",)
    COST = "load_cost"

    def __init__(self, configs: Any, dt_h: float, m: Any) -> None:
        super().__init__(configs, dt_h, m)
        self.p_mw = self._parameter(lambda c: c.p_mw * c.scale)
        self.q_mvar = self._parameter(lambda c: c.q_mvar * c.scale)

    @classmethod
    def controls(cls, config: Any) -> tuple[Control, ...]:
        return ()

    def initial(self) -> tuple[Value, ...]:
        return ()

    def step(
        self, state: tuple[Value, ...], setpoint: tuple[Value, ...], series: tuple[Value, ...]
    ) -> tuple[tuple[Value, ...], Effect]:
        p = 0.0 - self.p_mw * series[0]
        return (), self._effect(p, 0.0 - self.q_mvar * series[0], p * 0.0, p * 0.0)

    def respond(self, state: tuple[Value, ...], series: tuple[Value, ...], market: Market) -> tuple[Value, ...]:
        """Nothing to choose."""
        return series[0] * 0.0, series[0] * 0.0
