"""Peers that gather one order book make the same trades of it, or none, or say that they cannot be sure."""

from __future__ import annotations

from math import fsum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_cases import (
    assert_agreed,
    assert_no_money_made,
    assert_within_limits,
    graphs,
    local,
    mixed,
    play,
    play_faulty,
    problems,
)
from pydantic import ValidationError

from zgrid.protocols import Graph, Heard, Table, Trade, generator, horizontal_class, peers
from zgrid.protocols.double_auction import DoubleAuction, DoubleAuctionConfig
from zgrid.protocols.graph import islands
from zgrid.protocols.orders import Order, Pricing, clear

LINE = {"mg_1": ["mg_2"], "mg_2": ["mg_1", "mg_3"], "mg_3": ["mg_2"]}
CONFIG = DoubleAuctionConfig.model_validate({})
SEEDS = st.integers(0, 2**32 - 1)
CAPS = st.integers(1, 24)
PRICINGS = st.sampled_from(["pay_as_clear", "pay_as_bid"])
FEES = st.sampled_from([0.0, 7.0])


def test_a_line_of_three_trades_as_worked_out_by_hand() -> None:
    # 2 MWh asked at 20 by mg_1; bids: mg_2 1 at 70, mg_3 3 at 60. All 2 are sold, one left over of mg_3's bid bounds
    # the price from below, its accepted part from above: 60.
    locals = {"mg_1": local(2.0, 80.0, 20.0), "mg_2": local(-1.0, 70.0, 20.0), "mg_3": local(-3.0, 60.0, 20.0)}
    run = play(DoubleAuction, {"trading_fee": 2.0}, LINE, locals)
    # The fee of 2 moves the bid of 60 to 59, which is what is left for a price.
    sales = (Trade("mg_1", "mg_2", 1.0, 59.0, 1.0), Trade("mg_1", "mg_3", 1.0, 59.0, 1.0))
    assert run.results["mg_1"].trades == sales
    assert [result.values for result in run.results.values()] == [(-2.0, 59.0), (1.0, 59.0), (1.0, 59.0)]
    assert {result.price for result in run.results.values()} == {59.0}
    assert set(run.statuses.values()) == {"converged"}


@pytest.mark.parametrize(
    ("cap", "traded", "status"), [(3, 0.0, "max_rounds"), (4, 1.0, "max_rounds"), (6, 1.0, "converged")]
)
def test_two_diameters_of_rounds_trade_and_three_are_sure(cap: int, traded: float, status: str) -> None:
    locals = {"mg_1": local(1.0, 80.0, 20.0), "mg_2": local(0.0, 70.0, 20.0), "mg_3": local(-1.0, 60.0, 20.0)}
    run = play(DoubleAuction, {"rounds": cap, "stop": "fixed"}, LINE, locals)
    assert [result.values[0] for result in run.results.values()] == [-traded, 0.0, traded]
    assert {run.statuses["mg_1"], run.statuses["mg_3"]} == {status}
    assert bool(DoubleAuction.misfits(DoubleAuctionConfig.model_validate({"rounds": cap}), LINE)) == (traded == 0.0)


def test_the_default_stops_once_all_are_sure() -> None:
    # Diameter 2: after 6 rounds all know that all know, 2 later somebody knows of that, and after 2 more all end.
    run = play(DoubleAuction, {}, LINE, problems(LINE, 1))
    assert set(run.statuses.values()) == {"converged"}
    assert run.rounds <= 10
    assert run.messages == 4 * run.rounds


@given(graphs(), SEEDS, CAPS, PRICINGS, FEES)
@settings(deadline=None)
def test_both_parties_report_a_trade_alike_after_any_number_of_rounds(
    graph: Graph, seed: int, cap: int, pricing: Pricing, fee: float
) -> None:
    config = {"rounds": cap, "stop": "fixed", "pricing": pricing, "trading_fee": fee}
    locals = problems(graph, seed)
    run = play(DoubleAuction, config, graph, locals)
    assert_agreed(run, fee)
    assert_within_limits(run, locals, fee)


@given(graphs(), SEEDS, PRICINGS, FEES)
@settings(deadline=None)
def test_every_island_clears_like_one_auctioneer(graph: Graph, seed: int, pricing: Pricing, fee: float) -> None:
    locals = problems(graph, seed)
    run = play(DoubleAuction, {"pricing": pricing, "trading_fee": fee, "k": 0.3}, graph, locals)
    for island in islands(graph):
        position = {name: locals[name].values["position_mw"] * locals[name].dt_h for name in island}
        bids = [Order(name, "bid", -e, locals[name].values["price"]) for name, e in position.items() if e < 0]
        asks = [Order(name, "ask", e, locals[name].values["feed_in_price"]) for name, e in position.items() if e > 0]
        cleared = clear(bids, asks, pricing, 0.3, fee)
        for name in island:
            assert list(run.results[name].trades) == [one for one in cleared.trades if name in one[:2]]
            assert run.statuses[name] == "converged"


