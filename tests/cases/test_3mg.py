"""The cases to work on, topologies/3mg.yaml and topologies/1mg.yaml: what makes them problems worth solving."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from conftest import ROOT

import zgrid
from zgrid.policies import GridView, PolicyConfig
from zgrid.policies.rule_based import RuleBased
from zgrid.powerflow import PowerFlow, Solution
from zgrid.topology import load

TOPOLOGIES = ROOT / "topologies"
CASE = str(TOPOLOGIES / "3mg.yaml")
GRIDS = ("mg_1", "mg_2", "mg_3")
DAYS = (33, 106, 179, 252, 325)
"""Every 73rd day, working days and weekends, one of them for testing."""


class DroopConfig(PolicyConfig):
    """It has no parameters."""

    kind: Literal["test_3mg:Droop"] = "test_3mg:Droop"


class Droop(RuleBased):
    """rule_based, and inverters that move their reactive power against the voltage of the last step.

    Some lines by hand, to show what seeing voltages is worth; it uses nothing but what the grid itself knows.
    """

    Config: ClassVar[type[PolicyConfig]] = DroopConfig
    LOW, HIGH, GAIN = 0.97, 1.03, 20.0

    def act(self, view: GridView) -> tuple[float, ...]:
        action = list(super().act(view))
        assert view.network is not None
        vm = view.network.vm_pu
        lift = max(self.LOW - float(vm.min()), 0.0) - max(float(vm.max()) - self.HIGH, 0.0)
        place = 0
        for actor, state in zip(self.actors, view.states, strict=True):
            if len(actor.controls) == 2:  # p_mw, which comes first in the circle, and q_mvar
                p, q = actor.controls
                room = np.sqrt(max(q.high**2 - p.scale(action[place]) ** 2, 0.0))
                wanted = state.q_mvar + self.GAIN * lift * q.high
                action[place + 1] = q.unscale(float(np.clip(wanted, -room, room)))
            place += len(actor.controls)
        return tuple(action)


class NoNetwork(PowerFlow):
    """Solves nothing: 1 pu and an import of 1 MW everywhere; remembers what the loads were scaled by."""

    def set_injections(self, device_p_mw: Any, device_q_mvar: Any, load_scale: Any) -> None:
        self.load_scale = np.array(load_scale)

    def solve(self) -> Solution:
        net, parts = self.network.net, len(self.network.parts)
        bus, line, trafo = (np.ones(len(net[table])) for table in ("bus", "line", "trafo"))
        nothing = np.zeros(parts)
        return Solution(True, bus, 0 * bus, line, trafo, np.ones(parts), nothing, nothing, 0, "none")

    def to_pandapower(self) -> Any:
        return self.network.net


def make(topology: str = CASE, **overrides: Any) -> zgrid.NetworkedGridEnv:
    return zgrid.parallel_env(topology, centralized=True, **{"profiles.split": "all", **overrides})


def play(env: zgrid.NetworkedGridEnv, day: int, action: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A day with the grids' own policy, or one action all day: its return, worst voltages and sums of some terms."""
    env.reset(seed=day, options={"day": day})
    total, lows, highs, terms = 0.0, [], [], dict.fromkeys(("energy_cost", "voltage", "converged"), 0.0)
    while env.agents:
        _, rewards, _, _, infos = env.step(action or dict.fromkeys(env.possible_agents))
        total += sum(rewards.values())
        lows.append(min(info["vm_min_pu"] for info in infos.values()))
        highs.append(max(info["vm_max_pu"] for info in infos.values()))
        for info in infos.values():
            terms = {name: value + info[name] for name, value in terms.items()}
    return {"return": total, "low": min(lows), "high": max(highs), **terms}


def with_policy(kind: str, topology: str = CASE) -> zgrid.NetworkedGridEnv:
    return make(topology, policy="test_3mg:Droop" if kind == "droop" else kind)


RANKING = ("random", "idle", "rule_based", "droop")
"""Worst to best."""


@pytest.fixture(scope="module")
def played() -> dict[str, list[dict[str, Any]]]:
    """The sample of days with each policy."""
    result = {}
    for kind in RANKING:
        env = with_policy(kind)
        result[kind] = [play(env, day) for day in DAYS]
    return result


