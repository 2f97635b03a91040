"""Every fault at every role and moment: noticed in time and named, or survived with the right numbers; nothing is left.

docs/reliability.md has the matrix. What the moments of a fault are: before ready, mid-step, between steps, at shutdown.
"""

from __future__ import annotations

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
from conftest import ROOT, descendants, free_ports, is_alive, small_topology, wait_until
from faults import (
    DEVICE,
    GRID,
    babbler,
    cable,
    pid_of,
    plain,
    rewards,
    session_of,
    with_device,
    with_policy,
    write_agents,
    write_flow,
)

import zgrid
from zgrid.errors import AgentError, BrokerError, NodeDiedError, NodeSilentError, StartTimeout
from zgrid.messaging import Address
from zgrid.session import Session

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_leftovers")]
NOTICED_S = 2.0
ROLES = {"device": DEVICE, "grid": GRID}
ENDS = {
    "kill": (NodeDiedError, "killed by signal 9"),
    "stop": (NodeSilentError, "stopped"),
    "raise": (AgentError, "out of sorts"),
}
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A name for a module of faults that this process and its children find, and no other test uses."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return "faults_" + "".join(c if c.isalnum() else "_" for c in request.node.name)


def content_of(role: str, module: str) -> dict[str, Any]:
    return (with_device if role == "device" else with_policy)(plain(), module)


def step(env: zgrid.NetworkedGridEnv) -> dict[str, float]:
    result: dict[str, float] = env.step(dict.fromkeys(env.agents))[1]
    return result


def fails(env: zgrid.NetworkedGridEnv, act: Callable[[], Any], fault: str, node: str) -> None:
    """The act raises what the fault comes to, in time, and names the node."""
    kind, cause = ENDS[fault]
    begin = time.monotonic()
    with pytest.raises(kind) as caught:
        act()
    assert time.monotonic() - begin < NOTICED_S
    assert cause in str(caught.value)
    assert getattr(caught.value, "node", None) == node or getattr(caught.value, "agent", None) == node


# ---- devices and grids ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("fault", ["kill", "stop", "raise"])
def test_before_ready(role: str, fault: str, module: str, tmp_path: Path) -> None:
    write_agents(tmp_path, module, ready=fault)
    with closing(zgrid.parallel_env(content_of(role, module))) as env:
        kind = NodeSilentError if fault == "stop" else NodeDiedError
        with pytest.raises(kind) as caught:
            env.reset(seed=0)
        assert caught.value.node == ROLES[role]
        if isinstance(caught.value, NodeDiedError):
            assert caught.value.exit_code == {"kill": -9, "raise": 1}[fault]
        if fault == "raise":
            assert "RuntimeError: out of sorts" in caught.value.last_lines


@pytest.mark.parametrize("role", ROLES)
def test_slow_before_ready(role: str, module: str, tmp_path: Path) -> None:
    write_agents(tmp_path, module, ready="slow")
    content = content_of(role, module)
    expected = rewards(content, 2)
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        assert [step(env), step(env)] == expected


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("fault", ["kill", "stop", "raise"])
def test_mid_step(role: str, fault: str, module: str, tmp_path: Path) -> None:
    write_agents(tmp_path, module, acts=fault)
    content = content_of(role, module)
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        step(env)
        fails(env, lambda: step(env), fault, ROLES[role])


@pytest.mark.parametrize("role", ROLES)
def test_slow_mid_step(role: str, module: str, tmp_path: Path) -> None:
    """An agent that thinks for longer than the silence that counts as failure is alive, and waited for."""
    expected = rewards(with_device(plain(), quiet(tmp_path, module)) if role == "device" else plain(), 3)
    write_agents(tmp_path, module, acts="slow")
    with closing(zgrid.parallel_env(content_of(role, module))) as env:
        env.reset(seed=0)
        assert [step(env) for _ in range(3)] == expected


def quiet(folder: Path, module: str) -> str:
    """The same device without a fault."""
    write_agents(folder, module + "_quiet")
    return module + "_quiet"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("fault", ["kill", "stop"])
def test_between_steps(role: str, fault: str) -> None:
    node = {"device": "mg_1.pv_1", "grid": "mg_1"}[role]
    with closing(zgrid.parallel_env(plain())) as env:
        env.reset(seed=0)
        step(env)
        os.kill(pid_of(env, node), SIGNALS[fault])
        fails(env, lambda: step(env), fault, node)


