"""What a topology says of its links: rules, each for the messages that fit its patterns, kind and window."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Number: TypeAlias = Annotated[float, Field(ge=-1e6, le=1e6)]
Steps: TypeAlias = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
"""First and last step of an episode, both within; the first after a reset is 1."""

MOST = 1e9
"""The largest lie: an attack that feeds on its own results shall not end a run by numbers that are not finite."""

NEEDS = {
    "constant": ("value",),
    "uniform": ("low", "high"),
    "normal": ("mean", "std"),
    "exponential": ("mean",),
    "lognormal": ("median", "sigma"),
    "trace": ("values",),
}
"""The parameters of each kind of delay."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Delay(_Section):
    """How long a message takes, in periods (a round of ``peer``, else a step) or, with ``period_s``, in seconds."""

    kind: Literal["constant", "uniform", "normal", "exponential", "lognormal", "trace"] = Field(
        description="normal: cut off at 0, never negative; trace: the values in turn, over and over"
    )
    value: float | None = Field(None, ge=0, le=1e6, description="constant")
    low: float | None = Field(None, ge=0, le=1e6, description="uniform")
    high: float | None = Field(None, ge=0, le=1e6, description="uniform")
    mean: float | None = Field(None, ge=0, le=1e6, description="normal (before it is cut off), exponential")
    std: float | None = Field(None, gt=0, le=1e6, description="normal (before it is cut off)")
    median: float | None = Field(None, gt=0, le=1e6, description="lognormal")
    sigma: float | None = Field(None, gt=0, le=10, description="lognormal: standard deviation of the logarithm")
    values: tuple[Annotated[float, Field(ge=0, le=1e6)], ...] = Field((), description="trace")

    @model_validator(mode="after")
    def _parameters(self) -> Delay:
        """Those of its kind, and no others."""
        needed = set(NEEDS[self.kind])
        given = {key for key in type(self).model_fields if key != "kind" and getattr(self, key) not in (None, ())}
        if needed != given:
            raise ValueError(f"a {self.kind} delay has {' and '.join(NEEDS[self.kind])}, got {sorted(given)}")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"expected low <= high, got {self.low} and {self.high}")
        return self


class GilbertElliott(_Section):
    """Losses in bursts: a chain of a good and a bad state, moved on by one each period."""

    p_gb: Probability = Field(description="probability of a move from good to bad")
    p_bg: Probability = Field(description="probability of a move from bad to good")
    loss_good: Probability = Field(0.0, description="loss in the good state")
    loss_bad: Probability = Field(1.0, description="loss in the bad state")

    @property
    def bad_share(self) -> float:
        """Stationary probability of the bad state; an episode begins in it with that."""
        return self.p_gb / (self.p_gb + self.p_bg) if self.p_gb else 0.0


class FalseData(_Section):
    """An attack: value -> value x scale + bias + ramp x n, or ``replace``; n counts 1, 2, ... from its first step on
    (``peer``: the rounds of a step).
    """

    bias: Number = Field(0.0, description="added; in the unit of the value")
    scale: Number = Field(1.0, description="factor")
    ramp: Number = Field(0.0, description="added once more in each step, or round")
    replace: Number | None = Field(None, description="instead of the value")
    entries: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, description="which numbers of a message, from 0; default: all"
    )

    def on(self, value: float, n: int) -> float:
        """What is heard in place of a value, within +-``MOST``."""
        told = value * self.scale + self.bias + self.ramp * n if self.replace is None else self.replace
        return min(max(told, -MOST), MOST)


