"""``zgrid evaluate``: what it prints and writes, and how it ends."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import small_topology

from zgrid.cli import main
from zgrid.cli_evaluate import names_of

Result = tuple[int, str, str]
SHORT = ("--episodes", "2", "--set", "episode_steps=4")


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
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run ``zgrid evaluate``; its exit code and what it printed to standard output and error."""

    def evaluate(*arguments: str) -> Result:
        capsys.readouterr()
        try:
            code = main(("evaluate", *arguments))
        except SystemExit as exit:
            code = int(exit.code or 0)
        return (code, *capsys.readouterr())

    return evaluate


def test_help_has_an_example(run: Callable[..., Result]) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "example: zgrid evaluate topologies/3mg.yaml" in out


def test_writes_what_it_prints(run: Callable[..., Result], file: str, tmp_path: Path) -> None:
    out_folder = tmp_path / "new" / "out"
    code, out, err = run(file, *SHORT, "--out", str(out_folder))
    assert (code, err) == (0, "")
    written = json.loads((out_folder / "evaluation.json").read_text(encoding="utf-8"))
    assert list(written["policies"]) == ["idle", "random", "rule_based", "optimum"]
    for name, figures in written["policies"].items():
        (line,) = (line for line in out.splitlines() if line.startswith(name) and "±" in line)
        assert f"{figures['return']['mean']:,.0f} ±" in line
    with (out_folder / "days.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [(row["policy"], int(row["day"])) for row in rows] == [
        (name, day) for name in written["policies"] for day in written["days"]
    ]
    drawn = (out_folder / "scores.png").is_file()
    assert drawn == (find_spec("matplotlib") is not None)
    assert "days.csv" in "".join(out.split())


def test_json_is_all_that_is_printed_and_the_seed_decides(run: Callable[..., Result], file: str) -> None:
    def figures(seed: str) -> dict[str, Any]:
        code, out, err = run(file, *SHORT, "--no-optimum", "--json", "--seed", seed)
        assert (code, err) == (0, "")
        found: dict[str, Any] = json.loads(out)
        return found

    one, again, other = (figures(seed) for seed in ("1", "1", "2"))
    assert one == again
    assert one["days"] != other["days"]
    assert one["optimum"] == {"missing": "not asked for"}
    assert one["policies"]["idle"]["score"] is None


def test_says_why_there_is_no_optimum(run: Callable[..., Result], file: str) -> None:
    code, out, _ = run(file, *SHORT, "--set", "reward.voltage=bowl")
    assert code == 0
    assert "no optimum: cannot be planned: grids.mg_1.reward: voltage 'bowl'" in out
    (line,) = (line for line in out.splitlines() if line.startswith("idle") and "±" in line)
    assert " - " in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--policy", "best"), "unknown policy 'best'"),
        (("--policy", "onnx:nowhere/policy.onnx"), "nowhere/policy.onnx"),
        (("--episodes", "0"), "expected at least 1"),
        (("--seed", "-1"), "expected at least 0"),
        (("--split", "tomorrow"), "invalid choice"),
        (("--set", "episode_steps=300"), "no 13 days in a row belong to the split 'test'"),
        (("--set", "colour=1"), "colour: unknown key"),
    ],
)
def test_bad_input_ends_with_2(run: Callable[..., Result], file: str, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = run(file, *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_a_missing_topology_ends_with_2(run: Callable[..., Result], tmp_path: Path) -> None:
    assert run(str(tmp_path / "nowhere.yaml"))[:2] == (2, "")


def test_an_out_that_is_a_file_ends_with_2(run: Callable[..., Result], file: str) -> None:
    code, out, err = run(file, *SHORT, "--out", file)
    assert (code, out) == (2, "")
    assert "--out: expected a folder" in err


class TestNames:
    def test_a_file_is_called_by_its_stem(self) -> None:
        assert names_of(["onnx:runs/mappo.onnx"]).keys() == {"mappo"}
        assert names_of(["mine:Policy"]) == {"mine:Policy": "mine:Policy"}

    def test_two_of_one_stem_are_told_apart(self) -> None:
        both = ["onnx:a/policy.onnx", "onnx:b/policy.onnx"]
        assert list(names_of(both)) == both
        assert list(names_of(["onnx:a/idle.onnx"])) == ["onnx:a/idle.onnx"]

    def test_what_always_plays_is_not_named_again(self) -> None:
        assert names_of(["idle", "rule_based", "random"]) == {}
