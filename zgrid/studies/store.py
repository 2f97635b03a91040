"""The folder of a study: an append-only file of finished runs, and the tables that are made of them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from zgrid.errors import MissingExtraError, StudyError

Row: TypeAlias = dict[str, Any]
RUNS, STUDY, ROWS, PARQUET, HISTORY, COMPARISON = (
    "runs.jsonl", "study.json", "rows.csv", "rows.parquet", "history.csv", "comparison.csv",
)  # fmt: skip


class Store:
    """One study's folder. What was finished in it before is in ``done``: number of the run -> what was kept of it."""

    def __init__(self, folder: Path, content: Mapping[str, Any], *, fresh: bool = False) -> None:
        """``content`` is what the study is, ready for JSON; ``fresh`` forgets what was finished.

        Raises:
            StudyError: another study is in the folder, or it cannot be written.
        """
        self.folder = folder
        self.done: dict[int, dict[str, Any]] = {}
        text = json.dumps(content, indent=2) + "\n"
        self._hash = hashlib.sha256(text.encode()).hexdigest()[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if fresh:
                (folder / RUNS).unlink(missing_ok=True)
            elif (folder / STUDY).exists() and (folder / STUDY).read_text(encoding="utf-8") != text:
                raise StudyError(f"{folder}: another study, or another version of it; expected {self._other()}")
            (folder / STUDY).write_text(text, encoding="utf-8")
            self._read()
        except OSError as error:
            raise StudyError(f"{folder}: expected a folder to write to: {error}") from error

    def keep(self, number: int, row: Row, history: Sequence[Sequence[Any]]) -> None:
        """A run is over: append it, and see that it is on the disk."""
        line = json.dumps({"study": self._hash, "run": number, "row": row, "history": history}, allow_nan=False)
        with (self.folder / RUNS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.done[number] = json.loads(line)

    def failed(self) -> list[int]:
        """The runs that failed."""
        return [number for number, one in sorted(self.done.items()) if one["row"]["status"] != "ok"]

    def rows(self) -> list[Row]:
        """What is finished, in the order of the runs, with the same columns in each."""
        rows = [self.done[number]["row"] for number in sorted(self.done)]
        names = dict.fromkeys(name for row in sorted(rows, key=lambda row: row["status"] != "ok") for name in row)
        return [{name: row.get(name) for name in names} for row in rows]

    def histories(self, columns: Sequence[str], knobs: Sequence[str]) -> list[Row]:
        """A row per round of each run whose way was kept."""
        found = []
        for _, one in sorted(self.done.items()):
            about = {name: one["row"][name] for name in (*knobs, "seed")}
            found += [{**about, **dict(zip(columns, values, strict=True))} for values in one["history"]]
        return found

    def write(self, name: str, rows: Sequence[Row]) -> Path:
        """A table as CSV; an empty cell where there is no value."""
        path = self.folder / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)
        return path

    def write_parquet(self, rows: Sequence[Row]) -> Path:
        """The rows as Parquet, where pyarrow is installed.

        Raises:
            MissingExtraError: it is not.
        """
        if find_spec("pyarrow") is None:
            raise MissingExtraError("rows.parquet needs pyarrow: pip install 'zgrid[parquet]'")
        from pyarrow import Table, parquet

        path = self.folder / PARQUET
        parquet.write_table(Table.from_pydict({name: _alike(rows, name) for name in rows[0]}), path)
        return path

    def _read(self) -> None:
        """What was finished before; the last line may be cut off where a run was killed."""
        path = self.folder / RUNS
        if not path.exists():
            return
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        for k, line in enumerate(whole.splitlines(), start=1):
            try:
                one = json.loads(line)
                if one["study"] == self._hash:
                    self.done[int(one["run"])] = one
            except (ValueError, KeyError, TypeError) as error:
                raise StudyError(f"{path}, line {k}: not a run of a study ({error}); {self._other()}") from error

    def _other(self) -> str:
        return "another --out, or --fresh to begin anew"


def _alike(rows: Iterable[Row], name: str) -> list[Any]:
    """A column of one type: numbers as floats where some are, mixed labels as text."""
    column = [row[name] for row in rows]
    kinds = {type(value) for value in column if value is not None}
    if len(kinds) < 2:
        return column
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in column]
    return [None if value is None else str(value) for value in column]


def read_rows(source: Path) -> tuple[Path, list[dict[str, str]]]:
    """The file and the rows of a study's folder, or of a table of rows.

    Raises:
        StudyError: there are none, or it is no table of a study.
    """
    path = source / ROWS if source.is_dir() else source
    rows = read_table(path)
    if not rows or not {"run", "seed", "status"} <= rows[0].keys():
        raise StudyError(f"{path}: no rows of a study; expected what zgrid study writes (run, ..., seed, status, ...)")
    return path, rows


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file.

    Raises:
        StudyError: it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{path}: cannot be read: {error}") from error


def knobs_of(row: Mapping[str, Any]) -> list[str]:
    """The columns of the knobs: those between run and seed."""
    names = list(row)
    return names[names.index("run") + 1 : names.index("seed")]
