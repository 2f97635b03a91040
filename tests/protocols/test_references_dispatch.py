"""Numbers to be right about: published cases of dispatch and consensus, each recomputed here by another way.

R1 and R2 are examples 3A and 3B of Wood and Wollenberg; what a count of rounds means is said where it is asserted.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from dispatch_cases import BINDING, CASES, LINE, THREE, optimum, powers, problems, ring, run

from zgrid.protocols import Local, Protocol, Run, star
from zgrid.protocols.average_consensus import AverageConsensus
from zgrid.protocols.average_consensus import step_bound as delay_margin
from zgrid.protocols.exchange_admm import ExchangeAdmm
from zgrid.protocols.incremental_cost_consensus import (
    IncrementalCostConsensus,
    IncrementalCostConsensusConfig,
    balance_price,
    step_bound,
)
from zgrid.protocols.ratio_consensus import RatioConsensus

REFERENCES = {
    "R1": (9.148263, (393.1698, 334.6038, 122.2264)),
    "R2": (8.576065, (600.0, 187.1302, 62.8698)),
    "R4": (7.299180, (66.2398, 71.6530, 47.1311, 54.9863, 59.9898)),
}
MIDDLE = {"mg_2": ["mg_1"], "mg_1": ["mg_2", "mg_3"], "mg_3": ["mg_1"]}
"""A line of three with unit 1 in the middle; unit 2 leads."""


def first_round_within(played: Run, tolerance: float, entry: int) -> int:
    """From which round on |value| of that entry stays below a tolerance at everybody."""
    outside = [r.round for r in played.history if not max(abs(v[entry]) for v in r.values) < tolerance]
    return max(outside, default=0) + 1


@pytest.mark.parametrize("case", CASES)
def test_the_optima_are_the_published_ones(case: str) -> None:
    units, _, demand = CASES[case]
    price, best = optimum(units, demand)
    assert price == pytest.approx(REFERENCES[case][0], abs=1e-6)
    assert best == pytest.approx(REFERENCES[case][1], abs=1e-4)
    assert balance_price(units, demand) == pytest.approx(price, abs=1e-9)
    inside = [(p, u) for p, u in zip(best, units, strict=True) if u.p_min_mw < p < u.p_max_mw]
    assert all(2.0 * u.cost_a * p + u.cost_b == pytest.approx(price, abs=1e-9) for p, u in inside)


def test_the_cost_of_example_3a_is_the_published_one() -> None:
    assert sum(u.cost_per_h(p) for u, p in zip(THREE, optimum(THREE, 850.0)[1], strict=True)) == pytest.approx(
        8194.36, abs=0.005
    )


@pytest.mark.parametrize("form", ["leader", "leaderless"])
@pytest.mark.parametrize("case", CASES)
def test_incremental_cost_consensus_finds_the_optimum_by_its_defaults(case: str, form: str) -> None:
    units, graph, demand = CASES[case]
    played = run(IncrementalCostConsensus, {"form": form}, graph, problems(units, demand, list(graph)))
    price, best = optimum(units, demand)
    assert powers(played) == pytest.approx(best, abs=1e-6)
    assert [result.price for result in played.results.values()] == pytest.approx([price] * len(graph), abs=1e-6)


def published(form: str, step: float, rounds: int) -> list[float]:
    """|demand - sum P| after each round of the published iteration on R1, all at once, from price 0.

    The leader is told the mismatch of all, as published; without, it is tracked.
    """
    units = (THREE[1], THREE[0], THREE[2])
    weights = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 2.0]]) / 3.0
    price = np.zeros(3)
    power = np.array([unit.at_price(0.0) for unit in units])
    tracked = np.full(3, 850.0 / 3.0) - power
    off = []
    for _ in range(rounds):
        moves = step * tracked if form == "leaderless" else step * np.array([850.0 - power.sum(), 0.0, 0.0])
        price = weights @ price + moves
        after = np.array([unit.at_price(x) for unit, x in zip(units, price, strict=True)])
        tracked = weights @ tracked - (after - power)
        power = after
        off.append(abs(850.0 - power.sum()))
    return off


def last_outside(off: list[float], tolerance: float) -> int:
    return max((k for k, x in enumerate(off, 1) if not x < tolerance), default=0)


def test_r3_the_published_iteration_takes_the_published_rounds() -> None:
    # From price 0 until |demand - sum P| stays below 1e-5 MW, on the line unit 2 - unit 1 - unit 3.
    assert last_outside(published("leader", 1e-3, 400), 1e-5) + 1 == 146
    assert last_outside(published("leaderless", 1e-3, 400), 1e-5) + 1 == 134


@pytest.mark.parametrize(("form", "rounds"), [("leader", 165), ("leaderless", 134)])
def test_r3_incremental_cost_consensus_as_published(form: str, rounds: int) -> None:
    # The leader here tracks the mismatch by messages, where the published one is told it. That takes some 20 rounds
    # more, 161 to 168 by where the demand is; the leaderless form is the published one, round by round.
    parameters = {"form": form, "running_sums": False, "step": 1e-3, "rounds": 400}
    units = (THREE[1], THREE[0], THREE[2])
    played = run(IncrementalCostConsensus, parameters, MIDDLE, problems(units, 850.0, list(MIDDLE)))
    off = [
        abs(850.0 - sum(u.at_price(v[0]) for u, v in zip(units, record.values, strict=True)))
        for record in played.history
    ]
    assert abs(last_outside(off, 1e-5) + 1 - rounds) <= (4 if form == "leader" else 0)
    assert [r.price for r in played.results.values()] == pytest.approx([optimum(THREE, 850.0)[0]] * 3, abs=1e-6)


def test_r3_the_leaderless_form_does_not_converge_at_twice_the_step() -> None:
    units = (THREE[1], THREE[0], THREE[2])
    for name, graph, order in (("middle", MIDDLE, units), ("end", LINE, THREE)):
        parameters = {"running_sums": False, "step": 2e-3, "rounds": 2000}
        config = IncrementalCostConsensusConfig.model_validate(parameters)
        bound = step_bound({who: (unit,) for who, unit in zip(graph, order, strict=True)}, graph, config)
        assert 1e-3 < bound < 2e-3, name
        played = run(IncrementalCostConsensus, parameters, graph, problems(order, 850.0, list(graph)))
        assert first_round_within(played, 1.0, 1) > 2000, name
    assert min(published("leaderless", 2e-3, 2000)[1000:]) > 1.0


@pytest.mark.parametrize(("rho", "iterations"), [(0.001, 155), (0.005, 46), (0.02, 107)])
@pytest.mark.parametrize("kind", ["ring", "star"])
def test_r7_exchange_admm_takes_the_published_iterations(rho: float, iterations: int, kind: str) -> None:
    # From p_min and u = 0 until |sum p - demand| and every change of a power are within 1e-7 MW.
    graph = ring(3) if kind == "ring" else star("grid", ["dg_1", "dg_2", "dg_3"])
    locals = (
        problems(THREE, 850.0, list(graph)[-3:])
        if kind == "ring"
        else {"grid": Local(demand_mw=850.0), **{f"dg_{k}": Local(units=(unit,)) for k, unit in enumerate(THREE, 1)}}
    )
    played = run(ExchangeAdmm, {"rho": rho, "rounds": 400, "tolerance": 1e-7}, graph, locals)
    counts = [r.values[0][2] for r in played.history if r.residuals[0] <= 1e-7]
    assert counts[0] == iterations
    assert powers(played) == pytest.approx(optimum(THREE, 850.0)[1], abs=1e-6)
    assert played.results["mg_1" if kind == "ring" else "grid"].price == pytest.approx(9.148263, abs=1e-6)


def test_r2_exchange_admm_with_binding_limits() -> None:
    played = run(ExchangeAdmm, {"tolerance": 1e-8}, ring(3), problems(BINDING, 850.0, list(ring(3))))
    assert powers(played) == pytest.approx(optimum(BINDING, 850.0)[1], abs=1e-6)


@pytest.mark.parametrize("faults", [{}, {"loss": 0.2, "delay": 2}], ids=str)
@pytest.mark.parametrize("protocol", [IncrementalCostConsensus, ExchangeAdmm, RatioConsensus])
@pytest.mark.parametrize("stop", ["flooded", "coordinator"])
def test_who_stops_by_agreement_stops_early_and_in_balance(
    protocol: type[Protocol], stop: str, faults: dict[str, float]
) -> None:
    units, graph, demand = CASES["R4"]
    parameters: dict[str, object] = {"stop": stop, "rounds": 2000}
    if protocol is ExchangeAdmm:
        parameters["rho"] = 0.05
    played = run(protocol, parameters, graph, problems(units, demand, list(graph)), **faults)
    assert played.rounds < 1000
    assert powers(played).sum() == pytest.approx(demand, abs=1e-3)
    if protocol is not RatioConsensus:
        assert powers(played) == pytest.approx(optimum(units, demand)[1], abs=1e-3)


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_r10_a_ring_contracts_by_the_second_eigenvalue(n: int) -> None:
    matrix = np.eye(n) / 3.0 + (np.roll(np.eye(n), 1, axis=0) + np.roll(np.eye(n), -1, axis=0)) / 3.0
    values, vectors = np.linalg.eigh(matrix)
    assert values[-2] == pytest.approx((1.0 + 2.0 * math.cos(2.0 * math.pi / n)) / 3.0, abs=1e-12)
    locals = {name: Local({"p_pcc_mw": float(x)}) for name, x in zip(ring(n), vectors[:, -2], strict=True)}
    after = [r.values[0] for r in run(AverageConsensus, {"rounds": 5}, ring(n), locals).results.values()]
    assert after == pytest.approx(list(values[-2] ** 5 * vectors[:, -2]), abs=1e-12)


@pytest.mark.parametrize(
    ("delay", "margin"), [(0, 0.5), (1, 0.25), (2, 0.15451), (3, 0.11126), (4, 0.08682), (5, 0.07116)]
)
def test_r11_the_delay_margin_is_where_a_root_leaves_the_unit_circle(delay: int, margin: float) -> None:
    # z^(d+1) - z^d + e l = 0 with the largest eigenvalue l = 4 of the Laplacian of a ring of four.
    bound = delay_margin(ring(4), delay)
    assert bound == pytest.approx(margin, abs=5e-6)

    def largest(step: float) -> float:
        polynomial = [1.0, -1.0, *[0.0] * delay]
        polynomial[-1] += 4.0 * step
        return float(max(abs(np.roots(polynomial))))

    assert largest(bound * (1.0 - 1e-6)) < 1.0 < largest(bound * (1.0 + 1e-6))


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("delay", [0, 3])
def test_r12_ratio_consensus_is_exact_under_loss(loss: float, delay: int) -> None:
    low, high = np.array([(unit.p_min_mw, unit.p_max_mw) for unit in THREE]).T
    ratio = (850.0 - low.sum()) / (high - low).sum()
    assert ratio == pytest.approx(0.611111, abs=1e-6)
    locals = problems(THREE, 850.0, list(ring(3)))
    played = run(RatioConsensus, {"rounds": 300}, ring(3), locals, loss=loss, delay=delay)
    for result in played.results.values():
        assert result.values == pytest.approx((ratio,), abs=1e-9)
    assert powers(played) == pytest.approx([425.0, 283.333333, 141.666667], abs=1e-6)
