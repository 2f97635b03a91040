"""What a coordination protocol is: one small object per participant, without I/O and without a view of the others.

Vertical protocols join a grid and its devices, horizontal ones join neighbour grids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict

from zgrid.devices import Control
from zgrid.messages import Floats

Outbox: TypeAlias = dict[str, Floats]
"""What to send in a round: recipient -> values."""


class ProtocolConfig(BaseModel):
    """What a protocol says in a topology; a kind adds its own parameters. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str


class Controls(NamedTuple):
    """One subordinate as a vertical protocol sees it: its controls, and where their values go in its setpoint."""

    controls: tuple[Control, ...]
    positions: tuple[int, ...]
    neutral: Floats


class VerticalProtocol(ABC):
    """The coordinator's side: a grid's action becomes a setpoint for each of its devices."""

    Config: ClassVar[type[ProtocolConfig]]

    def __init__(self, config: Any, devices: Sequence[Controls]) -> None:
        self.config = config
        self.devices = tuple(devices)

    @abstractmethod
    def setpoints(self, action: Floats) -> list[Floats]:
        """A setpoint for each device, in their order. ``action`` has one entry in [-1, 1] per control."""


class HorizontalProtocol(ABC):
    """One peer: it sees its own values and what its neighbours send, round by round."""

    Config: ClassVar[type[ProtocolConfig]]
    RESULT: ClassVar[tuple[str, ...]]
    """Names of the entries of :meth:`result`."""

    def __init__(self, config: Any, weights: Mapping[str, float]) -> None:
        """``weights`` maps each neighbour to its Metropolis weight, in the order of the topology."""
        self.config = config
        self.weights = dict(weights)

    @abstractmethod
    def start(self, step: int, local: Mapping[str, float]) -> Outbox:
        """A new step begins, with the grid's own values; what to send in round 1 (nothing: no rounds)."""

    @abstractmethod
    def on_round(self, round: int, inbox: Mapping[str, Floats]) -> Outbox:
        """A round is complete, one message per neighbour; what to send in the next (nothing: done)."""

    @abstractmethod
    def result(self) -> Floats:
        """What the protocol has come to, valid after any number of rounds; zeros before the first step."""


def metropolis_weights(neighbours: Mapping[str, Sequence[str]], me: str) -> dict[str, float]:
    """Metropolis weights of one peer's edges: 1 / (1 + max(degree, degree of the neighbour)).

    They make the weight matrix doubly stochastic [Xiao, Boyd and Lall 2005, A scheme for robust distributed sensor
    fusion based on average consensus]. ``neighbours`` maps every peer to its neighbours.
    """
    degree = len(neighbours[me])
    return {other: 1.0 / (1.0 + max(degree, len(neighbours[other]))) for other in neighbours[me]}
