"""NetworkedGridEnv: PettingZoo's own tests, and the duties that trainers need fulfilled."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pettingzoo
import pytest
from conftest import GRID, ROOT, small_topology
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test
from pettingzoo.test.max_cycles_test import max_cycles_test
from pettingzoo.test.performance_benchmark import performance_benchmark
from pettingzoo.test.render_test import render_test
from pettingzoo.test.state_test import state_test

import zgrid
from zgrid.errors import ActionError

CENTRALIZED = {"centralized": True}
IN_MEMORY = {"message_broker": "in_memory"}


def make(grids: int = 1, **overrides: Any) -> zgrid.NetworkedGridEnv:
    return zgrid.parallel_env(small_topology(grids), **{**CENTRALIZED, **overrides})


def random_actions(env: zgrid.NetworkedGridEnv, rng: np.random.Generator) -> dict[str, Any]:
    return {agent: rng.uniform(-1, 1, env.action_space(agent).shape).astype(np.float32) for agent in env.agents}


# ---- PettingZoo's own tests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [CENTRALIZED, IN_MEMORY], ids=["centralized", "in_memory"])
def test_parallel_api(mode: dict[str, Any]) -> None:
    parallel_api_test(zgrid.parallel_env(small_topology(2), episode_steps=6, **mode), num_cycles=20)


@pytest.mark.parametrize("mode", [CENTRALIZED, IN_MEMORY], ids=["centralized", "in_memory"])
def test_parallel_seed(mode: dict[str, Any]) -> None:
    parallel_seed_test(partial(zgrid.parallel_env, small_topology(2), **mode), num_cycles=5)


def test_aec_api() -> None:
    api_test(zgrid.env(small_topology(2), episode_steps=6, **CENTRALIZED), num_cycles=20)


def test_aec_seed() -> None:
    seed_test(partial(zgrid.env, small_topology(2), **CENTRALIZED), num_cycles=5)


def test_state() -> None:
    env = zgrid.parallel_env(small_topology(2), episode_steps=6, **CENTRALIZED)
    state_test(zgrid.env(small_topology(2), episode_steps=6, **CENTRALIZED), env, num_cycles=3)


def test_max_cycles() -> None:
    module = SimpleNamespace(
        parallel_env=partial(zgrid.parallel_env, small_topology(2), **CENTRALIZED),
        env=partial(zgrid.env, small_topology(2), **CENTRALIZED),
    )
    max_cycles_test(module)


def test_render() -> None:
    render_test(partial(zgrid.env, small_topology(1), **CENTRALIZED))


@pytest.mark.slow
def test_performance_benchmark_runs() -> None:
    performance_benchmark(zgrid.env(small_topology(2), **CENTRALIZED))


def test_it_is_registered_with_pettingzoo() -> None:
    if not hasattr(pettingzoo, "make"):
        pytest.skip("this PettingZoo has no registry")
    env = pettingzoo.make("parallel", "zgrid/three_microgrids_v0", centralized=True, max_cycles=3)
    observations, _ = env.reset(seed=1)
    assert list(observations) == ["mg_1", "mg_2", "mg_3"]


# ---- duties --------------------------------------------------------------------------------------------------------


def test_spaces_are_finite_and_always_the_same_object() -> None:
    env = make(2)
    for agent in env.possible_agents:
        space = env.observation_space(agent)
        assert space is env.observation_space(agent) is env.observation_spaces[agent]
        assert env.action_space(agent) is env.action_space(agent) is env.action_spaces[agent]
        assert isinstance(space, gymnasium.spaces.Box)
        assert np.isfinite(space.low).all()
        assert np.isfinite(space.high).all()
        assert space.dtype == np.float32


def test_names_tell_what_each_entry_is() -> None:
    env = make()
    observations, _ = env.reset(seed=3, options={"day": 10})
    names = env.observation_names("mg_1")
    values = dict(zip(names, observations["mg_1"], strict=True))
    assert values["mg_1.ess_1.state.soc"] == 0.5
    assert values["hour_cos"] == 1.0
    assert 0.9 < values["vm_pu[675]"] < 1.1
    assert env.action_names("mg_1") == ("mg_1.dg_1.p_mw", "mg_1.dg_1.q_mvar", "mg_1.pv_1.p_mw", "mg_1.ess_1.p_mw")


def test_nothing_starts_before_reset() -> None:
    env = zgrid.parallel_env(small_topology())  # message_broker: zmq
    assert env._execution is None
    assert env.stats() == {"messages": {}, "bytes": {}, "refused": {}, "latency_ms": {}, "links": []}
    env.close()


def test_an_action_sets_the_devices_in_the_order_of_the_file() -> None:
    env = make()
    env.reset(options={"day": 100})
    # dg_1 p of 0..0.6 and q of -1..1 Mvar, pv_1 p of 0..0.3 (night: nothing), ess_1 p of -0.3..0.3
    env.step({"mg_1": np.array([0.5, 0.25, 1.0, -0.5])})
    row = env.snapshot()
    assert row["mg_1.dg_1.p_mw"] == pytest.approx(0.45)
    assert row["mg_1.dg_1.q_mvar"] == pytest.approx(0.25)
    assert row["mg_1.pv_1.p_mw"] == 0.0
    assert row["mg_1.ess_1.p_mw"] == pytest.approx(-0.15)


def test_actions_change_network_reward_and_return() -> None:
    env = make()
    returns = []
    for action in (-1.0, 0.0, 1.0):
        env.reset(options={"day": 100})
        _, rewards, _, _, infos = env.step({"mg_1": np.full(4, action)})
        returns.append((rewards["mg_1"], infos["mg_1"]["p_pcc_mw"], infos["mg_1"]["vm_max_pu"]))
    assert len({round(reward, 6) for reward, _, _ in returns}) == 3
    assert returns[0][1] > returns[1][1] > returns[2][1], "more generation, less import"


def test_infos_carry_every_term_and_sum_to_the_reward() -> None:
    env = make()
    env.reset(options={"day": 200})
    _, rewards, _, _, infos = env.step({"mg_1": np.array([0.2, 0.0, 1.0, 0.5])})
    info = infos["mg_1"]
    costs = sum(value for name, value in info.items() if name.endswith("_cost"))
    assert rewards["mg_1"] == pytest.approx(-costs - 100.0 * info["safety"])
    assert set(info) == {
        "generation_cost", "curtailment_cost", "wear_cost", "energy_cost", "lost_load_cost", "forming_cost",
        "divergence_cost", "voltage", "overload",
        "device_limits", "safety", "p_pcc_mw", "q_pcc_mvar", "vm_min_pu", "vm_max_pu", "converged", "own_reward",
    }  # fmt: skip


def test_reset_with_a_day_fixes_it_and_seeds_repeat() -> None:
    env = make()
    first, _ = env.reset(seed=1, options={"day": 7})
    again, _ = env.reset(seed=2, options={"day": 7})
    other, _ = env.reset(seed=1, options={"day": 8})
    np.testing.assert_array_equal(first["mg_1"], again["mg_1"])
    assert not np.array_equal(first["mg_1"], other["mg_1"])
    days = [env.reset(seed=5) and env._day, env.reset() and env._day, env.reset(seed=5) and env._day]
    assert days[0] == days[2] != days[1]


def test_a_seed_of_the_constructor_survives_a_reset_without_one() -> None:
    days = []
    for _ in range(2):
        env = make(seed=42)
        days.append([env.reset() and env._day for _ in range(3)])
    assert days[0] == days[1]


def test_unknown_reset_options_do_not_raise_but_a_wrong_day_does() -> None:
    env = make()
    env.reset(options={"whatever": 1})
    with pytest.raises(ActionError, match="day 365: the data has days 0 to 364"):
        env.reset(options={"day": 365})


def test_observations_are_fresh_float32_without_nan() -> None:
    env = make()
    observations, _ = env.reset(seed=0)
    kept = observations["mg_1"].copy()
    later, *_ = env.step({"mg_1": None})
    assert observations["mg_1"].dtype == np.float32
    np.testing.assert_array_equal(observations["mg_1"], kept)
    assert observations is not later
    assert observations["mg_1"].flags.writeable
    assert np.isfinite(later["mg_1"]).all()


def test_all_agents_end_together_by_truncation() -> None:
    env = make(2, episode_steps=2)
    env.reset(seed=0)
    env.step({"mg_1": None, "mg_2": None})
    _, _, terminations, truncations, _ = env.step({"mg_1": None, "mg_2": None})
    assert terminations == {"mg_1": False, "mg_2": False}
    assert truncations == {"mg_1": True, "mg_2": True}
    assert env.agents == []
    with pytest.raises(ActionError, match="call reset"):
        env.step({"mg_1": None, "mg_2": None})


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ({}, "expected actions for mg_1"),
        ({"mg_1": None, "mg_2": None}, "expected actions for mg_1; got mg_1, mg_2"),
        ({"mg_1": np.zeros(3)}, r"action of mg_1: expected shape \(4,\), got \(3,\)"),
        ({"mg_1": np.array([0.0, np.nan, 0.0, 0.0])}, "action of mg_1: not finite"),
        ({"mg_1": np.array([0.0, np.inf, 0.0, 0.0])}, "action of mg_1: not finite"),
    ],
)
def test_a_wrong_action_is_refused_and_the_next_one_works(actions: dict[str, Any], message: str) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(ActionError, match=message):
        env.step(actions)
    env.step({"mg_1": np.zeros(4)})


def test_none_lets_the_policy_decide() -> None:
    env = make(policy="idle")
    env.reset(options={"day": 100})
    env.step({"mg_1": None})
    assert env.snapshot()["mg_1.dg_1.p_mw"] == 0.0
    busy = make(policy="random")
    busy.reset(options={"day": 100})
    busy.step({"mg_1": None})
    assert busy.snapshot()["mg_1.dg_1.p_mw"] > 0.0


def test_share_reward_gives_everybody_the_mean() -> None:
    rng = np.random.default_rng(0)
    env, shared = make(2), make(2, share_reward=True)
    env.reset(options={"day": 50})
    shared.reset(options={"day": 50})
    actions = random_actions(env, rng)
    _, own, _, _, _ = env.step(actions)
    _, mean, _, _, infos = shared.step(actions)
    assert own["mg_1"] != own["mg_2"]
    assert mean["mg_1"] == mean["mg_2"] == (own["mg_1"] + own["mg_2"]) / 2
    assert infos["mg_1"]["own_reward"] == own["mg_1"]


def test_pad_makes_spaces_equal_and_ignores_what_is_beyond() -> None:
    content = small_topology(2)
    del content["grids"]["mg_2"]["devices"]["ess_1"]
    env = zgrid.parallel_env(content, **CENTRALIZED, **{"spaces.pad": True})
    assert env.action_space("mg_1") == env.action_space("mg_2")
    assert env.observation_space("mg_1") == env.observation_space("mg_2")
    observations, _ = env.reset(options={"day": 50})
    used = len(env.observation_names("mg_2"))
    assert (observations["mg_2"][used:] == 0.0).all()
    assert (observations["mg_2"][used - 5 : used] != 0.0).any()
    env.step({"mg_1": None, "mg_2": np.array([0.0, 0.0, 0.0, 0.9])})


def test_dict_spaces_hold_discrete_actions_and_the_global_state() -> None:
    content = small_topology()
    content["grids"]["mg_1"]["devices"]["dg_1"]["commitment"] = True
    env = zgrid.parallel_env(content, **CENTRALIZED, **{"spaces.action": "dict", "spaces.observation": "dict"})
    space = env.action_space("mg_1")
    assert space["discrete"].nvec.tolist() == [2]
    assert space["continuous"].shape == (4,)
    observations, _ = env.reset(options={"day": 50})
    np.testing.assert_array_equal(observations["mg_1"]["state"], env.state())
    assert env.observation_space("mg_1").contains(observations["mg_1"])
    for on, p_mw in ((0, 0.0), (1, 0.3)):
        env.step({"mg_1": {"continuous": np.zeros(4, np.float32), "discrete": np.array([on])}})
        assert env.snapshot()["mg_1.dg_1.p_mw"] == pytest.approx(p_mw)
    with pytest.raises(ActionError, match="expected an element of"):
        env.step({"mg_1": {"continuous": np.zeros(4, np.float32), "discrete": np.array([2])}})


def test_full_observability_adds_all_voltages() -> None:
    narrow, wide = make(2), make(2, observability="full")
    assert len(wide.observation_names("mg_1")) == len(narrow.observation_names("mg_1")) + 26
    wide.reset(options={"day": 50})
    observations, *_ = wide.step({"mg_1": None, "mg_2": np.ones(4)})
    values = dict(zip(wide.observation_names("mg_1"), observations["mg_1"], strict=True))
    assert values["vm_pu[mg_2.675]"] > 0.9


def test_a_live_env_pickles_and_copies() -> None:
    env = make()
    first, _ = env.reset(seed=9)
    for other in (pickle.loads(pickle.dumps(env)), copy.deepcopy(env)):
        assert other._execution is None
        again, _ = other.reset(seed=9)
        np.testing.assert_array_equal(first["mg_1"], again["mg_1"])


def test_two_envs_live_in_one_process() -> None:
    one, two = make(), make()
    one.reset(seed=1)
    two.reset(seed=2)
    one.step({"mg_1": np.ones(4)})
    two.step({"mg_1": -np.ones(4)})
    assert one.snapshot()["mg_1.dg_1.p_mw"] != two.snapshot()["mg_1.dg_1.p_mw"]


def test_close_is_idempotent_and_reset_starts_anew() -> None:
    env = make(**{"centralized": False, **IN_MEMORY})
    first, _ = env.reset(seed=1)
    env.close()
    env.close()
    again, _ = env.reset(seed=1)
    np.testing.assert_array_equal(first["mg_1"], again["mg_1"])
    env.close()


def test_a_diverged_step_is_a_result_and_the_next_recovers() -> None:
    content = small_topology()
    content["grids"]["mg_1"]["devices"]["load_1"] = {"kind": "load", "bus": "675", "demand": "wind", "p_mw": 500.0}
    content["profiles"]["file"] = ["zgrid:simbench_2016", "zgrid:ercot_2022"]
    env = zgrid.parallel_env(content, **CENTRALIZED)
    world = env._world
    world._series[0][:, -1] = 0.0  # the load's own series: nothing, but for one hour
    world._series[0][50 * 24 + 1, -1] = 1.0
    env.reset(options={"day": 50})
    results = [env.step({"mg_1": np.zeros(4)}) for _ in range(3)]
    converged = [infos["mg_1"]["converged"] for *_, infos in results]
    assert converged == [1.0, 0.0, 1.0]
    observations, rewards, _, _, infos = results[1]
    assert rewards["mg_1"] == -200.0 - 100.0 * 20.0
    assert infos["mg_1"]["divergence_cost"] == 200.0
    assert np.isfinite(observations["mg_1"]).all()


@pytest.mark.slow
def test_used_in_a_forked_child_it_raises_instead_of_hanging(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from zgrid.errors import BrokerError\n"
        "import zgrid\n"
        "env = zgrid.parallel_env(sys.argv[1])\n"
        "env.reset(seed=0)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        "        env.step({'mg_1': None})\n"
        "    except BrokerError as error:\n"
        "        os._exit(7 if 'make a new environment' in str(error) else 8)\n"
        "    os._exit(9)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\n"
        "env.step({'mg_1': None})\n"
        "env.close()\n"
        "print('fine')\n"
    )
    file = tmp_path / "small.yaml"
    file.write_text(json.dumps(small_topology()))
    run = subprocess.run(
        [sys.executable, "-c", script, str(file)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.stdout.strip() == "fine", run.stderr


def test_state_tells_devices_network_and_series() -> None:
    env = make()
    env.reset(options={"day": 100})
    before = env.state()
    env.step({"mg_1": np.ones(4)})
    after = env.state()
    assert before.shape == after.shape == env.state_space.shape
    assert after[0] == pytest.approx(0.6), "p_mw of the first device"
    assert not np.array_equal(before, after)


def test_grid_without_controls_of_a_kind_keeps_the_others() -> None:
    content = small_topology()
    content["grids"]["mg_1"]["devices"] = {"pv_1": GRID["devices"]["pv_1"]}
    env = zgrid.parallel_env(content, **CENTRALIZED)
    assert env.action_space("mg_1").shape == (1,)
