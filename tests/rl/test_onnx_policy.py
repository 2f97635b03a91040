"""A policy file acts in every mode as its actions would, and what does not fit is told before anything starts."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import small_topology

pytest.importorskip("onnx", reason="needs onnx, of the extras rllib, sb3 and torchrl")
pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'zgrid[onnx]'")

from policy_files import write_constant, write_linear

from zgrid.cli import main
from zgrid.environment import NetworkedGridEnv
from zgrid.errors import TopologyError
from zgrid.host import steward_of
from zgrid.messages import Envelope, Ready
from zgrid.policies import onnx as onnx_policy
from zgrid.port import EnvPort
from zgrid.topology import Topology, load
from zgrid.topology.nodes import node_plans

STEPS = 6
ACTION = (0.5, 1.0, -0.25, 0.75)


def sizes(topology: dict[str, Any]) -> tuple[int, int]:
    env = NetworkedGridEnv(load(topology, {"policy": "idle"}))
    return len(env.observation_space("mg_1").low), len(env.action_space("mg_1").low)


def by_itself(topology: dict[str, Any], **overrides: Any) -> list[Any]:
    """Observations and rewards where the grids' own policies decide."""
    with closing(NetworkedGridEnv(topology, overrides)) as env:
        seen: list[Any] = [env.reset(seed=4)[0]]
        for _ in range(STEPS):
            seen += env.step(dict.fromkeys(env.agents))[:2]
    return seen


def by_hand(topology: dict[str, Any], act: Any) -> list[Any]:
    """The same where somebody outside decides."""
    with closing(NetworkedGridEnv(topology, {"centralized": True, "policy": "idle"})) as env:
        seen: list[Any] = [env.reset(seed=4)[0]]
        for _ in range(STEPS):
            observations = seen[-1] if len(seen) == 1 else seen[-2]
            seen += env.step({agent: act(observations[agent]) for agent in env.agents})[:2]
    return seen


def assert_equal(one: list[Any], other: list[Any]) -> None:
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[agent], theirs[agent]) for agent in mine)


@pytest.fixture
def topology(tmp_path: Path) -> dict[str, Any]:
    """Two small grids that play a file that always says the same."""
    topology = small_topology(2)
    n_obs, n_actions = sizes(topology)
    action = np.resize(ACTION, n_actions)
    write_constant(tmp_path / "policy.onnx", n_obs, action)
    return topology | {"policy": f"onnx:{tmp_path / 'policy.onnx'}", "centralized": True}


class TestActs:
    def test_as_its_actions_would_from_outside(self, topology: dict[str, Any]) -> None:
        action = np.resize(ACTION, sizes(topology)[1]).astype(np.float32)
        assert_equal(by_itself(topology), by_hand(topology, lambda _: action))

    def test_from_what_the_grid_sees(self, topology: dict[str, Any], tmp_path: Path) -> None:
        n_obs, n_actions = sizes(topology)
        weights = np.random.default_rng(1).normal(size=(n_actions, n_obs)).astype(np.float32) * 0.05
        write_linear(tmp_path / "policy.onnx", weights, np.zeros(n_actions))
        alone = by_itself(topology)
        outside = by_hand(topology, lambda seen: weights @ seen)
        for mine, theirs in zip(alone, outside, strict=True):
            assert all(mine[agent] == pytest.approx(theirs[agent], rel=1e-4, abs=1e-4) for agent in mine)
        assert not np.array_equal(alone[0]["mg_1"], alone[-2]["mg_1"])

    def test_alike_over_the_in_memory_broker(self, topology: dict[str, Any]) -> None:
        assert_equal(by_itself(topology), by_itself(topology, centralized=False, message_broker="in_memory"))

    def test_alike_in_processes_of_their_own(self, topology: dict[str, Any], no_leftovers: None) -> None:
        assert_equal(by_itself(topology), by_itself(topology, centralized=False, message_broker="zmq"))

    def test_only_where_a_grid_names_it(self, topology: dict[str, Any]) -> None:
        topology["grids"]["mg_2"]["policy"] = topology["policy"]
        topology["policy"] = "idle"
        mixed = by_itself(topology)
        idle = by_itself(topology, **{"grids.mg_2.policy": None})
        assert mixed[2]["mg_1"] == pytest.approx(idle[2]["mg_1"], rel=1e-9)
        assert mixed[2]["mg_2"] != pytest.approx(idle[2]["mg_2"], rel=1e-3)

    def test_with_a_file_for_each_grid(self, topology: dict[str, Any], tmp_path: Path) -> None:
        n_obs, n_actions = sizes(topology)
        for grid, share in (("mg_1", 1.0), ("mg_2", -1.0)):
            write_constant(tmp_path / f"of_{grid}.onnx", n_obs, np.full(n_actions, share))
        own = by_itself(topology, policy=f"onnx:{tmp_path}/of_{{grid}}.onnx")
        full = by_hand(topology, lambda _: np.ones(n_actions))
        none = by_hand(topology, lambda _: -np.ones(n_actions))
        assert own[2] == pytest.approx({"mg_1": full[2]["mg_1"], "mg_2": none[2]["mg_2"]}, rel=1e-9)

    def test_padded_where_it_was_trained_so(self, topology: dict[str, Any], tmp_path: Path) -> None:
        n_obs, n_actions = sizes(topology)
        action = np.resize(ACTION, n_actions)
        write_constant(tmp_path / "long.onnx", n_obs + 3, (*action, 0.9), {"pad": "true"})
        assert_equal(by_itself(topology, policy=f"onnx:{tmp_path}/long.onnx"), by_itself(topology))


