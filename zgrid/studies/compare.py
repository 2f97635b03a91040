"""What combinations are worth: means over seeds, and differences to a reference, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zgrid.scores import Interval, interval
from zgrid.studies.config import Label

NO_METRICS = ("run", "seed", "status", "error")


def compare(
    rows: Sequence[Mapping[str, Any]], knobs: Sequence[str], reference: Mapping[str, Label]
) -> list[dict[str, Any]]:
    """A row per combination and metric: mean over seeds with its 95 % interval, and, where the study has a reference,
    the mean of the differences to it, paired by seed.

    ``n`` is the number of seeds with a value; differences take those that have one on both sides.
    """
    groups = _groups(rows, knobs)
    metrics = [name for name in (rows[0] if rows else ()) if name not in (*NO_METRICS, *knobs)]
    found = []
    for key, group in groups.items():
        labels = dict(zip(knobs, key, strict=True))
        base = groups.get(tuple(str(reference.get(knob, labels[knob])) for knob in knobs), {})
        for metric in metrics:
            values = {seed: row[metric] for seed, row in group.items() if row.get(metric) is not None}
            if not values:
                continue
            line = {**labels, "metric": metric, "n": len(values), **_named("", interval(list(values.values())))}
            if reference:
                line |= _named("difference_", _paired(values, base, metric))
            found.append(line)
    return found


def _groups(rows: Sequence[Mapping[str, Any]], knobs: Sequence[str]) -> dict[tuple[str, ...], dict[Any, Any]]:
    """Combination -> seed -> row, of what did not fail."""
    groups: dict[tuple[str, ...], dict[Any, Any]] = {}
    for row in rows:
        if row["status"] == "ok":
            groups.setdefault(tuple(str(row[knob]) for knob in knobs), {})[row["seed"]] = row
    return groups


def _paired(values: Mapping[Any, float], base: Mapping[Any, Mapping[str, Any]], metric: str) -> Interval:
    pairs = [(value, base[seed][metric]) for seed, value in values.items()
             if seed in base and base[seed].get(metric) is not None]  # fmt: skip
    if not pairs:
        return Interval(math.nan, math.nan, math.nan)
    mine, theirs = np.array(pairs, dtype=np.float64).T
    return interval(mine - theirs)


def _named(prefix: str, found: Interval) -> dict[str, float | None]:
    return {f"{prefix}{name}": None if math.isnan(value) else value for name, value in found._asdict().items()}
