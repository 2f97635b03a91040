"""Delays follow their distributions and are never negative."""

from __future__ import annotations

from math import exp, log, sqrt
from statistics import NormalDist, fmean, median, pstdev
from typing import Any

import pytest

from zgrid.links import Delay, LinkConfig
from zgrid.links.delays import quantile
from zgrid.links.draws import DELAY, Draws
from zgrid.links.passage import Passage

N = 4000
DRAWS = Draws(5, "mg_1", "mg_2", "peer")


def sample(**keys: Any) -> list[float]:
    delay = Delay.model_validate(keys)
    return [quantile(delay, DRAWS.uniform(step, 1, 0, DELAY), step) for step in range(1, N + 1)]


def passage(**keys: Any) -> Passage:
    return Passage(0, LinkConfig.model_validate(keys), ("mg_1", "mg_2"), DRAWS, 1.0)


@pytest.mark.parametrize(
    ("keys", "u", "expected"),
    [
        ({"kind": "constant", "value": 2.5}, 0.3, 2.5),
        ({"kind": "uniform", "low": 1, "high": 3}, 0.25, 1.5),
        ({"kind": "exponential", "mean": 2}, 1 - exp(-1.0), 2.0),
        ({"kind": "lognormal", "median": 2, "sigma": 0.5}, 0.5, 2.0),
        ({"kind": "lognormal", "median": 2, "sigma": 0.5}, NormalDist().cdf(1.0), 2.0 * exp(0.5)),
        ({"kind": "normal", "mean": 0, "std": 2}, 0.5, 2.0 * NormalDist().inv_cdf(0.75)),  # half of a bell
        ({"kind": "normal", "mean": 10, "std": 1}, 0.5, 10.0),
    ],
)
def test_a_quantile_by_hand(keys: dict[str, Any], u: float, expected: float) -> None:
    assert quantile(Delay.model_validate(keys), u, 1) == pytest.approx(expected, rel=1e-12)


def test_a_trace_comes_in_turn() -> None:
    assert sample(kind="trace", values=[0, 1, 4])[:7] == [0, 1, 4, 0, 1, 4, 0]


# Bounds are five standard errors of the mean of N draws.
@pytest.mark.parametrize(
    ("keys", "mean", "std"),
    [
        ({"kind": "uniform", "low": 1, "high": 3}, 2.0, 2.0 / sqrt(12.0)),
        ({"kind": "exponential", "mean": 2}, 2.0, 2.0),
        ({"kind": "lognormal", "median": 2, "sigma": 0.5}, 2 * exp(0.125), 2 * exp(0.125) * sqrt(exp(0.25) - 1)),
        # a standard normal above 0: mean sqrt(2 / pi), variance 1 - 2 / pi
        ({"kind": "normal", "mean": 0, "std": 1}, 0.7978845608, 0.6028102749),
    ],
)
def test_the_mean_of_many(keys: dict[str, Any], mean: float, std: float) -> None:
    values = sample(**keys)
    assert fmean(values) == pytest.approx(mean, abs=5.0 * std / sqrt(N))
    assert pstdev(values) == pytest.approx(std, rel=0.1)


@pytest.mark.parametrize(
    "keys",
    [
        {"kind": "normal", "mean": 0.1, "std": 5},
        {"kind": "exponential", "mean": 0.5},
        {"kind": "lognormal", "median": 0.1, "sigma": 3},
        {"kind": "uniform", "low": 0, "high": 0.1},
    ],
)
def test_no_delay_is_negative(keys: dict[str, Any]) -> None:
    one = passage(delay=keys, jitter=2.0)
    assert min(sample(**keys)) >= 0.0
    assert min(one.delay(step, 0, 0) for step in range(N)) == 0.0


def test_the_ends_of_the_draws_give_finite_delays() -> None:
    for keys in ({"kind": "normal", "mean": 0, "std": 5}, {"kind": "exponential", "mean": 1}):
        for u in (2.0**-53, 1.0 - 2.0**-53):
            assert 0.0 <= quantile(Delay.model_validate(keys), u, 1) < 50.0


def test_jitter_is_even_around_the_delay() -> None:
    one = passage(delay={"kind": "constant", "value": 3}, jitter=0.5)
    values = [one.delay(step, 1, 0) for step in range(N)]
    assert 2.5 <= min(values) < 2.51
    assert 3.49 < max(values) <= 3.5
    assert median(values) == pytest.approx(3.0, abs=0.03)


def test_seconds_are_counted_in_periods() -> None:
    one = passage(delay={"kind": "constant", "value": 0.25}, period_s=0.1)
    assert one.delay(1, 1, 0) == 2.5


def test_the_logarithm_of_a_lognormal_is_normal() -> None:
    logs = [log(value) for value in sample(kind="lognormal", median=2, sigma=0.5)]
    assert fmean(logs) == pytest.approx(log(2.0), abs=5.0 * 0.5 / sqrt(N))
