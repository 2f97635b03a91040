"""Local voltage control of an inverter: the volt-var and volt-watt curves of IEEE 1547-2018.

Kinds with it are kinds of their own (``smart_renewable``, ``smart_storage``): what a device remembers and observes is
settled by its kind, and the plain kinds stay as they are.

The voltage is the one that the last step ended with, so the control loop has a delay of one step. To keep it stable, an
output moves only the share r = ``response`` of the way to its curve in each step: q' = q + r (f(v) - q). Where the
voltage rises by x pu per Mvar at the device's bus and the curve falls by k Mvar per pu, a deviation from the
equilibrium is multiplied by 1 - r (1 + k x) per step: it fades if r (1 + k x) < 2, and without swinging if
r (1 + k x) <= 1. The default curve has k = 7.3 s_rated. With several inverters, k x is the largest eigenvalue of the
matrix of sensitivities times slopes, so many of them on one weak feeder can swing where each alone would not: choose a
smaller response [Farivar, Chen and Low 2013, Equilibrium and dynamics of local voltage control in distribution
systems; Zhu and Liu 2016, Fast local voltage control under limited reactive power]. The standard asks for a response
in seconds. With steps of minutes to hours the settled point is of interest and the way there is the model's own; after
a jump of load or sun the output lags by some steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Self, TypeAlias

from pydantic import BaseModel, Field, model_validator

from zgrid.devices.elementwise import Elementwise, Value

Point: TypeAlias = tuple[float, float]
Mode: TypeAlias = Literal["none", "volt_var", "volt_watt", "volt_var_watt"]


class InverterConfig(BaseModel):
    """Parameters of local voltage control; the curves default to category B of IEEE 1547-2018, 5.3.3 and 5.4.2."""

    control_mode: Mode = Field(
        "none", description="what follows the voltage at the bus: reactive power, active power or both"
    )
    response: float = Field(0.5, gt=0, le=1, description="share of the way to the curve that is gone in each step")
    volt_var: tuple[Point, Point, Point, Point] = Field(
        ((0.92, 0.44), (0.98, 0.0), (1.02, 0.0), (1.08, -0.44)),
        description="reactive power over voltage: (pu, pu of s_rated_mva) points, injection positive",
    )
    volt_watt: tuple[Point, Point] = Field(
        ((1.06, 1.0), (1.1, 0.2)), description="most power fed in over voltage: (pu, pu of p_max_mw) points"
    )

    @model_validator(mode="after")
    def _curves_fit(self) -> Self:
        _check_curve("volt_var", self.volt_var, -1.0)
        _check_curve("volt_watt", self.volt_watt, 0.0)
        return self

    @property
    def sets_q(self) -> bool:
        """Whether the voltage sets the reactive power, so that no action does."""
        return self.control_mode in ("volt_var", "volt_var_watt")

    @property
    def limits_p(self) -> bool:
        """Whether the voltage limits the power fed in."""
        return self.control_mode in ("volt_watt", "volt_var_watt")


def _check_curve(key: str, points: Sequence[Point], low: float) -> None:
    voltages, values = zip(*points, strict=True)
    if any(a > b for a, b in pairwise(voltages)):
        raise ValueError(f"{key}: expected voltages that do not fall, got {', '.join(map(str, voltages))}")
    if any(a < b for a, b in pairwise(values)):
        raise ValueError(f"{key}: expected values that do not rise, got {', '.join(map(str, values))}")
    if values[0] > 1.0 or values[-1] < low:
        raise ValueError(f"{key}: expected values from {low:g} to 1, got {', '.join(map(str, values))}")


class LocalControl(NamedTuple):
    """The local voltage control of all devices of a kind; each field is a value per device.

    ``sets_q`` and ``limits_p`` are 1 where the mode says so and else 0.
    """

    m: Elementwise
    sets_q: Value
    limits_p: Value
    response: Value
    volt_var: tuple[tuple[Value, Value], ...]
    volt_watt: tuple[tuple[Value, Value], ...]

    @classmethod
    def of(cls, m: Elementwise, parameter: Callable[[Callable[[Any], float]], Value]) -> Self:
        """From a device's way to read a parameter of every row."""

        def curve(key: str, n: int) -> tuple[tuple[Value, Value], ...]:
            return tuple((_entry(parameter, key, k, 0), _entry(parameter, key, k, 1)) for k in range(n))

        return cls(
            m,
            parameter(lambda c: float(c.sets_q)),
            parameter(lambda c: float(c.limits_p)),
            parameter(lambda c: c.response),
            curve("volt_var", 4),
            curve("volt_watt", 2),
        )

    def q_mvar(self, last_mvar: Value, vm_pu: Value, s_rated_mva: Value, asked_mvar: Value) -> Value:
        """The reactive power to aim at: what volt-var wants, none at a dead bus; without volt-var, what was asked."""
        curve = piecewise(self.m, vm_pu, self.volt_var) * s_rated_mva
        wanted = self.m.where(vm_pu > 0.0, last_mvar + self.response * (curve - last_mvar), 0.0)
        return self.m.where(self.sets_q > 0.0, wanted, asked_mvar)

    def within(self, q_mvar: Value, q_limit_mvar: Value) -> Value:
        """What the circle leaves of the reactive power that volt-var wants, so that the rest is no violation."""
        cut = self.m.clip(q_mvar, -q_limit_mvar, q_limit_mvar)
        return self.m.where(self.sets_q > 0.0, cut, q_mvar)

    def p_limit_pu(self, last_pu: Value, vm_pu: Value) -> Value:
        """The most power that may be fed in, pu of p_max; 1 without volt-watt."""
        limit = last_pu + self.response * (piecewise(self.m, vm_pu, self.volt_watt) - last_pu)
        return self.m.where(self.limits_p > 0.0, limit, 1.0)


def piecewise(m: Elementwise, x: Value, points: Sequence[tuple[Value, Value]]) -> Value:
    """The value at x of the lines between points (x, y), whose x do not fall; constant before and after them."""
    y = points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        y = m.where(x > x0, y0 + (y1 - y0) * ((m.minimum(x, x1) - x0) / m.maximum(x1 - x0, _LEAST)), y)
    return y


_LEAST = 1e-12  # two points may share an x: a jump


def _entry(parameter: Callable[[Callable[[Any], float]], Value], key: str, point: int, entry: int) -> Value:
    return parameter(lambda c: getattr(c, key)[point][entry])
