"""Horizontal protocol ``p2p_trading``: neighbours bargain in pairs, each unit of energy in one deal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
from pydantic import Field

from zgrid.protocols.base import Inbox, Local, Outbox, Participant, Protocol, Result, RoundsConfig, Trade, TradingConfig
from zgrid.protocols.graph import Graph
from zgrid.protocols.orders import LEAST_MWH, VALUES, account


class P2PTradingConfig(TradingConfig):
    """Parameters of the bargaining."""

    kind: str = "p2p_trading"
    rounds: int = Field(50, ge=1, le=10_000, description="most rounds per step; no deal counts before the fourth")
    stop: Literal["fixed", "local", "flooded", "coordinator"] = Field(
        "flooded", description="when to stop before, as in every protocol of rounds"
    )
    concession: float = Field(
        0.1, gt=0, le=1, description="how far bids rise and asks fall per round, of the way from first price to limit"
    )
    k: float = Field(0.5, ge=0, le=1, description="where between ask (0) and bid (1) the price of a deal lies")
    trading_fee: float = Field(0.0, ge=0, le=1e6, description="$/MWh traded, one half from each side")


class Offer(NamedTuple):
    """Seller to buyer, each round: what it asks and has, and its answer to the buyer's last request.

    ``answered`` is that request's number, 0 before the first, ``energy_mwh`` and ``price`` the deal it became, without
    energy for a refusal. ``confirmed`` is the last answer that the buyer is known to have.
    """

    step: float
    ask: float
    available_mwh: float
    answered: float
    energy_mwh: float
    price: float
    confirmed: float


class Request(NamedTuple):
    """Buyer to seller, until it is settled: ``energy_mwh`` wanted at ``bid``, ``heard``: the last answer it has."""

    step: float
    number: float
    energy_mwh: float
    bid: float
    heard: float


class Deal(NamedTuple):
    """What a request became, the same on both sides; ``round`` is the one in which this side came to know."""

    energy_mwh: float
    price: float
    round: int


@dataclass(slots=True)
class _Pair:
    """One neighbour and the deals with it: what requests 1, 2, ... became.

    The first ``confirmed`` of them the other side is known to count. A buyer has the other fields too: the lowest ask
    and the least energy that it has heard of, and its last request, repeated until its answer is confirmed.
    """

    deals: list[Deal] = field(default_factory=list)
    confirmed: int = 0
    ask: float = float("inf")
    available_mwh: float = float("inf")
    request: Request | None = None


class Terms(NamedTuple):
    """One side's first price and the worst it accepts, $/MWh without fee, and its energy, MWh."""

    first: float
    limit: float
    energy_mwh: float

    def at(self, share: float) -> float:
        """The price after a share of the way to the limit."""
        return self.first + share * (self.limit - self.first)


class _Seller:
    """Offers what it has to all neighbours, and gives it to the highest bids that are not below its ask."""

    def __init__(self, step: int, neighbours: Mapping[str, float], terms: Terms, config: P2PTradingConfig) -> None:
        self.pairs = {name: _Pair() for name in neighbours}
        self.left_mwh = terms.energy_mwh
        self._step, self._terms, self._config = float(step), terms, config
        self._ask, self._bargains = terms.first, True

    def hear(self, round: int, inbox: Inbox) -> None:
        share = min(1.0, self._config.concession * round)
        self._ask, self._bargains = self._terms.at(share), self._config.concession * (round - 1) < 1.0
        fresh: dict[str, Request] = {}
        for name, request in _heard(inbox, Request, self._step):
            pair = self.pairs[name]
            pair.confirmed = max(pair.confirmed, int(request.heard))
            if request.number == len(pair.deals) + 1:
                fresh[name] = request
        for name, request in sorted(fresh.items(), key=lambda one: -one[1].bid):
            self._answer(round, self.pairs[name], request)

    def _answer(self, round: int, pair: _Pair, request: Request) -> None:
        energy = min(request.energy_mwh, self.left_mwh) if request.bid >= self._ask else 0.0
        energy = energy if energy > LEAST_MWH else 0.0
        self.left_mwh -= energy
        pair.deals.append(Deal(energy, self._ask + self._config.k * (request.bid - self._ask), round))

    def speak(self) -> Outbox:
        return {name: self._offer(pair) for name, pair in self.pairs.items()}

    def _offer(self, pair: _Pair) -> Offer:
        energy, price = pair.deals[-1][:2] if pair.deals else (0.0, 0.0)
        known = float(len(pair.deals)), energy, price, float(pair.confirmed)
        return Offer(self._step, self._ask, max(self.left_mwh, 0.0), *known)

    def counts(self, pair: _Pair, round: int) -> Sequence[Deal]:
        """The deals that the buyer is known to have: it counts them."""
        return pair.deals[: pair.confirmed]

    def open_mwh(self) -> float:
        """Energy that is for sale while prices still move."""
        return self.left_mwh if self._bargains else 0.0


