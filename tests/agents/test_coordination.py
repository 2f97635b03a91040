"""What a protocol's result changes: setpoints, reactive power, planned exchange and money; worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zgrid.agents import GridAgent
from zgrid.agents.coordination import Coordination, net_bought_mwh, settled, trade_cost
from zgrid.agents.reward import reward_class
from zgrid.agents.spec import DeviceSpec, GridSpec
from zgrid.devices import device_class
from zgrid.messages import DeviceState, NetworkState
from zgrid.policies import policy_class
from zgrid.policies.base import Actor
from zgrid.protocols import Participant, Result, Trade, Unit, vertical_class
from zgrid.protocols.base import TradingConfig

DEVICES: dict[str, dict[str, Any]] = {
    "dg_1": {"kind": "generator", "bus": "675", "p_max_mw": 0.5, "s_rated_mva": 0.6, "cost_a": 100.0, "cost_b": 60.0},
    "pv_1": {"kind": "renewable", "bus": "652", "availability": "solar", "p_max_mw": 0.4, "s_rated_mva": 0.5,
             "q_control": True},
}  # fmt: skip
WANTED = [(0.2, 0.0, 1.0), (0.3, 0.0)]
SERIES = [(), (0.6,)]


def spec(**horizontal: Any) -> GridSpec:
    devices = tuple(
        DeviceSpec(f"mg_1.{key}", "mg_1", device_class(raw["kind"]).Config.model_validate(raw), 0.5)
        for key, raw in DEVICES.items()
    )
    config = TradingConfig.model_validate({"kind": "test", **horizontal})
    return GridSpec(
        "mg_1", 0.5, devices, reward_class("economic").Config(), policy_class("idle").Config(),
        vertical_class("setpoint").Config(), config, Participant("mg_1", {"mg_2": 0.5}, size=2, diameter=1),
    )  # fmt: skip


def network(load_pu: float, p_pcc_mw: float = 0.4, converged: bool = True) -> NetworkState:
    measured = np.array([1.0, 0.98, float("nan")])
    series = (80.0, 40.0, 70.0, load_pu, 0.6)
    return NetworkState(converged, (3, 0, 0), measured, p_pcc_mw, 0.0, 0.0, 0.0, (1.0, 1.0), series, (0.0, 1.0))


def states(dg_mw: float = 0.1, pv_mw: float = 0.2) -> list[DeviceState]:
    return [DeviceState(dg_mw, 0.0, 0.0, 0.0, (dg_mw, 2.0, 0.0)), DeviceState(pv_mw, 0.0, 0.0, 0.0, ())]


def coordination(**horizontal: Any) -> Coordination:
    made = spec(**horizontal)
    actors = [
        Actor(device.build(), device.controls, tuple(device_class(device.config.kind).SETPOINT.index(c.name)
                                                     for c in device.controls))
        for device in made.devices
    ]  # fmt: skip
    return Coordination(made, actors)


def test_the_load_of_the_coming_step_is_that_of_the_last_scaled_by_its_series() -> None:
    one = coordination()
    one.learn(states(), network(0.5), SERIES)
    # 0.4 imported + 0.1 + 0.2 generated
    assert one.local(WANTED).values["load_mw"] == pytest.approx(0.7)
    one.learn(states(), network(0.6), SERIES)
    assert one.local(WANTED).values["load_mw"] == pytest.approx(0.7 * 0.6 / 0.5)
    one.learn(
        states(), network(0.3, p_pcc_mw=99.0, converged=False), SERIES
    )  # nothing is learned of a step without solution
    assert one.local(WANTED).values["load_mw"] == pytest.approx(0.7 * 0.3 / 0.5)


def test_the_local_problem_has_units_position_and_prices() -> None:
    one = coordination()
    one.learn(states(), network(0.5), SERIES)
    local = one.local(WANTED)
    assert local.units == (Unit("mg_1.dg_1", 0.0, 0.5, 100.0, 60.0, 0.0),)
    assert local.demand_mw == 0.2  # what the action asks of the unit
    assert local.values["position_mw"] == pytest.approx(0.5 - 0.7)
    assert (local.values["price"], local.values["feed_in_price"]) == (80.0, 72.0)  # sell_discount 0.9
    assert local.values["vm_mean_pu"] == pytest.approx(0.99)  # the dead bus does not count
    assert local.dt_h == 0.5


def test_a_dispatch_replaces_the_active_power_of_its_unit_alone() -> None:
    one = coordination()
    one.learn(states(), network(0.5), SERIES)
    assert one.change(WANTED, Result(dispatch_mw={"mg_1.dg_1": 0.35})) == [(0.35, 0.0, 1.0), (0.3, 0.0)]


def test_a_share_of_reactive_power_goes_to_those_that_can_set_it() -> None:
    one = coordination()
    one.learn(states(), network(0.5), SERIES)
    assert one.change(WANTED, Result(q_pu=0.5)) == [(0.2, 0.0, 1.0), (0.3, 0.25)]
    assert one.change(WANTED, Result(q_pu=-0.5)) == [(0.2, 0.0, 1.0), (0.3, -0.25)]


def test_feeding_in_more_than_was_sold_is_cut_in_proportion() -> None:
    one = coordination(untraded_mw=0.0)
    one.learn(states(), network(0.5, p_pcc_mw=-0.1), SERIES)  # a load of 0.2
    # 0.5 wanted, 0.2 load, 0.1 MW sold (0.05 MWh in half an hour): 0.2 MW too much, of 0.5 two fifths
    sold = Result(trades=(Trade("mg_1", "mg_2", 0.05, 75.0),))
    (dg, _, _), (pv, _) = one.change(WANTED, sold)
    assert (dg, pv) == (pytest.approx(0.12), pytest.approx(0.18))


def test_buying_too_little_raises_units_as_far_as_they_reach() -> None:
    one = coordination(untraded_mw=0.1)
    one.learn(states(), network(0.5), SERIES)  # a load of 0.7, 0.5 wanted
    (dg, _, _), (pv, _) = one.change(WANTED, Result())
    assert (dg, pv) == (pytest.approx(0.3), 0.3)
    one.learn(states(), network(1.0), SERIES)  # a load of 1.4: the unit ends at its limit
    (dg, _, _), (pv, _) = one.change(WANTED, Result())
    assert (dg, pv) == (0.5, 0.3)


def test_trades_are_paid_and_billed_once() -> None:
    trades = (Trade("mg_1", "mg_2", 0.2, 70.0, 0.1), Trade("mg_3", "mg_1", 0.05, 60.0, 0.2))
    assert net_bought_mwh("mg_1", trades) == pytest.approx(-0.15)
    assert trade_cost("mg_1", trades) == pytest.approx(-14.0 + 3.0 + 0.3)
    # what was sold to a neighbour is not sold to the utility: 0.4 MW imported + 0.3 MW sold are bought there
    assert settled(network(0.5), -0.15, 0.5).p_pcc_mw == pytest.approx(0.7)


def test_a_grid_without_a_protocol_keeps_its_setpoints_and_terms() -> None:
    plain = spec()
    alone = GridSpec(*(getattr(plain, name) for name in ("id", "dt_h", "devices", "reward", "policy", "vertical")),
                     None, Participant("mg_1"))  # fmt: skip
    assert "trade_cost" not in alone.term_names
    assert GridAgent(alone).begin(1, (0.0, 0.0, 0.0)) == {}
