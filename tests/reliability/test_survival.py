"""What is declared for a failure happens: the run goes on with the right numbers, and tells what it did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, free_ports, small_topology, wait_until
from faults import DEVICE, alone, cable, pid_of, plain, rewards, session_of, with_device, with_policy, write_agents

import zgrid
from zgrid.agents import DeviceAgent
from zgrid.errors import AgentError, BrokerError, NodeDiedError, TopologyError
from zgrid.messages import ENV, DeviceState, Rearm, Setpoint
from zgrid.messaging import ZmqBroker
from zgrid.messaging.keys import create, for_node, revoke
from zgrid.session import Session
from zgrid.topology.nodes import node_plans
from zgrid.topology.traffic import CONTROL

pytestmark = pytest.mark.usefixtures("no_leftovers")
slow = pytest.mark.slow
DG = "mg_1.dg_1"
STEPS = 5
ZGRID = "import sys; from zgrid.cli import main; sys.exit(main(sys.argv[1:]))"
AT = 2


def declared(node: str, policy: Any, content: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a node's failure leads to."""
    content = content or plain()
    if node == "broker":
        content["broker"]["on_failure"] = policy
    else:
        grid, _, device = node.partition(".")
        holder = content["grids"][grid]["devices"][device] if device else content["grids"][grid]
        holder["on_failure"] = policy
    return content


def play(env: zgrid.NetworkedGridEnv, steps: int, events: list[str]) -> list[dict[str, float]]:
    """Rewards of some steps; what happened is added to ``events``."""
    got = []
    for _ in range(steps):
        _, reward, _, _, infos = env.step(dict.fromkeys(env.agents))
        got.append(reward)
        events += list(dict.fromkeys(event for info in infos.values() for event in info.get("events", ())))
    return got


@pytest.mark.parametrize(
    ("node", "sent"),
    [
        (DG, signal.SIGKILL),
        pytest.param("mg_1", signal.SIGKILL, marks=slow),
        pytest.param(DG, signal.SIGSTOP, marks=slow),
        pytest.param("mg_1", signal.SIGSTOP, marks=slow),
        ("broker", signal.SIGKILL),
        pytest.param("broker", signal.SIGSTOP, marks=slow),
    ],
)
def test_a_restart_changes_nothing_but_the_time(node: str, sent: signal.Signals) -> None:
    """A successor has heard all that its predecessor heard, and a proxy's step is said again."""
    content = declared(node, "restart", alone(plain(), "dg_1")) | {"policy": "random"}
    expected, events = rewards(content, STEPS), []
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        got = play(env, AT, events)
        assert events == []
        before = pid_of(env, node)
        os.kill(before, sent)
        got += play(env, STEPS - AT, events)
        assert pid_of(env, node) != before
    assert got == expected
    cause = "killed by signal 9" if sent == signal.SIGKILL else "its process is stopped (SIGSTOP)"
    told = "*: the proxy was gone and is back; the step was said again"
    assert events == [told if node == "broker" else f"{node}: restarted: {cause}"]


@slow
@pytest.mark.parametrize("node", [DG, "mg_1"])
@pytest.mark.parametrize("vertical", ["price_signal", "droop"])
def test_a_successor_remembers_what_was_talked_about(node: str, vertical: str) -> None:
    """A device's part in a vertical protocol is more than the state that it says: prices, and its own corrections."""
    content = declared(node, "restart", alone(plain(), "dg_1")) | {"policy": "random", "vertical": vertical}
    devices = content["grids"]["mg_1"]["devices"]
    devices["dg_2"] = {**devices["dg_1"], "cost_b": 80.0, "on_failure": "fail"}  # a price has to have a choice
    expected = rewards(content, STEPS)
    assert expected != rewards(content | {"vertical": "setpoint"}, STEPS)
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        got = play(env, AT, [])
        os.kill(pid_of(env, node), signal.SIGKILL)
        assert got + play(env, STEPS - AT, []) == expected


