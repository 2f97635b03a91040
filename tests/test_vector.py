"""Many copies in one process are as many single envs, in numbers, seeds and episodes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from conftest import small_topology
from devices.test_acting import all_kinds
from gymnasium.vector import AutoresetMode

import zgrid
from zgrid.agents.reward import Economic
from zgrid.errors import ActionError, TopologyError
from zgrid.messages import DeviceState, NetworkState
from zgrid.topology import load
from zgrid.vector import NetworkedVectorEnv, vector_env

COPIES, STEPS = 3, 5


def actions_of(env: NetworkedVectorEnv, rng: np.random.Generator) -> dict[str, Any]:
    return {a: rng.uniform(-1.2, 1.2, env.action_space(a).shape).astype(np.float32) for a in env.agents}


class Singles:
    """As many single envs, begun anew when they are over as gymnasium's copies are."""

    def __init__(self, topology: Any, **overrides: Any) -> None:
        loaded = load(topology, {"centralized": True, **overrides})
        self.envs = [zgrid.parallel_env(loaded) for _ in range(COPIES)]

    def reset(self, seed: int | None, options: list[Any] | None = None) -> list[Any]:
        seeds = [None if seed is None else seed + k for k in range(COPIES)]
        given = options or [None] * COPIES
        return [e.reset(seed=s, options=o) for e, s, o in zip(self.envs, seeds, given, strict=True)]

    def step(self, actions: dict[str, Any]) -> list[Any]:
        results = []
        for k, env in enumerate(self.envs):
            if env.agents:
                results.append(env.step({agent: action[k] for agent, action in actions.items()}))
            else:
                observations, infos = env.reset()
                agents = env.possible_agents
                results.append((observations, dict.fromkeys(agents, 0.0), *(dict.fromkeys(agents, False),) * 2, infos))
        return results


def assert_same(found: tuple[Any, ...], expected: list[Any]) -> None:
    for part, mine in enumerate(found):
        for agent, values in mine.items():
            for k in range(COPIES):
                other = expected[k][part][agent]
                if isinstance(values, dict):
                    assert values.keys() == other.keys()
                    for name, value in values.items():
                        assert value[k] == pytest.approx(other[name], abs=1e-7), name
                else:
                    np.testing.assert_allclose(values[k], other, rtol=0.0, atol=1e-7)


TOPOLOGIES: dict[str, Any] = {
    "3mg": ("3mg", {}),
    "3mg_reference": ("3mg_reference", {}),
    "shared reward": ("3mg", {"share_reward": True, "spaces.pad": True}),
    "all kinds": (all_kinds(), {}),
    "runpp": (small_topology(), {"power_flow.kind": "runpp"}),
    "diverging": (
        small_topology(),
        {f"grids.mg_1.devices.ess_1.{key}": 40.0 for key in ("p_max_mw", "s_rated_mva", "capacity_mwh")},
    ),
}


SLOW = ("runpp", "all kinds")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in TOPOLOGIES]
)
def test_copies_are_single_envs(name: str) -> None:
    topology, overrides = TOPOLOGIES[name]
    overrides = {**overrides, "episode_steps": STEPS}
    env, singles = vector_env(topology, COPIES, **overrides), Singles(topology, **overrides)
    rng = np.random.default_rng(1)
    assert_same(env.reset(seed=7), singles.reset(7))
    diverged = 0
    for _ in range(2 * STEPS + 3):  # over the end of two episodes
        actions = actions_of(env, rng)
        found = env.step(actions)
        assert_same(found, singles.step(actions))
        states = [single.state() for single in singles.envs]
        np.testing.assert_allclose(env.state(), states, rtol=0.0, atol=1e-7)
        diverged += sum((info["converged"] == 0.0).sum() for info in found[4].values())
    assert (diverged > 0) == (name == "diverging")


def test_spaces_are_those_of_gymnasium_vector() -> None:
    env = vector_env("3mg", 3)
    single = zgrid.parallel_env("3mg", centralized=True)
    observations, _ = env.reset(seed=0)
    for agent in env.agents:
        assert env.single_observation_space(agent) == single.observation_space(agent)
        assert env.single_action_space(agent) == single.action_space(agent)
        assert env.observation_space(agent).shape == (3, *single.observation_space(agent).shape)
        assert env.observation_space(agent).contains(observations[agent])
        assert observations[agent].dtype == np.float32
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert env.state().shape == (3, *env.state_space.shape)


def test_an_episode_that_is_over_begins_with_the_next_step() -> None:
    env = vector_env("3mg", 2, episode_steps=2)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    env.step(actions_of(env, rng))
    _, _, terminations, truncations, _ = env.step(actions_of(env, rng))
    assert truncations["mg_1"].tolist() == [True, True]
    assert terminations["mg_1"].tolist() == [False, False]
    _, rewards, _, truncations, infos = env.step(actions_of(env, rng))
    assert truncations["mg_1"].tolist() == [False, False]
    assert rewards["mg_1"].tolist() == [0.0, 0.0]
    assert infos["mg_1"]["energy_cost"].tolist() == [0.0, 0.0]
    _, rewards, *_ = env.step(actions_of(env, rng))
    assert (rewards["mg_1"] < 0.0).all()


