"""topologies/3mg_reference.yaml against the public case, computed here from plain pandapower calls.

Only the impedances of lines are shared with zgrid; coupling, loads, transformers, devices and reward are written anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandapower as pp
import pytest
from conftest import ROOT

import zgrid
from zgrid.networks.ieee13 import IEEE13
from zgrid.networks.ieee34 import IEEE34

CASE = ROOT / "topologies" / "3mg_reference.yaml"
HOURS, DAYS = 24, 3
PCC = {"mg_1": "822", "mg_2": "848", "mg_3": "856"}
# MW, then a, b, c of a P^2 + b P + c
GENERATORS = {
    "mg_1": (0.66, 100.0, 72.4, 0.5011),
    "mg_2": (0.60, 100.0, 51.6, 0.4615),
    "mg_3": (0.50, 100.0, 51.6, 0.4615),
}
DEVICE_BUSES = ("675", "652", "645")  # generator, PV, wind
RENEWABLE_MW = 0.1
LOAD_SCALE = 0.2
# bus, kW, kvar
MICROGRID_LOADS = """634 400 290  645 170 125  646 230 132  652 128 86  671 1115 660  675 843 462  692 843 462
    611 170 80"""
FEEDER_LOADS = """806 55 29  810 16 8  820 34 17  822 135 70  824 5 2  826 4 20  828 4 2  830 7 3  856 4 2  858 15 7
    864 2 1  834 32 17  860 29 73  836 82 43  840 40 20  838 28 14  844 9 5  846 37 31  848 23 11  860 60 48  840 27 21
    844 405 315  848 60 48  890 450 225  830 45 20"""


class PlainCase:
    """The merged network by hand: microgrid buses are made beside the feeder's, and bus 650 is the feeder's bus."""

    def __init__(self, tap_changer: str | None = "Ratio") -> None:
        self.net = net = pp.create_empty_network(f_hz=50.0, sn_mva=1.0)
        self.buses: dict[str, dict[str, int]] = {}
        self.lines: dict[str, list[int]] = {}
        self.loads: dict[str, list[int]] = {}
        self.devices: dict[str, list[int]] = {}
        self.tap_changer = tap_changer
        self._build_feeder()
        for grid, pcc in PCC.items():
            self._build_microgrid(grid, pcc)
        pp.create_ext_grid(net, self.buses["feeder"]["800"], vm_pu=1.05)

    def _build_feeder(self) -> None:
        net = self.net
        low = {"888", "890"}
        bus = {b.name: pp.create_bus(net, vn_kv=4.16 if b.name in low else 24.9) for b in IEEE34.buses}
        self.buses["feeder"] = bus
        self._add_lines("feeder", IEEE34, bus)
        self._add_trafo(bus["814"], bus["RG10"], 2.5, 24.9, 24.9, 0.80022, 0.8938475, 0.625, 12)
        self._add_trafo(bus["852"], bus["RG11"], 2.5, 24.9, 24.9, 0.80022, 0.8938475, 0.625, 16)
        self._add_trafo(bus["832"], bus["888"], 0.5, 24.9, 4.16, 1.9, 4.5)
        self._add_loads("feeder", FEEDER_LOADS, bus)
        pp.create_shunt(net, bus["844"], q_mvar=-0.3, step=0, max_step=4)
        pp.create_shunt(net, bus["848"], q_mvar=-0.45, step=0, max_step=4)

    def _build_microgrid(self, grid: str, pcc: str) -> None:
        net = self.net
        bus = {"650": self.buses["feeder"][pcc]}
        for name in ["632", "633", "645", "646", "671", "692", "675", "684", "611", "652", "680"]:
            bus[name] = pp.create_bus(net, vn_kv=4.16)
        bus["634"] = pp.create_bus(net, vn_kv=0.48)
        self.buses[grid] = bus
        self._add_lines(grid, IEEE13, bus)
        self._add_trafo(bus["650"], bus["632"], 5.0, 24.9, 4.16, 1.0, 8.0, 2.5, 0)
        self._add_trafo(bus["633"], bus["634"], 0.5, 4.16, 0.48, 1.1, 2.0)
        self._add_loads(grid, MICROGRID_LOADS, bus)
        pp.create_switch(net, bus["671"], bus["692"], et="b", type="LS", closed=True)
        self.devices[grid] = [pp.create_sgen(net, bus[name], p_mw=0.0, q_mvar=0.0) for name in DEVICE_BUSES]

    def _add_lines(self, part: str, tables: Any, bus: Mapping[str, int]) -> None:
        kinds = {kind.name: kind for kind in tables.line_types}
        self.lines[part] = []
        for line in tables.lines:
            _, *impedance = kinds[line.line_type]
            ends = bus[line.from_bus], bus[line.to_bus]
            self.lines[part].append(pp.create_line_from_parameters(self.net, *ends, line.length_km, *impedance))

    def _add_trafo(
        self, hv: int, lv: int, sn: float, hv_kv: float, lv_kv: float, vkr: float, vk: float, step: float = 0.0,
        position: int | None = None,
    ) -> None:  # fmt: skip
        taps: dict[str, Any] = {}
        if position is not None:
            limit = 16 if step < 1.0 else 2
            taps = {"tap_side": "lv", "tap_neutral": 0, "tap_min": -limit, "tap_max": limit, "tap_pos": position}
            taps |= {"tap_step_percent": step, "tap_changer_type": self.tap_changer}
        pp.create_transformer_from_parameters(
            self.net, hv, lv, sn, hv_kv, lv_kv, vkr, vk, pfe_kw=0.0, i0_percent=0.0, **taps
        )

    def _add_loads(self, part: str, text: str, bus: Mapping[str, int]) -> None:
        cells = text.split()
        self.loads[part] = [
            pp.create_load(self.net, bus[name], p_mw=float(kw) / 1000, q_mvar=float(kvar) / 1000, scaling=LOAD_SCALE)
            for name, kw, kvar in zip(cells[::3], cells[1::3], cells[2::3], strict=True)
        ]

    def solve(self, series: Mapping[str, np.ndarray], row: int, p_mw: Mapping[str, np.ndarray]) -> None:
        """The network of an hour; ``p_mw`` has the power of generator, PV and wind of each grid."""
        net = self.net
        for number, grid in enumerate(PCC, start=1):
            net.load.loc[self.loads[grid], "scaling"] = LOAD_SCALE * series[f"load_{number}"][row]
            net.sgen.loc[self.devices[grid], "p_mw"] = p_mw[grid]
        pp.runpp(net, lightsim2grid=False, numba=False)

    def reward(self, grid: str, p_mw: np.ndarray) -> float:
        """The published reward: minus generation cost, minus 10 x (voltage excursions + 0.01 x line overloads)."""
        _, a, b, c = GENERATORS[grid]
        vm = self.vm_pu(grid)
        loading = self.net.res_line.loading_percent.loc[self.lines[grid]]
        safety = (vm - 1.05).clip(lower=0).sum() + (0.95 - vm).clip(lower=0).sum()
        safety += 0.01 * (loading - 100.0).clip(lower=0).sum()
        return float(-(a * p_mw[0] ** 2 + b * p_mw[0] + c) - 10.0 * safety)

    def vm_pu(self, grid: str) -> Any:
        return self.net.res_bus.vm_pu.loc[list(self.buses[grid].values())]


def random_series() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    series = {name: rng.uniform(0.2, 1.0, DAYS * HOURS) for name in ("load_1", "load_2", "load_3")}
    series |= {name: rng.uniform(0.0, 1.0, DAYS * HOURS) for name in ("solar", "wind")}
    return series | {"price": rng.uniform(10.0, 100.0, DAYS * HOURS)}


def write(series: Mapping[str, np.ndarray], path: Path) -> Path:
    if path.suffix == ".npz":
        np.savez(path, dt_h=np.array(1.0), **series)
    else:
        rows = zip(*series.values(), strict=True)
        path.write_text("\n".join([",".join(series), *(",".join(map(repr, map(float, row))) for row in rows)]) + "\n")
    return path


def make(path: Path, **overrides: Any) -> zgrid.NetworkedGridEnv:
    return zgrid.parallel_env(str(CASE), centralized=True, **{"profiles.file": str(path), **overrides})


def powers(actions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What actions in [-1, 1] mean in MW: from 0 to each device's limit, whatever sun and wind do."""
    limits = {grid: np.array([GENERATORS[grid][0], RENEWABLE_MW, RENEWABLE_MW]) for grid in actions}
    return {grid: (action.astype(float) + 1) / 2 * limits[grid] for grid, action in actions.items()}


