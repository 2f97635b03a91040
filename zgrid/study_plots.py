"""Pictures of a study: a metric over a knob, two knobs as a map, residuals over rounds; needs the extra ``plot``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zgrid.errors import MissingExtraError, StudyError
from zgrid.scores import interval
from zgrid.study_labels import key_text, knob_text, metric_text, number_of

Row = Mapping[str, str]
Array = NDArray[np.float64]

_COLOURS = ("#3b7ea1", "#b5523b", "#2f7d5b", "#c98a00", "#7b4ea3", "#4a4a4a", "#d6604d", "#4d9221")
_STYLES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_MAX_LINES = 24


class Axes(NamedTuple):
    """What is drawn: a metric over the knob ``x``, a line for each value of the other knobs; ``units`` of knobs."""

    metric: str
    x: str
    knobs: Sequence[str]
    units: Mapping[str, str] = {}
    title: str = ""
    log: bool = False

    @property
    def others(self) -> list[str]:
        """The knobs that make lines."""
        return [knob for knob in self.knobs if knob != self.x]


def draw_metric(rows: Sequence[Row], axes: Axes, path: Path) -> None:
    """A metric over a knob: means over seeds with their 95 % intervals as bands, as a PNG.

    Where some seeds have no value (never settled), the mean is that of the others and the marker is hollow.

    Raises:
        MissingExtraError: matplotlib is not installed.
        StudyError: there is nothing to draw, or too much.
    """
    groups = _groups(rows, axes.others)
    if len(groups) > _MAX_LINES:
        raise StudyError(f"{len(groups)} lines are too many to tell apart; choose --by, or rows of fewer values")
    figure, axis = _figure((8.0 if axes.others else 6.5, max(4.2, 0.9 + 0.24 * len(groups))))
    places = _places([row[axes.x] for row in rows])
    numeric = all(number_of(label) is not None for label in places)
    drawn: list[bool] = []
    looks = _looks(list(groups))
    for key, group in groups.items():
        points = _points(group, axes, places)
        if points:
            look = looks[key] if numeric else {**looks[key], "linestyle": ""}
            shift = 0.0 if numeric else 0.3 * ((len(drawn) + 0.5) / len(groups) - 0.5)
            drawn.append(_draw_line(axis, points, {**look, "label": key_text(axes.others, key)}, shift))
    if not drawn:
        raise StudyError(f"no run has a value of {axes.metric}")
    _label_x(axis, places, axes)
    axis.set_ylabel(metric_text(axes.metric))
    _scale_y(axis, axes.log)
    if any(drawn):
        axis.plot([], [], "o", color="#4a4a4a", markerfacecolor="white", label="hollow: not all seeds have one")
    note = f"mean over seeds; {'bands' if numeric else 'bars'}: 95 % interval"
    _finish(axis, f"{axes.title}\n{note}" if axes.title else note)
    if axes.others or any(drawn):
        _legend(axis)
    figure.savefig(path, dpi=110)


def draw_map(rows: Sequence[Row], axes: Axes, y: str, path: Path) -> None:
    """The mean of a metric over two knobs as a map with its numbers; a map for each value of the other knobs.

    Raises:
        MissingExtraError: matplotlib is not installed.
        StudyError: there is nothing to draw.
    """
    others = [knob for knob in axes.others if knob != y]
    groups = _groups(rows, others)
    columns, lines = (list(dict.fromkeys(row[knob] for row in rows)) for knob in (axes.x, y))
    tables = {key: _table(group, axes, (y, lines, columns)) for key, group in groups.items()}
    known = np.concatenate([table[np.isfinite(table)] for table in tables.values()])
    if not len(known):
        raise StudyError(f"no run has a value of {axes.metric}")
    if len(tables) > len(_COLOURS):
        raise StudyError(f"{len(tables)} maps are too many for a picture; choose rows of fewer values")
    size = (1.6 + len(tables) * max(2.6, 0.8 * len(columns)), 1.9 + max(1.6, 0.55 * len(lines)))
    figure, panels = _figure(size, len(tables))
    for axis, (key, table) in zip(np.atleast_1d(panels), tables.items(), strict=True):
        picture = axis.imshow(table, cmap="viridis", vmin=known.min(), vmax=known.max(), aspect="auto", origin="lower")
        axis.set_xticks(range(len(columns)), columns)
        axis.set_yticks(range(len(lines)), lines)
        axis.set_xlabel(knob_text(axes.x, axes.units.get(axes.x, "")))
        axis.set_title(key_text(others, key), fontsize="medium")
        _write_numbers(axis, table, (known.min(), known.max()))
    np.atleast_1d(panels)[0].set_ylabel(knob_text(y, axes.units.get(y, "")))
    figure.colorbar(picture, ax=panels, label=metric_text(axes.metric))
    figure.suptitle(f"{axes.title}: mean over seeds; -: no value" if axes.title else "mean over seeds; -: no value")
    figure.savefig(path, dpi=110)


def draw_curves(rows: Sequence[Row], axes: Axes, path: Path) -> None:
    """The residual of every round, of one seed: a line for each combination, a panel for each word of the first knob
    that has words, as a PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
        StudyError: there is nothing to draw, or too much.
    """
    words = [knob for knob in axes.knobs if any(number_of(row[knob]) is None for row in rows)][:1]
    knobs = [knob for knob in axes.knobs if knob not in words]
    panels = {key: _groups(group, knobs) for key, group in _groups(rows, words).items()}
    keys = list(dict.fromkeys(key for groups in panels.values() for key in groups))
    if not keys or len(keys) > _MAX_LINES or len(panels) > len(_COLOURS):
        raise StudyError(f"{len(panels)} times {len(keys)} curves; expected 1 to {_MAX_LINES}; choose with --where")
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    size = (2.6 + 3.4 * columns, max(3.7 if lines == 1 else 3.0 * lines, 0.9 + 0.24 * len(keys)))
    figure, axises = _figure(size, columns, lines)
    flat, looks = list(np.ravel(axises)), _looks(keys)
    for axis, (word, groups) in zip(flat, panels.items(), strict=False):
        for key, group in groups.items():
            _draw_curve(axis, group, axes.metric, {**looks[key], "marker": ""}, key_text(knobs, key))
        axis.set_yscale("log")
        axis.set_xlabel("round")
        axis.locator_params(axis="x", integer=True)
        _finish(axis, key_text(words, word))
    for axis in flat[len(panels) :]:
        axis.remove()
    for axis in flat[::columns]:
        axis.set_ylabel(metric_text(axes.metric))
    if knobs:
        _legend(flat[columns - 1])
    figure.suptitle(axes.title)
    figure.savefig(path, dpi=110)


def _draw_curve(axis: Any, rows: Sequence[Row], metric: str, look: Mapping[str, Any], label: str) -> None:
    """A curve; what is 0 or unknown has no place on a logarithmic axis."""
    pairs = [(float(row["round"]), number_of(row[metric]) or 0.0) for row in rows]
    shown = np.array([pair for pair in pairs if pair[1] > 0.0]).reshape(-1, 2)
    axis.plot(shown[:, 0], shown[:, 1], label=label, linewidth=1.2, **look)


def _figure(size: tuple[float, float], columns: int = 1, lines: int = 1) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("pictures need matplotlib: pip install 'zgrid[plot]'") from error
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(lines, columns, sharey=columns > 1)


def _groups(rows: Sequence[Row], knobs: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[knob] for knob in knobs), []).append(row)
    return groups


def _places(labels: Sequence[str]) -> dict[str, float]:
    """Where the values of a knob stand: numbers at themselves, words one after the other."""
    kinds = list(dict.fromkeys(labels))
    numbers = [number_of(label) for label in kinds]
    return {label: float(k) if None in numbers else numbers[k] or 0.0 for k, label in enumerate(kinds)}


def _points(
    group: Sequence[Row], axes: Axes, places: Mapping[str, float]
) -> list[tuple[float, float, float, float, bool]]:
    """(x, mean, low, high, whether all seeds have a value) in rising order."""
    points = []
    for (label,), rows in _groups(group, [axes.x]).items():
        values = [value for row in rows if (value := number_of(row[axes.metric])) is not None]
        if values:
            points.append((places[label], *interval(values), len(values) == len(rows)))
    return sorted(points)


def _draw_line(axis: Any, points: Sequence[tuple[float, ...]], look: Mapping[str, Any], shift: float) -> bool:
    """A line with its band, or without a line style points with bars; whether a marker is hollow."""
    x, mean, low, high, whole = (np.array(column) for column in zip(*points, strict=True))
    x = x + shift
    if look["linestyle"]:
        axis.fill_between(x, low, high, color=look["color"], alpha=0.14, linewidth=0)
    else:
        axis.vlines(x, low, high, color=look["color"], linewidth=1.4)
    axis.plot(x, mean, linewidth=1.7, markersize=5.5, **look)
    some = ~whole.astype(bool)
    axis.plot(x[some], mean[some], **{**look, "linestyle": "", "label": ""}, markerfacecolor="white", markersize=5.5)
    return bool(some.any())


def _label_x(axis: Any, places: Mapping[str, float], axes: Axes) -> None:
    numeric = all(number_of(label) is not None for label in places)
    if not numeric:
        axis.set_xlim(-0.5, len(places) - 0.5)
    if not numeric or len(places) <= 8:
        axis.set_xticks(list(places.values()), list(places))
    spread = [value for value in places.values() if value > 0.0]
    if numeric and len(spread) == len(places) > 2 and max(spread) / min(spread) >= 50.0:
        axis.set_xscale("log")
        axis.set_xticks(list(places.values()), list(places))
        axis.minorticks_off()
    axis.set_xlabel(knob_text(axes.x, axes.units.get(axes.x, "")))


def _scale_y(axis: Any, log: bool) -> None:
    if log:
        axis.set_yscale("log")
        return
    low, high = axis.get_ylim()
    if max(abs(low), abs(high)) >= 1000.0:
        axis.yaxis.set_major_formatter("{x:,.0f}")


def _table(group: Sequence[Row], axes: Axes, shape: tuple[str, Sequence[str], Sequence[str]]) -> Array:
    """Means, (n_lines, n_columns) float64, NaN where there is no value."""
    y, lines, columns = shape
    cells = _groups(group, [y, axes.x])
    table = np.full((len(lines), len(columns)), np.nan)
    for (line, column), rows in cells.items():
        values = [value for row in rows if (value := number_of(row[axes.metric])) is not None]
        if values:
            table[lines.index(line), columns.index(column)] = float(np.mean(values))
    return table


def _write_numbers(axis: Any, table: Array, ends: tuple[float, float]) -> None:
    middle = 0.5 * (ends[0] + ends[1])
    for (line, column), value in np.ndenumerate(table):
        known = math.isfinite(value)
        colour = "white" if known and value < middle else "black"
        axis.text(column, line, f"{value:.3g}" if known and abs(value) < 1000 else f"{value:,.0f}" if known else "-",
                  ha="center", va="center", color=colour, fontsize="small")  # fmt: skip


def _looks(keys: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Colour and marker by the last knob's value, style by the others'; one after the other where they do not do."""
    last = list(dict.fromkeys(key[-1:] for key in keys))
    rest = list(dict.fromkeys(key[:-1] for key in keys))
    if len(last) > len(_COLOURS) or len(rest) > len(_STYLES):
        places = [(k % len(_COLOURS), k // len(_COLOURS) % len(_STYLES)) for k in range(len(keys))]
    else:
        places = [(last.index(key[-1:]), rest.index(key[:-1])) for key in keys]
    return {
        key: {"color": _COLOURS[colour], "linestyle": _STYLES[style], "marker": _MARKERS[colour]}
        for key, (colour, style) in zip(keys, places, strict=True)
    }


def _finish(axis: Any, title: str) -> None:
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, fontsize="medium", loc="left")


def _legend(axis: Any) -> None:
    """A legend beside the axis, where it covers nothing."""
    axis.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=3.0)
