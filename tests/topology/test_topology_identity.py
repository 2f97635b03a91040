"""A topology is a value: frozen, equal after a trip through JSON, and with a hash of what agents must agree on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import GENERATOR, RENEWABLE, STORAGE, small_topology
from pydantic import ValidationError

from zgrid.devices import DEVICES, device_class
from zgrid.topology import Topology, load

LOAD = {"kind": "load", "bus": "675", "demand": "load_1", "p_mw": 0.1}
DEVICES_BY_KIND = {
    "capacitor": {"kind": "capacitor", "bus": "675", "q_mvar_per_step": 0.1, "steps": 4},
    "ev_charger": {"kind": "ev_charger", "bus": "675", "p_max_mw": 0.01},
    "flexible_load": {**LOAD, "kind": "flexible_load", "shift_max_mw": 0.1, "backlog_max_mwh": 0.2},
    "generator": GENERATOR,
    "grid_tie": {
        "kind": "grid_tie", "bus": "675", "import_limit_mw": 0.1, "export_limit_mw": 0.1, "s_rated_mva": 0.2,
        "price": "price",
    },
    "load": LOAD,
    "pcc_breaker": {"kind": "pcc_breaker"},
    "renewable": RENEWABLE,
    "smart_renewable": {**RENEWABLE, "kind": "smart_renewable"},
    "smart_storage": {**STORAGE, "kind": "smart_storage"},
    "storage": STORAGE,
    "switch": {"kind": "switch", "element": "Switch 671-692"},
    "shunt": {"kind": "shunt", "element": "C83", "steps": 2},
    "tap_changer": {
        "kind": "tap_changer", "element": "Substation", "tap_min": -1, "tap_max": 2, "tap_init": 0,
    },
}  # fmt: skip
CONTACT = {"closed_init": False, "switching_cost": 1.0}
LOCAL_CONTROL = {
    "control_mode": "volt_var", "response": 0.4, "volt_var": [[0.9, 0.4], [0.98, 0.0], [1.02, 0.0], [1.08, -0.4]],
    "volt_watt": [[1.05, 1.0], [1.1, 0.1]],
}  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "generator": {
        "bus": "652", "p_min_mw": 0.1, "p_max_mw": 0.61, "s_rated_mva": 1.1, "q_control": False, "q_min_mvar": -0.2,
        "q_max_mvar": 0.2, "min_power_factor": 0.9, "cost_a": 1.0, "cost_b": 1.0, "cost_c": 1.0,
        "cost_points": [[0.0, 0.0], [0.6, 9.0]], "ramp_mw_per_h": 0.1, "commitment": True, "start_time_h": 1.0,
        "stop_time_h": 1.0, "start_cost": 1.0, "stop_cost": 1.0,
    },
    "renewable": {
        "bus": "675", "availability": "wind", "p_max_mw": 0.31, "s_rated_mva": 0.34, "q_control": True,
        "curtailment_cost": 1.0, "limited_by": "rating",
    },
    "storage": {
        "bus": "675", "p_max_mw": 0.31, "s_rated_mva": 0.41, "capacity_mwh": 1.1, "soc_min": 0.11, "soc_max": 0.9,
        "soc_init": 0.6, "eta_charge": 0.96, "eta_discharge": 0.96, "wear_cost": 1.0, "q_control": True,
    },
    "load": {"bus": "652", "demand": "load_2", "p_mw": 0.2, "q_mvar": 0.1, "scale": 2.0},
    "capacitor": {
        "bus": "652", "q_mvar_per_step": 0.2, "steps": 3, "step_init": 1, "switching_cost": 1.0, "max_moves": 1,
        "vm_min_pu": 0.96, "vm_max_pu": 1.04,
    },
    "ev_charger": {
        "bus": "652", "p_max_mw": 0.02, "eta": 0.9, "seed": 1, "days_with_car": 0.5, "arrival_h": {"mean": 8.0},
        "stay_h": {"mean": 8.0}, "energy_mwh": {"mean": 0.05}, "missed_cost": 1.0,
    },
    "flexible_load": {
        "bus": "652", "demand": "load_2", "p_mw": 0.2, "q_mvar": 0.1, "power_factor": 0.9, "shed_max": 0.1,
        "shed_cost": 1.0, "shift_max_mw": 0.2, "backlog_max_mwh": 0.1, "recover_h": 2.0, "shift_cost": 1.0,
        "waiting_cost": 1.0,
    },
    "grid_tie": {
        "bus": "652", "import_limit_mw": 0.2, "export_limit_mw": 0.2, "s_rated_mva": 0.3, "price": 30.0,
        "sell_discount": 0.9, "q_control": True,
    },
    "switch": {"element": "Switch 1", **CONTACT},
    "pcc_breaker": {"min_open_h": 1.0, **CONTACT},
    "shunt": {"element": "C88", "steps": 3, "step_init": 1, "switching_cost": 1.0, "max_moves": 1},
    "tap_changer": {
        "element": "Regulator", "tap_min": -2, "tap_max": 1, "tap_init": 1, "tap_cost": 1.0, "max_moves": 2,
    },
}  # fmt: skip
CHANGES["smart_renewable"] = {**CHANGES["renewable"], **LOCAL_CONTROL}
CHANGES["smart_storage"] = {**CHANGES["storage"], **LOCAL_CONTROL}
for _kind in CHANGES:
    CHANGES[_kind] |= {"on_failure": "fallback", "watchdog_s": 2.0, "safe": {device_class(_kind).SETPOINT[0]: 0.25}}
WHERE_AND_HOW: dict[str, Any] = {"run": "external", "host": "127.0.0.2"}


def with_device(device: dict[str, Any]) -> Topology:
    """The small topology and one more device, which may name what its network does not have."""
    content = small_topology()
    content["grids"]["mg_1"]["devices"]["extra_1"] = device
    return load(content, checked=False)


def base_of(kind: str, parameter: str) -> dict[str, Any]:
    """A device to change: one without quadratic cost where the cost is to become piecewise linear."""
    device = dict(DEVICES_BY_KIND[kind])
    return {k: v for k, v in device.items() if not (parameter == "cost_points" and k.startswith("cost_"))}


class TestFrozen:
    @pytest.mark.parametrize("key", ["dt_h", "name", "grids"])
    def test_a_topology(self, key: str) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(load(small_topology()), key, 1)

    def test_its_sections_and_devices(self) -> None:
        topology = load(small_topology())
        grid = topology.grids["mg_1"]
        for section in (topology.broker, topology.reward, topology.policy, grid, grid.network, grid.devices["dg_1"]):
            with pytest.raises(ValidationError, match="frozen"):
                section.kind = "other"  # type: ignore[union-attr]


class TestJson:
    @pytest.mark.parametrize("checked", [True, False])
    def test_gives_an_equal_topology(self, checked: bool) -> None:
        content = small_topology(3) | {"horizontal": {"kind": "average_consensus", "rounds": 4}}
        content["grids"]["mg_2"] |= {"policy": "random", "reward": {"kind": "reference", "penalty": 3.0}}
        content["grids"]["mg_3"]["devices"]["load_1"] = LOAD
        topology = load(content)
        again = load(json.loads(topology.model_dump_json()), checked=checked)
        assert again == topology
        assert again.hash() == topology.hash()
        assert again.device_specs == topology.device_specs
        assert list(again.runs()) == list(topology.runs())

    def test_keeps_the_class_and_parameters_of_every_kind(self) -> None:
        topology = load(small_topology())
        again = load(json.loads(topology.model_dump_json()))
        for name, device in topology.grids["mg_1"].devices.items():
            assert type(again.grids["mg_1"].devices[name]) is type(device)
        assert again.grids["mg_1"].devices["ess_1"].capacity_mwh == 1.0


class TestHash:
    def test_is_64_hexadecimal_digits_and_repeats(self) -> None:
        digest = load(small_topology()).hash()
        assert len(bytes.fromhex(digest)) == 32
        assert digest == load(small_topology()).hash()

    @pytest.mark.parametrize(
        "overrides",
        [
            {"centralized": True},
            {"message_broker": "in_memory"},
            {"broker": {"host": "127.0.0.2", "ports": [5555, 5556], "ready_timeout_s": 9.0}},
            {"grids.*.run": "inline"},
            {"grids.*.devices.dg_1.run": "external"},
            {"grids.*.host": "127.0.0.2"},
            {"placement": "grid"},
            {"placement": {"pool": 2}},
            {"broker.on_failure": "restart", "broker.silence_s": 3.0},
            {"name": "other"},
            {"seed": 7},
            {"episode_steps": 5},
        ],
        ids=str,
    )
    def test_ignores_where_and_how_it_runs(self, overrides: dict[str, Any]) -> None:
        assert load(small_topology(), overrides).hash() == load(small_topology()).hash()

    @pytest.mark.parametrize(
        "overrides",
        [
            {"dt_h": 0.5},
            {"reward.penalty": 5.0},
            {"policy": "idle"},
            {"grids.mg_2.policy": "idle"},
            {"grids.mg_1.reward": "reference"},
            {"horizontal": "average_consensus"},
            {"grids.mg_1.price": 30.0},
            {"grids.mg_1.neighbours": [], "grids.mg_2.neighbours": []},
            {"grids.mg_1.devices.extra_1": LOAD},
            {"grids.mg_1.on_failure": "fallback"},
            {"grids.mg_1.on_failure": {"hold_steps": 2}},
            {"links": [{"loss": 0.1}]},
        ],
        ids=str,
    )
    def test_changes_with_what_agents_must_agree_on(self, overrides: dict[str, Any]) -> None:
        assert load(small_topology(2), overrides).hash() != load(small_topology(2)).hash()

    def test_is_tested_with_every_parameter_of_every_kind(self) -> None:
        assert CHANGES.keys() == DEVICES.keys()
        for kind, changes in CHANGES.items():
            assert changes.keys() | WHERE_AND_HOW.keys() | {"kind"} == device_class(kind).Config.model_fields.keys()

    @pytest.mark.parametrize(("kind", "parameter"), [(kind, key) for kind, keys in CHANGES.items() for key in keys])
    def test_changes_with_any_parameter_of_a_device(self, kind: str, parameter: str) -> None:
        base = base_of(kind, parameter)
        changed = base | {parameter: CHANGES[kind][parameter]}
        assert with_device(changed).hash() != with_device(base).hash()

    @pytest.mark.parametrize("kind", CHANGES)
    def test_ignores_where_and_how_a_device_runs(self, kind: str) -> None:
        base = DEVICES_BY_KIND[kind]
        for key, value in WHERE_AND_HOW.items():
            assert with_device(base | {key: value}).hash() == with_device(base).hash()

    def test_changes_with_the_order_of_the_devices(self) -> None:
        turned = small_topology()
        turned["grids"]["mg_1"]["devices"] = dict(reversed(turned["grids"]["mg_1"]["devices"].items()))
        assert load(turned).hash() != load(small_topology()).hash()


class TestPlacement:
    def test_names_devices_grid_by_grid_and_then_grids_in_the_order_of_the_file(self) -> None:
        content = small_topology(2)
        content["grids"]["mg_1"]["devices"] = dict(reversed(content["grids"]["mg_1"]["devices"].items()))
        assert list(load(content).runs()) == [
            *("mg_1.ess_1", "mg_1.pv_1", "mg_1.dg_1", "mg_2.dg_1", "mg_2.pv_1", "mg_2.ess_1", "mg_1", "mg_2")
        ]

    def test_says_where_each_agent_runs(self) -> None:
        content = small_topology()
        content["grids"]["mg_1"]["run"] = "inline"
        content["grids"]["mg_1"]["devices"]["pv_1"]["run"] = "external"
        assert load(content).runs() == {
            "mg_1.dg_1": "process",
            "mg_1.pv_1": "external",
            "mg_1.ess_1": "process",
            "mg_1": "inline",
        }


def test_the_mode_is_centralized_or_the_broker() -> None:
    modes = [
        load(small_topology(), {"centralized": centralized, "message_broker": broker}).mode
        for centralized in (True, False)
        for broker in ("in_memory", "zmq")
    ]
    assert modes == ["centralized", "centralized", "in_memory", "zmq"]


def test_specs_follow_the_order_of_the_file_and_fall_back_to_the_topology() -> None:
    content = small_topology(2) | {"dt_h": 0.5}
    content["grids"]["mg_2"]["policy"] = "idle"
    one, two = load(content).grid_specs
    assert (one.id, one.policy.kind) == ("mg_1", "rule_based")
    assert (two.id, two.policy.kind) == ("mg_2", "idle")
    assert [device.id for device in two.devices] == ["mg_2.dg_1", "mg_2.pv_1", "mg_2.ess_1"]
    assert {device.dt_h for device in (*one.devices, *two.devices)} == {0.5}


def test_series_names_what_is_in_use_and_no_constants() -> None:
    content = small_topology(2)
    content["grids"]["mg_1"]["price"] = 30.0
    content["grids"]["mg_1"]["devices"]["load_1"] = LOAD | {"demand": "load_3"}
    assert load(content).series() == {"price", "load_1", "load_3", "solar"}
