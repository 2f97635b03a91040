"""What cannot work between grids, or between a grid and its devices, is a finding before anything starts."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import small_topology

from zgrid.topology import examine


def findings(grids: int = 3, **overrides: Any) -> dict[str, str]:
    _, found = examine(small_topology(grids), overrides)
    return {one.path: one.message for one in found}


def test_what_ships_fits() -> None:
    assert findings(horizontal="incremental_cost_consensus", vertical="price_signal") == {}


def test_a_graph_that_falls_apart_is_told_with_its_groups() -> None:
    alone = {f"grids.mg_{k}.neighbours": others for k, others in ((1, ["mg_2"]), (2, ["mg_1"]), (3, []))}
    found = findings(**{"horizontal": "average_consensus", **alone})
    assert found.keys() == {"grids.mg_3.neighbours"}
    assert "2 groups (mg_1, mg_2 / mg_3)" in found["grids.mg_3.neighbours"]
    assert findings(**{"horizontal": "none", **alone}) == {}


@pytest.mark.parametrize("path", ["vertical", "grids.mg_2.vertical"])
def test_a_price_step_above_its_bound_is_told_with_the_bound(path: str) -> None:
    # one generator of 100 $/(MW^2 h): 2 / (1 / 200) = 400 $/MWh per MW
    found = findings(**{path: {"kind": "price_signal", "step": 400.0}})
    assert set(found) == {path}
    assert "= 400," in found[path]
    assert findings(**{path: {"kind": "price_signal", "step": 399.0}}) == {}


def test_a_consensus_step_above_its_bound_is_told_with_the_bound() -> None:
    found = findings(horizontal={"kind": "incremental_cost_consensus", "step": 1e6})
    assert found.keys() == {"horizontal"}
    assert "the bound for the units of mg_1, mg_2, mg_3" in found["horizontal"]


def test_a_value_that_no_environment_knows_is_told() -> None:
    found = findings(horizontal={"kind": "secondary_control", "value": "frequency"})
    assert found.keys() == {"horizontal"}
    assert "'deviation_hz'" in found["horizontal"]
    assert findings(horizontal={"kind": "secondary_control", "value": "voltage"}) == {}


def test_one_way_neighbours_are_told() -> None:
    found = findings(**{"horizontal": "average_consensus", "grids.mg_1.neighbours": []})
    assert any("not mutual" in text for text in found.values())
