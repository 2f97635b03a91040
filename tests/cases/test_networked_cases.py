"""The cases 33bw, cigre_mv and ieee123: they solve through the year, their actions matter, and modes agree on them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

import zgrid
from zgrid.survey import survey
from zgrid.topology import Topology, load

CASES = ("33bw", "cigre_mv", "ieee123")
IDLE_PU = {"33bw": (0.92, 0.94, 0.99, 1.01), "cigre_mv": (0.90, 0.93, 1.03, 1.05), "ieee123": (0.91, 0.95, 1.0, 1.04)}
"""Where the lowest and the highest voltage of idle devices over the year lie, as the files' heads tell."""


@pytest.mark.parametrize("case", CASES)
def test_every_sampled_hour_of_the_year_solves(case: str) -> None:
    for found in survey(load(case), range(0, 365, 13)):
        assert found.diverged == 0
        if found.devices == "idle":
            low, not_so_low, not_so_high, high = IDLE_PU[case]
            assert low < found.vm_min_pu < not_so_low
            assert not_so_high < found.vm_max_pu < high


@cache
def loaded(case: str) -> Topology:
    return load(case)


def day(case: str, action: Any = None, **overrides: Any) -> tuple[dict[str, float], bytes]:
    """The returns of a day by grid, and everything seen, as bytes."""
    env = zgrid.parallel_env(loaded(case), **overrides)
    observations, _ = env.reset(seed=1, options={"day": 200})
    seen = [one.tobytes() for one in observations.values()]
    returns = dict.fromkeys(env.possible_agents, 0.0)
    while env.agents:
        actions = dict.fromkeys(env.agents)
        if action is not None:
            actions = {agent: np.full(env.action_space(agent).shape, action) for agent in env.agents}
        observations, rewards, *_ = env.step(actions)
        seen += [one.tobytes() for one in observations.values()]
        for agent, reward in rewards.items():
            returns[agent] += reward
            seen.append(np.float64(reward).tobytes())
    env.close()
    return returns, b"".join(seen)


@pytest.mark.parametrize("case", CASES)
def test_actions_change_every_return(case: str) -> None:
    days = [day(case, action, centralized=True, episode_steps=4)[0] for action in (-0.6, 0.1, 0.7)]
    for agent in days[0]:
        assert len({round(returns[agent], 6) for returns in days}) == 3


@pytest.mark.parametrize(
    ("policy", "case"),
    [
        ("random", "33bw"),
        ("rule_based", "cigre_mv"),
        ("random", "ieee123"),
        *(pytest.param("rule_based", case, marks=pytest.mark.slow) for case in ("33bw", "ieee123")),
        pytest.param("random", "cigre_mv", marks=pytest.mark.slow),
    ],
)
def test_called_and_messaged_are_the_same_bytes(policy: str, case: str) -> None:
    overrides = {"policy": policy, "episode_steps": 12}
    called = day(case, centralized=True, **overrides)
    assert called == day(case, centralized=False, message_broker="in_memory", **overrides)


@pytest.mark.slow
def test_every_agent_a_process_gives_the_same_bytes() -> None:
    overrides = {"policy": "random", "episode_steps": 12}
    called = day("cigre_mv", centralized=True, **overrides)
    assert called == day("cigre_mv", centralized=False, message_broker="zmq", **overrides)


@pytest.mark.parametrize("case", CASES)
def test_following_prices_beats_idling(case: str) -> None:
    idle, rules = (sum(day(case, policy=policy, centralized=True)[0].values()) for policy in ("idle", "rule_based"))
    assert rules > idle
