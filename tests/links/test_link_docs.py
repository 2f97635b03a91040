"""What the guide shows can be run."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from conftest import ROOT, small_topology

from zgrid.links import Delay, FalseData, GilbertElliott, LinkConfig
from zgrid.links.config import NEEDS
from zgrid.topology import examine

GUIDE = (ROOT / "docs" / "links.md").read_text(encoding="utf-8")


def block(language: str, k: int = 0) -> str:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    return found[k]


def test_its_topology_has_no_findings() -> None:
    topology, findings = examine(small_topology(3) | yaml.safe_load(block("yaml")))
    assert findings == []
    assert topology is not None
    assert len(topology.links) == 3
    chain = topology.links[0].gilbert_elliott
    assert chain is not None
    assert chain.bad_share == pytest.approx(1.0 / 6.0)


def test_its_code_runs() -> None:
    names: dict[str, Any] = {}
    exec(compile(block("python"), "docs/links.md", "exec"), names)
    counts = names["counts"]
    assert counts.sent == 50
    assert 0 < counts.lost == 50 - counts.delivered < 25


def test_its_environment_tells_of_its_links(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(block("python", 1), "docs/links.md", "exec"), names)
    link = names["link"]
    assert capsys.readouterr().out == f"mg_1 mg_2 peer {link['sent']} {link['lost']}\n"
    assert 0 < link["lost"] < link["sent"]


@pytest.mark.parametrize("key", [*LinkConfig.model_fields, *GilbertElliott.model_fields, *FalseData.model_fields])
def test_it_names_every_key(key: str) -> None:
    assert f"`{key}`" in GUIDE


def test_it_names_every_delay_and_its_parameters() -> None:
    for kind, keys in NEEDS.items():
        assert f"`{{kind: {', '.join([kind, *keys])}}}`" in GUIDE
    assert {key for keys in NEEDS.values() for key in keys} | {"kind"} == set(Delay.model_fields)
