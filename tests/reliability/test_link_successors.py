"""Who begins anew in the middle of an episode knows what was on its way to its predecessor."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from typing import Any

import pytest
from conftest import small_topology
from faults import pid_of

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


@pytest.mark.parametrize("node", ["mg_1.dg_1", "mg_1"])
def test_a_restart_changes_nothing_under_faults(node: str) -> None:
    content = small_topology() | {"links": RULES, "policy": "random"}
    with closing(zgrid.parallel_env(content, centralized=True)) as env:
        env.reset(seed=5)
        expected = play(env, STEPS)
    grid = content["grids"]["mg_1"]
    (grid if node == "mg_1" else grid["devices"]["dg_1"])["on_failure"] = "restart"
    with closing(zgrid.parallel_env(content)) as env:
        env.reset(seed=5)
        got = play(env, AT)
        os.kill(pid_of(env, node), signal.SIGKILL)
        assert got + play(env, STEPS - AT) == expected