class TestFiles:
    def test_a_name_is_looked_for_beside_the_topology(self, topology: dict[str, Any], tmp_path: Path) -> None:
        import yaml

        file = tmp_path / "case.yaml"
        file.write_text(yaml.safe_dump(topology | {"policy": "onnx:policy.onnx"}), encoding="utf-8")
        assert load(file).policy == load(topology).policy

    def test_a_name_on_the_command_line_is_looked_for_where_one_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_constant(tmp_path / "mine.onnx", 44, (0.0,) * 5)
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend("")
        assert main(["run", "3mg", "--centralized", "--steps", "2", "--policy", "onnx:mine.onnx"]) == 0
        assert "onnx" in capsys.readouterr().out

    def test_its_content_counts_and_not_its_place(self, topology: dict[str, Any], tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        moved = shutil.copy(tmp_path / "policy.onnx", tmp_path / "there" / "other_name.onnx")
        other = write_constant(tmp_path / "other.onnx", *(sizes(topology)[0], np.zeros(sizes(topology)[1])))
        here, there, different = (
            load(topology, {"policy": f"onnx:{file}"}) for file in (tmp_path / "policy.onnx", moved, other)
        )
        assert here.hash() == there.hash() != different.hash()
        assert here.hash("mg_1") == there.hash("mg_1") != different.hash("mg_1")
        assert here.hash("mg_1.dg_1") == different.hash("mg_1.dg_1")

    def test_the_machine_of_a_device_needs_none(self, topology: dict[str, Any], tmp_path: Path) -> None:
        there = load(topology)
        (tmp_path / "policy.onnx").unlink()
        device = load(topology, checked=False)
        assert device.hash("mg_1.dg_1") == there.hash("mg_1.dg_1")
        assert device.hash("mg_1") != there.hash("mg_1")

    def test_a_grid_node_with_another_content_does_not_join(self, topology: dict[str, Any], tmp_path: Path) -> None:
        write_constant(tmp_path / "other.onnx", sizes(topology)[0], np.zeros(sizes(topology)[1]))
        here, there = load(topology), load(topology, {"policy": f"onnx:{tmp_path}/other.onnx"})
        plans = node_plans(here)
        port = EnvPort(here, {node: plans[node] for node in ("mg_1.dg_1", "mg_1")})

        def answer(node: str, topology: Topology) -> None:
            ready = Ready((node,), topology.hash(node), 0)
            port.receive(Envelope(steward_of(node), "run", 0, 0, 0, 0, 0, ready))

        for node in ("mg_1.dg_1", "mg_1"):
            answer(node, there)
        assert (port.waiting, port.wrong_topology) == (("mg_1",), {"mg_1"})
        answer("mg_1", here)
        assert (port.waiting, port.wrong_topology) == ((), set())

    def test_what_stood_there_before_is_forgotten(self, topology: dict[str, Any], tmp_path: Path) -> None:
        before = by_itself(topology)
        write_constant(tmp_path / "policy.onnx", sizes(topology)[0], np.full(sizes(topology)[1], -1.0))
        assert by_itself(topology)[2] != before[2]


@pytest.fixture
def without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    onnx_policy._open.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    yield
    onnx_policy._open.cache_clear()


def findings(topology: dict[str, Any], **overrides: Any) -> list[str]:
    with pytest.raises(TopologyError) as caught:
        NetworkedGridEnv(topology, overrides)
    return [str(finding) for finding in caught.value.findings]


class TestBadInput:
    def test_a_file_that_is_not_there(self, topology: dict[str, Any], tmp_path: Path) -> None:
        assert findings(topology, policy=f"onnx:{tmp_path}/none.onnx") == [f"policy: no file {tmp_path}/none.onnx"]

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x07" * 100])
    def test_a_file_that_is_none(self, topology: dict[str, Any], tmp_path: Path, content: bytes) -> None:
        (tmp_path / "policy.onnx").write_bytes(content)
        (found,) = findings(topology)
        assert found.startswith(f"policy: {tmp_path}/policy.onnx: no ONNX file that can be run")

    def test_a_truncated_file(self, topology: dict[str, Any], tmp_path: Path) -> None:
        whole = (tmp_path / "policy.onnx").read_bytes()
        (tmp_path / "policy.onnx").write_bytes(whole[: len(whole) // 2])
        assert len(findings(topology)) == 1

    def test_another_models_file(self, topology: dict[str, Any], tmp_path: Path) -> None:
        write_linear(tmp_path / "policy.onnx", np.zeros((4, 9)), np.zeros(4), names=("x", "y"))
        (found,) = findings(topology)
        assert "no policy of zgrid: expected one input, observation" in found

    def test_other_spaces(self, topology: dict[str, Any], tmp_path: Path) -> None:
        n_obs, n_actions = sizes(topology)
        write_constant(tmp_path / "policy.onnx", n_obs + 1, np.zeros(n_actions - 1))
        file = tmp_path / "policy.onnx"
        assert findings(topology) == [
            f"policy: {file}: its observation has {n_obs + 1} entries, this grid's has {n_obs}",
            f"policy: {file}: its action has {n_actions - 1} entries, this grid's has {n_actions}",
        ]

    def test_other_spaces_of_one_grid_at_its_own_path(self, topology: dict[str, Any], tmp_path: Path) -> None:
        n_obs, n_actions = sizes(topology)
        write_constant(tmp_path / "small.onnx", n_obs - 1, np.zeros(n_actions))
        topology["grids"]["mg_2"]["policy"] = {"kind": "onnx", "file": str(tmp_path / "small.onnx")}
        (found,) = findings(topology)
        assert found.startswith("grids.mg_2.policy: ")

    def test_another_step(self, topology: dict[str, Any], tmp_path: Path) -> None:
        n_obs, n_actions = sizes(topology)
        write_constant(tmp_path / "policy.onnx", n_obs, np.zeros(n_actions), {"dt_h": "0.25"})
        assert findings(topology) == [f"policy: {tmp_path}/policy.onnx: trained with dt_h 0.25, not 1.0"]

    def test_no_onnxruntime(self, topology: dict[str, Any], without_onnxruntime: None) -> None:
        (found,) = findings(topology)
        assert found.endswith("needs onnxruntime: pip install 'zgrid[onnx]'")

    def test_a_run_ends_before_any_agent_starts(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_leftovers: None
    ) -> None:
        write_constant(tmp_path / "policy.onnx", 3, (0.0,) * 5)
        assert main(["run", "3mg", "--steps", "1", "--policy", f"onnx:{tmp_path}/policy.onnx"]) == 2
        assert "its observation has 3 entries, this grid's has 44" in capsys.readouterr().err
