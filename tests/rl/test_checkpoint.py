"""A checkpoint says what it is, is whole or the one before, and plays alike as a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch, of the extras rllib, sb3 and torchrl")
pytest.importorskip("onnx", reason="needs onnx, of the extras rllib, sb3 and torchrl")
ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'zgrid[onnx]'")

from policy_files import properties

from zgrid.cli import main
from zgrid.environment import NetworkedGridEnv
from zgrid.errors import CheckpointError
from zgrid.rl.checkpoint import (
    SHARED,
    About,
    check_fits,
    check_free,
    policy_map,
    read_about,
    read_actors,
    replacing,
    save,
)
from zgrid.rl.export import export
from zgrid.rl.networks import Actor
from zgrid.rl.scaling import Normal, measure
from zgrid.topology import load

TOPOLOGY = load("3mg")


def actor(seed: int = 0) -> Actor:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    made = Actor(Normal(tuple(rng.normal(size=44)), tuple(rng.uniform(0.1, 2.0, 44))), 5, (16, 8))
    torch.nn.init.normal_(made.body[-1].weight, 0.0, 0.7)
    return made


def about(*, independent: bool = False) -> About:
    return About(
        "torchrl", TOPOLOGY.model_dump(mode="json"), policy_map(TOPOLOGY, independent=independent), "train.py --seed 3",
        3, 10, 240, -1400.5,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "saved", about(), {SHARED: actor()})
    return tmp_path / "saved"


class TestACheckpoint:
    def test_comes_back_as_it_was(self, folder: Path) -> None:
        assert read_about(folder) == about()
        assert read_about(folder).load_topology().hash() == TOPOLOGY.hash()
        seen = torch.randn(7, 44)
        assert torch.equal(read_actors(folder)[SHARED](seen), actor()(seen))

    def test_takes_the_place_of_the_one_before_when_it_is_whole(self, folder: Path) -> None:
        (folder / "curve.csv").write_text("kept")
        with replacing(folder) as new:
            save(new, about(), {SHARED: actor(1)})
            assert torch.equal(read_actors(folder)[SHARED].body[0].weight, actor(0).body[0].weight)
        assert torch.equal(read_actors(folder)[SHARED].body[0].weight, actor(1).body[0].weight)
        assert (folder / "curve.csv").read_text() == "kept"
        assert [path.name for path in folder.parent.iterdir()] == ["saved"]

    def test_stays_where_the_next_one_fails(self, folder: Path) -> None:
        with pytest.raises(AttributeError), replacing(folder) as new:
            save(new, about(), {SHARED: None})  # type: ignore[dict-item]
        assert torch.equal(read_actors(folder)[SHARED].body[0].weight, actor(0).body[0].weight)

    def test_is_found_again_after_a_kill_between_its_renames(self, folder: Path) -> None:
        folder.rename(folder.with_name("saved.old"))
        with pytest.raises(RuntimeError), replacing(folder):
            raise RuntimeError
        assert read_about(folder) == about()

    def test_is_not_written_over_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("mine")
        with pytest.raises(CheckpointError, match="holds something else"), replacing(tmp_path):
            pass
        assert (tmp_path / "thesis.tex").read_text() == "mine"
        check_free(tmp_path / "new")


class TestBadInput:
    def test_no_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"no checkpoint of zgrid \(no zgrid.json in it\)"):
            read_about(tmp_path)

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1, "trainer": "x"}', "3"])
    def test_a_damaged_word(self, folder: Path, text: str) -> None:
        (folder / "zgrid.json").write_text(text)
        with pytest.raises(CheckpointError):
            read_about(folder)

    def test_another_format(self, folder: Path) -> None:
        raw = json.loads((folder / "zgrid.json").read_text()) | {"format": 9}
        (folder / "zgrid.json").write_text(json.dumps(raw))
        with pytest.raises(CheckpointError, match="format 9, expected 1"):
            read_about(folder)

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 no zip"])
    def test_damaged_actors(self, folder: Path, content: bytes) -> None:
        (folder / "actors.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match="no actors that can be read"):
            read_actors(folder)

    def test_other_grids(self, folder: Path) -> None:
        with pytest.raises(CheckpointError, match="trained on grids mg_1, mg_2, mg_3, not mg_1"):
            check_fits(folder, read_about(folder), load("1mg"))

    def test_other_controls(self, folder: Path) -> None:
        changed = load("3mg", {"grids.mg_2.devices.pv_1.q_control": False})
        with pytest.raises(CheckpointError, match="mg_2 had 5 controls when it was trained, and has 4"):
            check_fits(folder, read_about(folder), changed)

    def test_another_reward(self, folder: Path) -> None:
        with pytest.raises(CheckpointError, match="trained on another topology"):
            check_fits(folder, read_about(folder), load("3mg", {"reward.penalty": 1.0}))

    def test_another_network_or_other_time_series(self, folder: Path) -> None:
        for changed in ({"grids.mg_2.network.load_scale": 0.1}, {"profiles.split": "test"}):
            with pytest.raises(CheckpointError, match="trained on another topology"):
                check_fits(folder, read_about(folder), load("3mg", changed))

    def test_the_same_in_another_mode_is_the_same(self, folder: Path) -> None:
        check_fits(folder, read_about(folder), load("3mg", {"centralized": True}))


class TestExport:
    def test_a_file_acts_as_its_actor(self, folder: Path, tmp_path: Path) -> None:
        (file,) = export(folder, tmp_path / "policy.onnx")
        session = ort.InferenceSession(str(file))
        seen = (torch.randn(50, 44) * 3.0).numpy()
        (acted,) = session.run(None, {"observation": seen})
        with torch.no_grad():
            wanted = actor()(torch.from_numpy(seen)).clamp(-1.0, 1.0).numpy()
        assert acted == pytest.approx(wanted, abs=1e-5)
        assert (np.abs(acted) == 1.0).any()
        assert (np.abs(acted) < 1.0).any()

    def test_a_file_says_what_it_is(self, folder: Path, tmp_path: Path) -> None:
        told = properties(export(folder, tmp_path / "policy.onnx")[0])
        env = NetworkedGridEnv(load("3mg", {"centralized": True}))
        assert [f"mg_1.{name}" for name in told["action"]] == list(env.action_names("mg_1"))
        assert len(told["observation"]) == 44
        assert "mg_1" not in "".join(told["observation"])
        assert told["topology_hash"] == TOPOLOGY.hash()
        assert (told["dt_h"], told["pad"], told["command"]) == ("1.0", False, "train.py --seed 3")

    def test_the_same_checkpoint_gives_the_same_bytes(self, folder: Path, tmp_path: Path) -> None:
        one, two = (export(folder, tmp_path / name)[0].read_bytes() for name in ("a.onnx", "b.onnx"))
        assert one == two

    def test_a_policy_for_each_grid_is_a_file_for_each(self, tmp_path: Path) -> None:
        save(tmp_path / "own", about(independent=True), {f"mg_{k}": actor(k) for k in (1, 2, 3)})
        with pytest.raises(CheckpointError, match=r"expected a name with \{grid\}, such as .*policy_\{grid\}.onnx"):
            export(tmp_path / "own", tmp_path / "policy.onnx")
        files = export(tmp_path / "own", tmp_path / "policy_{grid}.onnx")
        assert [file.name for file in files] == ["policy_mg_1.onnx", "policy_mg_2.onnx", "policy_mg_3.onnx"]
        assert len({file.read_bytes() for file in files}) == 3

    def test_a_shared_policy_is_one_file(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="share one policy"):
            export(folder, tmp_path / "{grid}.onnx")

    def test_the_command(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["export", str(folder), str(tmp_path / "policy.onnx")]) == 0
        assert "wrote" in capsys.readouterr().out
        assert main(["export", str(tmp_path), str(tmp_path / "policy.onnx")]) == 2
        assert "no checkpoint of zgrid" in capsys.readouterr().err


class TestScaling:
    def test_is_what_random_play_shows(self) -> None:
        scaling = measure(TOPOLOGY, episodes=4)
        env = NetworkedGridEnv(load("3mg", {"centralized": True, "policy": "random"}))
        seen, rewards = [], []
        for episode in range(4):
            observations, _ = env.reset(seed=TOPOLOGY.seed + episode)
            while env.agents:
                seen += list(observations.values())
                observations, earned, *_ = env.step(dict.fromkeys(env.agents))
                rewards += list(earned.values())
        table = np.array(seen, dtype=np.float64)
        assert scaling.observation.mean == pytest.approx(table.mean(axis=0), rel=1e-6, abs=1e-9)
        moving = table.std(axis=0) >= 1e-3
        assert np.array(scaling.observation.std)[moving] == pytest.approx(table.std(axis=0)[moving], rel=1e-6)
        assert (np.array(scaling.observation.std)[~moving] == 1.0).all()
        assert scaling.reward_std == pytest.approx(np.std(rewards))

    def test_does_not_ask_for_the_mode(self) -> None:
        assert measure(TOPOLOGY, episodes=1) == measure(load("3mg", {"centralized": True}), episodes=1)

    def test_refuses_grids_of_different_sizes(self) -> None:
        uneven = load("3mg", {"grids.mg_2.devices.pv_2": {"kind": "renewable", "bus": "675", "availability": "solar",
                                                          "p_max_mw": 0.1, "s_rated_mva": 0.1}})  # fmt: skip
        with pytest.raises(ValueError, match=r"spaces\.pad: true"):
            measure(uneven)
        assert len(measure(load(uneven, {"spaces.pad": True}), episodes=1).observation.mean) > 44
