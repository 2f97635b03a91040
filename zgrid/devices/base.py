"""What a device kind is: its parameters, its controls and its equations.

A kind is written once, as elementwise functions (see elementwise.py): the same ``step`` moves one device on floats and
all devices of the kind on arrays. No kind does I/O, and none knows the network.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from zgrid.devices.elementwise import ARRAYS, FLOATS, Elementwise, Value
from zgrid.failure import FAIL, FailurePolicy

FloatArray: TypeAlias = NDArray[np.float64]


def _name_or_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"expected the name of a time series or a number, got {value!r}")
    if not isinstance(value, str) and not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value!r}")
    return value


SeriesSource: TypeAlias = Annotated[str | float, BeforeValidator(_name_or_number)]
"""What a value follows: a time series by name, or a constant."""


class Clock(NamedTuple):
    """The rows of the time series: ``n_days`` days of ``steps_per_day`` steps of ``dt_h`` hours."""

    n_days: int
    steps_per_day: int
    dt_h: float

    @property
    def n_rows(self) -> int:
        """Steps in all."""
        return self.n_days * self.steps_per_day


class Actuation(NamedTuple):
    """What a device moves in its grid's network: the position is an entry of its state, see ``Device.POSITION``.

    ``kind`` and ``element``: "tap", "switch" or "shunt" and the element's name; "capacitor" and the bus where one of
    ``max_step`` steps of ``q_mvar`` each is added; "pcc" for the grid's connection, without a name.
    """

    kind: str
    element: str = ""
    q_mvar: float = 0.0
    max_step: int = 0


class AssetConfig(BaseModel):
    """What everything that has an agent says in a topology. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)

    kind: str = Field(description="one of the built-in kinds, or a plug-in, module:Class")
    run: Literal["process", "inline", "external"] = Field(
        "process", description="over ZeroMQ: in a process of its own, inside the env node, or started by hand elsewhere"
    )

    host: str | None = Field(
        None,
        description="address or name of the machine it runs on; default: the env's, or "
        "with another placement than agent its grid's",
    )
    on_failure: FailurePolicy = Field(FAIL, description="what its failure leads to")
    safe: dict[str, float] = Field(
        {}, description="entries of its safe setpoint, by name; the others leave things as they are"
    )
    watchdog_s: float | None = Field(
        None,
        ge=1.0,
        description="over ZeroMQ: go to the safe setpoint when nothing was heard of its grid for so long; heartbeats "
        "come every 0.3 s",
    )

    def series(self) -> tuple[str | float, ...]:
        """The time series the device follows, in the order of its kind's ``SERIES``: a name, or a constant."""
        return ()

    def columns(
        self, column: Callable[[str | float], FloatArray], clock: Clock, rng: np.random.Generator
    ) -> list[FloatArray]:
        """The values of its kind's ``SERIES`` on every row of the data, (n_rows,) float64 each.

        ``column`` gives those of a series by name. A kind that makes its own, such as a schedule of arrivals, draws
        from ``rng`` alone, which is seeded by the device's id.
        """
        return [column(source) for source in self.series()]

    def actuation(self) -> Actuation | None:
        """What it moves in the network, if anything."""
        return None


class DeviceConfig(AssetConfig):
    """What every device at a bus says in a topology; a kind adds its own parameters."""

    bus: str = Field(description="name of the bus in the grid's own network")


class ElementConfig(AssetConfig):
    """What every device that moves an element of the network says; it injects nothing."""

    element: str = Field(description="name of the element in the grid's own network")