def returns(days: list[dict[str, Any]]) -> np.ndarray:
    return np.array([day["return"] for day in days])


# ---- the files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_files_are_valid_and_named_after_themselves(path: Path) -> None:
    assert load(path).name == path.stem


def test_three_grids_of_three_devices() -> None:
    devices = [spec.id for spec in load(CASE).device_specs]
    assert devices == [f"{grid}.{device}" for grid in GRIDS for device in ("dg_1", "pv_1", "ess_1")]


def test_ring_of_neighbours_is_ready_for_consensus() -> None:
    env = make(horizontal="average_consensus")
    env.reset(options={"day": 3})
    observations, *_ = env.step(dict.fromkeys(GRIDS))
    alone = make().observation_space("mg_1").shape[0]
    assert all(len(observations[grid]) > alone for grid in GRIDS)


# ---- 3mg: physics --------------------------------------------------------------------------------------------------


def test_idle_days_are_too_low_and_too_high(played: dict[str, list[dict[str, Any]]]) -> None:
    days = played["idle"]
    assert all(0.9 < day["low"] < 0.98 and 1.055 < day["high"] < 1.08 for day in days)
    assert np.median([day["low"] for day in days]) == pytest.approx(0.93, abs=0.015)
    assert np.median([day["high"] for day in days]) == pytest.approx(1.066, abs=0.01)


@pytest.mark.parametrize("policy", RANKING)
def test_power_flow_always_converges(policy: str, played: dict[str, list[dict[str, Any]]]) -> None:
    assert all(day["converged"] == 24 * len(GRIDS) for day in played[policy])


@pytest.mark.parametrize("corner", [-1.0, 1.0])
def test_extreme_actions_are_survived_and_penalised(corner: float, played: dict[str, list[dict[str, Any]]]) -> None:
    env = make()
    action = {grid: np.full(env.action_space(grid).shape, corner, np.float32) for grid in GRIDS}
    day = play(env, DAYS[0], action)
    assert day["converged"] == 24 * len(GRIDS)
    assert day["return"] < 2.0 * played["random"][0]["return"]


def test_every_control_moves_all_grids() -> None:
    """Voltages and rewards of all grids change when one control of one device does."""
    env = make(**{"grids.*.devices.pv_1.availability": 0.6})
    nothing = {grid: _no_power(env, grid) for grid in GRIDS}
    before = _first_step(env, nothing)
    for grid in GRIDS:
        for place, name in enumerate(env.action_names(grid)):
            action = nothing[grid].copy()
            action[place] += 0.5
            after = _first_step(env, {**nothing, grid: action})
            for other in GRIDS:
                assert np.abs(after[other][0] - before[other][0]).max() > 1e-4, (name, other)
                assert abs(after[other][1] - before[other][1]) > 1e-3, (name, other)


def _first_step(env: zgrid.NetworkedGridEnv, actions: Mapping[str, Any]) -> dict[str, tuple[np.ndarray, float]]:
    """Voltages and reward of each grid in the first hour of a day."""
    env.reset(options={"day": 200})
    observations, rewards, *_ = env.step(actions)
    first = env.observation_names("mg_1").index("vm_pu[650]")
    return {grid: (observations[grid][first : first + 13], rewards[grid]) for grid in GRIDS}


def _no_power(env: zgrid.NetworkedGridEnv, grid: str) -> np.ndarray:
    controls = [control for _, control in env.topology.grid_specs[GRIDS.index(grid)].controls]
    return np.array([control.unscale(0.0) for control in controls], np.float32)


# ---- 3mg: a problem worth solving ----------------------------------------------------------------------------------


def test_rule_based_beats_idle_and_random(played: dict[str, list[dict[str, Any]]]) -> None:
    rule, idle, random = (returns(played[name]) for name in ("rule_based", "idle", "random"))
    assert np.mean(rule - idle) > 250.0
    assert np.mean(rule - random) > 1000.0
    assert np.mean(idle - random) > 500.0