def test_a_mask_resets_only_its_copies() -> None:
    env = vector_env("3mg", 3, episode_steps=4)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    env.step(actions_of(env, rng))
    stepped, _, _, _, told = env.step(actions_of(env, rng))
    before = env.state()
    observations, infos = env.reset(seed=[None, 11, None], options={"reset_mask": np.array([False, True, False])})
    after, alone = env.state(), vector_env("3mg", 1, episode_steps=4)
    alone.reset(seed=np.int64(11))
    same = partial(np.testing.assert_allclose, rtol=0.0, atol=1e-7)  # without numba, copies iterate together
    same(after[1], alone.state()[0])
    assert not np.array_equal(after[1], before[1])
    same(after[[0, 2]], before[[0, 2]])
    for agent in env.agents:
        same(observations[agent][[0, 2]], stepped[agent][[0, 2]])
        for name, values in infos[agent].items():
            same(values[[0, 2]], told[agent][name][[0, 2]])
        assert infos[agent]["energy_cost"][1] == infos[agent]["own_reward"][1] == 0.0
    for _ in range(2):
        _, _, _, truncations, _ = env.step(actions_of(env, rng))
    assert truncations["mg_1"].tolist() == [True, False, True]


def test_days_can_be_fixed() -> None:
    env, singles = vector_env("3mg", COPIES), Singles("3mg")
    days = [3, 120, 364]
    found = env.reset(seed=1, options={"day": days})
    assert_same(found, singles.reset(1, [{"day": day} for day in days]))
    with pytest.raises(ActionError, match="day"):
        env.reset(options={"day": 365})


def test_equal_seeds_give_equal_bytes() -> None:
    runs = []
    for _ in range(2):
        env = vector_env("3mg", 40)  # more than one thread has rows
        env.reset(seed=5)
        rng = np.random.default_rng(2)
        results = [env.step(actions_of(env, rng)) for _ in range(3)]
        runs.append(b"".join(array.tobytes() for result in results for part in result[:2] for array in part.values()))
    assert runs[0] == runs[1]


class LoopReward(Economic):
    """A reward of a user, who thought of single steps only."""

    def assess(self, states: Any, network: Any, price: float) -> Any:
        assert isinstance(price, float)
        assert all(type(x) is float for state in states for x in state[:4])
        return super().assess(states, network, price)

    assess_rows = zgrid.agents.reward.Reward.assess_rows


def test_a_reward_that_knows_no_batches_is_called_row_by_row() -> None:
    env, other = (vector_env("3mg", 3, reward={"kind": kind}) for kind in (f"{__name__}:LoopReward", "economic"))
    env.reset(seed=0)
    other.reset(seed=0)
    actions = actions_of(env, np.random.default_rng(0))
    _, mine, _, _, infos = env.step(actions)
    _, expected, _, _, others = other.step(actions)
    for agent in env.agents:
        np.testing.assert_array_equal(mine[agent], expected[agent])
        for name in others[agent]:
            np.testing.assert_array_equal(infos[agent][name], others[agent][name], name)


def test_what_a_diverged_step_costs_is_the_same_in_rows() -> None:
    from zgrid.agents.reward import EconomicConfig

    reward = Economic(EconomicConfig(), ("wear_cost",), 1.0)
    bad = np.full((2, 3), np.nan)
    bad[1] = (1.0, 50.0, 50.0)
    one = np.ones(2)
    network = NetworkState(np.array([False, True]), (1, 1, 1), bad, one, one, one, one, (), (one,), (one, one))
    value, terms = reward.assess_rows([DeviceState(one, one, one, one, ())], network, 30.0 * one)
    assert value[0] == -200.0 - 10.0 * 20.0
    assert dict(zip(reward.term_names, (term[0] for term in terms), strict=True))["divergence_cost"] == 200.0
    alone = NetworkState(True, (1, 1, 1), bad[1], 1.0, 1.0, 1.0, 1.0, (), (1.0,), (1.0, 1.0))
    assert (value[1], tuple(term[1] for term in terms)) == reward.assess(
        [DeviceState(1.0, 1.0, 1.0, 1.0, ())], alone, 30.0
    )


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        ({"horizontal": "average_consensus"}, "horizontal"),
        ({"spaces.action": "dict"}, "spaces.action"),
        ({"spaces.observation": "dict"}, "spaces.observation"),
    ],
)
def test_what_copies_cannot_do_is_refused(overrides: dict[str, Any], where: str) -> None:
    with pytest.raises(TopologyError, match=where):
        vector_env("3mg", 2, **overrides)


def test_bad_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="num_envs"):
        vector_env("3mg", 0)
    env = vector_env("3mg", 2)
    actions = actions_of(env, np.random.default_rng(0))
    with pytest.raises(ActionError, match="reset"):
        env.step(actions)
    with pytest.raises(ActionError, match="reset"):
        env.state()
    with pytest.raises(ActionError, match="first reset"):
        env.reset(options={"reset_mask": [True, False]})
    env.reset(seed=0)
    with pytest.raises(ActionError, match="seeds"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ActionError, match="reset_mask"):
        env.reset(options={"reset_mask": [True]})
    with pytest.raises(ActionError, match="mg_2"):
        env.step({"mg_1": actions["mg_1"]})
    with pytest.raises(ActionError, match="shape"):
        env.step({**actions, "mg_1": actions["mg_1"][:1]})
    with pytest.raises(ActionError, match="finite"):
        env.step({**actions, "mg_1": np.full_like(actions["mg_1"], np.nan)})
