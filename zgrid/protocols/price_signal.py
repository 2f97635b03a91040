"""Vertical protocol ``price_signal``: a grid and its devices settle on a price by talking, before the setpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from zgrid.protocols.base import (
    Inbox,
    Local,
    Outbox,
    Participant,
    Protocol,
    ProtocolConfig,
    Result,
    Role,
    RoundsConfig,
    Unit,
)
from zgrid.protocols.setpoint import SetpointProtocol


class PriceSignalConfig(RoundsConfig):
    """Parameters of the negotiation. ``tolerance`` is in MW: of the mismatch, of a change of an answer."""

    kind: str = "price_signal"
    step: float | None = Field(
        None,
        gt=0,
        description="g, $/MWh per MW of mismatch; default: half of the bound 2 / sum(1 / (2 a)), which devices tell",
    )
    initial_price: float = Field(0.0, description="price that the first step begins with, $/MWh; later ones are warm")
    price_min: float = Field(-1000.0, description="least price, $/MWh")
    price_max: float = Field(10_000.0, description="most price, $/MWh: what a demand beyond all limits leads to")
    linear_band: float = Field(
        0.1,
        gt=0,
        description="$/MWh: a unit without quadratic cost goes from its least to its most power while the price "
        "rises by so much around its cost, where it would jump",
    )
    patience: int = Field(
        20, ge=2, le=10_000, description="rounds after which the last answer of a silent device is taken instead"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.stop == "local":
            raise ValueError("stop: local would leave a price without the answers of devices that are content before")
        if self.price_min > self.price_max:
            raise ValueError(f"price_min {self.price_min:g} is above price_max {self.price_max:g}")
        return self


class Answer(NamedTuple):
    """What a device says: to which price, how much power in MW, and how much it rises in MW per $/MWh."""

    number: float
    p_mw: float
    slope: float


class PriceNegotiation(Protocol):
    """Dual decomposition of min sum C_i(P_i) with sum P_i = D [Boyd et al. 2011, Distributed optimization and
    statistical learning via the alternating direction method of multipliers, chapter 2].

    - coordinator: lambda <- lambda + g (D - sum P_i), within [price_min, price_max]; D is its ``demand_mw``
    - subordinate: P_i = argmin C_i(P) - lambda P, of each unit, within its limits

    Without binding limits it converges iff g < 2 / sum(1 / (2 a)), in one iteration at half of that; with limits
    it does so below that bound too, more slowly. An iteration is two rounds, price and answer. Both carry the
    price's number: the coordinator repeats a price until all have answered it, so loss and delay change when it
    gets somewhere, not where. After ``patience`` rounds it goes on with the last answer of who is silent, 0 MW where
    there was none.

    The mismatch is known to the coordinator alone; a subordinate reports 0.
    """

    Config: ClassVar[type[RoundsConfig]] = PriceSignalConfig
    RESULT = ("price", "mismatch_mw")
    ROLES: ClassVar[tuple[Role, ...]] = ("coordinator", "subordinate")
    TOLERATES = frozenset({"loss", "delay"})

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        super().__init__(config, me, rng)
        self._price = config.initial_price if me.role == "coordinator" else 0.0
        self._number = 0.0
        self._units: tuple[Unit, ...] = ()
        self._residual = float("inf")
        self._mismatch = 0.0
        self._demand = 0.0
        self._sent = self._asked = 0
        self._answers: dict[str, Answer] = {}

    @classmethod
    def unit_misfits(
        cls, config: Any, graph: Mapping[str, Sequence[str]], units: Mapping[str, Sequence[Unit]]
    ) -> list[str]:
        slope = slope_of(smoothed(unit, config.linear_band) for own in units.values() for unit in own)
        if config.step is None or slope * config.step < 2.0:
            return []
        return [
            f"price_signal: with a step of {config.step:g} $/MWh per MW the price swings and does not settle; it must "
            f"be below 2 / sum(1 / (2 a)) = {2.0 / slope:.5g}, and half of that is best"
        ]

    def start(self, step: int, local: Local) -> Outbox:
        self._residual = float("inf")
        if self.me.role != "coordinator":
            self._units = tuple(smoothed(unit, self.config.linear_band) for unit in local.units)
            return {}
        self._demand = self._mismatch = local.demand_mw
        return self._ask(0)

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        if self.me.role != "coordinator":
            return self._answer(inbox)
        for name, heard in inbox.items():
            for values, _ in heard:
                answer = Answer(*values)
                if name not in self._answers or answer.number >= self._answers[name].number:
                    self._answers[name] = answer
        missing = self._missing()
        if not missing or round - self._asked >= self.config.patience:
            self._update()
            return self._ask(round)
        if round - self._sent < 2:
            return {}
        self._sent = round
        return dict.fromkeys(missing, (self._number, self._price))

    def residual(self) -> float:
        return self._residual

    def result(self) -> Result:
        dispatch = {unit.id: unit.at_price(self._price) for unit in self._units}
        return Result((self._price, self._mismatch), dispatch, price=self._price)

    def _ask(self, round: int) -> Outbox:
        """Tell all a new price."""
        self._number += 1.0
        self._sent = self._asked = round
        return dict.fromkeys(self.me.weights, (self._number, self._price))

    def _missing(self) -> list[str]:
        """Who has not answered the price of now."""
        answers = self._answers
        return [name for name in self.me.weights if name not in answers or answers[name].number != self._number]

    def _update(self) -> None:
        answers = [self._answers[name] for name in self.me.weights if name in self._answers]
        self._mismatch = self._demand - sum(answer.p_mw for answer in answers)
        self._residual = abs(self._mismatch)
        slope = sum(answer.slope for answer in answers)
        step = self.config.step or (1.0 / slope if slope > 0.0 else 0.0)
        price = self._price + step * self._mismatch
        self._price = min(max(price, self.config.price_min), self.config.price_max)

    def _answer(self, inbox: Inbox) -> Outbox:
        """The subordinate's side: the newest price, and the powers that are best at it."""
        heard = False
        for coordinator in self.me.weights:
            for values, _ in inbox[coordinator]:
                if values[0] >= self._number:
                    self._hear(values[0], values[1])
                    heard = True
        if not heard:
            return {}
        return dict.fromkeys(self.me.weights, Answer(self._number, self._power(), slope_of(self._units)))

    def _hear(self, number: float, price: float) -> None:
        if number != self._number:  # what it means in power if no limit binds: at a limit the price still moves
            self._residual = abs(price - self._price) * slope_of(self._units)
        self._number, self._price = number, price

    def _power(self) -> float:
        return sum(unit.at_price(self._price) for unit in self._units)


class PriceSignalProtocol(SetpointProtocol):
    """The action's active powers of the dispatchable devices sum to the power that the grid wants of them; the price
    splits it. Everything else that the action sets is commanded as by ``setpoint``."""

    Config: ClassVar[type[ProtocolConfig]] = PriceSignalConfig
    NEGOTIATION: ClassVar[type[Protocol] | None] = PriceNegotiation


def smoothed(unit: Unit, band: float) -> Unit:
    """A unit without quadratic cost as one whose marginal cost rises by ``band`` $/MWh from its least to its most
    power, around what it was; others as they are."""
    width = unit.p_max_mw - unit.p_min_mw
    if unit.cost_a > 0.0 or width <= 0.0:
        return unit
    a = band / (2.0 * width)
    return unit._replace(cost_a=a, cost_b=unit.cost_b - 0.5 * band - 2.0 * a * unit.p_min_mw)


def slope_of(units: Iterable[Unit]) -> float:
    """How much the units' power rises with the price while no limit binds: sum of 1 / (2 a), MW per $/MWh."""
    return sum(1.0 / (2.0 * unit.cost_a) for unit in units if unit.cost_a > 0.0)
