"""Neighbours that bargain in pairs report the same deals, and sell each unit of energy once."""

from __future__ import annotations

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
    pairs,
    play,
    play_faulty,
    problems,
)
from pydantic import ValidationError

from zgrid.protocols import Graph, Heard, Table, Trade, generator, horizontal_class, peers
from zgrid.protocols.p2p_trading import P2PTrading, P2PTradingConfig

PAIR = {"mg_1": ["mg_2"], "mg_2": ["mg_1"]}
STAR = {"mg_1": ["mg_2", "mg_3"], "mg_2": ["mg_1"], "mg_3": ["mg_1"]}
CONFIG = P2PTradingConfig.model_validate({})
SEEDS = st.integers(0, 2**32 - 1)
CAPS = st.integers(1, 40)
CONCESSIONS = st.sampled_from([0.05, 0.1, 0.3, 1.0])
FEES = st.sampled_from([0.0, 7.0])


@pytest.mark.parametrize(("cap", "traded"), [(5, 0.0), (6, 0.6)])
def test_two_meet_as_worked_out_by_hand(cap: int, traded: float) -> None:
    # Asks said in rounds 1, 2, 3: 100, 80, 60; bids after them: 40, 60, 80. So mg_2 requests at 80 in round 4, when the
    # ask is down to 20: (80 + 20) / 2. The answer goes out in round 5, its confirmation in round 6: then it counts.
    locals = {"mg_1": local(1.0, 100.0, 20.0), "mg_2": local(-0.6, 100.0, 20.0)}
    run = play(P2PTrading, {"rounds": cap, "concession": 0.25, "stop": "fixed"}, PAIR, locals)
    trades = (Trade("mg_1", "mg_2", 0.6, 50.0, 0.0),) if traded else ()
    assert run.results["mg_1"].trades == run.results["mg_2"].trades == trades
    assert run.results["mg_1"].values == (-traded, 50.0 if traded else 0.0)
    assert run.results["mg_2"].price == (50.0 if traded else None)


def test_the_higher_bid_is_served_first_and_the_other_with_what_is_left() -> None:
    # Equal first prices, so mg_3 with the higher limit bids more in each round.
    locals = {"mg_1": local(1.0, 100.0, 20.0), "mg_2": local(-0.8, 90.0, 20.0), "mg_3": local(-0.8, 100.0, 20.0)}
    run = play(P2PTrading, {"concession": 1.0}, STAR, locals)
    assert [run.results[name].values[0] for name in STAR] == pytest.approx([-1.0, 0.2, 0.8])
    assert set(run.statuses.values()) == {"converged"}


def test_a_buyer_takes_the_cheapest_first() -> None:
    # Two sellers have .5 each and fall to 30 and 20; .7 are wanted.
    locals = {"mg_1": local(-0.7, 100.0, 10.0), "mg_2": local(0.5, 80.0, 30.0), "mg_3": local(0.5, 80.0, 20.0)}
    run = play(P2PTrading, {}, STAR, locals)
    assert [run.results[name].values[0] for name in STAR] == pytest.approx([0.7, -0.2, -0.5])


def test_a_fee_is_charged_to_both_and_kept_within_the_limits() -> None:
    # At concession 1 both stand at their limits from round 1 on: 80 - 5 and 20 + 5. k = 0: the ask.
    locals = {"mg_1": local(1.0, 80.0, 20.0), "mg_2": local(-1.0, 80.0, 20.0)}
    run = play(P2PTrading, {"concession": 1.0, "k": 0.0, "trading_fee": 10.0}, PAIR, locals)
    assert run.results["mg_1"].trades == run.results["mg_2"].trades == (Trade("mg_1", "mg_2", 1.0, 25.0, 5.0),)
    assert play(P2PTrading, {"trading_fee": 61.0}, PAIR, locals).results["mg_1"].trades == ()


@given(graphs(), SEEDS, CAPS, CONCESSIONS, FEES)
@settings(max_examples=300, deadline=None)
def test_both_parties_report_a_deal_alike_after_any_number_of_rounds(
    graph: Graph, seed: int, cap: int, concession: float, fee: float
) -> None:
    locals = problems(graph, seed)
    config = {"rounds": cap, "stop": "fixed", "concession": concession, "trading_fee": fee}
    run = play(P2PTrading, config, graph, locals)
    assert_agreed(run, fee)
    assert_within_limits(run, locals, fee)


@given(graphs(), SEEDS, st.sampled_from(["fixed", "local", "flooded", "coordinator"]))
@settings(deadline=None)
def test_both_parties_agree_however_they_stop(graph: Graph, seed: int, stop: str) -> None:
    assert_agreed(play(P2PTrading, {"stop": stop}, graph, problems(graph, seed)), 0.0)


