"""A run with keys: the same bytes as without, no secret in what it writes or sends, no open door by mistake."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
import zmq
from conftest import ROOT, free_ports, small_topology
from test_modes import assert_equal, play

import zgrid
from zgrid.errors import KeyFileError, RefusedError, StartTimeout
from zgrid.messages import ENV
from zgrid.messaging import Rights
from zgrid.messaging.keys import PROXY, create, for_node, revoke
from zgrid.topology import load
from zgrid.topology.traffic import rights

pytestmark = pytest.mark.usefixtures("no_leftovers")
PATIENCE_S = 60.0


def make_keys(folder: Path, granted: Rights) -> Path:
    """A key for everybody."""
    create(folder, [PROXY, *granted.publish, *granted.watchers])
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Keys of three grids."""
    return make_keys(tmp_path / "keys", rights(load(small_topology(3))))


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with this repository on its path."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_a_run_with_keys_gives_the_bytes_of_a_centralized_one(keys: Path) -> None:
    content = small_topology(2)
    content["grids"]["mg_2"]["devices"].pop("pv_1")
    content["grids"]["mg_2"]["devices"].pop("ess_1")
    central, first = play(content, 30, 7, "policy", centralized=True)
    secured, second = play(content, 30, 7, "policy", **{"broker.keys": str(keys)})
    assert_equal(first, second)
    assert central == secured


def test_agents_that_run_inline_need_no_key_of_their_own(tmp_path: Path) -> None:
    content = small_topology()
    content["grids"]["mg_1"]["run"] = "inline"
    content["grids"]["mg_1"]["devices"]["pv_1"]["run"] = "inline"
    granted = rights(load(content))
    assert granted.publish.keys() == {ENV, "mg_1.dg_1", "mg_1.ess_1"}
    folder = make_keys(tmp_path / "keys", granted)
    assert (
        play(content, 5, 1, "policy", **{"broker.keys": str(folder)})[0]
        == play(content, 5, 1, "policy", centralized=True)[0]
    )


def test_an_env_without_its_key_starts_nothing(keys: Path) -> None:
    (keys / "secret" / "env.key_secret").unlink()
    env = zgrid.parallel_env(small_topology(), **{"broker.keys": str(keys)})
    with closing(env), pytest.raises(KeyFileError, match=r"env.key_secret: not here"):
        env.reset()


def test_an_env_that_is_refused_says_so(keys: Path, tmp_path: Path) -> None:
    content = small_topology()  # nobody else is there to be refused
    for holder in (content["grids"]["mg_1"], *content["grids"]["mg_1"]["devices"].values()):
        holder["run"] = "inline"
    with closing(zgrid.parallel_env(content, **{"broker.keys": str(keys)})) as env:
        (keys / "public" / "env.key").rename(tmp_path / "env.key")
        with pytest.raises(RefusedError) as caught:
            env.reset()
    assert caught.value.node == ENV


