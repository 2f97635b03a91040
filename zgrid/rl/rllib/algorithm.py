"""ExactPPO: RLlib's PPO on whole days, whose draws depend on (seed, iteration, day) alone.

So a run is the same to the bit in every mode, with any number of env runners, and when it was saved and resumed: no
state of a random generator is needed, and no episode is under way between iterations. Two things of RLlib stand against
it: its episodes list agents in the order of a set, which differs between processes, and the order in which env runners
answer. Both are put in order here.
"""

from __future__ import annotations

import random
from collections.abc import KeysView
from functools import partial
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from zgrid.rl.networks import one_thread

MEAN_RETURN = "mean_return"
"""The mean return of a day over all grids, $, among the results of an iteration."""
_LEARNER = 2**31
"""Stands for the learner where a day stands for its draws."""


def _draw_from(*key: int) -> int:
    """Draw all that is random in this process from a key from now on; a seed for an env besides."""
    for_env, for_others = map(int, np.random.SeedSequence(key).generate_state(2))
    random.seed(for_others)
    np.random.seed(for_others)  # noqa: NPY002 - RLlib shuffles with the global generator
    torch.manual_seed(for_others)
    return for_env


class DayEpisode(MultiAgentEpisode):
    """An episode that tells its agents in the order of the env."""

    __slots__ = ()

    @property
    def agent_ids(self) -> KeysView[str]:
        """All agents."""
        keys: KeysView[str] = self.agent_episodes.keys()
        return keys

    def get_agents_that_stepped(self) -> KeysView[str]:
        """Agents with an observation of the last step."""
        keys: KeysView[str] = self.get_observations(-1).keys()
        return keys

    def get_agents_to_act(self) -> KeysView[str]:
        """Agents that act next."""
        return {agent: None for agent in self.get_observations(-1) if not self.agent_episodes[agent].is_done}.keys()


class DayRunner(MultiAgentEnvRunner):
    """Plays whole days, each from draws of its own."""

    def play(self, seed: int, explore: bool) -> MultiAgentEpisode:
        """One day; the env is seeded with ``seed``, the draws of the policy are those of the process."""
        self._seed = seed
        (episode,) = self.sample(num_episodes=1, explore=explore)
        return episode

    def play_share(self, iteration: int) -> tuple[list[tuple[int, MultiAgentEpisode]], Any]:
        """This runner's share of the days of an iteration, each with its number; and RLlib's metrics."""
        one_thread()
        first, every = max(self.worker_index - 1, 0), max(self.num_workers, 1)
        played = []
        for day in range(first, self.config.env_config["days"], every):
            seed = _draw_from(self.config.seed, iteration, day)
            played.append((day, self.play(seed, explore=True)))
        return played, self.get_metrics()

    def _new_episode(self, env_index: int, episodes: Any = None) -> None:
        super()._new_episode(env_index, episodes)
        (self._ongoing_episodes if episodes is None else episodes)[env_index].__class__ = DayEpisode


class ExactPPO(PPO):
    """An iteration is ``env_config["days"]`` days, shared among the env runners, then PPO's epochs over them."""

    def _setup_logdir(self) -> None:
        """Outside of Tune nothing is logged: leave no folder in the user's home."""
        if self._storage:
            super()._setup_logdir()

    def training_step(self) -> None:
        """One iteration."""
        reward_std = self.config.env_config["reward_std"]
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            shares = self.env_runner_group.foreach_env_runner(
                partial(DayRunner.play_share, iteration=self.iteration),
                local_env_runner=self.config.num_env_runners == 0,
            )
        self.metrics.aggregate([metrics for _, metrics in shares], key=ENV_RUNNER_RESULTS)
        played = sorted((one for share, _ in shares for one in share), key=lambda one: one[0])
        episodes = [episode for _, episode in played]
        self.metrics.log_value(MEAN_RETURN, np.mean([day_return(one, reward_std) for one in episodes]), window=1)
        _draw_from(self.config.seed, self.iteration, _LEARNER)
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            learnt = self.learner_group.update(
                episodes=episodes,
                timesteps={
                    NUM_ENV_STEPS_SAMPLED_LIFETIME: self.metrics.peek(
                        (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
                    )
                },
                num_epochs=self.config.num_epochs,
                minibatch_size=self.config.minibatch_size,
                shuffle_batch_per_epoch=self.config.shuffle_batch_per_epoch,
            )
        self.metrics.aggregate(learnt, key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.env_runner_group.sync_weights(from_worker_or_learner_group=self.learner_group, inference_only=True)


def day_return(episode: MultiAgentEpisode, reward_std: dict[str, float]) -> float:
    """What all grids earned in a day, $."""
    return sum(float(one.get_return()) * reward_std[agent] for agent, one in episode.agent_episodes.items())
