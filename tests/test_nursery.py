"""Nursery: nodes that are forked are what they would be as programs of their own, and how they end is known."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

import pytest
from conftest import ROOT, descendants, is_alive, small_topology, wait_until

import zgrid
from zgrid.errors import NodeDiedError
from zgrid.lifeline import ORPHANED
from zgrid.nursery import AVAILABLE, Nursery, Sprout
from zgrid.session import Session, child_environment
from zgrid.topology import load

pytestmark = [
    pytest.mark.usefixtures("no_leftovers"),
    pytest.mark.skipif(not AVAILABLE, reason="needs Linux's descriptors of processes"),
]
PATIENCE_S = 30.0
TELLS = """
import os, sys, signal, threading, time, zmq
def main(argv):
    print("out", argv, sys.argv[0].endswith("tells.py"), os.getcwd(), os.environ.get("MARK"), sys.stdin.read())
    sys.stdout.flush()
    name = open("/proc/self/comm").read()
    print("err", os.getsid(0) == os.getpid(), threading.active_count() - 1, name, file=sys.stderr)
    for one in argv[1:2]:
        os.write(int(one), b"sign")
    if argv[0] == "raise":
        raise ValueError("out of sorts")
    if argv[0] == "exit":
        sys.exit(3)
    if argv[0] == "stay":
        sys.stdout.flush()
        time.sleep(60)
    return 5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tells.py").write_text(TELLS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    with closing(Nursery(child_environment())) as nursery:
        yield nursery


@pytest.fixture
def log() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as log:
        yield log


def fork(nursery: Nursery, folder: Path, log: IO[bytes], *arguments: str, signs: int | None = None) -> Sprout:
    environment = {**child_environment(), "MARK": "here", "PYTHONPATH": f"{folder}:{ROOT}"}
    child = nursery.fork("mg_1.some_device_1", "tells", arguments, environment, log, signs)
    child.stdin.write("told\n")
    child.stdin.close()
    return child


def written(log: IO[bytes]) -> str:
    return os.pread(log.fileno(), 1 << 16, 0).decode()


def test_a_node_is_what_a_program_of_its_own_would_be(nursery: Nursery, folder: Path, log: IO[bytes]) -> None:
    child = fork(nursery, folder, log, "go")
    assert child.wait(PATIENCE_S) == child.poll() == child.returncode == 5
    said = written(log)
    assert f"out ['go'] True {folder} here told" in said
    assert "err True 1 mg_1.some_devic" in said
    child.close()


@pytest.mark.parametrize(("what", "code", "told"), [("raise", 1, "ValueError: out of sorts"), ("exit", 3, "")])
def test_how_it_ended_is_known(what: str, code: int, told: str, nursery: Nursery, folder: Path, log: IO[bytes]) -> None:
    child = fork(nursery, folder, log, what)
    assert child.wait(PATIENCE_S) == code
    assert told in written(log)
    child.close()


def test_also_by_a_signal_and_nobody_else_ends(nursery: Nursery, folder: Path, log: IO[bytes]) -> None:
    one, other = fork(nursery, folder, log, "stay"), fork(nursery, folder, log, "stay")
    assert one.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(0.05)
    one.kill()
    assert one.wait(PATIENCE_S) == -signal.SIGKILL
    one.kill()  # it has ended: nobody is meant
    assert other.poll() is None
    assert is_alive(other.pid)
    other.send_signal(signal.SIGKILL)
    assert other.wait(PATIENCE_S) == -signal.SIGKILL
    one.close()
    other.close()


def test_descriptors_for_signs_are_where_they_are_said_to_be(nursery: Nursery, folder: Path, log: IO[bytes]) -> None:
    end, start = os.pipe()
    child = fork(nursery, folder, log, "go", str(start), signs=start)
    os.close(start)
    assert child.wait(PATIENCE_S) == 5, written(log)
    assert os.read(end, 16) == b"sign"
    assert os.read(end, 16) == b""  # nobody else holds it open
    os.close(end)
    child.close()


def test_an_environment_may_be_large(nursery: Nursery, folder: Path, log: IO[bytes]) -> None:
    environment = {**child_environment(), "PYTHONPATH": f"{folder}:{ROOT}", "MARK": "x" * 1000}
    environment |= {f"MORE_{k}": "y" * 100_000 for k in range(4)}
    child = nursery.fork("mg_1", "tells", ["go"], environment, log)
    child.stdin.close()
    assert child.wait(PATIENCE_S) == 5
    assert "x" * 1000 in written(log)
    child.close()


def test_the_folders_of_plug_ins_come_first_also_relative_ones(nursery: Nursery, folder: Path, log: IO[bytes]) -> None:
    (folder / "plugins").mkdir()
    (folder / "plugins" / "tells.py").write_text(
        "import os, sys\nfrom pathlib import Path\n"
        "def main(argv):\n    print([str(Path(e)) for e in sys.path[:3]], flush=True)\n    return 6\n"
    )
    (folder / "tells.py").unlink()
    environment = {**child_environment(), "PYTHONPATH": f"plugins/:{ROOT}"}
    child = nursery.fork("mg_1", "tells", [], environment, log)
    child.stdin.close()
    assert child.wait(PATIENCE_S) == 6
    assert written(log).strip() == str([str(folder), str(folder / "plugins"), str(ROOT)])
    child.close()


