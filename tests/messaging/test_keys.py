"""Keys: secrets stay with their owner, names are taken once, and what was revoked is told from what is unknown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zgrid.errors import KeyFileError
from zgrid.messaging.keys import KeyRing, create, credentials_of, for_node, for_proxy, listing, revoke, rotate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Keys of a proxy and two nodes."""
    folder = tmp_path / "keys"
    create(folder, ["broker", "env", "mg_1"])
    return folder


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def secret_of(folder: Path, name: str) -> Path:
    return folder / "secret" / f"{name}.key_secret"


def test_secrets_are_readable_by_their_owner_only(folder: Path) -> None:
    assert mode_of(folder / "secret") == 0o700
    secrets = list((folder / "secret").iterdir())
    assert {path.name for path in secrets} == {f"{name}.key_secret" for name in ("broker", "env", "mg_1")}
    assert {mode_of(path) for path in secrets} == {0o600}


def test_secrets_are_safe_also_where_the_umask_is_open(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create(tmp_path / "keys", ["mg_1"])
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "keys" / "secret") == 0o700
    assert mode_of(secret_of(tmp_path / "keys", "mg_1")) == 0o600


def test_no_public_file_holds_a_secret(folder: Path) -> None:
    secrets = [for_node(folder, name).secret.decode() for name in ("broker", "env", "mg_1")]
    for path in (folder / "public").iterdir():
        text = path.read_text(encoding="utf-8")
        assert not any(secret in text for secret in secrets)


def test_credentials_name_both_ends_and_hide_the_secret(folder: Path) -> None:
    node, proxy = for_node(folder, "mg_1"), for_proxy(folder)
    assert node.server_public == proxy.public == proxy.server_public
    assert (node.name, proxy.name) == ("mg_1", "broker")
    for text in (repr(node), str(node), f"{node!r:>9}"):
        assert "mg_1" in text
        assert node.secret.decode() not in text


def test_without_a_folder_there_are_no_credentials(folder: Path) -> None:
    assert credentials_of(None, "mg_1") is None
    assert credentials_of(str(folder), "mg_1") == for_node(folder, "mg_1")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o400])
def test_a_secret_of_another_mode_is_refused_with_what_to_type(folder: Path, mode: int) -> None:
    path = secret_of(folder, "mg_1")
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o}, .*chmod 600 {path}"):
        for_node(folder, "mg_1")


def test_a_name_that_is_taken_is_refused_and_nothing_is_made(folder: Path) -> None:
    before = for_node(folder, "mg_1")
    with pytest.raises(KeyFileError, match=r"mg_1 has a key already.*zgrid keys rotate mg_1"):
        create(folder, ["mg_2", "mg_1"])
    assert [state.name for state in listing(folder)] == ["broker", "env", "mg_1"]
    assert for_node(folder, "mg_1") == before


@pytest.mark.parametrize("name", ["", ".", "..", "../mg_1", "a/b", "-x", "a b", "mg\n1"])
def test_a_name_that_could_leave_the_folder_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(KeyFileError, match="cannot be the name of a key"):
        create(folder, [name])


def test_a_missing_secret_is_told(folder: Path) -> None:
    secret_of(folder, "mg_1").unlink()
    with pytest.raises(KeyFileError, match=r"mg_1.key_secret: not here; copy it"):
        for_node(folder, "mg_1")


def test_a_missing_key_of_the_proxy_is_told(folder: Path) -> None:
    (folder / "public" / "broker.key").unlink()
    with pytest.raises(KeyFileError, match=r"broker.key: not here; copy it from the proxy's machine"):
        for_node(folder, "mg_1")


@pytest.mark.parametrize("text", ["", 'curve\n    public-key = "short"\n', "\0\xff", "public-key"])
def test_a_file_that_is_no_key_is_told(folder: Path, text: str) -> None:
    secret_of(folder, "mg_1").write_text(text, encoding="utf-8")
    with pytest.raises(KeyFileError, match=r"mg_1.key_secret"):
        for_node(folder, "mg_1")
    (folder / "public" / "env.key").write_text(text, encoding="utf-8")
    with pytest.raises(KeyFileError, match=r"env.key"):
        listing(folder)


def test_a_listing_tells_active_from_revoked(folder: Path) -> None:
    print_ = revoke(folder, "mg_1")
    secret_of(folder, "env").unlink()
    states = listing(folder)
    assert [(one.name, one.state, one.has_secret) for one in states] == [
        ("broker", "active", True), ("env", "active", False), ("mg_1", "revoked", True),
    ]  # fmt: skip
    assert states[2].fingerprint == print_


def test_no_folder_is_told_with_what_to_type(tmp_path: Path) -> None:
    for look in (listing, KeyRing):
        with pytest.raises(KeyFileError, match="zgrid keys create TOPOLOGY"):
            look(tmp_path / "none")


def test_rotation_makes_a_new_pair_and_revokes_the_old(folder: Path) -> None:
    old = for_node(folder, "mg_1")
    print_ = rotate(folder, "mg_1")
    new = for_node(folder, "mg_1")
    assert new.fingerprint == print_ != old.fingerprint
    assert new.secret != old.secret
    assert mode_of(secret_of(folder, "mg_1")) == 0o600
    ring = KeyRing(folder)
    assert ring.accepted[new.public] == "mg_1"
    assert ring.revoked == {old.public: "mg_1"}


def test_a_revoked_name_gets_a_new_key_by_rotation(folder: Path) -> None:
    revoke(folder, "mg_1")
    assert rotate(folder, "mg_1") == for_node(folder, "mg_1").fingerprint
    assert [(one.name, one.state) for one in listing(folder)][2:] == [("mg_1", "active"), ("mg_1", "revoked")]


@pytest.mark.parametrize("change", [revoke, rotate])
def test_a_name_without_a_key_cannot_be_changed(folder: Path, change: object) -> None:
    assert callable(change)
    with pytest.raises(KeyFileError, match="no active key of mg_9"):
        change(folder, "mg_9")


class TestKeyRing:
    def test_holds_everybody_but_the_proxy(self, folder: Path) -> None:
        ring = KeyRing(folder)
        assert sorted(ring.accepted.values()) == ["env", "mg_1"]
        assert ring.revoked == {}

    def test_sees_what_changes(self, folder: Path) -> None:
        ring = KeyRing(folder)
        key = for_node(folder, "mg_1").public
        revoke(folder, "mg_1")
        assert ring.refresh()
        assert key not in ring.accepted
        assert ring.revoked == {key: "mg_1"}
        create(folder, ["mg_2"])
        assert ring.refresh()
        assert "mg_2" in ring.accepted.values()
        assert not ring.refresh()

    def test_a_revoked_key_stays_revoked_also_when_its_file_comes_back(self, folder: Path) -> None:
        public = folder / "public" / "mg_1.key"
        text = public.read_text(encoding="utf-8")
        revoke(folder, "mg_1")
        public.write_text(text, encoding="utf-8")
        assert "mg_1" not in KeyRing(folder).accepted.values()

    def test_a_file_that_is_no_key_is_told_once_and_passed_over(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        ring = KeyRing(folder)
        (folder / "public" / "junk.key").write_bytes(b"\xff\x00junk")
        ring.refresh()
        ring.refresh()
        assert sorted(ring.accepted.values()) == ["env", "mg_1"]
        assert [record.message for record in caplog.records if "junk.key" in record.message][1:] == []
