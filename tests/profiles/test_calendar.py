"""Series on the clock of a topology: resampled to its step, cut into days, and days into splits."""

from __future__ import annotations

import numpy as np
import pytest

from zgrid.errors import ProfileError
from zgrid.profiles import Calendar, Series, is_test_day
from zgrid.profiles.calendar import resample


def calendar(days: int, dt_h: float = 1.0) -> Calendar:
    rows = round(days * 24 / dt_h)
    return Calendar({"x": Series(np.arange(rows, dtype=np.float64), dt_h)}, dt_h)


# ---- resampling -----------------------------------------------------------------------------------------------------


def test_a_finer_series_is_averaged() -> None:
    # Quarters 0, 1, 2, 3 and 10, 20, 30, 40 of two hours
    quarters = Series(np.array([0.0, 1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 40.0]), 0.25)
    assert resample("x", quarters, 1.0).tolist() == [1.5, 25.0]


def test_a_coarser_series_is_repeated() -> None:
    assert resample("x", Series(np.array([1.0, 5.0]), 1.0), 0.25).tolist() == [1.0] * 4 + [5.0] * 4


def test_a_series_of_the_same_step_stays_as_it_is() -> None:
    values = np.array([0.1, 0.2, 0.3])
    assert resample("x", Series(values, 0.25), 0.25).tolist() == values.tolist()
    assert resample("x", Series(values, None), 0.25).tolist() == values.tolist()


def test_rows_that_do_not_fill_a_step_are_dropped() -> None:
    assert resample("x", Series(np.array([2.0, 4.0, 9.0]), 0.5), 1.0).tolist() == [3.0]


def test_steps_of_a_third_of_an_hour_are_recognised() -> None:
    assert resample("x", Series(np.arange(6.0), 1.0 / 3.0), 1.0).tolist() == [1.0, 4.0]


@pytest.mark.parametrize(("own", "dt_h"), [(0.4, 1.0), (1.0, 0.4), (0.75, 0.5)])
def test_steps_that_do_not_fit_are_refused(own: float, dt_h: float) -> None:
    with pytest.raises(ProfileError, match=f"series 'x' has steps of {own} h, which do not fit steps of {dt_h} h"):
        resample("x", Series(np.arange(48.0), own), dt_h)


# ---- rows and columns -----------------------------------------------------------------------------------------------


def test_a_calendar_has_whole_days_of_the_shortest_series() -> None:
    long, short = Series(np.zeros(24 * 9), 1.0), Series(np.zeros(24 * 4 * 5 + 3), 0.25)
    both = Calendar({"long": long, "short": short}, 0.5)
    assert (both.steps_per_day, both.n_days, both.n_rows) == (48, 5, 240)
    assert both.column("long").shape == both.column("short").shape == (240,)


def test_a_constant_is_a_column_too() -> None:
    assert calendar(2).column(0.75).tolist() == [0.75] * 48


def test_without_series_there_is_one_day() -> None:
    empty = Calendar({}, 0.25)
    assert (empty.n_days, empty.n_rows) == (1, 96)
    assert empty.column(2).tolist() == [2.0] * 96


def test_less_than_a_day_is_refused() -> None:
    with pytest.raises(ProfileError, match="less than one day"):
        Calendar({"x": Series(np.zeros(23), 1.0)}, 1.0)


def test_row_0_is_the_first_step_of_day_0() -> None:
    assert calendar(2).column("x")[[0, 24]].tolist() == [0.0, 24.0]


def test_quantiles_are_those_of_each_day() -> None:
    # Day 0 holds 0 to 23, day 1 24 to 47: the quarter of 24 values lies at place 0.25 x 23 = 5.75.
    two = calendar(2)
    assert two.daily_quantile("x", 0.25).tolist() == [5.75] * 24 + [29.75] * 24
    assert two.daily_quantile("x", 0.75).tolist() == [17.25] * 24 + [41.25] * 24
    assert two.daily_quantile("x", 0.0).tolist() == [0.0] * 24 + [24.0] * 24


def test_the_quantile_of_a_constant_is_the_constant() -> None:
    assert set(calendar(3).daily_quantile(30.0, 0.25).tolist()) == {30.0}


# ---- splits ---------------------------------------------------------------------------------------------------------


def test_every_fourth_week_is_for_testing() -> None:
    test_days = [day for day in range(60) if is_test_day(day)]
    assert test_days == [*range(21, 28), *range(49, 56)]


def test_training_and_testing_days_are_disjoint_and_together_all() -> None:
    year = calendar(365)
    train, test, every = (set(year.days(split, 24)) for split in ("train", "test", "all"))
    assert train.isdisjoint(test)
    assert train | test == every == set(range(365))


@pytest.mark.parametrize("steps", [1, 24, 25, 48, 72, 168])
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_episode_of_several_days_stays_in_its_split(split: str, steps: int) -> None:
    year = calendar(365)
    length = -(-steps // 24)
    for day in year.days(split, steps):
        span = range(day, day + length)
        assert {is_test_day(one) for one in span} == {split == "test"}
        assert span[-1] < 365


def test_a_week_of_testing_begins_on_the_first_day_of_the_test_week_only() -> None:
    assert calendar(56).days("test", 168) == (21, 49)


def test_no_training_episode_is_left_out() -> None:
    # Days 0 to 20 and 28 to 39 are for training: two-day episodes begin on 0 to 19 and 28 to 38.
    assert calendar(40).days("train", 48) == (*range(20), *range(28, 39))


def test_without_a_split_an_episode_may_begin_on_the_last_day() -> None:
    assert calendar(5).days("all", 72) == (0, 1, 2, 3, 4)


def test_days_count_steps_of_the_clock() -> None:
    # 96 quarters are one day, 97 are two
    quarters = calendar(28, 0.25)
    assert quarters.days("test", 96) == tuple(range(21, 28))
    assert quarters.days("test", 97) == tuple(range(21, 27))


@pytest.mark.parametrize(("split", "steps"), [("test", 24), ("train", 21 * 24)])
def test_a_split_without_room_for_an_episode_is_refused(split: str, steps: int) -> None:
    with pytest.raises(ProfileError, match=f"split '{split}'; there are 20 days"):
        calendar(20).days(split, steps)
