"""A network that cannot run is told by its place in the topology before any agent starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import GENERATOR, small_topology

from zgrid.cli import launch_main, main
from zgrid.errors import TopologyError
from zgrid.session import Session
from zgrid.topology import load
from zgrid.world import World


def overloaded() -> dict[str, Any]:
    """More load than the network can carry."""
    content = small_topology()
    content["grids"]["mg_1"]["network"]["load_scale"] = 60.0
    return content


def behind_an_open_switch() -> dict[str, Any]:
    """The generator's bus is dead, because a switch begins open."""
    content = small_topology()
    content["grids"]["mg_1"]["devices"]["sw_1"] = {
        "kind": "switch", "element": "Switch 671-692", "closed_init": False,
    }  # fmt: skip
    return content


WRONG: dict[str, tuple[Any, str]] = {
    "does not solve": (overloaded, "grids: the network does not solve at row 0 of the data with idle devices"),
    "dead bus": (behind_an_open_switch, "grids.mg_1.devices.dg_1.bus: bus 675 is dead"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_world_is_not_made(name: str) -> None:
    make, text = WRONG[name]
    with pytest.raises(TopologyError) as caught:
        World(load(make()))
    assert text in str(caught.value)


@pytest.mark.parametrize("name", WRONG)
def test_validate_tells_it(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, text = WRONG[name]
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(make()))
    assert main(["validate", str(file)]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("broker", [pytest.param("zmq", marks=pytest.mark.slow), "in_memory"])
def test_launch_tells_it_and_starts_no_agent(
    broker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(Session, "start_agents", lambda self, address: started.append(address))
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(behind_an_open_switch()))
    assert launch_main([str(file), "--broker", broker]) == 2
    assert "grids.mg_1.devices.dg_1.bus: bus 675 is dead" in capsys.readouterr().err
    assert started == []


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("power_flow.kind", "fasst", "power_flow.kind: unknown power flow 'fasst'; did you mean 'fast'"),
        ("grids.mg_1.network.taps", {"Substation": 9}, "grids.mg_1.network.taps.Substation: expected -2 to 2, got 9"),
        ("grids.mg_1.islanding", "grid_forming", "grids.mg_1.forming_unit: expected one of dg_1"),
        ("grids.mg_1.forming_unit", "dg_1", "grids.mg_1.forming_unit: without islanding"),
    ],
)
def test_what_needs_no_power_flow_is_told_on_load(key: str, value: Any, text: str) -> None:
    with pytest.raises(TopologyError) as caught:
        load(small_topology(), {key: value})
    assert text in str(caught.value)


def test_a_tap_outside_its_range_is_told_with_its_path() -> None:
    content = small_topology()
    content["grids"]["mg_1"]["devices"]["tap_1"] = {
        "kind": "tap_changer", "element": "Substation", "tap_min": -2, "tap_max": 5, "tap_init": 0,
    }  # fmt: skip
    with pytest.raises(TopologyError, match=r"grids\.mg_1\.devices\.tap_1\.tap_max: expected -2 to 2, got 5"):
        load(content)


def test_a_default_power_flow_says_how_it_solves(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "zgrid.powerflow.fast"):
        World(load(small_topology()))
    assert "power flow: fixed point on dense impedances, 12 buses" in caplog.text
    assert GENERATOR["bus"] == "675"