@given(graphs(), SEEDS, SEEDS)
@settings(deadline=None)
def test_the_order_of_participants_decides_ties_only(graph: Graph, seed: int, order: int) -> None:
    locals = problems(graph, seed)
    assert (
        play(DoubleAuction, {}, mixed(graph, order), locals).results == play(DoubleAuction, {}, graph, locals).results
    )


@given(graphs(), SEEDS, CAPS, PRICINGS)
@settings(max_examples=300, deadline=None)
def test_faults_of_links_make_no_money(graph: Graph, seed: int, cap: int, pricing: Pricing) -> None:
    config = {"rounds": cap, "stop": "fixed", "pricing": pricing, "trading_fee": 1.0}
    locals = problems(graph, seed)
    run = play_faulty(DoubleAuction, config, graph, locals, seed)
    assert_no_money_made(run)
    assert_within_limits(run, locals, 1.0)


@given(graphs(), SEEDS)
@settings(max_examples=40, deadline=None)
def test_loss_and_delay_change_the_time_it_takes_only(graph: Graph, seed: int) -> None:
    locals = problems(graph, seed)
    run = play_faulty(DoubleAuction, {"rounds": 400}, graph, locals, seed)
    assert run.results == play(DoubleAuction, {}, graph, locals).results
    assert set(run.statuses.values()) == {"converged"}


def test_shares_bid_and_ask_between_feed_in_and_import_price() -> None:
    # Ask 20 + .25 * 80 = 40, bid 20 + .75 * 40 = 50; k = .5: 45.
    graph = {"mg_1": ["mg_2"], "mg_2": ["mg_1"]}
    locals = {"mg_1": local(1.0, 100.0, 20.0), "mg_2": local(-1.0, 60.0, 20.0)}
    run = play(DoubleAuction, {"ask_share": 0.25, "bid_share": 0.75}, graph, locals)
    assert run.results["mg_2"].trades == (Trade("mg_1", "mg_2", 1.0, 45.0, 0.0),)


def test_each_step_has_a_book_of_its_own() -> None:
    table = Table(DoubleAuction, {}, LINE)
    table.play(problems(LINE, 1), step=1)
    assert table.play(problems(LINE, 2), step=2).results == play(DoubleAuction, {}, LINE, problems(LINE, 2)).results


def test_what_is_late_from_another_step_is_not_heard() -> None:
    graph = {"mg_1": ["mg_2"], "mg_2": ["mg_1"]}
    one = DoubleAuction(CONFIG, peers(graph)["mg_1"], generator(0, "mg_1"))
    assert one.start(2, local(1.0, 80.0, 20.0)) == {"mg_2": (2.0, 0.0, 1.0, 20.0, 0.0)}
    assert one.on_round(1, {"mg_2": [Heard((1.0, 1.0, -1.0, 80.0, 1.0), 5)]}) == {"mg_2": (2.0, 0.0, 1.0, 20.0, 0.0)}
    assert one.on_round(2, {"mg_2": []})["mg_2"][-1] == 0.0


def test_alone_or_before_the_first_step_it_trades_nothing() -> None:
    run = play(DoubleAuction, {}, {"mg_1": []}, {"mg_1": local(1.0, 80.0, 20.0)})
    assert run.results["mg_1"].values == (0.0, 0.0)
    assert run.statuses == {"mg_1": "converged"}
    one = DoubleAuction(CONFIG, peers(LINE)["mg_1"], generator(0, "mg_1"))
    assert (one.result().values, one.residual()) == ((0.0, 0.0), float("inf"))


def test_the_fee_is_taken_from_both_sides() -> None:
    run = play(
        DoubleAuction,
        {"trading_fee": 4.0},
        LINE,
        {name: local(p, 80.0, 20.0) for name, p in zip(LINE, (1.0, -1.0, 0.0), strict=True)},
    )
    assert fsum(one.fee for result in run.results.values() for one in result.trades) == 4.0


@pytest.mark.parametrize(
    "parameters", [{"k": 1.1}, {"bid_share": -0.1}, {"trading_fee": -1.0}, {"pricing": "free"}, {"fee": 1.0}]
)
def test_a_config_that_cannot_be_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(parameters))):
        horizontal_class("double_auction").Config.model_validate({"kind": "double_auction", **parameters})
