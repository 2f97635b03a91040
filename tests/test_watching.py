"""Watchers hear a run, tell what they heard, and are never waited for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zmq
from conftest import ROOT, free_ports, small_topology, wait_until

import zgrid
from zgrid import runfile
from zgrid.cli import main
from zgrid.encoding import encode
from zgrid.messages import Batch, Beat, Envelope, Item, Peer, Stop
from zgrid.messaging import Address, Heard, Tap, ZmqBroker
from zgrid.messaging.proxy import BACKLOG
from zgrid.runfile import RunFile
from zgrid.session import Session
from zgrid.topology import load
from zgrid.watching import Ear, Gaps, by_kind, find

PATIENCE_S = 30.0
Result = tuple[int, str, str]


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run files of these tests are not those of this machine."""
    monkeypatch.setattr(runfile.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))


def frame(sequence: int = 0, body: Any = None, *, channel: str = "peer/mg_1/mg_2/", **more: Any) -> Heard:
    fields = {"sender": "mg_2", "run": "run", "incarnation": 0, "step": 3, "round": 1} | more
    envelope = Envelope(sequence=sequence, sent_ns=10**9 * sequence, body=body or Peer((1.0,)), **fields)
    return Heard(10**9 * (sequence + 1), channel, encode(envelope))


def beat(sequence: int, sent: int, node: str = "mg_1") -> Heard:
    figures = Beat((node,), 77, (("state", sent, 10 * sent),), (("state", 100 * sent, 200),), (("stale", 3, 0),))
    return frame(sequence, figures, channel=f"beat/{node}/", sender=f"node:{node}")


class TestEar:
    def test_what_is_missing_is_counted(self) -> None:
        gaps = Gaps()
        numbers = [(4, 0), (5, 0), (8, 2), (8, 0), (9, 0)]
        assert [gaps.look("a/", Envelope("x", "r", 0, n, 1, 0, 0, Stop())) for n, _ in numbers] == [0, 0, 2, 0, 0]
        assert gaps.look("a/", Envelope("x", "r", 1, 0, 1, 0, 0, Stop())) == 0, "a new incarnation begins anew"
        assert gaps.look("a/", Envelope("x", "r", 1, 2, 1, 0, 0, Stop())) == 1
        assert gaps.lost == 3

    def test_a_batch_is_unpacked_into_what_it_holds(self) -> None:
        ear = Ear()
        items = tuple(Item(f"peer/{to}/mg_2/", "peer", "mg_2", 0, 3, 1, Peer((1.0,))) for to in ("mg_1", "mg_3"))
        said = ear.take(frame(0, Batch(items), channel="batch/pool_1/pool_2/", sender="node:pool_2"))
        assert [one.channel for one in said] == ["batch/pool_1/pool_2/", "peer/mg_1/mg_2/", "peer/mg_3/mg_2/"]
        assert ear.channels["peer/mg_1/mg_2/"].bytes == 0 < ear.channels["batch/pool_1/pool_2/"].bytes
        assert ear.channels["peer/mg_1/mg_2/"].speakers == {"mg_2"}

    def test_what_is_no_message_is_counted(self) -> None:
        ear = Ear()
        assert ear.take(Heard(1, "x/", b"nonsense")) == []
        assert (ear.malformed, ear.frames, ear.channels) == (1, 1, {})

    def test_rates_are_those_between_beats(self) -> None:
        ear = Ear()
        for sequence, sent in ((1, 10), (2, 30)):
            ear.take(beat(sequence, sent))
        ear.take(beat(1, 5, "mg_2"))
        node = ear.nodes["mg_1"]
        assert (node.rate.messages, node.rate.bytes, node.beat.pid) == (20.0, 200.0, 77)
        assert (node.is_up(node.last_ns + 10**9), node.is_up(node.last_ns + 2 * 10**9)) == (True, False)
        (row,) = by_kind(ear.nodes)
        assert (row.kind, row.rate.messages, row.p50_us, row.p99_us) == ("state", 20.0, 1750.0, 200)

    def test_jitter_is_that_of_the_times_between_messages(self) -> None:
        ear = Ear()
        for sequence in (0, 1, 4):
            ear.take(frame(sequence))
        assert ear.channels["peer/mg_1/mg_2/"].jitter_ms == (2000.0, 1000.0, 1000.0, 3000.0)


