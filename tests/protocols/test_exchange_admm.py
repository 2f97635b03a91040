"""Exchange ADMM comes to the optimum by the same iterates on every graph, whatever becomes of the messages."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from dispatch_cases import CASES, FIVE, LINE, THREE, optimum, powers, problems, ring, run, settled

from zgrid.protocols import Heard, Local, Participant, Table, Unit, generator, star
from zgrid.protocols.exchange_admm import ExchangeAdmm, ExchangeAdmmConfig

STAR = star("grid", ["dg_1", "dg_2", "dg_3"])
ON_STAR = {"grid": Local(demand_mw=850.0), **{f"dg_{k}": Local(units=(unit,)) for k, unit in enumerate(THREE, 1)}}
FAULTS = [{}, {"loss": 0.05}, {"loss": 0.3, "delay": 3}, {"loss": 0.0, "delay": 5, "copies": 2}]


@pytest.mark.parametrize(
    ("case", "faults"),
    [
        pytest.param(case, faults, id=f"{case}-{faults}", marks=[] if (i + k) % 2 == 0 else pytest.mark.slow)
        for (i, case), (k, faults) in product(enumerate(CASES), enumerate(FAULTS))
    ],
)
def test_peers_come_to_the_optimum(case: str, faults: dict[str, Any]) -> None:
    units, graph, demand = CASES[case]
    parameters = {"rounds": 2500, "rho": 0.05 if case == "R4" else 0.005, "tolerance": 1e-7}
    played = run(ExchangeAdmm, parameters, graph, problems(units, demand, list(graph)), **faults)
    price, best = optimum(units, demand)
    assert powers(played) == pytest.approx(best, abs=1e-6)
    for result in played.results.values():
        assert result.values[:2] == pytest.approx((price, 0.0), abs=1e-6)
        assert result.price == result.values[0]
    assert set(played.statuses.values()) == {"converged"}


@pytest.mark.parametrize("faults", FAULTS, ids=str)
def test_a_coordinator_and_its_subordinates_come_to_the_optimum(faults: dict[str, Any]) -> None:
    played = run(ExchangeAdmm, {"rounds": 1000}, STAR, ON_STAR, **faults)
    assert powers(played) == pytest.approx(optimum(THREE, 850.0)[1], abs=1e-6)


def test_all_graphs_and_faults_go_the_same_way() -> None:
    iterates: dict[float, set[tuple[float, float]]] = {}
    for graph, faults in ((ring(3), {}), (LINE, {}), (LINE, {"loss": 0.4, "delay": 2})):
        for record in run(ExchangeAdmm, {}, graph, problems(THREE, 850.0, list(graph)), **faults).history:
            for price, mismatch, iteration in record.values:
                if iteration > 0.0:
                    iterates.setdefault(iteration, set()).add((price, mismatch))
    assert len(iterates) > 50
    assert all(len(found) == 1 for found in iterates.values())


@pytest.mark.parametrize(
    ("graph", "rounds"), [(ring(3), 1), (LINE, 2), (ring(4), 2)], ids=["ring of 3", "line of 3", "ring of 4"]
)
def test_an_iteration_takes_as_many_rounds_as_the_graph_has_edges_across(graph: Any, rounds: int) -> None:
    units = (*THREE, Unit("unit_4", 0.0, 1.0, 1.0))[: len(graph)]
    played = run(ExchangeAdmm, {"rounds": 40}, graph, problems(units, 850.0, list(graph)))
    assert {result.values[2] for result in played.results.values()} == {40 / rounds - 1}


def test_a_coordinator_tells_totals_and_subordinates_their_own_part() -> None:
    config = ExchangeAdmmConfig()
    coordinator = ExchangeAdmm(config, STAR["grid"], generator(0, "grid"))
    subordinate = ExchangeAdmm(config, STAR["dg_1"], generator(0, "dg_1"))
    assert set(coordinator.start(1, ON_STAR["grid"]).values()) == {(0.0, 0.0, 0.0, 0.0)}
    assert subordinate.start(1, ON_STAR["dg_1"]) == {"grid": (0.0, 0.0, 0.0, 0.0, 1.0, 150.0, 1.0, 0.0)}


def test_a_unit_without_curvature_is_dispatched_too() -> None:
    # The linear unit covers what the other leaves at its price: 2 x .05 p + 2 = 4 at 20.
    units = (Unit("flat", 0.0, 100.0, 0.0, 4.0), Unit("curved", 0.0, 100.0, 0.05, 2.0))
    pair = {"mg_1": ["mg_2"], "mg_2": ["mg_1"]}
    played = run(ExchangeAdmm, {"rho": 0.05}, pair, problems(units, 90.0, list(pair)))
    assert powers(played) == pytest.approx([70.0, 20.0], abs=1e-5)


def test_who_has_several_units_or_none_takes_part() -> None:
    locals = {"mg_1": Local(units=THREE[:2]), "mg_2": Local(demand_mw=850.0), "mg_3": Local(units=THREE[2:])}
    played = run(ExchangeAdmm, {}, LINE, locals, loss=0.05)
    assert powers(played) == pytest.approx(optimum(THREE, 850.0)[1], abs=1e-6)


def test_a_demand_that_cannot_be_met_ends_at_the_limits_and_says_what_is_missing() -> None:
    played = run(ExchangeAdmm, {}, ring(3), problems(THREE, 1500.0, list(ring(3))))
    assert powers(played).tolist() == [600.0, 400.0, 200.0]
    for result in played.results.values():
        assert result.values[1] == pytest.approx(300.0, abs=1e-9)
    assert set(played.statuses.values()) == {"max_rounds"}


def test_alone_it_meets_its_own_demand_at_once() -> None:
    table = Table(ExchangeAdmm, ExchangeAdmmConfig(), {"mg_1": ()})
    played = table.play({"mg_1": Local(units=THREE, demand_mw=850.0)})
    assert powers(played) == pytest.approx(optimum(THREE, 850.0)[1], abs=1e-6)
    assert played.results["mg_1"].price == pytest.approx(optimum(THREE, 850.0)[0], abs=1e-9)
    assert set(played.statuses.values()) == {"converged"}


def test_it_is_feasible_after_one_round_and_zero_before_the_first_step() -> None:
    config = ExchangeAdmmConfig(rounds=1)
    assert ExchangeAdmm(config, Participant("mg_1"), generator(0, "mg_1")).result().values == (0.0, 0.0, 0.0)
    for faults in ({}, {"loss": 1.0}):
        played = run(ExchangeAdmm, {"rounds": 1}, LINE, problems(THREE, 850.0, list(LINE)), **faults)
        assert all(unit.p_min_mw <= p <= unit.p_max_mw for unit, p in zip(THREE, powers(played), strict=True))


def test_a_warm_start_begins_where_it_was() -> None:
    locals = problems(FIVE, 300.0, list(ring(5)))
    rounds = {}
    for warm in (False, True):
        table = Table(ExchangeAdmm, ExchangeAdmmConfig(warm_start=warm, rho=0.05), ring(5))
        first, second = table.play(locals), table.play(locals, 2)
        assert powers(second) == pytest.approx(powers(first), abs=1e-6)
        rounds[warm] = settled(first, 1e-6), settled(second, 1e-6)
    assert rounds[False][0] == rounds[False][1] == rounds[True][0]
    assert rounds[True][1] < 10


def test_the_order_of_delivery_changes_nothing() -> None:
    ends = set()
    said = {"dg_1": (0.0, 0.0, 0.0, 0.0, 1.0, 150.1, 1.0, 0.0), "dg_2": (0.0, 0.0, 0.0, 0.0, 2.0, 0.2, 1.0, 0.0)}
    said["dg_3"] = (0.0, 0.0, 0.0, 0.0, 3.0, 1e9, 1.0, 0.0)
    for order in permutations(said):
        coordinator = ExchangeAdmm(ExchangeAdmmConfig(), STAR["grid"], generator(0, "grid"))
        coordinator.start(1, ON_STAR["grid"])
        outbox = coordinator.on_round(1, {name: [Heard(said[name])] for name in order})
        ends.add(np.array(outbox["dg_1"]).tobytes())
    assert len(ends) == 1
