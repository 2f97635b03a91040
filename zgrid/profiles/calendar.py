"""Time series on the clock of a topology: rows of ``dt_h``, days, and the days of a split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from zgrid.errors import ProfileError
from zgrid.profiles.files import Series

SPLITS = ("all", "train", "test")
DAY_H = 24.0


class Calendar:
    """Series resampled to one row per step. Row 0 is the first step of day 0."""

    def __init__(self, series: Mapping[str, Series], dt_h: float) -> None:
        """A finer series is averaged, a coarser one repeated; one that does not say has a row per step.

        Raises:
            ProfileError: steps that do not fit, or less than one day of data.
        """
        self.dt_h = dt_h
        self.steps_per_day = round(DAY_H / dt_h)
        resampled = {name: resample(name, one, dt_h) for name, one in series.items()}
        self.n_days = min((len(values) // self.steps_per_day for values in resampled.values()), default=1)
        if self.n_days < 1:
            raise ProfileError(f"less than one day of data at steps of {dt_h} h")
        self.n_rows = self.n_days * self.steps_per_day
        self._values = {name: values[: self.n_rows] for name, values in resampled.items()}

    def column(self, source: str | float) -> NDArray[np.float64]:
        """A series by name, or a constant, on every row: (n_rows,) float64."""
        if isinstance(source, str):
            return self._values[source]
        return np.full(self.n_rows, float(source))

    def daily_quantile(self, source: str | float, share: float) -> NDArray[np.float64]:
        """A quantile of each day's values, on every row of the day: (n_rows,) float64."""
        days = self.column(source).reshape(self.n_days, self.steps_per_day)
        return np.repeat(np.quantile(days, share, axis=1), self.steps_per_day)

    def days(self, split: str, steps: int) -> tuple[int, ...]:
        """The days an episode of ``steps`` may start on, so that all its days belong to the split.

        Every fourth week is for testing, the others are for training; an episode may run past the last day only
        where the split is "all", and then goes on at day 0.

        Raises:
            ProfileError: no such day.
        """
        length = -(-steps // self.steps_per_day)
        fits = [day for day in range(self.n_days) if self._is_within(day, length, split)]
        if not fits:
            raise ProfileError(f"no {length} days in a row belong to the split {split!r}; there are {self.n_days} days")
        return tuple(fits)

    def _is_within(self, day: int, length: int, split: str) -> bool:
        if split == "all":
            return True
        span = range(day, day + length)
        return span[-1] < self.n_days and all(is_test_day(one) == (split == "test") for one in span)


def is_test_day(day: int) -> bool:
    """Whether a day is held out for testing: days 21 to 27, 49 to 55, ..."""
    return (day // 7) % 4 == 3


def resample(name: str, series: Series, dt_h: float) -> NDArray[np.float64]:
    """The values of a series per step of ``dt_h``, (n,) float64.

    Raises:
        ProfileError: neither step is a whole multiple of the other.
    """
    values, own = series
    ratio = dt_h / (own or dt_h)
    many, few = round(ratio), round(1.0 / ratio)
    if many >= 1 and abs(ratio - many) < 1e-9:
        whole = len(values) // many * many
        return values[:whole].reshape(-1, many).mean(axis=1) if many > 1 else values
    if few >= 1 and abs(1.0 / ratio - few) < 1e-9:
        return np.repeat(values, few)
    raise ProfileError(f"series {name!r} has steps of {own} h, which do not fit steps of {dt_h} h")