class _Buyer:
    """Requests what it lacks where it is cheapest, if its bid is worth it; what it has requested it requests once."""

    def __init__(self, step: int, neighbours: Mapping[str, float], terms: Terms, config: P2PTradingConfig) -> None:
        self.pairs = {name: _Pair() for name in neighbours}
        self.left_mwh = terms.energy_mwh
        self._step, self._terms, self._config = float(step), terms, config
        self._bid, self._bargains = terms.first, True

    def hear(self, round: int, inbox: Inbox) -> None:
        share = min(1.0, self._config.concession * round)
        self._bid, self._bargains = self._terms.at(share), self._config.concession * (round - 1) < 1.0
        for name, offer in _heard(inbox, Offer, self._step):
            pair = self.pairs[name]
            pair.ask = min(pair.ask, offer.ask)
            pair.available_mwh = min(pair.available_mwh, offer.available_mwh)
            pair.confirmed = max(pair.confirmed, int(offer.confirmed))
            if pair.request is not None and offer.answered == pair.request.number > len(pair.deals):
                pair.deals.append(Deal(offer.energy_mwh, offer.price, round))
                self.left_mwh += pair.request.energy_mwh - offer.energy_mwh
        for pair in self._worth():
            self._request(pair)

    def _worth(self) -> list[_Pair]:
        """Whom to buy from now, the cheapest first: one request at a time to each."""
        worth = [pair for pair in self.pairs.values() if pair.ask <= self._bid and pair.available_mwh > LEAST_MWH]
        return sorted((pair for pair in worth if not _open(pair)), key=lambda pair: pair.ask)

    def _request(self, pair: _Pair) -> None:
        energy = min(self.left_mwh, pair.available_mwh)
        if energy > LEAST_MWH:
            self.left_mwh -= energy
            pair.request = Request(self._step, len(pair.deals) + 1.0, energy, self._bid, float(len(pair.deals)))

    def speak(self) -> Outbox:
        said = {}
        for name, pair in self.pairs.items():
            if pair.request is not None and (_open(pair) or pair.confirmed < len(pair.deals)):
                said[name] = pair.request._replace(heard=float(len(pair.deals)))
        return said

    def counts(self, pair: _Pair, round: int) -> Sequence[Deal]:
        """The deals that it has had time to confirm: the seller counts none that are not among them."""
        return [deal for deal in pair.deals if deal.round < round]

    def open_mwh(self) -> float:
        """Energy that it has requested, and that it lacks while prices still move or somebody has some."""
        requested = fsum(pair.request.energy_mwh for pair in self.pairs.values() if pair.request and _open(pair))
        return requested + (self.left_mwh if self._bargains or self._worth() else 0.0)


_Side: TypeAlias = _Seller | _Buyer
_Said = TypeVar("_Said", Offer, Request)


