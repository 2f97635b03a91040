"""The policy that ships with 3mg plays without torch, alike in every mode, and is better than the rules."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from conftest import ROOT

import zgrid

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'zgrid[onnx]'")

FILE = ROOT / "topologies" / "3mg.onnx"
POLICY = "onnx:3mg.onnx"
DAYS = range(21, 28)  # the fourth week: of the test split


def day_return(policy: str) -> float:
    """The return of a week of the test split, all grids, $ per day."""
    total = 0.0
    with closing(zgrid.parallel_env("3mg", centralized=True, policy=policy)) as env:
        for day in DAYS:
            env.reset(seed=1, options={"day": day})
            while env.agents:
                total += sum(env.step(dict.fromkeys(env.agents))[1].values())
    return total / len(DAYS)


def test_it_is_small() -> None:
    assert FILE.stat().st_size < 200_000


def test_it_is_better_than_the_rules_which_are_better_than_idling_and_chance() -> None:
    trained, rules, idle, chance = map(day_return, (POLICY, "rule_based", "idle", "random"))
    assert trained > rules + 300.0
    assert rules > idle + 100.0 > chance


def test_launched_it_earns_what_it_earns_in_one_process(tmp_path: Path) -> None:
    digests = []
    for name, mode in (("one", ["--centralized"]), ("many", [])):
        out = tmp_path / name
        command = [sys.executable, "launch.py", "topologies/3mg.yaml", "--policy", "onnx:topologies/3mg.onnx", *mode]
        done = subprocess.run(
            [*command, "--episodes", "2", "--seed", "5", "--out", str(out), "--quiet"],
            cwd=ROOT, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        summary = json.loads((out / "summary.json").read_text())
        assert {grid["policy"] for grid in summary["grids"].values()} == {"onnx"}
        digests.append(summary["digest"])
    assert digests[0] == digests[1]


def test_a_grid_node_needs_no_torch() -> None:
    look = (
        "import sys; from zgrid.topology import load; from zgrid.node import make_agent; "
        f"make_agent(load('3mg', {{'policy': '{POLICY}'}}), 'mg_1'); "
        "print(sorted({'torch', 'onnx', 'pandapower', 'ray'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