def test_an_answer_that_nobody_waits_for_any_more_is_not_taken_for_another(
    nursery: Nursery, folder: Path, log: IO[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    fork(nursery, folder, log, "go").wait(PATIENCE_S)
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(nursery, "_answer", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            fork(nursery, folder, log, "go")
    child = fork(nursery, folder, log, "stay")
    assert wait_until(lambda: Path(f"/proc/{child.pid}/comm").read_text().startswith("mg_1.some"), PATIENCE_S)
    assert child.poll() is None
    child.kill()
    assert child.wait(PATIENCE_S) == -signal.SIGKILL
    child.close()
    assert len(os.listdir("/proc/self/fd")) == before


def _interrupted(name: str) -> tuple[int, int]:
    raise KeyboardInterrupt


def start_nodes(then: str) -> subprocess.Popen[bytes]:
    """A process that has started nodes, does something, says so, and stays."""
    script = (
        "import os, sys, time\nfrom zgrid.session import Session\nfrom zgrid.topology import load\n"
        f"session = Session(load('1mg'))\nsession.start_agents(session.start_proxy())\n{then}\ntime.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)


def test_it_ends_with_its_parent_also_where_a_fork_of_that_lives_on() -> None:
    with start_nodes("child = os.fork()\nif child: print(child, flush=True)") as process:
        assert process.stdout is not None
        sibling = int(process.stdout.readline())
        below = descendants(process.pid) - {sibling}
        process.kill()
        process.stdout.close()
    nodes = [pid for pid in below if "broker" not in Path(f"/proc/{pid}/cmdline").read_text()]
    try:
        assert len(nodes) > 4
        assert wait_until(lambda: not any(map(is_alive, nodes)), PATIENCE_S)
        assert is_alive(sibling)
    finally:
        os.kill(sibling, signal.SIGKILL)
    assert wait_until(lambda: not any(map(is_alive, below)), PATIENCE_S)


def test_a_session_that_cannot_begin_a_node_anew_still_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    content = small_topology()
    content["grids"]["mg_1"]["on_failure"] = {"kind": "restart", "backoff_s": 0.0}
    session = Session(load(content))
    try:
        session.start_agents(session.start_proxy())
        session.processes["mg_1"].popen.kill()
        session.processes["mg_1"].popen.wait(PATIENCE_S)
        with monkeypatch.context() as patch:
            patch.setattr(session, "_start", _no_descriptor)
            for _ in range(2):
                with pytest.raises(OSError, match="Too many"):
                    session.supervise()
    finally:
        session.stop()
    assert not session.processes


def _no_descriptor(*_: object) -> None:
    raise OSError(24, "Too many open files")


def test_nodes_end_when_what_forked_them_is_gone(nursery: Nursery, tmp_path: Path, log: IO[bytes]) -> None:
    session = Session(load(small_topology()))
    try:
        session.start_agents(session.start_proxy())
        before = {name: process.popen.pid for name, process in session.processes.items()}
        assert session._nursery is not None
        os.kill(session._nursery.pid, signal.SIGKILL)
        ended = session.processes["mg_1"].popen
        assert ended.wait(PATIENCE_S) == ORPHANED
        with pytest.raises(NodeDiedError, match=f"exited with code {ORPHANED}"):
            session.supervise()
        assert wait_until(lambda: [n for n, pid in before.items() if is_alive(pid)] == ["broker"], PATIENCE_S)
    finally:
        session.stop()


@pytest.mark.slow
def test_a_run_that_may_restart_its_nodes_survives_that(tmp_path: Path) -> None:
    content = small_topology() | {"episode_steps": 100}
    grid = content["grids"]["mg_1"]
    for one in (grid, *grid["devices"].values()):
        one["on_failure"] = "restart"
    with closing(zgrid.parallel_env(content)) as env, closing(zgrid.parallel_env(content, centralized=True)) as other:
        env.reset(seed=0)
        other.reset(seed=0)
        rewards = []
        for step in range(6):
            if step == 3:
                os.kill(env._execution._session._nursery.pid, signal.SIGKILL)
            rewards.append([one.step({"mg_1": None})[1]["mg_1"] for one in (env, other)])
        assert all(here == there for here, there in rewards)


def test_an_environment_in_which_nothing_can_be_imported_is_told_with_the_reason(log: IO[bytes]) -> None:
    broken = {**child_environment(), "PYTHONPATH": ""}
    broken["PYTHONHOME"] = "/nowhere"
    with closing(Nursery(broken)) as nursery, pytest.raises(NodeDiedError, match="mg_1, or rather what forks nodes"):
        nursery.fork("mg_1", "nodes.grid", [], broken, log)


def test_it_ends_with_who_started_it_however_that_ends() -> None:
    with start_nodes("print('up', flush=True)") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        below = descendants(process.pid)
        assert len(below) > 5
        process.kill()
    begin = time.monotonic()
    assert wait_until(lambda: not any(map(is_alive, below)), PATIENCE_S)
    assert time.monotonic() - begin < 5.0
