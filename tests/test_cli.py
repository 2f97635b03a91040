"""The command line: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, small_topology

import nodes.broker
import nodes.device
import nodes.env
import nodes.grid
from zgrid.cli import launch_main, main
from zgrid.topology import load

ONE = str(ROOT / "topologies" / "1mg.yaml")
Result = tuple[int, str, str]


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands put the current directory on the import path; take it off again."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A small topology as a file."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_topology()), encoding="utf-8")
    return str(path)


@pytest.fixture
def bad_file(tmp_path: Path) -> str:
    """A topology with two findings."""
    content = small_topology() | {"colour": 1}
    content["grids"]["mg_1"]["devices"]["dg_1"]["p_max_mw"] = -1
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


@pytest.fixture
def zgrid(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command; its exit code and what it printed to standard output and error."""

    def run(*arguments: str, command: Callable[[Sequence[str]], int] = main) -> Result:
        capsys.readouterr()
        try:
            code = command(arguments)
        except SystemExit as exit:
            code = int(exit.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def played(zgrid: Callable[..., Result], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Play a topology centralized and quietly; the summary that was written."""

    def play(file: str, *arguments: str, steps: int = 3) -> dict[str, Any]:
        out = tmp_path / "out"
        assert zgrid("run", file, "--centralized", "--quiet", "--steps", str(steps), "--out", str(out), *arguments) == (
            *(0, "", ""),
        )
        summary: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        return summary

    return play


class TestValidate:
    def test_says_that_a_good_file_has_no_findings(self, zgrid: Callable[..., Result], file: str) -> None:
        assert zgrid("validate", file) == (0, f"{file}: no findings; 1 grid, 3 devices, zmq\n", "")

    def test_takes_the_name_of_a_shipped_topology(self, zgrid: Callable[..., Result]) -> None:
        code, out, _ = zgrid("validate", "3mg")
        assert code == 0
        assert out.startswith("3mg: no findings; 3 grids, 9 devices")

    def test_prints_a_line_for_each_finding_and_ends_with_2(self, zgrid: Callable[..., Result], bad_file: str) -> None:
        code, out, err = zgrid("validate", bad_file)
        assert code == 2
        lines = sorted(out.splitlines())
        assert lines[0] == "colour: unknown key"
        assert lines[1].startswith("grids.mg_1.devices.dg_1.p_max_mw: ")
        assert len(lines) == 2
        assert err == f"{bad_file}: 2 findings\n"

    def test_tells_of_a_file_that_does_not_exist(self, zgrid: Callable[..., Result], tmp_path: Path) -> None:
        code, out, err = zgrid("validate", str(tmp_path / "nowhere.yaml"))
        assert code == 2
        assert out.startswith("file: cannot be read: ")
        assert "1 finding\n" in err

    def test_sees_overrides(self, zgrid: Callable[..., Result], file: str) -> None:
        assert zgrid("validate", file, "--set", "centralized=true")[1].endswith("centralized\n")
        code, out, _ = zgrid("validate", file, "--set", "dt_h=5", "--set", "grids.*.price=nobody")
        assert code == 2
        assert sorted(line.split(":")[0] for line in out.splitlines()) == ["dt_h", "grids.mg_1.price"]

    def test_refuses_an_override_that_is_none(self, zgrid: Callable[..., Result], file: str) -> None:
        code, out, err = zgrid("validate", file, "--set", "dt_h")
        assert (code, out) == (2, "")
        assert "dt_h: expected KEY=VALUE" in err


def test_schema_prints_json(zgrid: Callable[..., Result]) -> None:
    code, out, err = zgrid("schema")
    assert (code, err) == (0, "")
    assert json.loads(out)["properties"]["grids"]


class TestHelp:
    @pytest.mark.parametrize(
        ("command", "arguments", "example"),
        [
            (main, ["--help"], "zgrid run topologies/3mg.yaml"),
            (main, ["run", "--help"], "zgrid run topologies/3mg.yaml"),
            (main, ["validate", "--help"], "zgrid validate topologies/3mg.yaml"),
            (main, ["schema", "--help"], "zgrid schema > topology.schema.json"),
            (main, ["generate", "--help"], "zgrid generate --microgrids 50 --seed 1 --out 50mg.yaml"),
            (launch_main, ["--help"], "python launch.py topologies/3mg.yaml"),
            (nodes.broker.main, ["--help"], "python -m nodes.broker topologies/3mg.yaml"),
            (nodes.env.main, ["--help"], "python -m nodes.env topologies/3mg.yaml"),
            (nodes.grid.main, ["--help"], "python -m nodes.grid topologies/3mg.yaml mg_1"),
            (nodes.device.main, ["--help"], "python -m nodes.device topologies/3mg.yaml mg_1.dg_1"),
        ],
    )
    def test_of_every_command_has_an_example(
        self, zgrid: Callable[..., Result], command: Callable[[Sequence[str]], int], arguments: list[str], example: str
    ) -> None:
        code, out, _ = zgrid(*arguments, command=command)
        assert code == 0
        assert example in " ".join(out.split())

    def test_names_every_command(self, zgrid: Callable[..., Result]) -> None:
        _, out, _ = zgrid("--help")
        assert all(f"    {command} " in out for command in ("run", "validate", "schema", "generate"))

    @pytest.mark.parametrize("arguments", [[], ["walk"], ["run"], ["run", "x", "--steps", "0"], ["run", "x", "--walk"]])
    def test_misuse_ends_with_2(self, zgrid: Callable[..., Result], arguments: list[str]) -> None:
        code, out, err = zgrid(*arguments)
        assert (code, out) == (2, "")
        assert "usage: zgrid" in err

    def test_centralized_and_distributed_exclude_each_other(self, zgrid: Callable[..., Result], file: str) -> None:
        assert zgrid("run", file, "--centralized", "--distributed")[0] == 2


class TestRun:
    def test_writes_a_summary(self, played: Callable[..., dict[str, Any]]) -> None:
        summary = played(ONE)
        assert summary.keys() >= {
            *("topology", "mode", "seed", "episodes", "steps", "digest", "grids", "messages_per_step", "stats"),
            *("steps_per_s", "step_latency_ms"),
        }
        assert (summary["topology"], summary["mode"], summary["steps"], summary["episodes"]) == (
            *("1mg", "centralized", 3, 1),
        )
        assert len(bytes.fromhex(summary["digest"])) == 32
        assert len(summary["digest"]) == 64
        (grid,) = summary["grids"].values()
        assert grid.keys() >= {"policy", "return", "terms", "violation_steps", "diverged_steps"}
        assert summary["steps_per_s"] > 0.0

    def test_writes_a_row_for_each_step(self, played: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
        summary = played(ONE)
        with (tmp_path / "out" / "steps.csv").open(encoding="utf-8") as table:
            rows = list(csv.DictReader(table))
        assert [row["step"] for row in rows] == ["1", "2", "3"]
        assert [float(row["hour"]) for row in rows] == [0.0, 1.0, 2.0]
        expected = {"episode", "step", "day", "hour", "mg_1.price", "mg_1.p_pcc_mw", "mg_1.reward", "mg_1.converged"}
        for device in load(ONE).device_specs:
            expected |= {f"{device.id}.{name}" for name in ("p_mw", "q_mvar", "cost")}
        assert expected <= rows[0].keys()
        returned = sum(float(row["mg_1.reward"]) for row in rows)
        assert returned == pytest.approx(summary["grids"]["mg_1"]["return"], rel=1e-12)

    def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
        self, played: Callable[..., dict[str, Any]], file: str
    ) -> None:
        one, again, other = (played(file, "--seed", seed)["digest"] for seed in ("1", "1", "2"))
        assert one == again != other

    def test_the_policy_matters(self, played: Callable[..., dict[str, Any]], file: str) -> None:
        idle, ruled = (played(file, "--policy", policy) for policy in ("idle", "rule_based"))
        assert idle["digest"] != ruled["digest"]
        assert idle["grids"]["mg_1"]["policy"] == "idle"

    def test_the_policy_replaces_those_of_the_grids(self, played: Callable[..., dict[str, Any]], file: str) -> None:
        content = small_topology()
        content["grids"]["mg_1"]["policy"] = "random"
        Path(file).write_text(yaml.safe_dump(content), encoding="utf-8")
        assert played(file, "--policy", "idle")["grids"]["mg_1"]["policy"] == "idle"

    def test_overrides_reach_the_run(self, played: Callable[..., dict[str, Any]], file: str) -> None:
        summary = played(file, "--set", "name=renamed", "--set", "episode_steps=2", "--set", "seed=5")
        assert (summary["topology"], summary["episodes"], summary["seed"]) == ("renamed", 2, 5)

    def test_the_broker_can_be_chosen(self, zgrid: Callable[..., Result], file: str, tmp_path: Path) -> None:
        run = ("run", file, "--broker", "in_memory", "--steps", "2", "--quiet", "--out", str(tmp_path))
        assert zgrid(*run) == (0, "", "")
        summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
        assert summary["mode"] == "in_memory"
        assert summary["messages_per_step"] == {"action": 1, "setpoint": 3, "state": 3, "network": 1, "report": 1}

    def test_shows_what_came_of_it(self, zgrid: Callable[..., Result], file: str, tmp_path: Path) -> None:
        code, out, err = zgrid("run", file, "--centralized", "--steps", "2", "--out", str(tmp_path / "out"))
        assert (code, err) == (0, "")
        summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
        flat = "".join(out.split())
        assert summary["digest"] in flat
        assert "2steps" in flat
        assert "summary.json" in flat

    @pytest.mark.parametrize("mode", ["--centralized", pytest.param("--distributed", marks=pytest.mark.slow)])
    def test_counts_what_became_of_messages_on_links_with_faults(
        self, mode: str, zgrid: Callable[..., Result], file: str, tmp_path: Path
    ) -> None:
        """Of all episodes: three whole ones of three steps, and a step of another."""
        rules = [{"kind": "setpoint", "loss": 0.5}, {"kind": "state", "delay": {"kind": "constant", "value": 1}}]
        content = small_topology() | {"links": rules, "episode_steps": 3}
        Path(file).write_text(yaml.safe_dump(content), encoding="utf-8")
        code, out, err = zgrid("run", file, mode, "--steps", "10", "--out", str(tmp_path))
        assert (code, err) == (0, "")
        summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
        links = summary["links"]
        assert {(link["kind"], link["sent"]) for link in links} == {("setpoint", 10), ("state", 10)}
        assert [(link["delivered"], link["late"]) for link in links if link["kind"] == "state"] == [(6, 6)] * 3
        assert all(link["delivered"] + link["lost"] == 10 for link in links if link["kind"] == "setpoint")
        assert "links" not in summary["stats"]  # they would be of the last episode
        table = out.partition("links with faults")[2].partition("digest")[0]
        assert "setpoint" in table
        assert "late" in table
        assert "duplicated" not in table

    def test_tells_nothing_of_links_without_faults(
        self, zgrid: Callable[..., Result], file: str, tmp_path: Path
    ) -> None:
        _, out, _ = zgrid("run", file, "--centralized", "--steps", "1", "--out", str(tmp_path))
        assert "links with faults" not in out
        assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["links"] == []

    def test_launch_py_is_the_same(self, zgrid: Callable[..., Result], file: str, tmp_path: Path) -> None:
        arguments = (file, "--centralized", "--quiet", "--steps", "1", "--out", str(tmp_path))
        assert zgrid(*arguments, command=launch_main) == (0, "", "")
        assert (tmp_path / "summary.json").is_file()


class TestRunThatCannot:
    @pytest.fixture(autouse=True)
    def _no_processes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Starting a process is an error here."""

        def refuse(*arguments: Any, **keywords: Any) -> None:
            raise AssertionError(f"a process was started: {arguments}")

        monkeypatch.setattr(subprocess, "Popen", refuse)

    def test_a_bad_file_ends_with_2_and_starts_nothing(self, zgrid: Callable[..., Result], bad_file: str) -> None:
        code, out, err = zgrid("run", bad_file, "--broker", "zmq")
        assert (code, out) == (2, "")
        assert "2 findings" in err
        assert "  colour: unknown key" in err

    def test_a_missing_file_ends_with_2(self, zgrid: Callable[..., Result], tmp_path: Path) -> None:
        code, out, err = zgrid("run", str(tmp_path / "nowhere.yaml"))
        assert (code, out) == (2, "")
        assert "file: cannot be read" in err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--policy", "best"), "policy.kind: unknown policy 'best'"),
            (("--seed", "-1"), "seed: "),
            (("--set", "grids.mg_1.price=nobody"), "grids.mg_1.price: unknown series 'nobody'"),
            (("--set", "dt_h"), "expected KEY=VALUE"),
        ],
    )
    def test_bad_arguments_end_with_2(
        self, zgrid: Callable[..., Result], file: str, arguments: tuple[str, ...], words: str
    ) -> None:
        code, out, err = zgrid("run", file, *arguments)
        assert (code, out) == (2, "")
        assert words in err

    def test_quiet_does_not_silence_errors(self, zgrid: Callable[..., Result], bad_file: str) -> None:
        assert "colour: unknown key" in zgrid("run", bad_file, "--quiet")[2]

    def test_an_out_that_is_a_file_is_told(self, zgrid: Callable[..., Result], file: str) -> None:
        code, _, err = zgrid("run", file, "--centralized", "--steps", "1", "--quiet", "--out", file)
        assert code in (1, 2)
        assert file in err


