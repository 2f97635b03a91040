"""Studies: rows that are the same every time, that a kill does not lose, and files whose faults are named."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, descendants, small_topology, wait_until

from zgrid.environment import NetworkedGridEnv
from zgrid.errors import StudyError, TopologyError
from zgrid.studies import Study, load_study, run_study
from zgrid.studies.environment_run import BECAME

CONSENSUS: dict[str, Any] = {
    "name": "small",
    "protocol": {
        "kind": "average_consensus",
        "graph": {"kind": "ring", "size": 4},
        "config": {"rounds": 30},
        "links": [{"kind": "peer", "delay": {"kind": "constant", "value": 0}}],
    },
    "knobs": {
        "delay": {"key": "links.0.delay.value", "values": [0, 1]},
        "loss": {"key": "links.0.loss", "values": [0, 0.2]},
    },
    "seeds": 3,
    "reference": {"loss": 0},
    "curves": True,
}
FAULTS: dict[str, Any] = {
    "links": [
        {"kind": "peer", "loss": 0.2, "delay": {"kind": "exponential", "mean": 0.7}, "duplicate": 0.1},
        {"kind": "setpoint", "loss": 0.3},
    ],
    "horizontal": {"kind": "average_consensus", "rounds": 6},
    "episode_steps": 3,
}
TABLES = ("rows.csv", "comparison.csv", "history.csv")


def write(folder: Path, content: Mapping[str, Any], name: str = "study.yaml") -> Path:
    """A study as a file."""
    path = folder / name
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")
    return path


def tables(folder: Path, names: tuple[str, ...] = TABLES) -> list[bytes]:
    return [(folder / name).read_bytes() for name in names]


def rows_of(folder: Path, name: str = "rows.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def findings(folder: Path, content: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with a study, by path."""
    with pytest.raises(TopologyError) as caught:
        load_study(write(folder, content))
    return {finding.path: finding.message for finding in caught.value.findings}


class TestRows:
    def test_two_runs_and_two_processes_write_the_same(self, tmp_path: Path) -> None:
        study = load_study(write(tmp_path, CONSENSUS))
        for name, processes in (("one", 1), ("again", 1), ("two", 2)):
            run_study(study, tmp_path / name, processes=processes)
        assert tables(tmp_path / "one") == tables(tmp_path / "again") == tables(tmp_path / "two")
        assert len(rows_of(tmp_path / "one")) == 12

    def test_come_by_combination_and_seed_whatever_ended_first(self, tmp_path: Path) -> None:
        run_study(load_study(write(tmp_path, CONSENSUS)), tmp_path / "out")
        found = [(row["delay"], row["loss"], row["seed"]) for row in rows_of(tmp_path / "out")]
        assert found == [(d, p, s) for d in ("0", "1") for p in ("0", "0.2") for s in ("0", "1", "2")]

    def test_keep_the_way_of_one_seed(self, tmp_path: Path) -> None:
        run_study(load_study(write(tmp_path, CONSENSUS)), tmp_path / "out")
        rows = rows_of(tmp_path / "out", "history.csv")
        assert len(rows) == 4 * 30
        assert {row["seed"] for row in rows} == {"0"}

    def test_a_finished_study_is_not_run_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        study = load_study(write(tmp_path, CONSENSUS))
        run_study(study, tmp_path / "out")
        before = tables(tmp_path / "out")
        monkeypatch.setattr("zgrid.studies.runner.play_run", lambda study, run: pytest.fail("run again"))
        run_study(study, tmp_path / "out")
        assert tables(tmp_path / "out") == before

    @pytest.mark.parametrize("cut", [1, 40])
    def test_a_line_that_was_cut_off_is_run_again(self, cut: int, tmp_path: Path) -> None:
        study = load_study(write(tmp_path, CONSENSUS))
        run_study(study, tmp_path / "out")
        before, path = tables(tmp_path / "out"), tmp_path / "out" / "runs.jsonl"
        data = path.read_bytes()
        path.write_bytes(data[: len(data) - cut])
        told: list[int] = []
        run_study(study, tmp_path / "out", progress=lambda name, done, total: told.append(done))
        assert told == [11, 12]
        assert tables(tmp_path / "out") == before

    def test_another_study_is_refused_unless_it_begins_anew(self, tmp_path: Path) -> None:
        run_study(load_study(write(tmp_path, CONSENSUS)), tmp_path / "out")
        other = load_study(write(tmp_path, {**CONSENSUS, "seeds": 1}))
        with pytest.raises(StudyError, match="another study, or another version of it; expected another --out"):
            run_study(other, tmp_path / "out")
        assert len(run_study(other, tmp_path / "out", fresh=True).rows) == 4

    @pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow: pip install -e '.[parquet]'")
    def test_are_parquet_too(self, tmp_path: Path) -> None:
        from pyarrow import parquet

        done = run_study(load_study(write(tmp_path, CONSENSUS)), tmp_path / "out")
        assert parquet.read_table(tmp_path / "out" / "rows.parquet").to_pylist() == done.rows

    @pytest.mark.skipif(find_spec("pyarrow") is not None, reason="pyarrow is installed")
    def test_say_what_parquet_needs(self, tmp_path: Path) -> None:
        done = run_study(load_study(write(tmp_path, CONSENSUS)), tmp_path / "out")
        assert done.hint == "no rows.parquet: rows.parquet needs pyarrow: pip install 'zgrid[parquet]'"


