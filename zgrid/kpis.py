"""KPIs: what the net import of a grid, or of all grids together, looks like to the network above.

The definitions are those of CityLearn [Vazquez-Canteli et al. 2019, CityLearn v1.0: An OpenAI Gym Environment for
Demand Response with Deep Reinforcement Learning; ``citylearn/cost_function.py``], with the net import at the PCC, MW,
in the place of the net electricity consumption. A day is a row, so that what happens between days that do not follow
each other does not count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def ramping(import_mw: Array) -> float:
    """Mean over days of sum_i |E_i - E_(i-1)|, MW per day; ``import_mw`` is (n_days, n_steps) float64.

    This is CityLearn's documented formula; its code counts rising steps only unless told otherwise.
    """
    return float(np.abs(np.diff(import_mw, axis=1)).sum(axis=1).mean())


def one_minus_load_factor(import_mw: Array) -> float:
    """Mean over days of 1 - mean / peak, without unit; ``import_mw`` is (n_days, n_steps) float64.

    A day whose peak is not positive has no load factor and does not count; NaN where no day has one.
    """
    peaks, means = import_mw.max(axis=1), import_mw.mean(axis=1)
    taking = peaks > 0.0
    return float((1.0 - means[taking] / peaks[taking]).mean()) if taking.any() else float("nan")


def average_daily_peak(import_mw: Array) -> float:
    """Mean over days of the highest import, MW; ``import_mw`` is (n_days, n_steps) float64."""
    return float(import_mw.max(axis=1).mean())


def all_time_peak(import_mw: Array) -> float:
    """The highest import of all days, MW; ``import_mw`` is (n_days, n_steps) float64."""
    return float(import_mw.max())


def electricity_consumption(import_mw: Array, dt_h: float) -> float:
    """Mean over days of the energy taken, sum_i max(E_i, 0) dt, MWh per day."""
    return float(np.maximum(import_mw, 0.0).sum(axis=1).mean()) * dt_h


def zero_net_energy(import_mw: Array, dt_h: float) -> float:
    """Mean over days of the energy taken minus the energy given, sum_i E_i dt, MWh per day."""
    return float(import_mw.sum(axis=1).mean()) * dt_h


def kpis(import_mw: Array, dt_h: float) -> dict[str, float]:
    """All of them by name, the unit in the name; ``import_mw`` is (n_days, n_steps) float64, steps of ``dt_h`` h."""
    return {
        "ramping_mw": ramping(import_mw),
        "one_minus_load_factor": one_minus_load_factor(import_mw),
        "average_daily_peak_mw": average_daily_peak(import_mw),
        "all_time_peak_mw": all_time_peak(import_mw),
        "electricity_consumption_mwh": electricity_consumption(import_mw, dt_h),
        "zero_net_energy_mwh": zero_net_energy(import_mw, dt_h),
    }


def normalised(values: dict[str, float], baseline: dict[str, float]) -> dict[str, float]:
    """Each KPI over that of the baseline, as CityLearn reports them: 1 is the baseline, less is better.

    Where the baseline is 0: 1 if the KPI is 0 too, else NaN.
    """
    return {name: _ratio(value, baseline[name]) for name, value in values.items()}


def _ratio(value: float, baseline: float) -> float:
    if baseline == 0.0:
        return 1.0 if value == 0.0 else float("nan")
    return value / baseline
