"""Progress: a table that grows while a trainer works, and the learning curve as a file and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from zgrid.errors import MissingExtraError
from zgrid.evaluation import Settings, evaluate
from zgrid.plots import draw_learning_curve
from zgrid.topology import Topology
from zgrid.view import TrainingView

_BASELINE_DAYS = 30
CURVE, PICTURE = "curve.csv", "learning_curve.png"


class Row(NamedTuple):
    """One iteration: steps of the env so far, the mean return of a day over all grids, $, and seconds it took."""

    iteration: int
    env_steps: int
    mean_return: float
    seconds: float


class Progress:
    """Use as a context around a training run of ``total`` iterations.

    ``folder`` is the checkpoint's, where the curve is kept, and gone on with where there is one already; without it
    nothing is written.
    """

    def __init__(
        self, folder: Path | None, total: int, references: Mapping[str, float] | None = None, *, fresh: bool = False
    ) -> None:
        """``references`` are returns to draw as lines beside the curve, by name; ``fresh`` forgets an older curve."""
        self._folder = folder
        self._view = TrainingView(total)
        self._references = dict(references or {})
        self.rows: list[Row] = [] if folder is None or fresh else read_curve(folder)

    def __enter__(self) -> Self:
        self._view.start(len(self.rows))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._view.stop()

    def add(self, row: Row) -> None:
        """An iteration is done."""
        self.rows = [one for one in self.rows if one.iteration < row.iteration] + [row]
        self._view.row(row.iteration, row.env_steps, row.mean_return, row.seconds)

    def save(self) -> list[Path]:
        """Write the curve, and its picture where matplotlib is installed; the files written."""
        if self._folder is None or not self.rows:
            return []
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / CURVE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(Row._fields)
            writer.writerows(
                (row.iteration, row.env_steps, repr(row.mean_return), repr(row.seconds)) for row in self.rows
            )
        files = [self._folder / CURVE]
        try:
            draw_learning_curve(
                [row.env_steps for row in self.rows],
                [row.mean_return for row in self.rows],
                self._references,
                self._folder / PICTURE,
            )
        except MissingExtraError:
            return files
        return [*files, self._folder / PICTURE]


def baselines(topology: Topology) -> dict[str, float]:
    """What the rules and idling earn on 30 days of the split trained on, $ per day over all grids."""
    settings = Settings(split=topology.profiles.split, episodes=_BASELINE_DAYS, optimum=False)
    played = evaluate(topology, {}, settings).played
    return {name: float(np.mean([day.value for day in played[name]])) for name in ("rule_based", "idle")}


def read_curve(folder: Path) -> list[Row]:
    """The rows of a curve that was written before; none where there is none."""
    file = folder / CURVE
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return [
        Row(int(row["iteration"]), int(row["env_steps"]), float(row["mean_return"]), float(row["seconds"]))
        for row in rows
    ]