def test_the_current_directory_is_searched_for_plug_ins(
    zgrid: Callable[..., Result], file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zgrid_test_beside.py").write_text(
        "from zgrid.policies import PolicyConfig\nfrom zgrid.policies.idle import Idle\n"
        "class Mine(Idle):\n    Config = PolicyConfig\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    code, out, _ = zgrid("validate", file, "--set", "policy=zgrid_test_beside:Mine")
    sys.modules.pop("zgrid_test_beside", None)
    assert (code, out) == (0, f"{file}: no findings; 1 grid, 3 devices, zmq\n")


def test_a_plug_in_reward_with_terms_of_its_own_can_be_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_reward.py").write_text(
        "from zgrid.agents.reward import Reward, RewardConfig\n"
        "class Own(Reward):\n"
        "    Config = RewardConfig\n"
        "    term_names = ('my_cost',)\n"
        "    def assess(self, states, network, price):\n"
        "        return -1, (1,)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    out = tmp_path / "out"
    arguments = ["run", "1mg", "--centralized", "--steps", "3", "--out", str(out), "--quiet"]
    assert main([*arguments, "--set", "reward={kind: 'own_reward:Own'}"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["grids"]["mg_1"]["return"] == -3.0
    assert summary["grids"]["mg_1"]["terms"] == {"my_cost": 3.0}


@pytest.mark.parametrize(
    "setting", ["grids.*.network={kind: 'math:sqrt'}", "policy=boom_at_import:X", "policy=needs_more:X"]
)
def test_a_plug_in_that_fails_is_a_finding(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "boom_at_import.py").write_text("raise RuntimeError('boom')\n")
    (tmp_path / "needs_more.py").write_text("import there_is_no_such_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["validate", "1mg", "--set", setting]) == 2
    assert "finding" in capsys.readouterr().err
