"""Each kind really acts on the network of its grid, seen from outside through the environment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest
from conftest import GENERATOR, RENEWABLE, STORAGE, small_topology

import zgrid
from zgrid.devices import DEVICES
from zgrid.devices.inverter import piecewise

PRICE = 30.0
DIESEL = {**GENERATOR, "commitment": True}  # so that idle turns it off
CAPACITOR = {"kind": "capacitor", "bus": "675", "q_mvar_per_step": 0.1, "steps": 4, "switching_cost": 2.0}
TAPS = {"kind": "tap_changer", "element": "Substation", "tap_min": -2, "tap_max": 2, "tap_init": 0, "tap_cost": 3.0}
SWITCH = {"kind": "switch", "element": "Switch 671-692"}
BREAKER = {"kind": "pcc_breaker"}
TIE = {
    "kind": "grid_tie",
    "bus": "680",
    "import_limit_mw": 0.5,
    "export_limit_mw": 0.5,
    "s_rated_mva": 0.6,
    "price": 40,
}
FLEXIBLE = {
    "kind": "flexible_load", "bus": "634", "demand": 1.0, "p_mw": 0.2, "power_factor": 0.9, "shed_max": 0.5,
    "shift_max_mw": 0.1, "backlog_max_mwh": 0.3, "recover_h": 4.0,
}  # fmt: skip
CHARGER = {
    "kind": "ev_charger", "bus": "634", "p_max_mw": 0.1, "arrival_h": {"mean": 1.5}, "stay_h": {"mean": 4.0},
    "energy_mwh": {"mean": 0.15},
}  # fmt: skip
SMART_PV = {**RENEWABLE, "kind": "smart_renewable", "bus": "675", "availability": 1.0, "s_rated_mva": 1.0}
ALL_KINDS = {
    "dg_1": DIESEL, "pv_1": RENEWABLE, "ess_1": STORAGE, "cap_1": CAPACITOR, "oltc_1": TAPS, "sw_1": SWITCH,
    "pcc_1": {**BREAKER, "min_open_h": 2.0}, "tie_1": {**TIE, "price": "price", "q_control": True},
    "flex_1": {**FLEXIBLE, "demand": "load_1"}, "ev_1": {**CHARGER, "arrival_h": {"mean": 8.0, "std": 3.0}},
    "load_1": {"kind": "load", "bus": "646", "demand": "load_2", "p_mw": 0.1},
    "pv_2": {**SMART_PV, "availability": "solar", "control_mode": "volt_var_watt"},
    "ess_2": {**STORAGE, "kind": "smart_storage", "bus": "652", "control_mode": "volt_var"},
}  # fmt: skip


class Played:
    """One grid on constants, whose devices idle unless they are told a setpoint."""

    def __init__(self, env: zgrid.NetworkedGridEnv) -> None:
        self.env = env
        (spec,) = env.topology.grid_specs
        self.controls = {f"{device.split('.')[1]}.{one.name}": one for device, one in spec.controls}
        self.names = env.observation_names("mg_1")
        self.seen, _ = env.reset(seed=1)

    def step(self, setpoints: Mapping[str, float] | None = None) -> dict[str, float]:
        """The snapshot of a step in which these controls have these values."""
        told = {name: one.idle for name, one in self.controls.items()} | dict(setpoints or {})
        action = [self.controls[name].unscale(value) for name, value in told.items()]
        self.seen, *_ = self.env.step({"mg_1": np.array(action)})
        return {name.removeprefix("mg_1."): value for name, value in self.env.snapshot().items()}

    def vm_pu(self, bus: str) -> float:
        """What the grid sees of a voltage."""
        return float(self.seen["mg_1"][self.names.index(f"vm_pu[{bus}]")])

    @property
    def all_vm_pu(self) -> np.ndarray[Any, Any]:
        """All voltages in full precision."""
        return np.array(self.env._world.solution.vm_pu)  # type: ignore[union-attr]


@contextmanager
def playing(devices: Mapping[str, Any], **grid: Any) -> Iterator[Played]:
    content = small_topology() | {"centralized": True, "policy": "idle"}
    content["profiles"] = {"file": []}
    network = {"kind": "ieee13", "load_scale": 0.5} | grid.pop("network", {})
    content["grids"]["mg_1"] = {"network": network, "price": PRICE, "devices": dict(devices), **grid}
    with closing(zgrid.parallel_env(content)) as env:
        yield Played(env)


def test_a_capacitor_raises_the_voltage_at_its_bus_by_its_reactive_power() -> None:
    with playing({"cap_1": CAPACITOR}) as grid:
        before, q = grid.vm_pu("675"), grid.step()["q_pcc_mvar"]
        after = grid.step({"cap_1.step": 3.0})
        assert grid.vm_pu("675") > before + 0.003
        # three steps of 0.1 Mvar at v^2, and less lost on the way
        assert q - after["q_pcc_mvar"] == pytest.approx(0.3 * grid.vm_pu("675") ** 2, rel=0.1)
        assert (after["cap_1.step"], after["cap_1.cost"], after["cap_1.q_mvar"]) == (3.0, 6.0, 0.0)
        assert grid.step()["cap_1.step"] == 0.0
        assert grid.vm_pu("675") == pytest.approx(before, abs=1e-9)


def test_a_bank_of_the_network_is_switched() -> None:
    """SCB 1 of the IEEE 34-bus feeder gives 0.3 Mvar a step; it stands alone here, with no load."""
    shunt = {"kind": "shunt", "element": "SCB 1", "steps": 4, "switching_cost": 2.0}
    network = {"kind": "ieee34", "load": 0.0}
    with playing({"shunt_1": shunt}, network=network) as played:
        off = played.step()
        before = played.vm_pu("844")
        on = played.step({"shunt_1.step": 2.0})
        after = played.vm_pu("844")
        assert after > before + 0.01
        assert on["q_pcc_mvar"] - off["q_pcc_mvar"] == pytest.approx(-0.6 * after**2, abs=0.05)
        assert (off["switching_cost"], on["switching_cost"]) == (0.0, 4.0)


def test_a_tap_changes_the_voltages_below_its_transformer() -> None:
    with playing({"oltc_1": TAPS}) as grid:
        before = grid.all_vm_pu
        done = grid.step({"oltc_1.tap": 1.0})
        # a step of 2.5 % at the low-voltage side
        ratio = grid.all_vm_pu / before
        assert ratio[0] == 1.0
        assert ratio[1:] == pytest.approx(1.025, abs=2e-3)
        assert (done["oltc_1.tap"], done["oltc_1.cost"]) == (1.0, 3.0)


def test_a_tap_moves_no_faster_than_it_can() -> None:
    with playing({"oltc_1": TAPS}) as grid:
        # 2 positions at once: one is done, the other is 1 of a range of 4
        first, second = (grid.step({"oltc_1.tap": 2.0}) for _ in range(2))
        assert (first["oltc_1.tap"], first["device_limits"]) == (1.0, 0.25)
        assert (second["oltc_1.tap"], second["device_limits"]) == (2.0, 0.0)


def test_an_open_switch_leaves_what_is_behind_it_dead_and_unserved() -> None:
    with playing({"sw_1": SWITCH}) as grid:
        before = grid.step()
        opened = grid.step({"sw_1.closed": 0.0})
        assert (grid.vm_pu("692"), grid.vm_pu("675")) == (0.0, 0.0)
        assert grid.vm_pu("671") > 0.9
        # the loads at 692 and 675, 0.843 MW each, at half scale, for an hour
        assert opened["lost_load_cost"] == pytest.approx(5000.0 * 0.843, rel=1e-12)
        assert before["p_pcc_mw"] - opened["p_pcc_mw"] == pytest.approx(0.843, rel=0.1)
        assert grid.step()["lost_load_cost"] == 0.0
        assert grid.vm_pu("675") > 0.9


def test_a_grid_that_is_cut_off_is_dead() -> None:
    with playing({"pcc_1": BREAKER, "dg_1": DIESEL}) as grid:
        before = grid.all_vm_pu
        opened = grid.step({"pcc_1.closed": 0.0, "dg_1.on": 1.0, "dg_1.p_mw": 0.3})
        assert opened["p_pcc_mw"] == 0.0
        assert np.isnan(grid.all_vm_pu).all()
        assert opened["lost_load_cost"] == pytest.approx(5000.0 * 3.899 / 2, rel=1e-9)
        assert opened["forming_cost"] == 0.0
        grid.step()
        assert grid.all_vm_pu == pytest.approx(before, abs=1e-9)


def test_a_grid_that_forms_its_voltage_lives_on_as_an_island() -> None:
    devices = {"pcc_1": {**BREAKER, "min_open_h": 2.0}, "dg_1": DIESEL}
    with playing(devices, islanding="grid_forming", forming_unit="dg_1") as grid:
        grid.step()
        before = grid.all_vm_pu
        opened = grid.step({"pcc_1.closed": 0.0})
        assert opened["p_pcc_mw"] == pytest.approx(0.0, abs=1e-9)
        assert opened["lost_load_cost"] == 0.0
        # the unit is off by its setpoint, and gives the load and the losses nevertheless
        assert opened["forming_cost"] == pytest.approx(200.0 * 3.899 / 2, rel=0.05)
        assert grid.vm_pu("675") == 1.0
        refused = grid.step()
        assert (refused["pcc_1.closed"], refused["device_limits"]) == (0.0, 1.0)
        grid.step()
        assert grid.all_vm_pu == pytest.approx(before, abs=1e-9)


def test_an_island_with_droop_shares_its_load_by_the_gains() -> None:
    """The frequency falls by what the forming unit gives, over its gain of 2 MW/Hz; the other one has half of that."""
    gains = {"dg_1": {"gain_mw_per_hz": 2.0}, "dg_2": {"gain_mw_per_hz": 1.0}}
    droop = {"kind": "droop", "gains": gains, "response": 0.5}
    second = {**GENERATOR, "bus": "671", "p_max_mw": 1.5, "s_rated_mva": 2.0}
    devices = {"pcc_1": {**BREAKER, "min_open_h": 2.0}, "dg_1": DIESEL, "dg_2": second}
    with playing(devices, islanding="grid_forming", forming_unit="dg_1", vertical=droop) as grid:
        assert grid.step()["dg_2.p_mw"] == 0.0  # connected: there is nothing to respond to
        islanded = [grid.step({"pcc_1.closed": 0.0}) for _ in range(14)]
        formed_mw = [row["forming_cost"] / 200.0 for row in islanded]
        assert islanded[0]["dg_2.p_mw"] == 0.0  # what a step ends with is what the next one measures
        # half of the way in each step: 0.5 x 1/2 of what the forming unit gave in the step before
        assert islanded[1]["dg_2.p_mw"] == pytest.approx(0.25 * formed_mw[0], rel=1e-9)
        assert islanded[-1]["dg_2.p_mw"] == pytest.approx(0.5 * formed_mw[-1], rel=1e-6)


def test_a_tie_replaces_import() -> None:
    with playing({"tie_1": TIE}) as grid:
        before = grid.step()
        imported = grid.step({"tie_1.p_mw": 0.4})
        assert before["p_pcc_mw"] - imported["p_pcc_mw"] == pytest.approx(0.4, rel=0.05)
        assert imported["tie_cost"] == pytest.approx(0.4 * 40.0, rel=1e-12)
        assert grid.step({"tie_1.p_mw": -0.4})["p_pcc_mw"] > before["p_pcc_mw"] + 0.4


def test_shedding_and_deferring_reduce_the_import_and_what_is_deferred_comes_back() -> None:
    with playing({"flex_1": FLEXIBLE}) as grid:
        before = grid.step()
        shed = grid.step({"flex_1.shed": 0.5})
        assert before["p_pcc_mw"] - shed["p_pcc_mw"] == pytest.approx(0.1, rel=0.1)
        deferred = grid.step({"flex_1.shift_mw": 0.1})
        assert before["p_pcc_mw"] - deferred["p_pcc_mw"] == pytest.approx(0.1, rel=0.1)
        caught_up = grid.step({"flex_1.shift_mw": -0.1})
        assert caught_up["p_pcc_mw"] - before["p_pcc_mw"] == pytest.approx(0.1, rel=0.1)
        assert caught_up["flex_1.backlog_mwh"] == pytest.approx(0.0, abs=1e-12)


def test_a_car_raises_the_import_while_it_charges() -> None:
    with playing({"ev_1": CHARGER}) as grid:
        before = grid.step({"ev_1.p_mw": -0.1})
        assert before["ev_1.p_mw"] == 0.0  # it comes in the second hour
        charging = [grid.step({"ev_1.p_mw": -0.1}) for _ in range(3)]
        # 0.15 MWh in the car are 0.15 / 0.95 = 0.1579 MWh at the network
        assert [one["ev_1.p_mw"] for one in charging] == pytest.approx([-0.1, -0.15 / 0.95 + 0.1, 0.0], abs=1e-12)
        assert charging[0]["p_pcc_mw"] - before["p_pcc_mw"] == pytest.approx(0.1, rel=0.1)
        assert charging[2]["p_pcc_mw"] == pytest.approx(before["p_pcc_mw"], abs=1e-9)


def test_a_car_that_is_not_charged_costs_when_it_leaves() -> None:
    with playing({"ev_1": CHARGER}) as grid:
        steps = [grid.step() for _ in range(6)]
        # it stays for the second to the fifth hour; 500 $/MWh
        assert [one["charging_cost"] for one in steps] == pytest.approx([0, 0, 0, 0, 75.0, 0])
        assert [one["device_limits"] for one in steps] == [0, 0, 0, 0, 1.0, 0]


HIGH = {"network": {"source_vm_pu": 1.08, "load_scale": 0.2}}


def test_volt_var_lowers_a_high_voltage_until_it_is_on_its_curve() -> None:
    with playing({"pv_1": {**SMART_PV, "control_mode": "volt_var"}}, **HIGH) as grid:
        without = grid.vm_pu("675")
        steps = [grid.step() for _ in range(20)]
        assert without > 1.06
        assert grid.vm_pu("675") < without - 0.005
        curve = ((0.92, 0.44), (0.98, 0.0), (1.02, 0.0), (1.08, -0.44))
        wanted = piecewise(zgrid.devices.FLOATS, grid.vm_pu("675"), curve)
        assert steps[-1]["pv_1.q_mvar"] == pytest.approx(wanted, abs=1e-5)
        assert steps[0]["pv_1.q_mvar"] == pytest.approx(0.5 * piecewise(zgrid.devices.FLOATS, without, curve), abs=1e-5)


def test_volt_watt_curtails_at_a_high_voltage() -> None:
    with playing({"pv_1": {**SMART_PV, "control_mode": "volt_watt"}}, **HIGH) as grid:
        steps = [grid.step({"pv_1.p_mw": 0.3}) for _ in range(20)]
        limit = piecewise(zgrid.devices.FLOATS, grid.vm_pu("675"), ((1.06, 1.0), (1.1, 0.2)))
        assert limit < 0.9
        assert steps[-1]["pv_1.p_mw"] == pytest.approx(0.3 * limit, abs=1e-5)
        assert {one["device_limits"] for one in steps} == {0.0}


def test_without_a_control_mode_a_smart_plant_does_what_a_plain_one_does() -> None:
    plain = {key: value for key, value in SMART_PV.items() if key != "kind"} | {"kind": "renewable", "q_control": True}
    results = []
    for device in (plain, {**plain, "kind": "smart_renewable"}):
        with playing({"pv_1": device}, **HIGH) as grid:
            steps = [grid.step({"pv_1.p_mw": 0.2, "pv_1.q_mvar": q}) for q in (0.1, -0.4, 5.0)]
            results.append([{key: value for key, value in one.items() if key in steps[0]} for one in steps])
    plain_steps, smart_steps = results
    for one, other in zip(plain_steps, smart_steps, strict=True):
        assert {key: other[key] for key in one} == one


# ---- all kinds at once ----------------------------------------------------------------------------------------------


def all_kinds() -> dict[str, Any]:
    content = small_topology(2)
    content["grids"]["mg_1"] |= {"devices": ALL_KINDS, "islanding": "grid_forming", "forming_unit": "dg_1"}
    content["grids"]["mg_2"]["devices"] |= {"pcc_1": BREAKER, "cap_1": CAPACITOR}
    return content


def walk(policy: str, **overrides: Any) -> list[Any]:
    """Every observation, reward, term and state of two days, as bytes and values."""
    rng = np.random.default_rng(3)
    trace = []
    with closing(zgrid.parallel_env(all_kinds(), policy=policy, episode_steps=48, **overrides)) as env:
        env.reset(seed=5)
        while env.agents:
            random = {agent: rng.uniform(-1.2, 1.2, env.action_space(agent).shape) for agent in env.agents}
            actions = random if policy == "random" else dict.fromkeys(env.agents)
            observations, rewards, _, _, infos = env.step(actions)
            trace.append((rewards, infos, {name: one.tobytes() for name, one in observations.items()}))
            trace.append(env.state().tobytes())
    return trace


def test_all_kinds_are_there() -> None:
    assert {device["kind"] for device in ALL_KINDS.values()} | {"shunt"} == set(DEVICES)


@pytest.mark.parametrize("policy", ["idle", "random", "rule_based"])
def test_all_kinds_give_the_same_bytes_called_and_messaged(policy: str) -> None:
    called = walk(policy, centralized=True)
    assert called == walk(policy, message_broker="in_memory")
    assert all(math.isfinite(value) for rewards, *_ in called[::2] for value in rewards.values())


def test_idle_moves_nothing() -> None:
    with closing(zgrid.parallel_env(all_kinds(), policy="idle", centralized=True)) as env:
        env.reset(seed=5)
        for _ in range(24):
            _, _, _, _, infos = env.step(dict.fromkeys(env.agents))
            for info in infos.values():
                assert info.get("switching_cost", 0.0) == info.get("tap_cost", 0.0) == info["lost_load_cost"] == 0.0