@pytest.mark.parametrize("node", ["mg_1.pv_1", "mg_1", "broker"])
def test_slow_between_steps(node: str) -> None:
    """A pause of half a second is no failure."""
    expected = rewards(plain(), 3)
    with closing(zgrid.parallel_env(plain())) as env:
        env.reset(seed=0)
        got = [step(env)]
        pid = pid_of(env, node)
        os.kill(pid, signal.SIGSTOP)
        timer = threading.Timer(0.5, os.kill, (pid, signal.SIGCONT))
        timer.start()
        got += [step(env), step(env)]
        timer.join()
        assert got == expected
        assert env.stats()["refused"] == {}


@pytest.mark.parametrize("node", ["mg_1.pv_1", "mg_1", "broker"])
@pytest.mark.parametrize("fault", SIGNALS)
def test_at_shutdown(node: str, fault: str) -> None:
    with closing(zgrid.parallel_env(plain())) as env:
        env.reset(seed=0)
        step(env)
        pids = [process.popen.pid for process in session_of(env).processes.values()]
        os.kill(pid_of(env, node), SIGNALS[fault])
        begin = time.monotonic()
        env.close()
        assert time.monotonic() - begin < 6.0
        assert not any(map(is_alive, pids))


@pytest.mark.parametrize("node", ["mg_1.pv_1", "mg_1", "broker"])
def test_slow_at_shutdown(node: str) -> None:
    with closing(zgrid.parallel_env(plain())) as env:
        env.reset(seed=0)
        step(env)
        pid = pid_of(env, node)
        os.kill(pid, signal.SIGSTOP)
        timer = threading.Timer(0.5, os.kill, (pid, signal.SIGCONT))
        timer.start()
        env.close()
        timer.join()


# ---- malformed -----------------------------------------------------------------------------------------------------

HEARD_BY = {"device": "setpoint/mg_1.pv_1/", "grid": "action/mg_1/", "env": "report/mg_1/"}


