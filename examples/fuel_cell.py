"""A device of one's own: a hydrogen fuel cell with a tank, in one file.

``python launch.py examples/fuel_cell.yaml`` plays it in a microgrid; the topology names it by
``kind: examples.fuel_cell:FuelCell``.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from zgrid import Control, Device, DeviceConfig, Effect


class FuelCellConfig(DeviceConfig):
    """What the topology says of a fuel cell; unknown keys are errors."""

    p_max_mw: float = Field(gt=0, description="most power, MW")
    tank_mwh: float = Field(gt=0, description="energy of a full tank, MWh")
    efficiency: float = Field(gt=0, le=1, description="electric energy per energy from the tank")
    hydrogen_cost: float = Field(ge=0, description="$ per MWh from the tank")


class FuelCell(Device):
    """p within [0, p_max] and what the tank still gives; cost hydrogen_cost x p dt / efficiency."""

    Config = FuelCellConfig
    SETPOINT = ("p_mw",)
    STATE = ("tank",)
    COST = "hydrogen_cost"

    def __init__(self, configs: Any, dt_h: float, m: Any) -> None:
        super().__init__(configs, dt_h, m)
        self.p_max = self._parameter(lambda c: c.p_max_mw)
        self.tank_mwh = self._parameter(lambda c: c.tank_mwh)
        self.efficiency = self._parameter(lambda c: c.efficiency)
        self.hydrogen_cost = self._parameter(lambda c: c.hydrogen_cost)

    @classmethod
    def controls(cls, config: Any) -> tuple[Control, ...]:
        return (Control("p_mw", 0.0, config.p_max_mw),)

    def initial(self) -> tuple[Any, ...]:
        return (self.p_max * 0.0 + 1.0,)

    def step(self, state: Any, setpoint: Any, series: Any) -> tuple[tuple[Any, ...], Effect]:
        most = self.m.minimum(self.p_max, state[0] * self.tank_mwh * self.efficiency / self.dt_h)
        p = self.m.clip(setpoint[0], 0.0, most)
        used_mwh = p * self.dt_h / self.efficiency
        tank = self.m.maximum(state[0] - used_mwh / self.tank_mwh, 0.0)
        return (tank,), Effect(p, p * 0.0, self.hydrogen_cost * used_mwh, (setpoint[0] - p) / self.p_max)

    def respond(self, state: Any, series: Any, market: Any) -> tuple[Any, ...]:
        """Run where the price pays the hydrogen."""
        pays = market.price * self.efficiency > self.hydrogen_cost
        most = self.m.minimum(self.p_max, state[0] * self.tank_mwh * self.efficiency / self.dt_h)
        return (self.m.where(pays, most, 0.0),)