class TestKilled:
    @pytest.mark.slow
    @pytest.mark.parametrize("processes", ["1", "2"])
    def test_a_study_goes_on_from_where_it_was_killed(self, processes: str, tmp_path: Path) -> None:
        long = {**CONSENSUS, "protocol": {**CONSENSUS["protocol"], "config": {"rounds": 250}}, "seeds": 5}
        file = write(tmp_path, long)
        command = [sys.executable, "-c", "from zgrid.cli import main; import sys; sys.exit(main())", "study", str(file)]
        command += ["--processes", processes, "--out", str(tmp_path / "killed")]
        lines = tmp_path / "killed" / "runs.jsonl"
        with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
            assert wait_until(lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 2, 30.0)
            below = descendants(process.pid)
            process.send_signal(signal.SIGKILL)
        assert wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in below), 10.0)
        kept = lines.read_bytes().count(b"\n")
        assert 2 <= kept < 20
        told: list[int] = []
        study = load_study(file)
        run_study(study, tmp_path / "killed", progress=lambda name, done, total: told.append(done))
        assert told == list(range(kept, 21))
        run_study(study, tmp_path / "whole")
        assert tables(tmp_path / "killed") == tables(tmp_path / "whole")


class TestFailedRuns:
    def content(self) -> dict[str, Any]:
        values = [{"label": kind, "set": {"kind": f"{__name__}:{kind}"}} for kind in ("Fails",)]
        part = {"kind": "average_consensus", "config": {"rounds": 3}}
        knob = {"values": [{"label": "works", "set": {"kind": "average_consensus"}}, *values]}
        return {"name": "failing", "protocol": part, "knobs": {"which": knob}, "seeds": 2}

    def test_are_rows_and_the_others_go_on(self, tmp_path: Path) -> None:
        done = run_study(load_study(write(tmp_path, self.content())), tmp_path / "out")
        assert [row["status"] for row in done.rows] == ["ok", "ok", "failed", "failed"]
        assert done.rows[2]["error"] == "ZeroDivisionError: division by zero"
        assert done.rows[2]["rounds"] is None
        assert done.failed[0] == "run 2 (which=Fails, seed=0): ZeroDivisionError: division by zero"

    def test_are_tried_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        study = load_study(write(tmp_path, self.content()))
        run_study(study, tmp_path / "out")
        monkeypatch.setattr(Fails, "works", True)
        done = run_study(study, tmp_path / "out")
        assert [row["status"] for row in done.rows] == ["ok"] * 4
        assert done.failed == ()


