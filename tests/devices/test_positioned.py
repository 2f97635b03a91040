"""Capacitors, tap changers, switches and breakers, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from zgrid.devices import Actuation, Effect, Market, device_class

MARKET = Market(30.0, 20.0, 40.0)
RAW: dict[str, dict[str, Any]] = {
    "capacitor": {"bus": "675", "q_mvar_per_step": 0.1, "steps": 4},
    "tap_changer": {"element": "Substation", "tap_min": -8, "tap_max": 8, "tap_init": 2},
    "switch": {"element": "Switch 671-692"},
    "pcc_breaker": {},
}


def config(kind: str, **parameters: Any) -> Any:
    return device_class(kind).Config.model_validate({"kind": kind, **RAW[kind], **parameters})


def device(kind: str, dt_h: float = 1.0, **parameters: Any) -> Any:
    return device_class(kind).one(config(kind, **parameters), dt_h)


def step(one: Any, state: tuple[float, ...], asked: float) -> tuple[tuple[float, ...], Effect]:
    result: tuple[tuple[float, ...], Effect] = one.step(state, (asked,), (1.0,) * len(one.MEASURES))
    return result


@pytest.mark.parametrize(
    ("kind", "parameters", "state"),
    [
        ("capacitor", {}, (0.0,)),
        ("capacitor", {"step_init": 3}, (3.0,)),
        ("tap_changer", {}, (2.0,)),
        ("switch", {}, (1.0,)),
        ("switch", {"closed_init": False}, (0.0,)),
        ("pcc_breaker", {"min_open_h": 2.0}, (1.0, 0.0)),
    ],
)
def test_an_episode_begins_where_the_config_says_and_idle_stays_there(
    kind: str, parameters: dict[str, Any], state: tuple[float, ...]
) -> None:
    one = device(kind, **parameters)
    (control,) = one.controls(config(kind, **parameters))
    assert one.initial() == state
    assert step(one, state, control.scale(control.unscale(control.idle))) == (state, (0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("capacitor", (0.0, 4.0, 5)),
        ("tap_changer", (-8.0, 8.0, 17)),
        ("switch", (0.0, 1.0, 2)),
        ("pcc_breaker", (0, 1, 2)),
    ],
)
def test_the_control_has_a_level_for_each_position(kind: str, limits: tuple[float, float, int]) -> None:
    one = device(kind)
    (control,) = one.controls(config(kind))
    assert (control.low, control.high, control.levels) == limits
    assert (control.name,) == one.SETPOINT
    assert control.name == one.POSITION


def test_each_says_what_it_moves() -> None:
    assert config("capacitor").actuation() == Actuation("capacitor", "675", 0.1, 4)
    assert config("tap_changer").actuation() == Actuation("tap", "Substation")
    assert config("switch").actuation() == Actuation("switch", "Switch 671-692")
    assert config("pcc_breaker").actuation() == Actuation("pcc")


@pytest.mark.parametrize(("asked", "there"), [(2.4, 2.0), (2.6, 3.0), (9.0, 4.0), (-1.0, 0.0)])
def test_a_setpoint_is_kept_in_range_and_rounded_without_violation(asked: float, there: float) -> None:
    (position,), effect = step(device("capacitor"), (1.0,), asked)
    assert position == there
    assert effect.violation == 0.0


@pytest.mark.parametrize(("asked", "cost"), [(4.0, 6.0), (0.0, 2.0), (1.0, 0.0)])
def test_a_capacitor_pays_for_each_step_it_switches(asked: float, cost: float) -> None:
    # from step 1, 2 $ each
    (position,), effect = step(device("capacitor", switching_cost=2.0), (1.0,), asked)
    assert (position, effect.cost) == (asked, cost)
    assert effect[:2] == (0.0, 0.0)  # the shunt is in the network


@pytest.mark.parametrize(
    ("asked", "there", "cost", "violation"),
    # from 2 by at most 3, 1.5 $ each; a range of 16
    [(5.0, 5.0, 4.5, 0.0), (8.0, 5.0, 4.5, 3 / 16), (-8.0, -1.0, 4.5, 7 / 16), (3.0, 3.0, 1.5, 0.0)],
)
def test_a_tap_changer_is_cut_to_its_moves_and_the_rest_is_a_violation(
    asked: float, there: float, cost: float, violation: float
) -> None:
    (position,), effect = step(device("tap_changer", max_moves=3, tap_cost=1.5), (2.0,), asked)
    assert (position, effect.cost, effect.violation) == (there, cost, violation)


def test_a_switch_pays_to_open_and_to_close() -> None:
    one = device("switch", switching_cost=7.0)
    assert step(one, (1.0,), 0.0) == ((0.0,), (0.0, 0.0, 7.0, 0.0))
    assert step(one, (0.0,), 1.0) == ((1.0,), (0.0, 0.0, 7.0, 0.0))
    assert step(one, (0.0,), 0.0) == ((0.0,), (0.0, 0.0, 0.0, 0.0))


def test_a_breaker_stays_open_for_its_time_and_refuses_to_close_before() -> None:
    one = device("pcc_breaker", 0.25, min_open_h=0.75, switching_cost=7.0)
    state, effect = step(one, one.initial(), 0.0)
    # the step that opens it is the first of three quarters of an hour
    assert (state, effect) == ((0.0, 0.5), (0.0, 0.0, 7.0, 0.0))
    state, effect = step(one, state, 1.0)
    assert (state, effect) == ((0.0, 0.25), (0.0, 0.0, 0.0, 1.0))
    state, effect = step(one, state, 0.0)
    assert (state, effect) == ((0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
    assert step(one, state, 1.0) == ((1.0, 0.0), (0.0, 0.0, 7.0, 0.0))


@pytest.mark.parametrize(("kind", "state"), [("tap_changer", (5.0,)), ("switch", (0.0,)), ("pcc_breaker", (0.0, 0.5))])
def test_rules_leave_it_where_it_is(kind: str, state: tuple[float, ...]) -> None:
    assert device(kind).respond(state, (), MARKET) == state[:1]


@pytest.mark.parametrize(
    ("vm_pu", "before", "after"),
    [(0.96, 1.0, 2.0), (0.96, 4.0, 4.0), (1.0, 1.0, 1.0), (1.04, 1.0, 0.0), (1.04, 0.0, 0.0), (0.0, 2.0, 2.0)],
)
def test_by_itself_a_capacitor_steps_with_the_voltage_at_its_bus(vm_pu: float, before: float, after: float) -> None:
    assert device("capacitor").respond((before,), (vm_pu,), MARKET) == (after,)


@pytest.mark.parametrize(
    ("kind", "parameters", "text"),
    [
        ("capacitor", {"q_mvar_per_step": 0.0}, "q_mvar_per_step"),
        ("capacitor", {"steps": 0}, "steps"),
        ("capacitor", {"step_init": 5}, "step_init 5 is above steps 4"),
        ("capacitor", {"max_moves": 0}, "max_moves"),
        ("capacitor", {"vm_min_pu": 1.03}, "vm_min_pu 1.03 is not below vm_max_pu 1.03"),
        ("tap_changer", {"tap_min": 8}, "tap_min 8 is not below tap_max 8"),
        ("tap_changer", {"tap_init": 9}, "tap_init 9 is outside its range, -8 to 8"),
        ("tap_changer", {"tap_max": 1.5}, "tap_max"),
        ("tap_changer", {"tap_cost": -1.0}, "tap_cost"),
        ("switch", {"closed_init": 3}, "closed_init"),
        ("switch", {"bus": "675"}, "bus"),
        ("pcc_breaker", {"min_open_h": -1.0}, "min_open_h"),
        ("pcc_breaker", {"element": "x"}, "element"),
    ],
)
def test_a_config_that_cannot_be_is_refused(kind: str, parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        config(kind, **parameters)
