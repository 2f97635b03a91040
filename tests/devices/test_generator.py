"""A generator's cost, limits, ramp and commitment, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from zgrid.devices import Effect, Market
from zgrid.devices.generator import OFF, ON, STARTING, STOPPING, Generator, GeneratorConfig

RUN, HALT = 1.0, 0.0


def config(**parameters: Any) -> GeneratorConfig:
    raw = {"kind": "generator", "bus": "675", "p_max_mw": 0.66, "s_rated_mva": 1.0, **parameters}
    return GeneratorConfig.model_validate(raw)


def unit(dt_h: float = 1.0, **parameters: Any) -> Generator:
    return Generator.one(config(**parameters), dt_h)


def run(generator: Generator, commands: list[float], p_mw: float = 0.5) -> list[tuple[float, float, float]]:
    """(power, status, cost) of each step, commanded on (1) or off (0) at one power."""
    state, done = generator.initial(), []
    for on in commands:
        state, effect = generator.step(state, (p_mw, 0.0, on), ())
        done.append((effect.p_mw, state[1], effect.cost))
    return done


def step(generator: Generator, p_mw: float, q_mvar: float = 0.0) -> Effect:
    return generator.step(generator.initial(), (p_mw, q_mvar, RUN), ())[1]


# ---- cost -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dt_h", "cost"), [(1.0, 31.2211), (0.25, 7.805275)])
def test_quadratic_cost_counts_energy_of_the_step(dt_h: float, cost: float) -> None:
    # 100 x 0.3^2 + 72.4 x 0.3 + 0.5011 = 9 + 21.72 + 0.5011 = 31.2211 $/h
    generator = unit(dt_h, cost_a=100.0, cost_b=72.4, cost_c=0.5011)
    assert step(generator, 0.3).cost == pytest.approx(cost, rel=1e-12)


@pytest.mark.parametrize(
    ("p_mw", "cost"),
    # Slopes: (15 - 5) / 0.2 = 50 and (51 - 15) / 0.36 = 100 $/MWh.
    [(0.1, 5.0), (0.2, 10.0), (0.3, 15.0), (0.5, 35.0), (0.66, 51.0)],
)
def test_piecewise_cost_follows_its_points(p_mw: float, cost: float) -> None:
    generator = unit(p_min_mw=0.1, cost_points=[(0.1, 5.0), (0.3, 15.0), (0.66, 51.0)])
    assert step(generator, p_mw).cost == pytest.approx(cost, rel=1e-12)


def test_a_unit_at_zero_power_still_pays_for_being_on() -> None:
    assert step(unit(cost_b=50.0, cost_c=3.0), 0.0).cost == 3.0


# ---- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "done"), [(0.05, 0.2), (0.2, 0.2), (0.4, 0.4), (0.66, 0.66), (5.0, 0.66)])
def test_power_stays_between_p_min_and_p_max(asked: float, done: float) -> None:
    assert step(unit(p_min_mw=0.2), asked).p_mw == done


def test_a_unit_that_is_always_on_begins_at_p_min() -> None:
    assert unit(p_min_mw=0.2).initial() == (0.2, ON, 0.0)


def test_reactive_power_stays_in_the_circle_and_the_rest_is_a_violation() -> None:
    # sqrt(1 - 0.6^2) = 0.8; asked for 0.9: 0.1 Mvar too much, over 1 MVA
    effect = step(unit(q_control=True), 0.6, 0.9)
    assert effect.q_mvar == pytest.approx(0.8, rel=1e-12)
    assert effect.violation == pytest.approx(0.1, rel=1e-9)
    assert step(unit(q_control=True), 0.6, -0.9).q_mvar == pytest.approx(-0.8, rel=1e-12)


def test_at_full_rating_no_reactive_power_is_left() -> None:
    effect = step(unit(p_max_mw=1.0, q_control=True), 1.0, 0.3)
    assert effect[:2] == (1.0, 0.0)
    assert effect.violation == pytest.approx(0.3, rel=1e-12)


@pytest.mark.parametrize(("asked", "done"), [(0.9, 0.5), (0.4, 0.4), (-0.9, -0.25)])
def test_reactive_power_stays_within_its_own_limits(asked: float, done: float) -> None:
    assert step(unit(q_control=True, q_min_mvar=-0.25, q_max_mvar=0.5), 0.1, asked).q_mvar == done


@pytest.mark.parametrize(("p_mw", "q_limit"), [(0.4, 0.3), (0.2, 0.15), (0.0, 0.0)])
def test_power_factor_limits_reactive_power(p_mw: float, q_limit: float) -> None:
    # tan(acos 0.8) = 0.6 / 0.8 = 0.75
    generator = unit(q_control=True, min_power_factor=0.8)
    assert step(generator, p_mw, 0.5).q_mvar == pytest.approx(q_limit, rel=1e-12)
    assert step(generator, p_mw, -0.5).q_mvar == pytest.approx(-q_limit, rel=1e-12)


def test_the_circle_holds_beside_the_power_factor() -> None:
    # At 0.9 MW the power factor would leave 0.9 x 0.75 = 0.675 Mvar, the circle leaves sqrt(1 - 0.81) = 0.43589.
    effect = step(unit(p_max_mw=1.0, q_control=True, min_power_factor=0.8), 0.9, 1.0)
    assert effect.q_mvar == pytest.approx(0.435889894354, rel=1e-9)


def test_a_power_factor_of_one_leaves_no_reactive_power() -> None:
    assert step(unit(q_control=True, min_power_factor=1.0), 0.5, 0.3).q_mvar == 0.0


def test_a_negative_q_max_does_not_push_the_unit_out_of_its_circle() -> None:
    try:
        generator = unit(p_max_mw=1.0, q_control=True, q_min_mvar=-1.0, q_max_mvar=-0.5)
    except ValidationError:
        return  # refusing such limits would do as well
    effect = step(generator, 1.0, -0.5)
    assert effect.p_mw**2 + effect.q_mvar**2 <= 1.0 + 1e-12


# ---- ramp -----------------------------------------------------------------------------------------------------------


def test_ramp_limits_power_up_and_down() -> None:
    # 0.4 MW/h x 0.25 h = 0.1 MW a step
    generator = unit(0.25, ramp_mw_per_h=0.4)
    state, powers = generator.initial(), []
    for asked in (0.35, 0.35, 0.35, 0.35, 0.0, 0.0, 0.28):
        state, effect = generator.step(state, (asked, 0.0, RUN), ())
        powers.append(effect.p_mw)
    assert powers == pytest.approx([0.1, 0.2, 0.3, 0.35, 0.25, 0.15, 0.25], rel=1e-12)


def test_power_asked_beyond_the_ramp_is_a_violation() -> None:
    # 0.66 asked, 0.1 possible, over 1 MVA
    assert step(unit(0.25, ramp_mw_per_h=0.4), 0.66).violation == pytest.approx(0.56, rel=1e-12)


def test_without_a_ramp_limit_power_jumps() -> None:
    assert step(unit(), 0.66)[0::3] == (0.66, 0.0)


# ---- commitment -----------------------------------------------------------------------------------------------------


def test_a_committed_unit_begins_off() -> None:
    assert unit(commitment=True, p_min_mw=0.2).initial() == (0.0, OFF, 0.0)


def test_a_unit_that_is_off_costs_and_gives_nothing() -> None:
    generator = unit(commitment=True, cost_b=50.0, cost_c=3.0, q_control=True)
    _, effect = generator.step(generator.initial(), (0.5, 0.4, HALT), ())
    assert effect == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("dt_h", "waits"), [(1.0, 2), (0.5, 4), (0.25, 8), (0.1, 20)])
def test_power_flows_two_hours_after_the_command_of_a_two_hour_start(dt_h: float, waits: int) -> None:
    done = run(unit(dt_h, commitment=True, start_time_h=2.0), [RUN] * (waits + 2))
    assert [p for p, _, _ in done] == [0.0] * waits + [0.5, 0.5]
    assert [status for _, status, _ in done] == [STARTING] * waits + [ON, ON]


def test_a_start_without_delay_gives_power_in_the_same_step() -> None:
    assert run(unit(commitment=True, cost_b=40.0), [RUN]) == [(0.5, ON, 20.0)]  # 40 $/MWh x 0.5 MW x 1 h


def test_start_and_stop_are_paid_once_each() -> None:
    generator = unit(commitment=True, start_time_h=2.0, start_cost=9.0, stop_cost=4.0, cost_b=40.0)
    done = run(generator, [RUN, RUN, RUN, RUN, HALT, HALT])
    assert [cost for _, _, cost in done] == [9.0, 0.0, 20.0, 20.0, 4.0, 0.0]


def test_a_command_against_a_running_start_is_ignored() -> None:
    generator = unit(commitment=True, start_time_h=2.0, start_cost=9.0, stop_cost=4.0)
    done = run(generator, [RUN, HALT, RUN])
    assert done == [(0.0, STARTING, 9.0), (0.0, STARTING, 0.0), (0.5, ON, 0.0)]


def test_a_stop_ends_power_at_once_and_takes_its_time() -> None:
    done = run(unit(0.25, commitment=True, stop_time_h=0.5), [RUN, HALT, HALT, HALT])
    assert done == [(0.5, ON, 0.0), (0.0, STOPPING, 0.0), (0.0, STOPPING, 0.0), (0.0, OFF, 0.0)]


def test_a_stopped_unit_can_start_again() -> None:
    done = run(unit(commitment=True), [RUN, HALT, RUN])
    assert [p for p, _, _ in done] == [0.5, 0.0, 0.5]


def test_a_new_start_is_possible_when_the_stop_time_is_over() -> None:
    # Stopped at the begin of step 1, stop_time 1 h: at the begin of step 2 a start is possible again.
    done = run(unit(commitment=True, stop_time_h=1.0), [RUN, HALT, RUN])
    assert [p for p, _, _ in done] == [0.5, 0.0, 0.5]


def test_no_start_is_possible_before_the_stop_time_is_over() -> None:
    done = run(unit(0.25, commitment=True, stop_time_h=1.0), [RUN, HALT, RUN, RUN, RUN])
    assert [p for p, _, _ in done] == [0.5, 0.0, 0.0, 0.0, 0.0]


def test_a_unit_without_commitment_ignores_the_command() -> None:
    assert [p for p, _, _ in run(unit(), [HALT, HALT])] == [0.5, 0.5]


# ---- what it would do by itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "p_mw"),
    # 2 x 100 x p + 72.4 = price: (122.4 - 72.4) / 200 = 0.25; below 72.4 nothing; 1000 is more than p_max can earn
    [(122.4, 0.25), (82.4, 0.05), (72.4, 0.0), (30.0, 0.0), (1000.0, 0.66)],
)
def test_it_runs_where_marginal_cost_meets_the_price(price: float, p_mw: float) -> None:
    generator = unit(cost_a=100.0, cost_b=72.4, cost_c=0.5)
    wanted = generator.respond(generator.initial(), (), Market(price, price, price))
    assert wanted[0] == pytest.approx(p_mw, abs=1e-12)


@pytest.mark.parametrize(("price", "p_mw"), [(49.0, 0.1), (51.0, 0.3), (99.0, 0.3), (101.0, 0.66)])
def test_with_a_piecewise_cost_it_runs_every_piece_that_pays(price: float, p_mw: float) -> None:
    # Slopes 50 and 100 $/MWh
    generator = unit(p_min_mw=0.1, cost_points=[(0.1, 5.0), (0.3, 15.0), (0.66, 51.0)])
    wanted = generator.respond(generator.initial(), (), Market(price, price, price))
    assert wanted[0] == pytest.approx(p_mw, rel=1e-12)


@pytest.mark.parametrize(("price", "on"), [(60.0, 0.0), (70.0, 1.0)])
def test_it_is_on_only_where_that_earns(price: float, on: float) -> None:
    # Linear cost 50 $/MWh and 10 $/h for being on: at 0.66 MW a price of 50 + 10 / 0.66 = 65.2 breaks even.
    generator = unit(commitment=True, cost_b=50.0, cost_c=10.0)
    assert generator.respond(generator.initial(), (), Market(price, price, price))[2] == on


# ---- config ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"p_min_mw": 0.7}, "p_min_mw 0.7 is above p_max_mw 0.66"),
        ({"p_max_mw": 1.1}, "p_max_mw 1.1 is above s_rated_mva 1.0"),
        ({"q_min_mvar": 0.2, "q_max_mvar": 0.1}, "0 Mvar is not within q_min_mvar 0.2 to q_max_mvar 0.1"),
        ({"cost_points": [(0.0, 0.0)]}, "at least two"),
        ({"cost_points": [(0.0, 0.0), (0.5, 9.0)]}, "the last at p_max_mw"),
        ({"cost_points": [(0.1, 0.0), (0.66, 9.0)]}, "the first at p_min_mw"),
        ({"cost_points": [(0.0, 0.0), (0.4, 9.0), (0.4, 9.5), (0.66, 12.0)]}, "rising MW"),
        ({"cost_points": [(0.0, 0.0), (0.3, 9.0), (0.66, 12.0)]}, "the slope must not fall"),
        ({"cost_points": [(0.0, 0.0), (0.66, 12.0)], "cost_b": 1.0}, "not both"),
        ({"p_min_mw": -0.1}, "p_min_mw"),
        ({"p_max_mw": 0.0}, "p_max_mw"),
        ({"min_power_factor": 1.1}, "min_power_factor"),
        ({"min_power_factor": 0.0}, "min_power_factor"),
        ({"ramp_mw_per_h": 0.0}, "ramp_mw_per_h"),
        ({"start_time_h": -1.0}, "start_time_h"),
        ({"cost_b": float("nan")}, "cost_b"),
    ],
)
def test_a_config_that_cannot_be_is_refused(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        config(**parameters)


def test_controls_are_those_the_config_asks_for() -> None:
    def names(**parameters: Any) -> list[str]:
        return [control.name for control in Generator.controls(config(**parameters))]

    assert names() == ["p_mw"]
    assert names(q_control=True) == ["p_mw", "q_mvar"]
    assert names(q_control=True, commitment=True) == ["p_mw", "q_mvar", "on"]


def test_controls_have_the_limits_of_the_config() -> None:
    p, q, on = Generator.controls(config(p_min_mw=0.1, q_control=True, q_max_mvar=0.3, commitment=True))
    assert (p.low, p.high) == (0.1, 0.66)
    assert (q.low, q.high) == (-1.0, 0.3)
    assert (on.low, on.high, on.levels) == (0.0, 1.0, 2)
