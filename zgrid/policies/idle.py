"""Policy ``idle``: generate nothing, store nothing, curtail everything, switch nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from zgrid.messages import Floats
from zgrid.policies.base import Actor, GridView, Policy, PolicyConfig


class IdleConfig(PolicyConfig):
    """It has no parameters."""

    kind: str = "idle"


class Idle(Policy):
    """Every control as near to its ``idle`` as its limits allow: no power, no reactive power, units off, and breakers,
    taps and steps where they begin.
    """

    Config: ClassVar[type[PolicyConfig]] = IdleConfig

    def __init__(self, config: Any, actors: Sequence[Actor]) -> None:
        super().__init__(config, actors)
        self._action = tuple(control.unscale(control.idle) for actor in self.actors for control in actor.controls)

    def reset(self, seed: Sequence[int]) -> None:
        """Nothing to forget."""

    def act(self, view: GridView) -> Floats:
        return self._action
