"""Protocols ``none``: the baselines in which nobody coordinates anything."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from zgrid.messages import Floats
from zgrid.protocols.base import Inbox, Local, Outbox, Protocol, ProtocolConfig, Result, RoundsConfig, VerticalProtocol


class NoneConfig(ProtocolConfig):
    """It has no parameters."""

    kind: str = "none"


class NoVertical(VerticalProtocol):
    """Every device stays as it is, whatever the action: no power, and a breaker, a tap or a step where it begins.

    A control's ``idle`` value is cut to its limits, so a generator with a least power runs at that.
    """

    Config: ClassVar[type[ProtocolConfig]] = NoneConfig

    def setpoints(self, action: Floats) -> list[Floats]:
        result = []
        for controls, positions, neutral in self.devices:
            values = list(neutral)
            for control, position in zip(controls, positions, strict=True):
                values[position] = min(max(control.idle, control.low), control.high)
            result.append(tuple(values))
        return result


class SilenceConfig(RoundsConfig):
    """It has the parameters of all that talk, and does nothing with them."""

    kind: str = "none"
    rounds: int = Field(1, ge=1, le=10_000, description="rounds in which nothing is said")


class NoHorizontal(Protocol):
    """A peer that says nothing and comes to nothing. It tolerates everything."""

    Config: ClassVar[type[RoundsConfig]] = SilenceConfig
    TOLERATES = frozenset({"loss", "delay"})

    def start(self, step: int, local: Local) -> Outbox:
        return {}

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        return {}

    def residual(self) -> float:
        return 0.0

    def result(self) -> Result:
        return Result()
