"""What the axes of a study's pictures say: metrics with their units, knobs, values."""

from __future__ import annotations

import math
from collections.abc import Sequence

_NAMES = {
    "gap_per_h": "gap to the optimum, $/h",
    "dispatch_gap_mw": "largest gap to the optimal dispatch, MW",
    "mean_error": "error of the mean, in the protocol's unit",
    "settled_round": "settled in round",
    "age_mean_rounds": "mean age of information, rounds",
    "age_max_rounds": "largest age of information, rounds",
    "age_mean_steps": "mean age of information, steps",
    "age_max_steps": "largest age of information, steps",
    "delivered": "messages delivered",
    "late": "messages that came late",
    "lost": "messages lost",
    "duplicated": "messages that came again",
    "attacked": "messages attacked",
    "mean_rounds": "rounds per step",
    "agreed_share": "share of steps that ended agreed",
    "residual": "residual, in the protocol's unit",
    "spread": "spread, in the protocol's unit",
    "price_spread": "spread of prices, $/MWh",
    "violation_pu": "voltage violations, pu, summed",
}
_ENDINGS = {
    "_mw": "MW",
    "_mwh": "MWh",
    "_per_h": "$/h",
    "_pu": "pu",
    "_rounds": "rounds",
    "_cost": "$",
    "_mvar": "Mvar",
}


def metric_text(metric: str) -> str:
    """A metric as the text of an axis, with its unit."""
    if metric in _NAMES:
        return _NAMES[metric]
    name, unit = metric, "$" if metric.partition(".")[0] == "return" else ""
    for ending, text in _ENDINGS.items():
        if metric.endswith(ending):
            name, unit = metric.removesuffix(ending), text
    name = name.replace("_", " ").replace(".", ", ")
    return f"{name}, {unit}" if unit else name


def knob_text(knob: str, unit: str) -> str:
    """A knob as the text of an axis, with its unit."""
    return f"{knob.replace('_', ' ')}, {unit}" if unit else knob.replace("_", " ")


def key_text(knobs: Sequence[str], key: Sequence[str]) -> str:
    """Values of knobs as the text of a line; words speak for themselves."""
    return ", ".join(
        value if number_of(value) is None and value not in ("True", "False") else f"{knob.replace('_', ' ')} {value}"
        for knob, value in zip(knobs, key, strict=True)
    )


def number_of(text: str) -> float | None:
    """The number that a cell holds; None where it holds none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
