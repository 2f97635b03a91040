"""Agents hear through their links, whether they are called or messaged; what is rewarded is the truth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from conftest import small_topology

import zgrid
from zgrid.agents import DeviceAgent, GridAgent
from zgrid.messages import Setpoint
from zgrid.topology import load

MODES: dict[str, dict[str, Any]] = {
    "centralized": {"centralized": True},
    "in_memory": {"centralized": False, "message_broker": "in_memory"},
    "zmq": {"centralized": False, "message_broker": "zmq"},
}
EVERY = {"loss": 0.2, "delay": {"kind": "exponential", "mean": 0.7}, "duplicate": 0.1}
RULES: list[dict[str, Any]] = [
    {"kind": "peer", **EVERY},
    {"kind": "setpoint", "gilbert_elliott": {"p_gb": 0.2, "p_bg": 0.4}, "receiver": "drop", "max_age": 2},
    {"kind": "state", **EVERY},
    {"kind": "network", **EVERY, "false_data": {"bias": 0.01, "entries": [0]}},
    {"kind": "action", "destination": "mg_1", "loss": 0.3},
]
pytestmark = pytest.mark.usefixtures("no_leftovers")


def content(*rules: dict[str, Any], grids: int = 3, **more: Any) -> dict[str, Any]:
    horizontal = {"kind": "average_consensus", "rounds": 6} if grids > 1 else None
    topology = small_topology(grids) | {"links": list(rules), "horizontal": horizontal, "policy": "random"} | more
    for k, grid in enumerate(topology["grids"].values()):
        grid["network"]["load_scale"] = 0.4 + 0.1 * k  # or they would agree before they talk
    return topology


def fewer(topology: dict[str, Any]) -> dict[str, Any]:
    """Three grids with one, two and three devices, to be processes all but the last grid."""
    for grid, device in (("mg_2", "pv_1"), ("mg_3", "pv_1"), ("mg_3", "ess_1")):
        topology["grids"][grid]["devices"].pop(device)
    for holder in (topology["grids"]["mg_3"], topology["grids"]["mg_3"]["devices"]["dg_1"]):
        holder["run"] = "inline"
    return topology


def episode(topology: dict[str, Any], steps: int, actions: bool = False, **overrides: Any) -> list[Any]:
    """Rewards, observations and infos, step by step; every action is 1 where there are some."""
    with closing(zgrid.parallel_env(topology, **overrides)) as env:
        return play(env, steps, actions)


def play(env: zgrid.NetworkedGridEnv, steps: int, actions: bool) -> list[Any]:
    told = []
    env.reset(seed=5)
    for _ in range(steps):
        acted = {name: np.ones(env.action_space(name).shape, np.float32) if actions else None for name in env.agents}
        observations, rewards, _, _, infos = env.step(acted)
        told.append(({name: seen.tobytes() for name, seen in observations.items()}, rewards, infos))
    return told


@pytest.fixture(scope="module")
def messaged() -> Iterator[zgrid.NetworkedGridEnv]:
    """Every agent a process; each test resets it."""
    with closing(zgrid.parallel_env(fewer(content(*RULES)), **MODES["zmq"])) as env:
        env.reset(seed=0)  # its processes are there before a test looks for those that it leaves
        yield env


@pytest.mark.parametrize("actions", [False, True], ids=["policy", "actions"])
def test_all_modes_give_the_same_bytes_under_faults(actions: bool, messaged: zgrid.NetworkedGridEnv) -> None:
    called = episode(fewer(content(*RULES)), 12, actions, **MODES["centralized"])
    assert episode(fewer(content(*RULES)), 12, actions, **MODES["in_memory"]) == called
    assert play(messaged, 12, actions) == called
    assert episode(fewer(content()), 12, actions, centralized=True) != called


@pytest.mark.parametrize("placement", ["grid", pytest.param({"pool": 2}, marks=pytest.mark.slow)], ids=str)
def test_one_process_or_many_give_the_same_bytes_under_faults(placement: Any) -> None:
    assert episode(content(*RULES), 6, placement=placement) == episode(content(*RULES), 6, centralized=True)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["kind"]))
def test_each_kind_of_message_has_its_faults(rule: dict[str, Any]) -> None:
    harsh = {"kind": rule["kind"], "denial": True}
    clean, hit = (episode(content(*rules), 4, True, centralized=True) for rules in ((), (harsh,)))
    assert clean != hit


def test_devices_talk_with_their_grid_through_links_too() -> None:
    priced = content(grids=1, vertical="price_signal")
    devices = priced["grids"]["mg_1"]["devices"]
    devices["dg_2"] = {**devices["dg_1"], "cost_b": 80.0}
    hit = priced | {"links": [{"kind": "peer", "loss": 0.3, "delay": {"kind": "uniform", "low": 0, "high": 2}}]}
    runs = [episode(hit, 3, **overrides) for overrides in (MODES["centralized"], MODES["in_memory"])]
    assert runs[0] == runs[1]
    agent = DeviceAgent(load(hit).device_specs[0])
    assert agent.ears is not None
    assert agent.ears.link("peer", "mg_1") is not None


def test_a_device_holds_its_setpoint_and_then_is_safe() -> None:
    rule = {"kind": "setpoint", "outages": [[1, 1], [3, 9]], "receiver": "drop", "max_age": 2}
    spec = load(content(rule, grids=1), {"grids.mg_1.devices.dg_1.safe": {"p_mw": 0.05}}).device_specs[0]
    agent = DeviceAgent(spec)
    agent.reset(0)
    p_mw = [agent.apply(Setpoint((0.1 * k, 0.0), ())).p_mw for k in range(1, 7)]
    assert p_mw == [0.05, 0.2, 0.2, 0.2, 0.05, 0.05]


def test_a_latched_device_goes_on_hearing() -> None:
    rule = {"kind": "setpoint", "delay": {"kind": "constant", "value": 1}}
    agent = DeviceAgent(load(content(rule, grids=1)).device_specs[0])
    agent.reset(0)
    agent.trip()
    agent.apply(Setpoint((0.1, 0.0), ()))
    agent.rearm()
    assert agent.apply(Setpoint((0.2, 0.0), ())).p_mw == 0.1


def test_a_lie_about_the_network_changes_what_is_seen_and_not_what_is_rewarded() -> None:
    rule = {"kind": "network", "false_data": {"bias": 1.0, "entries": [0]}}
    truth, lie = (episode(content(*rules, grids=1, policy="idle"), 3, centralized=True) for rules in ((), (rule,)))
    for (seen, rewards, infos), (seen_lie, rewards_lie, infos_lie) in zip(truth, lie, strict=True):
        assert rewards == rewards_lie
        assert infos == infos_lie
        before, after = (np.frombuffer(one["mg_1"], np.float32).astype(float) for one in (seen, seen_lie))
        changed = np.flatnonzero(before != after)
        assert changed.size == 1
        assert after[changed[0]] - before[changed[0]] == pytest.approx(1.0, abs=1e-6)


def test_without_rules_agents_have_no_ears() -> None:
    topology = load(content())
    assert all(GridAgent(spec).ears is None for spec in topology.grid_specs)
    assert all(DeviceAgent(spec).ears is None for spec in topology.device_specs)


def test_copies_refuse_faults() -> None:
    with pytest.raises(zgrid.TopologyError, match="links: copies send nothing"):
        zgrid.vector_env(content({"kind": "state", "loss": 0.1}, grids=1), 2)