class TestFiles:
    def test_an_unknown_key_is_named(self, tmp_path: Path) -> None:
        assert findings(tmp_path, {**CONSENSUS, "seed": 3}) == {"seed": "unknown key"}

    def test_a_wrong_shape_is_named_with_its_path(self, tmp_path: Path) -> None:
        bad = {**CONSENSUS, "protocol": {**CONSENSUS["protocol"], "graph": {"kind": "tree", "size": 0}}}
        assert {"protocol.graph.kind", "protocol.graph.size"} == findings(tmp_path, bad).keys()

    def test_a_value_that_a_knob_may_not_have_is_named_with_its_combination(self, tmp_path: Path) -> None:
        bad = {**CONSENSUS, "knobs": {"loss": {"key": "links.0.loss", "values": [0, 1.5]}}, "reference": {}}
        ((path, text),) = findings(tmp_path, bad).items()
        assert path == "protocol.links.0.loss"
        assert text.startswith("Input should be less than or equal to 1")
        assert text.endswith("(loss=1.5)")

    def test_a_parameter_that_a_kind_does_not_have_is_named(self, tmp_path: Path) -> None:
        bad = {**CONSENSUS, "set": {"config.rho": 1.0}}
        assert findings(tmp_path, bad) == {"protocol.config.rho": "unknown key (delay=0, loss=0)"}

    def test_a_list_is_not_entered_beyond_its_end(self, tmp_path: Path) -> None:
        bad = {**CONSENSUS, "knobs": {"loss": {"key": "links.1.loss", "values": [0]}}, "reference": {}}
        assert findings(tmp_path, bad) == {"links.1.loss": "the override fits nothing (loss=0)"}

    def test_an_unknown_kind_is_named(self, tmp_path: Path) -> None:
        bad = {**CONSENSUS, "set": {"kind": "telepathy"}}
        assert "telepathy" in findings(tmp_path, bad)["protocol.kind"]

    @pytest.mark.parametrize("kind", ["setpoint", "none"])
    def test_a_kind_in_which_nobody_talks_is_refused(self, kind: str, tmp_path: Path) -> None:
        bad = {**CONSENSUS, "set": {"kind": kind}}
        assert findings(tmp_path, bad)["protocol.kind"].startswith(f"protocol {kind!r}: nobody talks in it")

    def test_a_wrong_key_of_a_topology_is_named(self, tmp_path: Path) -> None:
        write(tmp_path, small_topology(), "small.yaml")
        bad = {"name": "a", "topology": "small.yaml", "knobs": {"load": {"key": "grids.mg_1.networks", "values": [1]}}}
        assert findings(tmp_path, bad) == {"grids.mg_1.networks": "unknown key (load=1)"}

    @pytest.mark.parametrize(
        ("change", "path", "text"),
        [
            ({"topology": "3mg"}, "study", "expected one of topology and protocol"),
            ({"steps": 3}, "study", "episodes and steps are those of an environment"),
            ({"reference": {"speed": 1}}, "study", "reference.speed: no such knob"),
            ({"reference": {"loss": 7}}, "study", "reference.loss: 7 is none of its values 0, 0.2"),
            ({"seeds": [1, 1]}, "study", "seeds: expected at least one, none twice"),
            ({"knobs": {"seed": {"key": "x", "values": [1]}}}, "study", "knobs: seed: expected a word other than"),
            ({"knobs": {"a": {"values": [1]}}}, "knobs.a", "the value 1 has no key"),
            ({"knobs": {"a": {"key": "x", "values": [1, 1]}}}, "knobs.a", "values: 1 more than once"),
            ({"set": {"seed": 4}}, "seed", "the study's own seeds set it"),
        ],
    )
    def test_what_does_not_fit_together_is_said(
        self, change: dict[str, Any], path: str, text: str, tmp_path: Path
    ) -> None:
        found = findings(tmp_path, {**CONSENSUS, **change})
        assert found[path].startswith(text)

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(TopologyError, match=r"nowhere.yaml: 1 finding\n  file: cannot be read"):
            load_study("nowhere.yaml")

    @pytest.mark.parametrize("file", sorted((ROOT / "topologies" / "studies").glob("*.yaml")), ids=lambda f: f.stem)
    def test_those_that_ship_have_no_findings_and_are_found_by_name(self, file: Path) -> None:
        assert load_study(file.stem).name == file.stem


