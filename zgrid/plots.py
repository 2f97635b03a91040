"""Pictures of a run; needs the extra ``plot`` (matplotlib)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zgrid.devices import device_class
from zgrid.errors import MissingExtraError
from zgrid.topology import Topology

_COLOURS = {
    "generator": "#b5523b", "renewable": "#e0a526", "smart_renewable": "#c98a00", "storage": "#3b7ea1",
    "smart_storage": "#2b5f86", "load": "#7a7a7a", "flexible_load": "#8c6bb1", "ev_charger": "#4d9221",
    "grid_tie": "#d6604d",
}  # fmt: skip
_STYLES = ("-", "--", "-.", ":")
"""Devices of one kind share its colour, each in a style of its own."""
_IMPORT, _PRICE, _VOLTAGE = "#4a4a4a", "#7b4ea3", "#2f7d5b"

Rows = Sequence[dict[str, float]]


def draw_day(rows: Rows, topology: Topology, path: Path) -> None:
    """The last whole episode, a column per grid: powers, state of charge, price, what was switched where anything can
    be, and voltages, as a PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("pictures need matplotlib: pip install 'zgrid[plot]'") from error
    episode = _last_whole_episode(rows, topology.episode_steps)
    episode = [*episode, *episode[-1:]]  # a step is drawn to its end
    hours = [k * topology.dt_h for k in range(len(episode))]
    grids = list(topology.grids)
    moved = {grid: _positions(topology, grid) for grid in grids}
    switched = any(moved.values())
    heights = [3.0, 1.3, 1.3, *([1.3] if switched else []), 2.0]
    figure = Figure(figsize=(1.5 + 3.6 * len(grids), 8.5 + 1.3 * switched), layout="constrained")
    axes = figure.subplots(
        len(heights), len(grids), sharex=True, sharey="row", squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for column, grid in enumerate(grids):
        top, soc, price, *between, voltage = axes[:, column]
        for axis in between:
            _draw_positions(axis, hours, episode, grid, moved[grid], last=grid == grids[-1])
        top.set_title(grid)
        _draw_powers(top, hours, episode, topology, grid)
        _draw_soc(soc, hours, episode, topology, grid)
        price.step(hours, [row[f"{grid}.price"] for row in episode], where="post", color=_PRICE)
        _draw_voltage(voltage, hours, episode, topology, grid)
        voltage.set_xlabel("hour")
    labels = ["power, MW", "state of\ncharge", "price,\n$/MWh", *(["position"] if switched else []), "voltage, pu"]
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label)
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    figure.suptitle(f"{topology.name}, day {int(episode[0]['day'])} of the data" if episode else topology.name)
    figure.savefig(path, dpi=110)


def draw_learning_curve(
    env_steps: Sequence[int], returns: Sequence[float], references: Mapping[str, float], path: Path
) -> None:
    """Mean return of a day over env steps, with a running mean, and named references as lines, as a PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("pictures need matplotlib: pip install 'zgrid[plot]'") from error
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axis = figure.subplots()
    around = len(returns) // 40
    widths = [min(around, k, len(returns) - 1 - k) for k in range(len(returns))]
    smooth = [float(np.mean(returns[k - width : k + width + 1])) for k, width in enumerate(widths)]
    axis.plot(env_steps, returns, color=_COLOURS["storage"], alpha=0.35, linewidth=1.0)
    axis.plot(env_steps, smooth, color=_COLOURS["storage"], linewidth=2.0, label="training")
    for k, (name, value) in enumerate(references.items()):
        axis.axhline(value, color="#4a4a4a", linestyle=_STYLES[k % len(_STYLES)], linewidth=1.1, label=name)
    axis.set_xlabel("env steps")
    axis.set_ylabel("return of a day, all grids, $")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


def draw_scores(returns: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """The return of every day, $, (n_days,) by policy: a row per policy, best mean last, with the mean, as a PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("pictures need matplotlib: pip install 'zgrid[plot]'") from error
    names = sorted(returns, key=lambda name: float(np.mean(returns[name])))
    figure = Figure(figsize=(7.5, 1.4 + 0.55 * len(names)), layout="constrained")
    axis = figure.subplots()
    for row, name in enumerate(names):
        days, mean = returns[name], float(np.mean(returns[name]))
        spread = row + 0.3 * (np.arange(len(days)) % 5 - 2) / 2.0  # so that equal days are seen side by side
        axis.plot(days, spread, ".", color=_COLOURS["storage"], alpha=0.35, markersize=5)
        axis.plot([mean, mean], [row - 0.38, row + 0.38], color=_IMPORT, linewidth=2.2)
        axis.annotate(f"{mean:,.0f}", (mean, row + 0.38), ha="center", va="bottom", fontsize="small", color=_IMPORT)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(-0.6, len(names) - 0.25)
    axis.set_xlabel("return of a day, all grids, $ (dots: days, bars: means)")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.grid(alpha=0.25, axis="x")
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title)
    figure.savefig(path, dpi=110)


