"""TorchRL: copies of a topology as one batched EnvBase, and multi-agent PPO on it, for speed without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import InteractionType, TensorDictModule
from torch import Tensor, nn
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase
from torchrl.modules import IndependentNormal, ProbabilisticActor
from torchrl.objectives.multiagent import MAPPOLoss
from torchrl.objectives.value import MultiAgentGAE

from zgrid.errors import CheckpointError
from zgrid.rl.checkpoint import SHARED, About, check_fits, command_line, policy_map, read_about, replacing, save
from zgrid.rl.networks import HIDDEN, Actor, Critic, one_thread, side_by_side
from zgrid.rl.scaling import Scaling, measure
from zgrid.topology import Topology
from zgrid.vector import NetworkedVectorEnv

GROUP = "agents"
STATE = "trainer.pt"
_KEYS = {
    "value": "state_value", "reward": "reward", "advantage": "advantage", "value_target": "value_target",
}  # fmt: skip


class TorchGridEnv(EnvBase):
    """``num_envs`` copies of a topology. Batch size (num_envs,); the grids are one group, stacked on the last axis but
    one: ("agents", "observation") (num_envs, n_agents, n_obs) float32, ("agents", "action"), ("agents", "reward") in $,
    and the global "state" (num_envs, n_state) beside.

    The end of a day is a termination: it is in the problem, the clock is in the observation.
    """

    batch_locked = True

    def __init__(self, topology: Topology, num_envs: int) -> None:
        """
        Raises:
            TopologyError: a topology that does not run in copies.
            ValueError: grids of different sizes.
        """
        super().__init__(batch_size=torch.Size([num_envs]))
        self.copies = NetworkedVectorEnv(topology, num_envs)
        self.grids = list(self.copies.possible_agents)
        sizes = {(len(self.copies.single_observation_spaces[grid].low), len(self.copies.single_action_spaces[grid].low))
                 for grid in self.grids}  # fmt: skip
        if len(sizes) > 1:
            raise ValueError(f"{topology.name}: grids of {len(sizes)} sizes; spaces.pad: true makes them equal")
        ((self.n_obs, self.n_actions),) = sizes
        self.n_state = len(self.copies.state_space.low)
        self._make_specs()
        self._seed: int | None = topology.seed

    def _make_specs(self) -> None:
        batch, n = tuple(self.batch_size), len(self.grids)
        group = (*batch, n)
        seen = Composite(observation=Unbounded((*group, self.n_obs)), shape=group)
        self.observation_spec = Composite({GROUP: seen, "state": Unbounded((*batch, self.n_state))}, shape=batch)
        acts = Composite(action=Bounded(-1.0, 1.0, (*group, self.n_actions)), shape=group)
        self.action_spec = Composite({GROUP: acts}, shape=batch)
        earned = Composite(reward=Unbounded((*group, 1)), shape=group)
        self.reward_spec = Composite({GROUP: earned}, shape=batch)
        flag = Categorical(2, (*batch, 1), dtype=torch.bool)
        self.done_spec = Composite(done=flag, terminated=flag.clone(), shape=batch)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        """All copies begin together; they also end together."""
        observations, _infos = self.copies.reset(seed=self._seed)
        self._seed = None
        return self._tell(observations, torch.zeros((*self.batch_size, 1), dtype=torch.bool))

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        actions = tensordict[GROUP, "action"].numpy()
        chosen = {grid: actions[:, k] for k, grid in enumerate(self.grids)}
        observations, rewards, _terminated, over, _infos = self.copies.step(chosen)
        told = self._tell(observations, torch.from_numpy(over[self.grids[0]]).unsqueeze(-1))
        earned = torch.stack([torch.from_numpy(rewards[grid]) for grid in self.grids], 1)
        told[GROUP, "reward"] = earned.to(torch.float32).unsqueeze(-1)
        return told

    def _tell(self, observations: Any, over: Tensor) -> TensorDict:
        seen = torch.stack([torch.from_numpy(observations[grid]) for grid in self.grids], 1)
        group = TensorDict({"observation": seen}, (*self.batch_size, len(self.grids)))
        state = torch.from_numpy(self.copies.state())
        return TensorDict({GROUP: group, "state": state, "done": over, "terminated": over.clone()}, self.batch_size)

    def _set_seed(self, seed: int | None) -> None:
        self._seed = seed

    def set_days(self, seed: int) -> None:
        """Draw the days of the next reset from this seed."""
        self._seed = seed


@dataclass(frozen=True)
class Settings:
    """What multi-agent PPO is run with."""

    num_envs: int = 128
    learning_rate: float = 7e-4
    epochs: int = 8
    minibatch: int = 1024
    """Steps of copies, each with all its grids."""
    gamma: float = 0.95
    lmbda: float = 0.9
    clip: float = 0.2
    std: float = 0.4
    hidden: tuple[int, ...] = HIDDEN
    max_grad_norm: float = 0.5


class _Gaussian(nn.Module):
    """Mean and standard deviation of the actions of all grids, from one shared actor."""

    def __init__(self, actor: Actor, std: float) -> None:
        super().__init__()
        self.actor = actor
        self.log_std = nn.Parameter(torch.full((actor.n_actions,), float(torch.tensor(std).log())))

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.actor(observation)
        return mean, self.log_std.exp().expand_as(mean)


class _CentralCritic(nn.Module):
    """One value per grid, from its observation beside the global state."""

    def __init__(self, critic: Critic) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, observation: Tensor, state: Tensor) -> Tensor:
        beside = state.unsqueeze(-2).expand(*observation.shape[:-1], state.shape[-1])
        value: Tensor = self.critic(torch.cat([observation, beside], -1)).unsqueeze(-1)
        return value


class Trainer:
    """Multi-agent PPO: one policy that all grids share, and a critic that sees the global state.

    Source: Yu et al. 2022, The surprising effectiveness of PPO in cooperative multi-agent games.

    What is random in an iteration is drawn from (seed, iteration) alone, so that a run that was saved and resumed
    equals one that was not, to the bit.
    """

    def __init__(self, topology: Topology, settings: Settings, seed: int = 0) -> None:
        one_thread()
        torch.manual_seed(seed)
        self.topology, self.settings, self.seed = topology, settings, seed
        self.env = env = TorchGridEnv(topology, settings.num_envs)
        scaling = measure(topology)
        self._reward_std = scaling.reward_std
        self.actor = Actor(scaling.observation, env.n_actions, settings.hidden)
        self.policy = ProbabilisticActor(
            TensorDictModule(
                _Gaussian(self.actor, settings.std), [(GROUP, "observation")], [(GROUP, "loc"), (GROUP, "scale")]
            ),
            in_keys=[(GROUP, "loc"), (GROUP, "scale")],
            out_keys=[(GROUP, "action")],
            distribution_class=IndependentNormal,
            default_interaction_type=InteractionType.RANDOM,
            return_log_prob=True,
            log_prob_key=(GROUP, "action_log_prob"),
        )
        self.loss = self._make_loss(scaling)
        self.optimizer = torch.optim.Adam(self.loss.parameters(), settings.learning_rate, eps=1e-5)
        self.iteration, self.env_steps, self.mean_return = 0, 0, 0.0

    def _make_loss(self, scaling: Scaling) -> Any:
        settings = self.settings
        critic = TensorDictModule(
            _CentralCritic(Critic(side_by_side(scaling.observation, scaling.state), settings.hidden)),
            [(GROUP, "observation"), "state"],
            [(GROUP, "state_value")],
        )
        loss = MAPPOLoss(
            self.policy, critic, clip_epsilon=settings.clip, entropy_coeff=0.0, critic_coeff=0.5, loss_critic_type="l2"
        )
        self._advantage = MultiAgentGAE(gamma=settings.gamma, lmbda=settings.lmbda, value_network=critic)
        keys = {name: (GROUP, key) for name, key in _KEYS.items()}
        self._advantage.set_keys(**keys)
        loss.set_keys(action=(GROUP, "action"), sample_log_prob=(GROUP, "action_log_prob"), **keys)
        return loss

    def train(self) -> float:
        """One iteration: a day in every copy, then epochs over it; the mean return of a day, $, over all grids."""
        days, draws = np.random.SeedSequence([self.seed, self.iteration]).generate_state(2)
        self.env.set_days(int(days))
        torch.manual_seed(int(draws))
        with torch.no_grad():
            played = self.env.rollout(self.topology.episode_steps, self.policy, break_when_any_done=False)
            day_return = float(played["next", GROUP, "reward"].sum((1, 2, 3)).mean())
            played["next", GROUP, "reward"] /= self._reward_std
            self._advantage(played)
        flat = played.reshape(-1)
        for _ in range(self.settings.epochs):
            for batch in self._minibatches(flat):
                self._update(batch)
        self.iteration, self.env_steps, self.mean_return = self.iteration + 1, self.env_steps + len(flat), day_return
        return day_return

    def _minibatches(self, flat: TensorDictBase) -> Iterator[TensorDictBase]:
        for rows in torch.randperm(len(flat)).split(self.settings.minibatch):
            yield flat[rows]

    def _update(self, batch: TensorDictBase) -> None:
        losses = self.loss(batch)
        total = losses["loss_objective"] + losses["loss_critic"]
        self.optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self.loss.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()

    def save(self, folder: Path) -> None:
        """Write a checkpoint; one that is there is replaced when the new one is whole."""
        about = About(
            trainer="torchrl",
            topology=self.topology.model_dump(mode="json"),
            policy_of=policy_map(self.topology, independent=False),
            command=command_line(),
            seed=self.seed,
            iteration=self.iteration,
            env_steps=self.env_steps,
            mean_return=self.mean_return,
        )
        with replacing(folder) as new:
            save(new, about, {SHARED: self.actor})
            weights = {"loss": self.loss.state_dict(), "optimizer": self.optimizer.state_dict()}
            torch.save({"settings": asdict(self.settings), **weights}, new / STATE)

    @classmethod
    def resume(cls, folder: Path, topology: Topology | None = None) -> Self:
        """Go on from a checkpoint, with the topology that it was trained on.

        Raises:
            CheckpointError: no checkpoint of this trainer, or of another topology than the given one.
        """
        about = read_about(folder)
        if about.trainer != "torchrl" or not (folder / STATE).is_file():
            raise CheckpointError(f"{folder}: a checkpoint of {about.trainer}, not of torchrl")
        trained = about.load_topology()
        if topology is not None:
            check_fits(folder, about, topology)
        content = torch.load(folder / STATE, weights_only=True)
        settings = Settings(**content["settings"] | {"hidden": tuple(content["settings"]["hidden"])})
        trainer = cls(trained, settings, about.seed)
        trainer.loss.load_state_dict(content["loss"])
        trainer.optimizer.load_state_dict(content["optimizer"])
        trainer.iteration, trainer.env_steps = about.iteration, about.env_steps
        trainer.mean_return = about.mean_return
        return trainer
