"""The arithmetic of a device, once for floats (one device) and once for arrays (all devices of a kind).

Only IEEE-exact operations, so one row and a batch agree to the bit. Zeros may differ in sign; add 0.0 to what leaves a
device (``Effect`` and state), which makes them all +0.0.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt as _sqrt
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Value: TypeAlias = Any
"""A float, or a float64 array whose last axis is the devices of a kind."""


class Elementwise(NamedTuple):
    """The operations beyond + - * / and comparisons that the equations of a device may use.

    ``clip(value, low, high)`` keeps a value within [low, high]; where the two cross, ``high`` wins.
    """

    minimum: Callable[[Value, Value], Value]
    maximum: Callable[[Value, Value], Value]
    clip: Callable[[Value, Value, Value], Value]
    where: Callable[[Value, Value, Value], Value]
    sqrt: Callable[[Value], Value]


_TO_WHOLE = 2.0**52 + 2.0**51


def nearest(value: Value) -> Value:
    """The nearest whole number, of two equally near the even one; for values within +-2**51.

    Doubles from 2**52 to 2**53 are exactly the whole numbers there, so the addition rounds as IEEE 754 says and the
    subtraction is exact: the same bits for floats and arrays, which ``round`` and ``numpy.rint`` only promise apart.
    """
    return (value + _TO_WHOLE) - _TO_WHOLE


def _minimum(a: float, b: float) -> float:
    return a if a < b else b


def _maximum(a: float, b: float) -> float:
    return a if a > b else b


def _where(condition: bool, a: float, b: float) -> float:
    return a if condition else b


def _clip(value: float, low: float, high: float) -> float:
    raised = value if value > low else low
    return raised if raised < high else high


def _clip_arrays(value: Value, low: Value, high: Value) -> Value:
    return np.minimum(np.maximum(value, low), high)


FLOATS = Elementwise(_minimum, _maximum, _clip, _where, _sqrt)
ARRAYS = Elementwise(np.minimum, np.maximum, _clip_arrays, np.where, np.sqrt)
