"""The key files of CURVE: who may connect to the proxy, and with what.

A folder of keys holds ``public/NAME.key`` of everybody whom the proxy accepts, ``revoked/`` with those it accepts no
more, and ``secret/NAME.key_secret`` of the nodes of this machine. A secret stays where it is needed: it is readable by
its owner only, and nothing here prints, logs or sends it. Node NAME's machine needs ``secret/NAME.key_secret`` and
``public/broker.key``; the proxy's needs ``secret/broker.key_secret`` and all of ``public/`` and ``revoked/``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from zmq.auth.certs import create_certificates, load_certificate

from zgrid.errors import KeyFileError

logger = logging.getLogger(__name__)

PROXY, WATCHER = "broker", "watch"
PUBLIC, SECRET, REVOKED = "public", "secret", "revoked"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_Z85 = re.compile(rb"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_SETTLED_NS = 100_000_000
"""A folder that changed less than 0.1 s ago may change again without its time stamp showing it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one participant proves itself with, and whom it expects at the other end."""

    name: str
    public: bytes
    secret: bytes = field(repr=False)
    server_public: bytes

    @property
    def fingerprint(self) -> str:
        """Of its own public key."""
        return fingerprint(self.public)


class KeyState(NamedTuple):
    """One key of a folder: ``state`` is active or revoked; ``has_secret`` says whether the secret is here."""

    name: str
    fingerprint: str
    state: str
    has_secret: bool


def fingerprint(public: bytes) -> str:
    """A public key in short: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def create(folder: Path, names: Iterable[str]) -> list[str]:
    """Make a pair of keys for each name; their fingerprints.

    Raises:
        KeyFileError: a name that is none, or that has a key already; then nothing is made.
    """
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if not _NAME.fullmatch(name):
            raise KeyFileError(f"{name!r} cannot be the name of a key: letters, digits, '_', '.' and '-'")
        if _public(folder, name).exists() or _secret(folder, name).exists():
            raise KeyFileError(
                f"{folder}: {name} has a key already; for a new one type: zgrid keys rotate {name} --dir {folder}"
            )
    return [_make(folder, name) for name in wanted]


def listing(folder: Path) -> list[KeyState]:
    """Every key of a folder, by name; those revoked after those active.

    Raises:
        KeyFileError: no folder of keys, or a file in it that is no key.
    """
    _need_folder(folder)
    active = [(name, key) for name, key in _keys_in(folder / PUBLIC)]
    revoked = [(name.rpartition("-")[0] or name, key) for name, key in _keys_in(folder / REVOKED)]
    own = {_key_of(path) for path in (folder / SECRET).glob("*.key_secret")}
    return [
        *(KeyState(name, fingerprint(key), "active", key in own) for name, key in active),
        *(KeyState(name, fingerprint(key), "revoked", key in own) for name, key in revoked),
    ]


def revoke(folder: Path, name: str) -> str:
    """Accept a key no more, also in a proxy that runs; its fingerprint. The file moves to ``revoked/``.

    Raises:
        KeyFileError: there is no such active key.
    """
    public = _public(folder, name)
    if not public.is_file():
        raise KeyFileError(f"{folder}: no active key of {name}; zgrid keys list --dir {folder} shows what there is")
    print_ = fingerprint(_key_of(public))
    (folder / REVOKED).mkdir(parents=True, exist_ok=True)
    public.rename(folder / REVOKED / f"{name}-{print_}.key")
    return print_


def rotate(folder: Path, name: str) -> str:
    """Revoke a key, where that is not done yet, and make a new pair under the same name; the new fingerprint.

    Raises:
        KeyFileError: the name never had a key.
    """
    if _public(folder, name).is_file() or not any(state.name == name for state in listing(folder)):
        revoke(folder, name)
    _secret(folder, name).unlink(missing_ok=True)
    return _make(folder, name)


def for_node(folder: Path, name: str) -> Credentials:
    """What node ``name`` connects with.

    Raises:
        KeyFileError: its secret or the proxy's public key is not here, or others may read the secret.
    """
    public, secret = _own(folder, name)
    return Credentials(name, public, secret, _server_key(folder))


def for_proxy(folder: Path) -> Credentials:
    """What the proxy shows to everybody.

    Raises:
        KeyFileError: its secret is not here, or others may read it.
    """
    public, secret = _own(folder, PROXY)
    return Credentials(PROXY, public, secret, public)


