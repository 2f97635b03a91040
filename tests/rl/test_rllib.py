"""RLlib: the same curve to the bit in every mode, by any number of runners, after a resume; and nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT, descendants, is_alive, small_topology, wait_until

torch = pytest.importorskip("torch", reason="needs torch: pip install 'zgrid[rllib]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'zgrid[rllib]'")
pytest.importorskip("onnx", reason="needs onnx: pip install 'zgrid[rllib]'")
pytest.importorskip("ray.rllib", reason="needs ray[rllib]: pip install 'zgrid[rllib]'", exc_type=ImportError)

import ray

from zgrid.environment import NetworkedGridEnv
from zgrid.errors import CheckpointError
from zgrid.rl.export import export
from zgrid.rl.rllib import GridEnv, Settings, Trainer, env
from zgrid.topology import Topology, load

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Overriding environment rllib-multi-agent-env-v0:UserWarning"  # of RLlib, where two trainers follow
)

TINY = Settings(days=3, epochs=2, minibatch=16)
STEPS = 6
MODES: dict[str, dict[str, Any]] = {
    "centralized": {"centralized": True},
    "in_memory": {"centralized": False, "message_broker": "in_memory"},
    "zmq": {"centralized": False, "message_broker": "zmq"},
}
BOUND_S, RAYS_OWN_BOUND_S = 30.0, 90.0


def small(mode: str = "centralized", grids: int = 2) -> Topology:
    """Small grids, a quarter of a day."""
    return load(small_topology(grids), {"episode_steps": STEPS, **MODES[mode]})


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    """One Ray for the tests of this process; those that end it have processes of their own."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=2**28)
    yield
    ray.shutdown()


def trained(topology: Topology, iterations: int, **keywords: Any) -> tuple[list[float], dict[str, Any]]:
    """The curve and all weights at its end."""
    with Trainer(topology, TINY, **{"seed": 5, **keywords}) as trainer:
        return [trainer.train() for _ in range(iterations)], copied(trainer)