@pytest.mark.parametrize("role", HEARD_BY)
@pytest.mark.parametrize("moment", ["mid-step", "between steps", "at shutdown"])
def test_malformed(role: str, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted where it is heard, exactly, and the steps are right."""
    expected = rewards(plain(), 3)
    rng = np.random.default_rng(1)
    with closing(zgrid.parallel_env(plain())) as env:
        env.reset(seed=0)
        address = session_of(env).address
        assert address is not None
        with babbler(address, HEARD_BY[role]) as peer:
            got = [step(env)]
            if moment == "mid-step":
                advance = env._world.advance
                said: list[int] = []

                def babble_then_advance(states: Any) -> Any:
                    said.append(peer.say(rng))
                    return advance(states)

                monkeypatch.setattr(env._world, "advance", babble_then_advance)
                got.append(step(env))
                monkeypatch.undo()
                count = sum(said)
            else:
                count = peer.say(rng)
                got.append(step(env))
            got.append(step(env))
            refused = env.stats()["refused"]
            assert sum(refused.values()) == count, refused
            assert {cause.partition(" ")[0] for cause in refused} <= {"malformed", "version", "unknown"}
            if moment == "at shutdown":
                peer.say(rng)
            pids = [process.popen.pid for process in session_of(env).processes.values()]
            env.close()
        assert not any(map(is_alive, pids))
    assert got == expected


def test_malformed_before_ready() -> None:
    topology = zgrid.load(plain())
    session = Session(topology)
    rng = np.random.default_rng(2)
    try:
        address = session.start_proxy()
        with babbler(address, "node/mg_1/", "state/mg_1.pv_1/", "control/all/") as peer:
            said: list[int] = []
            env = zgrid.NetworkedGridEnv(topology, connect=address, on_ready=lambda _: said.append(peer.say(rng)))
            session.start_agents(address)
            with closing(env):
                env.reset(seed=0)
                assert [step(env), step(env)] == rewards(plain(), 2)
                here = env._execution._host.refused()  # type: ignore[union-attr]
                assert sum(here.values()) == 2 * sum(said) > 0  # the env hears two of the three
    finally:
        session.stop()


@pytest.mark.parametrize("moment", ["before ready", "between steps"])
def test_garbage_at_the_ports_of_the_proxy(moment: str) -> None:
    """Bytes that are not even ZeroMQ."""
    import socket

    topology = zgrid.load(plain())
    session = Session(topology)
    rng = np.random.default_rng(3)

    def babble(address: Address) -> None:
        for port in (address.publish_port, address.subscribe_port):
            for size in (1, 10, 64, 4096):
                with socket.create_connection(("127.0.0.1", port)) as raw:
                    raw.sendall(rng.bytes(size))

    try:
        address = session.start_proxy()
        env = zgrid.NetworkedGridEnv(topology, connect=address)
        with closing(env):
            if moment == "before ready":
                babble(address)
            session.start_agents(address)
            env.reset(seed=0)
            got = [step(env)]
            babble(address)
            got.append(step(env))
            assert got == rewards(plain(), 2)
            assert env.stats()["refused"] == {}
    finally:
        session.stop()


# ---- a cut link ----------------------------------------------------------------------------------------------------


@contextmanager
def external(content: dict[str, Any], node: str, folder: Path) -> Iterator[tuple[zgrid.NetworkedGridEnv, Any]]:
    """A run whose node hangs on a cable."""
    holder = content["grids"]["mg_1"] if node == "mg_1" else content["grids"]["mg_1"]["devices"][node[5:]]
    holder["run"] = "external"
    file = folder / "cut.yaml"
    file.write_text(yaml.safe_dump(content))
    topology = zgrid.load(str(file))
    session = Session(topology)
    process = None
    try:
        address = session.start_proxy()
        with cable(address) as line:
            kind = "grid" if node == "mg_1" else "device"
            command = [sys.executable, "-m", f"nodes.{kind}", str(file), node, "--connect", str(line.address)]
            process = subprocess.Popen(command, cwd=ROOT)
            session.start_agents(address)
            env = zgrid.NetworkedGridEnv(topology, connect=address)
            with closing(env):
                yield env, line
            process.terminate()
            process.wait(5.0)
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        session.stop()


@pytest.mark.parametrize("role", ["device", "grid"])
@pytest.mark.parametrize("moment", ["before ready", "mid-step", "between steps", "at shutdown"])
def test_link_cut(role: str, moment: str, tmp_path: Path) -> None:
    node = {"device": "mg_1.pv_1", "grid": "mg_1"}[role]
    content = plain()
    content["broker"]["ready_timeout_s"] = 2.0 if moment == "before ready" else 30.0
    with external(content, node, tmp_path) as (env, line):
        if moment == "before ready":
            line.cut()
            with pytest.raises(StartTimeout) as missing:
                env.reset(seed=0)
            assert list(missing.value.missing) == [node]
            return
        env.reset(seed=0)
        step(env)
        if moment == "at shutdown":
            line.cut()
            begin = time.monotonic()
            env.close()
            assert time.monotonic() - begin < 5.0
            return
        if moment == "mid-step":
            line.cut_at({"device": b"setpoint/mg_1.pv_1/", "grid": b"action/mg_1/"}[role])
        else:
            line.cut()
        begin = time.monotonic()
        with pytest.raises(NodeSilentError, match="cut off") as caught:
            step(env)
        assert line.is_cut.is_set()
        assert time.monotonic() - begin < NOTICED_S
        assert caught.value.node == node


@pytest.mark.parametrize("moment", ["before ready", "mid-step", "between steps", "at shutdown"])
def test_link_of_the_env_cut(moment: str) -> None:
    content = plain()
    content["broker"]["ready_timeout_s"] = 2.0 if moment == "before ready" else 30.0
    topology = zgrid.load(content)
    session = Session(topology)
    try:
        address = session.start_proxy()
        with cable(address) as line, closing(zgrid.NetworkedGridEnv(topology, connect=line.address)) as env:
            if moment == "before ready":
                line.cut()
                with pytest.raises(BrokerError, match="no answer"):
                    env.reset(seed=0)
                return
            session.start_agents(address)
            env.reset(seed=0)
            step(env)
            if moment == "at shutdown":
                line.cut()
                begin = time.monotonic()
                env.close()
                assert time.monotonic() - begin < 5.0
                return
            if moment == "mid-step":
                line.cut_at(b"state/")
            else:
                line.cut()
            begin = time.monotonic()
            with pytest.raises(BrokerError, match="is gone or stopped"):
                step(env)
            assert time.monotonic() - begin < NOTICED_S
    finally:
        session.stop()


# ---- the proxy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", SIGNALS)
def test_the_proxy_before_ready(fault: str) -> None:
    env = zgrid.parallel_env(plain())
    with closing(env), pytest.MonkeyPatch.context() as patch:
        start = Session.start_agents

        killed: list[float] = []

        def kill_then_start(session: Session, address: Address) -> None:
            killed.append(time.monotonic())
            os.kill(session.processes["broker"].popen.pid, SIGNALS[fault])
            start(session, address)

        patch.setattr(Session, "start_agents", kill_then_start)
        kind, cause = ENDS[fault]
        with pytest.raises(kind, match=cause) as caught:
            env.reset(seed=0)
        assert caught.value.node == "broker"
        assert time.monotonic() - killed[0] < 3 * NOTICED_S  # among it, all processes are started


@pytest.mark.parametrize("fault", SIGNALS)
@pytest.mark.parametrize("moment", ["mid-step", "between steps"])
def test_the_proxy(fault: str, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(zgrid.parallel_env(plain())) as env:
        env.reset(seed=0)
        step(env)
        pid = pid_of(env, "broker")
        if moment == "mid-step":
            advance = env._world.advance

            def kill_then_advance(states: Any) -> Any:
                os.kill(pid, SIGNALS[fault])
                return advance(states)

            monkeypatch.setattr(env._world, "advance", kill_then_advance)
        else:
            os.kill(pid, SIGNALS[fault])
        fails(env, lambda: step(env), fault, "broker")


# ---- the env -------------------------------------------------------------------------------------------------------


@contextmanager
def launched(content: dict[str, Any], folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``launch.py`` on a content."""
    file = folder / "launched.yaml"
    file.write_text(yaml.safe_dump(content))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "launch.py"), str(file), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        left = descendants(process.pid)
        if process.poll() is None:
            process.kill()
        process.communicate()
        for pid in filter(is_alive, left):  # one that is stopped cannot see that its parent is gone
            os.kill(pid, signal.SIGKILL)