class P2PTrading(Protocol):
    """Sellers offer, buyers request, sellers answer, buyers confirm; bids rise and asks fall by the round.

    Asks begin at the import price and fall to the feed-in price, bids the other way, linearly [Faratin, Sierra and
    Jennings 1998, Negotiation decision functions for autonomous agents]. A buyer requests from the cheapest neighbour
    whose ask its bid meets, and reserves what it requests until that is answered; a seller answers the highest bids
    first, with the energy it has left, at ``ask + k (bid - ask)``. So no unit is sold or bought twice.

    Requests are numbered, one open per pair, and requests and answers are repeated until the other side is known to
    have them [Bartlett, Scantlebury and Wilkinson 1969, A note on reliable full-duplex transmission]. A buyer counts a
    deal from the round after its answer came, a seller once that is confirmed. Without loss these are the same, so any
    two agree after any number of rounds. Under loss, delay, duplicates or reordering a seller counts only what its
    buyer pays, a buyer at most one deal per pair that its seller does not count yet. The residual is that energy and
    what is open: who has converged agrees with everybody it trades with. What is traded at what price changes with the
    faults, since bargaining goes on meanwhile: it does not reach the same result under them.
    """

    Config: ClassVar[type[RoundsConfig]] = P2PTradingConfig
    RESULT = ("traded_mwh", "trade_price")
    TRADES = True

    @classmethod
    def needs(cls, config: Any) -> tuple[str, ...]:
        return VALUES

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        super().__init__(config, me, rng)
        self._side: _Side | None = None
        self._round = 0

    @classmethod
    def misfits(cls, config: Any, graph: Graph) -> list[str]:
        if config.rounds >= 4:
            return []
        return [f"rounds: {config.rounds} of them never trade, expected 4 for offer, request, answer and confirmation"]

    def start(self, step: int, local: Local) -> Outbox:
        surplus_mwh = local.values["position_mw"] * local.dt_h
        low, high = local.values["feed_in_price"], local.values["price"]
        half = self.config.trading_fee / 2.0
        self._round = 0
        if surplus_mwh > 0.0:
            terms = Terms(max(high, low + half), low + half, surplus_mwh)
            self._side = _Seller(step, self.me.weights, terms, self.config)
        else:
            terms = Terms(min(low, high - half), high - half, -surplus_mwh)
            self._side = _Buyer(step, self.me.weights, terms, self.config)
        return self._side.speak()

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        if self._side is None:
            return {}
        self._round = round
        self._side.hear(round, {name: inbox[name] for name in self.me.weights})
        return self._side.speak()

    def residual(self) -> float:
        """Energy still bargained for, and that of deals of which it cannot tell whether the other counts them, MWh."""
        side = self._side
        if side is None:
            return float("inf")
        if not self.me.weights:
            return 0.0
        unsure = [deal.energy_mwh for pair in side.pairs.values() for deal in pair.deals[pair.confirmed :]]
        return fsum(unsure) + side.open_mwh()

    def result(self) -> Result:
        if self._side is None:
            return Result((0.0, 0.0))
        return account(self.me.id, self._trades(self._side))

    def _trades(self, side: _Side) -> Iterator[Trade]:
        """The deals that count, as trades, in the order of the neighbours."""
        half = self.config.trading_fee / 2.0
        for name, pair in side.pairs.items():
            parties = (self.me.id, name) if isinstance(side, _Seller) else (name, self.me.id)
            for deal in side.counts(pair, self._round):
                if deal.energy_mwh > 0.0:
                    yield Trade(*parties, deal.energy_mwh, deal.price, half * deal.energy_mwh)


def _open(pair: _Pair) -> bool:
    """Whether a buyer's request waits for its answer."""
    return pair.request is not None and pair.request.number > len(pair.deals)


def _heard(inbox: Inbox, kind: type[_Said], step: float) -> Iterator[tuple[str, _Said]]:
    """Every message of a kind, told from the other by its length, and of this step: what is late is for another."""
    for name, messages in inbox.items():
        for values, _ in messages:
            if len(values) == len(kind._fields) and values[0] == step:
                yield name, kind(*values)
