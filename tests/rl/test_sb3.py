"""Stable-Baselines3: a row is a grid of an env, days end as they should, PPO learns, resumes exactly, is exported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

torch = pytest.importorskip("torch", reason="needs torch: pip install 'zgrid[sb3]'")
pytest.importorskip("stable_baselines3", reason="needs stable_baselines3: pip install 'zgrid[sb3]'")
pytest.importorskip("onnx", reason="needs onnx: pip install 'zgrid[sb3]'")
ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'zgrid[onnx]'")

from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import set_random_seed

import zgrid.rl.sb3 as home
from zgrid.environment import NetworkedGridEnv, parallel_env
from zgrid.errors import ActionError, CheckpointError, TopologyError
from zgrid.rl.export import export
from zgrid.rl.sb3 import GridVecEnv, Settings, Trainer, actor_of, one_thread, policy_kwargs
from zgrid.rl.scaling import Scaling, measure
from zgrid.topology import load
from zgrid.vector import NetworkedVectorEnv

TOPOLOGY = load("3mg")
CENTRALIZED = load("3mg", {"centralized": True})
IN_MEMORY = load("3mg", {"message_broker": "in_memory"})
SMALL = Settings(days=8, epochs=2, minibatch=64)
ONE_ENV = Settings(days=1, copies=False, epochs=2)
UNEVEN = load("3mg", {"grids.mg_2.devices.pv_2": {"kind": "renewable", "bus": "675", "availability": "solar",
                                                  "p_max_mw": 0.1, "s_rated_mva": 0.1}})  # fmt: skip
MEASURED: dict[tuple[str, int], Scaling] = {}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the scaling of a topology, which takes seconds, is measured once and shortly: the mode does not matter."""
    one_thread()

    def measured(topology: Any) -> Scaling:
        key = (topology.hash(), topology.episode_steps)
        if key not in MEASURED:
            MEASURED[key] = measure(topology, episodes=4)
        return MEASURED[key]

    monkeypatch.setattr(home, "measure", measured)


@pytest.fixture
def copies() -> GridVecEnv:
    return GridVecEnv(NetworkedVectorEnv(TOPOLOGY, 4))


def same(one: Trainer, other: Trainer) -> bool:
    mine, theirs = (trainer.model.get_parameters() for trainer in (one, other))
    moments = [
        (a["state"][k][name], b["state"][k][name])
        for a, b in [(mine["policy.optimizer"], theirs["policy.optimizer"])]
        for k in a["state"]
        for name in a["state"][k]
    ]
    weights = [(mine["policy"][key], theirs["policy"][key]) for key in mine["policy"]]
    return all(torch.equal(a, b) for a, b in weights + moments)


def by_hand(env: NetworkedGridEnv, actions: Any, seed: int) -> Iterator[Any]:
    """What a single env shows of its grids, begun anew where its day ends: observation, last one, rewards, infos."""
    observations, _ = env.reset(seed=seed)
    yield observations, None, None, None
    for rows in actions:
        seen, rewards, _, over, infos = env.step({grid: rows[k] for k, grid in enumerate(env.possible_agents)})
        last = seen if all(over.values()) else None
        yield (env.reset()[0] if last else seen), last, rewards, infos


