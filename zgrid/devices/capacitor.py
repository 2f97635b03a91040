"""Shunt banks in equal steps, for reactive power and voltage: a capacitor of one's own, or a bank of the network."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from zgrid.devices.base import Actuation, AssetConfig, DeviceConfig, ElementConfig, Market
from zgrid.devices.elementwise import Value
from zgrid.devices.positioned import UNLIMITED, Positioned, PositionedConfig, Travel


class CapacitorConfig(PositionedConfig, DeviceConfig):
    """Parameters of a capacitor bank."""

    q_mvar_per_step: float = Field(gt=0, description="reactive power of one step at a voltage of 1 pu, Mvar")
    steps: int = Field(ge=1, description="steps that can be switched on")
    step_init: int = Field(0, ge=0, description="steps that are on at reset")
    switching_cost: float = Field(0.0, ge=0, description="$ per step switched on or off")
    max_moves: int | None = Field(None, ge=1, description="most steps switched per time step; default: all")
    vm_min_pu: float = Field(0.97, gt=0, description="by itself, it adds a step below this voltage")
    vm_max_pu: float = Field(1.03, gt=0, description="by itself, it drops a step above this voltage")

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.step_init > self.steps:
            raise ValueError(f"step_init {self.step_init} is above steps {self.steps}")
        if not self.vm_min_pu < self.vm_max_pu:
            raise ValueError(f"vm_min_pu {self.vm_min_pu} is not below vm_max_pu {self.vm_max_pu}")
        return self

    def travel(self) -> Travel:
        return Travel(0, self.steps, self.step_init, self.switching_cost, self.max_moves or UNLIMITED)

    def actuation(self) -> Actuation:
        return Actuation("capacitor", self.bus, self.q_mvar_per_step, self.steps)


class Capacitor(Positioned):
    """The steps that are on, moved as in :class:`~zgrid.devices.positioned.Positioned`.

    Its reactive power is that of a shunt in the network, n q_mvar_per_step v^2 at a voltage of v pu, so that the device
    itself injects nothing.
    """

    Config: ClassVar[type[AssetConfig]] = CapacitorConfig
    SETPOINT = ("step",)
    STATE = ("step",)
    MEASURES = ("vm_pu",)
    POSITION = "step"
    COST = "switching_cost"

    def __init__(self, configs: Any, dt_h: float, m: Any) -> None:
        super().__init__(configs, dt_h, m)
        self.vm_min = self._parameter(lambda c: c.vm_min_pu)
        self.vm_max = self._parameter(lambda c: c.vm_max_pu)

    def respond(self, state: tuple[Value, ...], series: tuple[Value, ...], market: Market) -> tuple[Value, ...]:
        """One step more where the last voltage was low, one less where it was high; a dead bus asks for nothing."""
        m, vm_pu = self.m, series[-1]
        more = m.where(vm_pu < self.vm_min, m.where(vm_pu > 0.0, 1.0, 0.0), 0.0)
        less = m.where(vm_pu > self.vm_max, 1.0, 0.0)
        return (m.clip(state[0] + more - less, self.low, self.high),)


class ShuntConfig(PositionedConfig, ElementConfig):
    """Parameters of a bank that stands in the network already; ``element`` is a shunt."""

    steps: int = Field(ge=1, description="steps that can be switched on; their reactive power is the network's")
    step_init: int = Field(0, ge=0, description="steps that are on at reset")
    switching_cost: float = Field(0.0, ge=0, description="$ per step switched on or off")
    max_moves: int | None = Field(None, ge=1, description="most steps switched per time step; default: all")

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.step_init > self.steps:
            raise ValueError(f"step_init {self.step_init} is above steps {self.steps}")
        return self

    def travel(self) -> Travel:
        return Travel(0, self.steps, self.step_init, self.switching_cost, self.max_moves or UNLIMITED)

    def actuation(self) -> Actuation:
        return Actuation("shunt", self.element, max_step=self.steps)


class Shunt(Positioned):
    """The steps that are on, moved as in :class:`~zgrid.devices.positioned.Positioned`."""

    Config: ClassVar[type[AssetConfig]] = ShuntConfig
    SETPOINT = ("step",)
    STATE = ("step",)
    POSITION = "step"
    COST = "switching_cost"
