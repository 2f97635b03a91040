"""Neighbours agree on the price of balance, and with running sums on one that does balance."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from dispatch_cases import BINDING, CASES, FIVE, LINE, THREE, optimum, powers, problems, ring, run, settled
from pydantic import ValidationError

from zgrid.protocols import Heard, Local, Participant, Table, Unit, generator
from zgrid.protocols.incremental_cost_consensus import (
    IncrementalCostConsensus,
    IncrementalCostConsensusConfig,
    balance_price,
    step_bound,
)

PLAIN = {"running_sums": False, "step": 5e-3}


def one(**parameters: Any) -> IncrementalCostConsensus:
    config = IncrementalCostConsensusConfig.model_validate(parameters)
    return IncrementalCostConsensus(config, Participant("mg_1", {"mg_2": 0.5}, size=2), generator(0, "mg_1"))


def products() -> Any:
    """Every case in both forms under all faults; the default suite has each pair of these."""
    forms = ("leader", "leaderless")
    every: list[dict[str, Any]] = [
        {"loss": 0.01}, {"loss": 0.05}, {"loss": 0.3, "delay": 3}, {"loss": 0.0, "delay": 5, "copies": 2}
    ]  # fmt: skip
    found = []
    for (i, case), (j, form), (k, faults) in product(enumerate(CASES), enumerate(forms), enumerate(every)):
        marks = [] if (i + j + k) % 2 == 0 else pytest.mark.slow
        found.append(pytest.param(case, form, faults, id=f"{faults}-{form}-{case}", marks=marks))
    return pytest.mark.parametrize(("case", "form", "faults"), found)


@products()
def test_loss_and_delay_cost_rounds_and_nothing_else(case: str, form: str, faults: dict[str, Any]) -> None:
    units, graph, demand = CASES[case]
    played = run(
        IncrementalCostConsensus, {"form": form, "rounds": 1500}, graph, problems(units, demand, list(graph)), **faults
    )
    price, best = optimum(units, demand)
    assert powers(played) == pytest.approx(best, abs=1e-6)
    assert powers(played).sum() == pytest.approx(demand, abs=1e-6)
    for result in played.results.values():
        assert result.price == pytest.approx(price, abs=1e-6)
        assert result.values == pytest.approx((price, 0.0), abs=1e-6)
    assert set(played.statuses.values()) == {"converged"}


@pytest.mark.parametrize(("loss", "short"), [(0.01, 20.0), (0.05, 100.0)])
def test_the_published_form_agrees_under_loss_on_a_dispatch_that_does_not_balance(loss: float, short: float) -> None:
    locals = problems(FIVE, 300.0, list(ring(5)))
    missing = []
    for seed in range(5):
        plain = run(IncrementalCostConsensus, {**PLAIN, "rounds": 1000}, ring(5), locals, seed=seed, loss=loss)
        prices = [result.values[0] for result in plain.results.values()]
        assert max(prices) - min(prices) < 1e-9
        assert set(plain.statuses.values()) == {"converged"}  # by all that it can see
        missing.append(300.0 - powers(plain).sum())
        assert plain.imbalance_mw == pytest.approx(-missing[-1], abs=1e-9)  # which the audit of the run tells
        exact = run(IncrementalCostConsensus, {}, ring(5), locals, seed=seed, loss=loss)
        assert powers(exact).sum() == pytest.approx(300.0, abs=1e-6)
        assert exact.imbalance_mw == pytest.approx(0.0, abs=1e-6)
    assert np.mean(missing) > short


def test_without_loss_the_published_form_balances() -> None:
    plain = run(IncrementalCostConsensus, {**PLAIN, "rounds": 1000}, ring(5), problems(FIVE, 300.0, list(ring(5))))
    assert powers(plain) == pytest.approx(optimum(FIVE, 300.0)[1], abs=1e-6)


@pytest.mark.parametrize("faults", [{}, {"loss": 0.3, "delay": 2}], ids=str)
@pytest.mark.parametrize("form", ["leader", "leaderless"])
@pytest.mark.parametrize(("demand", "total", "price"), [(1500.0, 1200.0, 9.898), (200.0, 300.0, 8.238)])
def test_a_demand_that_cannot_be_met_ends_at_the_limits_and_says_what_is_missing(
    demand: float, total: float, price: float, form: str, faults: dict[str, Any]
) -> None:
    # Highest marginal cost of all: 2 x .00482 x 200 + 7.97 = 9.898; lowest: 2 x .00194 x 100 + 7.85 = 8.238.
    parameters = {"form": form, "rounds": 1000}
    played = run(IncrementalCostConsensus, parameters, LINE, problems(THREE, demand, list(LINE)), **faults)
    assert powers(played).sum() == pytest.approx(total, abs=1e-6)
    for result in played.results.values():
        assert result.values == pytest.approx((price, demand - total), abs=1e-6)
    assert set(played.statuses.values()) == {"max_rounds"}


def test_who_has_several_units_or_none_takes_part() -> None:
    locals = {"mg_1": Local(units=THREE[:2]), "mg_2": Local(demand_mw=850.0), "mg_3": Local(units=THREE[2:])}
    played = run(IncrementalCostConsensus, {}, LINE, locals, loss=0.05)
    assert powers(played) == pytest.approx(optimum(THREE, 850.0)[1], abs=1e-6)


def test_a_step_in_place_of_the_gain_leads_to_the_same() -> None:
    played = run(IncrementalCostConsensus, {"step": 1e-3}, LINE, problems(THREE, 850.0, list(LINE)), loss=0.2)
    assert powers(played) == pytest.approx(optimum(THREE, 850.0)[1], abs=1e-6)


GRAPHS = {"line of 3": LINE, "ring of 3": ring(3), "ring of 5": ring(5)}


def forms() -> Any:
    """Both forms with running sums and without on every graph; the default suite has each pair of these."""
    found = []
    for i, (name, graph) in enumerate(GRAPHS.items()):
        for j, form in enumerate(("leader", "leaderless")):
            for k, running_sums in enumerate((True, False)):
                marks = [] if (i + j + k) % 2 == 0 else pytest.mark.slow
                found.append(pytest.param(form, graph, running_sums, id=f"{name}-{form}-{running_sums}", marks=marks))
    return pytest.mark.parametrize(("form", "graph", "running_sums"), found)


@forms()
def test_the_step_bound_divides_what_converges_from_what_does_not(form: str, graph: Any, running_sums: bool) -> None:
    # Limits out of reach, so that the iteration is linear.
    units = [Unit(f"unit_{k}", -1e12, 1e12, 0.002 * (k + 1), 8.0) for k in range(len(graph))]
    parameters = {"form": form, "running_sums": running_sums, "step": 1.0, "price": 8.1, "rounds": 1500}
    config = IncrementalCostConsensusConfig.model_validate(parameters)
    bound = step_bound({name: (unit,) for name, unit in zip(graph, units, strict=True)}, graph, config)
    ends = {}
    for factor in (0.97, 1.03):
        parameters["step"] = factor * bound
        played = run(IncrementalCostConsensus, parameters, graph, problems(units, 850.0, list(graph)))
        ends[factor] = abs(powers(played).sum() - 850.0)
    assert ends[0.97] < 1e-3
    assert ends[1.03] > 1e3


@pytest.mark.parametrize("at", ["mg_1", "mg_4"])
def test_the_bound_of_the_gain_divides_what_converges_from_what_does_not(at: str) -> None:
    # A line of eight with one unit, its limits out of reach: what the others push has a long way to go.
    graph = {f"mg_{k}": [f"mg_{j}" for j in (k - 1, k + 1) if 1 <= j <= 8] for k in range(1, 9)}
    units = {name: (Unit("unit_1", -1e12, 1e12, 0.01, 8.0),) if name == at else () for name in graph}
    bound = step_bound(units, graph, IncrementalCostConsensusConfig()) * 50.0 / 8.0
    assert bound < 0.5
    locals = {name: Local(units=units[name], demand_mw=100.0) for name in graph}
    ends = {}
    for gain in (0.95 * bound, 1.05 * bound):
        config = IncrementalCostConsensusConfig(gain=gain)
        assert bool(IncrementalCostConsensus.unit_misfits(config, graph, units)) == (gain > bound)
        played = run(IncrementalCostConsensus, {"gain": gain, "rounds": 3000}, graph, locals)
        ends[gain > bound] = abs(powers(played).sum() - 800.0)
    assert ends[False] < 1e-6
    assert ends[True] > 1e6


def test_what_cannot_converge_is_a_misfit_that_says_the_bound() -> None:
    units = {name: (unit,) for name, unit in zip(LINE, THREE, strict=True)}
    bad = IncrementalCostConsensusConfig(running_sums=False, step=2e-3)
    good = IncrementalCostConsensusConfig(running_sums=False, step=1e-3)
    assert IncrementalCostConsensus.unit_misfits(bad, LINE, units) == [
        "step 0.002 is not below 0.00199, the bound for the units of mg_1, mg_2, mg_3"
    ]
    assert IncrementalCostConsensus.unit_misfits(good, LINE, units) == []
    assert IncrementalCostConsensus.unit_misfits(IncrementalCostConsensusConfig(), LINE, units) == []
    assert IncrementalCostConsensus.unit_misfits(bad, LINE, dict.fromkeys(LINE, ())) == []


def test_alone_it_meets_its_own_demand_at_once() -> None:
    table = Table(IncrementalCostConsensus, IncrementalCostConsensusConfig(), {"mg_1": ()})
    played = table.play({"mg_1": Local(units=BINDING, demand_mw=850.0)})
    assert powers(played) == pytest.approx(optimum(BINDING, 850.0)[1], abs=1e-6)
    assert played.rounds == 0
    assert set(played.statuses.values()) == {"converged"}


def test_the_balance_price_ends_at_a_limit_where_units_cannot() -> None:
    assert balance_price(THREE, 850.0) == pytest.approx(optimum(THREE, 850.0)[0], abs=1e-9)
    assert balance_price(THREE, 5000.0) == pytest.approx(9.898, abs=1e-12)
    assert balance_price(THREE, 0.0) == pytest.approx(8.238, abs=1e-12)
    assert balance_price((), 1.0) == 0.0


def test_it_is_feasible_after_one_round_and_zero_before_the_first_step() -> None:
    assert one().result().values == (0.0, 0.0)
    assert not one().done()
    played = run(IncrementalCostConsensus, {"rounds": 1}, LINE, problems(THREE, 850.0, list(LINE)), loss=1.0)
    assert all(unit.p_min_mw <= p <= unit.p_max_mw for unit, p in zip(THREE, powers(played), strict=True))
    assert set(played.statuses.values()) == {"max_rounds"}


def test_a_warm_start_begins_at_the_last_price() -> None:
    locals = problems(THREE, 850.0, list(LINE))
    rounds = {}
    for warm in (False, True):
        table = Table(IncrementalCostConsensus, IncrementalCostConsensusConfig(warm_start=warm), LINE)
        first, second = table.play(locals), table.play(locals, 2)
        assert powers(second) == pytest.approx(powers(first), abs=1e-6)
        rounds[warm] = settled(first, 1e-6), settled(second, 1e-6)
    assert rounds[False][0] == rounds[False][1] == rounds[True][0]
    assert rounds[True][1] < rounds[True][0]


def test_the_order_of_delivery_changes_nothing() -> None:
    late = [Heard((8.5, 8.0, 10.0, 4.0, 200.0, 1.0), 1), Heard((8.6, 8.0, 10.0, 6.0, 300.0, 1.5), 0)]
    ends = set()
    for order in permutations(late):
        peer = one()
        peer.start(1, Local(units=THREE[:1], demand_mw=330.0))
        peer.on_round(2, {"mg_2": order})
        ends.add(np.array(peer.result().values).tobytes())
    assert len(ends) == 1


def test_the_published_form_needs_a_step() -> None:
    with pytest.raises(ValidationError, match="step: needed where running_sums is false"):
        IncrementalCostConsensusConfig(running_sums=False)