def credentials_of(folder: str | Path | None, name: str) -> Credentials | None:
    """As :func:`for_node`; None where the topology names no folder.

    Raises:
        KeyFileError: as there.
    """
    return for_node(Path(folder), name) if folder else None


class KeyRing:
    """The keys that a proxy accepts: read again when the folder changes, also while it runs."""

    def __init__(self, folder: Path) -> None:
        """Read the folder.

        Raises:
            KeyFileError: no folder of keys.
        """
        _need_folder(folder)
        self._folders = (folder / PUBLIC, folder / REVOKED)
        self.accepted: dict[bytes, str] = {}
        """Names by public key."""
        self.revoked: dict[bytes, str] = {}
        self._seen = (-1, -1)
        self._told: set[str] = set()
        self.refresh()

    def refresh(self) -> bool:
        """Read the folder again if it changed; whether it did."""
        stamps = (_stamp(self._folders[0]), _stamp(self._folders[1]))
        if stamps == self._seen:
            return False
        self._seen = stamps if time.time_ns() - max(stamps) > _SETTLED_NS else (-1, -1)
        before = (self.accepted, self.revoked)
        self.revoked = {key: name.rpartition("-")[0] or name for name, key in self._read(self._folders[1])}
        self.accepted = {
            key: name for name, key in self._read(self._folders[0]) if key not in self.revoked and name != PROXY
        }
        return before != (self.accepted, self.revoked)

    def _read(self, folder: Path) -> Iterator[tuple[str, bytes]]:
        """A file that is no key is told once, and passed over: it must not end a proxy that runs."""
        for path in sorted(folder.glob("*.key")):
            try:
                yield path.stem, _key_of(path)
            except KeyFileError as error:
                if str(error) not in self._told:
                    self._told.add(str(error))
                    logger.warning("passed over a key file: %s", error)


def _make(folder: Path, name: str) -> str:
    """Write a new pair: first where only the owner may look, then its public half where all may."""
    (folder / PUBLIC).mkdir(parents=True, exist_ok=True)
    (folder / REVOKED).mkdir(parents=True, exist_ok=True)
    secrets = folder / SECRET
    secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    secrets.chmod(0o700)
    _, secret = create_certificates(secrets, name)
    Path(secret).chmod(0o600)
    (secrets / f"{name}.key").replace(_public(folder, name))
    return fingerprint(_key_of(_public(folder, name)))


def _own(folder: Path, name: str) -> tuple[bytes, bytes]:
    """Public and secret key of a name of this machine."""
    path = _secret(folder, name)
    if not path.is_file():
        raise KeyFileError(
            f"{path}: not here; copy it from where `zgrid keys create` made it, or make it there: "
            f"zgrid keys create TOPOLOGY {name} --dir {folder}"
        )
    rights = path.stat().st_mode & 0o777
    if rights != 0o600:
        raise KeyFileError(f"{path}: mode {rights:04o}, so others may read the secret; type: chmod 600 {path}")
    public, secret = _load(path)
    if secret is None or not (_Z85.fullmatch(public) and _Z85.fullmatch(secret)):
        raise KeyFileError(f"{path}: holds no secret key")
    return public, secret


def _server_key(folder: Path) -> bytes:
    path = _public(folder, PROXY)
    if not path.is_file():
        raise KeyFileError(f"{path}: not here; copy it from the proxy's machine: it is who this node expects there")
    return _key_of(path)


def _key_of(path: Path) -> bytes:
    """The public key in a file."""
    key, _ = _load(path)
    if not _Z85.fullmatch(key):
        raise KeyFileError(f"{path}: holds no public key")
    return key


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return load_certificate(path)
    except (OSError, ValueError, IndexError) as error:  # IndexError: a line without a "="
        raise KeyFileError(f"{path}: cannot be read: {error}") from error


def _keys_in(folder: Path) -> list[tuple[str, bytes]]:
    return sorted((path.stem, _key_of(path)) for path in folder.glob("*.key"))


def _need_folder(folder: Path) -> None:
    if not (folder / PUBLIC).is_dir():
        raise KeyFileError(f"{folder}: no folder of keys; make one: zgrid keys create TOPOLOGY --dir {folder}")


def _public(folder: Path, name: str) -> Path:
    return folder / PUBLIC / f"{name}.key"


def _secret(folder: Path, name: str) -> Path:
    return folder / SECRET / f"{name}.key_secret"


def _stamp(folder: Path) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0
