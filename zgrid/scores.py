"""Scores: what policies that played the same days are worth, with the uncertainty that few days leave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from zgrid.kpis import kpis, normalised

Array = NDArray[np.float64]

WORST, BEST = "random", "optimum"
"""The policies whose normalised scores are 0 and 1."""
RIVAL, BASELINE = "rule_based", "idle"
"""The policy that returns are compared with, and the one that KPIs are normalised by."""
_CONFIDENCE = 0.95


class PlayedDay(NamedTuple):
    """A day that one policy played.

    ``returns`` (n_grids,) in $; ``terms`` by grid, the sums of the reward's terms; per step and grid, (n_steps,
    n_grids) float64: ``import_mw`` at the PCC, and ``excursion_pu``, how far the worst bus is outside its limits; and
    ``diverged`` (n_steps,) bool. ``p_mw`` and ``q_mvar`` (n_steps, n_devices) are what the devices injected.
    """

    day: int
    returns: Array
    terms: tuple[dict[str, float], ...]
    import_mw: Array
    excursion_pu: Array
    diverged: NDArray[np.bool_]
    p_mw: Array
    q_mvar: Array

    @property
    def value(self) -> float:
        """The return of all grids, $."""
        return float(self.returns.sum())

    @property
    def violation_steps(self) -> int:
        """Steps in which any bus of any grid is outside its limits."""
        return int((self.excursion_pu > 0.0).any(axis=1).sum())


class Interval(NamedTuple):
    """A mean and its two-sided 95 % confidence interval; NaN where a single value leaves none."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float] | Array) -> Interval:
    """The mean of independent values and its 95 % interval by Student's t: mean +- t(0.975, n - 1) s / sqrt(n)."""
    sample = np.asarray(values, dtype=np.float64)
    mean, n = float(sample.mean()), len(sample)
    if n < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf(0.5 + 0.5 * _CONFIDENCE, n - 1) * sample.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def assess(played: Mapping[str, Sequence[PlayedDay]], grids: Sequence[str], dt_h: float) -> dict[str, dict[str, Any]]:
    """The figures of every policy by its name, ready for JSON; None where there is none.

    ``played`` has the same days in the same order for each policy; ``grids`` names the columns of its arrays.
    """
    returns = {name: np.array([day.value for day in days]) for name, days in played.items()}
    baseline = _kpis(played[BASELINE], grids, dt_h)
    figures = {}
    for name, days in played.items():
        found = {
            "return": interval(returns[name])._asdict(),
            "versus_rule_based": None if name == RIVAL else interval(returns[name] - returns[RIVAL])._asdict(),
            "score": score(float(returns[name].mean()), returns),
            **_voltages(days),
            "diverged_steps": int(sum(day.diverged.sum() for day in days)),
            "costs": costs(days),
            "grids": _by_grid(days, grids),
            "kpis": (own := _kpis(days, grids, dt_h)),
            "kpis_over_idle": {area: normalised(values, baseline[area]) for area, values in own.items()},
        }
        figures[name] = without_nan(found)
    return figures


def score(mean_return: float, returns: Mapping[str, Array]) -> float:
    """(mean - mean of random) / (mean of optimum - mean of random); NaN without an optimum above random."""
    if BEST not in returns:
        return math.nan
    worst, best = float(returns[WORST].mean()), float(returns[BEST].mean())
    return (mean_return - worst) / (best - worst) if best > worst else math.nan


def costs(days: Sequence[PlayedDay]) -> dict[str, float]:
    """$ per day of all grids by the name of the reward's cost term; ``penalties`` is the rest of minus the return."""
    totals: dict[str, float] = {}
    for day in days:
        for terms in day.terms:
            for name, value in terms.items():
                if name.endswith("_cost"):
                    totals[name] = totals.get(name, 0.0) + value
    found = {name: value / len(days) for name, value in totals.items()}
    mean = sum(day.value for day in days) / len(days)
    return found | {"penalties": -mean - sum(found.values())}


def without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _voltages(days: Sequence[PlayedDay]) -> dict[str, float]:
    """The share of the steps with a violation, and how far their worst bus is outside on average, pu."""
    worst = np.concatenate([day.excursion_pu.max(axis=1) for day in days])
    outside = worst[worst > 0.0]
    return {
        "violation_percent": 100.0 * len(outside) / len(worst),
        "mean_excursion_pu": float(outside.mean()) if len(outside) else 0.0,
    }


def _by_grid(days: Sequence[PlayedDay], grids: Sequence[str]) -> dict[str, Any]:
    """Each grid's own mean return of a day with its interval, $."""
    returns = np.stack([day.returns for day in days])
    return {grid: {"return": interval(returns[:, k])._asdict()} for k, grid in enumerate(grids)}


def _kpis(days: Sequence[PlayedDay], grids: Sequence[str], dt_h: float) -> dict[str, dict[str, float]]:
    """KPIs of the net import of all grids together, and of each."""
    imports = np.stack([day.import_mw for day in days])
    found = {"all": kpis(imports.sum(axis=2), dt_h)}
    return found | {grid: kpis(imports[:, :, k], dt_h) for k, grid in enumerate(grids)}
