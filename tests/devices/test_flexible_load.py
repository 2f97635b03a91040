"""What a flexible load sheds, defers and owes, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from zgrid.devices import Effect, Market
from zgrid.devices.flexible_load import FlexibleLoad, FlexibleLoadConfig

SHIFTS = {"shift_max_mw": 0.2, "backlog_max_mwh": 0.5, "recover_h": 4.0}


def config(**parameters: Any) -> FlexibleLoadConfig:
    raw = {"kind": "flexible_load", "bus": "671", "demand": "load_1", "p_mw": 0.8}
    return FlexibleLoadConfig.model_validate({**raw, **parameters})


def step(
    shed: float = 0.0,
    shift_mw: float = 0.0,
    backlog: float = 0.0,
    demand: float = 0.5,
    dt_h: float = 1.0,
    **parameters: Any,
) -> tuple[float, Effect]:
    (backlog,), effect = FlexibleLoad.one(config(**parameters), dt_h).step((backlog,), (shed, shift_mw), (demand,))
    return backlog, effect


def test_it_takes_its_demand_when_nothing_is_asked() -> None:
    assert step(q_mvar=0.2) == (0.0, (-0.4, -0.1, 0.0, 0.0))
    assert step(demand=-1.0) == (0.0, (0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(("asked", "served", "cost"), [(0.25, 0.3, 10.0), (0.9, 0.2, 20.0), (-1.0, 0.4, 0.0)])
def test_shedding_drops_a_share_of_the_demand_at_a_cost(asked: float, served: float, cost: float) -> None:
    # of 0.4 MW at most half, 100 $/MWh
    backlog, effect = step(shed=asked, shed_max=0.5, shed_cost=100.0)
    assert effect.p_mw == pytest.approx(-served, rel=1e-12)
    assert effect.cost == pytest.approx(cost, rel=1e-12)
    assert (backlog, effect.violation) == (0.0, 0.0)


def test_deferring_owes_what_it_does_not_take() -> None:
    # 0.1 MW for a quarter of an hour: 0.025 MWh owed; 8 $/MWh to defer, 4 $/(MWh h) to wait
    backlog, effect = step(shift_mw=0.1, dt_h=0.25, shift_cost=8.0, waiting_cost=4.0, **SHIFTS)
    assert backlog == pytest.approx(0.025, rel=1e-12)
    assert effect.p_mw == pytest.approx(-0.3, rel=1e-12)
    assert effect.cost == pytest.approx(8.0 * 0.025 + 4.0 * 0.025 * 0.25, rel=1e-12)


def test_a_share_of_what_is_owed_is_served_in_each_step() -> None:
    # 0.4 MWh owed, recovered over 4 h: at least 0.1 MW
    backlog, effect = step(backlog=0.4, **SHIFTS)
    assert backlog == pytest.approx(0.3, rel=1e-12)
    assert effect.p_mw == pytest.approx(-0.5, rel=1e-12)
    assert step(backlog=0.4, **SHIFTS | {"recover_h": 0.1}) == (0.0, (-0.8, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("asked", "served", "backlog", "violation"),
    # 0.1 MWh owed, 0.025 MW due; early catching up by at most 0.2 MW and what is owed; beyond: over 0.8 MW
    [(-0.01, 0.425, 0.075, 0.0), (-0.05, 0.45, 0.05, 0.0), (-0.2, 0.5, 0.0, 0.125), (-9.0, 0.5, 0.0, 0.125)],
)
def test_catching_up_serves_what_is_owed(asked: float, served: float, backlog: float, violation: float) -> None:
    owed, effect = step(shift_mw=asked, backlog=0.1, **SHIFTS)
    assert effect.p_mw == pytest.approx(-served, rel=1e-12)
    assert owed == pytest.approx(backlog, abs=1e-15)
    assert effect.violation == pytest.approx(violation, abs=1e-12)


def test_no_more_is_deferred_than_there_is_demand_and_room() -> None:
    # demand 0.05 x 0.8 = 0.04 of the 0.2 asked: (0.2 - 0.04) / 0.8
    backlog, effect = step(shift_mw=0.2, demand=0.05, **SHIFTS)
    assert (backlog, effect.p_mw) == (pytest.approx(0.04), pytest.approx(0.0, abs=1e-15))
    assert effect.violation == pytest.approx(0.2, rel=1e-9)
    # 0.5 MWh owed is all there may be: what is due, 0.125 MW, makes room for as much
    backlog, effect = step(shift_mw=0.2, backlog=0.5, **SHIFTS)
    assert (backlog, effect.p_mw) == (0.5, pytest.approx(-0.4))
    assert effect.violation == pytest.approx(0.075 / 0.8, rel=1e-9)


def test_shedding_comes_before_deferring() -> None:
    backlog, effect = step(shed=1.0, shift_mw=0.2, shed_max=1.0, **SHIFTS)
    assert (backlog, effect.p_mw) == (0.0, 0.0)


@pytest.mark.parametrize("dt_h", [0.25, 1.0])
def test_what_is_deferred_is_served_later_or_still_owed(dt_h: float) -> None:
    load = FlexibleLoad.one(config(shed_max=0.3, **SHIFTS), dt_h)
    rng = np.random.default_rng(2)
    backlog, wanted, served = 0.0, 0.0, 0.0
    for shed, shift, demand in rng.uniform((-0.1, -0.3, 0.0), (0.5, 0.3, 1.2), (5000, 3)):
        (backlog,), effect = load.step((backlog,), (float(shed), float(shift)), (float(demand),))
        wanted += (1.0 - min(max(shed, 0.0), 0.3)) * 0.8 * demand * dt_h
        served -= effect.p_mw * dt_h
        assert 0.0 <= backlog <= 0.5
        assert effect.p_mw <= 0.0
    assert wanted > 100.0
    assert wanted == pytest.approx(served + backlog, abs=1e-9)


@pytest.mark.parametrize(
    ("parameters", "q_per_p"), [({"power_factor": 0.8}, 0.75), ({"q_mvar": -0.2}, -0.25), ({}, 0.0)]
)
def test_reactive_power_is_in_proportion_to_what_is_served(parameters: dict[str, Any], q_per_p: float) -> None:
    for asked in ({"shed": 0.5}, {"shift_mw": 0.1}, {"backlog": 0.3}):
        _, effect = step(**asked, shed_max=0.5, **SHIFTS, **parameters)
        assert effect.q_mvar == pytest.approx(effect.p_mw * q_per_p, rel=1e-12)


@pytest.mark.parametrize(
    ("price", "backlog", "wanted"),
    # dear from 60 on: defer; cheap up to 20: catch up, at most 0.2 MW; above 100: shed too, of the 0.2 MW left all
    [(40.0, 0.3, (0.0, 0.0)), (60.0, 0.0, (0.0, 0.2)), (20.0, 0.3, (0.0, -0.2)), (20.0, 0.1, (0.0, -0.1)),
     (101.0, 0.0, (0.5, 0.2))],
)  # fmt: skip
def test_by_itself_it_follows_the_price(price: float, backlog: float, wanted: tuple[float, float]) -> None:
    load = FlexibleLoad.one(config(shed_max=0.5, shed_cost=100.0, shift_cost=30.0, **SHIFTS), 1.0)
    assert load.respond((backlog,), (0.5,), Market(price, 20.0, 60.0)) == pytest.approx(wanted)


def test_by_itself_it_does_not_defer_where_the_spread_does_not_pay() -> None:
    # 30 to defer and 4 h of waiting at 3 $/(MWh h) are more than 60 - 20
    load = FlexibleLoad.one(config(shed_cost=100.0, shift_cost=30.0, waiting_cost=3.0, **SHIFTS), 1.0)
    assert load.respond((0.0,), (0.5,), Market(60.0, 20.0, 60.0)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"q_mvar": 0.1, "power_factor": 0.9}, "not both"),
        ({"shift_max_mw": 0.1}, "shifting needs both"),
        ({"backlog_max_mwh": 0.1}, "shifting needs both"),
        ({"p_mw": 0.0}, "p_mw"),
        ({"shed_max": 1.1}, "shed_max"),
        ({"recover_h": 0.0}, "recover_h"),
    ],
)
def test_a_config_that_cannot_be_is_refused(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        config(**parameters)


def test_controls_are_those_the_config_allows() -> None:
    assert FlexibleLoad.controls(config()) == ()
    shed, shift = FlexibleLoad.controls(config(shed_max=0.4, **SHIFTS))
    assert shed[:3] == ("shed", 0.0, 0.4)
    assert shift[:3] == ("shift_mw", -0.2, 0.2)
