"""What a policy is: what a grid does when nobody outside sends actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict

from zgrid.devices import Control, Device, Market
from zgrid.messages import DeviceState, FiniteArray, Floats, NetworkState


class PolicyConfig(BaseModel):
    """What a policy says in a topology; a kind adds its own parameters. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str


class Spaces(NamedTuple):
    """What a policy has to fit: entries of its grid's observation and action, and the hours of a step."""

    n_observation: int
    n_action: int
    dt_h: float


class Actor(NamedTuple):
    """One device as a policy sees it: its physics (to ask, never to step), its controls and where they go."""

    device: Device
    controls: tuple[Control, ...]
    positions: tuple[int, ...]


class GridView(NamedTuple):
    """What a grid knows when it decides: the last states and network, the coming step's market and its devices' series.

    ``observation`` is what a trained policy sees; the other fields are the same in engineering units, by name.
    """

    observation: FiniteArray
    states: Sequence[DeviceState]
    market: Market
    series: Sequence[Floats]
    network: NetworkState | None


class Policy(ABC):
    """Decides the action of one grid: one entry in [-1, 1] per control, in the devices' order."""

    Config: ClassVar[type[PolicyConfig]]

    def __init__(self, config: Any, actors: Sequence[Actor]) -> None:
        self.config = config
        self.actors = tuple(actors)
        self.size = sum(len(actor.controls) for actor in self.actors)

    @classmethod
    def misfits(cls, config: Any, spaces: Spaces) -> list[str]:
        """What of a configuration does not fit these spaces; asked before anything starts."""
        return []

    @abstractmethod
    def reset(self, seed: Sequence[int]) -> None:
        """A new episode; ``seed`` is what a numpy Generator of this grid is made from."""

    @abstractmethod
    def act(self, view: GridView) -> Floats:
        """The action for the coming step."""
