"""What goes wrong is named, counted or survived, and nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zmq
from conftest import ROOT, descendants, free_ports, is_alive, small_topology, wait_until

import zgrid
from zgrid.encoding import decode, encode
from zgrid.errors import AgentError, BrokerError, NodeDiedError, StartTimeout, StepTimeout, TopologyError
from zgrid.messages import DeviceState, Envelope, channel
from zgrid.messaging import Address, InMemoryBroker
from zgrid.messaging.address import END
from zgrid.session import Session

pytestmark = pytest.mark.usefixtures("no_leftovers")
MODES: dict[str, dict[str, Any]] = {
    "centralized": {"centralized": True},
    "in_memory": {"message_broker": "in_memory"},
    "zmq": {"message_broker": "zmq"},
}
PLUGIN = """
from zgrid.devices.load import Load


class Moody(Load):
    \"\"\"A load that raises in its third step.\"\"\"

    count = 0

    def step(self, state, setpoint, series):
        type(self).count += 1
        if type(self).count == 3:
            raise RuntimeError("out of sorts")
        return super().step(state, setpoint, series)
"""


def inline(content: dict[str, Any], grid: str, *devices: str, itself: bool = False) -> dict[str, Any]:
    """With these devices of a grid, and the grid itself, in the process of the env: fewer to start."""
    holder = content["grids"][grid]
    for one in (*(holder["devices"][name] for name in devices), *([holder] if itself else [])):
        one["run"] = "inline"
    return content


def zmq_env(content: dict[str, Any] | None = None, **overrides: Any) -> zgrid.NetworkedGridEnv:
    """By default a grid and one of its devices are processes."""
    env = zgrid.parallel_env(content or inline(small_topology(), "mg_1", "dg_1", "ess_1"), **overrides)
    env.reset(seed=0)
    return env


@pytest.fixture(scope="module")
def shared() -> Iterator[zgrid.NetworkedGridEnv]:
    """For tests that end nothing; each resets it."""
    with closing(zmq_env()) as env:
        yield env


def session_of(env: zgrid.NetworkedGridEnv) -> Session:
    session = env._execution._session  # type: ignore[union-attr]
    assert session is not None
    return session


def step(env: zgrid.NetworkedGridEnv) -> Any:
    return env.step(dict.fromkeys(env.agents))


# ---- agents and nodes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_an_agent_that_raises_is_told_with_its_traceback_and_reset_recovers(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"moody_{mode}.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    content = small_topology()
    load = {"kind": f"moody_{mode}:Moody", "bus": "646", "demand": "load_2", "p_mw": 0.2}
    inline(content, "mg_1", "dg_1", "pv_1", "ess_1")["grids"]["mg_1"]["devices"]["load_1"] = load
    with closing(zgrid.parallel_env(content, **MODES[mode])) as env:
        env.reset(seed=0)
        step(env)
        step(env)
        with pytest.raises(AgentError) as caught:
            step(env)
        error = caught.value
        assert error.agent == "mg_1.load_1"
        assert error.cause == "RuntimeError: out of sorts"
        assert f"moody_{mode}.py" in error.remote_traceback
        env.reset(seed=0)
        step(env)


def test_reset_recovers_at_once_where_several_agents_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stubborn.py").write_text(
        "from zgrid.policies.idle import Idle\n"
        "class Stubborn(Idle):\n    def act(self, view):\n        raise RuntimeError('no')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with closing(zgrid.parallel_env(small_topology(3), message_broker="in_memory", policy="stubborn:Stubborn")) as env:
        env.reset(seed=0)
        with pytest.raises(AgentError):
            step(env)
        env.reset(seed=0)
        env.step({agent: np.zeros(4) for agent in env.agents})
        assert sum(env.stats()["refused"].values()) >= 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("said", "outcome"), [("0", "fine"), ("float('nan')", "not numbers")])
def test_what_a_plug_in_says_is_taken_or_refused_alike_in_all_modes(
    mode: str, said: str, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"plain_{mode}_{outcome.replace(' ', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "from zgrid.devices.load import Load\n"
        "class Plain(Load):\n"
        "    def step(self, state, setpoint, series):\n"
        "        state, effect = super().step(state, setpoint, series)\n"
        f"        return state, effect._replace(q_mvar={said})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    content = small_topology()
    load = {"kind": f"{name}:Plain", "bus": "646", "demand": 1, "p_mw": 0.2}
    inline(content, "mg_1", "dg_1", "pv_1", "ess_1")["grids"]["mg_1"]["devices"]["load_1"] = load
    with closing(zgrid.parallel_env(content, **MODES[mode])) as env:
        env.reset(seed=0)
        if outcome == "fine":
            step(env)
            assert env.snapshot()["mg_1.load_1.q_mvar"] == 0.0
        else:
            with pytest.raises(AgentError, match="expected finite numbers"):
                step(env)


@pytest.mark.parametrize("victim", ["mg_1.pv_1", "mg_1", "broker"])
def test_a_killed_node_is_named_at_once(victim: str) -> None:
    with closing(zmq_env()) as env:
        step(env)
        os.kill(session_of(env).processes[victim].popen.pid, signal.SIGKILL)
        begin = time.monotonic()
        with pytest.raises(NodeDiedError) as caught:
            step(env)
        assert time.monotonic() - begin < 2.0
        assert (caught.value.node, caught.value.exit_code) == (victim, -9)


def test_a_silent_device_runs_into_the_time_out_and_reset_recovers() -> None:
    with closing(zmq_env(**{"broker.step_timeout_s": 0.5})) as env:
        device = session_of(env).processes["mg_1.pv_1"].popen.pid
        os.kill(device, signal.SIGSTOP)
        try:
            with pytest.raises(StepTimeout) as caught:
                step(env)
        finally:
            os.kill(device, signal.SIGCONT)
        assert caught.value.missing == ("mg_1.pv_1",)
        assert caught.value.kind == "state"
        assert 0.4 < caught.value.waited_s < 2.0
        env.reset(seed=0)
        step(env)


def test_a_silent_grid_leaves_its_devices_missing() -> None:
    content = inline(small_topology(2), "mg_1", "dg_1", "pv_1", "ess_1", itself=True)
    with closing(zmq_env(content, **{"broker.step_timeout_s": 0.5})) as env:
        grid = session_of(env).processes["mg_2"].popen.pid
        os.kill(grid, signal.SIGSTOP)
        try:
            with pytest.raises(StepTimeout) as caught:
                step(env)
        finally:
            os.kill(grid, signal.SIGCONT)
        assert caught.value.missing == ("mg_2.dg_1", "mg_2.pv_1", "mg_2.ess_1")


def test_a_deadlock_in_memory_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(InMemoryBroker):
        def publish(self, channel: str, envelope: Envelope) -> int:
            return 0 if channel == "setpoint/mg_1.pv_1/" else super().publish(channel, envelope)

    monkeypatch.setattr("zgrid.environment.InMemoryBroker", Forgetful)
    with closing(zgrid.parallel_env(small_topology(), message_broker="in_memory")) as env:
        env.reset(seed=0)
        with pytest.raises(StepTimeout) as caught:
            step(env)
        assert caught.value.missing == ("mg_1.pv_1",)
        assert caught.value.waited_s < 0.5


def test_an_external_agent_that_is_missing_is_named_with_what_to_type() -> None:
    content = inline(small_topology(), "mg_1", "dg_1", "ess_1", itself=True)
    content["grids"]["mg_1"]["devices"]["pv_1"]["run"] = "external"
    content["broker"] = {"ready_timeout_s": 2.0}
    with closing(zgrid.parallel_env(content)) as env:
        with pytest.raises(StartTimeout) as caught:
            env.reset(seed=0)
        assert list(caught.value.missing) == ["mg_1.pv_1"]
        assert re.search(r"python -m nodes.device FILE mg_1.pv_1 --connect 127.0.0.1:\d+,\d+", str(caught.value))


@pytest.mark.slow
def test_a_node_of_another_topology_is_told_apart(tmp_path: Path) -> None:
    content = inline(small_topology(), "mg_1", "dg_1", "ess_1", itself=True)
    content["grids"]["mg_1"]["devices"]["pv_1"]["run"] = "external"
    ports = free_ports()
    content["broker"] = {"ready_timeout_s": 3.0, "ports": list(ports)}
    other = json.loads(json.dumps(content))
    other["grids"]["mg_1"]["devices"]["pv_1"]["p_max_mw"] = 0.25
    file = tmp_path / "other.yaml"
    file.write_text(yaml.safe_dump(other))
    command = [sys.executable, "-m", "nodes.device", str(file), "mg_1.pv_1"]
    node = subprocess.Popen(command, cwd=ROOT)
    try:
        with closing(zgrid.parallel_env(content)) as env, pytest.raises(StartTimeout, match="another topology"):
            env.reset(seed=0)
    finally:
        node.kill()
        node.wait()


def test_a_node_that_cannot_start_is_told_with_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text(
        "import os\nfrom zgrid.devices.load import Load\n"
        "class Fussy(Load):\n    def __init__(self, *arguments):\n        super().__init__(*arguments)\n"
        f"        if os.getpid() != {os.getpid()}:\n            raise OSError('no driver for this device')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    content = small_topology()
    load = {"kind": "only_here:Fussy", "bus": "646", "demand": 1.0, "p_mw": 0.2}
    inline(content, "mg_1", "dg_1", "pv_1", "ess_1")["grids"]["mg_1"]["devices"]["load_1"] = load
    with closing(zgrid.parallel_env(content)) as env, pytest.raises(NodeDiedError, match="no driver for this device"):
        env.reset(seed=0)


def test_an_address_where_no_proxy_is_gives_a_clear_error() -> None:
    first, second = free_ports()
    topology = zgrid.load(small_topology(), {"broker.ready_timeout_s": 0.5})
    env = zgrid.NetworkedGridEnv(topology, connect=Address("127.0.0.1", first, second))
    with closing(env), pytest.raises(BrokerError, match="is it running there"):
        env.reset(seed=0)


def test_a_wrong_file_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    with pytest.raises(TopologyError, match=r"grids\.mg_1\.devices\.dg_1\.bus"):
        zgrid.parallel_env(small_topology(), **{"grids.mg_1.devices.dg_1.bus": "nowhere"})


# ---- messages ------------------------------------------------------------------------------------------------------


@contextmanager
def intruder(env: zgrid.NetworkedGridEnv) -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    """Two sockets on the run's proxy: one publishes whatever it likes, the other hears ``intruder/``."""
    address = session_of(env).address
    assert address is not None
    context = zmq.Context()
    pub, sub = context.socket(zmq.PUB), context.socket(zmq.SUB)
    pub.connect(f"tcp://{address.host}:{address.publish_port}")
    sub.connect(f"tcp://{address.host}:{address.subscribe_port}")
    sub.setsockopt_string(zmq.SUBSCRIBE, "intruder/")
    while not sub.poll(20):
        pub.send(b"intruder/" + END)
    try:
        yield pub, sub
    finally:
        context.destroy(linger=0)


