"""The shipped time-series files hold what their README says and make physical sense."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).resolve().parents[2] / "zgrid" / "profiles" / "data"
FILES = {"simbench_2016.npz": 96, "ercot_2022.npz": 24}  # file -> rows a day
LOADS = ("load_1", "load_2", "load_3")
PER_UNIT = (*LOADS, "solar", "wind")
SERIES = (*PER_UNIT, "price")
DAYS = 365
JUNE, DECEMBER = slice(151, 181), slice(334, 365)  # days of a 365-day year


def raw(file: str) -> dict[str, np.ndarray]:
    with np.load(DATA / file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    """All series as stored, without the time steps."""
    merged = {**raw("simbench_2016.npz"), **raw("ercot_2022.npz")}
    del merged["dt_h"]
    return merged


@pytest.fixture(scope="module")
def days(stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every series as (day, row of the day): per unit, or $/MWh for the price."""
    return {
        name: (x / 65535 if x.dtype == np.uint16 else x.astype(float)).reshape(DAYS, -1) for name, x in stored.items()
    }


def centre_hour(power: np.ndarray) -> float:
    """Energy-weighted mean hour of the day of (day, row) samples."""
    hours = (np.arange(power.shape[1]) + 0.5) * 24 / power.shape[1]
    return float((power * hours).sum() / power.sum())


def test_files_hold_exactly_the_named_series() -> None:
    assert set(raw("simbench_2016.npz")) == {*PER_UNIT, "dt_h"}
    assert set(raw("ercot_2022.npz")) == {"price", "dt_h"}


@pytest.mark.parametrize("file", FILES)
def test_time_step_is_a_scalar_that_spans_the_year(file: str) -> None:
    arrays = raw(file)
    step = arrays.pop("dt_h")
    assert step.shape == ()
    assert step.dtype == np.float64
    assert step == 24 / FILES[file]
    for series in arrays.values():
        assert series.shape == (DAYS * FILES[file],)


def test_dtypes(stored: dict[str, np.ndarray]) -> None:
    assert {name: x.dtype for name, x in stored.items()} == {
        **dict.fromkeys(PER_UNIT, np.dtype(np.uint16)),
        "price": np.dtype(np.float32),
    }


@pytest.mark.parametrize("name", SERIES)
def test_finite_and_not_constant(days: dict[str, np.ndarray], name: str) -> None:
    assert np.isfinite(days[name]).all()
    assert days[name].std() > 0.05 * days[name].mean() > 0


@pytest.mark.parametrize("name", PER_UNIT)
def test_per_unit_of_annual_maximum(days: dict[str, np.ndarray], name: str) -> None:
    assert days[name].min() >= 0.0
    assert days[name].max() == 1.0
    assert 0.1 < days[name].mean() < 0.7


@pytest.mark.parametrize("name", LOADS)
def test_load_is_never_off_and_lowest_at_night(days: dict[str, np.ndarray], name: str) -> None:
    assert days[name].min() > 0.05
    assert (days[name].sum(axis=1) > 0).all()
    assert 1.0 <= days[name].mean(axis=0).argmin() / 4 <= 5.0


def test_loads_differ_in_shape(days: dict[str, np.ndarray]) -> None:
    correlation = np.corrcoef([days[name].ravel() for name in LOADS])  # measured: 0.45, 0.72 and 0.73
    assert correlation[np.triu_indices(len(LOADS), k=1)].max() < 0.85


def test_residential_load_peaks_in_the_evening_and_commercial_by_day(days: dict[str, np.ndarray]) -> None:
    assert 17.0 <= days["load_1"].mean(axis=0).argmax() / 4 <= 21.0
    assert 8.0 <= days["load_2"].mean(axis=0).argmax() / 4 <= 15.0


def test_row_0_is_a_saturday(days: dict[str, np.ndarray]) -> None:
    by_weekday = [days["load_2"][start::7].mean() for start in range(7)]
    assert set(np.argsort(by_weekday)[:2]) == {0, 1}


def test_sun_is_down_at_night(days: dict[str, np.ndarray]) -> None:
    assert days["solar"][:, :8].max() == 0.0
    assert days["solar"][:, -8:].max() == 0.0


def test_sun_peaks_about_midday_in_every_month(days: dict[str, np.ndarray]) -> None:
    for first in range(0, 360, 30):
        assert 11.5 < centre_hour(days["solar"][first : first + 30]) < 13.2


def test_sun_does_not_jump_with_summer_time(days: dict[str, np.ndarray]) -> None:
    for change in (85, 302):  # 2016-03-27 and 2016-10-30
        before, after = days["solar"][change - 14 : change], days["solar"][change + 1 : change + 15]
        assert abs(centre_hour(before) - centre_hour(after)) < 0.5


def test_more_sun_in_june_than_in_december(days: dict[str, np.ndarray]) -> None:
    assert days["solar"][JUNE].mean() > 3 * days["solar"][DECEMBER].mean()


def test_wind_is_not_tied_to_the_sun(days: dict[str, np.ndarray]) -> None:
    assert abs(np.corrcoef(days["wind"].ravel(), days["solar"].ravel())[0, 1]) < 0.3
    assert days["wind"].sum(axis=1).min() > 0


def test_price_range(days: dict[str, np.ndarray]) -> None:
    price = days["price"]
    assert price.min() > -50.0
    assert price.max() == 1000.0
    assert 20.0 < np.median(price) < 100.0
    assert (price == price.max()).sum() == 12  # hours capped
    assert price.mean(axis=0).argmin() < 6


@pytest.mark.parametrize("file", FILES)
def test_archive_entries_carry_no_clock_time(file: str) -> None:
    with zipfile.ZipFile(DATA / file) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_files_are_small() -> None:
    assert (DATA / "simbench_2016.npz").stat().st_size < 500_000
    assert (DATA / "ercot_2022.npz").stat().st_size < 50_000


@pytest.mark.parametrize("name", SERIES)
def test_readme_table_matches_the_data(days: dict[str, np.ndarray], stored: dict[str, np.ndarray], name: str) -> None:
    text = (DATA / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{name}` \| \S+ \| (\w+) \| (\d+) \| (\S+) \| (\S+) \| (\S+) \|$", text, re.MULTILINE)
    assert row, f"no row for {name}"
    assert row[1] == str(stored[name].dtype)
    assert int(row[2]) == stored[name].size
    values = days[name]
    assert [float(x) for x in row.groups()[2:]] == pytest.approx([values.min(), values.mean(), values.max()], abs=6e-4)


@pytest.mark.parametrize(
    ("notice", "file", "licence"),
    [
        ("LICENSE-simbench.md", "simbench_2016.npz", "Open Database License (ODbL) 1.0"),
        ("LICENSE-ercot.md", "ercot_2022.npz", "CC BY 4.0"),
    ],
)
def test_each_file_has_its_licence_notice(notice: str, file: str, licence: str) -> None:
    text = (DATA / notice).read_text(encoding="utf-8")
    assert file in text
    assert licence in text
    assert notice in (DATA / "README.md").read_text(encoding="utf-8")
