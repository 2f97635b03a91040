"""A device agent does what its grid says, once a step, and tells what it did."""

from __future__ import annotations

from typing import Any

import pytest

from zgrid.agents import DeviceAgent, DeviceSpec
from zgrid.devices import device_class
from zgrid.messages import Action, DeviceState, Envelope, Peer, Reset, Setpoint
from zgrid.post import Post

BATTERY = {"kind": "storage", "bus": "645", "p_max_mw": 0.5, "s_rated_mva": 0.6, "capacity_mwh": 2.0,
           "eta_charge": 0.9, "eta_discharge": 0.8, "wear_cost": 5.0}  # fmt: skip
SOLAR = {"kind": "renewable", "bus": "652", "availability": "solar", "p_max_mw": 0.4, "s_rated_mva": 0.5}


def agent(raw: dict[str, Any] = BATTERY) -> DeviceAgent:
    config = device_class(raw["kind"]).Config.model_validate(raw)
    return DeviceAgent(DeviceSpec("mg_1.ess_1", "mg_1", config, 0.25))


def envelope(step: int, body: Any) -> Envelope:
    return Envelope("mg_1", "run", 0, step, step, 0, 0, body)


def test_it_hears_its_grid_and_nobody_else() -> None:
    assert agent().hears == {"reset/mg_1.ess_1/": {"mg_1"}, "setpoint/mg_1.ess_1/": {"mg_1"}}


def test_a_reset_gives_the_initial_state_and_no_power() -> None:
    assert agent().reset() == DeviceState(0.0, 0.0, 0.0, 0.0, (0.5,))


def test_a_setpoint_moves_the_state_and_is_answered_with_what_was_done() -> None:
    one = agent()
    one.reset()
    # 0.4 MW into the store for 0.25 h: 0.4 x 0.25 x 0.9 / 2 = 0.045; wear 0.1 MWh x 5 $/MWh
    state = one.apply(Setpoint((-0.4, 0.0), ()))
    assert state[:4] == pytest.approx((-0.4, 0.0, 0.5, 0.0), rel=1e-12)
    assert state.state == pytest.approx((0.545,), rel=1e-12)
    assert one.apply(Setpoint((0.0, 0.0), ())).state == state.state


def test_the_series_of_a_setpoint_reach_the_physics() -> None:
    assert agent(SOLAR).apply(Setpoint((0.4, 0.0), (0.5,))).p_mw == 0.2


def test_messages_move_it_exactly_as_calls_do() -> None:
    told, called = agent(), agent()
    setpoints = [Setpoint((p, 0.1), ()) for p in (0.3, -0.5, 0.17, 0.5, -0.01)]
    answers = [told.receive(envelope(1, Reset(7)))]
    answers += [told.receive(envelope(step, setpoint)) for step, setpoint in enumerate(setpoints, 2)]
    states = [called.reset(), *(called.apply(setpoint) for setpoint in setpoints)]
    assert answers == [[Post("state/mg_1.ess_1/", step, 0, state)] for step, state in enumerate(states, 1)]


def test_a_reset_makes_it_forget_the_last_episode() -> None:
    one = agent()
    one.receive(envelope(1, Reset(7)))
    first = one.receive(envelope(2, Setpoint((0.3, 0.0), ())))[0].body
    one.receive(envelope(3, Reset(7)))
    assert one.receive(envelope(4, Setpoint((0.3, 0.0), ())))[0].body == first


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_late_or_repeated_message_is_counted_and_changes_nothing(step: int) -> None:
    one, undisturbed = agent(), agent()
    for each in (one, undisturbed):
        each.receive(envelope(1, Reset(7)))
        each.receive(envelope(2, Setpoint((0.3, 0.0), ())))
    assert one.receive(envelope(step, Setpoint((-0.5, 0.0), ()))) == []
    assert one.receive(envelope(step, Reset(8))) == []
    assert one.refused == {"stale mg_1": 2}
    coming = envelope(3, Setpoint((0.1, 0.0), ()))
    assert one.receive(coming) == undisturbed.receive(coming)


@pytest.mark.parametrize("body", [Action((0.1,)), Peer((0.1,)), DeviceState(0.1, 0.0, 0.0, 0.0, ())])
def test_a_message_that_is_not_for_devices_is_counted_and_changes_nothing(body: Any) -> None:
    one, undisturbed = agent(), agent()
    for each in (one, undisturbed):
        each.receive(envelope(1, Reset(7)))
    assert one.receive(envelope(2, body)) == []
    assert one.refused == {"unexpected mg_1": 1}
    coming = envelope(2, Setpoint((0.1, 0.0), ()))
    assert one.receive(coming) == undisturbed.receive(coming)
