"""``zgrid keys``: one command each, which says what to do next and never shows a secret."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from conftest import small_topology

from zgrid.cli import main
from zgrid.messaging.keys import for_node

EVERYBODY = {"broker", "env", "watch", "mg_1", "mg_1.dg_1", "mg_1.pv_1", "mg_1.ess_1"}


class Keys:
    """The command on a small topology, with its folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.file, self._capsys = folder / "keys", str(folder / "small.yaml"), capsys
        Path(self.file).write_text(yaml.safe_dump(small_topology()), encoding="utf-8")

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of one part."""
        self._capsys.readouterr()
        code = main(["keys", *arguments, "--dir", str(self.folder)])
        out, err = self._capsys.readouterr()
        return code, out, err

    def states(self) -> dict[str, list[str]]:
        """The states of each name's keys, from ``list --json``."""
        code, out, _ = self("list", "--json")
        assert code == 0
        states: dict[str, list[str]] = {}
        for row in json.loads(out):
            states.setdefault(row["name"], []).append(row["state"])
        return states


@pytest.fixture
def keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Keys:
    return Keys(tmp_path, capsys)


def test_create_makes_a_key_for_everybody_and_says_what_goes_where(keys: Keys) -> None:
    code, out, _ = keys("create", keys.file)
    assert code == 0
    assert keys.states() == {name: ["active"] for name in EVERYBODY}
    for text in ("broker: {keys:", "secret/broker.key_secret", "secret/NAME.key_secret", "public/broker.key"):
        assert text in out


def test_create_again_makes_only_what_is_missing(keys: Keys) -> None:
    keys("create", keys.file, "mg_1", "broker")
    code, out, _ = keys("create", keys.file)
    assert code == 0
    assert set(re.findall(r"^  (\S+) +[0-9a-f]{16}$", out, re.MULTILINE)) == EVERYBODY - {"mg_1", "broker"}
    code, out, _ = keys("create", keys.file)
    assert (code, "has a key already" in out) == (0, True)


def test_create_of_a_name_that_is_taken_fails(keys: Keys) -> None:
    keys("create", keys.file, "mg_1")
    code, _, err = keys("create", keys.file, "mg_1")
    assert code == 2
    assert "zgrid keys rotate mg_1" in err


def test_create_says_that_a_name_is_no_node(keys: Keys) -> None:
    code, out, _ = keys("create", keys.file, "mg_7")
    assert code == 0
    assert "mg_7 is no node of" in out


def test_list_is_a_table(keys: Keys) -> None:
    keys("create", keys.file)
    keys("revoke", "mg_1")
    _, out, _ = keys("list")
    header, *rows = out.splitlines()
    assert header.split() == ["name", "fingerprint", "state", "secret"]
    assert [row.split()[2] for row in rows if row.split()[0] == "mg_1"] == ["revoked"]
    assert len(rows) == len(EVERYBODY)


def test_revoke_and_rotate(keys: Keys) -> None:
    keys("create", keys.file)
    code, out, _ = keys("revoke", "mg_1")
    assert (code, "at once" in out, "zgrid keys rotate mg_1" in out) == (0, True, True)
    assert keys.states()["mg_1"] == ["revoked"]
    code, out, _ = keys("rotate", "mg_1")
    assert (code, "secret/mg_1.key_secret" in out) == (0, True)
    assert keys.states()["mg_1"] == ["active", "revoked"]
    code, out, _ = keys("rotate", "broker")
    assert (code, "restart the proxy and all nodes" in out) == (0, True)


@pytest.mark.parametrize("part", ["revoke", "rotate"])
def test_a_name_without_a_key_is_told(keys: Keys, part: str) -> None:
    keys("create", keys.file)
    code, _, err = keys(part, "mg_9")
    assert code == 2
    assert "no active key of mg_9" in err


def test_a_folder_that_is_none_is_told(keys: Keys) -> None:
    code, _, err = keys("list")
    assert code == 2
    assert "zgrid keys create TOPOLOGY" in err


def test_a_topology_that_is_none_is_told(keys: Keys) -> None:
    code, _, err = keys("create", keys.file + ".not")
    assert code == 2
    assert "cannot be read" in err


def test_no_part_shows_a_secret(keys: Keys) -> None:
    told = [keys("create", keys.file), keys("list"), keys("list", "--json")]
    secrets = [for_node(keys.folder, name).secret.decode() for name in EVERYBODY]
    told += [keys("create", keys.file, "mg_1"), keys("revoke", "mg_1"), keys("rotate", "env")]
    secrets.append(for_node(keys.folder, "env").secret.decode())
    assert not [one for one in told for secret in secrets if secret in str(one)]


@pytest.mark.parametrize("part", ["", "create", "list", "revoke", "rotate"])
def test_help_has_an_example(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["keys", *([part] if part else []), "--help"])
    assert caught.value.code == 0
    assert "example" in (out := capsys.readouterr().out)
    assert "zgrid keys " in out
