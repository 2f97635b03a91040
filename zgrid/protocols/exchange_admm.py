"""Protocol ``exchange_admm``: units meet the demand at least cost, each told only the mean mismatch and its price."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from zgrid.messages import Floats
from zgrid.protocols.base import DispatchConfig, Inbox, Local, Outbox, Participant, Protocol, Result, RoundsConfig, Unit
from zgrid.protocols.incremental_cost_consensus import balance_price


class ExchangeAdmmConfig(DispatchConfig):
    """Parameters of exchange ADMM."""

    kind: str = "exchange_admm"
    rho: float = Field(0.005, gt=0, description="penalty on the mismatch, $/(MW^2 h); fastest near the units' 2 cost_a")
    warm_start: bool = Field(False, description="start from the powers and the price of the step before")
    rounds: int = Field(
        400,
        ge=1,
        le=10_000,
        description="most rounds per step; an iteration takes as many as the graph has edges across",
    )


class Part(NamedTuple):
    """What participants add to an iteration: power less demand, MW, number of units, and their largest change, MW."""

    net_mw: float
    units: float
    change_mw: float


class ExchangeAdmm(Protocol):
    """Exchange ADMM [Boyd et al. 2011, Distributed optimization and statistical learning via ADMM, 7.3], scaled form,
    one agent per unit, m(k) the mean over units of sum p(k) - demand:

        p_i(k+1) = argmin f_i(p) + rho/2 (p - p_i(k) + m(k) + u(k))^2 within its limits,   u(k+1) = u(k) + m(k+1)

    from p(0) = p_min, u(0) = 0; the price is -rho u. It converges for every rho > 0 and convex cost, cost_a = 0 too.
    The residual is the larger of |sum p - demand| and the largest change of a power, MW. Under demand that cannot be
    met all units end at a limit, ``mismatch_mw`` (demand less dispatch) says how much, and the price runs away.

    m is exact: a coordinator sums what its subordinates send; peers pass on what they have heard of the iteration until
    each has heard of all, so a message grows to 4 (n + 1) numbers. Messages are said again until everybody is through:
    loss, delay, duplication and reordering change no iterate, only the rounds it takes. On a star and on a ring of four
    an iteration takes two rounds, on a complete graph one.
    """

    Config: ClassVar[type[RoundsConfig]] = ExchangeAdmmConfig
    RESULT = ("lambda", "mismatch_mw", "iterations")
    ROLES = ("peer", "coordinator", "subordinate")
    TOLERATES = frozenset({"loss", "delay"})

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        super().__init__(config, me, rng)
        self._local = Local()
        self._next: dict[str, float] = {}
        self._powers: dict[str, float] = {}
        self._u = self._mismatch = 0.0
        self._residual = float("inf")
        self._iteration = 0
        """The iteration whose powers are being gathered."""
        self._total = Part(0.0, 0.0, 0.0)
        self._parts: dict[int, Part] = {}

    def start(self, step: int, local: Local) -> Outbox:
        before = self._powers if self.config.warm_start else {}
        self._u = self._u if self.config.warm_start else 0.0
        self._local = local
        self._next = {unit.id: _within(unit, before.get(unit.id, unit.p_min_mw)) for unit in local.units}
        self._residual, self._iteration, self._total = float("inf"), 0, Part(0.0, 0.0, 0.0)
        if not self.me.weights:
            self._alone()
        self._powers = self._next
        self._mismatch = local.demand_mw - sum(self._powers.values())
        self._parts = {self.me.place: self._part(0.0)}
        return self._say()

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        while self._hears(inbox):
            pass
        return self._say()

    def residual(self) -> float:
        return self._residual

    def result(self) -> Result:
        price = -self.config.rho * self._u
        return Result((price, self._mismatch, max(self._iteration - 1.0, 0.0)), self._powers, price=price)

    def _hears(self, inbox: Inbox) -> bool:
        """Take what belongs to the current iteration; whether that ends it."""
        for messages in inbox.values():
            for values, _ in messages:
                iteration, *total = values[:4]
                if iteration == self._iteration + 1:  # who says it is through with the current one
                    self._advance(Part(*total))
                    return True
                if iteration == self._iteration:
                    self._parts |= {int(values[k]): Part(*values[k + 1 : k + 4]) for k in range(4, len(values), 4)}
        if len(self._parts) < self.me.size:
            return False
        nets, units, changes = zip(*(self._parts[place] for place in sorted(self._parts)), strict=True)
        self._advance(Part(sum(nets), sum(units), max(changes)))
        return True

    def _advance(self, total: Part) -> None:
        """The parts of all are known: the next powers of the own units."""
        mean = total.net_mw / max(total.units, 1.0)
        if self._iteration > 0:
            self._u += mean
            self._residual = max(abs(total.net_mw), total.change_mw)
        self._powers, self._mismatch, self._total = self._next, -total.net_mw, total
        rho, shift = self.config.rho, mean + self._u
        self._next = {
            unit.id: _within(unit, (rho * (self._powers[unit.id] - shift) - unit.cost_b) / (2.0 * unit.cost_a + rho))
            for unit in self._local.units
        }
        self._iteration += 1
        change = max((abs(self._next[name] - before) for name, before in self._powers.items()), default=0.0)
        self._parts = {self.me.place: self._part(change)}

    def _alone(self) -> None:
        """Nobody to ask: the price of balance at once."""
        price = balance_price(self._local.units, self._local.demand_mw)
        self._next = {unit.id: unit.at_price(price) for unit in self._local.units}
        self._u, self._residual = -price / self.config.rho, 0.0

    def _part(self, change_mw: float) -> Part:
        net = sum(self._next.values()) - self._local.demand_mw
        return Part(net, float(len(self._next)), change_mw)

    def _say(self) -> Outbox:
        """The current iteration, what the one before came to, and, but for a coordinator, the parts that are known."""
        parts: Floats = ()
        if self.me.role != "coordinator":
            parts = tuple(x for place, part in sorted(self._parts.items()) for x in (float(place), *part))
        return dict.fromkeys(self.me.weights, (float(self._iteration), *self._total, *parts))


def _within(unit: Unit, p_mw: float) -> float:
    return min(max(p_mw, unit.p_min_mw), unit.p_max_mw)
