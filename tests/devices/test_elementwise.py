"""Rounding gives the same bits on floats and on arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zgrid.devices.elementwise import nearest


@pytest.mark.parametrize(
    ("value", "whole"),
    [
        (0.4, 0.0),
        (0.6, 1.0),
        (-0.6, -1.0),
        (2.9999999999999996, 3.0),
        (0.5, 0.0),
        (1.5, 2.0),
        (2.5, 2.0),
        (-16.2, -16.0),
    ],
)
def test_the_nearest_whole_number_and_of_two_the_even_one(value: float, whole: float) -> None:
    assert nearest(value) == whole


@given(st.floats(-1e9, 1e9))
def test_floats_and_arrays_agree_to_the_bit_and_with_round(value: float) -> None:
    alone = nearest(value)
    assert type(alone) is float
    assert np.float64(alone).tobytes() == nearest(np.array([value])).tobytes()
    assert alone == round(value)