def with_flow(module: str) -> dict[str, Any]:
    return plain() | {"power_flow": {"kind": f"{module}:Flow"}, "episode_steps": 1000}


TOLD = {"kill": "node env killed by signal 9", "stop": "node env: its process is stopped", "raise": "out of sorts"}


@pytest.mark.parametrize("moment", ["before ready", "mid-step"])
@pytest.mark.parametrize("fault", ["kill", "stop", "raise"])
def test_the_env(fault: str, moment: str, module: str, tmp_path: Path) -> None:
    write_flow(tmp_path, module, **{"ready" if moment == "before ready" else "acts": fault})
    with launched(with_flow(module), tmp_path) as process:
        pids: set[int] = set()
        while process.poll() is None:
            pids |= descendants(process.pid)
            with_patience(process)
        assert process.returncode == 1
        assert process.stderr is not None
        assert TOLD[fault] in process.stderr.read()
    assert wait_until(lambda: not any(map(is_alive, pids)), 2.0)


def with_patience(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(0.05)
    except subprocess.TimeoutExpired:
        return


@pytest.mark.parametrize("moment", ["before ready", "mid-step"])
def test_the_env_is_slow(moment: str, module: str, tmp_path: Path) -> None:
    write_flow(tmp_path, module, **{"ready" if moment == "before ready" else "acts": "slow"})
    with launched(with_flow(module), tmp_path, "--steps", "5") as process:
        assert process.wait(60.0) == 0


@pytest.mark.parametrize("fault", ["kill", "stop"])
def test_the_env_between_steps_and_at_shutdown(fault: str, tmp_path: Path) -> None:
    """The launcher is told to end while its env no longer answers."""
    with launched(plain() | {"episode_steps": 100_000}, tmp_path) as process:
        assert process.stdout is not None
        while "agents ready" not in process.stdout.readline():
            assert process.poll() is None
        pids = descendants(process.pid)
        env = next(pid for pid in pids if "nodes.env" in Path(f"/proc/{pid}/cmdline").read_text())
        os.kill(env, SIGNALS[fault])
        process.send_signal(signal.SIGTERM)
        assert process.wait(10.0) in (1, 143)
    assert wait_until(lambda: not any(map(is_alive, pids)), 2.0)


def test_a_port_that_is_taken_is_told() -> None:
    """The proxy's own failure before it is ready."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = free_ports()[0]
        with (
            closing(zgrid.parallel_env(small_topology(), **{"broker.ports": [port, other]})) as env,
            pytest.raises(BrokerError, match="is another run using it"),
        ):
            env.reset(seed=0)
