"""Horizontal protocol ``double_auction``: all peers gather the same order book, and each clears it by itself."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from zgrid.messages import Floats
from zgrid.protocols.base import Inbox, Local, Outbox, Participant, Protocol, Result, RoundsConfig, TradingConfig
from zgrid.protocols.graph import Graph, diameter
from zgrid.protocols.orders import VALUES, Clearing, Order, Pricing, account, clear


class DoubleAuctionConfig(TradingConfig):
    """Parameters of the auction."""

    kind: str = "double_auction"
    rounds: int = Field(
        50, ge=1, le=10_000, description="most rounds per step; two diameters of the graph trade, three are sure of it"
    )
    stop: Literal["fixed", "local", "flooded", "coordinator"] = Field(
        "flooded", description="when to stop before, as in every protocol of rounds"
    )
    pricing: Pricing = Field(
        "pay_as_clear", description="one price for all that clears the book, or for each trade the price of its bid"
    )
    k: float = Field(0.5, ge=0, le=1, description="where among the prices that clear the book: 0 lowest, 1 highest")
    trading_fee: float = Field(0.0, ge=0, le=1e6, description="$/MWh traded, one half from each side")
    bid_share: float = Field(
        1.0, ge=0, le=1, description="a bid's place between feed-in price (0) and import price (1, what it is worth)"
    )
    ask_share: float = Field(
        0.0, ge=0, le=1, description="an ask's place between feed-in price (0, what it is worth) and import price (1)"
    )


class Entry(NamedTuple):
    """A participant's order, sold > 0 or bought < 0, and what it is known to know (see DoubleAuction)."""

    surplus_mwh: float
    price: float
    knows: int


class DoubleAuction(Protocol):
    """In each round everybody tells its neighbours the whole book it knows; orders.clear makes trades of a full one.

    With its order each spreads what it knows: 1, it has all orders; 2, it knows that all have them; 3, it knows that
    all know that. From round 2 * diameter on a buyer counts its trades at 1, a seller at 2, and at 3 a participant has
    converged. Without loss all begin to count in that round, so any two agree after any number of rounds. Under loss or
    delay, where no protocol can make both sides sure [Gray 1978, Notes on data base operating systems; levels of
    knowledge: Halpern and Moses 1990], a seller counts only what its buyer pays, and whoever has converged agrees with
    everybody it trades with. Who has not may pay what its seller does not count.

    Tolerates loss, delay, duplicates and reordering: what is lost is said again in the next round.
    """

    Config: ClassVar[type[RoundsConfig]] = DoubleAuctionConfig
    RESULT = ("traded_mwh", "trade_price")
    TRADES = True
    TOLERATES = frozenset({"loss", "delay"})

    @classmethod
    def needs(cls, config: Any) -> tuple[str, ...]:
        return VALUES

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        super().__init__(config, me, rng)
        self._step = self._round = 0
        self._book: dict[int, Entry] = {}
        self._cleared: Clearing | None = None

    @classmethod
    def misfits(cls, config: Any, graph: Graph) -> list[str]:
        needed = 2 * diameter(graph)
        if config.rounds >= needed:
            return []
        return [f"rounds: {config.rounds} of them never trade, expected at least {needed}, twice the graph's diameter"]

    def start(self, step: int, local: Local) -> Outbox:
        surplus_mwh = local.values["position_mw"] * local.dt_h
        low, high = local.values["feed_in_price"], local.values["price"]
        share = self.config.ask_share if surplus_mwh > 0.0 else self.config.bid_share
        self._step, self._round, self._cleared = step, 0, None
        self._book = {self.me.place: Entry(surplus_mwh, low + share * (high - low), 0)}
        self._think()
        return self._to_all()

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        self._round = round
        for messages in inbox.values():
            for values, _ in messages:
                self._learn(values)
        self._think()
        return self._to_all()

    def residual(self) -> float:
        """Rounds before trades may count, or participants that may not know that all have the book, if more."""
        if not self._book:
            return float("inf")
        unsure = self.me.size - sum(entry.knows >= 2 for entry in self._book.values())
        return float(max(unsure, self._first_round - self._round))

    def result(self) -> Result:
        if self._knows < 1 or self._round < self._first_round:
            return Result((0.0, 0.0))
        cleared, me = self._clearing(), self.me.id
        counted = [one for one in cleared.trades if one.buyer == me or self._knows >= 2]
        return account(me, counted, cleared.price)

    @property
    def _knows(self) -> int:
        return self._book[self.me.place].knows if self._book else 0

    @property
    def _first_round(self) -> int:
        """The round from which trades count: all have the book after one diameter, and know so after another."""
        return 2 * self.me.diameter

    def _learn(self, values: Floats) -> None:
        """Take over orders that are new and knowledge that has grown, of this step: what is late is for another."""
        if values[0] != self._step:
            return
        for k in range(1, len(values), 4):
            place, surplus_mwh, price, knows = values[k : k + 4]
            known = self._book.get(int(place))
            if place in range(self.me.size) and (known is None or known.knows < knows):
                self._book[int(place)] = Entry(surplus_mwh, price, int(knows))

    def _think(self) -> None:
        """What it knows itself: one more than the least that any other is known to know, once it has all orders."""
        if len(self._book) < self.me.size:
            return
        mine = self._book[self.me.place]
        least = min((one.knows for place, one in self._book.items() if place != self.me.place), default=2)
        self._book[self.me.place] = mine._replace(knows=min(1 + least, 3))

    def _clearing(self) -> Clearing:
        """The book cleared, in the order of the places, as everybody clears it; once per step."""
        if self._cleared is None:
            names, config = self.me.names or (self.me.id,), self.config
            orders = [
                Order(names[place], "ask" if one.surplus_mwh > 0.0 else "bid", abs(one.surplus_mwh), one.price)
                for place, one in sorted(self._book.items())
            ]
            bids, asks = ([one for one in orders if one.side == side] for side in ("bid", "ask"))
            self._cleared = clear(bids, asks, config.pricing, config.k, config.trading_fee)
        return self._cleared

    def _to_all(self) -> Outbox:
        said = [float(self._step)]
        for place, entry in self._book.items():
            said += (float(place), *entry[:2], float(entry.knows))
        return dict.fromkeys(self.me.weights, tuple(said))