class TestVecEnv:
    @pytest.mark.parametrize(
        ("make", "n", "tolerance"),
        [
            (lambda: NetworkedVectorEnv(TOPOLOGY, 2), 2, 1e-6),
            (lambda: NetworkedGridEnv(CENTRALIZED), 1, 0.0),
            (lambda: NetworkedGridEnv(IN_MEMORY), 1, 0.0),
        ],
        ids=["copies", "centralized", "in_memory"],
    )
    def test_a_row_is_a_grid_of_an_env_that_is_stepped_by_hand(self, make: Any, n: int, tolerance: float) -> None:
        """Three days, so two ends and beginnings: nothing is skipped, and no action is lost."""
        env = GridVecEnv(make(), reward_std=10.0)
        assert env.seed(40) == [40 + copy for copy in range(n) for _ in range(3)]
        rng = np.random.default_rng(0)
        actions = rng.uniform(-1.0, 1.0, (50, n, 3, 5)).astype(np.float32)
        plays = [by_hand(NetworkedGridEnv(CENTRALIZED), actions[:, copy], 40 + copy) for copy in range(n)]
        seen = env.reset()
        assert seen.dtype == np.float32
        for copy, play in enumerate(plays):
            wanted = np.array(list(next(play)[0].values()))
            assert seen[3 * copy : 3 * copy + 3] == pytest.approx(wanted, rel=tolerance, abs=tolerance)
        earned = np.zeros(3 * n)
        for step, action in enumerate(actions):
            seen, rewards, done, infos = env.step(action.reshape(3 * n, 5))
            assert (rewards.dtype, rewards.shape, done.dtype) == (np.float32, (3 * n,), np.bool_)
            assert list(done) == [step % 24 == 23] * 3 * n
            for copy, play in enumerate(plays):
                fresh, last, gained, told = next(play)
                for k, grid in enumerate(fresh):
                    row = 3 * copy + k
                    assert np.allclose(seen[row], fresh[grid], rtol=tolerance, atol=tolerance)
                    assert np.isclose(rewards[row], gained[grid] / 10.0, rtol=1e-5, atol=1e-6)
                    wanted = list(told[grid].values())
                    assert np.allclose([infos[row][name] for name in told[grid]], wanted, rtol=1e-5, atol=1e-5)
                    earned[row] += gained[grid]
                    if last is None:
                        assert "terminal_observation" not in infos[row]
                        continue
                    ended = infos[row]["terminal_observation"]
                    assert ended == pytest.approx(last[grid], rel=tolerance, abs=tolerance)
                    assert infos[row]["TimeLimit.truncated"] is False
                    assert infos[row]["episode"] == {"r": pytest.approx(earned[row], rel=1e-5), "l": 24}
                    earned[row] = 0.0

    def test_a_day_of_copies_is_begun_as_the_copies_themselves_begin_it(self, copies: GridVecEnv) -> None:
        plain = NetworkedVectorEnv(TOPOLOGY, 4)
        copies.seed(7)
        copies.reset()
        plain.reset(seed=7)
        still = np.zeros((12, 5), dtype=np.float32)
        for _ in range(24):
            seen, *_ = copies.step(still)
            plain.step({grid: np.zeros((4, 5)) for grid in plain.agents})
        fresh, *_ = plain.step({grid: np.ones((4, 5)) for grid in plain.agents})  # these actions are ignored
        assert np.array_equal(seen.reshape(4, 3, 44), np.stack([fresh[grid] for grid in plain.agents], 1))

    def test_attributes_and_methods_are_those_of_the_source(self, copies: GridVecEnv) -> None:
        assert copies.get_attr("topology") == [TOPOLOGY] * 12
        assert copies.get_attr("topology", [0, 5]) == [TOPOLOGY] * 2
        assert copies.get_attr("render_mode", 3) == [None]
        assert not copies.has_attr("colour")
        copies.set_attr("colour", "red")
        assert copies.source.colour == "red"
        with pytest.raises(ValueError, match="rows share one env"):
            copies.set_attr("colour", "blue", [1])
        assert copies.env_method("single_action_space", "mg_1", indices=[0, 1]) == [copies.action_space] * 2
        assert copies.env_is_wrapped(Monitor) == [False] * 12
        assert copies.env_is_wrapped(Monitor, 2) == [False]

    def test_a_render_mode_is_that_of_the_single_env(self) -> None:
        env = GridVecEnv(NetworkedGridEnv(CENTRALIZED, render_mode="ansi"))
        env.reset()
        assert env.render_mode == "ansi"
        assert env.render() is None

    def test_seeds_are_used_once_and_none_is_a_drawn_one(self, copies: GridVecEnv) -> None:
        copies.seed(1)
        one, two = copies.reset(), copies.reset()
        copies.seed(1)
        assert np.array_equal(copies.reset(), one)
        assert not np.array_equal(one, two)
        set_random_seed(3)
        drawn = copies.seed()
        set_random_seed(3)
        assert copies.seed() == drawn

    def test_options_choose_the_day_of_the_next_reset(self, copies: GridVecEnv) -> None:
        copies.set_options({"day": 10})
        seen = copies.reset().reshape(4, 3, 44)
        wanted, _ = NetworkedGridEnv(CENTRALIZED).reset(options={"day": 10})
        for row in seen:
            assert row == pytest.approx(np.array(list(wanted.values())), rel=1e-6, abs=1e-6)
        assert not np.array_equal(copies.reset().reshape(4, 3, 44), seen)
        with pytest.raises(ValueError, match="expected one dict"):
            copies.set_options([{"day": 10}] * 12)

    def test_a_seed_for_ppo_itself_works_too(self, tmp_path: Path) -> None:
        weights = []
        for _ in range(2):
            env = GridVecEnv(NetworkedVectorEnv(TOPOLOGY, 2), reward_std=50.0)
            model = PPO("MlpPolicy", env, n_steps=24, batch_size=144, n_epochs=1, seed=3, device="cpu")
            model.set_logger(Logger(None, []))
            model.learn(300)
            assert model.ep_info_buffer[0]["l"] == 24
            weights.append(model.policy.action_net.weight)
        assert torch.equal(*weights)