@pytest.fixture(scope="module")
def plain() -> PlainCase:
    return PlainCase()


@pytest.mark.parametrize("name", ["own.csv", "own.npz"])
def test_rewards_and_voltages_are_those_of_plain_pandapower(name: str, tmp_path: Path, plain: PlainCase) -> None:
    series = random_series()
    env = make(write(series, tmp_path / name))
    rng = np.random.default_rng(3)
    for day in (2, 0):
        env.reset(options={"day": day})
        for hour in range(6):
            actions = {grid: rng.uniform(-1, 1, 3).astype(np.float32) for grid in PCC}
            _, rewards, _, _, infos = env.step(actions)
            p_mw = powers(actions)
            plain.solve(series, day * HOURS + hour, p_mw)
            for grid in PCC:
                vm = plain.vm_pu(grid)
                assert rewards[grid] == pytest.approx(plain.reward(grid, p_mw[grid]), abs=1e-6)
                assert infos[grid]["vm_min_pu"] == pytest.approx(vm.min(), abs=1e-8)
                assert infos[grid]["vm_max_pu"] == pytest.approx(vm.max(), abs=1e-8)


def test_first_step_uses_first_row_of_the_day(tmp_path: Path, plain: PlainCase) -> None:
    series = random_series()
    env = make(write(series, tmp_path / "own.csv"))
    env.reset(options={"day": 1})
    _, rewards, *_ = env.step({grid: -np.ones(3, np.float32) for grid in PCC})
    by_row = {}
    for row in (HOURS - 1, HOURS, HOURS + 1):
        plain.solve(series, row, dict.fromkeys(PCC, np.zeros(3)))
        by_row[row] = [plain.reward(grid, np.zeros(3)) for grid in PCC]
    assert list(rewards.values()) == pytest.approx(by_row[HOURS], abs=1e-6)
    assert all(abs(total - sum(rewards.values())) > 0.01 for total in (sum(by_row[23]), sum(by_row[25])))


