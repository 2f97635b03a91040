"""Who begins anew in the middle of an episode knows what was on its way to its predecessor."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, small_topology
from faults import alone, pid_of, with_device, write_agents

import zgrid

RULES = [
    {"kind": "setpoint", "delay": {"kind": "constant", "value": 1}, "loss": 0.3},
    {"kind": "state", "delay": {"kind": "exponential", "mean": 0.7}},
    {"kind": "network", "gilbert_elliott": {"p_gb": 0.2, "p_bg": 0.4}},
]
STEPS, AT = 6, 3
pytestmark = pytest.mark.usefixtures("no_leftovers")


def play(env: zgrid.NetworkedGridEnv, steps: int) -> list[tuple[bytes, Any]]:
    told = []
    for _ in range(steps):
        observations, rewards, _, _, _ = env.step({"mg_1": None})
        told.append((observations["mg_1"].tobytes(), rewards))
    return told


@pytest.mark.parametrize("node", ["mg_1.dg_1", pytest.param("mg_1", marks=pytest.mark.slow)])
def test_a_restart_changes_nothing_under_faults(node: str) -> None:
    content = small_topology() | {"links": RULES, "policy": "random"}
    with closing(zgrid.parallel_env(content, centralized=True)) as env:
        env.reset(seed=5)
        expected, counts = play(env, STEPS), links_of(env)
    grid = alone(content, "dg_1")["grids"]["mg_1"]
    (grid if node == "mg_1" else grid["devices"]["dg_1"])["on_failure"] = "restart"
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=5)
        got = play(env, AT)
        os.kill(pid_of(env, node), signal.SIGKILL)
        assert got + play(env, STEPS - AT) == expected
        assert links_of(env) == counts


def test_who_acts_for_a_dead_device_counts_on() -> None:
    """What becomes of a message does not depend on what it says, so the counts are those of an undisturbed run."""
    content = small_topology() | {"links": RULES}
    expected = counts_of(content)
    alone(content, "dg_1")["grids"]["mg_1"]["devices"]["dg_1"]["on_failure"] = "fallback"
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=5)
        play(env, AT)
        os.kill(pid_of(env, "mg_1.dg_1"), signal.SIGKILL)
        play(env, STEPS - AT)
        assert links_of(env) == expected


def test_who_was_replaced_and_still_hears_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node lives on with an agent that has raised; the env acts for it."""
    write_agents(tmp_path, "raising", acts="raise", at=3)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    content = with_device(small_topology(), "raising") | {"links": RULES}
    load = content["grids"]["mg_1"]["devices"]["load_1"]
    kind, load["kind"] = load["kind"], "load"
    expected = counts_of(content)
    alone(content, "load_1")
    load |= {"kind": kind, "on_failure": "fallback"}
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=5)
        play(env, STEPS)
        assert links_of(env) == expected


def counts_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    """What links have counted in an undisturbed run."""
    with closing(zgrid.parallel_env(content, centralized=True)) as env:
        env.reset(seed=5)
        play(env, STEPS)
        return links_of(env)


def links_of(env: zgrid.NetworkedGridEnv) -> list[dict[str, Any]]:
    links: list[dict[str, Any]] = env.stats()["links"]
    return links