def test_bad_messages_are_counted_and_the_next_step_is_right(shared: zgrid.NetworkedGridEnv) -> None:
    reference = zgrid.parallel_env(small_topology(), centralized=True)
    reference.reset(seed=0)
    expected = [step(reference)[1] for _ in range(2)]
    shared.reset(seed=0)
    before = shared.stats()["refused"]
    assert step(shared)[1] == expected[0]
    state = Envelope("mg_1.pv_1", "another run", 0, 0, 3, 0, 0, DeviceState(9.0, 0.0, 0.0, 0.0, (0.0,)))
    to = channel("state", "mg_1.pv_1").encode()
    right_run = shared._execution._host.run  # type: ignore[union-attr]
    stranger = state._replace(sender="mg_1.dg_1", run=right_run)
    with intruder(shared) as (pub, sub):
        for frames in (
            [to],
            [to + END + b"garbage"],
            [to + END + encode(state)[:-3]],
            [to, encode(state)],
            [to + END + encode(state)],
            [to + END + encode(stranger._replace(sender="nobody"))],
            [b"\xff\xfe" + END + encode(state)],
            [b"intruder/" + END + b"last"],
        ):
            pub.send_multipart(frames)
        while sub.recv() != b"intruder/" + END + b"last":
            continue  # the proxy keeps order, so all that came before is through as well
    assert step(shared)[1] == expected[1]
    refused = Counter(shared.stats()["refused"])
    refused.subtract(before)
    # grid and env hear the channel, so each counts: a channel alone, garbage, one that is cut short, and both frames
    # of a message that has two
    assert refused["malformed"] == 2 * 5
    assert refused["other_run mg_1.pv_1"] == 2
    assert refused["stranger nobody"] == 2


