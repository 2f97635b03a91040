"""An auction clears at the published prices, makes neither energy nor money, and harms nobody."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zgrid.protocols.orders import Order, Pricing, Side, clear

PRICINGS: tuple[Pricing, ...] = ("pay_as_clear", "pay_as_bid")


def units(side: Side, prices: Sequence[float], energy_mwh: float = 1.0) -> list[Order]:
    return [Order(f"{side}_{k}", side, energy_mwh, price) for k, price in enumerate(prices)]


def orders(side: Side) -> st.SearchStrategy[list[Order]]:
    """Up to 8 orders; few different prices, so that many tie."""
    prices = st.one_of(st.integers(-3, 8).map(float), st.floats(-100.0, 100.0))
    made = st.builds(lambda energy, price: (energy, price), st.floats(0.0, 50.0), prices)
    return st.lists(made, max_size=8).map(lambda all: [Order(f"{side}_{n}", side, *one) for n, one in enumerate(all)])


@pytest.mark.parametrize(
    ("asks", "bids", "price", "quantity"),
    [
        (range(1, 8), range(1, 8), 4.0, 4.0),
        (range(8, 15), range(8, 15), 11.0, 4.0),
        ((2, 3, 3, 5, 6, 7, 8), range(1, 8), 5.0, 3.0),  # 4 to 5 clear it: the 5 of k = 1
        ((10,) * 7, (1, 2, 3, 4, 10, 10, 10), 10.0, 3.0),
        ((1, 2, 5, 5, 5, 6, 7), (5,) * 7, 5.0, 5.0),
    ],
)
def test_unit_orders_clear_at_the_published_price(
    asks: Sequence[float], bids: Sequence[float], price: float, quantity: float
) -> None:
    # Only offers before bids reproduces all: the other way round the third is (5, 4), the fourth (10, 7).
    cleared = clear(units("bid", bids), units("ask", asks), k=1.0)
    assert cleared.price == price
    assert fsum(trade.energy_mwh for trade in cleared.trades) == quantity


@pytest.mark.parametrize(("k", "price"), [(0.0, 4.0), (0.25, 4.25), (0.5, 4.5), (1.0, 5.0)])
def test_k_places_the_price_between_the_ends_of_what_clears(k: float, price: float) -> None:
    # Bids 7 6 5 4, asks 2 3 3 5: three units; from 4, the highest bid left, to 5, the lowest accepted and ask left.
    assert clear(units("bid", range(1, 8)), units("ask", (2, 3, 3, 5, 6, 7, 8)), k=k).price == price


@pytest.mark.parametrize(("bid", "ask", "price"), [(3.0, 1.0, 9.0), (1.0, 3.0, 4.0)])
def test_the_rest_of_an_order_met_in_part_sets_the_price(bid: float, ask: float, price: float) -> None:
    # What is left of the bid at 9 would pay up to 9; what is left of the ask at 4 would be had for 4.
    for k in (0.0, 1.0):
        cleared = clear([Order("b", "bid", bid, 9.0)], [Order("a", "ask", ask, 4.0)], k=k)
        assert (cleared.price, cleared.trades[0].energy_mwh) == (price, 1.0)


def test_pay_as_bid_matches_the_best_with_the_best() -> None:
    cleared = clear(units("bid", (10, 10, 7), 0.1), units("ask", (4, 6), 0.1), "pay_as_bid")
    met = [(one.buyer, one.seller, one.energy_mwh, one.price) for one in cleared.trades]
    assert met == [("bid_0", "ask_0", 0.1, 10.0), ("bid_1", "ask_1", 0.1, 10.0)]
    assert cleared.price is None


@pytest.mark.parametrize("pricing", PRICINGS)
def test_orders_that_tie_are_served_in_the_order_given(pricing: Pricing) -> None:
    trades = clear(units("bid", (5, 5, 5)), units("ask", (5, 5)), pricing).trades
    assert [(one.buyer, one.seller) for one in trades] == [("bid_0", "ask_0"), ("bid_1", "ask_1")]


@pytest.mark.parametrize("pricing", PRICINGS)
def test_a_fee_is_charged_in_halves_and_stops_what_is_not_worth_it(pricing: Pricing) -> None:
    # 10 - 4 = 6 is worth a fee of 3, 7 - 6 = 1 is not. k = .5: between 7 - 1.5 and 10 - 1.5 lie the limits of the rest,
    # 5.5 (bid left) to 7.5 (ask left).
    cleared = clear(units("bid", (10, 7), 2.0), units("ask", (4, 6), 2.0), pricing, trading_fee=3.0)
    assert [(one.energy_mwh, one.price, one.fee) for one in cleared.trades] == [
        (2.0, 6.5 if pricing == "pay_as_clear" else 8.5, 3.0)
    ]


@pytest.mark.parametrize("side", ["bid", "ask"])
def test_one_side_alone_trades_nothing(side: Literal["bid", "ask"]) -> None:
    one = units(side, (1, 2))
    assert clear(one if side == "bid" else [], one if side == "ask" else []) == ((), None)


def test_rounding_leaves_no_crumbs() -> None:
    # 0.3 - 0.1 - 0.1 - 0.1 is -2.8e-17, and 0.1 + 0.2 one digit above 0.3.
    trades = clear([Order("b", "bid", 0.1 + 0.2, 2.0)], units("ask", (1, 1, 1, 1), 0.1)).trades
    assert [one.energy_mwh for one in trades] == pytest.approx([0.1, 0.1, 0.1])


@given(orders("bid"), orders("ask"), st.sampled_from(PRICINGS), st.floats(0.0, 1.0), st.floats(0.0, 5.0))
def test_energy_and_money_are_conserved_and_nobody_is_worse_off(
    bids: list[Order], asks: list[Order], pricing: Pricing, k: float, fee: float
) -> None:
    cleared = clear(bids, asks, pricing, k, fee)
    limits = {order.participant: order for order in (*bids, *asks)}
    for name, order in limits.items():
        own = [one.energy_mwh for one in cleared.trades if name in (one.buyer, one.seller)]
        assert fsum(own) <= order.energy_mwh * (1.0 + 1e-12)
    paid = got = 0.0
    for one in cleared.trades:
        assert one.energy_mwh > 0.0
        assert one.fee == pytest.approx(fee * one.energy_mwh / 2.0)
        cost, income = one.energy_mwh * one.price + one.fee, one.energy_mwh * one.price - one.fee
        assert cost <= limits[one.buyer].price * one.energy_mwh + 1e-9
        assert income >= limits[one.seller].price * one.energy_mwh - 1e-9
        paid, got = paid + cost, got + income
    assert paid - got == pytest.approx(fee * fsum(one.energy_mwh for one in cleared.trades))


@given(orders("bid"), orders("ask"), st.floats(0.0, 1.0), st.floats(0.0, 5.0))
def test_no_gainful_trade_is_left_and_one_price_suits_all(
    bids: list[Order], asks: list[Order], k: float, fee: float
) -> None:
    cleared = clear(bids, asks, k=k, trading_fee=fee)
    met = {one.participant: 0.0 for one in (*bids, *asks)}
    for trade in cleared.trades:
        assert trade.price == cleared.price
        met[trade.buyer] += trade.energy_mwh
        met[trade.seller] += trade.energy_mwh
    left_bids = [one.price for one in bids if one.energy_mwh - met[one.participant] > 1e-8]
    left_asks = [one.price for one in asks if one.energy_mwh - met[one.participant] > 1e-8]
    assert max(left_bids, default=-1e9) < min(left_asks, default=1e9) + fee + 1e-9
    if cleared.price is not None:
        assert max(left_bids, default=-1e9) - fee / 2 <= cleared.price + 1e-9
        assert min(left_asks, default=1e9) + fee / 2 >= cleared.price - 1e-9


@given(orders("bid"), orders("ask"), st.randoms(use_true_random=False))
def test_the_order_of_what_does_not_tie_changes_nothing(bids: list[Order], asks: list[Order], shuffler: object) -> None:
    def distinct(made: list[Order]) -> list[Order]:
        return list({one.price: one for one in made}.values())

    bids, asks = distinct(bids), distinct(asks)
    mixed_bids, mixed_asks = bids[:], asks[:]
    shuffler.shuffle(mixed_bids)  # type: ignore[attr-defined]
    shuffler.shuffle(mixed_asks)  # type: ignore[attr-defined]
    assert clear(mixed_bids, mixed_asks) == clear(bids, asks)