class LinkConfig(_Section):
    """A rule: which messages, and what happens to them. Several that fit the same message all act on it."""

    source: str = Field("*", min_length=1, description="who speaks: an agent's id, env, or a pattern with * ? [...]")
    destination: str = Field("*", min_length=1, description="who hears, likewise")
    kind: Literal["peer", "setpoint", "state", "action", "network", "*"] = Field(
        "*",
        description="peer: between grids, round by round; action and network: env to grid; setpoint: grid to device; "
        "state: device to grid",
    )
    direction: Literal["forward", "both"] = Field("forward", description="both: from destination to source too")
    window: Steps | None = Field(None, description="first and last step of the episode, from 1; default: always")
    hours: tuple[float, float] | None = Field(
        None, description="likewise in hours since the episode's begin; the end is not within"
    )
    period_s: float | None = Field(None, gt=0, description="delay and jitter are in s, and a round or step takes this")
    delay: Delay | None = None
    jitter: float = Field(0.0, ge=0, le=1e6, description="delay, evenly up to so much shorter or longer")
    loss: Probability = Field(0.0, description="probability that a message is lost")
    gilbert_elliott: GilbertElliott | None = Field(None, description="losses in bursts")
    duplicate: Probability = Field(0.0, description="probability that a message comes twice")
    reorder: Probability = Field(0.0, description="probability that a message is held back for one more period")
    rate: float | None = Field(None, gt=0, description="most messages per round or step; the others queue")
    queue: int | None = Field(None, ge=0, description="so many may queue, further ones are lost; default: any number")
    outages: tuple[Steps, ...] = Field((), description="steps of the episode, first and last, in which all is lost")
    partition: tuple[tuple[str, ...], ...] = Field(
        (), description="groups of ids; what goes from one to another is lost"
    )
    false_data: FalseData | None = Field(None, description="attack: the numbers are changed")
    denial: bool = Field(False, description="attack: everything is lost")
    replay: int | None = Field(
        None, ge=1, le=10_000, description="attack: what was said so many periods ago, as if new"
    )
    receiver: Literal["hold_last", "zero", "drop"] | None = Field(
        None,
        description="what to act on where nothing came: the newest known (default); zeros; the newest until it is "
        "older than max_age, then as if nothing had ever been heard",
    )
    max_age: int | None = Field(None, ge=0, description="drop: periods; peer: older messages are not handed over")

    @model_validator(mode="after")
    def _fits(self) -> LinkConfig:
        for steps in (self.window, self.hours, *self.outages):
            if steps is not None and (steps[0] > steps[1] or steps[0] < 0):
                raise ValueError(f"expected a first and a last one that is not before it, got {list(steps)}")
        if (self.receiver == "drop") != (self.max_age is not None):
            raise ValueError("receiver: drop and max_age go together")
        if self.kind == "peer" and self.receiver in ("hold_last", "zero"):
            raise ValueError("what silence means to peers is up to their protocol; expected drop, or no receiver")
        if self.queue is not None and self.rate is None:
            raise ValueError("queue needs a rate")
        if len(self.partition) == 1:
            raise ValueError("a partition has two groups or more")
        if self.period_s is not None and self.delay is None and not self.jitter:
            raise ValueError("period_s needs a delay or a jitter")
        return self

    def fits(self, source: str, destination: str, kind: str) -> bool:
        """Whether it is about a channel."""
        if self.kind not in ("*", kind):
            return False
        ways = [(source, destination), (destination, source)][: 2 if self.direction == "both" else 1]
        return any(fnmatchcase(one, self.source) and fnmatchcase(other, self.destination) for one, other in ways)

    def active(self, step: int, dt_h: float) -> bool:
        """Whether it acts in a step of the episode, counted from 1."""
        if self.window is not None and not self.window[0] <= step <= self.window[1]:
            return False
        return self.hours is None or self.hours[0] <= (step - 1) * dt_h < self.hours[1]

    def first(self, dt_h: float) -> int:
        """The first step in which it acts."""
        begin = self.window[0] if self.window is not None else 1
        return begin if self.hours is None else max(begin, 1 + -int(-self.hours[0] // dt_h))

    def severs(self, source: str, destination: str) -> bool:
        """Whether its partition parts these two; who is in no group is not cut off."""
        sides = [{k for k, group in enumerate(self.partition) if _among(one, group)} for one in (source, destination)]
        return all(sides) and not sides[0] & sides[1]

    def patterns(self) -> Iterator[tuple[str, str]]:
        """(key, pattern) of every pattern of ids."""
        yield "source", self.source
        yield "destination", self.destination
        for k, group in enumerate(self.partition):
            yield from ((f"partition.{k}", pattern) for pattern in group)


def _among(one: str, group: tuple[str, ...]) -> bool:
    return any(fnmatchcase(one, pattern) for pattern in group)