class Control(NamedTuple):
    """One entry of a device's action, scaled from [-1, 1] to [low, high]; ``levels`` > 0: to as many equal steps.

    ``idle`` is the value that leaves things as they are: no power, and a breaker, a tap or a step where it begins.
    """

    name: str
    low: float
    high: float
    levels: int = 0
    idle: float = 0.0

    def scale(self, action: float) -> float:
        """The setpoint entry for an action, which is clipped to [-1, 1]; discrete ones fall into equal bins."""
        if action < -1.0:
            action = -1.0
        elif action > 1.0:
            action = 1.0
        if self.levels == 0:
            return self.low + (action + 1.0) * 0.5 * (self.high - self.low)
        level = min(int((action + 1.0) * 0.5 * self.levels), self.levels - 1)
        return self.low + level * (self.high - self.low) / (self.levels - 1)

    def unscale(self, value: float) -> float:
        """The action in [-1, 1] that gives a setpoint entry; for a discrete one, the middle of its bin."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        if self.levels > 0:
            share = (round(share * (self.levels - 1)) + 0.5) / self.levels
        return min(max(2.0 * share - 1.0, -1.0), 1.0)


class Effect(NamedTuple):
    """What a device did in one step: injection in MW and Mvar, cost in $ of the step, violation in pu of its rating."""

    p_mw: Value
    q_mvar: Value
    cost: Value
    violation: Value


class Offer(NamedTuple):
    """What a dispatchable device can do in a step: power between its limits, MW, at a p^2 + b p + c $/h."""

    p_min_mw: float
    p_max_mw: float
    cost_a: float
    cost_b: float
    cost_c: float


class Market(NamedTuple):
    """What a device is told of the price: now, and the lower and upper quartile of the day, in $/MWh."""

    price: float
    low: float
    high: float


class Device(ABC):
    """Physics and cost of one kind; the rows of its parameters are devices.

    Subclasses name the entries of their setpoint, state and time series, and the cost term their cost belongs to.
    """

    Config: ClassVar[type[AssetConfig]]
    SETPOINT: ClassVar[tuple[str, ...]] = ("p_mw", "q_mvar")
    STATE: ClassVar[tuple[str, ...]] = ()
    SERIES: ClassVar[tuple[str, ...]] = ()
    MEASURES: ClassVar[tuple[str, ...]] = ()
    """What it measures at its bus, after ``SERIES`` in what ``step`` and ``respond`` are given: ``vm_pu``, the voltage
    that the last step ended with, 0 where the bus was dead."""
    POSITION: ClassVar[str] = ""
    """The entry of ``STATE`` that is the position of what its config's ``actuation`` names."""
    COST: ClassVar[str]

    def __init__(self, configs: Sequence[Any], dt_h: float, m: Elementwise) -> None:
        self._configs = tuple(configs)
        self.dt_h = dt_h
        self.m = m

    @classmethod
    def one(cls, config: AssetConfig, dt_h: float) -> Self:
        """One device, on floats."""
        return cls((config,), dt_h, FLOATS)

    @classmethod
    def many(cls, configs: Sequence[AssetConfig], dt_h: float) -> Self:
        """All devices of a kind, on (..., n) float64 arrays."""
        return cls(configs, dt_h, ARRAYS)

    @classmethod
    @abstractmethod
    def controls(cls, config: Any) -> tuple[Control, ...]:
        """The entries of the setpoint that an action sets, in the order of ``SETPOINT``; the others stay neutral."""

    @abstractmethod
    def initial(self) -> tuple[Value, ...]:
        """The state at the begin of an episode."""

    @abstractmethod
    def step(
        self, state: tuple[Value, ...], setpoint: tuple[Value, ...], series: tuple[Value, ...]
    ) -> tuple[tuple[Value, ...], Effect]:
        """Apply a setpoint for one step of ``dt_h`` hours: the next state, and what was done.

        ``series`` are the values of ``SERIES`` in this step, then those of ``MEASURES``.
        """

    @abstractmethod
    def respond(self, state: tuple[Value, ...], series: tuple[Value, ...], market: Market) -> tuple[Value, ...]:
        """The setpoint the device would choose by itself, facing a price."""

    def offer(self, state: tuple[float, ...], series: tuple[float, ...]) -> Offer | None:
        """What this one device can be dispatched to by its cost in the coming step, with its series as ``step`` takes
        them; None: it is not dispatchable."""
        return None

    @classmethod
    def neutral(cls) -> tuple[float, ...]:
        """The value of each setpoint entry that no action sets: 0, and 1 for ``on``."""
        return tuple(1.0 if name == "on" else 0.0 for name in cls.SETPOINT)

    @classmethod
    def safe(cls, config: AssetConfig) -> tuple[float, ...]:
        """The setpoint that its config declares safe; what it does not name leaves things as they are: no power, and a
        breaker, a tap or a step where it begins.
        """
        values = dict(zip(cls.SETPOINT, cls.neutral(), strict=True))
        values |= {control.name: control.idle for control in cls.controls(config) if control.name != "on"}
        return tuple((values | config.safe)[name] for name in cls.SETPOINT)

    def _parameter(self, get: Callable[[Any], float]) -> Value:
        """A parameter of every row: a float, or an (n,) float64 array."""
        if self.m is FLOATS:
            return float(get(self._configs[0]))
        return np.array([get(config) for config in self._configs], dtype=np.float64)

    def _effect(self, p_mw: Value, q_mvar: Value, cost: Value, violation: Value) -> Effect:
        """An effect without negative zeros, whose sign would depend on the arithmetic at hand."""
        return tuple.__new__(Effect, (p_mw + 0.0, q_mvar + 0.0, cost + 0.0, violation + 0.0))

    def _circle(self, s_rated_mva: Value, p_mw: Value) -> Value:
        """The reactive power left beside ``p_mw`` in the apparent-power circle: sqrt(s^2 - p^2), in Mvar."""
        return self.m.sqrt(self.m.maximum(s_rated_mva * s_rated_mva - p_mw * p_mw, 0.0))

    def _shortfall(self, dp_mw: Value, dq_mvar: Value, s_rated_mva: Value) -> Value:
        """What a setpoint asked for beyond the limits, in pu of the rating: sqrt(dp^2 + dq^2) / s."""
        return self.m.sqrt(dp_mw * dp_mw + dq_mvar * dq_mvar) / s_rated_mva
