"""Policy ``rule_based``: each device does what pays for itself at the price of the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from zgrid.messages import Floats
from zgrid.policies.base import GridView, Policy, PolicyConfig


class RuleBasedConfig(PolicyConfig):
    """It has no parameters."""

    kind: str = "rule_based"


class RuleBased(Policy):
    """Renewables at availability, batteries by the day's price quartiles, generators where marginal cost meets price.

    It asks each device's :meth:`~zgrid.devices.Device.respond`, so a plug-in device is served too. It does not look
    at voltages.
    """

    Config: ClassVar[type[PolicyConfig]] = RuleBasedConfig

    def reset(self, seed: Sequence[int]) -> None:
        """Nothing to forget."""

    def act(self, view: GridView) -> Floats:
        action: list[float] = []
        for (device, controls, positions), state, series in zip(self.actors, view.states, view.series, strict=True):
            wanted = device.respond(state.state, series, view.market)
            action.extend(
                control.unscale(wanted[position]) for control, position in zip(controls, positions, strict=True)
            )
        return tuple(action)