@pytest.mark.slow
def test_a_machine_with_one_device_needs_two_files(tmp_path: Path) -> None:
    """What the README tells to copy."""
    ports = free_ports()
    content = small_topology()
    content["broker"] = {"ports": list(ports)}
    content["grids"]["mg_1"]["devices"]["ess_1"]["run"] = "external"
    folder = make_keys(tmp_path / "keys", rights(load(content)))
    (here, there) = (tmp_path / name for name in ("here.yaml", "there.yaml"))
    there.write_text(yaml.safe_dump(content), encoding="utf-8")
    content["broker"]["keys"] = "keys"
    here.write_text(yaml.safe_dump(content), encoding="utf-8")
    for name in ("public/broker.key", "secret/mg_1.ess_1.key_secret"):
        (tmp_path / "copied" / name).parent.mkdir(parents=True)
        shutil.move(folder / name, tmp_path / "copied" / name)
    shutil.copy(tmp_path / "copied" / "public" / "broker.key", folder / "public")
    command = [sys.executable, "-m", "nodes.device", str(there), "mg_1.ess_1", "--keys", str(tmp_path / "copied")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert play(str(here), 10, 2, "policy")[0] == play(str(here), 10, 2, "policy", centralized=True)[0]
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


@pytest.mark.slow
def test_a_start_that_waits_for_a_refused_node_says_whom_the_proxy_refused(tmp_path: Path) -> None:
    ports = free_ports()
    content = small_topology()
    content["broker"] = {"ports": list(ports), "keys": str(tmp_path / "keys"), "ready_timeout_s": 12.0}
    content["grids"]["mg_1"]["devices"]["ess_1"]["run"] = "external"
    folder = make_keys(tmp_path / "keys", rights(load(content, checked=False)))
    own = for_node(folder, "mg_1.ess_1")
    revoke(folder, "mg_1.ess_1")
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    device: list[subprocess.CompletedProcess[str]] = []
    starting = threading.Thread(target=lambda: device.append(python("-m", "nodes.device", str(file), "mg_1.ess_1")))
    starting.start()
    with closing(zgrid.parallel_env(str(file))) as env, pytest.raises(StartTimeout) as caught:
        env.reset()
    starting.join()
    assert list(caught.value.missing) == ["mg_1.ess_1"]
    reason = caught.value.missing["mg_1.ess_1"]
    assert f"refused a connection from 127.0.0.1: revoked key {own.fingerprint} of mg_1.ess_1" in reason
    assert device[0].returncode == 1
    assert f"mg_1.ess_1 (key {own.fingerprint}) cannot connect" in device[0].stderr


@pytest.fixture
def spied(tmp_path: Path) -> Iterator[tuple[Path, list[bytes]]]:
    """A topology file with keys, and all that a watcher hears of its run."""
    ports = free_ports()
    content = small_topology() | {"broker": {"keys": "keys", "ports": list(ports)}}
    folder = make_keys(tmp_path / "keys", rights(load(small_topology())))
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    heard: list[bytes] = []
    done = threading.Event()

    def spy() -> None:
        own = for_node(folder, "watch")
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.curve_publickey, socket.curve_secretkey = own.public, own.secret
            socket.curve_serverkey = own.server_public
            socket.subscribe(b"")
            socket.connect(f"tcp://127.0.0.1:{ports[1]}")
            while not done.is_set():
                if socket.poll(50):
                    heard.append(socket.recv())

    thread = threading.Thread(target=spy)
    thread.start()
    yield file, heard
    done.set()
    thread.join()


@pytest.mark.slow
def test_no_secret_is_in_what_a_run_writes_or_sends(spied: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    file, heard = spied
    secrets = {
        match
        for path in (tmp_path / "keys" / "secret").iterdir()
        for match in re.findall(r'secret-key = "(.{40})"', path.read_text(encoding="utf-8"))
    }
    assert len(secrets) == 7
    ran = python("launch.py", str(file), "--episodes", "1", "--out", str(tmp_path / "out"))
    assert ran.returncode == 0, ran.stderr
    (tmp_path / "keys" / "secret" / "mg_1.pv_1.key_secret").chmod(0o644)
    done = python("-m", "nodes.device", str(file), "mg_1.pv_1")
    assert "chmod 600" in done.stderr
    told = [done.stdout, done.stderr, ran.stdout, ran.stderr]
    told += [path.read_text(encoding="utf-8", errors="replace") for path in (tmp_path / "out").iterdir()]
    told += [b"".join(heard).decode(errors="replace")]
    assert any(b"report/mg_1/" in frame for frame in heard)
    assert not [text for text in told for secret in secrets if secret in text]


class TestOpenDoors:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """A topology whose proxy would listen to everybody."""
        file = tmp_path / "open.yaml"
        file.write_text(yaml.safe_dump(small_topology() | {"broker": {"host": "0.0.0.0"}}), encoding="utf-8")
        return file

    def test_a_proxy_started_by_hand_refuses_to_listen_to_all_without_keys(self, file: Path) -> None:
        done = python("-m", "nodes.broker", str(file))
        assert done.returncode == 2
        assert done.stdout == ""
        assert "broker.keys" in done.stderr
        assert "insecure: true" in done.stderr

    def test_keys_that_are_not_there_are_told(self, file: Path, tmp_path: Path) -> None:
        done = python("-m", "nodes.broker", str(file), "--keys", str(tmp_path / "none"))
        assert done.returncode == 1
        assert "zgrid keys create" in done.stderr
        assert "Traceback" not in done.stderr
