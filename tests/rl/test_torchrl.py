"""TorchRL: the batched env is the copies, MAPPO learns, resumes to the bit, and plays in the grids what it learnt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

torch = pytest.importorskip("torch", reason="needs torch: pip install 'zgrid[torchrl]'")
pytest.importorskip("torchrl", reason="needs torchrl: pip install 'zgrid[torchrl]'")

from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs

from zgrid.environment import NetworkedGridEnv
from zgrid.errors import CheckpointError, TopologyError
from zgrid.rl.export import export
from zgrid.rl.torchrl import GROUP, Settings, TorchGridEnv, Trainer, one_thread
from zgrid.topology import load
from zgrid.vector import NetworkedVectorEnv

TOPOLOGY = load("3mg")
SMALL = Settings(num_envs=8, epochs=2, minibatch=64)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    one_thread()


def same(one: Trainer, other: Trainer) -> bool:
    mine, theirs = one.loss.state_dict(), other.loss.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


class TestEnv:
    def test_its_specs_are_what_it_tells(self) -> None:
        check_env_specs(TorchGridEnv(TOPOLOGY, 2))

    def test_a_day_is_a_day_of_the_copies(self) -> None:
        env, copies = TorchGridEnv(TOPOLOGY, 3), NetworkedVectorEnv(TOPOLOGY, 3)
        env.set_days(11)
        told = env.reset()
        observations, _ = copies.reset(seed=11)
        rng = np.random.default_rng(0)
        for step in range(24):
            for k, grid in enumerate(copies.agents):
                assert np.array_equal(told[GROUP, "observation"][:, k].numpy(), observations[grid])
            assert np.array_equal(told["state"].numpy(), copies.state())
            action = rng.uniform(-1.0, 1.0, (3, 3, 5)).astype(np.float32)
            acted = TensorDict({GROUP: TensorDict({"action": torch.from_numpy(action)}, (3, 3))}, (3,))
            told = env.step(acted)["next"]
            chosen = {grid: action[:, k] for k, grid in enumerate(copies.agents)}
            observations, rewards, *_ = copies.step(chosen)
            for k, grid in enumerate(copies.agents):
                assert told[GROUP, "reward"][:, k, 0].numpy() == pytest.approx(rewards[grid], rel=1e-6)
            assert bool(told["terminated"].all()) is (step == 23)

    def test_refuses_what_has_no_copies(self) -> None:
        with pytest.raises(TopologyError, match="copies do not talk"):
            TorchGridEnv(load("3mg", {"horizontal": "average_consensus"}), 2)


class TestTraining:
    def test_learns(self) -> None:
        trainer = Trainer(TOPOLOGY, Settings(num_envs=32, minibatch=256), seed=1)
        returns = [trainer.train() for _ in range(15)]
        assert np.mean(returns[-3:]) > np.mean(returns[:3]) + 800.0

    def test_gives_the_same_curve_again_and_another_with_another_seed(self) -> None:
        one, two, other = (Trainer(TOPOLOGY, SMALL, seed) for seed in (5, 5, 6))
        assert [one.train() for _ in range(2)] == [two.train() for _ in range(2)]
        assert same(one, two)
        assert one.mean_return != [other.train() for _ in range(2)][-1]

    def test_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(self, tmp_path: Path) -> None:
        whole, broken = Trainer(TOPOLOGY, SMALL), Trainer(TOPOLOGY, SMALL)
        curve = [whole.train() for _ in range(4)]
        for _ in range(2):
            broken.train()
        broken.save(tmp_path / "saved")
        resumed = Trainer.resume(tmp_path / "saved", TOPOLOGY)
        assert [resumed.train() for _ in range(2)] == curve[2:]
        assert (resumed.iteration, resumed.env_steps) == (whole.iteration, whole.env_steps) == (4, 4 * 8 * 24)
        assert same(resumed, whole)
        assert torch.equal(resumed.actor.body[0].weight, whole.actor.body[0].weight)

    def test_does_not_go_on_with_another_topology(self, tmp_path: Path) -> None:
        Trainer(TOPOLOGY, SMALL).save(tmp_path / "saved")
        with pytest.raises(CheckpointError, match="trained on grids"):
            Trainer.resume(tmp_path / "saved", load("1mg"))


def played(topology: Any, act: Any) -> float:
    """The return of three days."""
    env = NetworkedGridEnv(topology, {"centralized": True})
    total = 0.0
    for day in (10, 100, 200):
        observations, _ = env.reset(seed=0, options={"day": day})
        while env.agents:
            actions = {agent: act(observations[agent]) for agent in env.agents}
            observations, rewards, *_ = env.step(actions)
            total += sum(rewards.values())
    return total


def test_a_node_earns_what_the_trainers_actor_earns(tmp_path: Path) -> None:
    trainer = Trainer(TOPOLOGY, SMALL)
    for _ in range(3):
        trainer.train()
    trainer.save(tmp_path / "saved")
    (file,) = export(tmp_path / "saved", tmp_path / "policy.onnx")

    def act(observation: Any) -> Any:
        with torch.no_grad():
            return trainer.actor(torch.from_numpy(observation)).clamp(-1.0, 1.0).numpy()

    by_node = played(load("3mg", {"policy": f"onnx:{file}"}), lambda observation: None)
    assert by_node == pytest.approx(played(TOPOLOGY, act), rel=1e-5)
    assert by_node != pytest.approx(played(load("3mg", {"policy": "idle"}), lambda observation: None), rel=1e-3)


def test_the_example_trains_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "examples/torchrl_mappo.py", "--test"]
    saved = str(tmp_path / "saved")
    first = subprocess.run([*command, "--checkpoint-dir", saved], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert first.returncode == 0, first.stderr
    assert f"zgrid export {saved} policy.onnx" in first.stdout
    assert len((tmp_path / "saved" / "curve.csv").read_text().splitlines()) == 4
    again = subprocess.run([*command, "--resume", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (again.returncode, again.stdout) == (2, "")
    assert "holds something else than a checkpoint" in again.stderr
