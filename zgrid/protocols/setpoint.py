"""Vertical protocol ``setpoint``: the grid commands each control of its devices directly."""

from __future__ import annotations

from typing import ClassVar

from zgrid.messages import Floats
from zgrid.protocols.base import ProtocolConfig, VerticalProtocol


class SetpointConfig(ProtocolConfig):
    """It has no parameters."""

    kind: str = "setpoint"


class SetpointProtocol(VerticalProtocol):
    """Each entry of the action, in the devices' order, is scaled from [-1, 1] to the limits of its control."""

    Config: ClassVar[type[ProtocolConfig]] = SetpointConfig

    def setpoints(self, action: Floats) -> list[Floats]:
        entries = iter(action)
        result = []
        for controls, positions, neutral in self.devices:
            values = list(neutral)
            for control, position in zip(controls, positions, strict=True):
                values[position] = control.scale(next(entries))
            result.append(tuple(values))
        return result