class TestBadInput:
    @pytest.mark.parametrize("make", [lambda topology: NetworkedVectorEnv(topology, 2), NetworkedGridEnv])
    def test_grids_of_different_sizes_need_padding(self, make: Any) -> None:
        with pytest.raises(TopologyError, match=r"grids of 2 sizes .* spaces\.pad: true makes them equal"):
            GridVecEnv(make(load(UNEVEN, {"centralized": True})))
        env = GridVecEnv(make(load(UNEVEN, {"centralized": True, "spaces.pad": True})))
        env.reset()
        assert env.action_space.shape == (6,)
        env.step(np.zeros((env.num_envs, 6), dtype=np.float32))

    @pytest.mark.parametrize("key", ["action", "observation"])
    def test_spaces_are_flat(self, key: str) -> None:
        with pytest.raises(TopologyError, match="expected observation: flat, action: flat"):
            GridVecEnv(NetworkedGridEnv(load(CENTRALIZED, {f"spaces.{key}": "dict"})))

    def test_copies_do_not_talk(self) -> None:
        with pytest.raises(TopologyError, match="copies do not talk"):
            Trainer(load("3mg", {"horizontal": "average_consensus"}), SMALL)

    def test_a_step_needs_a_reset_and_actions(self, copies: GridVecEnv) -> None:
        with pytest.raises(ActionError, match="call reset"):
            copies.step(np.zeros((12, 5), dtype=np.float32))
        copies.reset()
        with pytest.raises(ActionError, match="call step_async"):
            copies.step_wait()

    def test_a_policy_of_another_make_is_no_actor(self, copies: GridVecEnv) -> None:
        model = PPO("MlpPolicy", copies, n_steps=24, batch_size=144, device="cpu")
        with pytest.raises(CheckpointError, match=r"expected policy_kwargs=zgrid\.rl\.sb3\.policy_kwargs"):
            actor_of(model)


