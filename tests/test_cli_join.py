"""``zgrid join``: the nodes of one machine, started together, on as little as a device needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, descendants, free_ports, is_alive, small_topology, wait_until
from test_light_imports import HEAVY

from zgrid.cli_join import nodes_of
from zgrid.errors import TopologyError
from zgrid.session import Session
from zgrid.topology import load

pytestmark = pytest.mark.usefixtures("no_leftovers")
THERE = "10.83.0.2"
OPEN = {"host": "0.0.0.0", "insecure": True}
PATIENCE_S = 60.0
COMMAND = "import sys; from zgrid.cli import main; code = main(sys.argv[1:]); {}; sys.exit(code)"


def content(**broker: Any) -> dict[str, Any]:
    """A microgrid whose storage and PV are on another machine."""
    made = small_topology() | {"broker": OPEN | broker}
    for device in ("ess_1", "pv_1"):
        made["grids"]["mg_1"]["devices"][device]["host"] = THERE
    return made


def write(folder: Path, topology: dict[str, Any]) -> str:
    file = folder / "grid.yaml"
    file.write_text(yaml.safe_dump(topology, sort_keys=False), encoding="utf-8")
    return str(file)


class Joined:
    """``zgrid join`` in a process of its own."""

    def __init__(self, log: Path, *arguments: str, last: str = "pass") -> None:
        self._log = log
        with log.open("wb") as out:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", COMMAND.format(last), "join", *arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=out,
                stderr=out,
            )

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def says(self, text: str, count: int = 1) -> bool:
        wait_until(lambda: self.said.count(text) >= count or self.popen.poll() is not None, PATIENCE_S)
        return self.said.count(text) >= count


@contextmanager
def joined(log: Path, *arguments: str, last: str = "pass") -> Iterator[Joined]:
    process = Joined(log, *arguments, last=last)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()


def launch(file: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "launch.py", file, "--steps", "3"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


class TestWhoIsMeant:
    def test_every_node_of_the_machine_also_an_external_one(self) -> None:
        topology = load(content(), {"grids.mg_1.devices.pv_1.run": "external"})
        assert nodes_of(topology, THERE) == ["mg_1.pv_1", "mg_1.ess_1"]

    def test_a_machine_is_known_by_its_addresses(self) -> None:
        topology = load(content(), {"grids.mg_1.devices.pv_1.host": "127.0.0.1", "grids.mg_1.host": "0.0.0.1"})
        assert nodes_of(topology, "0.0.0.1") == ["mg_1"]

    def test_the_machine_of_the_env_has_none_to_join(self) -> None:
        topology = load(content(), {"grids.*.devices.*.host": "127.0.0.1"})
        with pytest.raises(TopologyError, match="no node has a host that is this machine"):
            nodes_of(topology, None)

    def test_with_its_devices_a_grid_is_one_node(self) -> None:
        topology = load(content(), {"placement": "grid", "grids.mg_1.host": THERE})
        assert nodes_of(topology, THERE) == ["mg_1"]


class TestWhatIsTold:
    """The command for the other machine."""

    def session(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> Session:
        from zgrid.messaging import Address

        monkeypatch.chdir(tmp_path)
        session = Session(load(content(), overrides, checked=False), "grid.yaml --set seed=3")
        session.address = Address("0.0.0.0", 5555, 5556)
        return session

    def test_names_a_real_address_where_there_is_a_route(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        session = self.session(tmp_path, monkeypatch)
        assert session.join_command("127.0.0.1") == "zgrid join grid.yaml --set seed=3 --connect 127.0.0.1:5555,5556"

    def test_says_so_where_there_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        told = self.session(tmp_path, monkeypatch).join_command("no.such.machine.invalid")
        assert told.endswith("--connect ADDRESS_OF_THIS_MACHINE:5555,5556")

    def test_names_the_keys(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        session = self.session(tmp_path, monkeypatch, **{"broker.keys": str(tmp_path / "keys")})
        assert session.join_command("127.0.0.1").endswith(" --keys keys")
        assert session.command("mg_1.ess_1").endswith(" --keys keys")

    @pytest.mark.parametrize(
        ("placement", "node", "module"),
        [("agent", "mg_1.ess_1", "device"), ("agent", "mg_1", "grid"), ("grid", "mg_1", "grid")],
    )
    def test_names_module_and_node(
        self, placement: str, node: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        overrides = {"placement": placement, "grids.mg_1.host": THERE}
        command = self.session(tmp_path, monkeypatch, **overrides).command(node)
        assert command.startswith(f"python -m nodes.{module} grid.yaml --set seed=3 {node} --connect ")


@pytest.mark.slow
def test_nodes_end_with_the_run_and_nothing_heavy_is_needed(tmp_path: Path) -> None:
    """Not even the file of time series."""
    ports = free_ports()
    here, there = content(ports=list(ports)), content(ports=list(ports))
    there["profiles"]["file"] = "only_there.csv"
    (tmp_path / "there").mkdir()
    arguments = (write(tmp_path / "there", there), "--connect", f"127.0.0.1:{ports[0]},{ports[1]}", "--host", THERE)
    heavy = f"print('HEAVY', sorted({{n.partition('.')[0] for n in sys.modules}} & {HEAVY!r}))"
    with joined(tmp_path / "log", *arguments, last=heavy) as process:
        run = launch(write(tmp_path, here))
        assert run.returncode == 0, run.stderr
        assert f"waiting for mg_1.pv_1, mg_1.ess_1; on {THERE} type: zgrid join" in run.stdout
        assert process.popen.wait(5.0) == 0, process.said
        assert process.said.count("the run is over") == 2
        assert "HEAVY []" in process.said


@pytest.mark.slow
def test_forever_waits_for_the_next_run_and_a_signal_ends_it(tmp_path: Path) -> None:
    ports = free_ports()
    file = write(tmp_path, content(ports=list(ports)))
    arguments = (file, "--connect", f"127.0.0.1:{ports[0]},{ports[1]}", "--host", THERE, "--forever")
    with joined(tmp_path / "log", *arguments) as process:
        for number in (1, 2):
            run = launch(file)
            assert run.returncode == 0, run.stderr
            assert process.says("the run is over", 2 * number), process.said
            assert process.says("pid", 2 * number + 2), process.said
        nodes = descendants(process.popen.pid)
        assert len(nodes) == 3, "two nodes, and what forks them"
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(5.0) == 143, process.said
        assert not any(map(is_alive, nodes))
        assert "terminated; all nodes of this machine have ended" in process.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_nodes_do_not_outlive_it(number: int, tmp_path: Path) -> None:
    arguments = (write(tmp_path, content()), "--connect", "127.0.0.1:1,2", "--host", THERE)
    with joined(tmp_path / "log", *arguments) as process:
        assert process.says("connecting to 127.0.0.1:1,2", 2)
        nodes = descendants(process.popen.pid)
        process.popen.send_signal(number)
        assert process.popen.wait(5.0) == (130 if number == signal.SIGINT else -9)
        assert wait_until(lambda: not any(map(is_alive, nodes)), 5.0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--host", "10.83.0.9"), "no node has the host 10.83.0.9; the topology names 10.83.0.2"),
        (("--host", THERE), "where is the proxy? Give --connect HOST:PORT,PORT"),
        (("--host", THERE, "--connect", "10.83.0.1:5555"), "expected HOST:PORT,PORT"),
        (("--host", THERE, "--connect", "10.83.0.1:1,2", "--keys", "none"), "mg_1.pv_1.key_secret: not here"),
    ],
)
def test_what_cannot_be_is_told_before_anything_starts(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    with joined(tmp_path / "log", write(tmp_path, content()), *arguments) as process:
        assert process.popen.wait(PATIENCE_S) == 2
        assert told in process.said
        assert "pid" not in process.said


ACTS = """
import os, sys, time
pipe = int(sys.argv[sys.argv.index("--signs") + 1])
for word in sys.argv[1]:
    if word in "+-":
        os.write(pipe, word.encode())
    elif word == "s":
        time.sleep(60)
    elif word == "x":
        os._exit(int(sys.argv[2]))