def test_an_oversize_message_ends_its_sender_only(shared: zgrid.NetworkedGridEnv) -> None:
    shared.reset(seed=0)
    with intruder(shared) as (pub, _):
        watcher = pub.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        pub.send(b"state/mg_1.pv_1/" + END + bytes(2 << 20))
        assert watcher.poll(5000), "the sender of an oversize message was not disconnected"
    step(shared)


def test_a_message_of_an_old_step_is_refused_and_counted() -> None:
    with closing(zgrid.parallel_env(small_topology(), message_broker="in_memory")) as env:
        env.reset(seed=0)
        step(env)
        host = env._execution._host  # type: ignore[union-attr]
        host.send("mg_1.pv_1", channel("state", "mg_1.pv_1"), 1, 0, DeviceState(9.0, 0.0, 0.0, 0.0, (0.0,)))
        reference = zgrid.parallel_env(small_topology(), centralized=True)
        reference.reset(seed=0)
        step(reference)
        assert step(env)[1] == step(reference)[1]
        assert env.stats()["refused"] == {"stale mg_1.pv_1": 2}  # at the env, and at the grid


def test_a_lost_message_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(zmq_env()) as env:
        step(env)
        host = env._execution._host  # type: ignore[union-attr]
        host._sequence[("env", "action/mg_1/")] += 1  # as if one had been lost on the way
        with pytest.raises((AgentError, NodeDiedError), match="lost message: env on action/mg_1/: expected sequence 1"):
            step(env)


