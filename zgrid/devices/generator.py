"""Dispatchable generator (diesel or gas), with optional reactive power, ramp limit and unit commitment."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from zgrid.devices.base import Control, Device, DeviceConfig, Effect, Market, Offer
from zgrid.devices.elementwise import Value

OFF, STARTING, ON, STOPPING = 0.0, 1.0, 2.0, 3.0


class GeneratorConfig(DeviceConfig):
    """Parameters of a generator. Its cost is quadratic, or piecewise linear through ``cost_points``."""

    p_min_mw: float = Field(0.0, ge=0, description="least power while on, MW")
    p_max_mw: float = Field(gt=0, description="most power, MW")
    s_rated_mva: float = Field(gt=0, description="apparent power rating, MVA")
    q_control: bool = Field(False, description="whether the action sets the reactive power too")
    q_min_mvar: float | None = Field(None, description="least reactive power, Mvar; default: what the circle leaves")
    q_max_mvar: float | None = Field(None, description="most reactive power, Mvar; default: what the circle leaves")
    min_power_factor: float | None = Field(
        None, gt=0, le=1, description="least power factor while reactive power flows"
    )
    cost_a: float = Field(0.0, ge=0, description="quadratic cost, $/(MW^2 h)")
    cost_b: float = Field(0.0, description="linear cost, $/MWh")
    cost_c: float = Field(0.0, ge=0, description="cost of being on, $/h")
    cost_points: tuple[tuple[float, float], ...] = Field(
        (), description="convex piecewise linear cost instead: (MW, $/h) points from p_min_mw to p_max_mw"
    )
    ramp_mw_per_h: float | None = Field(None, gt=0, description="ramp limit up and down, MW/h; default: none")
    commitment: bool = Field(False, description="whether the action starts and stops the unit; else it is always on")
    start_time_h: float = Field(0.0, ge=0, description="from the start command to the first power, h")
    stop_time_h: float = Field(0.0, ge=0, description="from the stop command to a possible new start, h")
    start_cost: float = Field(0.0, ge=0, description="$ per start")
    stop_cost: float = Field(0.0, ge=0, description="$ per stop")

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.p_min_mw > self.p_max_mw:
            raise ValueError(f"p_min_mw {self.p_min_mw} is above p_max_mw {self.p_max_mw}")
        if self.p_max_mw > self.s_rated_mva:
            raise ValueError(f"p_max_mw {self.p_max_mw} is above s_rated_mva {self.s_rated_mva}")
        if (self.q_min_mvar or 0.0) > 0.0 or (self.q_max_mvar or 0.0) < 0.0:
            raise ValueError(f"0 Mvar is not within q_min_mvar {self.q_min_mvar} to q_max_mvar {self.q_max_mvar}")
        if self.cost_points:
            self._check_cost_points()
        return self

    def _check_cost_points(self) -> None:
        p = [point[0] for point in self.cost_points]
        if len(p) < 2 or p != sorted(set(p)) or p[0] != self.p_min_mw or p[-1] != self.p_max_mw:
            raise ValueError(
                "cost_points: at least two, with rising MW, the first at p_min_mw and the last at p_max_mw"
            )
        slopes = [slope for slope, _ in self.segments()]
        if slopes != sorted(slopes):
            raise ValueError("cost_points: the slope must not fall (a convex cost)")
        if self.cost_a or self.cost_b or self.cost_c:
            raise ValueError("give cost_points or cost_a, cost_b, cost_c, not both")

    def segments(self) -> tuple[tuple[float, float], ...]:
        """The pieces of a piecewise linear cost: (slope in $/MWh, width in MW)."""
        pairs = zip(self.cost_points, self.cost_points[1:], strict=False)
        return tuple(((c1 - c0) / (p1 - p0), p1 - p0) for (p0, c0), (p1, c1) in pairs)


class Generator(Device):
    """Equations, all per step of dt hours:

    - Commitment: off -> starting -> on -> stopping -> off. A start takes ``start_time_h`` and pays ``start_cost``, a
      stop takes ``stop_time_h`` and pays ``stop_cost``; power flows only while on. A command against a running
      transition is ignored.
    - Active power: the setpoint within [p_min, p_max], then within the last power +- ramp dt.
    - Reactive power: within the circle sqrt(s^2 - p^2), within p sqrt(1 - pf^2) / pf, within [q_min, q_max].
    - Cost: (a p^2 + b p + c) dt while on [Wood and Wollenberg, Power Generation, Operation and Control], or the
      piecewise linear one, plus starts and stops.
    - Violation: what a running unit was asked beyond its ramp, circle and power factor, over s_rated.
    """

    Config: ClassVar[type[DeviceConfig]] = GeneratorConfig
    SETPOINT = ("p_mw", "q_mvar", "on")
    STATE = ("p_mw", "status", "remaining_h")
    COST = "generation_cost"

    def __init__(self, configs: Any, dt_h: float, m: Any) -> None:
        super().__init__(configs, dt_h, m)
        self.p_min = self._parameter(lambda c: c.p_min_mw)
        self.p_max = self._parameter(lambda c: c.p_max_mw)
        self.s_rated = self._parameter(lambda c: c.s_rated_mva)
        self.q_min = self._parameter(lambda c: -c.s_rated_mva if c.q_min_mvar is None else c.q_min_mvar)
        self.q_max = self._parameter(lambda c: c.s_rated_mva if c.q_max_mvar is None else c.q_max_mvar)
        self.q_per_p = self._parameter(lambda c: _tangent(c.min_power_factor))
        self.a = self._parameter(lambda c: c.cost_a)
        self.b = self._parameter(lambda c: c.cost_b)
        self.c = self._parameter(lambda c: c.cost_points[0][1] if c.cost_points else c.cost_c)
        self.ramp_mw = self._parameter(lambda c: _UNLIMITED if c.ramp_mw_per_h is None else c.ramp_mw_per_h * dt_h)
        self.start_time = self._parameter(lambda c: c.start_time_h)
        self.stop_time = self._parameter(lambda c: c.stop_time_h)
        self.start_cost = self._parameter(lambda c: c.start_cost)
        self.stop_cost = self._parameter(lambda c: c.stop_cost)
        self.commits = any(c.commitment for c in self._configs)
        self.starts_on = self._parameter(lambda c: OFF if c.commitment else ON)
        count = max(len(c.cost_points) for c in self._configs)
        self.segments = tuple((self._segment(k, 0), self._segment(k, 1)) for k in range(count - 1))

    @classmethod
    def controls(cls, config: Any) -> tuple[Control, ...]:
        controls = [Control("p_mw", config.p_min_mw, config.p_max_mw)]
        if config.q_control:
            low = -config.s_rated_mva if config.q_min_mvar is None else config.q_min_mvar
            high = config.s_rated_mva if config.q_max_mvar is None else config.q_max_mvar
            controls.append(Control("q_mvar", low, high))
        if config.commitment:
            controls.append(Control("on", 0.0, 1.0, levels=2))
        return tuple(controls)

    def initial(self) -> tuple[Value, ...]:
        zero = self.starts_on * 0.0
        return self.m.where(self.starts_on >= ON, self.p_min, zero), self.starts_on, zero

    def step(
        self, state: tuple[Value, ...], setpoint: tuple[Value, ...], series: tuple[Value, ...]
    ) -> tuple[tuple[Value, ...], Effect]:
        m = self.m
        status, remaining, switching_cost = state[1], state[2], 0.0
        if self.commits:
            status, remaining, switching_cost = self._commit(status, remaining, setpoint[2])
        on = status == ON
        asked = self.m.clip(setpoint[0], self.p_min, self.p_max)
        running = self.m.clip(asked, state[0] - self.ramp_mw, state[0] + self.ramp_mw)
        p = m.where(on, running, 0.0)
        q_limit = m.minimum(self._circle(self.s_rated, p), p * self.q_per_p)
        q_limit = m.where(self.q_per_p < 0.0, self._circle(self.s_rated, p), q_limit)
        q = self.m.clip(setpoint[1], m.maximum(self.q_min, -q_limit), m.minimum(self.q_max, q_limit))
        q = m.where(on, q, 0.0)
        cost = m.where(on, self.cost_per_h(p) * self.dt_h, 0.0) + switching_cost
        violation = m.where(on, self._shortfall(asked - p, setpoint[1] - q, self.s_rated), 0.0)
        return (p + 0.0, status, remaining + 0.0), self._effect(p, q, cost, violation)

    def cost_per_h(self, p_mw: Value) -> Value:
        """Cost of running at ``p_mw``, $/h."""
        cost = (self.a * p_mw + self.b) * p_mw + self.c
        above = p_mw - self.p_min
        for slope, width in self.segments:
            cost = cost + slope * self.m.clip(above, 0.0, width)
            above = above - width
        return cost

    def respond(self, state: tuple[Value, ...], series: tuple[Value, ...], market: Market) -> tuple[Value, ...]:
        """Run where the marginal cost 2 a p + b meets the price; be on if that earns something."""
        m = self.m
        flat = m.where(market.price >= self.b, self.p_max, self.p_min)
        p = m.where(self.a > 0.0, (market.price - self.b) / m.maximum(2.0 * self.a, 1e-12), flat)
        if self.segments:
            stacked = self.p_min
            for slope, width in self.segments:
                stacked = stacked + m.where(slope <= market.price, width, 0.0)
            p = m.where(self.segments[0][1] > 0.0, stacked, p)
        p = m.clip(m.clip(p, self.p_min, self.p_max), state[0] - self.ramp_mw, state[0] + self.ramp_mw)
        earns = market.price * p > self.cost_per_h(p)
        return p, p * 0.0, m.where(earns, 1.0, 0.0)

    def offer(self, state: tuple[float, ...], series: tuple[float, ...]) -> Offer | None:
        """Between its limits and ramp while it is on, where its cost is quadratic."""
        p_mw, status, _ = state
        if status != ON or self.segments or self.commits:
            return None
        low = max(float(self.p_min), p_mw - float(self.ramp_mw))
        high = min(float(self.p_max), p_mw + float(self.ramp_mw))
        return Offer(low, max(low, high), float(self.a), float(self.b), float(self.c))

    def _segment(self, k: int, entry: int) -> Value:
        """Slope (entry 0) or width (entry 1) of piece k of every row's cost; 0 where a row has fewer."""
        return self._parameter(lambda c: c.segments()[k][entry] if k < len(c.segments()) else 0.0)

    def _commit(self, status: Value, remaining: Value, on: Value) -> tuple[Value, Value, Value]:
        """The unit's status in this step, the rest of its transition after it, and what switching costs, $."""
        m = self.m
        over = m.where(remaining > _DONE_H, 0.0, 1.0)
        status = m.where(over * (status == STARTING) > 0.0, ON, m.where(over * (status == STOPPING) > 0.0, OFF, status))
        wanted = m.where(self.starts_on >= ON, 1.0, m.where(on >= 0.5, 1.0, 0.0))  # always on without commitment
        starts = wanted * (status == OFF) > 0.0
        stops = (1.0 - wanted) * (status == ON) > 0.0
        status = m.where(starts, m.where(self.start_time > _DONE_H, STARTING, ON), status)
        status = m.where(stops, m.where(self.stop_time > _DONE_H, STOPPING, OFF), status)
        remaining = m.where(starts, self.start_time, m.where(stops, self.stop_time, remaining))
        cost = m.where(starts, self.start_cost, m.where(stops, self.stop_cost, 0.0))
        return status, m.maximum(remaining - self.dt_h, 0.0), cost


_UNLIMITED = 1e9
_DONE_H = 1e-9


def _tangent(power_factor: float | None) -> float:
    """Mvar per MW at the least power factor; -1 where there is none."""
    return -1.0 if power_factor is None else math.sqrt(1.0 - power_factor * power_factor) / power_factor