@pytest.mark.parametrize("vertical", [pytest.param("setpoint", marks=slow), "price_signal"])
def test_a_fallen_grid_has_its_devices_hold_and_go_safe_whatever_they_talk_about(vertical: str) -> None:
    content = declared("mg_1", {"kind": "fallback", "hold_steps": 1}) | {"policy": "random", "vertical": vertical}
    devices = content["grids"]["mg_1"]["devices"]
    devices["dg_1"] |= {"safe": {"p_mw": 0.2}}
    devices["dg_2"] = {**devices["dg_1"], "cost_b": 80.0, "safe": {"p_mw": 0.1}}
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        play(env, AT, [])
        os.kill(pid_of(env, "mg_1"), signal.SIGKILL)
        play(env, 3, [])
        row = env.snapshot()
    assert (row["mg_1.dg_1.p_mw"], row["mg_1.dg_2.p_mw"]) == (0.2, 0.1)


@slow
def test_a_restart_in_the_next_episode_knows_nothing_of_the_last() -> None:
    content = declared(DG, "restart")
    with closing(zgrid.parallel_env(content, centralized=True)) as env:
        env.reset(seed=3)
        play(env, 2, [])
        env.reset(seed=4)
        expected = play(env, 3, [])
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=3)
        play(env, 2, [])
        env.reset(seed=4)
        got = play(env, 1, [])
        os.kill(pid_of(env, DG), signal.SIGKILL)
        assert got + play(env, 2, []) == expected


@slow
def test_who_dies_too_often_ends_the_run() -> None:
    content = declared(DG, {"kind": "restart", "maximum": 1, "backoff_s": 0.0})
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        os.kill(pid_of(env, DG), signal.SIGKILL)
        play(env, 1, [])
        os.kill(pid_of(env, DG), signal.SIGKILL)
        with pytest.raises(NodeDiedError) as caught:
            play(env, 1, [])
        assert caught.value.node == DG


def test_a_device_falls_back_to_its_safe_setpoint() -> None:
    content = declared(DG, "fallback", alone(plain(2), "dg_1"))
    content["grids"]["mg_1"]["devices"]["dg_1"]["safe"] = {"p_mw": 0.123}
    for holder in (content["grids"]["mg_2"], *content["grids"]["mg_2"]["devices"].values()):
        holder["run"] = "inline"
    events: list[str] = []
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        play(env, 1, events)
        assert env.snapshot()["mg_1.dg_1.p_mw"] != 0.123
        os.kill(pid_of(env, DG), signal.SIGKILL)
        for _ in range(3):
            play(env, 1, events)
            assert env.snapshot()["mg_1.dg_1.p_mw"] == 0.123
            assert env.snapshot()["mg_1.dg_1.q_mvar"] == 0.0
            assert env.snapshot()["mg_2.dg_1.p_mw"] != 0.123
        env.reset(seed=1)
        play(env, 1, events)
        assert env.snapshot()["mg_1.dg_1.p_mw"] == 0.123
        assert env.stats()["refused"] == {}
    assert events == [f"{DG}: fallback (its safe setpoint): killed by signal 9"]


@slow
@pytest.mark.parametrize("hold_steps", [2, 0])
def test_the_devices_of_a_grid_hold_and_then_go_safe(hold_steps: int) -> None:
    content = declared("mg_1", {"kind": "fallback", "hold_steps": hold_steps})
    devices = content["grids"]["mg_1"]["devices"]
    devices["dg_1"]["safe"], devices["ess_1"]["safe"] = {"p_mw": 0.05}, {"p_mw": -0.01}
    events: list[str] = []
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        env.step({agent: 0.3 * (env.action_space(agent).sample() * 0.0 + 1.0) for agent in env.agents})
        held = env.snapshot()
        os.kill(pid_of(env, "mg_1"), signal.SIGKILL)
        for k in range(4):
            play(env, 1, events)
            now = env.snapshot()
            assert now["mg_1.dg_1.p_mw"] == (held["mg_1.dg_1.p_mw"] if k < hold_steps else 0.05)
            assert now["mg_1.dg_1.q_mvar"] == (held["mg_1.dg_1.q_mvar"] if k < hold_steps else 0.0)
            if k >= hold_steps:
                assert now["mg_1.ess_1.p_mw"] == -0.01
    told = "mg_1: fallback (its devices hold their setpoints, then go to the safe ones): killed by signal 9"
    assert events == [told]


