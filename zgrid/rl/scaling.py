"""Scaling: what observations, states and rewards of a topology look like, so that a network can be given unit sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zgrid.environment import NetworkedGridEnv
from zgrid.topology import Topology, load

_EPISODES = 20
_SMALLEST_STD = 1e-3
"""What hardly moves is not blown up."""


class Normal(NamedTuple):
    """Mean and standard deviation of each entry of a vector."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Scaling(NamedTuple):
    """Of the grids' observations pooled, of the global state, and the standard deviation of a step's reward in $."""

    observation: Normal
    state: Normal
    reward_std: float


def measure(topology: Topology, agents: Sequence[str] | None = None, episodes: int = _EPISODES) -> Scaling:
    """Play random actions and look. The same topology gives the same numbers, whatever its mode.

    Args:
        topology: what to play; it is played centralized.
        agents: the grids whose observations and rewards are pooled; all by default. They have equal spaces.
        episodes: how many to play.

    Raises:
        ValueError: grids whose observations have different sizes (``spaces.pad`` makes them equal).
    """
    overrides = {"centralized": True, "policy": "random", "grids.*.policy": None, "spaces.observation": "flat"}
    env = NetworkedGridEnv(load(topology, overrides))
    chosen = list(agents or env.possible_agents)
    sizes = {env.observation_space(agent).shape for agent in chosen}
    if len(sizes) > 1:
        raise ValueError(f"grids see {len(sizes)} sizes of observations; spaces.pad: true makes them equal")
    seen: list[NDArray[np.float32]] = []
    states: list[NDArray[np.float32]] = []
    rewards: list[float] = []
    for episode in range(episodes):
        observations, _ = env.reset(seed=topology.seed + episode)
        while env.agents:
            seen += [observations[agent] for agent in chosen]
            states.append(env.state())
            observations, earned, *_ = env.step(dict.fromkeys(env.agents))
            rewards += [earned[agent] for agent in chosen]
    env.close()
    return Scaling(_normal(seen), _normal(states), max(float(np.std(rewards)), _SMALLEST_STD))


def _normal(rows: Sequence[NDArray[Any]]) -> Normal:
    table = np.stack(rows).astype(np.float64)
    std = table.std(axis=0)
    std = np.where(std < _SMALLEST_STD, 1.0, std)
    return Normal(tuple(table.mean(axis=0).tolist()), tuple(std.tolist()))
