"""Controlled tie to another network (a back-to-back converter) that trades energy there."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from zgrid.devices.base import AssetConfig, Control, Device, DeviceConfig, Effect, Market, SeriesSource
from zgrid.devices.elementwise import Value


class GridTieConfig(DeviceConfig):
    """Parameters of a tie. Importing from the other network counts positive."""

    import_limit_mw: float = Field(ge=0, description="most power taken from the other network, MW")
    export_limit_mw: float = Field(ge=0, description="most power given to the other network, MW")
    s_rated_mva: float = Field(gt=0, description="rating of the converter, MVA")
    price: SeriesSource = Field(description="price in the other network, $/MWh: a time series or a constant")
    sell_discount: float = Field(1.0, ge=0, le=1, description="share of that price that an export is paid")
    q_control: bool = Field(False, description="whether the action sets the reactive power too")

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        for key in ("import_limit_mw", "export_limit_mw"):
            if getattr(self, key) > self.s_rated_mva:
                raise ValueError(f"{key} {getattr(self, key)} is above s_rated_mva {self.s_rated_mva}")
        if self.import_limit_mw + self.export_limit_mw == 0.0:
            raise ValueError("import_limit_mw and export_limit_mw are both 0; expected one above 0")
        return self

    def series(self) -> tuple[str | float, ...]:
        return (self.price,)


class GridTie(Device):
    """Equations, with p > 0 importing:

    - Active power: the setpoint within [-export_limit, import_limit]. The converter is taken as lossless.
    - Reactive power: within the converter's circle sqrt(s^2 - p^2), independent of the other network.
    - Cost: price p dt while importing, sell_discount price p dt while exporting; below 0 it earns.
    - Violation: reactive power asked beyond the circle, over s_rated.
    """

    Config: ClassVar[type[AssetConfig]] = GridTieConfig
    SERIES = ("price",)
    COST = "tie_cost"

    def __init__(self, configs: Any, dt_h: float, m: Any) -> None:
        super().__init__(configs, dt_h, m)
        self.most_in = self._parameter(lambda c: c.import_limit_mw)
        self.most_out = self._parameter(lambda c: c.export_limit_mw)
        self.s_rated = self._parameter(lambda c: c.s_rated_mva)
        self.sell_discount = self._parameter(lambda c: c.sell_discount)

    @classmethod
    def controls(cls, config: Any) -> tuple[Control, ...]:
        p = Control("p_mw", -config.export_limit_mw, config.import_limit_mw)
        return (p, Control("q_mvar", -config.s_rated_mva, config.s_rated_mva)) if config.q_control else (p,)

    def initial(self) -> tuple[Value, ...]:
        return ()

    def step(
        self, state: tuple[Value, ...], setpoint: tuple[Value, ...], series: tuple[Value, ...]
    ) -> tuple[tuple[Value, ...], Effect]:
        p = self.m.clip(setpoint[0], -self.most_out, self.most_in)
        q_limit = self._circle(self.s_rated, p)
        q = self.m.clip(setpoint[1], -q_limit, q_limit)
        price = self.m.where(p > 0.0, series[0], self.sell_discount * series[0])
        cost = price * p * self.dt_h
        return (), self._effect(p, q, cost, self._shortfall(0.0, setpoint[1] - q, self.s_rated))

    def respond(self, state: tuple[Value, ...], series: tuple[Value, ...], market: Market) -> tuple[Value, ...]:
        """Import where the other network is cheaper, else export where it pays more."""
        sells = self.m.where(self.sell_discount * series[0] > market.price, -self.most_out, 0.0)
        p = self.m.where(series[0] < market.price, self.most_in, sells)
        return p, p * 0.0
