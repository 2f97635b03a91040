"""A PV or wind plant's availability, curtailment and reactive power, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from zgrid.devices import Control, Effect, Market
from zgrid.devices.renewable import Renewable, RenewableConfig


def config(**parameters: Any) -> RenewableConfig:
    raw = {"kind": "renewable", "bus": "652", "availability": "solar", "p_max_mw": 0.3, "s_rated_mva": 0.5}
    return RenewableConfig.model_validate({**raw, **parameters})


def step(availability: float, p_mw: float, q_mvar: float = 0.0, dt_h: float = 1.0, **parameters: Any) -> Effect:
    plant = Renewable.one(config(**parameters), dt_h)
    return plant.step(plant.initial(), (p_mw, q_mvar), (availability,))[1]


@pytest.mark.parametrize(
    ("availability", "asked", "done"),
    # 0.5 x 0.3 MW = 0.15 MW available
    [(0.5, 0.3, 0.15), (0.5, 0.1, 0.1), (0.0, 0.3, 0.0), (1.0, 0.3, 0.3), (1.0, 9.0, 0.3), (0.5, -0.1, 0.0)],
)
def test_power_is_what_is_asked_up_to_what_is_available(availability: float, asked: float, done: float) -> None:
    assert step(availability, asked).p_mw == done


@pytest.mark.parametrize(("availability", "p_mw"), [(1.4, 0.3), (-0.2, 0.0)])
def test_availability_counts_between_0_and_1(availability: float, p_mw: float) -> None:
    assert step(availability, 0.3).p_mw == p_mw


def test_asking_for_more_than_is_available_is_no_violation() -> None:
    assert step(0.5, 0.3).violation == 0.0


@pytest.mark.parametrize(("dt_h", "cost"), [(1.0, 0.6), (0.25, 0.15)])
def test_curtailed_energy_costs(dt_h: float, cost: float) -> None:
    # 0.15 MW available, 0.1 MW fed in: 0.05 MW x 12 $/MWh = 0.6 $/h
    assert step(0.5, 0.1, dt_h=dt_h, curtailment_cost=12.0).cost == pytest.approx(cost, rel=1e-12)


def test_what_the_weather_withholds_is_not_curtailed() -> None:
    assert step(0.5, 0.3, curtailment_cost=12.0).cost == 0.0


def test_reactive_power_stays_in_the_circle_and_the_rest_is_a_violation() -> None:
    # sqrt(0.5^2 - 0.3^2) = 0.4; asked for 0.45: 0.05 / 0.5 = 0.1
    effect = step(1.0, 0.3, 0.45, q_control=True)
    assert effect.q_mvar == pytest.approx(0.4, rel=1e-12)
    assert effect.violation == pytest.approx(0.1, rel=1e-9)


def test_at_night_the_whole_rating_is_left_for_reactive_power() -> None:
    assert step(0.0, 0.3, -0.5, q_control=True)[:2] == (0.0, -0.5)


def test_limited_by_rating_ignores_the_weather() -> None:
    assert step(0.0, 0.2, limited_by="rating").p_mw == 0.2
    assert step(0.0, 9.0, limited_by="rating").p_mw == 0.3


def test_state_tells_what_was_available() -> None:
    plant = Renewable.one(config(), 1.0)
    assert plant.initial() == (0.0,)
    assert plant.step(plant.initial(), (0.1, 0.0), (0.5,))[0] == (0.15,)


@pytest.mark.parametrize(
    ("price", "p_mw"),
    # A curtailment costs 12 $/MWh: feeding in is better down to a price of -12.
    [(30.0, 0.15), (0.0, 0.15), (-11.0, 0.15), (-13.0, 0.0)],
)
def test_it_feeds_in_what_is_available_unless_that_costs_more_than_curtailing(price: float, p_mw: float) -> None:
    plant = Renewable.one(config(curtailment_cost=12.0), 1.0)
    assert plant.respond(plant.initial(), (0.5,), Market(price, 20.0, 40.0))[0] == p_mw


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"p_max_mw": 0.6}, "p_max_mw 0.6 is above s_rated_mva 0.5"),
        ({"p_max_mw": 0.0}, "p_max_mw"),
        ({"curtailment_cost": -1.0}, "curtailment_cost"),
        ({"limited_by": "weather"}, "limited_by"),
    ],
)
def test_a_config_that_cannot_be_is_refused(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        config(**parameters)


def test_reactive_power_is_a_control_only_where_the_config_says_so() -> None:
    p, q = Control("p_mw", 0.0, 0.3), Control("q_mvar", -0.5, 0.5)
    assert Renewable.controls(config()) == (p,)
    assert Renewable.controls(config(q_control=True)) == (p, q)