def _last_whole_episode(rows: Rows, steps: int) -> Rows:
    episodes: dict[int, list[dict[str, float]]] = {}
    for row in rows:
        episodes.setdefault(int(row["episode"]), []).append(row)
    whole = [episode for episode in episodes.values() if len(episode) == steps]
    return (whole or list(episodes.values()) or [[]])[-1]


def _draw_powers(axis: Any, hours: Sequence[float], rows: Rows, topology: Topology, grid: str) -> None:
    drawn: Counter[str] = Counter()
    for name, device in topology.grids[grid].devices.items():
        if device_class(device.kind).POSITION:
            continue
        style = _STYLES[drawn[device.kind] % len(_STYLES)]
        drawn[device.kind] += 1
        values = [row[f"{grid}.{name}.p_mw"] for row in rows]
        colour = _COLOURS.get(device.kind)
        axis.step(hours, values, where="post", label=name, color=colour, linestyle=style, linewidth=1.8)
    imported = [row[f"{grid}.p_pcc_mw"] for row in rows]
    axis.step(hours, imported, where="post", label="import", color=_IMPORT, linestyle=":", linewidth=1.5)
    axis.axhline(0.0, color="black", linewidth=0.6)


def _positions(topology: Topology, grid: str) -> dict[str, str]:
    """The devices of a grid that move the network, and the entry of their state that is the position."""
    entries = {name: device_class(device.kind).POSITION for name, device in topology.grids[grid].devices.items()}
    return {name: entry for name, entry in entries.items() if entry}


def _draw_positions(
    axis: Any, hours: Sequence[float], rows: Rows, grid: str, moved: dict[str, str], *, last: bool
) -> None:
    """Positions over the day; only beside the last column is there room for the names."""
    for k, (name, entry) in enumerate(moved.items()):
        values = [row[f"{grid}.{name}.{entry}"] for row in rows]
        axis.step(hours, values, where="post", label=name, linestyle=_STYLES[k % len(_STYLES)], linewidth=1.3)
    if moved:
        place = (1.0, 1.1) if last else (0.0, 1.1)
        axis.legend(fontsize="x-small", frameon=False, loc="upper left", bbox_to_anchor=place, labelspacing=0.1)


def _draw_soc(axis: Any, hours: Sequence[float], rows: Rows, topology: Topology, grid: str) -> None:
    for name, device in topology.grids[grid].devices.items():
        if device.kind in ("storage", "smart_storage"):
            axis.step(hours, [row[f"{grid}.{name}.soc"] for row in rows], where="post", color=_COLOURS["storage"])
    axis.set_ylim(0.0, 1.0)


def _draw_voltage(axis: Any, hours: Sequence[float], rows: Rows, topology: Topology, grid: str) -> None:
    low, high = ([row[f"{grid}.{name}"] for row in rows] for name in ("vm_min_pu", "vm_max_pu"))
    reward = topology.grids[grid].reward or topology.reward
    axis.fill_between(hours, low, high, step="post", color=_VOLTAGE, alpha=0.55)
    for limit in (reward.vm_min_pu, reward.vm_max_pu):
        axis.axhline(limit, color="#c0392b", linewidth=0.8, linestyle="--")
