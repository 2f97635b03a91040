"""What a coordination protocol is: one small object per participant, without I/O and without a view of the others.

A participant knows its own id, role, neighbours and local problem, and what it is sent round by round. Vertical
protocols join a grid and its devices, a star with the grid as coordinator; horizontal ones join neighbour grids. Who
runs them, by direct calls or over a broker, is in rounds.py and run.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from zgrid.devices import Control
from zgrid.messages import Floats

Outbox: TypeAlias = Mapping[str, Floats]
"""What to send in a round: recipient -> values. Whom it does not name is sent nothing."""

Role: TypeAlias = Literal["peer", "coordinator", "subordinate"]
Status: TypeAlias = Literal["converged", "max_rounds", "timeout"]


class Heard(NamedTuple):
    """One message of a neighbour, and its age: rounds since it was due, 0 in time."""

    values: Floats
    age: int = 0


Inbox: TypeAlias = Mapping[str, Sequence[Heard]]
"""What came in a round: every neighbour, in the order of the weights -> its messages, oldest first, possibly none."""


class Participant(NamedTuple):
    """Who a protocol object stands for, and what everybody knows of the graph.

    ``weights`` maps each neighbour to the weight of its edge, in the order of the topology. ``size`` is the number of
    participants, ``diameter`` the longest shortest path between two, in edges, ``place`` this one's rank in the
    topology's order; the one of place 0 leads where a protocol needs a leader. ``names`` are the ids of all by place.
    """

    id: str
    weights: Mapping[str, float] = {}
    role: Role = "peer"
    place: int = 0
    size: int = 1
    diameter: int = 0
    names: tuple[str, ...] = ()


class Unit(NamedTuple):
    """A dispatchable source: cost a p^2 + b p + c in $/h, p within its limits in MW.

    ``cost_a`` in $/(MW^2 h), ``cost_b`` in $/MWh, ``cost_c`` in $/h, as the parameters of a generator.
    """

    id: str
    p_min_mw: float
    p_max_mw: float
    cost_a: float
    cost_b: float = 0.0
    cost_c: float = 0.0

    def at_price(self, price: float) -> float:
        """The power that earns most at a price in $/MWh: marginal cost 2 a p + b meets it, within the limits, MW."""
        if self.cost_a > 0.0:
            p_mw = (price - self.cost_b) / (2.0 * self.cost_a)
        else:
            p_mw = self.p_max_mw if price >= self.cost_b else self.p_min_mw
        return min(max(p_mw, self.p_min_mw), self.p_max_mw)

    def cost_per_h(self, p_mw: float) -> float:
        """Cost of running at ``p_mw``, $/h."""
        return (self.cost_a * p_mw + self.cost_b) * p_mw + self.cost_c


class Local(NamedTuple):
    """A participant's own problem in one step.

    ``units`` it dispatches, ``demand_mw`` that they and those of the others shall meet together (load, less what does
    not take part), ``values`` it measures or is told, by name (``p_pcc_mw``, ``vm_mean_pu``, ``price``, ...).
    """

    values: Mapping[str, float] = {}
    units: tuple[Unit, ...] = ()
    demand_mw: float = 0.0
    dt_h: float = 1.0


class Trade(NamedTuple):
    """Energy that one participant sells another: ``energy_mwh`` > 0, at ``price`` $/MWh; each side pays ``fee`` $."""

    seller: str
    buyer: str
    energy_mwh: float
    price: float
    fee: float = 0.0


class Result(NamedTuple):
    """What a protocol has come to for this participant, feasible after any number of rounds.

    ``values`` follow the protocol's ``RESULT`` and are observed. ``dispatch_mw`` are the powers of its own units by id,
    within their limits; ``q_pu`` the reactive power its devices shall add, pu of their ratings; ``trades`` those it is
    a party to.
    """

    values: Floats = ()
    dispatch_mw: Mapping[str, float] = {}
    q_pu: float | None = None
    price: float | None = None
    trades: tuple[Trade, ...] = ()


class ProtocolConfig(BaseModel):
    """What every protocol says in a topology; a kind adds its own parameters. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str


class RoundsConfig(ProtocolConfig):
    """What a protocol that talks in rounds says too."""

    rounds: int = Field(100, ge=1, le=10_000, description="most rounds per step; one message per neighbour each")
    stop: Literal["fixed", "local", "flooded", "coordinator"] = Field(
        "fixed",
        description="when to stop before: never; each on its own, falling silent; when all know that all have "
        "converged; when the coordinator (of peers: the first) has",
    )
    tolerance: float = Field(1e-6, gt=0, description="residual at which a participant has converged")


class AveragingConfig(RoundsConfig):
    """What a protocol says that averages over edges with weights."""

    weights: Mapping[str, Mapping[str, Annotated[float, Field(gt=0)]]] | None = Field(
        None,
        description="weights of all edges, participant: {neighbour: weight}, each edge once or alike from both ends; "
        "default: Metropolis weights",
    )


class DispatchConfig(RoundsConfig):
    """What a protocol says that dispatches units for a demand."""

    load_share: float | None = Field(
        None,
        ge=0,
        description="in an environment, what the units of all grids meet together: this share of the load; "
        "default: as much as the actions ask of them",
    )


