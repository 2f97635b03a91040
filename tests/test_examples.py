"""What README and examples show is run."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

import zgrid

MODES: list[dict[str, Any]] = [{"centralized": True}, {"message_broker": "in_memory"}]


@pytest.fixture(autouse=True)
def _from_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))


def rewards(file: str, steps: int = 24, **overrides: Any) -> list[Any]:
    with closing(zgrid.parallel_env(file, **overrides)) as env:
        env.reset(seed=3)
        return [env.step(dict.fromkeys(env.agents))[1] for _ in range(steps)]


def test_the_own_device_runs_alike_in_both_modes_and_empties_its_tank() -> None:
    assert rewards("examples/fuel_cell.yaml", **MODES[0]) == rewards("examples/fuel_cell.yaml", **MODES[1])
    env = zgrid.parallel_env("examples/fuel_cell.yaml", centralized=True)
    env.reset(seed=3)
    for _ in range(11):
        env.step({"mg_1": np.array([1.0, -1.0])})
    row = env.snapshot()
    # 3 MWh at an efficiency of 0.5 give 1.5 MWh: five hours at 0.3 MW
    assert row["mg_1.fc_1.tank"] == pytest.approx(0.0, abs=1e-12)
    assert row["mg_1.fc_1.p_mw"] == pytest.approx(0.0, abs=1e-12)


def test_the_own_device_agrees_on_floats_and_arrays() -> None:
    from examples.fuel_cell import FuelCell, FuelCellConfig

    config = FuelCellConfig(
        kind="x", bus="1", p_max_mw=0.3, tank_mwh=3.0, efficiency=0.5, hydrogen_cost=30.0, run="inline"
    )
    one, many = FuelCell.one(config, 1.0), FuelCell.many([config, config], 1.0)
    asked, tank = np.array([0.2, 0.9]), np.array([1.0, 0.05])
    state, effect = many.step((tank,), (asked,), ())
    for row in range(2):
        own_state, own_effect = one.step((float(tank[row]),), (float(asked[row]),), ())
        assert own_state[0] == state[0][row]
        assert own_effect == tuple(value[row] for value in effect)


@pytest.mark.parametrize("kind", ["examples.own_protocol:MaxConsensus", "examples.event_protocol:Alarm"])
def test_the_own_protocol_finds_the_highest_import(kind: str) -> None:
    horizontal = {"kind": kind, "rounds": 2}
    traces = []
    for mode in MODES:
        with closing(zgrid.parallel_env("topologies/3mg.yaml", horizontal=horizontal, **mode)) as env:
            env.reset(options={"day": 10})
            env.step(dict.fromkeys(env.agents))
            before = env.snapshot()
            observations, *_ = env.step(dict.fromkeys(env.agents))
        at = env.observation_names("mg_2").index("highest")
        highest = max(before[f"{agent}.p_pcc_mw"] for agent in env.possible_agents)
        assert observations["mg_2"][at] == np.float32(highest)
        traces.append(observations["mg_2"].tobytes())
    assert traces[0] == traces[1]


@pytest.mark.slow
def test_the_event_protocol_crosses_a_line_within_a_period() -> None:
    run = subprocess.run(
        [sys.executable, "examples/event_protocol.py"], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stdout.splitlines() == [
        "in lockstep, 1 round: [0.6, 0.6, 0.5, 0.4, 0.3, 0.2]",
        "in lockstep, 5 rounds: [0.6, 0.6, 0.6, 0.6, 0.6, 0.6]",
        "by the clock, 1 round: [0.6, 0.6, 0.6, 0.6, 0.6, 0.6]",
    ], run.stderr


@pytest.mark.slow
def test_the_python_in_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        run = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, run.stderr


def test_the_two_commands_of_the_readme_are_the_ones_ci_runs() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    for command in ("pip install -e . && python launch.py topologies/3mg.yaml", "pip install -e '.[test]' && pytest"):
        assert command in readme
        install, _, run = command.partition(" && ")
        assert install.removeprefix("pip install ") in ci
        assert re.search(rf"^(pip .* && )?{re.escape(run)}", ci, flags=re.MULTILINE)


def test_every_file_that_the_readme_points_to_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
