"""Two machines with a cable between them, and what happens when it is pulled: real addresses and real loss."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, small_topology, wait_until
from namespaces import Machine, Process, two_machines

import zgrid
from zgrid.messaging.keys import PROXY, create
from zgrid.play import Plan, play
from zgrid.topology import load
from zgrid.topology.nodes import node_plans
from zgrid.topology.traffic import rights
from zgrid.view import JsonView

pytestmark = pytest.mark.usefixtures("no_leftovers")
A, B = "10.83.0.1", "10.83.0.2"
PORTS = (5555, 5556)
CONNECT = f"{A}:5555,5556"
START_S = 60.0
NOTICED_S = 2.0
WATCHDOG_S = 1.2

PLAYER = """
import json, time, numpy, zgrid
from zgrid.errors import NodeSilentError
env = zgrid.parallel_env("grid.yaml")
try:
    env.reset(seed=0)
    print("playing", flush=True)
    after = 0
    while after < 20:
        _, _, _, _, infos = env.step({agent: numpy.ones(env.action_space(agent).shape) for agent in env.agents})
        events = [event for info in infos.values() for event in info.get("events", ())]
        if events or after == 19:
            print(json.dumps([time.monotonic(), env.snapshot()["mg_1.dg_1.p_mw"], events]), flush=True)
        after += any("rejoined" in event for event in events) or after > 0
except NodeSilentError as error:
    print(json.dumps([time.monotonic(), error.node, str(error)]), flush=True)
finally:
    env.close()
"""


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Machine A, for proxy and env, and machine B."""
    with two_machines(tmp_path) as both:
        yield both