class TestTraining:
    def test_learns(self) -> None:
        trainer = Trainer(TOPOLOGY, Settings(days=32, minibatch=768), seed=1)
        returns = [trainer.train() for _ in range(15)]
        assert np.mean(returns[-3:]) > np.mean(returns[:3]) + 600.0

    def test_gives_the_same_curve_again_and_another_with_another_seed(self) -> None:
        one, two, other = (Trainer(TOPOLOGY, SMALL, seed) for seed in (5, 5, 6))
        assert [one.train() for _ in range(2)] == [two.train() for _ in range(2)]
        assert same(one, two)
        assert one.mean_return != [other.train() for _ in range(2)][-1]

    def test_gives_the_same_curve_in_every_mode(self) -> None:
        direct, brokered = Trainer(CENTRALIZED, ONE_ENV), Trainer(IN_MEMORY, ONE_ENV)
        with closing(direct), closing(brokered):
            assert [direct.train() for _ in range(3)] == [brokered.train() for _ in range(3)]
            assert same(direct, brokered)

    @pytest.mark.slow
    @pytest.mark.usefixtures("no_leftovers")
    def test_gives_the_same_curve_over_zmq(self) -> None:
        direct, distributed = Trainer(CENTRALIZED, ONE_ENV), Trainer(TOPOLOGY, ONE_ENV)
        with closing(direct), closing(distributed):
            assert [direct.train() for _ in range(3)] == [distributed.train() for _ in range(3)]
            assert same(direct, distributed)

    def test_the_mean_return_is_that_of_the_days_played(self) -> None:
        trainer = Trainer(TOPOLOGY, SMALL)
        earned: list[float] = []
        step_wait = trainer.env.step_wait

        def watched() -> Any:
            told = step_wait()
            earned.extend(info["episode"]["r"] for info in told[3] if "episode" in info)
            return told

        trainer.env.step_wait = watched  # type: ignore[method-assign]
        assert trainer.train() == pytest.approx(sum(earned) / 8, rel=1e-6)
        assert len(earned) == 8 * 3
        assert (trainer.env_steps, trainer.model.num_timesteps) == (8 * 24, 8 * 24 * 3)

    def test_minibatches_are_of_equal_size(self) -> None:
        trainer = Trainer(load("3mg", {"episode_steps": 23}), Settings(days=7, minibatch=100))
        assert trainer.model.batch_size == 69  # of 7 x 23 x 3


class TestCheckpoint:
    @pytest.mark.parametrize(("topology", "settings"), [(TOPOLOGY, SMALL), (CENTRALIZED, ONE_ENV)])
    def test_goes_on_as_if_it_had_not_stopped(self, tmp_path: Path, topology: Any, settings: Settings) -> None:
        whole, broken = Trainer(topology, settings), Trainer(topology, settings)
        curve = [whole.train() for _ in range(4)]
        for _ in range(2):
            broken.train()
        broken.save(tmp_path / "saved")
        resumed = Trainer.resume(tmp_path / "saved", topology)
        assert resumed.settings == settings
        assert [resumed.train() for _ in range(2)] == curve[2:]
        assert (resumed.iteration, resumed.env_steps) == (whole.iteration, whole.env_steps)
        assert resumed.model.num_timesteps == whole.model.num_timesteps
        assert same(resumed, whole)

    def test_is_refused_where_it_does_not_fit(self, tmp_path: Path) -> None:
        Trainer(TOPOLOGY, SMALL).save(tmp_path / "saved")
        with pytest.raises(CheckpointError, match="trained on grids"):
            Trainer.resume(tmp_path / "saved", load("1mg"))
        with pytest.raises(CheckpointError, match="mg_2 had 5 controls"):
            Trainer.resume(tmp_path / "saved", UNEVEN)

    def test_is_refused_where_it_is_damaged_or_of_another_trainer(self, tmp_path: Path) -> None:
        folder = tmp_path / "saved"
        Trainer(TOPOLOGY, SMALL).save(folder)
        (folder / "model.zip").write_bytes(b"no zip")
        with pytest.raises(CheckpointError, match=r"model\.zip: no model that can be read"):
            Trainer.resume(folder)
        (folder / "settings.json").write_text("{}")
        with pytest.raises(CheckpointError, match=r"settings\.json: no settings that can be read"):
            Trainer.resume(folder)
        (folder / "model.zip").unlink()
        with pytest.raises(CheckpointError, match="not of sb3"):
            Trainer.resume(folder)

    def test_its_file_acts_as_the_model_predicts(self, tmp_path: Path) -> None:
        trainer = Trainer(TOPOLOGY, SMALL)
        trainer.train()
        torch.nn.init.normal_(trainer.model.policy.action_net.weight, 0.0, 0.7)
        trainer.save(tmp_path / "saved")
        (file,) = export(tmp_path / "saved", tmp_path / "policy.onnx")
        scaling = home.measure(TOPOLOGY).observation
        rng = np.random.default_rng(0)
        seen = (scaling.mean + 3.0 * rng.normal(size=(200, 44)) * scaling.std).astype(np.float32)
        (acted,) = ort.InferenceSession(str(file)).run(None, {"observation": seen})
        wanted, _ = trainer.model.predict(seen, deterministic=True)
        assert acted == pytest.approx(wanted, abs=1e-5)
        assert (np.abs(acted) == 1.0).any()
        assert (np.abs(acted) < 1.0).any()
        again, _ = PPO.load(tmp_path / "saved" / "model.zip", device="cpu").predict(seen, deterministic=True)
        assert np.array_equal(again, wanted)


