"""Plans with foresight: they are worth what the env says, no policy is better, and what cannot be planned is told."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, small_topology

from zgrid.environment import NetworkedGridEnv
from zgrid.errors import ForesightError
from zgrid.evaluation import Evaluation, Settings, evaluate
from zgrid.foresight import Rehearsal, check, optimum, plan_day, plan_days
from zgrid.foresight.model import promise
from zgrid.topology import load
from zgrid.world import World

THREE, ONE = (str(ROOT / "topologies" / f"{name}.yaml") for name in ("3mg", "1mg"))
DAY = 83


def rehearsal_of(source: Any, day: int = DAY, **overrides: Any) -> Rehearsal:
    topology = load(source, {"centralized": True, **overrides})
    return Rehearsal(topology, World(topology), day)


def earned(source: Any, plans: Any, **overrides: Any) -> list[float]:
    """What plans, (n, n_steps, n_controls), earn in the env; $."""
    with closing(NetworkedGridEnv(source, {"centralized": True, **overrides})) as env:
        ends = np.cumsum([len(env.action_names(agent)) for agent in env.possible_agents])[:-1]
        totals = []
        for plan in plans:
            env.reset(seed=0, options={"day": DAY})
            steps = [dict(zip(env.possible_agents, np.split(actions, ends), strict=True)) for actions in plan]
            totals.append(sum(sum(env.step(actions)[1].values()) for actions in steps))
        return totals


@pytest.fixture(scope="module")
def rehearsal() -> Rehearsal:
    """A day of three microgrids."""
    return rehearsal_of(THREE)


@pytest.fixture(scope="module")
def plan(rehearsal: Rehearsal) -> Any:
    """A random plan for it, as the devices can do it."""
    asked = np.random.default_rng(3).uniform(-1.0, 1.0, (1, rehearsal.n_steps, len(rehearsal.controls)))
    return rehearsal.play(asked)[0]


@pytest.fixture(scope="module", params=[THREE, pytest.param(ONE, marks=pytest.mark.slow)], ids=["3mg", "1mg"])
def evaluation(request: pytest.FixtureRequest) -> Evaluation:
    """Days on which all play."""
    return evaluate(request.param, {}, Settings(episodes=2, seed=1))


class TestRehearsal:
    def test_is_worth_what_the_env_says(self, plan: Any) -> None:
        assert earned(THREE, [plan.actions]) == [pytest.approx(plan.value, abs=1e-6)]

    def test_plays_what_devices_can_do_of_a_plan(self, rehearsal: Rehearsal, plan: Any) -> None:
        (again,) = rehearsal.play(plan.actions[None])
        assert np.allclose(again.actions, plan.actions, atol=1e-12)
        assert again.value == pytest.approx(plan.value, abs=1e-9)

    def test_slopes_are_those_of_the_network(self, rehearsal: Rehearsal, plan: Any) -> None:
        """1 kW more of the first control, in every step, as the power flow has it."""
        slopes = rehearsal.slopes(plan)
        p = plan.p_mw.copy()
        p[:, 0] += 1e-3
        moved = rehearsal.world.solve_rows(p, plan.q_mvar, np.zeros((len(p), 0)), rehearsal.rows)
        assert np.allclose((moved.vm_pu - plan.solution.vm_pu) / 1e-3, slopes.vm_pu[:, 0], rtol=0.02, atol=1e-6)

    def test_a_model_of_no_radius_promises_what_was_played(self, rehearsal: Rehearsal, plan: Any) -> None:
        assert promise(rehearsal, plan, rehearsal.slopes(plan), 1e-9).value == pytest.approx(plan.value, abs=1e-3)


def test_a_generator_runs_where_no_other_power_earns_more() -> None:
    """One hour, one generator: against all its powers, tried one by one in the env."""
    content = small_topology() | {"episode_steps": 1}
    grid = content["grids"]["mg_1"]
    grid["price"] = 90.0
    grid["devices"] = {"dg_1": grid["devices"]["dg_1"] | {"q_control": False, "cost_a": 200.0}}
    tried = earned(content, np.linspace(-1.0, 1.0, 81)[:, None, None])
    rehearsal = rehearsal_of(content)
    nothing = np.zeros((1, 1))
    found = plan_day(rehearsal, [(nothing, nothing)])
    assert 0 < int(np.argmax(tried)) < 80
    assert max(tried) - 1e-6 <= found.earned <= max(tried) + 0.2
    assert earned(content, [found.actions]) == [pytest.approx(found.earned, abs=1e-6)]


class TestOptimum:
    def test_is_not_beaten_on_any_day(self, evaluation: Evaluation) -> None:
        for name, days in evaluation.played.items():
            for best, day in zip(evaluation.played["optimum"], days, strict=True):
                assert best.value >= day.value, (name, day.day)

    def test_earns_in_the_env_what_it_was_found_with(self, evaluation: Evaluation) -> None:
        for plan, day in zip(evaluation.planned, evaluation.played["optimum"], strict=True):
            assert plan.earned == pytest.approx(day.value, abs=1e-6)

    def test_earns_what_its_linear_models_promise(self, evaluation: Evaluation) -> None:
        for plan in evaluation.planned:
            assert -1e-6 <= plan.promised - plan.earned < 0.001 * abs(plan.earned)
            assert 0.0 <= plan.promised_anywhere - plan.earned < 0.02 * abs(plan.earned)

    def test_is_near_a_bound_that_nobody_beats(self, evaluation: Evaluation) -> None:
        for plan in evaluation.planned:
            assert plan.earned <= plan.bound <= plan.earned + 0.05 * abs(plan.earned)
        assert 0.0 < evaluation.summary()["optimum"]["bound_gap_percent"] < 5.0

    def test_scores_1(self, evaluation: Evaluation) -> None:
        policies = evaluation.summary()["policies"]
        assert policies["optimum"]["score"] == 1.0
        assert policies["random"]["score"] == 0.0
        assert 0.0 < policies["rule_based"]["score"] < 1.0


def test_begins_anywhere_and_ends_at_the_same() -> None:
    rehearsal = rehearsal_of(ONE)
    shape = (rehearsal.n_steps, len(rehearsal.specs))
    idle, full = (np.zeros(shape), np.zeros(shape)), (np.ones(shape), np.zeros(shape))
    one, other = (plan_day(rehearsal, [start]).earned for start in (idle, full))
    assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.slow
def test_processes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimum, "_DAYS_PER_PROCESS", 1)
    topology = load(ONE, {"centralized": True})
    nothing = np.zeros((24, 3))
    starts = [[(nothing, nothing)]] * 2
    here, there = (list(plan_days(topology, (DAY, DAY + 1), starts, processes)) for processes in (1, 2))
    for mine, theirs in zip(here, there, strict=True):
        assert np.array_equal(mine.actions, theirs.actions)
        assert mine[1:] == theirs[1:]


class TestWhatCannotBePlanned:
    def test_devices_are_told_with_their_path(self) -> None:
        content = small_topology()
        content["grids"]["mg_1"]["devices"]["dg_1"]["commitment"] = True
        content["grids"]["mg_1"]["devices"]["pv_1"]["kind"] = "smart_renewable"
        with pytest.raises(
            ForesightError, match=r"grids\.mg_1\.devices\.dg_1: kind 'generator' with commitment"
        ) as told:
            check(load(content))
        assert "grids.mg_1.devices.pv_1: kind 'smart_renewable'" in str(told.value)

    def test_a_voltage_penalty_that_is_not_linear(self) -> None:
        with pytest.raises(ForesightError, match=r"grids\.mg_1\.reward: voltage 'bowl', expected l1"):
            check(load(small_topology(), {"reward.voltage": "bowl"}))


def test_the_reference_reward_can_be_planned_for() -> None:
    """Idle costs 0.5 $ an hour and the penalty of a voltage that is too low; reactive power lifts it at no cost."""
    settings = {"reward": {"kind": "reference", "penalty": 100.0}, "grids.*.network.source_vm_pu": 0.96}
    rehearsal = rehearsal_of(small_topology(), **settings)
    nothing = np.zeros((24, 3))
    (idle,) = rehearsal.play(rehearsal.actions(nothing, nothing)[None])
    found = plan_day(rehearsal, [(nothing, nothing)])
    assert idle.value < -12.1 < found.earned <= -12.0
    assert earned(small_topology(), [found.actions], **settings) == [pytest.approx(found.earned, abs=1e-6)]
