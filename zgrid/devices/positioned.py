"""What capacitors, tap changers, switches and breakers share: a whole position that moves one by one, at a price."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

from zgrid.devices.base import AssetConfig, Control, Device, Effect, Market
from zgrid.devices.elementwise import Value, nearest

UNLIMITED = 1e9


class Travel(NamedTuple):
    """From where to where a position goes, where it begins, $ per position moved, and the most moves per step."""

    low: int
    high: int
    initial: int
    cost: float
    max_moves: float = UNLIMITED


class PositionedConfig(AssetConfig):
    """What the config of every kind with a position can tell."""

    @abstractmethod
    def travel(self) -> Travel:
        """How the position may move."""


class Positioned(Device):
    """Equations, for a position n that is a whole number:

    - Wanted: the setpoint within [low, high], rounded to the nearest position.
    - n' = the wanted position within n +- max_moves.
    - Cost: cost |n' - n|.
    - Violation: positions wanted beyond max_moves, over high - low.

    It injects nothing itself: the network carries what the position changes, in the same step.
    """

    Config: ClassVar[type[AssetConfig]]

    def __init__(self, configs: Any, dt_h: float, m: Any) -> None:
        super().__init__(configs, dt_h, m)
        self.low = self._parameter(lambda c: c.travel().low)
        self.high = self._parameter(lambda c: c.travel().high)
        self.begin = self._parameter(lambda c: c.travel().initial)
        self.cost = self._parameter(lambda c: c.travel().cost)
        self.max_moves = self._parameter(lambda c: c.travel().max_moves)

    @classmethod
    def controls(cls, config: Any) -> tuple[Control, ...]:
        low, high, initial, *_ = config.travel()
        return (Control(cls.POSITION, float(low), float(high), high - low + 1, float(initial)),)

    def initial(self) -> tuple[Value, ...]:
        return (self.begin,)

    def step(
        self, state: tuple[Value, ...], setpoint: tuple[Value, ...], series: tuple[Value, ...]
    ) -> tuple[tuple[Value, ...], Effect]:
        position, effect = self._move(state[0], self._wanted(setpoint[0]))
        return (position,), effect

    def respond(self, state: tuple[Value, ...], series: tuple[Value, ...], market: Market) -> tuple[Value, ...]:
        """Stay."""
        return (state[0],)

    def _wanted(self, asked: Value) -> Value:
        return nearest(self.m.clip(asked, self.low, self.high))

    def _move(self, position: Value, wanted: Value) -> tuple[Value, Effect]:
        """Go towards the wanted position: the new one, and what that did."""
        m = self.m
        there = m.clip(wanted, position - self.max_moves, position + self.max_moves) + 0.0
        cost = self.cost * _distance(m, there, position)
        violation = _distance(m, wanted, there) / (self.high - self.low)
        nothing = there * 0.0
        return there, self._effect(nothing, nothing, cost, violation)


def _distance(m: Any, a: Value, b: Value) -> Value:
    return m.maximum(a - b, b - a)
