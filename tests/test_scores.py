"""Statistics of policies on the same days, against figures worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from zgrid.scores import PlayedDay, assess, costs, interval, score


def day(number: int, value: float, **terms: float) -> PlayedDay:
    """A day of one grid and four steps, one of them 0.02 pu outside the limits."""
    excursion = np.array([[0.0], [0.02], [0.0], [0.0]])
    nothing = np.zeros((4, 1))
    return PlayedDay(
        number, np.array([value]), (terms,), np.ones((4, 1)), excursion, np.zeros(4, dtype=bool), nothing, nothing
    )


class TestInterval:
    def test_is_that_of_students_t(self) -> None:
        """s = 1, n = 3; t(0.975, 2) = 4.302653 from the tables."""
        found = interval([1.0, 2.0, 3.0])
        assert found.mean == 2.0
        assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3.0), rel=1e-6)
        assert found.mean - found.low == pytest.approx(found.high - found.mean)

    def test_one_day_leaves_none(self) -> None:
        found = interval([5.0])
        assert found.mean == 5.0
        assert math.isnan(found.low)
        assert math.isnan(found.high)


class TestScore:
    RETURNS = {"random": np.array([-10.0, -6.0]), "optimum": np.array([-1.0, -3.0])}  # noqa: RUF012

    @pytest.mark.parametrize(("mean", "expected"), [(-8.0, 0.0), (-2.0, 1.0), (-5.0, 0.5), (-14.0, -1.0)])
    def test_is_0_for_random_and_1_for_the_optimum(self, mean: float, expected: float) -> None:
        assert score(mean, self.RETURNS) == pytest.approx(expected)

    def test_needs_an_optimum_above_random(self) -> None:
        assert math.isnan(score(-5.0, {"random": np.array([-10.0])}))
        assert math.isnan(score(-5.0, {"random": np.array([-1.0]), "optimum": np.array([-1.0])}))


def test_costs_are_per_day_and_add_up_to_the_return() -> None:
    days = [day(1, -10.0, energy_cost=6.0, voltage=0.1), day(2, -20.0, energy_cost=8.0, wear_cost=2.0)]
    assert costs(days) == {"energy_cost": 7.0, "wear_cost": 1.0, "penalties": pytest.approx(7.0)}


class TestAssess:
    @pytest.fixture
    def figures(self) -> dict[str, dict[str, object]]:
        returns = {"idle": (-4.0, -9.0), "random": (-8.0, -12.0), "rule_based": (-5.0, -9.5)}
        return assess({name: [day(k, v) for k, v in enumerate(both)] for name, both in returns.items()}, ["mg"], 1.0)

    def test_differences_are_paired(self, figures: dict[str, dict[str, object]]) -> None:
        """Differences 1 and 0.5: far tighter than the returns themselves; t(0.975, 1) = 12.7062."""
        found = figures["idle"]["versus_rule_based"]
        assert isinstance(found, dict)
        assert found["mean"] == pytest.approx(0.75)
        assert found["high"] - found["mean"] == pytest.approx(12.7062 * 0.25, rel=1e-5)
        assert figures["rule_based"]["versus_rule_based"] is None

    def test_violations_are_a_share_of_the_steps(self, figures: dict[str, dict[str, object]]) -> None:
        assert figures["idle"]["violation_percent"] == 25.0
        assert figures["idle"]["mean_excursion_pu"] == pytest.approx(0.02)

    def test_all_of_it_is_json_without_nan(self, figures: dict[str, dict[str, object]]) -> None:
        assert json.loads(json.dumps(figures, allow_nan=False)) == figures
        assert figures["idle"]["score"] is None
