"""Delays: a draw from (0, 1) becomes the time a message takes, by the inverse of the distribution."""

from __future__ import annotations

from math import exp, log1p
from statistics import NormalDist

from zgrid.links.config import Delay

_STANDARD = NormalDist()
_BELOW_ONE = 1.0 - 2.0**-53


def quantile(delay: Delay, u: float, tick: int) -> float:
    """The delay at probability ``u`` in (0, 1), never negative; of a trace, that of period ``tick``, from 1."""
    if delay.kind == "trace":
        return delay.values[(tick - 1) % len(delay.values)]
    if delay.kind == "constant":
        return _given(delay.value)
    if delay.kind == "uniform":
        low = _given(delay.low)
        return low + u * (_given(delay.high) - low)
    if delay.kind == "exponential":
        return -_given(delay.mean) * log1p(-u)
    if delay.kind == "lognormal":
        return _given(delay.median) * exp(_given(delay.sigma) * _STANDARD.inv_cdf(u))
    return _cut_normal(NormalDist(_given(delay.mean), _given(delay.std)), u)


def _cut_normal(normal: NormalDist, u: float) -> float:
    """A normal distribution without its part below 0."""
    below = normal.cdf(0.0)
    return max(0.0, normal.inv_cdf(min(below + u * (1.0 - below), _BELOW_ONE)))


def _given(value: float | None) -> float:
    """A parameter that the kind is known to have."""
    assert value is not None
    return value
