"""Time series are read from CSV and npz files as they are, and unusable ones are refused with their name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zgrid.errors import ProfileError
from zgrid.profiles import Series, find_file, read_series, series_names


def csv(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "series.csv"
    path.write_bytes(text.encode(encoding))
    return path


def npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "series.npz"
    np.savez(path, **arrays)
    return path


def column(path: Path, name: str) -> list[float]:
    return read_series(path, [name])[name].values.tolist()


# ---- CSV ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_columns_are_read_by_name(tmp_path: Path, delimiter: str, newline: str, encoding: str) -> None:
    rows = [("load", "price"), ("0.5", "30"), ("0.25", "-1.5e1")]
    path = csv(tmp_path, "".join(delimiter.join(row) + newline for row in rows), encoding)
    assert series_names(path) == ("load", "price")
    assert column(path, "load") == [0.5, 0.25]
    assert column(path, "price") == [30.0, -15.0]


def test_columns_of_text_that_nobody_asks_for_do_no_harm(tmp_path: Path) -> None:
    path = csv(tmp_path, 'time,load,"remark, if any"\n2016-01-01 00:00,0.5,"cold, dark"\n2016-01-01 01:00,0.6,\n')
    assert series_names(path) == ("time", "load", "remark, if any")
    assert column(path, "load") == [0.5, 0.6]


def test_a_csv_does_not_say_its_step(tmp_path: Path) -> None:
    assert read_series(csv(tmp_path, "load\n1\n"), ["load"])["load"].dt_h is None


def test_spaces_around_names_and_empty_lines_do_no_harm(tmp_path: Path) -> None:
    path = csv(tmp_path, " load , price \n0.5, 30\n\n0.6,31\n\n")
    assert column(path, "load") == [0.5, 0.6]
    assert column(path, "price") == [30.0, 31.0]


def test_only_the_named_series_come_back(tmp_path: Path) -> None:
    path = csv(tmp_path, "a,b,c\n1,2,3\n")
    assert list(read_series(path, ["c", "a"])) == ["c", "a"]
    assert read_series(path, []) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("load\n0.5\nnan\nnan\n", "series 'load' has 2 gaps"),
        ("load\n0.5\ninf\n", "series 'load' has 1 gaps"),
        ("load,x\n0.5,1\n,2\n", "series 'load' is not a column of numbers"),
        ("x,load\n1,0.5\n2\n", "series 'load' is not a column of numbers"),
        ("load\n0.5\nhigh\n", "series 'load' is not a column of numbers"),
        ("load;x\n0,5;1\n", "series 'load' is not a column of numbers"),
        ("load\n", "series 'load' is not a column of numbers"),
        ("", "empty"),
        ("\n\n", "empty"),
        ("lood,price\n1,2\n", "no series 'load'; there is lood, price"),
    ],
)
def test_a_csv_without_a_usable_column_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ProfileError, match=f"series.csv: {message}"):
        read_series(csv(tmp_path, text), ["load"])


def test_a_csv_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_bytes(b"\xff\xfe\x00load")
    with pytest.raises(ProfileError, match="not a CSV file"):
        series_names(path)


def test_a_csv_with_an_endless_field_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError):
        read_series(csv(tmp_path, "load\n" + "1" * 200_000 + "\n"), ["load"])


# ---- npz ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16, np.int64])
def test_numbers_of_an_npz_are_read_as_they_are(tmp_path: Path, dtype: Any) -> None:
    path = npz(tmp_path, price=np.array([-3, 0, 250], dtype=dtype))
    values = read_series(path, ["price"])["price"].values
    assert values.dtype == np.float64
    assert values.tolist() == [-3.0, 0.0, 250.0]


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255), (np.uint16, 65535), (np.uint32, 4294967295)])
def test_unsigned_integers_are_shares_of_their_full_scale(tmp_path: Path, dtype: Any, full: int) -> None:
    path = npz(tmp_path, load=np.array([0, full // 5, full], dtype=dtype))  # all three are multiples of 5
    assert column(path, "load") == [0.0, 0.2, 1.0]


def test_an_npz_may_say_its_step(tmp_path: Path) -> None:
    assert read_series(npz(tmp_path, load=np.ones(4), dt_h=0.25), ["load"])["load"].dt_h == 0.25
    assert read_series(npz(tmp_path, load=np.ones(4)), ["load"])["load"].dt_h is None


def test_the_step_is_no_series(tmp_path: Path) -> None:
    assert series_names(npz(tmp_path, load=np.ones(4), dt_h=0.25)) == ("load",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([0.5, np.nan]), "series 'load' has 1 gaps"),
        (np.array([[0.5, 0.6]]), "series 'load' is not a column of numbers"),
        (np.array(0.5), "series 'load' is not a column of numbers"),
        (np.zeros(0), "series 'load' is not a column of numbers"),
        (np.array(["a", "b"]), "series 'load' is not a column of numbers"),
        (np.array([True, False]), "series 'load' is not a column of numbers"),
        (np.array([1j]), "series 'load' is not a column of numbers"),
    ],
)
def test_an_npz_without_a_usable_array_is_refused(tmp_path: Path, values: Any, message: str) -> None:
    with pytest.raises(ProfileError, match=f"series.npz: {message}"):
        read_series(npz(tmp_path, load=values), ["load"])


def test_a_series_that_is_not_in_an_npz_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"no series 'wind'; there is load, solar$"):
        read_series(npz(tmp_path, load=np.ones(2), solar=np.ones(2), dt_h=1.0), ["wind"])


def test_text_that_calls_itself_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "series.npz"
    path.write_text("load,price\n1,2\n")
    with pytest.raises(ProfileError, match=r"series\.npz: not an npz file"):
        series_names(path)


def test_a_single_array_that_calls_itself_npz_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "series.npy", np.ones(3))
    (tmp_path / "series.npy").rename(tmp_path / "series.npz")
    with pytest.raises(ProfileError, match="not an npz file"):
        series_names(tmp_path / "series.npz")


def test_an_empty_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "series.npz").write_bytes(b"")
    with pytest.raises(ProfileError):
        series_names(tmp_path / "series.npz")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_an_npz_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path, load=np.ones(9))
    path.write_bytes(path.read_bytes()[:60])
    try:
        series_names(path)
    except Exception as error:  # noqa: BLE001 - numpy leaves the file open; keeping the error would keep the file
        raised = type(error)
    assert raised is ProfileError


def test_an_npz_with_damaged_content_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path, load=np.ones(9))
    data = bytearray(path.read_bytes())
    data[150:160] = bytes(10)
    path.write_bytes(bytes(data))
    with pytest.raises(ProfileError):
        read_series(path, ["load"])


def test_an_npz_of_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError):
        read_series(npz(tmp_path, load=np.array([1, None], dtype=object)), ["load"])


@pytest.mark.parametrize("dt_h", [[1.0, 2.0], np.nan, np.inf, -1.0, 0.0])
def test_an_npz_with_an_impossible_step_is_refused(tmp_path: Path, dt_h: Any) -> None:
    with pytest.raises(ProfileError):
        read_series(npz(tmp_path, load=np.ones(9), dt_h=dt_h), ["load"])


# ---- where files are ------------------------------------------------------------------------------------------------


def test_a_shipped_file_is_found_by_its_name(tmp_path: Path) -> None:
    path = find_file("zgrid:ercot_2022", tmp_path)
    assert "price" in series_names(path)


def test_a_shipped_file_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"'zgrid:x'; there is zgrid:ercot_2022, zgrid:simbench_2016"):
        find_file("zgrid:x", tmp_path)


def test_a_file_beside_the_topology_comes_before_one_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, current = tmp_path / "beside", tmp_path / "current"
    for folder in (beside, current):
        folder.mkdir()
        csv(folder, "load\n1\n")
    monkeypatch.chdir(current)
    assert find_file("series.csv", beside) == beside / "series.csv"
    assert find_file("series.csv", tmp_path).resolve() == current / "series.csv"
    assert find_file(str(beside / "series.csv"), tmp_path) == beside / "series.csv"


def test_a_file_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"no file 'absent\.csv'"):
        find_file("absent.csv", tmp_path)


def test_a_series_is_values_and_a_step() -> None:
    assert Series._fields == ("values", "dt_h")