def test_overloaded_lines_count(tmp_path: Path, plain: PlainCase) -> None:
    """No line of the case comes near its limit; with wind of 2.5 MW, used up in the microgrid itself, one does."""
    series = random_series()
    series["load_1"][HOURS:] = 2.8  # from the second day on; without the wind the network would not solve
    larger = {f"grids.mg_1.devices.wt_1.{limit}": 2.5 for limit in ("p_max_mw", "s_rated_mva")}
    env = make(write(series, tmp_path / "own.npz"), **larger)
    env.reset(options={"day": 1})
    _, rewards, _, _, infos = env.step({grid: np.array([-1, -1, 1], np.float32) for grid in PCC})
    p_mw = {grid: np.array([0.0, 0.0, 2.5 if grid == "mg_1" else 0.1]) for grid in PCC}
    plain.solve(series, HOURS, p_mw)
    overload = 0.01 * plain.net.res_line.loading_percent.loc[plain.lines["mg_1"]].max() - 1.0
    assert overload > 0.1
    assert infos["mg_1"]["overload"] == pytest.approx(overload, abs=1e-6)
    assert list(rewards.values()) == pytest.approx([plain.reward(grid, p_mw[grid]) for grid in PCC], abs=1e-6)


def test_merged_network_has_the_published_size(plain: PlainCase) -> None:
    expected = {"bus": 72, "line": 59, "trafo": 9, "load": 49, "shunt": 2, "switch": 3, "sgen": 9}
    env = zgrid.parallel_env(str(CASE), centralized=True)
    env.reset(options={"day": 0})
    merged = env._world.power_flow.to_pandapower()
    assert {table: len(merged[table]) for table in expected} == expected
    assert {table: len(plain.net[table]) for table in expected} == expected
    assert int(merged.ext_grid.in_service.sum()) == 1


def test_taps_act(plain: PlainCase) -> None:
    """With no generation mg_2 is far above 1.05 pu; were taps without effect, it would be below 0.95."""
    series = {f"load_{number}": np.full(1, 0.4) for number in (1, 2, 3)}
    highest = []
    for case in (plain, PlainCase(tap_changer=None)):
        case.solve(series, 0, dict.fromkeys(PCC, np.zeros(3)))
        highest.append(case.vm_pu("mg_2").max())
    env = zgrid.parallel_env(str(CASE), centralized=True, **{"grids.*.network.load": 0.4})
    _, infos = env.reset(options={"day": 0})
    assert infos["mg_2"]["vm_max_pu"] == pytest.approx(highest[0], abs=1e-8)
    assert highest[0] > 1.1
    assert highest[1] < 0.95


def test_generating_nothing_is_best(tmp_path: Path) -> None:
    """Why this case is for comparison only: imports are free, and voltages are too high already."""
    env = make(write(random_series(), tmp_path / "own.csv"))
    rng = np.random.default_rng(1)
    env.reset(options={"day": 0})
    for _ in range(3):
        _, idle, *_ = env.step(dict.fromkeys(PCC))
        _, generating, *_ = env.step({grid: rng.uniform(0, 1, 3).astype(np.float32) for grid in PCC})
        assert sum(idle.values()) > sum(generating.values())
