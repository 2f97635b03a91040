"""One topology, three executions: the same bytes whether agents are called, messaged, or processes elsewhere."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT, free_ports, small_topology

import zgrid

MODES: dict[str, dict[str, Any]] = {
    "centralized": {"centralized": True},
    "in_memory": {"centralized": False, "message_broker": "in_memory"},
    "zmq": {"centralized": False, "message_broker": "zmq"},
}
pytestmark = pytest.mark.usefixtures("no_leftovers")
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def three() -> Iterator[zgrid.NetworkedGridEnv]:
    """The three microgrids that ship, every agent a process; each test resets it."""
    with closing(zgrid.parallel_env(str(ROOT / "topologies" / "3mg.yaml"), **MODES["zmq"])) as env:
        env.reset(seed=0)  # its processes are there before a test looks for those that it leaves
        yield env


def trace(env: zgrid.NetworkedGridEnv, steps: int, seed: int, actions: str) -> tuple[str, list[Any]]:
    """Play; the digest over observations, rewards and terminations, and the raw arrays behind it."""
    rng = np.random.default_rng(seed)
    digest, arrays = hashlib.sha256(), []
    observations, _ = env.reset(seed=seed)
    for _ in range(steps):
        if not env.agents:
            observations, _ = env.reset()
        chosen = {
            agent: None if actions == "policy" else rng.uniform(-1.2, 1.2, env.action_space(agent).shape)
            for agent in env.agents
        }
        observations, rewards, terminations, _, infos = env.step(chosen)
        for agent, observation in observations.items():
            digest.update(observation.tobytes() + struct.pack("<d?", rewards[agent], terminations[agent]))
        arrays.append((observations, rewards, infos, env.state()))
    return digest.hexdigest(), arrays


def play(content: Any, steps: int, seed: int, actions: str, **overrides: Any) -> tuple[str, list[Any]]:
    with closing(zgrid.parallel_env(content, **overrides)) as env:
        return trace(env, steps, seed, actions)


def assert_equal(first: list[Any], second: list[Any]) -> None:
    for (obs_a, rewards_a, infos_a, state_a), (obs_b, rewards_b, infos_b, state_b) in zip(first, second, strict=True):
        assert rewards_a == rewards_b
        assert infos_a == infos_b
        np.testing.assert_array_equal(state_a, state_b)
        for agent in obs_a:
            np.testing.assert_array_equal(obs_a[agent], obs_b[agent])


def consensus(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "horizontal": {"kind": "average_consensus", "value": "p_pcc_mw", "rounds": 3}}


def committed(content: dict[str, Any]) -> dict[str, Any]:
    generator = content["grids"]["mg_1"]["devices"]["dg_1"]
    generator |= {"commitment": True, "start_time_h": 1.0, "start_cost": 10.0, "ramp_mw_per_h": 0.4}
    content["grids"]["mg_1"]["devices"]["load_1"] = {"kind": "load", "bus": "646", "demand": "load_2", "p_mw": 0.2}
    return content


CASES = {
    "1 grid, policy": (small_topology(1), "policy", 0),
    "1 grid, actions, quarter hours": ({**committed(small_topology(1)), "dt_h": 0.25}, "actions", 1),
    "2 grids, actions": (small_topology(2), "actions", 2),
    "3 grids, consensus, random policy": ({**consensus(small_topology(3)), "policy": "random"}, "policy", 3),
}


@slow
@pytest.mark.parametrize("case", CASES)
def test_all_modes_give_the_same_bytes(case: str) -> None:
    content, actions, seed = CASES[case]
    digests = {}
    for mode, overrides in MODES.items():
        digests[mode], arrays = play(content, 96, seed, actions, **overrides)
        if mode == "centralized":
            reference = arrays
        else:
            assert_equal(reference, arrays)
    assert len(set(digests.values())) == 1, digests


@slow
@pytest.mark.parametrize("file", ["3mg.yaml", "1mg.yaml", "3mg_reference.yaml"])
@pytest.mark.parametrize("policy", ["rule_based", "random", "idle"])
def test_shipped_topologies_give_the_same_bytes_in_all_modes(file: str, policy: str) -> None:
    path = str(ROOT / "topologies" / file)
    digests = {mode: play(path, 96, 11, "policy", policy=policy, **overrides)[0] for mode, overrides in MODES.items()}
    assert len(set(digests.values())) == 1, digests


@pytest.mark.parametrize(
    ("file", "actions", "steps"),
    [
        pytest.param("1mg", "policy", 96, marks=slow),
        pytest.param("3mg_reference", "actions", 96, marks=slow),
        pytest.param("3mg_consensus", "policy", 16, marks=slow),
        pytest.param("3mg_price", "actions", 16, marks=slow),
        pytest.param("3mg_p2p", "policy", 16, marks=slow),
    ],
)
def test_a_shipped_topology_gives_the_same_bytes_in_all_modes(file: str, actions: str, steps: int) -> None:
    path = str(ROOT / "topologies" / f"{file}.yaml")
    digests = {mode: play(path, steps, 5, actions, **overrides)[0] for mode, overrides in MODES.items()}
    assert len(set(digests.values())) == 1, digests


def test_the_shipped_topology_gives_the_same_bytes_in_all_modes(three: zgrid.NetworkedGridEnv) -> None:
    path = str(ROOT / "topologies" / "3mg.yaml")
    digests = {mode: play(path, 96, 5, "actions", **MODES[mode])[0] for mode in ("centralized", "in_memory")}
    digests["zmq"] = trace(three, 96, 5, "actions")[0]
    assert len(set(digests.values())) == 1, digests


def test_a_shipped_topology_whose_grids_are_processes_gives_the_same_bytes_in_all_modes() -> None:
    path = str(ROOT / "topologies" / "3mg_p2p.yaml")
    digests = {mode: play(path, 16, 5, "policy", placement="grid", **MODES[mode])[0] for mode in MODES}
    assert len(set(digests.values())) == 1, digests


def test_another_seed_gives_other_bytes() -> None:
    one, two = (play(small_topology(), 24, seed, "policy", centralized=True)[0] for seed in (0, 1))
    assert one != two


def test_the_order_of_arrival_does_not_matter() -> None:
    """The in-memory broker hands deliveries over in a random order; results stay the same."""
    from zgrid.messaging import Delivery, InMemoryBroker

    rng = np.random.default_rng(4)

    class Shuffling(InMemoryBroker):
        def poll(self, timeout_s: float) -> Delivery | None:
            if len(self._queue) > 1:
                self._queue.rotate(int(rng.integers(len(self._queue))))
            return super().poll(timeout_s)

    content = {**consensus(small_topology(3)), "policy": "random"}
    straight, arrays = play(content, 24, 1, "policy", **MODES["in_memory"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zgrid.environment.InMemoryBroker", Shuffling)
        shuffled, other = play(content, 24, 1, "policy", **MODES["in_memory"])
    assert_equal(arrays, other)
    assert shuffled == straight


# ---- placement -----------------------------------------------------------------------------------------------------


@contextmanager
def external(file: Path, agent: str, ports: tuple[int, int]) -> Iterator[subprocess.Popen[str]]:
    """An agent started by hand, as on another machine."""
    command = [sys.executable, "-m", "nodes.device", str(file), agent, "--connect", f"127.0.0.1:{ports[0]},{ports[1]}"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_inline_process_and_external_agents_mix_on_one_topology(tmp_path: Path) -> None:
    ports = free_ports()
    content = small_topology(2)
    content["broker"] = {"ports": list(ports)}
    content["grids"]["mg_1"]["run"] = "inline"
    content["grids"]["mg_1"]["devices"]["pv_1"]["run"] = "inline"
    content["grids"]["mg_2"]["devices"]["ess_1"]["run"] = "external"
    file = tmp_path / "mixed.yaml"
    file.write_text(yaml.safe_dump(content))
    expected, reference = play(str(file), 96, 6, "actions", centralized=True)
    with external(file, "mg_2.ess_1", ports) as process:
        mixed, arrays = play(str(file), 96, 6, "actions")
        assert process.wait(5.0) == 0, "an external agent ends with the run"
    assert_equal(reference, arrays)
    assert mixed == expected


def spread() -> dict[str, Any]:
    """With consensus, so that what goes between nodes is of all kinds, and with some agents elsewhere."""
    content = {**consensus(small_topology(3)), "policy": "random"}
    content["grids"]["mg_1"]["devices"]["pv_1"]["run"] = "inline"
    content["grids"]["mg_3"]["run"] = "inline"
    return content


@cache
def called() -> tuple[str, list[Any]]:
    return play(spread(), 24, 8, "policy", centralized=True)


@pytest.mark.parametrize(
    "placement", [pytest.param("grid", marks=slow), {"pool": 2}, pytest.param({"pool": 1}, marks=slow)], ids=str
)
def test_every_placement_gives_the_same_bytes(placement: Any) -> None:
    expected, reference = called()
    placed, arrays = play(spread(), 24, 8, "policy", **MODES["zmq"], placement=placement)
    assert_equal(reference, arrays)
    assert placed == expected


def test_messages_are_counted_by_kind(three: zgrid.NetworkedGridEnv) -> None:
    with closing(zgrid.parallel_env(three.topology, **MODES["in_memory"])) as in_memory:
        for mode, env in (("in_memory", in_memory), ("zmq", three)):
            env.reset(seed=0)
            before = env.stats()["messages"]
            for _ in range(10):
                env.step(dict.fromkeys(env.agents))
            stats = env.stats()
            assert_counted(stats, before, mode)


def assert_counted(stats: dict[str, Any], before: dict[str, int], mode: str) -> None:
    """Messages of ten steps of three grids."""
    sent = {kind: stats["messages"][kind] - before.get(kind, 0) for kind in stats["messages"]}
    per_step = {kind: count for kind, count in sent.items() if kind not in ("control", "node", "reset")}
    assert per_step == {"action": 30, "setpoint": 90, "state": 90, "network": 30, "report": 30}, mode
    assert stats["refused"] == {}
    assert (stats["bytes"].get("state", 0) > 0) == (mode == "zmq")
    assert stats["latency_ms"]["state"]["p50"] > 0.0


def test_agents_in_distributed_mode_hold_no_network_object() -> None:
    with closing(zgrid.parallel_env(small_topology(2), **MODES["in_memory"])) as env:
        env.reset(seed=0)
        env.step(dict.fromkeys(env.agents))
        for agent in env._execution.agents.values():  # type: ignore[union-attr]
            for thing in reachable(agent):
                module = type(thing).__module__
                assert not module.startswith(
                    ("pandapower", "pandas", "zgrid.networks", "zgrid.powerflow", "zgrid.world")
                )


def reachable(root: Any) -> Iterator[Any]:
    """Every object that can be reached through attributes and containers."""
    seen: set[int] = set()
    heap = [root]
    while heap:
        thing = heap.pop()
        if id(thing) in seen or isinstance(thing, type):
            continue
        seen.add(id(thing))
        yield thing
        if isinstance(thing, dict):
            heap += [*thing.keys(), *thing.values()]
        elif isinstance(thing, list | tuple | set | frozenset):
            heap += thing
        elif type(thing).__module__.startswith("zgrid"):
            heap += vars(thing).values() if hasattr(thing, "__dict__") else ()
            heap += [getattr(thing, name) for name in getattr(type(thing), "__slots__", ()) if hasattr(thing, name)]