class TestRunFiles:
    def test_the_newest_run_that_lives_is_found(self) -> None:
        assert runfile.living() == []
        one, two = RunFile.write("127.0.0.1:1,2", "small"), RunFile.write("127.0.0.1:3,4", "small", "folder")
        assert one is not None
        assert two is not None
        assert runfile.living() == [two, one]
        assert find(None) == (Address("127.0.0.1", 3, 4), "folder")
        assert find("127.0.0.1:5,6") == (Address("127.0.0.1", 5, 6), None)
        assert two.path.stat().st_mode & 0o777 == 0o600
        two.remove()
        two.remove()
        assert find(None) == find("127.0.0.1:1,2") == (Address("127.0.0.1", 1, 2), None)

    def test_what_a_killed_run_left_is_removed(self) -> None:
        left = RunFile.write("127.0.0.1:1,2", "small")
        assert left is not None
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        left.path.write_text(left.path.read_text().replace(str(os.getpid()), str(gone.pid)))
        assert runfile.living() == []
        assert not left.path.exists()

    def test_a_folder_that_others_can_write_is_not_used(self) -> None:
        runfile.folder().mkdir(mode=0o777)
        runfile.folder().chmod(0o777)
        assert RunFile.write("127.0.0.1:1,2", "small") is None
        assert runfile.living() == []

    def test_a_session_leaves_one_while_it_lives(self) -> None:
        session = Session(load(small_topology()))
        try:
            address = session.start_proxy()
            assert [run.address for run in runfile.living()] == [str(address)]
        finally:
            session.stop()
        assert runfile.living() == []


# ---- the tap -------------------------------------------------------------------------------------------------------


@contextmanager
def proxy() -> Iterator[tuple[Address, int]]:
    """A proxy of its own, and its pid."""
    session = Session(load(small_topology()))
    try:
        yield session.start_proxy(), session.processes["broker"].popen.pid
    finally:
        session.stop()


def say(broker: ZmqBroker, channel: str, sequence: int) -> None:
    broker.publish(channel, Envelope("mg_2", "run", 0, sequence, 1, 0, 5, Peer((1.0,) * 50)))


def until_heard(broker: ZmqBroker, tap: Tap) -> None:
    """Speak until the tap hears."""
    for _ in range(1000):
        say(broker, "peer/x/", 0)
        if tap.poll(0.02) is not None:
            return
    raise AssertionError("the tap hears nothing")


def test_a_tap_hears_only_channels_with_its_prefix() -> None:
    with proxy() as (address, _):
        broker = ZmqBroker(address, "run")
        with Tap(address, ("peer/",)) as tap:
            until_heard(broker, tap)
            for sequence in range(3):
                say(broker, "state/a/", sequence)
                say(broker, "peer/y/", sequence)
            heard: list[Heard] = []
            for one in tap.listen(PATIENCE_S):
                heard += [one] if one is not None and one.channel != "peer/x/" else []
                if len(heard) == 3:
                    break
            assert [one.channel for one in heard] == ["peer/y/"] * 3
            assert heard[0].received_ns <= heard[-1].received_ns <= time.time_ns()
        broker.close()


def test_a_tap_that_is_not_read_loses_messages_and_counts_them() -> None:
    with proxy() as (address, _):
        broker = ZmqBroker(address, "run")
        with Tap(address, capacity=10) as tap:
            until_heard(broker, tap)
            for sequence in range(1000):
                say(broker, "peer/y/", sequence)
            assert wait_until(lambda: tap.dropped >= 980, PATIENCE_S)
            assert len([one for one in (tap.poll(0.0) for _ in range(20)) if one is not None]) == 10
        broker.close()


def memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024.0


