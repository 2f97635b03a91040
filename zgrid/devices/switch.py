"""Switches: one of the network's own, or the breaker at a grid's PCC."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from zgrid.devices.base import Actuation, AssetConfig, Effect, ElementConfig
from zgrid.devices.elementwise import Value
from zgrid.devices.positioned import Positioned, PositionedConfig, Travel


class ContactConfig(PositionedConfig):
    """What everything that opens and closes says."""

    closed_init: bool = Field(True, description="whether it is closed at reset")
    switching_cost: float = Field(0.0, ge=0, description="$ per opening or closing")

    def travel(self) -> Travel:
        return Travel(0, 1, int(self.closed_init), self.switching_cost)


class SwitchConfig(ContactConfig, ElementConfig):
    """Parameters of a switch; ``element`` is a switch of the network."""

    def actuation(self) -> Actuation:
        return Actuation("switch", self.element)


class PccBreakerConfig(ContactConfig):
    """Parameters of the breaker at a grid's PCC."""

    min_open_h: float = Field(0.0, ge=0, description="hours that it stays open at least")

    def actuation(self) -> Actuation:
        return Actuation("pcc")


class Switch(Positioned):
    """Closed (1) or open (0), moved as in :class:`~zgrid.devices.positioned.Positioned`."""

    Config: ClassVar[type[AssetConfig]] = SwitchConfig
    SETPOINT = ("closed",)
    STATE = ("closed",)
    POSITION = "closed"
    COST = "switching_cost"


class PccBreaker(Positioned):
    """Closed (1) or open (0): open, its grid is an island.

    After opening it stays open for ``min_open_h``, counted from the begin of the step that opens it; a command to
    close before is refused and is a violation of 1. Reclosing is assumed to be synchronised, without a transient.
    """

    Config: ClassVar[type[AssetConfig]] = PccBreakerConfig
    SETPOINT = ("closed",)
    STATE = ("closed", "remaining_h")
    POSITION = "closed"
    COST = "switching_cost"

    def __init__(self, configs: Any, dt_h: float, m: Any) -> None:
        super().__init__(configs, dt_h, m)
        self.min_open = self._parameter(lambda c: c.min_open_h)

    def initial(self) -> tuple[Value, ...]:
        return self.begin, self.begin * 0.0

    def step(
        self, state: tuple[Value, ...], setpoint: tuple[Value, ...], series: tuple[Value, ...]
    ) -> tuple[tuple[Value, ...], Effect]:
        m, (closed, remaining) = self.m, state
        asked = self._wanted(setpoint[0])
        wanted = m.where(remaining > _DONE_H, closed, asked)
        there, effect = self._move(closed, wanted)
        remaining = m.where(closed > there, self.min_open, remaining)
        refused = m.maximum(asked - wanted, 0.0)
        return (there, m.maximum(remaining - self.dt_h, 0.0) + 0.0), effect._replace(violation=refused + 0.0)


_DONE_H = 1e-9