def copied(trainer: Trainer) -> dict[str, Any]:
    return {name: value.clone() for name, value in trainer.weights().items()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class TestEnv:
    def test_a_day_is_a_day_of_the_topology(self) -> None:
        wrapped = GridEnv(env.describe(small(), {"mg_1": 2.0, "mg_2": 4.0}, 1))
        plain = NetworkedGridEnv(small())
        seen, _ = wrapped.reset(seed=7)
        wanted, _ = plain.reset(seed=7)
        for step in range(STEPS):
            assert list(seen) == list(wrapped.possible_agents) == ["mg_1", "mg_2"]
            for agent, parts in seen.items():
                assert wrapped.get_observation_space(agent).contains(parts)
                assert np.array_equal(parts["obs"], wanted[agent])
                assert np.array_equal(parts["state"], plain.state())
            actions = {agent: plain.action_space(agent).sample() for agent in plain.agents}
            seen, rewards, terminated, truncated, _ = wrapped.step(actions)
            wanted, earned, *_ = plain.step(actions)
            assert rewards == {"mg_1": earned["mg_1"] / 2.0, "mg_2": earned["mg_2"] / 4.0}
            assert terminated["__all__"] is terminated["mg_1"] is (step == STEPS - 1)
            assert not any(truncated.values())

    def test_episodes_tell_agents_in_the_order_of_the_topology(self) -> None:
        content = small_topology(3)
        content["grids"] = dict(reversed(content["grids"].items()))
        with Trainer(load(content, {"episode_steps": STEPS, "centralized": True}), TINY) as trainer:
            episode = trainer.algorithm.env_runner.play(1, explore=True)
        assert list(episode.agent_ids) == ["mg_3", "mg_2", "mg_1"]
        assert list(episode.get_agents_that_stepped()) == ["mg_3", "mg_2", "mg_1"]


class TestTraining:
    def test_gives_the_same_curve_in_every_run_and_mode_and_another_with_another_seed(self) -> None:
        curve, weights = trained(small(), 2)
        again, again_weights = trained(small(), 2)
        by_messages, by_messages_weights = trained(small("in_memory"), 2)
        assert curve == again == by_messages
        assert same(weights, again_weights)
        assert same(weights, by_messages_weights)
        assert trained(small(), 1, seed=6)[0] != curve[:1]

    @pytest.mark.slow
    @pytest.mark.timeout(400)
    def test_gives_the_same_curve_over_zmq_and_by_any_number_of_runners(self) -> None:
        curve, weights = trained(small(), 3)
        for keywords in ({}, {"num_env_runners": 1}, {"num_env_runners": 2}):
            told, its = trained(small("zmq"), 3, **keywords)
            assert told == curve
            assert same(its, weights)

    @pytest.mark.slow
    @pytest.mark.timeout(400)
    def test_learns(self) -> None:
        with Trainer(load("3mg", {"centralized": True}), seed=1) as trainer:
            returns = [trainer.train() for _ in range(20)]
        assert np.mean(returns[-3:]) > np.mean(returns[:3]) + 800.0

    def test_independent_policies_have_no_part_in_each_other(self) -> None:
        with Trainer(small(), TINY, independent=True) as trainer:
            first = copied(trainer)
            trainer.train()
            last = copied(trainer)
        assert {name.split(".")[0] for name in first} == {"mg_1", "mg_2"}
        n_obs = len(NetworkedGridEnv(small()).observation_space("mg_1").low)
        assert first["mg_1.critic.body.0.weight"].shape[1] == n_obs
        for grid in ("mg_1", "mg_2"):
            assert not torch.equal(first[f"{grid}.actor.body.0.weight"], last[f"{grid}.actor.body.0.weight"])
        assert not torch.equal(last["mg_1.actor.body.0.weight"], last["mg_2.actor.body.0.weight"])


GO_ON = """
import sys
from pathlib import Path
from zgrid.rl.rllib import Trainer
with Trainer.resume(Path(sys.argv[1])) as trainer:
    for _ in range(2):
        print(repr(trainer.train()))
    trainer.save(Path(sys.argv[1]))
"""


class TestACheckpoint:
    @pytest.mark.parametrize("independent", [False, True])
    def test_goes_on_as_if_it_had_not_stopped_and_in_another_mode(self, tmp_path: Path, independent: bool) -> None:
        curve, weights = trained(small(), 4, independent=independent)
        with Trainer(small(), TINY, 5, independent=independent) as broken:
            assert [broken.train() for _ in range(2)] == curve[:2]
            broken.save(tmp_path / "saved")
        with Trainer.resume(tmp_path / "saved", small("in_memory")) as resumed:
            assert [resumed.train() for _ in range(2)] == curve[2:]
            assert (resumed.iteration, resumed.env_steps) == (4, 4 * 3 * STEPS)
            assert same(copied(resumed), weights)
            resumed.save(tmp_path / "saved")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["saved"]

    @pytest.mark.slow
    @pytest.mark.timeout(400)
    @pytest.mark.parametrize("hash_seed", ["1", "2"])
    def test_goes_on_alike_in_another_process(self, tmp_path: Path, hash_seed: str) -> None:
        with Trainer(small(), TINY, 5) as trainer:
            for _ in range(2):
                trainer.train()
            trainer.save(tmp_path / "saved")
            curve = [trainer.train() for _ in range(2)]
            weights = copied(trainer)
        command = [sys.executable, "-c", GO_ON, str(tmp_path / "saved")]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
        assert (told.returncode, told.stderr) == (0, "")
        assert [float(line) for line in told.stdout.split()] == curve
        with Trainer.resume(tmp_path / "saved") as resumed:
            assert same(copied(resumed), weights)

    def test_evaluating_changes_nothing(self) -> None:
        with Trainer(small(), TINY, 5) as trainer:
            curve = [trainer.train()]
            assert trainer.evaluate([1, 2]) == trainer.evaluate([1, 2])
            curve.append(trainer.train())
        assert curve == trained(small(), 2)[0]

    @pytest.mark.parametrize(("independent", "name"), [(False, "policy.onnx"), (True, "policy_{grid}.onnx")])
    def test_a_node_earns_what_the_trainer_earns(self, tmp_path: Path, independent: bool, name: str) -> None:
        with Trainer(small(), TINY, 5, independent=independent) as trainer:
            for _ in range(2):
                trainer.train()
            trainer.save(tmp_path / "saved")
            wanted = trainer.evaluate([3, 4])
        files = export(tmp_path / "saved", tmp_path / name)
        assert len(files) == (2 if independent else 1)
        assert [own_return(f"onnx:{tmp_path / name}", seed) for seed in (3, 4)] == pytest.approx(wanted, rel=1e-5)
        assert own_return("idle", 3) != pytest.approx(wanted[0], rel=1e-4)


def own_return(policy: str, seed: int) -> float:
    """What the grids earn in a day by their own policies."""
    played = NetworkedGridEnv(small(), {"policy": policy})
    played.reset(seed=seed)
    total = 0.0
    while played.agents:
        total += sum(played.step(dict.fromkeys(played.agents))[1].values())
    return total


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two small grids."""
    folder: Path = tmp_path_factory.mktemp("small") / "saved"
    with Trainer(small(), TINY) as trainer:
        trainer.save(folder)
    return folder


class TestBadCheckpoints:
    @pytest.fixture(autouse=True)
    def _nothing_begins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
        monkeypatch.setattr("zgrid.rl.rllib.trainer.measure", lambda *_: pytest.fail("something was played"))

    def test_of_another_topology(self, saved: Path) -> None:
        with pytest.raises(CheckpointError, match="trained on grids mg_1, mg_2, not mg_1"):
            Trainer.resume(saved, small(grids=1))

    def test_of_another_trainer(self, saved: Path, tmp_path: Path) -> None:
        text = (saved / "zgrid.json").read_text()
        (tmp_path / "zgrid.json").write_text(text.replace('"trainer": "rllib"', '"trainer": "torchrl"'))
        with pytest.raises(CheckpointError, match="a checkpoint of torchrl, not of rllib"):
            Trainer.resume(tmp_path)

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no checkpoint of zgrid"):
            Trainer.resume(tmp_path)

    @pytest.mark.parametrize("text", ["", "{}", '{"hidden": [1], "colour": 3}'])
    def test_with_damaged_settings(self, saved: Path, text: str) -> None:
        whole = (saved / "settings.json").read_text()
        (saved / "settings.json").write_text(text)
        with pytest.raises(CheckpointError, match="no settings that can be read"):
            Trainer.resume(saved)
        (saved / "settings.json").write_text(whole)


def test_damaged_state_of_rllib_is_told(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "saved")
    for file in (tmp_path / "saved" / "rllib").rglob("*.pkl"):
        file.write_bytes(b"no pickle")
    with pytest.raises(CheckpointError, match="RLlib cannot read its state"):
        Trainer.resume(tmp_path / "saved")


def test_the_example_trains_and_says_what_to_type_next(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    command = [sys.executable, "examples/mappo_training.py", "--test", "--checkpoint-dir", str(saved)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (run.returncode, run.stderr) == (0, "")
    assert f"zgrid export {saved} policy.onnx" in run.stdout
    assert len((saved / "curve.csv").read_text().splitlines()) == 4
    assert len(export(saved, tmp_path / "policy.onnx")) == 1


# ---- ends ----------------------------------------------------------------------------------------------------------

DRIVER = """
import sys, traceback
from zgrid.rl.rllib import Settings, Trainer
from zgrid.topology import load
trainer = Trainer(load(sys.argv[1]), Settings(days=2, epochs=1, minibatch=6), num_env_runners=2)
trainer.train()
print("> ready", flush=True)
for line in sys.stdin:
    try:
        exec(line)
        print("> done", flush=True)
    except Exception as error:
        print(">", type(error).__name__, flush=True)
"""


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def nodes_of(pids: set[int]) -> set[int]:
    return {pid for pid in pids if "-m nodes." in command_of(pid)}


def gone(pids: set[int]) -> bool:
    return wait_until(lambda: not any(map(is_alive, pids)), BOUND_S)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small topology that runs over ZeroMQ."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_topology(1) | {"episode_steps": STEPS}))
    return path


class Driver:
    """A process with two env runners that have played, each with a proxy, a nursery and the nodes of one grid."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert self.answer() == "ready", process.stderr
        self.all = descendants(process.pid)
        self.nodes = nodes_of(self.all)
        self.runners = {pid for pid in self.all if nodes_of(descendants(pid)) and "DayRunner" in command_of(pid)}
        assert len(self.nodes) == 2 * 6, "of each: the proxy, what forks nodes, and four of agents"
        assert len(self.runners) == 2

    def answer(self) -> str:
        """What it says; Ray may say something before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("> "):
                return line.removeprefix("> ").strip()
        return "gone"

    def do(self, line: str) -> str:
        """Have it do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        below = descendants(process.pid)
        for pid in (process.pid, *below):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def driver(file: Path) -> Iterator[Driver]:
    with started([sys.executable, "-c", DRIVER, str(file)]) as process:
        yield Driver(process)


@pytest.mark.slow
@pytest.mark.timeout(400)
class TestNothingIsLeft:
    def test_by_stop(self, driver: Driver) -> None:
        assert driver.do("trainer.algorithm.stop()") == "done"
        assert gone(driver.nodes | driver.runners)

    def test_by_close(self, driver: Driver) -> None:
        assert driver.do("trainer.close()") == "done"
        assert gone(driver.all)
        assert descendants(driver.process.pid) == set()

    def test_by_shutdown_of_ray(self, driver: Driver) -> None:
        assert driver.do("import ray; ray.shutdown()") == "done"
        assert gone(driver.all)
        assert descendants(driver.process.pid) == set()

    def test_by_the_end_of_the_driver(self, driver: Driver) -> None:
        driver.process.communicate(timeout=BOUND_S)
        assert driver.process.returncode == 0
        assert gone(driver.all)

    def test_by_a_kill_of_a_runner(self, driver: Driver) -> None:
        victim = min(driver.runners)
        its = nodes_of(descendants(victim))
        assert len(its) == 6
        os.kill(victim, signal.SIGKILL)
        assert gone({victim} | its)
        assert driver.do("trainer.train()") == "NodeDiedError"
        assert driver.do("trainer.close()") == "done"
        assert gone(driver.all)
        assert descendants(driver.process.pid) == set()

    def test_by_a_kill_of_the_driver(self, driver: Driver) -> None:
        driver.process.kill()
        assert gone(driver.nodes | driver.runners)
        # two agents of Ray look for its control store for a minute before they end
        assert wait_until(lambda: not any(map(is_alive, driver.all)), RAYS_OWN_BOUND_S)

    def test_by_ctrl_c_and_the_run_is_saved(self, file: Path, tmp_path: Path) -> None:
        saved = tmp_path / "saved"
        options = ["--mode", "zmq", "--num-env-runners", "2", "--checkpoint-dir", str(saved)]
        with started([sys.executable, "examples/mappo_training.py", str(file), *options]) as process:
            assert process.stdout is not None
            assert "iteration" in process.stdout.readline()
            process.stdout.readline()
            everybody = descendants(process.pid)
            assert len(nodes_of(everybody)) == 2 * 6
            os.killpg(process.pid, signal.SIGINT)
            told, errors = process.communicate(timeout=BOUND_S)
            assert (process.returncode, errors) == (130, "")
            assert f"stopped; checkpoint: {saved}" in told
            assert gone(everybody)
        assert len((saved / "curve.csv").read_text().splitlines()) >= 2