@given(graphs(), SEEDS)
@settings(deadline=None)
def test_neighbours_leave_no_gainful_deal(graph: Graph, seed: int) -> None:
    locals = problems(graph, seed)
    run = play(P2PTrading, {"rounds": 200}, graph, locals)
    assert set(run.statuses.values()) == {"converged"}
    left = {name: locals[name].values["position_mw"] * 0.25 + run.results[name].values[0] for name in graph}
    for seller in graph:
        for buyer in graph[seller]:
            if left[seller] > 1e-8 and left[buyer] < -1e-8:
                assert locals[seller].values["feed_in_price"] > locals[buyer].values["price"]


@given(graphs(), SEEDS, SEEDS, CAPS)
@settings(deadline=None)
def test_the_order_of_participants_decides_ties_only(graph: Graph, seed: int, order: int, cap: int) -> None:
    locals = problems(graph, seed)
    here, there = (
        play(P2PTrading, {"rounds": cap, "stop": "fixed"}, one, locals).results for one in (graph, mixed(graph, order))
    )
    for name in graph:
        assert here[name].values == there[name].values
        assert sorted(here[name].trades) == sorted(there[name].trades)


@given(graphs(), SEEDS, CAPS, CONCESSIONS)
@settings(max_examples=300, deadline=None)
def test_faults_of_links_make_no_money(graph: Graph, seed: int, cap: int, concession: float) -> None:
    locals = problems(graph, seed)
    config = {"rounds": cap, "stop": "fixed", "concession": concession, "trading_fee": 1.0}
    run = play_faulty(P2PTrading, config, graph, locals, seed)
    assert_no_money_made(run)
    assert_within_limits(run, locals, 1.0)
    for _, _, sold, bought in pairs(run):
        assert sold == bought[: len(sold)]
        assert len(bought) - len(sold) <= 1


@given(graphs(), SEEDS)
@settings(max_examples=40, deadline=None)
def test_what_was_lost_is_made_up_for_in_time(graph: Graph, seed: int) -> None:
    run = play_faulty(P2PTrading, {"rounds": 500, "stop": "fixed"}, graph, problems(graph, seed), seed)
    assert set(run.statuses.values()) == {"converged"}
    assert_agreed(run, 0.0)


def test_a_deal_that_the_seller_may_not_count_is_in_the_residual() -> None:
    one = P2PTrading(P2PTradingConfig.model_validate({"concession": 1.0}), peers(PAIR)["mg_2"], generator(0, "mg_2"))
    assert one.start(1, local(-1.0, 80.0, 20.0)) == {}
    offer = (1.0, 20.0, 5.0, 0.0, 0.0, 0.0, 0.0)
    assert one.on_round(1, {"mg_1": [Heard(offer)]}) == {"mg_1": (1.0, 1.0, 1.0, 80.0, 0.0)}
    answer = (1.0, 20.0, 4.0, 1.0, 1.0, 50.0, 0.0)
    assert one.on_round(2, {"mg_1": [Heard(answer), Heard(answer)]}) == {"mg_1": (1.0, 1.0, 1.0, 80.0, 1.0)}
    assert one.result().trades == ()
    assert one.on_round(3, {"mg_1": []}) == {"mg_1": (1.0, 1.0, 1.0, 80.0, 1.0)}
    assert (one.result().values, one.residual(), one.done()) == ((1.0, 50.0), 1.0, False)
    assert one.on_round(4, {"mg_1": [Heard((*answer[:-1], 1.0))]}) == {}
    assert (one.residual(), one.done()) == (0.0, True)


def test_each_step_begins_anew_and_does_not_hear_another() -> None:
    table = Table(P2PTrading, {}, STAR)
    table.play(problems(STAR, 1), step=1)
    assert table.play(problems(STAR, 2), step=2).results == play(P2PTrading, {}, STAR, problems(STAR, 2)).results
    one = P2PTrading(CONFIG, peers(PAIR)["mg_2"], generator(0, "mg_2"))
    one.start(2, local(-1.0, 80.0, 20.0))
    assert one.on_round(1, {"mg_1": [Heard((1.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0), 3)]}) == {}


def test_alone_or_before_the_first_step_it_trades_nothing() -> None:
    run = play(P2PTrading, {}, {"mg_1": []}, {"mg_1": local(1.0, 80.0, 20.0)})
    assert (run.results["mg_1"].values, run.statuses["mg_1"]) == ((0.0, 0.0), "converged")
    one = P2PTrading(CONFIG, peers(PAIR)["mg_1"], generator(0, "mg_1"))
    assert (one.result().values, one.residual()) == ((0.0, 0.0), float("inf"))


def test_fewer_rounds_than_a_deal_takes_do_not_fit() -> None:
    assert P2PTrading.misfits(P2PTradingConfig.model_validate({"rounds": 3}), PAIR)
    assert not P2PTrading.misfits(P2PTradingConfig.model_validate({"rounds": 4}), PAIR)


@pytest.mark.parametrize("parameters", [{"concession": 0.0}, {"k": -0.1}, {"trading_fee": -1.0}, {"fee": 1.0}])
def test_a_config_that_cannot_be_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(parameters))):
        horizontal_class("p2p_trading").Config.model_validate({"kind": "p2p_trading", **parameters})