def test_looking_at_voltages_beats_rule_based(played: dict[str, list[dict[str, Any]]]) -> None:
    gain = returns(played["droop"]) - returns(played["rule_based"])
    assert np.mean(gain) > 250.0
    assert (gain > 0.0).all()


def test_voltage_and_energy_weigh_alike(played: dict[str, list[dict[str, Any]]]) -> None:
    """Of idle grids, on the median day: neither can be ignored."""
    penalty = load(CASE).reward.penalty
    shares = [penalty * day["voltage"] / day["energy_cost"] for day in played["idle"]]
    assert 0.25 < np.median(shares) < 1.5


def test_best_constant_action_loses_to_a_simple_policy(played: dict[str, list[dict[str, Any]]]) -> None:
    """The best of some thousand constant actions on 31 training days (random search, two starts) is not enough."""
    constant = {
        "mg_1": (-0.96, -0.08, -0.49, 0.12, 0.05),
        "mg_2": (-0.90, -0.47, -0.15, 0.07, 0.22),
        "mg_3": (-0.85, -0.32, 0.01, 0.11, 0.07),
    }
    action = {grid: np.array(values, np.float32) for grid, values in constant.items()}
    env = make()
    best = returns([play(env, day, action) for day in DAYS])
    assert np.mean(best - returns(played["idle"])) > 100.0
    assert np.mean(returns(played["droop"]) - best) > 250.0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ranking_holds_over_the_year() -> None:
    """On every eighth day, a paired difference of more than twice its standard error each."""
    envs = [with_policy(kind) for kind in RANKING]
    worst_to_best = [returns([play(env, day) for day in range(0, 365, 8)]) for env in envs]
    for worse, better in pairwise(worst_to_best):
        gain = better - worse
        assert np.mean(gain) > 2.0 * np.std(gain, ddof=1) / np.sqrt(len(gain))


# ---- every hour of data is used ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_year_of_days_uses_every_row_once() -> None:
    env = make(**{"power_flow.kind": "test_3mg:NoNetwork"})
    series = _shipped()
    scale = {"mg_1": 0.3 * series["load_1"], "mg_2": 0.18 * series["load_2"], "mg_3": 0.2 * series["load_3"]}
    parts = env._world.network.parts
    rows = []
    for day in range(365):
        env.reset(options={"day": day})
        while env.agents:
            row = env._world.row
            rows.append(row)
            _, _, _, _, infos = env.step(dict.fromkeys(GRIDS))
            seen = dict(zip(parts, env._world.power_flow.load_scale, strict=True))
            assert seen["feeder"] == 0.2
            for grid in GRIDS:
                assert seen[grid] == pytest.approx(scale[grid][row], rel=1e-12)
                # an import of 1 MW for 1 h costs the price
                assert infos[grid]["energy_cost"] == pytest.approx(series["price"][row], rel=1e-12)
    assert rows == list(range(365 * 24))


def _shipped() -> dict[str, np.ndarray]:
    """The shipped series per hour, read without zgrid."""
    folder = Path(zgrid.__file__).parent / "profiles" / "data"
    with np.load(folder / "simbench_2016.npz") as load_data, np.load(folder / "ercot_2022.npz") as prices:
        loads = {
            name: (load_data[name] / 65535.0).reshape(-1, 4).mean(axis=1) for name in ("load_1", "load_2", "load_3")
        }
        return loads | {"price": prices["price"].astype(float)}


# ---- 1mg -----------------------------------------------------------------------------------------------------------


ONE = str(TOPOLOGIES / "1mg.yaml")


@pytest.mark.parametrize("policy", ["idle", "rule_based", "random"])
def test_one_microgrid_solves_at_every_hour(policy: str) -> None:
    env = with_policy(policy, ONE)
    for day in (0, 240):
        result = play(env, day)
        assert result["converged"] == 24
        assert 0.85 < result["low"] < 1.0
        assert result["high"] < 1.05


def test_one_microgrid_has_something_to_do() -> None:
    days = (30, 240)
    envs = [with_policy(kind, ONE) for kind in ("idle", "rule_based", "droop")]
    idle, rule, droop = (returns([play(env, day) for day in days]) for env in envs)
    assert (rule > idle).all()
    assert (droop > rule).all()