"""


class TestBegunAnew:
    """What a parent on another machine than the env's does with nodes that end."""

    @pytest.fixture
    def session(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
        (tmp_path / "acts.py").write_text(ACTS)
        monkeypatch.syspath_prepend(str(tmp_path))
        made = content(silence_s=0.5)
        made["grids"]["mg_1"]["on_failure"] = {"kind": "restart", "maximum": 2, "backoff_s": 0.0}
        made["grids"]["mg_1"]["devices"]["dg_1"]["on_failure"] = "fallback"
        session = Session(load(made), lenient=True)
        yield session
        session.stop()

    def settle(self, session: Session, holds: Any) -> bool:
        """Look after the processes until something holds."""

        def look() -> bool:
            session.supervise()
            return bool(holds())

        return wait_until(look, 20.0)

    def test_one_that_took_part_is_but_not_too_often(self, session: Session) -> None:
        pids = {session.spawn("mg_1", "acts", ["+x", "3"]).popen.pid}
        process = session.processes["mg_1"]
        assert self.settle(session, lambda: pids.add(session.processes["mg_1"].popen.pid) or _left(session, "mg_1"))
        assert len(pids) == 3
        assert session.causes["mg_1"] == "exited with code 3"
        assert session.processes["mg_1"] is not process

    def test_one_that_never_took_part_is_not(self, session: Session) -> None:
        process = session.spawn("mg_1", "acts", ["x", "1"])
        assert self.settle(session, lambda: _left(session, "mg_1"))
        assert session.processes["mg_1"] is process

    def test_nobody_is_once_another_was_told_that_the_run_is_over(self, session: Session) -> None:
        session.spawn("mg_1.pv_1", "acts", ["+-x", "0"]).popen.wait(20.0)
        process = session.spawn("mg_1", "acts", ["+x", "3"])
        assert self.settle(session, lambda: _left(session, "mg_1"))
        assert session.processes["mg_1"] is process

    def test_one_that_says_no_more_that_it_lives_is_but_not_one_that_rests(self, session: Session) -> None:
        process, rests = session.spawn("mg_1", "acts", ["+s"]), session.spawn("mg_1.pv_1", "acts", ["+-s"])
        assert self.settle(session, lambda: session.processes["mg_1"] is not process)
        assert session.causes["mg_1"] == "its process hangs: it has not said for 0.5 s that it lives"
        assert process.popen.returncode == -signal.SIGKILL
        assert rests.popen.poll() is None

    def test_one_that_may_not_be_is_killed_when_it_hangs_unless_it_may_come_back(self, session: Session) -> None:
        fails, falls_back = session.spawn("mg_1.pv_1", "acts", ["+s"]), session.spawn("mg_1.dg_1", "acts", ["+s"])
        assert self.settle(session, lambda: fails.popen.poll() is not None and falls_back.may_end)
        assert fails.popen.returncode == -signal.SIGKILL
        assert falls_back.popen.poll() is None


def _left(session: Session, name: str) -> bool:
    process = session.processes[name]
    return process.may_end and process.popen.poll() is not None


def test_nodes_that_find_no_proxy_are_not_begun_anew_either(tmp_path: Path) -> None:
    made = content(ready_timeout_s=0.5)
    for device in ("ess_1", "pv_1"):
        made["grids"]["mg_1"]["devices"][device]["on_failure"] = {"kind": "restart", "backoff_s": 0.0}
    with joined(tmp_path / "log", write(tmp_path, made), "--connect", "127.0.0.1:1,2", "--host", THERE) as process:
        assert process.popen.wait(PATIENCE_S) == 1
        assert process.said.count("ended with code 1; it is not begun anew") == 2
        assert "begins anew" not in process.said


def test_nodes_that_find_no_proxy_end_with_an_error(tmp_path: Path) -> None:
    arguments = (write(tmp_path, content(ready_timeout_s=0.5)), "--connect", "127.0.0.1:1,2", "--host", THERE)
    with joined(tmp_path / "log", *arguments) as process:
        assert process.popen.wait(PATIENCE_S) == 1
        assert process.said.count("no answer from a proxy at 127.0.0.1:1,2") == 2
        assert process.said.count("ended with code 1; it is not begun anew") == 2
