"""Policy ``random``: uniform actions from the episode's seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from zgrid.messages import Floats
from zgrid.policies.base import Actor, GridView, Policy, PolicyConfig


class RandomConfig(PolicyConfig):
    """It has no parameters."""

    kind: str = "random"


class Random(Policy):
    """Every control uniform in [-1, 1], from a Generator seeded by the episode and the grid's name."""

    Config: ClassVar[type[PolicyConfig]] = RandomConfig

    def __init__(self, config: Any, actors: Sequence[Actor]) -> None:
        super().__init__(config, actors)
        self._rng = np.random.default_rng(0)

    def reset(self, seed: Sequence[int]) -> None:
        self._rng = np.random.default_rng(list(seed))

    def act(self, view: GridView) -> Floats:
        return tuple(self._rng.uniform(-1.0, 1.0, self.size).tolist())
