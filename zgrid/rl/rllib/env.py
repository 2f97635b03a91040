"""GridEnv: a topology as RLlib's MultiAgentEnv."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.rllib.env.multi_agent_env import MultiAgentEnv

from zgrid.environment import NetworkedGridEnv
from zgrid.topology import Topology

ALL = "__all__"


class GridEnv(MultiAgentEnv):
    """Agents are the grids, in the order of the topology. An observation is ``{"obs": ..., "state": ...}``: what the
    grid sees and the global state, for a central critic. Rewards are divided by their standard deviation.

    The end of a day is a termination: it is in the problem, the clock is in the observation.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """``config`` is what ``describe`` makes."""
        self._env = NetworkedGridEnv(config["topology"], {"spaces.observation": "dict", "spaces.action": "flat"})
        self._reward_std: dict[str, float] = config["reward_std"]
        self.possible_agents = list(self._env.possible_agents)
        self.agents = list(self.possible_agents)
        self.observation_spaces = self._env.observation_spaces
        self.action_spaces = self._env.action_spaces
        super().__init__()

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
        """Begin a day, as ``NetworkedGridEnv.reset`` does; the terms of the reward are not told."""
        observations, _infos = self._env.reset(seed, options)
        return observations, {}

    def step(self, action_dict: Mapping[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        """One step; all agents act."""
        observations, rewards, _terminated, over, _infos = self._env.step(action_dict)
        scaled = {agent: reward / self._reward_std[agent] for agent, reward in rewards.items()}
        ended = {**over, ALL: all(over.values())}
        return observations, scaled, ended, dict.fromkeys(ended, False), {}

    def close(self) -> None:
        """End the processes of the nodes, where there are any."""
        self._env.close()


def describe(topology: Topology, reward_std: Mapping[str, float], days: int) -> dict[str, Any]:
    """A config of ``GridEnv``: plain data, that RLlib takes to other processes.

    Args:
        topology: what to play, in its mode.
        reward_std: of each grid, $.
        days: episodes of an iteration, for ``ExactPPO``.
    """
    return {"topology": topology.model_dump(mode="json"), "reward_std": dict(reward_std), "days": days}