class TradingConfig(RoundsConfig):
    """What a protocol says that lets grids trade."""

    untraded_mw: float | None = Field(
        None,
        ge=0,
        description="in an environment, most power that a grid exchanges at its PCC beyond what it has "
        "traded, by plan: setpoints are cut to that; default: no limit",
    )


class Protocol(ABC):
    """One participant. ``start`` begins a step, ``on_round`` takes a round; both return what to send in the next.
    ``on_message`` is for those that answer at once; they are an :class:`EventProtocol`.

    Subclasses name the entries of their result, the roles they play, and what they tolerate: a protocol that tolerates
    ``loss`` or ``delay`` reaches the same result under it, if later.
    """

    Config: ClassVar[type[RoundsConfig]]
    RESULT: ClassVar[tuple[str, ...]] = ()
    """Names of the entries of ``Result.values``."""
    ROLES: ClassVar[tuple[Role, ...]] = ("peer",)
    TOLERATES: ClassVar[frozenset[str]] = frozenset()
    TRADES: ClassVar[bool] = False
    """Whether its results have trades, whose money then counts in the rewards."""

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        """A participant for one episode; ``rng`` is its only source of randomness."""
        self.config = config
        self.me = me
        self.rng = rng

    @classmethod
    def needs(cls, config: Any) -> tuple[str, ...]:
        """The entries of ``Local.values`` that it starts from; asked before anything starts."""
        return ()

    @classmethod
    def misfits(cls, config: Any, graph: Mapping[str, Sequence[str]]) -> list[str]:
        """What of a configuration does not fit a graph (participant -> neighbours); asked before anything starts."""
        return []

    @classmethod
    def unit_misfits(
        cls, config: Any, graph: Mapping[str, Sequence[str]], units: Mapping[str, Sequence[Unit]]
    ) -> list[str]:
        """As :meth:`misfits`, where the units of each participant are known: bounds may depend on their costs."""
        return []

    @abstractmethod
    def start(self, step: int, local: Local) -> Outbox:
        """A new step begins, with the participant's own problem; what to send in round 1."""

    @abstractmethod
    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        """A round is over, counted from 1; what to send in the next. An inbox may lack anybody's messages."""

    def on_message(self, sender: str, heard: Heard) -> Outbox | None:
        """By the clock, a message has come: what to say at once, possibly nothing. None: it is for ``on_round``."""
        return None

    @abstractmethod
    def result(self) -> Result:
        """What it has come to, feasible after any number of rounds; before the first step too, with zeros."""

    def residual(self) -> float:
        """How far it is from convergence, by what it can see; infinite where it cannot tell."""
        return float("inf")

    def done(self) -> bool:
        """Whether it has converged locally."""
        return bool(self.residual() <= self.config.tolerance)


class EventProtocol(Protocol):
    """One that answers each message by itself: by the clock as it comes, in lockstep in the order of the weights.

    In a round it says one message to a neighbour, so of several answers to the same one the last is said: a message
    should hold all there is to know, not what is to be added to an earlier one. By the clock every answer goes out;
    who answers what brings nothing new never comes to rest.
    """

    @abstractmethod
    def on_message(self, sender: str, heard: Heard) -> Outbox:
        """A message of a neighbour: what to say because of it, possibly nothing."""

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        """Answer what the inbox has, one by one, oldest first. By the clock it is empty: all has been answered."""
        outbox: dict[str, Floats] = {}
        for sender in self.me.weights:
            for heard in inbox.get(sender, ()):
                outbox.update(self.on_message(sender, heard))
        return outbox


class Controls(NamedTuple):
    """One subordinate as a vertical protocol sees it: its controls, and where their values go in its setpoint."""

    controls: tuple[Control, ...]
    positions: tuple[int, ...]
    neutral: Floats


class VerticalProtocol(ABC):
    """The coordinator's side: a grid's action becomes a setpoint for each of its devices."""

    Config: ClassVar[type[ProtocolConfig]]
    NEGOTIATION: ClassVar[type[Protocol] | None] = None
    """What grid (coordinator) and devices (subordinates) talk about before the setpoints are said, if anything."""

    def __init__(self, config: Any, devices: Sequence[Controls]) -> None:
        self.config = config
        self.devices = tuple(devices)

    @abstractmethod
    def setpoints(self, action: Floats) -> list[Floats]:
        """A setpoint for each device, in their order. ``action`` has one entry in [-1, 1] per control."""

    @classmethod
    def local_control(cls, config: Any, device: Any, name: str = "") -> LocalControl | None:
        """What the device of this name and config (``AssetConfig``) does by itself, on top of its setpoint; None:
        nothing."""
        return None


class LocalControl(ABC):
    """The subordinate's side of a vertical protocol without messages: a device corrects its setpoint by what it
    measures. One object is for one episode."""

    gain_mw_per_hz: float = 0.0
    """How much active power it gives per Hz below nominal: of a forming unit, what makes the frequency fall."""

    @abstractmethod
    def correct(self, setpoint: Floats, measured: Mapping[str, float]) -> Floats:
        """The setpoint to follow; ``measured`` by name (``vm_pu``, ``deviation_hz``), only what is known."""
