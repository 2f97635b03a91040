"""Overrides: dotted keys into a topology, with wildcards, also where a bare kind stands for a section."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import small_topology

from zgrid.errors import TopologyError
from zgrid.topology import Topology, examine, load, parse_overrides


def loaded(overrides: dict[str, Any], grids: int = 2) -> Topology:
    return load(small_topology(grids), overrides)


def paths(overrides: dict[str, Any]) -> list[str]:
    """Where something is wrong with the small topology under these overrides."""
    return [finding.path for finding in examine(small_topology(), overrides)[1]]


def test_a_key_at_the_top_is_set() -> None:
    assert loaded({"dt_h": 0.5}).dt_h == 0.5


def test_a_dotted_key_is_set_and_its_neighbours_stay() -> None:
    topology = loaded({"grids.mg_1.devices.dg_1.p_max_mw": 0.55})
    assert topology.grids["mg_1"].devices["dg_1"].p_max_mw == 0.55
    assert topology.grids["mg_1"].devices["dg_1"].s_rated_mva == 1.0
    assert topology.grids["mg_2"].devices["dg_1"].p_max_mw == 0.6


def test_an_entry_of_a_list_is_entered_by_its_place() -> None:
    given = {"links": [{"loss": 0.1}, {"delay": {"kind": "constant", "value": 1}}], "links.1.delay.value": 2.0}
    first, second = loaded({**given, "links.*.duplicate": 0.5, "links.0.loss": 0.3}).links
    assert (first.loss, first.duplicate, second.duplicate) == (0.3, 0.5, 0.5)
    assert second.delay is not None
    assert second.delay.value == 2.0


@pytest.mark.parametrize("key", ["links.2.loss", "links.first.loss", "links.0"])
def test_an_entry_that_is_not_there_is_told(key: str) -> None:
    assert paths({"links": [{"loss": 0.1}, {"loss": 0.2}], key: 0.0}) == [key]


def test_a_wildcard_stands_for_every_key() -> None:
    topology = loaded({"grids.*.devices.*.run": "inline", "grids.*.run": "inline"})
    assert set(topology.runs().values()) == {"inline"}


def test_a_wildcard_at_the_end_stands_for_every_key_that_is_there() -> None:
    generator = {"kind": "generator", "bus": "675", "p_max_mw": 0.1, "s_rated_mva": 0.1}
    devices = loaded({"grids.mg_1.devices.*": generator}).grids["mg_1"].devices
    assert list(devices) == ["dg_1", "pv_1", "ess_1"]
    assert {device.p_max_mw for device in devices.values()} == {0.1}


def test_a_section_that_is_not_there_is_made() -> None:
    assert loaded({"broker.step_timeout_s": 3.0}).broker.step_timeout_s == 3.0


def test_a_parameter_goes_into_a_kind_that_stands_alone() -> None:
    content = small_topology(2) | {"reward": "economic", "horizontal": "average_consensus"}
    topology = load(content, {"reward.penalty": 7.0, "horizontal.rounds": 3})
    assert topology.reward.penalty == 7.0
    assert topology.horizontal.rounds == 3


def test_a_parameter_goes_into_a_network_that_stands_alone() -> None:
    content = small_topology()
    content["grids"]["mg_1"]["network"] = "ieee13"
    assert load(content, {"grids.*.network.load_scale": 0.3}).grids["mg_1"].network.load_scale == 0.3


def test_a_policy_for_all_replaces_those_of_the_grids() -> None:
    content = small_topology(2)
    content["grids"]["mg_1"]["policy"] = "random"
    topology = load(content, {"policy": "idle", "grids.*.policy": None})
    assert [spec.policy.kind for spec in topology.grid_specs] == ["idle", "idle"]


def test_later_overrides_see_earlier_ones() -> None:
    assert loaded({"broker": {"step_timeout_s": 1.0}, "broker.ready_timeout_s": 2.0}).broker.step_timeout_s == 1.0


def test_overrides_apply_to_a_loaded_topology_and_leave_it_alone() -> None:
    topology = loaded({})
    assert load(topology, {"grids.mg_1.devices.dg_1.cost_b": 9.0}).hash() != topology.hash()
    assert topology == loaded({})


def test_a_given_value_is_not_shared_between_grids_nor_with_the_caller() -> None:
    network = {"kind": "ieee13", "load": "load_1"}
    topology = loaded({"grids.*.network": network, "grids.mg_1.network.load_scale": 0.25})
    assert topology.grids["mg_2"].network.load_scale == 1.0
    assert network == {"kind": "ieee13", "load": "load_1"}


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        ({"reward.penalty.x": 1}, "reward.penalty.x"),
        ({"profiles.file.x.y": 1}, "profiles.file.x.y"),
        ({"grids.mg_1.price.*.x": 1}, "grids.mg_1.price.*.x"),
        ({"colour": 1}, "colour"),
        ({"broker.colour": 1}, "broker.colour"),
        ({"colour.shade": 1}, "colour"),
        ({"dt_h": "x"}, "dt_h"),
        ({"grids.mg_1.devices.dg_1.p_min_mw": 5.0}, "grids.mg_1.devices.dg_1"),
        ({"grids.*.policy": "best"}, "grids.mg_1.policy.kind"),
    ],
)
def test_an_override_that_fits_nothing_is_told(overrides: dict[str, Any], path: str) -> None:
    assert path in paths(overrides)


def test_an_override_of_an_unknown_grid_is_told() -> None:
    assert "grids.mg_9.network" in paths({"grids.mg_9.price": 5.0})


class TestCommandLine:
    def test_values_are_read_as_yaml(self) -> None:
        settings = ["a=1", "b=0.5", "c=true", "d=text", "e=[1, x]", "f={kind: idle}", "g=", "h=x=y", "i='5'"]
        assert parse_overrides(settings) == {
            "a": 1,
            "b": 0.5,
            "c": True,
            "d": "text",
            "e": [1, "x"],
            "f": {"kind": "idle"},
            "g": None,
            "h": "x=y",
            "i": "5",
        }

    def test_the_last_of_two_counts(self) -> None:
        assert parse_overrides(["a=1", "a=2"]) == {"a": 2}

    @pytest.mark.parametrize("setting", ["dt_h", "=5", "", "="])
    def test_what_is_not_key_and_value_is_told(self, setting: str) -> None:
        with pytest.raises(TopologyError, match="expected KEY=VALUE"):
            parse_overrides([setting])

    def test_a_value_that_is_not_yaml_is_told_with_its_key(self) -> None:
        with pytest.raises(TopologyError, match=r"a\.b: not YAML"):
            parse_overrides(["a.b=[1"])
