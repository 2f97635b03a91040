"""KPIs against series worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zgrid.kpis import (
    all_time_peak,
    average_daily_peak,
    electricity_consumption,
    kpis,
    normalised,
    one_minus_load_factor,
    ramping,
    zero_net_energy,
)

DAYS = np.array([[1.0, 3.0, 2.0, 2.0], [-1.0, 4.0, 0.0, 1.0]])
"""Two days: ramps 2 + 1 + 0 and 5 + 4 + 1; peaks 3 and 4; means 2 and 1."""


def test_ramping_is_the_mean_of_the_days_and_not_between_them() -> None:
    assert ramping(DAYS) == pytest.approx((3.0 + 10.0) / 2.0)


def test_the_load_factor_is_taken_day_by_day() -> None:
    assert one_minus_load_factor(DAYS) == pytest.approx(((1.0 - 2.0 / 3.0) + (1.0 - 1.0 / 4.0)) / 2.0)


def test_a_flat_day_has_a_load_factor_of_one() -> None:
    assert one_minus_load_factor(np.full((1, 24), 0.7)) == pytest.approx(0.0)


def test_a_day_that_only_exports_has_no_load_factor() -> None:
    exporting = np.full((1, 4), -1.0)
    assert math.isnan(one_minus_load_factor(exporting))
    assert one_minus_load_factor(np.concatenate((DAYS[:1], exporting))) == pytest.approx(1.0 / 3.0)


def test_peaks() -> None:
    assert average_daily_peak(DAYS) == pytest.approx(3.5)
    assert all_time_peak(DAYS) == 4.0


def test_energies_scale_with_the_step_and_only_one_counts_exports() -> None:
    assert electricity_consumption(DAYS, 0.5) == pytest.approx((8.0 + 5.0) / 2.0 * 0.5)
    assert zero_net_energy(DAYS, 0.5) == pytest.approx((8.0 + 4.0) / 2.0 * 0.5)


def test_all_kpis_have_a_name_with_their_unit() -> None:
    assert kpis(DAYS, 1.0) == {
        "ramping_mw": 6.5,
        "one_minus_load_factor": pytest.approx(13.0 / 24.0),
        "average_daily_peak_mw": 3.5,
        "all_time_peak_mw": 4.0,
        "electricity_consumption_mwh": 6.5,
        "zero_net_energy_mwh": 6.0,
    }


def test_normalised_is_the_ratio_to_the_baseline() -> None:
    assert normalised({"a": 3.0, "b": 0.0}, {"a": 4.0, "b": 0.0}) == {"a": 0.75, "b": 1.0}
    assert math.isnan(normalised({"a": 3.0}, {"a": 0.0})["a"])