# ---- launch.py -----------------------------------------------------------------------------------------------------


@contextmanager
def launched(file: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """launch.py in a process of its own, ended by pid whatever happens."""
    command = [sys.executable, "launch.py", str(file), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A topology on known ports that plays for hours."""
    content = small_topology()
    content["broker"] = {"ports": list(free_ports())}
    content["episode_steps"] = 100_000
    file = tmp_path / "endless.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def wait_for_steps(process: subprocess.Popen[str]) -> set[int]:
    """Wait until the run plays; the pids of all its processes."""
    assert process.stdout is not None
    told = process.stdout.readline()
    while "agents ready" not in told:  # it may wait for an external device, and says so
        assert process.poll() is None, (told, process.stderr and process.stderr.read())
        told += process.stdout.readline()
    return descendants(process.pid)


def ports_are_free(file: Path) -> bool:
    for port in yaml.safe_load(file.read_text())["broker"]["ports"]:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return False
    return True


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
        (signal.SIGTERM, 143, "terminated"),
        pytest.param(signal.SIGKILL, -9, "", marks=pytest.mark.slow),
    ],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_a_signal_ends_everything_within_five_seconds(
    number: int, code: int, told: str, external: tuple[Path, subprocess.Popen[bytes]]
) -> None:
    """Also an external device, which the launcher did not start, when the run says that it is over."""
    endless, node = external
    with launched(endless) as process:
        pids = wait_for_steps(process)
        assert len(pids) == 6, "proxy, env, nursery, grid and two of three devices"
        process.send_signal(number)
        begin = time.monotonic()
        assert process.wait(5.0) == code
        assert wait_until(lambda: not any(map(is_alive, pids)), 5.0)
        assert time.monotonic() - begin < 5.0
        assert process.stderr is not None
        assert told in process.stderr.read()
        assert wait_until(lambda: ports_are_free(endless), 1.0)
    if number != signal.SIGKILL:
        assert node.wait(5.0) == 0


def is_node(pid: int, module: str, name: str) -> bool:
    """Whether a process is a program of this module, or was forked as the node of this name."""
    of = Path(f"/proc/{pid}")
    return module in (of / "cmdline").read_text() or (of / "comm").read_text().strip() == name


@pytest.mark.parametrize(
    "module",
    [
        pytest.param("nodes.device", marks=pytest.mark.slow),
        pytest.param("nodes.grid", marks=pytest.mark.slow),
        pytest.param("nodes.broker", marks=pytest.mark.slow),
        "nodes.env",
    ],
)
def test_a_crashed_node_ends_everything_and_is_named(module: str, endless: Path) -> None:
    with launched(endless) as process:
        pids = wait_for_steps(process)
        name = {"nodes.device": "mg_1.dg_1", "nodes.grid": "mg_1", "nodes.broker": "broker", "nodes.env": "env"}[module]
        victim = next(pid for pid in sorted(pids) if is_node(pid, module, name))
        os.kill(victim, signal.SIGKILL)
        assert process.wait(5.0) == 1
        assert wait_until(lambda: not any(map(is_alive, pids)), 1.0)
        assert process.stderr is not None
        assert f"node {name} killed by signal 9" in process.stderr.read()


@pytest.mark.slow
def test_an_agent_that_raises_ends_the_launch_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "moody_launch.py").write_text(PLUGIN)
    content = small_topology()
    content["grids"]["mg_1"]["devices"]["load_1"] = {
        "kind": "moody_launch:Moody", "bus": "646", "demand": "load_2", "p_mw": 0.2,
    }  # fmt: skip
    file = tmp_path / "moody.yaml"
    file.write_text(yaml.safe_dump(content))
    run = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), str(file)], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert "agent mg_1.load_1 failed at step 4: RuntimeError: out of sorts" in run.stderr
    assert "moody_launch.py" in run.stderr


@pytest.mark.slow
def test_launch_waits_for_an_external_device_and_tells_how_to_start_it(tmp_path: Path) -> None:
    content = small_topology()
    content["grids"]["mg_1"]["devices"]["ess_1"]["run"] = "external"
    file = tmp_path / "external.yaml"
    file.write_text(yaml.safe_dump(content))
    with launched(file, "--steps", "5") as process:
        assert process.stdout is not None
        told = process.stdout.readline()
        while "--connect" not in told:  # a long path may break the line
            told += process.stdout.readline()
        words = " ".join(told.split()).partition("start it with: ")[2].split()
        node = subprocess.Popen([sys.executable, *words[1:]], cwd=ROOT)
        try:
            assert process.wait(60.0) == 0
            assert node.wait(5.0) == 0
        finally:
            node.kill()
            node.wait()


@pytest.fixture
def external(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A topology that plays for hours, and its external device, started by hand before anything else."""
    content = small_topology()
    content["grids"]["mg_1"]["devices"]["ess_1"]["run"] = "external"
    content["broker"] = {"ports": list(free_ports())}
    content["episode_steps"] = 100_000
    file = tmp_path / "external.yaml"
    file.write_text(yaml.safe_dump(content))
    node = subprocess.Popen([sys.executable, "-m", "nodes.device", str(file), "mg_1.ess_1"], cwd=ROOT)
    yield file, node
    node.kill()
    node.wait()


@pytest.mark.slow
def test_an_external_device_whose_run_was_killed_joins_the_next(external: tuple[Path, subprocess.Popen[bytes]]) -> None:
    file, node = external
    with launched(file) as process:
        assert process.stdout is not None
        while "agents ready" not in process.stdout.readline():
            assert process.poll() is None
        pids = descendants(process.pid)
        process.kill()
        process.wait()
    assert wait_until(lambda: not any(map(is_alive, pids)), 5.0)
    with launched(file, "--steps", "3") as process:
        assert process.wait(40.0) == 0
    assert node.wait(5.0) == 0


def test_a_device_node_needs_no_data_file(tmp_path: Path) -> None:
    content = small_topology()
    content["profiles"]["file"] = "only_there.csv"
    content["broker"] = {"ready_timeout_s": 0.5, "ports": list(free_ports())}
    file = tmp_path / "there.yaml"
    file.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "nodes.device", str(file), "mg_1.ess_1"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 1
    assert "is it running there" in run.stderr


@pytest.mark.slow
def test_an_env_that_was_never_closed_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import sys, os, zgrid\n"
        "env = zgrid.parallel_env(sys.argv[1])\n"
        "env.reset(seed=0)\n"
        "print(*[p.popen.pid for p in env._execution._session.processes.values()], flush=True)\n"
        "if sys.argv[2] == 'hard':\n"
        "    os._exit(0)\n"
    )
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(small_topology()))
    for way in ("soft", "hard"):
        run = subprocess.run(
            [sys.executable, "-c", script, str(file), way],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        pids = list(map(int, run.stdout.split()))
        assert len(pids) == 5
        assert wait_until(lambda pids=pids: not any(map(is_alive, pids)), 5.0), way


def test_a_message_survives_its_own_inspection() -> None:
    """The frames that the tests above damage are good ones before."""
    state = Envelope("mg_1.pv_1", "run", 0, 0, 3, 0, 0, DeviceState(9.0, 0.0, 0.0, 0.0, (0.0,)))
    assert decode(encode(state)) == state
    assert np.isfinite(state.body.p_mw)  # type: ignore[union-attr]
