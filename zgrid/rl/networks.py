"""Networks of a policy and of a critic, with the scaling of their inputs inside."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zgrid.rl.scaling import Normal

HIDDEN = (128, 128)
CLIP = 10.0
"""Scaled inputs are clipped to +-this."""


def one_thread() -> None:
    """Small networks are fastest on one thread, and sums in a fixed order are the same on every run."""
    torch.set_num_threads(1)


class Scaled(nn.Module):
    """(x - mean) / std, clipped; constants, not learnt."""

    mean: Tensor
    std: Tensor

    def __init__(self, normal: Normal) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(normal.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(normal.std, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.std).clamp(-CLIP, CLIP)


def layers(sizes: Sequence[int], last_gain: float) -> nn.Sequential:
    """Linear layers with tanh between them, orthogonal weights and no bias at first [Andrychowicz et al. 2021, What
    matters for on-policy deep actor-critic methods: a small last layer of the policy].
    """
    modules: list[nn.Module] = []
    for k, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        last = k == len(sizes) - 2
        linear = nn.Linear(n_in, n_out)
        nn.init.orthogonal_(linear.weight, last_gain if last else 2.0**0.5)
        nn.init.zeros_(linear.bias)
        modules += [linear] if last else [linear, nn.Tanh()]
    return nn.Sequential(*modules)


class Actor(nn.Module):
    """The mean action of one grid from its own observation: (..., n_obs) to (..., n_actions) float32, not clipped."""

    def __init__(self, normal: Normal, n_actions: int, hidden: Sequence[int] = HIDDEN) -> None:
        super().__init__()
        self.hidden = tuple(hidden)
        self.n_obs, self.n_actions = len(normal.mean), n_actions
        self.scaled = Scaled(normal)
        self.body = layers((self.n_obs, *hidden, n_actions), 0.01)

    def forward(self, observation: Tensor) -> Tensor:
        mean: Tensor = self.body(self.scaled(observation))
        return mean


class Critic(nn.Module):
    """The value of a state for one grid: (..., n_in) to (...,) float32, in rewards divided by their scale.

    A central critic is given observation and global state side by side, so that one network knows whose value it tells.
    """

    def __init__(self, normal: Normal, hidden: Sequence[int] = HIDDEN) -> None:
        super().__init__()
        self.scaled = Scaled(normal)
        self.body = layers((len(normal.mean), *hidden, 1), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.body(self.scaled(x))
        return value.squeeze(-1)


def side_by_side(first: Normal, second: Normal) -> Normal:
    """The scaling of two vectors side by side."""
    return Normal((*first.mean, *second.mean), (*first.std, *second.std))
