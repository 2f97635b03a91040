"""GridModule: an actor and a critic as RLlib's RLModule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from zgrid.rl.networks import Actor, Critic, side_by_side
from zgrid.rl.scaling import Normal, Scaling


class GridModule(TorchRLModule, ValueFunctionAPI):
    """A Gaussian around the actor, which sees the grid's own observation, with a learnt standard deviation; the critic
    sees the global state beside it, or the observation alone. Without exploration it plays the mean.
    """

    def setup(self) -> None:
        """Make the networks. Their first weights depend on the seed alone, in whatever process they are made."""
        told = self.model_config
        own, state = Normal(*told["observation"]), told["state"]
        self._central = state is not None
        n_actions = self.action_space.shape[0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(told["seed"])
            self.actor = Actor(own, n_actions, told["hidden"])
            self.critic = Critic(side_by_side(own, Normal(*state)) if self._central else own, told["hidden"])
        self.log_std = nn.Parameter(torch.full((n_actions,), math.log(told["std"])))

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Tensor]:
        mean = self.actor(batch[Columns.OBS]["obs"])
        return {Columns.ACTION_DIST_INPUTS: torch.cat([mean, self.log_std.expand_as(mean)], -1)}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """The values of states, (n,) float32, in scaled rewards."""
        seen = batch[Columns.OBS]
        value: Tensor = self.critic(torch.cat([seen["obs"], seen["state"]], -1) if self._central else seen["obs"])
        return value


def describe(scaling: Scaling, *, central: bool, hidden: Sequence[int], std: float, seed: int) -> dict[str, Any]:
    """A config of ``GridModule``: plain data."""
    state = tuple(scaling.state) if central else None
    return {
        "observation": tuple(scaling.observation), "state": state, "hidden": tuple(hidden), "std": std, "seed": seed,
    }  # fmt: skip
