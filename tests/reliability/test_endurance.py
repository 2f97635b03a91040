"""Started in any order, stopped at any time, run for long: nothing is lost, nothing grows, nothing is left."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, small_topology
from faults import rewards, session_of

import zgrid
from zgrid.session import Session
from zgrid.topology.nodes import node_plans

pytestmark = pytest.mark.usefixtures("no_leftovers")


def start_all(
    file: Path, address: str, delays: list[tuple[float, str]], started: list[subprocess.Popen[bytes]]
) -> None:
    """Start nodes, each after its own delay in seconds."""
    begin = time.monotonic()
    for delay, node in delays:
        time.sleep(max(0.0, begin + delay - time.monotonic()))
        kind = "device" if "." in node else "grid"
        command = [sys.executable, "-m", f"nodes.{kind}", str(file), node, "--connect", address]
        started.append(subprocess.Popen(command, cwd=ROOT))


@pytest.mark.parametrize(
    "cycles",
    [
        pytest.param(1, marks=pytest.mark.slow),
        pytest.param(30, marks=[pytest.mark.endurance, pytest.mark.timeout(900)]),
    ],
)
def test_start_and_stop_with_nodes_in_any_order_and_delay(cycles: int, tmp_path: Path) -> None:
    """Each node starts up to 3 s late, in random order; no message is lost, refused or left over."""
    rng = np.random.default_rng(cycles)
    content = small_topology()
    expected = rewards(content, 3)
    for holder in (content["grids"]["mg_1"], *content["grids"]["mg_1"]["devices"].values()):
        holder["run"] = "external"
    file = tmp_path / "any_order.yaml"
    file.write_text(yaml.safe_dump(content))
    topology = zgrid.load(str(file))
    for _ in range(cycles):
        session = Session(topology)
        started: list[subprocess.Popen[bytes]] = []
        try:
            address = session.start_proxy()
            delays = sorted(zip(rng.uniform(0.0, 3.0, 4), rng.permutation(list(node_plans(topology))), strict=True))

            starter = threading.Thread(target=start_all, args=(file, str(address), delays, started))
            starter.start()
            with closing(zgrid.NetworkedGridEnv(topology, connect=address)) as env:
                env.reset(seed=0)
                starter.join()
                assert [env.step(dict.fromkeys(env.agents))[1] for _ in range(3)] == expected
                assert env.stats()["refused"] == {}
            assert [process.wait(5.0) for process in started] == [0] * 4
        finally:
            for process in started:
                process.kill()
                process.wait()
            session.stop()


def resident_kb(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"no resident memory of {pid}")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "steps", [pytest.param(2_000, marks=pytest.mark.slow), pytest.param(20_000, marks=pytest.mark.endurance)]
)
def test_many_steps_lose_nothing_and_grow_nothing(steps: int) -> None:
    """13 processes and a proxy: no gap, no refusal, and after a fifth of the steps no process grows by 5 % any more."""
    overrides = {"episode_steps": 1000, "profiles.split": "all"}
    with closing(zgrid.parallel_env(str(ROOT / "topologies" / "3mg.yaml"), **overrides)) as env:
        env.reset(seed=0)
        processes = {name: process.popen.pid for name, process in session_of(env).processes.items()}
        before: dict[str, int] = {}
        for k in range(steps):
            if not env.agents:
                env.reset()
            env.step(dict.fromkeys(env.agents))
            if k == steps // 5:
                before = {name: resident_kb(pid) for name, pid in processes.items()}
        after = {name: resident_kb(pid) for name, pid in processes.items()}
        assert env.stats()["refused"] == {}
    assert len(processes) == 13  # with the proxy; the env is this process
    assert {name: (before[name], kb) for name, kb in after.items() if kb > 1.05 * before[name]} == {}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_microgrids_in_two_workers() -> None:
    """400 agents in two processes give the bytes of the centralized run."""
    from zgrid.topology.generated import generate

    content = generate(100, 0)
    content["episode_steps"] = 3
    expected = rewards(content, 3)
    overrides = {"centralized": False, "message_broker": "zmq", "placement": {"pool": 2}}
    with closing(zgrid.parallel_env(content, **overrides)) as env:
        env.reset(seed=0)
        assert set(session_of(env).processes) == {"broker", "pool_1", "pool_2"}
        assert [env.step(dict.fromkeys(env.agents))[1] for _ in range(3)] == expected
        stats = env.stats()
    assert stats["messages"]["setpoint"] == 900
    assert stats["messages"]["batch"] == 2 * 2 * 4 + 2 * 2 * 4  # to and from each worker, twice in each of 4 steps
    assert stats["refused"] == {}
