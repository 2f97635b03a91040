"""Clearing of an order book: who sells whom how much at what price."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum
from typing import Literal, NamedTuple, TypeAlias

from zgrid.protocols.base import Result, Trade

Side: TypeAlias = Literal["bid", "ask"]
Pricing: TypeAlias = Literal["pay_as_clear", "pay_as_bid"]

VALUES = ("position_mw", "price", "feed_in_price")
"""What traders start from: their surplus, what an import costs and what a feed-in earns."""

LEAST_MWH = 1e-9
"""Energy below which nothing is traded, MWh: a milliwatt hour, far above what rounding leaves of a unit."""


class Order(NamedTuple):
    """What a participant would buy at most, or sell at least, at ``price`` $/MWh; any part of it may be traded."""

    participant: str
    side: Side
    energy_mwh: float
    price: float


class Clearing(NamedTuple):
    """The trades of an auction, and the price in $/MWh that all of them have; None: no trade, or each has its own."""

    trades: tuple[Trade, ...] = ()
    price: float | None = None


class _Match(NamedTuple):
    """Energy of a bid met by an ask, MWh, and their prices less and plus the fee, $/MWh."""

    buyer: str
    seller: str
    energy_mwh: float
    bid: float
    ask: float


def clear(
    bids: Iterable[Order],
    asks: Iterable[Order],
    pricing: Pricing = "pay_as_clear",
    k: float = 0.5,
    trading_fee: float = 0.0,
) -> Clearing:
    """Match the highest bids with the lowest asks as long as a bid is worth an ask and the fee.

    Prices that tie are served in the order given, which should be that of the participants' places. Pay as clear: all
    trade at ``k * upper + (1 - k) * lower`` of the prices at which the same energy would be traded, the k-double
    auction [Satterthwaite and Williams 1989, Bilateral trade with the sealed bid k-double auction]. Pay as bid: each
    trade has the price of its bid. ``trading_fee`` in $/MWh is charged in halves to both sides, on top of the price,
    and is part of what a limit covers: nobody pays more than the bid, or is left with less than the ask.
    """
    half = trading_fee / 2.0
    buying = sorted((one for one in bids if one.energy_mwh > LEAST_MWH), key=lambda one: -one.price)
    selling = sorted((one for one in asks if one.energy_mwh > LEAST_MWH), key=lambda one: one.price)
    matches, lower, upper = _match(buying, selling, half)
    if not matches:
        return Clearing()
    price = min(lower + k * (upper - lower), upper) if pricing == "pay_as_clear" else None
    trades = tuple(
        Trade(one.seller, one.buyer, one.energy_mwh, one.bid if price is None else price, half * one.energy_mwh)
        for one in matches
    )
    return Clearing(trades, price)


def _match(bids: Sequence[Order], asks: Sequence[Order], half: float) -> tuple[list[_Match], float, float]:
    """The matches in order of merit, and the lowest and highest price at which their energy is traded, no other.

    What is left of an order that is met in part bounds the price like an order that is not met at all.
    """
    matches: list[_Match] = []
    bid_left, ask_left = [one.energy_mwh for one in bids], [one.energy_mwh for one in asks]
    i = j = 0
    while i < len(bids) and j < len(asks) and bids[i].price - half >= asks[j].price + half:
        energy = min(bid_left[i], ask_left[j])
        bid, ask = bids[i].price - half, asks[j].price + half
        matches.append(_Match(bids[i].participant, asks[j].participant, energy, bid, ask))
        bid_left[i] -= energy
        ask_left[j] -= energy
        i += bid_left[i] <= LEAST_MWH
        j += ask_left[j] <= LEAST_MWH
    if not matches:
        return matches, 0.0, 0.0
    lower = max([matches[-1].ask, *(one.price - half for one in bids[i : i + 1])])
    upper = min([matches[-1].bid, *(one.price + half for one in asks[j : j + 1])])
    return matches, lower, upper


def account(me: str, trades: Iterable[Trade], price: float | None = None) -> Result:
    """A participant's result: its own of some trades, the energy it bought less what it sold, and their mean price.

    ``price`` is the market's; without, the mean price is.
    """
    own = tuple(one for one in trades if me in (one.seller, one.buyer))
    energy = fsum(one.energy_mwh for one in own)
    bought = fsum(one.energy_mwh if one.buyer == me else -one.energy_mwh for one in own)
    mean = fsum(one.energy_mwh * one.price for one in own) / energy if own else 0.0
    return Result((bought, mean), price=(mean if own else None) if price is None else price, trades=own)
