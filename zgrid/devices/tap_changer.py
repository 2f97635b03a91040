"""On-load tap changer of a transformer."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from zgrid.devices.base import Actuation, AssetConfig, ElementConfig
from zgrid.devices.positioned import Positioned, PositionedConfig, Travel


class TapChangerConfig(PositionedConfig, ElementConfig):
    """Parameters of a tap changer; ``element`` is a transformer with taps."""

    tap_min: int = Field(description="lowest position, within the transformer's own range")
    tap_max: int = Field(description="highest position, within the transformer's own range")
    tap_init: int = Field(description="position at reset")
    tap_cost: float = Field(0.0, ge=0, description="$ per position moved")
    max_moves: int = Field(1, ge=1, description="most positions moved per time step")

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if not self.tap_min < self.tap_max:
            raise ValueError(f"tap_min {self.tap_min} is not below tap_max {self.tap_max}")
        if not self.tap_min <= self.tap_init <= self.tap_max:
            raise ValueError(f"tap_init {self.tap_init} is outside its range, {self.tap_min} to {self.tap_max}")
        return self

    def travel(self) -> Travel:
        return Travel(self.tap_min, self.tap_max, self.tap_init, self.tap_cost, self.max_moves)

    def actuation(self) -> Actuation:
        return Actuation("tap", self.element)


class TapChanger(Positioned):
    """The tap position, moved as in :class:`~zgrid.devices.positioned.Positioned`.

    What a position does to the voltage is the transformer's: its ratio changes by the step that the network says.
    """

    Config: ClassVar[type[AssetConfig]] = TapChangerConfig
    SETPOINT = ("tap",)
    STATE = ("tap",)
    POSITION = "tap"
    COST = "tap_cost"