@slow
@pytest.mark.parametrize("node", [DG, "mg_1"])
def test_who_comes_back_takes_over_again(node: str) -> None:
    """A node that was only paused rejoins between two steps, and what it says while it is replaced is refused."""
    content = declared(node, "fallback") | {"policy": "random", "episode_steps": 1000}
    events: list[str] = []
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        play(env, 1, events)
        os.kill(pid_of(env, node), signal.SIGSTOP)
        play(env, 2, events)
        assert len(events) == 1
        os.kill(pid_of(env, node), signal.SIGCONT)
        assert wait_until(lambda: bool(play(env, 1, events)) and len(events) == 2, 10.0)
        assert events[1] == f"{node}: rejoined"
        assert env._execution._guard.stand_ins == {}  # type: ignore[union-attr]
        play(env, 3, events)
        assert len(events) == 2


@slow
def test_after_a_device_rejoined_it_knows_its_state() -> None:
    """The battery's charge goes on from where the stand-in left it."""
    content = declared("mg_1.ess_1", "fallback") | {"episode_steps": 1000}
    content["grids"]["mg_1"]["devices"]["ess_1"]["safe"] = {"p_mw": 0.05}
    events: list[str] = []
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        play(env, 1, events)
        os.kill(pid_of(env, "mg_1.ess_1"), signal.SIGSTOP)
        play(env, 2, events)
        os.kill(pid_of(env, "mg_1.ess_1"), signal.SIGCONT)
        before = 0.0

        def rejoins() -> bool:
            nonlocal before
            before = env.snapshot()["mg_1.ess_1.soc"]
            play(env, 1, events)
            return len(events) == 2

        assert wait_until(rejoins, 10.0)
        after = env.snapshot()
        p_mw, efficiency = after["mg_1.ess_1.p_mw"], 0.95
        energy = -p_mw / efficiency if p_mw > 0 else -p_mw * efficiency
        assert after["mg_1.ess_1.soc"] == pytest.approx(before + energy / 1.0, abs=1e-12)


