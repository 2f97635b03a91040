"""The study in docs/studies.md runs."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from conftest import ROOT

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


def test_every_metric_of_the_docs_is_one(tmp_path: Path) -> None:
    from zgrid.studies.case import ProtocolPart
    from zgrid.studies.protocol_run import play_protocol

    table = TEXT.partition("## Metrics of a protocol alone")[2].partition("##")[0]
    named = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.partition(" | ")[0])}
    assert named == play_protocol(ProtocolPart(kind="average_consensus"), 0, 1.0).metrics.keys()


def test_those_that_ship_are_all_told_with_their_runs() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", TEXT, re.MULTILINE))
    files = (ROOT / "topologies" / "studies").glob("*.yaml")
    assert told == {file.stem: str(len(load_study(file.stem).runs())) for file in files}
