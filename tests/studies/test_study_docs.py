"""The study in docs/studies.md runs."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from conftest import ROOT, small_topology

from zgrid.studies import load_study, run_study

TEXT = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")


def test_the_study_of_the_docs_runs(tmp_path: Path) -> None:
    whole, knobs = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "a.yaml").write_text(whole, encoding="utf-8")
    done = run_study(load_study(tmp_path / "a.yaml"), tmp_path / "out")
    assert [row["status"] for row in done.rows] == ["ok"] * 12
    labelled = {"name": "b", "topology": "3mg", **yaml.safe_load(knobs)}
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(labelled), encoding="utf-8")
    assert len(load_study(tmp_path / "b.yaml").runs()) == 20


def named(heading: str) -> set[str]:
    """What stands in the first column of a table of metrics."""
    table = TEXT.partition(heading)[2].partition("##")[0]
    return {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.partition(" | ")[0])}


def test_every_metric_of_the_docs_is_one() -> None:
    from zgrid.studies.case import ProtocolPart
    from zgrid.studies.protocol_run import play_protocol

    metrics = play_protocol(ProtocolPart(kind="average_consensus"), 0, 1.0).metrics
    assert named("## Metrics of a protocol alone") == metrics.keys()


def test_every_metric_of_an_environment_is_told() -> None:
    from zgrid.studies.environment_run import play_topology
    from zgrid.topology import load

    topology = load(small_topology(), {"centralized": True})
    metrics = play_topology(topology, {}, 0, (1, 1))
    terms = {name for spec in topology.grid_specs for name in spec.build_reward().term_names}
    assert named("## Metrics of an environment") == {name for name in metrics if "." not in name} - terms


def test_those_that_ship_are_all_told_with_their_runs() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", TEXT, re.MULTILINE))
    files = (ROOT / "topologies" / "studies").glob("*.yaml")
    assert told == {file.stem: str(len(load_study(file.stem).runs())) for file in files}