@pytest.mark.slow
def test_the_proxy_keeps_a_bounded_backlog_for_a_subscriber_that_reads_too_slowly() -> None:
    """It answers heartbeats, so nobody disconnects it: every second message would wait for ever."""
    with proxy() as (address, pid), zmq.Context() as context, context.socket(zmq.SUB) as slow:
        slow.setsockopt(zmq.LINGER, 0)
        slow.setsockopt(zmq.RCVHWM, 100)
        slow.setsockopt(zmq.RCVTIMEO, 5000)
        slow.setsockopt_string(zmq.SUBSCRIBE, "peer/")
        slow.connect(f"tcp://{address.host}:{address.subscribe_port}")
        with closing(ZmqBroker(address, "run")) as broker:
            while not slow.poll(20):
                say(broker, "peer/x/", 0)
            sizes_mb = [flooded_mb(broker, slow, pid, 4 * BACKLOG)]
            while len(sizes_mb) < 5 and not (len(sizes_mb) > 1 and sizes_mb[-1] < sizes_mb[-2] + 50.0):
                sizes_mb.append(flooded_mb(broker, slow, pid, 4 * BACKLOG))
        assert sizes_mb[-1] < sizes_mb[-2] + 50.0, sizes_mb  # unbounded, each flood adds more than 300


def flooded_mb(broker: ZmqBroker, slow: zmq.Socket[bytes], pid: int, messages: int) -> float:
    """The proxy's memory after so many more messages, every second of which was read."""
    for sequence in range(messages // 2):
        say(broker, "peer/x/", sequence)
        say(broker, "peer/x/", sequence)
        slow.recv()
    return memory_mb(pid)


# ---- watching a run ------------------------------------------------------------------------------------------------


class Run:
    """A run whose episodes go on in a thread until it is stopped."""

    def __init__(self, topology: dict[str, Any]) -> None:
        self.env = zgrid.parallel_env(topology)
        self.env.reset(seed=0)
        session: Session = self.env._execution._session  # type: ignore[union-attr]
        assert session.address is not None
        self.address, self.broker_pid = session.address, session.processes["broker"].popen.pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play)
        self._thread.start()

    def _play(self) -> None:
        while not self._stop.is_set():
            if not self.env.agents:
                self.env.reset()
            self.env.step(dict.fromkeys(self.env.agents))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.env.close()


