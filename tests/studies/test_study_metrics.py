"""What a run of a protocol alone is measured by, against values known beforehand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from zgrid.encoding import encode
from zgrid.messages import Envelope, Peer
from zgrid.protocols import Unit
from zgrid.protocols.run import Record
from zgrid.studies.case import Case, ProtocolPart, make_graph
from zgrid.studies.compare import compare
from zgrid.studies.protocol_run import optimum, play_protocol, settled_round, size_of

WOOD = [(150, 600, 0.001562, 7.92, 561), (100, 400, 0.00194, 7.85, 310), (50, 200, 0.00482, 7.97, 78)]
"""Wood and Wollenberg, Power Generation, Operation and Control, example 3A."""
UNITS = [Unit(f"a{k + 1}.unit", *numbers) for k, numbers in enumerate(WOOD)]


def part(**more: Any) -> ProtocolPart:
    units = [dict(zip(("p_min_mw", "p_max_mw", "cost_a", "cost_b", "cost_c"), row, strict=True)) for row in WOOD]
    return ProtocolPart.model_validate(
        {"graph": {"kind": "ring", "size": 3}, "units": units, "demand_mw": 850.0, **more}
    )


def test_the_optimum_is_that_of_the_book() -> None:
    price, best = optimum(UNITS, 850.0)
    assert price == pytest.approx(9.148263, abs=1e-6)
    assert list(best.values()) == pytest.approx([393.1698, 334.6038, 122.2264], abs=1e-4)
    assert sum(unit.cost_per_h(best[unit.id]) for unit in UNITS) == pytest.approx(8194.36, abs=1e-2)


def test_units_of_constant_cost_share_what_is_left() -> None:
    units = [Unit("a", 0.0, 10.0, 0.0, 5.0), Unit("b", 0.0, 10.0, 0.0, 5.0), Unit("c", 0.0, 10.0, 0.0, 7.0)]
    price, best = optimum(units, 12.0)
    assert price == pytest.approx(5.0)
    assert best == {"a": 2.0, "b": 10.0, "c": 0.0}


def test_a_dispatch_that_is_optimal_has_no_gap() -> None:
    metrics = play_protocol(part(kind="incremental_cost_consensus", config={"rounds": 400}), 0, 1e-3).metrics
    assert metrics["gap_per_h"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["cost_per_h"] == pytest.approx(8194.36, abs=1e-2)
    assert metrics["imbalance_mw"] == pytest.approx(0.0, abs=1e-3)


def test_a_dispatch_by_size_costs_more_than_it_must() -> None:
    """Ratio 0.611111: 425, 283.333, 141.667 MW, by the cost curves."""
    metrics = play_protocol(part(kind="ratio_consensus", config={"rounds": 100}), 0, 1e-6).metrics
    shares = (425.0, 850.0 / 3.0, 425.0 / 3.0)
    cost = math.fsum(unit.cost_per_h(p) for unit, p in zip(UNITS, shares, strict=True))
    assert metrics["cost_per_h"] == pytest.approx(cost, abs=1e-4)
    assert metrics["gap_per_h"] == pytest.approx(cost - 8194.356121, abs=1e-3)
    assert metrics["dispatch_gap_mw"] == pytest.approx(334.6038 - 850.0 / 3.0, abs=1e-3)
    assert metrics["price_spread"] is None


def test_messages_and_bytes_are_counted() -> None:
    metrics = play_protocol(part(kind="average_consensus", config={"rounds": 7}), 0, 1e-6).metrics
    envelope = Envelope("a1", "f" * 32, 0, 5, 1, 5, 1_700_000_000 * 10**9, Peer((0.25,)))
    one = len(b"peer/a2/a1/\0") + len(encode(envelope))
    assert metrics["messages"] == 7 * 6
    assert size_of("a1", "a2", 5, 1) == one
    assert metrics["bytes"] == 7 * 6 * one


def test_links_tell_what_became_of_messages() -> None:
    links = [{"kind": "peer", "denial": True, "source": "a1"}]
    metrics = play_protocol(part(kind="average_consensus", config={"rounds": 10}, links=links), 0, 1e-6).metrics
    assert (metrics["delivered"], metrics["lost"], metrics["late"]) == (40, 20, 0)
    assert metrics["age_max_rounds"] == 10


def test_without_faults_all_is_delivered() -> None:
    metrics = play_protocol(part(kind="average_consensus", config={"rounds": 10}), 0, 1e-6).metrics
    assert (metrics["delivered"], metrics["lost"], metrics["age_mean_rounds"]) == (60, 0, 0.0)


def test_consensus_is_measured_by_the_mean_of_all() -> None:
    one = part(kind="average_consensus", config={"rounds": 1}, values={"p_pcc_mw": [0.0, 9.0]})
    start = [local.values["p_pcc_mw"] for local in Case(one, 4).locals.values()]
    metrics = play_protocol(one, 4, 1e-6).metrics  # in a ring of three a round is enough
    assert metrics["mean_error"] == pytest.approx(0.0, abs=1e-12)
    assert max(start) - min(start) > 1.0


def test_a_vertical_protocol_has_a_coordinator_who_knows_the_demand() -> None:
    case = Case(part(kind="price_signal", graph={"kind": "star", "size": 4}), 0)
    assert [local.demand_mw for local in case.locals.values()] == [850.0, 0.0, 0.0, 0.0]
    metrics = play_protocol(part(kind="price_signal", graph={"size": 4}, config={"rounds": 300}), 0, 1e-6).metrics
    assert metrics["cost_per_h"] == pytest.approx(8194.36, abs=1e-2)


def test_problems_depend_on_the_seed_alone() -> None:
    drawn = ProtocolPart(kind="ratio_consensus")
    other = ProtocolPart.model_validate({"kind": "exchange_admm", "config": {"rho": 0.1}})
    assert Case(drawn, 3).units == Case(other, 3).units
    assert Case(drawn, 3).units != Case(drawn, 4).units


def test_settled_is_what_stays_below_the_tolerance() -> None:
    history = [Record(k, (value, 0.0), ()) for k, value in enumerate((3.0, 0.5, 2.0, 0.5, 0.1), start=1)]
    assert settled_round(history, 1.0) == 4
    assert settled_round(history, 0.01) is None
    assert settled_round([], 1.0) is None


@pytest.mark.parametrize(
    ("kind", "size", "edges"),
    [("ring", 5, 5), ("ring", 2, 1), ("line", 5, 4), ("star", 5, 4), ("complete", 5, 10), ("grid", 12, 17),
     ("grid", 7, 6), ("ring", 1, 0)],
)  # fmt: skip
def test_graphs_have_their_edges(kind: str, size: int, edges: int) -> None:
    graph = make_graph(kind, [f"a{k}" for k in range(size)])
    assert sum(map(len, graph.values())) == 2 * edges
    assert all(me in graph[other] for me, others in graph.items() for other in others)


def test_differences_are_paired_by_seed() -> None:
    rows = [
        {"run": k, "loss": loss, "seed": seed, "status": status, "error": None, "m": m}
        for k, (loss, seed, status, m) in enumerate(
            [(0, 0, "ok", 1.0), (0, 1, "ok", 5.0), (0, 2, "failed", None), (1, 0, "ok", 2.0), (1, 1, "ok", 8.0),
             (1, 2, "ok", 9.0)]
        )
    ]  # fmt: skip
    lossless, lossy = compare(rows, ["loss"], {"loss": 0})
    assert (lossless["n"], lossless["mean"], lossless["difference_mean"]) == (2, 3.0, 0.0)
    assert (lossy["n"], lossy["difference_mean"]) == (3, 2.0)
    assert lossy["difference_high"] - 2.0 == pytest.approx(12.7062)  # differences 1 and 3: t(0.975, 1)