def test_a_small_network_is_an_actor_as_well(copies: GridVecEnv) -> None:
    kwargs = policy_kwargs(home.measure(TOPOLOGY).observation, hidden=(16,))
    model = PPO("MlpPolicy", copies, n_steps=24, batch_size=288, policy_kwargs=kwargs, device="cpu")
    seen = copies.reset()
    with torch.no_grad():
        acted = actor_of(model)(torch.from_numpy(seen)).numpy()
    assert acted == pytest.approx(model.predict(seen, deterministic=True)[0], abs=1e-6)


def test_supersuit_makes_a_vec_env_of_it_as_well() -> None:
    """The seed is one of the env: the wrapped one has no ``seed`` for PPO to call."""
    supersuit = pytest.importorskip("supersuit", reason="needs supersuit: pip install supersuit")
    weights = []
    for _ in range(2):
        env = supersuit.pettingzoo_env_to_vec_env_v1(parallel_env("3mg", centralized=True, seed=5))
        env = supersuit.concat_vec_envs_v1(env, 2, num_cpus=1, base_class="stable_baselines3")
        set_random_seed(0)
        model = PPO("MlpPolicy", env, n_steps=48, batch_size=96, n_epochs=2, device="cpu")
        model.set_logger(Logger(None, []))
        before = model.policy.action_net.weight.detach().clone()
        model.learn(500)
        assert model.num_timesteps == 2 * 2 * 3 * 48
        assert not torch.equal(model.policy.action_net.weight, before)
        weights.append(model.policy.action_net.weight)
    assert torch.equal(*weights)


class TestTheExample:
    def run(self, *arguments: str) -> Any:
        command = [sys.executable, "examples/sb3_ppo.py", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)

    def test_trains_and_says_what_is_next(self, tmp_path: Path) -> None:
        saved = str(tmp_path / "saved")
        first = self.run("--test", "--checkpoint-dir", saved)
        assert first.returncode == 0, first.stderr
        assert f"zgrid export {saved} policy.onnx" in first.stdout
        assert len((tmp_path / "saved" / "curve.csv").read_text().splitlines()) == 4

    def test_ends_with_2_and_one_line_where_it_cannot(self, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("mine")
        run = self.run("--test", "--resume", str(tmp_path))
        assert (run.returncode, run.stdout) == (2, "")
        assert "holds something else than a checkpoint" in run.stderr
        run = self.run("--num-envs", "0")
        assert run.returncode == 2
        assert "expected at least 1" in run.stderr
