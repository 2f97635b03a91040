"""A control scales actions in [-1, 1] to the limits of a setpoint entry, and back."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from zgrid.devices import Control

limits = st.floats(-100.0, 100.0)


def test_the_ends_of_the_action_are_the_limits() -> None:
    control = Control("p_mw", -0.5, 2.0)
    assert control.scale(-1.0) == -0.5
    assert control.scale(1.0) == 2.0
    assert control.scale(0.0) == 0.75  # halfway: -0.5 + 0.5 x 2.5


@given(limits, limits)
def test_the_ends_are_the_limits_for_any_limits(low: float, high: float) -> None:
    assume(low <= high)
    control = Control("p_mw", low, high)
    assert control.scale(-1.0) == low
    assert control.scale(1.0) == pytest.approx(high, rel=0.0, abs=1e-13)


@given(st.floats(0.001, 100.0))
def test_symmetric_limits_are_hit_exactly_and_zero_is_zero(limit: float) -> None:
    control = Control("p_mw", -limit, limit)
    assert [control.scale(x) for x in (-1.0, 0.0, 1.0)] == [-limit, 0.0, limit]


@given(st.floats(-1.0, 1.0), limits, limits)
def test_unscale_undoes_scale(action: float, low: float, high: float) -> None:
    assume(high - low > 1e-3)
    control = Control("p_mw", low, high)
    assert control.unscale(control.scale(action)) == pytest.approx(action, abs=1e-9)


@pytest.mark.parametrize(("action", "limit"), [(-1.5, -2.0), (7.0, 3.0)])
def test_an_action_beyond_the_ends_is_clipped(action: float, limit: float) -> None:
    assert Control("p_mw", -2.0, 3.0).scale(action) == limit


@pytest.mark.parametrize(("value", "action"), [(-9.0, -1.0), (9.0, 1.0)])
def test_a_value_beyond_the_limits_unscales_to_an_end(value: float, action: float) -> None:
    assert Control("p_mw", -2.0, 3.0).unscale(value) == action


def test_limits_that_coincide_give_the_one_value() -> None:
    control = Control("p_mw", 0.3, 0.3)
    assert {control.scale(x) for x in (-1.0, 0.0, 1.0)} == {0.3}
    assert control.unscale(0.3) == 0.0


@pytest.mark.parametrize(
    ("action", "value"),
    # Three levels from 0 to 4 are 0, 2, 4; the bins are [-1, -1/3), [-1/3, 1/3), [1/3, 1].
    [(-1.0, 0.0), (-0.34, 0.0), (-0.33, 2.0), (0.0, 2.0), (0.33, 2.0), (0.34, 4.0), (1.0, 4.0)],
)
def test_a_discrete_control_has_equal_bins(action: float, value: float) -> None:
    assert Control("tap", 0.0, 4.0, levels=3).scale(action) == value


@pytest.mark.parametrize("levels", [2, 3, 5, 33])
def test_every_level_unscales_to_the_middle_of_its_bin(levels: int) -> None:
    control = Control("tap", 0.0, levels - 1.0, levels=levels)
    for level in range(levels):
        # Bin k of n covers 2 / n of the action, from -1 + 2 k / n on: its middle is -1 + (2 k + 1) / n.
        assert control.unscale(float(level)) == pytest.approx(-1.0 + (2 * level + 1) / levels)
        assert control.scale(control.unscale(float(level))) == level