@pytest.fixture
def zgrid_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command; its exit code and what it printed."""

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.mark.slow
def test_commands_tell_what_goes_on(zgrid_command: Callable[..., Result], tmp_path: Path) -> None:
    """One run for all of them: it takes the longest."""
    content = small_topology(3) | {"horizontal": "average_consensus", "placement": {"pool": 2}}
    file = tmp_path / "pool.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    run = Run(content)
    try:
        code, out, err = zgrid_command("topic", "echo", "peer/mg_1", "--count", "3", "--json")
        assert (code, err) == (0, "")
        said = [json.loads(line) for line in out.splitlines()]
        assert [one["kind"] for one in said] == ["peer"] * 3
        assert all(one["channel"].startswith("peer/mg_1/") and len(one["body"]["values"]) for one in said)

        code, out, err = zgrid_command("topic", "echo", "report/mg_3/", "--count", "1")
        assert (code, err) == (0, "")
        assert "  report/mg_3/  report of mg_3: reward=" in out

        code, out, err = zgrid_command("topic", "list", str(file), "--json", "--for", "1.5")
        heard = json.loads(out)
        channels = {one["channel"]: one for one in heard["channels"]}
        assert channels["batch/env/pool_2/"]["speakers"] == ["node:pool_2"]
        assert channels["network/mg_3/"]["messages_per_s"] > 0
        assert heard["not_heard"]["setpoint/mg_1.dg_1/"] == "mg_1 to mg_1.dg_1, within node pool_1"
        assert "state/mg_1.dg_1/" in channels, "the env hears it too"
        code, out, _ = zgrid_command("topic", "list", str(file), "--for", "1.5")
        assert code == 0
        assert "not heard, but in the topology:" in out

        code, out, _ = zgrid_command("topic", "hz", "report/mg_3/", "--for", "1.5")
        assert code == 0
        assert "messages/s; every " in out
        code, out, _ = zgrid_command("topic", "info", "report/mg_3", str(file), "--for", "1.5")
        assert code == 0
        assert "mg_3 to env" in out
        code, out, err = zgrid_command("topic", "hz", "nothing/", "--for", "1.5")
        assert (code, out) == (1, "")
        assert "nothing heard on nothing/ within 1.5 s, but the run goes on" in err

        code, out, _ = zgrid_command("node", "list", "--json")
        nodes = {one["node"]: one for one in json.loads(out)}
        assert nodes.keys() == {"env", "pool_1", "pool_2"}
        assert nodes["pool_2"]["agents"] == ["mg_3.dg_1", "mg_3.pv_1", "mg_3.ess_1", "mg_3"]
        assert all(one["up"] for one in nodes.values())

        code, out, _ = zgrid_command("top", "--once", "--json")
        top = json.loads(out)
        assert {one["node"] for one in top["nodes"]} == nodes.keys()
        assert {"state", "report", "peer"} <= {one["kind"] for one in top["kinds"]}
        code, out, _ = zgrid_command("top", "--once")
        assert code == 0
        assert "pool_1" in out
        code, out, _ = zgrid_command("top", "--json", "--for", "2.5")
        assert code == 0
        assert len(out.splitlines()) >= 1
    finally:
        run.close()


def test_where_nothing_goes_on_that_is_told(zgrid_command: Callable[..., Result]) -> None:
    code, out, err = zgrid_command("topic", "list")
    assert (code, out) == (1, "")
    assert "no run of yours goes on here; start one with: python launch.py" in err
    address = str(Address("127.0.0.1", *free_ports()))
    for arguments in (
        ("topic", "list", "--for", "0.2"),
        ("topic", "hz", "x", "--for", "0.2"),
        ("node", "list", "--for", "0.2"),
        ("top", "--once", "--for", "0.2"),
    ):
        code, out, err = zgrid_command(*arguments, "--connect", address)
        assert (code, out) == (1, "")
        assert f"nothing heard at {address} within 0.2 s; is a run going on?" in err
    assert zgrid_command("node", "list", "--connect", "nowhere")[0] == 1


@pytest.mark.slow
def test_a_run_with_keys_is_watched_by_who_has_a_key(zgrid_command: Callable[..., Result], tmp_path: Path) -> None:
    content = small_topology() | {"broker": {"keys": str(tmp_path / "keys")}}
    file = tmp_path / "keys.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert zgrid_command("keys", "create", str(file), "--dir", str(tmp_path / "keys"))[0] == 0
    run = Run(content)
    try:
        code, out, _ = zgrid_command("topic", "echo", "report/mg_1/", "--count", "1")
        assert code == 0
        assert "report of mg_1" in out
        (runfile.living()[0]).remove()
        code, _, err = zgrid_command("topic", "list", "--connect", str(run.address), "--for", "10")
        assert code == 1
        assert "this node has none" in err
        code, out, _ = zgrid_command("node", "list", "--connect", str(run.address), "--keys", str(tmp_path / "keys"))
        assert code == 0
        assert "mg_1.ess_1" in out
    finally:
        run.close()


@pytest.mark.slow
def test_a_frozen_recorder_slows_nobody_and_changes_nothing(tmp_path: Path) -> None:
    topology = small_topology() | {"episode_steps": 200}
    path = tmp_path / "frozen.zrec"
    env = zgrid.parallel_env(topology)
    try:
        env.reset(seed=0)
        session: Session = env._execution._session  # type: ignore[union-attr]
        arguments = ["record", str(path), "--connect", str(session.address)]
        recorder = subprocess.Popen(
            [sys.executable, "-c", "import sys; from zgrid.cli import main; main(sys.argv[1:])", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
        )
        try:
            assert wait_until(lambda: path.exists() and path.stat().st_size > 200, PATIENCE_S)
            os.kill(recorder.pid, signal.SIGSTOP)
            pid = session.processes["broker"].popen.pid
            before_mb = memory_mb(pid)
            env.reset(seed=7)
            steps, slowest_s, began = [], 0.0, time.monotonic()
            while env.agents:
                begin = time.monotonic()
                steps.append(env.step(dict.fromkeys(env.agents)))
                slowest_s = max(slowest_s, time.monotonic() - begin)
            assert memory_mb(pid) - before_mb < 20.0
            assert slowest_s < 5.0, (slowest_s, time.monotonic() - began)
        finally:
            recorder.kill()
            recorder.wait()
    finally:
        env.close()
    alone = zgrid.parallel_env(topology, centralized=True)
    alone.reset(seed=0)
    alone.reset(seed=7)
    for observations, rewards, _, _, _ in steps:
        expected = alone.step(dict.fromkeys(alone.agents))
        assert rewards == expected[1]
        np.testing.assert_array_equal(observations["mg_1"], expected[0]["mg_1"])
    alone.close()
