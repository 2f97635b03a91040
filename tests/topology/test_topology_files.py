"""What a topology is read from: a file, its name, its content, or a topology; and what is wrong with a file itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, small_topology

from zgrid.errors import TopologyError
from zgrid.topology import Topology, examine, load

SHIPPED = sorted((ROOT / "topologies").glob("*.yaml"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small topology as a file."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_topology()), encoding="utf-8")
    return path


def told_of(path: Path, text: str | bytes) -> list[tuple[str, str]]:
    """The findings of a file with this content."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    topology, findings = examine(path)
    assert topology is None or findings
    return [tuple(one) for one in findings]


class TestSources:
    def test_text_path_mapping_and_topology_give_the_same(self, file: Path) -> None:
        topology = load(file)
        assert isinstance(topology, Topology)
        assert load(str(file)) == load(small_topology()) == load(topology) == topology
        assert load(topology).hash() == topology.hash()

    def test_the_name_of_a_shipped_topology_stands_for_its_file(self) -> None:
        assert load("3mg") == load(ROOT / "topologies" / "3mg.yaml")

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
    def test_every_shipped_topology_is_fine_and_survives_json(self, path: Path) -> None:
        topology = load(path)
        again = load(json.loads(topology.model_dump_json()))
        assert again == topology
        assert again.hash() == topology.hash()

    def test_a_file_beside_a_name_without_suffix_wins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "3mg").write_text(yaml.safe_dump(small_topology() | {"name": "mine"}), encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        assert load("3mg").name == "mine"

    def test_a_folder_does_not_hide_a_shipped_topology(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "3mg").mkdir()
        monkeypatch.chdir(tmp_path)
        assert load("3mg").name == "3mg"

    def test_the_content_of_a_mapping_is_not_shared(self) -> None:
        content = small_topology()
        topology = load(content)
        content["grids"]["mg_1"]["devices"]["dg_1"]["p_max_mw"] = 0.9
        assert topology.grids["mg_1"].devices["dg_1"].p_max_mw == 0.6

    def test_an_error_names_the_file_and_every_finding(self, file: Path) -> None:
        file.write_text(yaml.safe_dump(small_topology() | {"colour": 1, "dt_h": -1}), encoding="utf-8")
        with pytest.raises(TopologyError) as raised:
            load(file)
        assert raised.value.source == str(file)
        assert sorted(finding.path for finding in raised.value.findings) == ["colour", "dt_h"]
        assert str(file) in str(raised.value)
        assert "  colour: unknown key" in str(raised.value)


class TestProfileFiles:
    CSV = "price,solar,load_1\n" + "30.0,0.5,0.4\n" * 24

    def test_are_found_beside_the_topology(self, tmp_path: Path, file: Path) -> None:
        (tmp_path / "mine.csv").write_text(self.CSV, encoding="utf-8")
        file.write_text(yaml.safe_dump(small_topology() | {"profiles": {"file": "mine.csv"}}), encoding="utf-8")
        assert load(file).profiles.file == (str(tmp_path / "mine.csv"),)

    def test_are_found_in_the_current_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "mine.csv").write_text(self.CSV, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        topology = load(small_topology() | {"profiles": {"file": "mine.csv"}})
        monkeypatch.chdir("/")
        assert load(json.loads(topology.model_dump_json())) == topology

    def test_with_less_than_a_day_are_told(self, tmp_path: Path) -> None:
        short = tmp_path / "short.csv"
        short.write_text("\n".join(self.CSV.split("\n")[:13]), encoding="utf-8")
        _, findings = examine(small_topology() | {"profiles": {"file": str(short)}})
        assert findings == [("profiles", "less than one day of data at steps of 1.0 h")]


class TestBadFiles:
    def test_a_file_that_does_not_exist(self, tmp_path: Path) -> None:
        topology, (finding,) = examine(tmp_path / "nowhere.yaml")
        assert topology is None
        assert finding.path == "file"
        assert "No such file" in finding.message

    def test_a_name_that_is_no_shipped_topology(self) -> None:
        _, (finding,) = examine("no_such_topology")
        assert finding.path == "file"

    def test_a_folder(self, tmp_path: Path) -> None:
        _, (finding,) = examine(tmp_path)
        assert finding.path == "file"

    @pytest.mark.parametrize(
        "text",
        [
            "a: [1",
            "a:\n\t- b",
            "a: b: c",
            "\x00\x01",
            "? [a]\n: b",
            "a: 1\n---\nb: 2\n",
            "a: *nobody\n",
            "a: !!python/object/apply:os.getcwd []\n",
        ],
    )
    def test_what_is_not_yaml(self, tmp_path: Path, text: str) -> None:
        ((path, message),) = told_of(tmp_path / "bad.yaml", text)
        assert path == "file"
        assert message.startswith("not YAML")

    def test_the_line_of_what_is_not_yaml_is_told(self, tmp_path: Path) -> None:
        ((_, message),) = told_of(tmp_path / "bad.yaml", "name: x\ngrids:\n\t- b\n")
        assert "line 3" in message

    def test_what_is_not_text(self, tmp_path: Path) -> None:
        ((path, message),) = told_of(tmp_path / "bad.yaml", b"\xff\xfe\xfa")
        assert path == "file"
        assert message.startswith("cannot be read")

    @pytest.mark.parametrize("text", ["- a\n- b\n", "5", "just words", "", "# nothing\n"])
    def test_what_is_no_mapping(self, tmp_path: Path, text: str) -> None:
        assert told_of(tmp_path / "bad.yaml", text) == [("file", "expected a mapping at the top")]

    def test_a_mapping_that_contains_itself(self, tmp_path: Path) -> None:
        assert told_of(tmp_path / "bad.yaml", "name: x\ngrids: &a {mg_1: *a}\n")


class TestDuplicates:
    """YAML readers keep the last of two equal keys in silence."""

    TEXT = """\
name: small
profiles: {file: []}
reward: economic
policy: idle
vertical: setpoint
grids:
  mg_1:
    price: 30.0
    network: ieee13
    devices:
      dg_1: {kind: generator, bus: "675", p_max_mw: 0.6, s_rated_mva: 1.0}
"""

    @pytest.mark.parametrize(
        ("old", "new", "path", "line"),
        [
            ("name: small\n", "name: small\nname: again\n", "name", 2),
            ("  mg_1:\n", "  mg_1: {}\n  mg_1:\n", "grids.mg_1", 8),
            ("    price: 30.0\n", "    price: 30.0\n    price: 31.0\n", "grids.mg_1.price", 9),
            ("      dg_1: ", "      dg_1: {}\n      dg_1: ", "grids.mg_1.devices.dg_1", 12),
            ("kind: generator, ", "kind: generator, bus: '1', ", "grids.mg_1.devices.dg_1.bus", 11),
        ],
    )
    def test_at_every_level_are_told_with_the_line(
        self, tmp_path: Path, old: str, new: str, path: str, line: int
    ) -> None:
        assert old in self.TEXT
        findings = told_of(tmp_path / "double.yaml", self.TEXT.replace(old, new, 1))
        assert findings == [(path, f"duplicate id or key, again in line {line}")]

    def test_below_a_list_are_told(self, tmp_path: Path) -> None:
        findings = told_of(tmp_path / "double.yaml", self.TEXT + "colour:\n- {a: 1, a: 2}\n")
        assert ("colour.0.a", "duplicate id or key, again in line 13") in findings

    def test_the_text_without_duplicates_is_fine(self, tmp_path: Path) -> None:
        path = tmp_path / "single.yaml"
        path.write_text(self.TEXT, encoding="utf-8")
        assert load(path).name == "small"

    def test_equal_ids_in_different_grids_are_none(self, tmp_path: Path) -> None:
        path = tmp_path / "two.yaml"
        path.write_text(yaml.safe_dump(small_topology(2)), encoding="utf-8")
        assert load(path).runs().keys() >= {"mg_1.dg_1", "mg_2.dg_1"}


def test_a_network_file_is_found_beside_the_topology(tmp_path: Path) -> None:
    folder = _with_network_file(tmp_path / "a")
    assert load(folder / "small.yaml").grids["mg_1"].network.kind == str(folder / "net.json")


def test_the_hash_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    one, other = _with_network_file(tmp_path / "a"), _with_network_file(tmp_path / "b")
    assert load(one / "small.yaml").hash() == load(other / "small.yaml").hash()


def _with_network_file(folder: Path) -> Path:
    """A topology file and the network file it names, in one folder."""
    import pandapower as pp

    folder.mkdir()
    net = pp.create_empty_network()
    source, end = (pp.create_bus(net, 20.0, name=name) for name in ("source", "end"))
    pp.create_line_from_parameters(net, source, end, 1.0, 0.1, 0.1, 1.0, 0.4, name="line")
    pp.create_ext_grid(net, source)
    pp.to_json(net, str(folder / "net.json"))
    topology: dict[str, Any] = small_topology()
    topology["grids"]["mg_1"]["network"] = "net.json"
    for device in topology["grids"]["mg_1"]["devices"].values():
        device["bus"] = "end"
    (folder / "small.yaml").write_text(yaml.safe_dump(topology), encoding="utf-8")
    return folder
