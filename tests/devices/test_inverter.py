"""Volt-var and volt-watt, against the points of their curves and steps worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from zgrid.devices import ARRAYS, FLOATS, Effect
from zgrid.devices.inverter import piecewise
from zgrid.devices.renewable import SmartRenewable, SmartRenewableConfig
from zgrid.devices.storage import SmartStorage, SmartStorageConfig

VOLT_VAR = ((0.92, 0.44), (0.98, 0.0), (1.02, 0.0), (1.08, -0.44))


def plant(control_mode: str, **parameters: Any) -> SmartRenewable:
    raw = {"kind": "smart_renewable", "bus": "b", "availability": 1.0, "p_max_mw": 0.3, "s_rated_mva": 0.5}
    return SmartRenewable.one(
        SmartRenewableConfig.model_validate({**raw, "control_mode": control_mode, **parameters}), 1.0
    )


def battery(control_mode: str, **parameters: Any) -> SmartStorage:
    raw = {"kind": "smart_storage", "bus": "b", "p_max_mw": 0.3, "s_rated_mva": 0.5, "capacity_mwh": 2.0}
    raw |= {"eta_charge": 1.0, "eta_discharge": 1.0, "control_mode": control_mode}
    return SmartStorage.one(SmartStorageConfig.model_validate({**raw, **parameters}), 1.0)


def at(one: Any, vm_pu: float, p_mw: float = 0.0, q_mvar: float = 0.0, state: Any = None) -> tuple[Any, Effect]:
    series = (1.0, vm_pu) if one.SERIES else (vm_pu,)
    result: tuple[Any, Effect] = one.step(one.initial() if state is None else state, (p_mw, q_mvar), series)
    return result


@pytest.mark.parametrize(
    ("vm_pu", "q_pu"),
    [
        (0.5, 0.44),
        (0.92, 0.44),
        (0.95, 0.22),
        (0.98, 0.0),
        (1.0, 0.0),
        (1.02, 0.0),
        (1.05, -0.22),
        (1.08, -0.44),
        (1.5, -0.44),
    ],
)
def test_a_curve_is_linear_between_its_points_and_flat_beyond(vm_pu: float, q_pu: float) -> None:
    assert piecewise(FLOATS, vm_pu, VOLT_VAR) == pytest.approx(q_pu, abs=1e-12)
    assert piecewise(ARRAYS, np.array([vm_pu]), VOLT_VAR)[0] == piecewise(FLOATS, vm_pu, VOLT_VAR)


def test_a_curve_without_dead_band_may_have_two_points_at_one_voltage() -> None:
    category_a = ((0.9, 0.25), (1.0, 0.0), (1.0, 0.0), (1.1, -0.25))
    assert [piecewise(FLOATS, vm, category_a) for vm in (0.95, 1.0, 1.05)] == pytest.approx([0.125, 0.0, -0.125])


@pytest.mark.parametrize("make", [plant, battery])
@pytest.mark.parametrize(("response", "q_mvar"), [(1.0, -0.11), (0.5, -0.055), (0.1, -0.011)])
def test_volt_var_goes_a_share_of_the_way_to_its_curve(make: Any, response: float, q_mvar: float) -> None:
    # at 1.05 pu the curve says -0.22 x 0.5 MVA = -0.11 Mvar
    state, effect = at(make("volt_var", response=response), 1.05)
    assert effect.q_mvar == pytest.approx(q_mvar, rel=1e-9)
    assert state[1] == effect.q_mvar


@pytest.mark.parametrize("make", [plant, battery])
def test_volt_var_goes_on_from_the_last_reactive_power(make: Any) -> None:
    one = make("volt_var")
    state, _ = at(one, 1.05)
    # half way from -0.055 to -0.11, then half way to 0
    state, effect = at(one, 1.05, state=state)
    assert effect.q_mvar == pytest.approx(-0.0825, rel=1e-9)
    assert at(one, 1.0, state=state)[1].q_mvar == pytest.approx(-0.04125, rel=1e-9)


@pytest.mark.parametrize("make", [plant, battery])
def test_a_dead_bus_gets_no_reactive_power(make: Any) -> None:
    one = make("volt_var_watt")
    state, _ = at(one, 1.05)
    state, effect = at(one, 0.0, state=state)
    assert (effect.q_mvar, state[1]) == (0.0, 0.0)


@pytest.mark.parametrize("make", [plant, battery])
def test_volt_var_stays_in_the_circle_and_is_no_violation(make: Any) -> None:
    # 0.44 x 0.32 = 0.1408 is more than sqrt(0.32^2 - 0.3^2) = 0.11136
    _, effect = at(make("volt_var", response=1.0, s_rated_mva=0.32), 0.9, p_mw=0.3)
    assert effect.p_mw == 0.3
    assert effect.q_mvar == pytest.approx(0.0124**0.5, rel=1e-9)
    assert effect.violation == 0.0


@pytest.mark.parametrize("make", [plant, battery])
def test_volt_var_does_not_listen_to_the_action(make: Any) -> None:
    one = make("volt_var", q_control=True)
    assert at(one, 1.0, q_mvar=0.4)[1].q_mvar == 0.0
    assert [control.name for control in one.controls(one._configs[0])] == ["p_mw"]


@pytest.mark.parametrize("control_mode", ["none", "volt_watt"])
@pytest.mark.parametrize("make", [plant, battery])
def test_without_volt_var_the_action_sets_the_reactive_power(make: Any, control_mode: str) -> None:
    one = make(control_mode, q_control=True)
    assert at(one, 1.08, q_mvar=0.4)[1].q_mvar == 0.4
    assert [control.name for control in one.controls(one._configs[0])] == ["p_mw", "q_mvar"]


@pytest.mark.parametrize(("vm_pu", "p_mw"), [(1.05, 0.3), (1.06, 0.3), (1.08, 0.18), (1.1, 0.06), (1.2, 0.06)])
def test_volt_watt_limits_what_is_fed_in(vm_pu: float, p_mw: float) -> None:
    # at 1.08 pu 60 %, from 1.1 pu on 20 % of 0.3 MW
    _, effect = at(plant("volt_watt", response=1.0, curtailment_cost=10.0), vm_pu, p_mw=0.3)
    assert effect.p_mw == pytest.approx(p_mw, rel=1e-9)
    assert effect.cost == pytest.approx(10.0 * (0.3 - p_mw), abs=1e-9)
    assert effect.violation == 0.0


@pytest.mark.parametrize(
    ("vm_pu", "asked", "p_mw"),
    [(1.08, 0.3, 0.15), (1.1, 0.3, 0.0), (1.1, -0.3, -0.3), (1.06, 0.3, 0.3), (0.0, 0.3, 0.3)],
)
def test_volt_watt_lets_a_battery_charge_but_not_discharge(vm_pu: float, asked: float, p_mw: float) -> None:
    _, effect = at(battery("volt_watt", response=1.0), vm_pu, p_mw=asked)
    assert effect.p_mw == pytest.approx(p_mw, abs=1e-12)
    assert effect.violation == 0.0


def test_volt_watt_goes_a_share_of_the_way_too() -> None:
    # half way from 100 % to 20 % is 60 %, then 40 %
    one = plant("volt_watt")
    state, effect = at(one, 1.1, p_mw=0.3)
    assert effect.p_mw == pytest.approx(0.18, rel=1e-9)
    assert at(one, 1.1, p_mw=0.3, state=state)[1].p_mw == pytest.approx(0.12, rel=1e-9)


@pytest.mark.parametrize(
    ("response", "fades"),
    # k = 0.44 x 0.5 / 0.06 = 3.667 Mvar/pu, x = 0.4 pu/Mvar: k x = 1.467; stable below 2 / 2.467 = 0.81
    [(0.3, True), (0.8, True), (0.82, False), (1.0, False)],
)
def test_the_loop_is_stable_where_the_documented_bound_says(response: float, fades: bool) -> None:
    one = plant("volt_var", response=response)
    v0, x = 1.07, 0.4
    settled = -(v0 - 1.02) * 3.6666666666666665 / (1.0 + 3.6666666666666665 * x)
    state = (0.0, settled + 1e-6, 1.0)
    for _ in range(60):
        state, _ = at(one, v0 + x * state[1], state=state)
    assert (abs(state[1] - settled) < 1e-6) == fades


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"control_mode": "watt_var"}, "control_mode"),
        ({"response": 0.0}, "response"),
        ({"response": 1.1}, "response"),
        ({"volt_var": [[0.98, 0.4], [0.92, 0.0], [1.02, 0.0], [1.08, -0.4]]}, "volt_var: expected voltages"),
        (
            {"volt_var": [[0.92, -0.4], [0.98, 0.0], [1.02, 0.0], [1.08, 0.4]]},
            "volt_var: expected values that do not rise",
        ),
        ({"volt_var": [[0.92, 0.4], [0.98, 0.0]]}, "volt_var"),
        ({"volt_watt": [[1.06, 1.2], [1.1, 0.2]]}, "volt_watt: expected values from 0 to 1"),
        ({"volt_watt": [[1.06, 1.0], [1.1, -0.2]]}, "volt_watt: expected values from 0 to 1"),
    ],
)
def test_a_config_that_cannot_be_is_refused(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        plant(**{"control_mode": "volt_var", **parameters})
