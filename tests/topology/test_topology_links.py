"""What is wrong with the rules of links is told with the path of the rule."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import small_topology

from zgrid.errors import Finding
from zgrid.topology import examine, load

ALL = "env, mg_1.dg_1, mg_1.pv_1, mg_1.ess_1, mg_2.dg_1, mg_2.pv_1, mg_2.ess_1, mg_1, mg_2"


def findings(*rules: Any, **more: Any) -> list[Finding]:
    content = small_topology(2) | {"horizontal": "average_consensus", "links": list(rules)} | more
    return examine(content)[1]


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"source": "mg_*", "kind": "peer", "loss": 0.1},
        {"source": "env", "destination": "mg_1", "kind": "action", "denial": True},
        {"source": "*.ess_1", "destination": "*", "kind": "state"},
        {"source": "mg_1", "destination": "mg_1.*", "kind": "setpoint", "direction": "both"},
        {"partition": [["mg_1", "mg_1.*"], ["mg_2", "mg_2.*"]]},
        {"delay": {"kind": "trace", "values": [0, 1, 2]}, "hours": [6, 18]},
    ],
)
def test_a_good_rule_has_no_findings(rule: dict[str, Any]) -> None:
    assert findings(rule) == []


@pytest.mark.parametrize(
    ("rule", "path", "words"),
    [
        ({"source": "mg_9"}, "source", f"nobody fits 'mg_9'; there is {ALL}"),
        ({"destination": "*.dg_9"}, "destination", "nobody fits '*.dg_9'"),
        ({"partition": [["mg_1"], ["mg_2", "mg_3"]]}, "partition.1", "nobody fits 'mg_3'"),
        ({"colour": 1}, "colour", "unknown key"),
        ({"delay": {"kind": "constant", "value": 1, "colour": 1}}, "delay.colour", "unknown key"),
        ({"loss": 2.0}, "loss", "less than or equal to 1, got 2.0"),
        ({"kind": "pear"}, "kind", "'peer', 'setpoint', 'state', 'action', 'network' or '*', got 'pear'"),
        ({"queue": 3}, "", "queue needs a rate"),
        ({"window": [3, 1]}, "", "not before it, got [3, 1]"),
        ({"delay": {"kind": "uniform", "low": 1}}, "delay", "a uniform delay has low and high, got ['low']"),
    ],
)
def test_a_wrong_rule_is_told(rule: dict[str, Any], path: str, words: str) -> None:
    (found,) = findings({}, rule)
    assert found.path == ".".join(part for part in ("links.1", path) if part)
    assert words in found.message


@pytest.mark.parametrize(
    "rule",
    [
        {"source": "mg_1.dg_1", "destination": "mg_2"},
        {"source": "mg_1", "destination": "mg_1.dg_1", "kind": "state"},
        {"source": "env", "kind": "setpoint"},
        {"source": "*.dg_1", "kind": "peer"},
    ],
)
def test_a_rule_that_no_message_fits_is_told(rule: dict[str, Any]) -> None:
    (found,) = findings(rule)
    assert found.path == "links.0"
    assert "no message of" in found.message


@pytest.mark.parametrize("horizontal", [None, "none"])
def test_peers_need_a_protocol(horizontal: str | None) -> None:
    (found,) = findings({"kind": "peer"}, horizontal=horizontal)
    assert "no message of kind peer goes from * to *" in found.message


def test_devices_that_talk_have_peers() -> None:
    assert findings({"source": "*.dg_1", "kind": "peer"}, vertical="price_signal") == []


def test_specs_carry_the_rules() -> None:
    topology = load(small_topology() | {"links": [{"loss": 0.5}]})
    assert [spec.links for spec in (*topology.grid_specs, *topology.device_specs)] == [topology.links] * 4
    assert topology.links[0].loss == 0.5
