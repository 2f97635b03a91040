"""Time series: load, weather and price."""

from __future__ import annotations

from zgrid.profiles.calendar import SPLITS, Calendar, is_test_day
from zgrid.profiles.files import Series, find_file, read_series, series_names

__all__ = ["SPLITS", "Calendar", "Series", "find_file", "is_test_day", "read_series", "series_names"]