@slow
@pytest.mark.parametrize("elsewhere", [False, True], ids=["own processes", "those of launch.py"])
def test_a_process_that_hangs_is_ended_and_begun_anew(
    elsewhere: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    name = f"survival_hangs_{elsewhere}"
    write_agents(tmp_path, name, acts="hang", at=3)
    monkeypatch.syspath_prepend(str(tmp_path))
    content = declared(DEVICE, "restart", with_device(plain(), name)) | {"seed": 0}
    if elsewhere:
        file, out = tmp_path / "hangs.yaml", tmp_path / "out"
        file.write_text(yaml.safe_dump(content))
        subprocess.run(
            [sys.executable, str(ROOT / "launch.py"), str(file), "--steps", "5", "--out", str(out)],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        summary = json.loads((out / "summary.json").read_text())
        total, events = summary["grids"]["mg_1"]["return"], [one["event"] for one in summary["events"]]
    else:
        events = []
        with closing(zgrid.parallel_env(content)) as env:
            env.reset(seed=0)
            total = sum(reward["mg_1"] for reward in play(env, 5, events))
    assert events == [f"{DEVICE}: restarted: {SILENT}"]
    assert total == pytest.approx(sum(reward["mg_1"] for reward in rewards(content, 5)), abs=1e-12)


@slow
@pytest.mark.parametrize(
    ("acts", "told"),
    [("hang", "its process hangs"), ("kill", "killed by signal 9"), ("stop", "its process is stopped")],
)
def test_a_node_of_another_machine_that_hangs_or_dies_is_begun_anew_there(
    acts: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other machine is this one under another name: what the env did not start, it cannot end."""
    name = f"survival_joined_{acts}"
    write_agents(tmp_path, name, acts=acts, at=3)
    monkeypatch.syspath_prepend(str(tmp_path))
    content = declared(DEVICE, "restart", with_device(plain(), name)) | {"seed": 0}
    ports = list(free_ports())
    content["broker"] |= {"host": "0.0.0.0", "insecure": True, "ports": ports}
    content["grids"]["mg_1"]["devices"][DEVICE.partition(".")[2]]["host"] = "10.83.0.2"
    file, log, events = tmp_path / "joined.yaml", tmp_path / "log", list[str]()
    file.write_text(yaml.safe_dump(content))
    with closing(zgrid.parallel_env(str(file))) as env:
        way = ["--host", "10.83.0.2", "--connect", f"127.0.0.1:{ports[0]},{ports[1]}"]
        with log.open("wb") as out, subprocess.Popen(
            [sys.executable, "-c", ZGRID, "join", str(file), *way],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}, stdout=out, stderr=out,
        ) as joined:  # fmt: skip
            try:
                env.reset(seed=0)
                total = sum(reward["mg_1"] for reward in play(env, 5, events))
                env.close()
                assert joined.wait(10.0) == 0
            finally:
                joined.kill()
    assert f"{DEVICE} | {told}" in log.read_text()
    assert "it begins anew" in log.read_text()
    assert len(events) == 1
    assert events[0].startswith(f"{DEVICE}: restarted: ")
    assert total == pytest.approx(sum(reward["mg_1"] for reward in rewards(content, 5)), abs=1e-12)


# ---- agents that raise ---------------------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "survival_" + "".join(c if c.isalnum() else "_" for c in request.node.name)
    write_agents(tmp_path, name, acts="raise", at=3)
    return name


@pytest.mark.parametrize("broker", [pytest.param("zmq", marks=slow), "in_memory"])
@pytest.mark.parametrize("policy", ["restart", "fallback"])
@pytest.mark.parametrize("role", ["device", "grid"])
def test_an_agent_that_raises_once_is_survived(role: str, policy: str, broker: str, module: str) -> None:
    """Its fault counts its acts, so whoever is built anew is past it."""
    agent = {"device": "mg_1.load_1", "grid": "mg_1"}[role]
    content = declared(agent, policy, (with_device if role == "device" else with_policy)(plain(), module))
    events: list[str] = []
    with closing(zgrid.parallel_env(content, message_broker=broker)) as env:
        env.reset(seed=0)
        play(env, 5, events)
    how = {"restart": "restarted", "fallback": "fallback"}[policy]
    assert len(events) == 1
    assert events[0].startswith(f"{agent}: {how}")
    assert events[0].endswith("RuntimeError: out of sorts")


@slow
def test_an_agent_that_raises_always_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "always.py").write_text(
        "from zgrid.devices.load import Load\n"
        "class Always(Load):\n"
        "    def step(self, state, setpoint, series):\n"
        "        raise RuntimeError('again')\n"
    )
    content = plain()
    load = {"kind": "always:Always", "bus": "646", "demand": 1, "p_mw": 0.1}
    load["on_failure"] = {"kind": "restart", "maximum": 2}
    content["grids"]["mg_1"]["devices"]["load_1"] = load
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        with pytest.raises(AgentError, match="RuntimeError: again") as caught:
            play(env, 1, [])
        assert caught.value.agent == "mg_1.load_1"


# ---- several at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["restart", "fallback"])
def test_several_agents_that_raise_in_one_step_are_all_survived(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = plain()
    for device in content["grids"]["mg_1"]["devices"].values():
        device["on_failure"] = policy
    wanted: set[str] = set()
    apply = DeviceAgent.apply

    def raise_once(agent: DeviceAgent, setpoint: Setpoint) -> DeviceState:
        if agent.id in wanted:
            wanted.discard(agent.id)
            raise RuntimeError("once")
        return apply(agent, setpoint)

    monkeypatch.setattr(DeviceAgent, "apply", raise_once)
    events: list[str] = []
    with closing(zgrid.parallel_env(content, message_broker="in_memory")) as env:
        env.reset(seed=0)
        wanted |= {"mg_1.dg_1", "mg_1.pv_1", "mg_1.ess_1"}
        play(env, 2, events)
    assert sorted(event.partition(":")[0] for event in events) == ["mg_1.dg_1", "mg_1.ess_1", "mg_1.pv_1"]


@slow
def test_a_second_node_that_dies_while_the_first_is_waited_for_comes_back_too() -> None:
    content = declared(DG, {"kind": "restart", "backoff_s": 4.0})
    content = declared("mg_1.ess_1", {"kind": "restart", "backoff_s": 0.1}, content)
    content["broker"]["step_timeout_s"] = 10.0
    expected, events = rewards(content, 4), []
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        got = play(env, 1, events)
        os.kill(pid_of(env, DG), signal.SIGKILL)
        timer = threading.Timer(1.0, os.kill, (pid_of(env, "mg_1.ess_1"), signal.SIGKILL))
        timer.start()
        got += play(env, 3, events)
        timer.join()
    assert got == expected
    assert sorted(event.partition(":")[0] for event in events) == [DG, "mg_1.ess_1"]


@slow
def test_restart_and_fallback_mix_in_one_node() -> None:
    """The process begins anew for the one, and the others are stood in for until it is back."""
    content = declared("mg_1", "fallback") | {"placement": "grid", "episode_steps": 1000}
    for name in ("pv_1", "ess_1"):
        content = declared(f"mg_1.{name}", "fallback", content)
    content = declared(DG, "restart", content)
    events: list[str] = []
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        play(env, 1, events)
        os.kill(pid_of(env, "mg_1"), signal.SIGKILL)
        back = ["mg_1", "mg_1.ess_1", "mg_1.pv_1"]
        assert wait_until(
            lambda: bool(play(env, 1, events)) and sum(event.endswith("rejoined") for event in events) == 3, 15.0
        )
        assert sorted(event.partition(":")[0] for event in events if event.endswith("rejoined")) == back
        assert f"{DG}: restarted: killed by signal 9" in events
        play(env, 3, events)


@slow
def test_a_recovery_that_takes_longer_than_the_patience_of_a_step_is_none_of_its_time() -> None:
    content = declared(DG, {"kind": "restart", "backoff_s": 4.0})
    content["broker"]["step_timeout_s"] = 2.0
    expected, events = rewards(content, 3), []
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        got = play(env, 1, events)
        os.kill(pid_of(env, DG), signal.SIGKILL)
        assert got + play(env, 2, events) == expected


@slow
def test_a_node_that_answers_and_falls_silent_again_stalls_nothing() -> None:
    content = declared(DG, "fallback") | {"episode_steps": 1000}
    events: list[str] = []
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        play(env, 1, events)
        pid = pid_of(env, DG)
        os.kill(pid, signal.SIGSTOP)
        play(env, 2, events)
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: False, 0.3)  # it answers the roll calls that waited for it
        os.kill(pid, signal.SIGSTOP)
        begin = time.monotonic()
        play(env, 20, events)
        assert time.monotonic() - begin < 8.0
        os.kill(pid, signal.SIGCONT)
        assert wait_until(lambda: bool(play(env, 1, events)) and f"{DG}: rejoined" in events, 10.0)


@slow
def test_two_short_pauses_are_not_a_long_one() -> None:
    with closing(zgrid.parallel_env(plain() | {"episode_steps": 1000})) as env:
        env.reset(seed=0)
        for _ in range(3):
            os.kill(pid_of(env, DG), signal.SIGSTOP)
            timer = threading.Timer(0.6, os.kill, (pid_of(env, DG), signal.SIGCONT))
            timer.start()
            play(env, 1, [])
            timer.join()
            wait_until(lambda: False, 0.9)


@slow
def test_a_key_that_is_revoked_ends_no_run_of_others(tmp_path: Path) -> None:
    content = plain() | {"episode_steps": 1000}
    keys = tmp_path / "keys"
    create(keys, ["broker", "env", "watch", *node_plans(zgrid.load(content))])
    with closing(zgrid.parallel_env(content, **{"broker.keys": str(keys)})) as env:
        env.reset(seed=0)
        address = session_of(env).address
        assert address is not None
        with closing(ZmqBroker(address, "run", for_node(keys, "watch"))) as watcher:
            watcher.subscribe("beat/env/")
            watcher.prove(10.0)
            revoke(keys, "watch")
            wait_until(lambda: False, 2.0)
            pid = pid_of(env, DG)
            os.kill(pid, signal.SIGSTOP)  # so that the env looks around while it waits
            timer = threading.Timer(0.6, os.kill, (pid, signal.SIGCONT))
            timer.start()
            play(env, 3, [])
            timer.join()


# ---- the watchdog --------------------------------------------------------------------------------------------------


def test_a_device_that_hears_nothing_of_its_grid_goes_safe_by_itself_and_latches(tmp_path: Path) -> None:
    content = declared("mg_1.dg_1", "fallback", alone(plain(), "dg_1")) | {"episode_steps": 1000}
    content["grids"]["mg_1"]["devices"]["dg_1"] |= {"run": "external", "watchdog_s": 1.0, "safe": {"p_mw": 0.11}}
    file = tmp_path / "watchdog.yaml"
    file.write_text(yaml.safe_dump(content))
    topology = zgrid.load(str(file))
    session = Session(topology)
    log = (tmp_path / "device.log").open("w+")
    events: list[str] = []
    try:
        address = session.start_proxy()
        with cable(address) as line:
            command = [sys.executable, "-m", "nodes.device", str(file), DG, "--connect", str(line.address)]
            device = subprocess.Popen(command, cwd=ROOT, stderr=log)
            try:
                session.start_agents(address)
                with closing(zgrid.NetworkedGridEnv(topology, connect=address)) as env:
                    env.reset(seed=0)
                    play(env, 2, events)
                    line.cut()
                    tripped = f"{DG}: watchdog: nothing was heard of mg_1 for 1 s"
                    assert wait_until(lambda: tripped in (tmp_path / "device.log").read_text(), 5.0)
                    play(env, 1, events)
                    assert events == [f"{DG}: fallback (its safe setpoint): {SILENT}"]
                    assert env.snapshot()["mg_1.dg_1.p_mw"] == 0.11
                    line.mend()
                    assert wait_until(lambda: bool(play(env, 1, events)) and f"{DG}: rejoined" in events, 10.0)
                    assert f"{DG}: watchdog: nothing was heard of mg_1 for 1 s" in events
                    play(env, 1, events)
                    assert env.snapshot()["mg_1.dg_1.p_mw"] != 0.11
                assert device.wait(5.0) == 0
            finally:
                device.kill()
                device.wait()
    finally:
        session.stop()
        log.close()


SILENT = "nothing was heard of it for 1.5 s: it is stopped, hangs, or is cut off"


@slow
def test_a_latched_device_stays_safe_until_it_is_rearmed() -> None:
    """Its grid was only paused: it speaks again, and the device keeps to what is safe until somebody says otherwise."""
    content = plain() | {"episode_steps": 1000}
    content["broker"]["silence_s"] = 5.0
    content["grids"]["mg_1"]["devices"]["dg_1"] |= {"watchdog_s": 1.0, "safe": {"p_mw": 0.11}}
    events: list[str] = []
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=0)
        play(env, 1, events)
        before = env.snapshot()["mg_1.dg_1.p_mw"]
        grid = pid_of(env, "mg_1")
        process = session_of(env).processes[DG]
        os.kill(grid, signal.SIGSTOP)
        assert wait_until(lambda: "watchdog" in process.tail(), 5.0)
        os.kill(grid, signal.SIGCONT)
        play(env, 3, events)
        assert env.snapshot()["mg_1.dg_1.p_mw"] == 0.11
        assert events == [f"{DG}: watchdog: nothing was heard of mg_1 for 1 s"]
        env._execution._host.send(ENV, CONTROL, 0, 0, Rearm(DG))  # type: ignore[union-attr]
        play(env, 1, events)
        assert env.snapshot()["mg_1.dg_1.p_mw"] != 0.11 or before == 0.11


# ---- what cannot be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "path"),
    [
        ("broker.on_failure", "fallback", "broker.on_failure"),
        ("grids.mg_1.devices.dg_1.safe", {"power": 1.0}, "grids.mg_1.devices.dg_1.safe.power"),
        ("grids.mg_1.on_failure", "retry", "grids.mg_1.on_failure.kind"),
        ("grids.mg_1.on_failure", {"kind": "restart", "maximum": 0}, "grids.mg_1.on_failure.maximum"),
        ("placement", {"pool": 0}, "placement"),
        ("placement", "node", "placement"),
    ],
)
def test_what_cannot_be_is_a_finding(key: str, value: Any, path: str) -> None:
    with pytest.raises(TopologyError) as caught:
        zgrid.load(small_topology(), {key: value})
    assert any(finding.path.startswith(path) for finding in caught.value.findings), caught.value


@slow
def test_without_a_restart_a_proxy_that_is_gone_says_what_would_have_helped() -> None:
    topology = zgrid.load(plain())
    session = Session(topology)
    try:
        address = session.start_proxy()
        session.start_agents(address)
        with closing(zgrid.NetworkedGridEnv(topology, connect=address)) as env:
            env.reset(seed=0)
            os.kill(session.processes["broker"].popen.pid, signal.SIGKILL)
            with pytest.raises(BrokerError, match=r"broker\.on_failure: restart"):
                play(env, 1, [])
    finally:
        session.stop()
