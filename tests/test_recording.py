"""Recordings: what is written is read again, whatever happens to the writer; and a run can be lived through again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, small_topology, wait_until

import zgrid
from zgrid.cli import main
from zgrid.encoding import encode
from zgrid.errors import RecordingError, UnknownNameError
from zgrid.messages import Envelope, Peer, Stop
from zgrid.messaging import Address, Heard, Tap
from zgrid.recording import HEADER, MAGIC, Reader, Writer
from zgrid.replaying import Result, describe, replay
from zgrid.topology import load
from zgrid.watching import Ear

PATIENCE_S = 30.0
EPISODE_STEPS = 4


def heard(sequence: int, body: Any = None) -> Heard:
    envelope = Envelope("mg_2", "run", 0, sequence, 3, 1, 5, body or Peer((float(sequence),)))
    return Heard(1000 + sequence, "peer/mg_1/mg_2/", encode(envelope))


def write(path: Path, messages: Sequence[Heard]) -> Path:
    with Writer(path) as writer:
        for message in messages:
            writer.write(message)
    return path


class TestFormat:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        messages = [heard(k) for k in range(5)] + [Heard(7, "schräg/", b"\x00\xff")]
        path = write(tmp_path / "r.zrec", messages)
        reader = Reader(path)
        assert list(reader) == messages
        assert reader.torn == 0
        with Writer(tmp_path / "again.zrec") as writer:
            for message in messages:
                writer.write(message)
        assert (writer.messages, writer.bytes) == (6, path.stat().st_size)

    def test_a_record_that_is_cut_anywhere_is_ignored(self, tmp_path: Path) -> None:
        two = write(tmp_path / "two.zrec", [heard(0), heard(1)]).read_bytes()
        three = write(tmp_path / "three.zrec", [heard(0), heard(1), heard(2)]).read_bytes()
        path = tmp_path / "torn.zrec"
        for size in range(len(two), len(three)):
            path.write_bytes(three[:size])
            reader = Reader(path)
            assert list(reader) == [heard(0), heard(1)]
            assert reader.torn == size - len(two)

    def test_a_record_with_a_wrong_bit_ends_the_reading(self, tmp_path: Path) -> None:
        two = write(tmp_path / "two.zrec", [heard(0), heard(1)]).read_bytes()
        three = bytearray(write(tmp_path / "three.zrec", [heard(0), heard(1), heard(2)]).read_bytes())
        path = tmp_path / "wrong.zrec"
        for at in range(len(two), len(three)):
            wrong = three.copy()
            wrong[at] ^= 0x10
            path.write_bytes(wrong)
            assert list(Reader(path)) == [heard(0), heard(1)]

    def test_it_is_never_written_over(self, tmp_path: Path) -> None:
        path = write(tmp_path / "r.zrec", [heard(0)])
        with pytest.raises(RecordingError, match="exists already"):
            Writer(path)
        assert list(Reader(path)) == [heard(0)]

    @pytest.mark.parametrize(
        ("content", "words"),
        [(b"", "is no recording"), (b"grids: {}", "is no recording"), (MAGIC + b"\0\0\0\x09", "version 00000009")],
    )
    def test_what_is_no_recording_is_told(self, content: bytes, words: str, tmp_path: Path) -> None:
        path = tmp_path / "r.zrec"
        path.write_bytes(content)
        with pytest.raises(RecordingError, match=words):
            Reader(path)
        with pytest.raises(RecordingError, match="cannot be read"):
            Reader(tmp_path / "nowhere.zrec")

    def test_what_is_old_enough_is_with_the_system(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("zgrid.recording.FLUSH_S", 0.0)
        writer = Writer(tmp_path / "r.zrec")
        writer.write(heard(0))
        assert list(Reader(tmp_path / "r.zrec")) == [heard(0)]
        writer.close()
        writer.close()


# ---- recording a run -----------------------------------------------------------------------------------------------


def content(**more: Any) -> dict[str, Any]:
    """Three neighbours with consensus that do something in every step, episodes of a few steps."""
    topology = small_topology(3)
    for grid, device in (("mg_1", "pv_1"), ("mg_3", "pv_1"), ("mg_3", "ess_1")):  # fewer processes
        topology["grids"][grid]["devices"].pop(device)
    return topology | {"policy": "random", "horizontal": "average_consensus", "episode_steps": EPISODE_STEPS} | more


def play(env: zgrid.NetworkedGridEnv, seed: int | None = None) -> None:
    """One episode."""
    env.reset(seed=seed)
    while env.agents:
        env.step(dict.fromkeys(env.agents))


def address_of(env: zgrid.NetworkedGridEnv) -> Address:
    address: Address = env._execution._session.address  # type: ignore[union-attr]
    return address


@contextmanager
def recording(tap: Tap, path: Path) -> Iterator[Writer]:
    """Record from another thread until the run is over."""
    ear, writer = Ear(), Writer(path)
    begun = threading.Event()

    def record() -> None:
        with writer:
            for one in tap.listen(PATIENCE_S):
                if one is not None:
                    begun.set()
                    ear.take(one)
                    writer.write(one)
                if ear.stopped:
                    return

    thread = threading.Thread(target=record)
    thread.start()
    try:
        assert begun.wait(PATIENCE_S)
        yield writer
    finally:
        thread.join()
        tap.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[dict[str, Any], Path]]:
    """The topology and the recording of two episodes, by placement."""

    @cache
    def record(placement: str) -> tuple[dict[str, Any], Path]:
        topology = content(placement={"pool": 2} if placement == "pool" else placement)
        path = tmp_path_factory.mktemp("recordings") / f"{placement}.zrec"
        env = zgrid.parallel_env(topology)
        try:
            env.reset(seed=1)  # the proxy is there now
            with recording(Tap(address_of(env)), path):
                play(env, seed=2)
                play(env)
                env.close()
        finally:
            env.close()
        return topology, path

    return record


def again(topology: dict[str, Any], path: Path, node: str) -> Result:
    return replay(path, load(topology, checked=False), node)


@pytest.mark.parametrize(
    ("placement", "node", "kinds"),
    [
        ("agent", "mg_1.ess_1", {"state": 2 * EPISODE_STEPS + 2}),
        ("agent", "mg_2", {"setpoint": 6 * EPISODE_STEPS, "report": 2 * EPISODE_STEPS + 2, "reset": 6}),
        pytest.param("grid", "mg_3", {"report": 2 * EPISODE_STEPS + 2}, marks=pytest.mark.slow),
        ("pool", "pool_1", {}),
    ],
)
def test_a_node_says_the_same_bytes_again(
    placement: str, node: str, kinds: dict[str, int], recorded: Callable[[str], tuple[dict[str, Any], Path]]
) -> None:
    result = again(*recorded(placement), node)
    assert result.first is None, "\n".join(describe(result.first))
    assert (result.different, result.beyond, result.episodes) == (0, 0, 2)
    assert result.equal >= 2 * EPISODE_STEPS + 2
    assert {kind: result.kinds[kind] for kind in kinds} == kinds
    if placement == "agent" and node == "mg_2":
        assert result.kinds["peer"] > 2 * 2 * EPISODE_STEPS
    if placement == "pool":
        assert result.kinds["batch"] >= 2 * EPISODE_STEPS
        assert result.kinds["in batches"] >= 2 * result.kinds["batch"]


def test_another_topology_gives_the_first_difference(
    recorded: Callable[[str], tuple[dict[str, Any], Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topology, path = recorded("agent")
    result = again(topology | {"policy": "rule_based"}, path, "mg_2")
    assert result.first is not None
    assert result.first.channel.startswith("setpoint/mg_2.")
    assert 0 < result.different <= 6 * EPISODE_STEPS < result.equal
    smaller = {**topology, "grids": {**topology["grids"]}}
    devices = smaller["grids"]["mg_1"]["devices"]
    smaller["grids"]["mg_1"] = smaller["grids"]["mg_1"] | {
        "devices": devices | {"ess_1": devices["ess_1"] | {"eta_charge": 0.9}}
    }
    (tmp_path / "smaller.yaml").write_text(yaml.safe_dump(smaller), encoding="utf-8")
    (tmp_path / "same.yaml").write_text(yaml.safe_dump(topology), encoding="utf-8")
    assert main(["replay", str(path), "--node", "mg_1.ess_1", str(tmp_path / "same.yaml")]) == 0
    assert "10 messages equal (state 10), 0 different" in capsys.readouterr().out
    assert main(["replay", str(path), "--node", "mg_1.ess_1", str(tmp_path / "smaller.yaml")]) == 1
    told = capsys.readouterr().out
    assert "first difference: step" in told
    assert "state: recorded (0." in told


def test_only_nodes_of_the_topology_and_recorded_episodes_are_replayed(
    recorded: Callable[[str], tuple[dict[str, Any], Path]], tmp_path: Path
) -> None:
    topology, path = recorded("agent")
    with pytest.raises(UnknownNameError, match=r"no node 'mg_9' in the topology; there is mg_1\.dg_1"):
        again(topology, path, "mg_9")
    empty = write(tmp_path / "empty.zrec", [heard(0)])
    with pytest.raises(RecordingError, match="no episode begins in it"):
        again(topology, empty, "mg_1")


def test_a_recording_that_ends_within_a_step_is_replayed_as_far_as_it_goes(
    recorded: Callable[[str], tuple[dict[str, Any], Path]], tmp_path: Path
) -> None:
    topology, path = recorded("agent")
    messages = list(Reader(path))
    cut = next(k for k, one in enumerate(messages) if one.channel == "state/mg_1.ess_1/" and k > len(messages) // 2)
    result = again(topology, write(tmp_path / "cut.zrec", messages[:cut]), "mg_1.ess_1")
    assert (result.different, result.beyond) == (0, 1)


def test_a_summary_tells_what_is_in_it(
    recorded: Callable[[str], tuple[dict[str, Any], Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, path = recorded("agent")
    assert main(["replay", str(path), "--list"]) == 0
    told = capsys.readouterr().out
    assert "1 run, 0 lost" in told
    assert "the run's end was recorded" in told
    assert "mg_1.dg_1" in told


# ---- the command ---------------------------------------------------------------------------------------------------


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own."""
    popen = subprocess.Popen(
        [sys.executable, "-c", "import sys; from zgrid.cli import main; sys.exit(main(sys.argv[1:]))", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield popen
    finally:
        popen.kill()
        popen.wait()
        assert popen.stdout is not None
        popen.stdout.close()


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.slow
def test_a_recorder_that_is_killed_leaves_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "killed.zrec"
    env = zgrid.parallel_env(small_topology() | {"episode_steps": EPISODE_STEPS})
    try:
        env.reset(seed=0)
        with command("record", str(path), "--connect", str(address_of(env))) as recorder:
            assert wait_until(lambda: size(path) > 10 * len(HEADER), PATIENCE_S)
            before = size(path)
            play(env)
            assert wait_until(lambda: size(path) > before, PATIENCE_S)
            recorder.send_signal(signal.SIGKILL)
            recorder.wait()
    finally:
        env.close()
    messages = list(Reader(path))
    assert any(one.channel == "beat/mg_1/" for one in messages)


def test_a_recorder_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # no other run of this machine is the newest one
    monkeypatch.setattr(tempfile, "tempdir", None)
    path = tmp_path / "whole.zrec"
    env = zgrid.parallel_env(small_topology() | {"episode_steps": EPISODE_STEPS})
    try:
        env.reset(seed=0)
        with command("record", str(path)) as recorder:  # finds the newest run by itself
            assert wait_until(lambda: size(path) > 10 * len(HEADER), PATIENCE_S)
            play(env)
            env.close()
            told, _ = recorder.communicate(timeout=PATIENCE_S)
            assert recorder.returncode == 0, told
    finally:
        env.close()
    assert "the run has ended; " in told
    assert told.endswith(" 0 lost\n")
    ear = Ear()
    assert any(type(one.envelope.body) is Stop for frame in Reader(path) for one in ear.take(frame))


def test_a_recording_is_served_to_watchers(
    recorded: Callable[[str], tuple[dict[str, Any], Path]],
) -> None:
    _, path = recorded("agent")
    with command("replay", str(path), "--serve", "--speed", "100") as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[1].rstrip(";")
        with Tap(Address.parse(address)) as tap:
            played, expected = [], list(Reader(path))
            for one in tap.listen(PATIENCE_S):
                if one is not None:
                    played.append(one)
                if len(played) == len(expected):
                    break
        assert [(one.channel, one.body) for one in played] == [(one.channel, one.body) for one in expected]
        assert server.wait(PATIENCE_S) == 0