def write(content: dict[str, Any], *machines: Machine) -> dict[str, Any]:
    """The same file on all machines, with the folder of keys where there is one."""
    for machine in machines:
        (machine.folder / "grid.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return content


def write_keys(content: dict[str, Any], a: Machine, b: Machine) -> None:
    """Every key on A, except the secrets of B's nodes, which are there."""
    topology = load(content, checked=False)
    granted = rights(topology)
    create(a.folder / "keys", [PROXY, *granted.publish, *granted.watchers])
    for part in ("public", "secret"):
        (b.folder / "keys" / part).mkdir(parents=True)
    shutil.copy(a.folder / "keys" / "public" / "broker.key", b.folder / "keys" / "public")
    for node, plan in node_plans(topology).items():
        if plan.host == B:
            shutil.move(a.folder / "keys" / "secret" / f"{node}.key_secret", b.folder / "keys" / "secret")


def on_b(content: dict[str, Any], device: str, **settings: Any) -> dict[str, Any]:
    """Put a device of mg_1 on machine B."""
    content["grids"]["mg_1"]["devices"][device] |= {"host": B, **settings}
    return content


def launched(a: Machine, *arguments: str) -> Process:
    return a.start(str(ROOT / "launch.py"), "grid.yaml", *arguments)


def digest(content: dict[str, Any], steps: int) -> str:
    """Of the same run in one process."""
    plain = {key: value for key, value in content.items() if key != "broker"}
    with closing(zgrid.parallel_env(plain, centralized=True)) as env:
        found: str = play(env, Plan(steps=steps), JsonView(io.StringIO()))["digest"]
    return found


# ---- together ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["agent", "grid"])
def test_two_machines_with_keys_give_the_bytes_of_one(placement: str, machines: tuple[Machine, Machine]) -> None:
    """B types what A tells: a device of one grid, and another grid with its devices, over an encrypted link."""
    a, b = machines
    content = on_b(small_topology(2), "ess_1") | {"placement": placement, "broker": {"host": "0.0.0.0", "keys": "keys"}}
    mg_2 = content["grids"]["mg_2"]
    mg_2["host"] = B
    for device in mg_2["devices"].values() if placement == "agent" else ():
        device["host"] = B
    write(content, a, b)
    write_keys(content, a, b)
    run = launched(a, "--steps", "30", "--out", "out")
    assert run.says(f"on {B} type: ", START_S), run.said
    told = shlex.split(run.said.partition(f"on {B} type: ")[2].partition("\n")[0])
    assert told[:3] == ["zgrid", "join", "grid.yaml"]
    assert re.fullmatch(rf"{A}:\d+,\d+", told[told.index("--connect") + 1])
    joined = b.zgrid(*told[1:])
    assert run.popen.wait(START_S) == 0, run.said
    assert joined.popen.wait(5.0) == 0, joined.said
    nodes = ["mg_1.ess_1", *([] if placement == "grid" else [f"mg_2.{name}" for name in mg_2["devices"]]), "mg_2"]
    assert [line.split(" | ")[0] for line in joined.said.splitlines() if "pid" in line] == nodes
    assert joined.said.count("the run is over") == len(nodes)
    summary = json.loads((a.folder / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["digest"] == digest(content, 30)


def trips(joined: Process, since: datetime) -> list[float]:
    """When the watchdog of a joined node has tripped, seconds after ``since``."""
    stamps = re.findall(r"\| (\S+ \S+) WARNING zgrid.node: mg_1.dg_1: watchdog", joined.said)
    after = [(datetime.fromisoformat(stamp.replace(",", ".")) - since).total_seconds() for stamp in stamps]
    return [seconds for seconds in after if seconds > 0.0]


def is_connected(process: Process) -> bool:
    """Whether a process's machine holds a TCP connection over the cable."""
    rows = [row.split() for row in Path(f"/proc/{process.popen.pid}/net/tcp").read_text(encoding="utf-8").splitlines()]
    ends = {b"".join(bytes([int(part)]) for part in reversed(host.split("."))).hex().upper() for host in (A, B)}
    return any({row[1][:8], row[2][:8]} == ends and row[3] == "01" for row in rows[1:])


# ---- the link goes down --------------------------------------------------------------------------------------------


def player(a: Machine, b: Machine, content: dict[str, Any]) -> tuple[Process, Process]:
    """An env on A that plays with full actions, and B, which has joined."""
    content |= {"episode_steps": 100_000, "broker": {"host": "0.0.0.0", "ports": list(PORTS), "keys": "keys"}}
    write(content, a, b)
    write_keys(content, a, b)
    run, joined = a.start("-c", PLAYER), b.zgrid("join", "grid.yaml", "--connect", CONNECT, "--keys", "keys")
    assert run.says("playing", START_S), (run.said, joined.said)
    return run, joined


def lines(process: Process) -> list[list[Any]]:
    """What the player has told."""
    return [json.loads(line) for line in process.said.splitlines() if line.startswith("[")]


@pytest.mark.slow
@pytest.mark.parametrize("side", ["a", "b"])
def test_a_link_that_goes_down_ends_the_run_within_two_seconds(side: str, machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    run, joined = player(a, b, on_b(small_topology(), "dg_1", watchdog_s=WATCHDOG_S))
    cut_at, cut = time.monotonic(), datetime.now()
    (a if side == "a" else b).cable("down")
    assert run.popen.wait(10.0) == 0, run.said
    ((noticed_at, node, text),) = lines(run)
    assert node == "mg_1.dg_1"
    assert "cut off" in text
    print(f"noticed after {noticed_at - cut_at:.2f} s")
    assert noticed_at - cut_at < NOTICED_S
    assert len(trips(joined, cut)) == 1, joined.said


@pytest.mark.slow
@pytest.mark.parametrize("side", ["a", "b"])
def test_a_node_behind_a_link_that_was_down_rejoins(side: str, machines: tuple[Machine, Machine]) -> None:
    """The env stands in for it, its own watchdog makes it safe, and when it is back both take that back."""
    a, b = machines
    machine = a if side == "a" else b
    settings = {"on_failure": "fallback", "watchdog_s": WATCHDOG_S}
    run, joined = player(a, b, on_b(small_topology(), "dg_1", **settings))
    cut_at, cut = time.monotonic(), datetime.now()
    machine.cable("down")
    assert wait_until(lambda: bool(trips(joined, cut)), WATCHDOG_S + 1.0), joined.said
    assert wait_until(lambda: "fallback (its safe setpoint)" in str(lines(run)), 5.0), run.said
    fallback_at, p_mw, events = lines(run)[-1]
    assert p_mw == 0.0
    assert any("mg_1.dg_1: fallback" in event for event in events)
    assert fallback_at - cut_at < NOTICED_S
    assert wait_until(lambda: not (is_connected(run) or is_connected(joined)), 10.0), "nothing was lost for good"
    assert "rejoined" not in run.said
    up_at = time.monotonic()
    machine.cable("up")
    assert wait_until(lambda: "rejoined" in str(lines(run)), 15.0), (run.said, joined.said)
    (back_at,) = [at for at, _, events in lines(run) if any("mg_1.dg_1: rejoined" in event for event in events)]
    print(
        f"fallback after {fallback_at - cut_at:.2f} s, watchdog after {trips(joined, cut)[0]:.2f} s, "
        f"rejoined after {back_at - up_at:.2f} s"
    )
    assert run.popen.wait(30.0) == 0, run.said
    assert lines(run)[-1][1] == 0.6, "it acts again: full power, as it is told"
    assert joined.popen.wait(5.0) == 0, joined.said
    assert "begins anew, as incarnation 2" in joined.said
    assert len(trips(joined, cut)) == 1, "it was tripped once, and is rearmed"


# ---- who may ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has", ["no keys", pytest.param("keys of its own", marks=pytest.mark.slow)])
def test_a_stranger_is_refused_and_both_sides_say_so(has: str, machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    content = on_b(small_topology(), "ess_1")
    content["broker"] = {"host": A, "ports": list(PORTS), "ready_timeout_s": 20.0}
    write(content | {"broker": content["broker"] | {"keys": "keys"}}, a)
    write(content, b)
    write_keys(content, a, b)
    if has != "no keys":
        (b.folder / "keys" / "secret" / "mg_1.ess_1.key_secret").unlink()
        create(b.folder / "keys", ["mg_1.ess_1"])
    proxy = a.start("-m", "nodes.broker", "grid.yaml")
    assert proxy.says("listening", START_S), proxy.said
    joined = b.zgrid("join", "grid.yaml", *([] if has == "no keys" else ["--keys", "keys"]))
    assert joined.popen.wait(START_S) == 1, joined.said
    assert f"cannot connect to the proxy at {CONNECT}" in joined.said
    who = B if has != "no keys" else ""  # a node that left at once has no address any more
    assert proxy.says(f"refused a connection from {who}", 2.0), proxy.said
    assert proxy.popen.poll() is None


def test_without_keys_no_proxy_listens_to_another_machine(machines: tuple[Machine, Machine]) -> None:
    a, _ = machines
    write(small_topology() | {"broker": {"host": A}}, a)
    for process in (launched(a), a.start("-m", "nodes.broker", "grid.yaml")):
        assert process.popen.wait(START_S) == 2, process.said
        assert f"broker.host: {A} is no loopback address" in process.said
        assert "insecure: true" in process.said


def test_a_proxy_on_loopback_cannot_be_reached_from_elsewhere_and_validation_says_what_to_set(
    machines: tuple[Machine, Machine],
) -> None:
    a, _ = machines
    write(on_b(small_topology(), "ess_1"), a)
    process = a.zgrid("validate", "grid.yaml")
    assert process.popen.wait(START_S) == 2
    assert f"broker.host: mg_1.ess_1 runs on {B} and cannot reach 127.0.0.1" in process.said
    assert f"set broker.host to an address of this machine, as {A}" in process.said