class TestEnvironment:
    def study(self, folder: Path, **more: Any) -> Study:
        write(folder, small_topology(2), "small.yaml")
        knob = {"values": [
            {"label": "direct", "set": {"centralized": True}},
            {"label": "messages", "set": {"centralized": False, "message_broker": "in_memory"}},
        ]}  # fmt: skip
        content = {"name": "env", "topology": "small.yaml", "knobs": {"execution": knob}, "seeds": 2, "steps": 3}
        return load_study(write(folder, {**content, "reference": {"execution": "direct"}, **more}))

    def test_messages_change_nothing_but_what_is_said(self, tmp_path: Path) -> None:
        rows = run_study(self.study(tmp_path), tmp_path / "out").rows
        apart = {"run", "execution"}
        for direct, messages in zip(rows[:2], rows[2:], strict=True):
            assert direct["status"] == messages["status"] == "ok"
            differing = {name for name in direct if direct[name] != messages[name]} - apart
            assert all(name.startswith("messages") for name in differing)
            assert (direct["messages"], direct["steps"]) == (0, 3)
            assert messages["messages.setpoint"] == 3 * 6  # 6 devices in each step
        (line,) = [one for one in rows_of(tmp_path / "out", "comparison.csv")
                   if (one["execution"], one["metric"]) == ("messages", "return")]  # fmt: skip
        assert (line["n"], line["difference_mean"]) == ("2", "0.0")

    def test_a_row_is_what_an_episode_earns(self, tmp_path: Path) -> None:
        study = self.study(tmp_path)
        row = run_study(study, tmp_path / "out").rows[1]
        env = NetworkedGridEnv(study.topology or "", {"centralized": True, "seed": 1})
        env.reset(seed=1)
        steps = [env.step(dict.fromkeys(env.agents)) for _ in range(3)]
        env.close()
        assert row["return.mg_1"] == sum(rewards["mg_1"] for _, rewards, *_ in steps)
        assert row["return"] == row["return.mg_1"] + row["return.mg_2"]
        imported = sum(info["p_pcc_mw"] for *_, infos in steps for info in infos.values())
        assert row["import_mwh"] == pytest.approx(imported)

    def faulty(self, folder: Path) -> Study:
        """Two episodes of three steps and one of two, of grids that talk over links with faults."""
        return self.study(folder, set=FAULTS, episodes=4, steps=8)

    def test_what_becomes_of_messages_is_summed_over_episodes(self, tmp_path: Path) -> None:
        row, _, messages, _ = run_study(self.faulty(tmp_path), tmp_path / "out").rows
        links: list[dict[str, Any]] = []
        rounds: list[float] = []
        agreed: list[float] = []
        env = NetworkedGridEnv(str(tmp_path / "small.yaml"), {"centralized": True, "seed": 0, **FAULTS})
        for episode, steps in enumerate((3, 3, 2)):
            env.reset(seed=0 if episode == 0 else None)
            for _ in range(steps):
                infos = env.step(dict.fromkeys(env.agents))[-1]
                rounds += [info["rounds"] for info in infos.values()]
                agreed += [info["agreed"] for info in infos.values()]
            links += env.stats()["links"]
        env.close()
        assert row["steps"] == 8
        for name in BECAME:
            assert row[name] == sum(link[name] for link in links)
        assert row["late"] > 0 < row["lost"]
        for unit, kind in (("rounds", "peer"), ("steps", "setpoint")):
            mine = [link for link in links if link["kind"] == kind]
            assert row[f"age_max_{unit}"] == max(link["age_max"] for link in mine) > 0
            periods = sum(link["periods"] for link in mine)
            assert row[f"age_mean_{unit}"] == sum(link["age_sum"] for link in mine) / periods
        assert row["mean_rounds"] == sum(rounds) / 16 == 6.0
        assert row["agreed_share"] == sum(agreed) / 16
        differing = {name for name in row if row[name] != messages[name]} - {"run", "execution"}
        assert all(name.startswith("messages") for name in differing)

    @pytest.mark.slow
    def test_rows_of_faulty_links_do_not_depend_on_processes(self, tmp_path: Path) -> None:
        study = self.faulty(tmp_path)
        run_study(study, tmp_path / "one")
        lines = (tmp_path / "one" / "runs.jsonl").read_bytes().splitlines(keepends=True)
        (tmp_path / "resumed").mkdir()
        (tmp_path / "resumed" / "study.json").write_bytes((tmp_path / "one" / "study.json").read_bytes())
        (tmp_path / "resumed" / "runs.jsonl").write_bytes(b"".join(lines[:1]))
        run_study(study, tmp_path / "resumed", processes=2)
        assert tables(tmp_path / "one", TABLES[:2]) == tables(tmp_path / "resumed", TABLES[:2])

    def test_what_nobody_talks_about_is_empty(self, tmp_path: Path) -> None:
        (row, *_) = run_study(self.study(tmp_path), tmp_path / "out").rows
        empty = ("mean_rounds", "agreed_share", *BECAME, "age_mean_rounds", "age_max_steps")
        assert {row[name] for name in empty} == {None}
        assert "rounds" not in row

    def test_a_changed_topology_is_another_study(self, tmp_path: Path) -> None:
        run_study(self.study(tmp_path, seeds=1, steps=1), tmp_path / "out")
        changed = small_topology(2)
        changed["grids"]["mg_1"]["devices"]["dg_1"]["cost_b"] = 60.0
        write(tmp_path, changed, "small.yaml")
        with pytest.raises(StudyError, match="another study"):
            run_study(load_study(tmp_path / "study.yaml"), tmp_path / "out")


def test_study_json_is_the_study(tmp_path: Path) -> None:
    run_study(load_study(write(tmp_path, CONSENSUS)), tmp_path / "out")
    content = json.loads((tmp_path / "out" / "study.json").read_text(encoding="utf-8"))
    assert Study.model_validate(content) == load_study(tmp_path / "study.yaml")


from zgrid.protocols.average_consensus import AverageConsensus  # noqa: E402 - the plug-in of a test


class Fails(AverageConsensus):
    """Works until it is to say what it has come to."""

    works = False

    def result(self) -> Any:
        return super().result() if self.works else 1 / 0
