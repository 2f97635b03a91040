"""Generated topologies are the same for the same seed, run, and keep sane voltages through a month."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

import zgrid
from zgrid.cli import main
from zgrid.survey import survey
from zgrid.topology import load
from zgrid.topology.generated import dump, generate


def test_the_seed_decides() -> None:
    assert generate(7, 3) == generate(7, 3)
    assert generate(7, 3) != generate(7, 4)


@pytest.mark.parametrize("microgrids", [1, 2, 3, 12])
def test_what_is_made_is_a_topology_without_findings(microgrids: int) -> None:
    topology = load(generate(microgrids))
    assert len(topology.grids) == microgrids
    assert len(topology.device_specs) == 3 * microgrids
    assert {grid.connect_at for grid in topology.grids.values()} == {str(k + 1) for k in range(microgrids)}


def test_the_text_is_the_content_under_a_comment() -> None:
    text = dump(generate(2), "made by\n\n  somebody")
    assert text.startswith("# made by\n#\n#   somebody\nname: 2mg\n")
    assert yaml.safe_load(text) == generate(2)


@pytest.mark.parametrize("microgrids", [0, 1001])
def test_as_many_as_no_feeder_carries_are_refused(microgrids: int) -> None:
    with pytest.raises(ValueError, match="1 to 1000"):
        generate(microgrids)


@pytest.mark.parametrize(
    "microgrids", [10, pytest.param(50, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.slow)]
)
def test_voltages_are_sane_at_every_hour_of_a_month(microgrids: int) -> None:
    for found in survey(load(generate(microgrids, seed=2)), range(181, 212)):
        assert (found.diverged, found.hours) == (0, 31 * 24)
        assert 0.95 < found.vm_min_pu < found.vm_max_pu < 1.05


def test_a_survey_sees_what_an_env_sees() -> None:
    (idle, feeding_in), env = survey(load("3mg"), [50]), zgrid.parallel_env("3mg", centralized=True, policy="idle")
    env.reset(options={"day": 50})
    low, high = [], []
    while env.agents:
        *_, infos = env.step(dict.fromkeys(env.agents))
        assert env._world.solution is not None
        low.append(np.nanmin(env._world.solution.vm_pu))
        high.append(np.nanmax(env._world.solution.vm_pu))
        assert all(info["converged"] for info in infos.values())
    assert (idle.devices, idle.hours) == ("idle", 24)
    assert (idle.vm_min_pu, idle.vm_max_pu) == pytest.approx((min(low), max(high)), abs=1e-9)
    assert feeding_in.vm_max_pu > idle.vm_max_pu + 0.005


class TestCommand:
    def test_writes_the_file_and_tells_the_voltages(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "ten.yaml"
        assert main(["generate", "--microgrids", "3", "--seed", "5", "--out", str(out)]) == 0
        assert yaml.safe_load(out.read_text()) == generate(3, 5)
        text = capsys.readouterr().out
        assert "idle: " in text
        assert "720 hours, 0 without a solution" in text
        assert f"next: python launch.py {out}" in text

    def test_prints_without_a_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["generate", "--microgrids", "2"]) == 0
        assert yaml.safe_load(capsys.readouterr().out) == generate(2, 0)

    def test_refuses_too_many(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["generate", "--microgrids", "1001"]) == 2
        assert "1 to 1000" in capsys.readouterr().err

    def test_tells_a_file_that_cannot_be_written(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["generate", "--microgrids", "1", "--out", str(tmp_path / "no" / "x.yaml")]) == 2
        assert "--out" in capsys.readouterr().err
