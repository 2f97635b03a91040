"""Read time series from CSV and npz files, shipped ones included."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zgrid.errors import ProfileError

SHIPPED = "zgrid:"
_DATA = Path(__file__).parent / "data"


class Series(NamedTuple):
    """One time series: (n,) float64 values, each for ``dt_h`` hours; ``dt_h`` is None where the file does not say."""

    values: NDArray[np.float64]
    dt_h: float | None


def find_file(name: str, folder: Path) -> Path:
    """The file a topology names: shipped (``zgrid:simbench_2016``), absolute, or relative to the topology or the
    current directory.

    Raises:
        ProfileError: no such file.
    """
    if name.startswith(SHIPPED):
        path = _DATA / f"{name.removeprefix(SHIPPED)}.npz"
        if path.is_file():
            return path
        shipped = ", ".join(sorted(SHIPPED + file.stem for file in _DATA.glob("*.npz")))
        raise ProfileError(f"no shipped file {name!r}; there is {shipped}")
    for path in (folder / name, Path(name)):
        if path.is_file():
            return path
    raise ProfileError(f"no file {name!r}, neither beside the topology ({folder}) nor in the current directory")


def series_names(path: Path) -> tuple[str, ...]:
    """The names a file has to offer: CSV columns, or npz arrays.

    Raises:
        ProfileError: not such a file.
    """
    if path.suffix == ".npz":
        with _open_npz(path) as data:
            return tuple(name for name in data.files if name != "dt_h")
    return tuple(_read_csv(path)[0])


def read_series(path: Path, names: Collection[str]) -> dict[str, Series]:
    """The named series of a file. Unsigned integers in an npz are fractions of their full scale.

    Raises:
        ProfileError: a series that is not there, not a column of finite numbers, or empty.
    """
    series = _read_npz_series(path, names) if path.suffix == ".npz" else _read_csv_series(path, names)
    for name, (values, _) in series.items():
        if values.ndim != 1 or values.size == 0:
            raise ProfileError(f"{path.name}: series {name!r} is not a column of numbers")
        if not np.isfinite(values).all():
            raise ProfileError(f"{path.name}: series {name!r} has {int((~np.isfinite(values)).sum())} gaps")
    return series


@contextmanager
def _open_npz(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """An open npz file; whatever is wrong with it, or with what is read from it, is a ProfileError."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            if not isinstance(data, np.lib.npyio.NpzFile):
                raise ProfileError(f"{path.name}: not an npz file")
            yield data
    except ProfileError:
        raise
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ProfileError(f"{path.name}: not an npz file, or damaged: {error}") from error


def _read_npz_series(path: Path, names: Collection[str]) -> dict[str, Series]:
    with _open_npz(path) as data:
        dt_h = _read_dt(path, data["dt_h"]) if "dt_h" in data.files else None
        _check_there(path, names, data.files)
        return {name: Series(_to_float(path, name, data[name]), dt_h) for name in names}


def _read_dt(path: Path, raw: NDArray[Any]) -> float:
    if raw.size != 1 or raw.dtype.kind not in "fiu" or not 0.0 < float(raw.item()) < float("inf"):
        raise ProfileError(f"{path.name}: dt_h: expected one positive number of hours, got {raw}")
    return float(raw.item())


def _to_float(path: Path, name: str, raw: NDArray[Any]) -> NDArray[np.float64]:
    if raw.dtype.kind == "u":
        full_scale = float(np.iinfo(raw.dtype).max)
        return np.asarray(raw.astype(np.float64) / full_scale)
    if raw.dtype.kind not in "fi":
        raise ProfileError(f"{path.name}: series {name!r} is not a column of numbers")
    return raw.astype(np.float64)


def _read_csv_series(path: Path, names: Collection[str]) -> dict[str, Series]:
    header, rows = _read_csv(path)
    _check_there(path, names, header)
    result = {}
    for name in names:
        column = header.index(name)
        try:
            values = np.array([float(row[column]) for row in rows], dtype=np.float64)
        except (ValueError, IndexError) as error:
            raise ProfileError(f"{path.name}: series {name!r} is not a column of numbers: {error}") from error
        result[name] = Series(values, None)
    return result


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path.name}: not a CSV file: {error}") from error
    first = text.split("\n", 1)[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    try:
        rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    except csv.Error as error:
        raise ProfileError(f"{path.name}: not a CSV file: {error}") from error
    if not rows:
        raise ProfileError(f"{path.name}: empty")
    return [cell.strip() for cell in rows[0]], rows[1:]


def _check_there(path: Path, names: Collection[str], there: Collection[str]) -> None:
    for name in names:
        if name not in there:
            raise ProfileError(
                f"{path.name}: no series {name!r}; there is {', '.join(n for n in there if n != 'dt_h')}"
            )
