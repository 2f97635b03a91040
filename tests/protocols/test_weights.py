"""Weights of one's own: what they do, and what is said of those that do not lead to a mean."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import zgrid
from zgrid.errors import TopologyError
from zgrid.protocols import Local, Table, Unit, horizontal_class, peers, weight_misfits
from zgrid.protocols.average_consensus import AverageConsensus, AverageConsensusConfig
from zgrid.protocols.graph import weight_matrix
from zgrid.protocols.secondary_control import SecondaryControl

RING = {"a": ["b", "d"], "b": ["a", "c"], "c": ["b", "d"], "d": ["c", "a"]}
QUARTERS = {"a": {"b": 0.25, "d": 0.25}, "c": {"b": 0.25, "d": 0.25}}
"""Each edge once; the eigenvalues of the ring are 1 - 2 w (1 - cos(k pi / 2)), here 1, 0.5, 0 and 0.5."""
LINE = {"mg_1": ["mg_2"], "mg_2": ["mg_1", "mg_3"], "mg_3": ["mg_2"]}


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_on_a_ring_of_four_with_a_quarter_each_the_error_halves_in_every_round(rounds: int) -> None:
    values = {"a": 3.0, "b": 2.0, "c": 1.0, "d": 2.0}
    table = Table(AverageConsensus, {"rounds": rounds, "weights": QUARTERS}, RING)
    run = table.play({name: Local({"p_pcc_mw": value}) for name, value in values.items()})
    found = [result.values[0] for result in run.results.values()]
    assert found == [2.0 + 0.5**rounds, 2.0, 2.0 - 0.5**rounds, 2.0]


def test_efforts_are_averaged_by_them_too() -> None:
    config = {"rounds": 1, "value": "frequency", "integral_gain": 1.0, "weights": {"a": {"b": 0.1}}}
    table = Table(SecondaryControl, config, {"a": ["b"], "b": ["a"]})
    run = table.play({"a": Local({"deviation_hz": -1.0}), "b": Local({"deviation_hz": 0.0})})
    assert [result.values[0] for result in run.results.values()] == pytest.approx([0.9, 0.1], abs=1e-15)


def test_any_doubly_stochastic_weights_lead_to_the_published_price() -> None:
    """Wood and Wollenberg, example 3A."""
    units = {
        "mg_1": Unit("1", 150, 600, 0.001562, 7.92, 561),
        "mg_2": Unit("2", 100, 400, 0.00194, 7.85, 310),
        "mg_3": Unit("3", 50, 200, 0.00482, 7.97, 78),
    }
    weights = {"mg_1": {"mg_2": 0.2}, "mg_3": {"mg_2": 0.55}}
    kind = horizontal_class("incremental_cost_consensus")
    table = Table(kind, {"weights": weights, "rounds": 1000, "stop": "flooded", "tolerance": 1e-9}, LINE)
    run = table.play({name: Local(units=(unit,), demand_mw=850 / 3) for name, unit in units.items()})
    assert set(run.statuses.values()) == {"converged"}
    assert [result.price for result in run.results.values()] == pytest.approx([9.148263] * 3, abs=1e-6)


WRONG: dict[str, tuple[Any, list[str]]] = {
    "above the bound": (
        {"mg_2": {"mg_1": 0.7, "mg_3": 0.5}},
        ["weights of mg_2 sum to 1.2, above their bound of 1: what it keeps would be negative"],
    ),
    "not the same": (
        {"mg_1": {"mg_2": 0.3}, "mg_2": {"mg_1": 0.2, "mg_3": 0.2}},
        ["weights: mg_1 has 0.3 for mg_2, which has 0.2 for mg_1; expected the same, so that rows and columns sum to 1 "
         "(doubly stochastic)"],
    ),
    "an edge without": ({"mg_1": {"mg_2": 0.3}}, ["weights: none for the edge mg_2 - mg_3"]),
    "no edge": (
        {"mg_1": {"mg_2": 0.3, "mg_3": 0.3}, "mg_2": {"mg_3": 0.3}}, ["weights: mg_1 has no neighbour 'mg_3'"],
    ),
    "nobody": (
        {"mg_1": {"mg_2": 0.3}, "mg_2": {"mg_3": 0.3}, "mg_9": {"mg_1": 0.1}},
        ["weights: mg_9 has no neighbour 'mg_1'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_weights_that_do_not_fit_are_told_before_anything_runs(case: str) -> None:
    weights, told = WRONG[case]
    assert weight_misfits(LINE, weights) == told
    with pytest.raises(ValueError) as caught:
        Table(AverageConsensus, {"weights": weights}, LINE)
    assert str(caught.value) == "; ".join(told)


def test_two_that_only_swap_their_values_never_agree() -> None:
    (told,) = weight_misfits({"a": ["b"], "b": ["a"]}, {"a": {"b": 1.0}})
    assert told.startswith("weights: nobody keeps anything of its own, and values swing for ever")
    assert weight_misfits({"a": ["b"], "b": ["a"]}, {"a": {"b": 0.99}}) == []


def test_fitting_weights_make_a_doubly_stochastic_matrix_that_contracts() -> None:
    assert weight_misfits(RING, QUARTERS) == []
    matrix = weight_matrix(RING, QUARTERS)
    assert matrix.sum(axis=0) == pytest.approx(np.ones(4))
    assert matrix.sum(axis=1) == pytest.approx(np.ones(4))
    assert np.sort(np.abs(np.linalg.eigvalsh(matrix))) == pytest.approx([0.0, 0.5, 0.5, 1.0])


@pytest.mark.parametrize("parameters", [{"weights": {"a": {"b": 0.0}}}, {"weights": {"a": {"b": 0.1}}, "step": 0.1}])
def test_weights_are_positive_and_no_step_is_beside_them(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AverageConsensusConfig(**parameters)


def test_without_a_weight_for_its_edge_a_participant_is_not_seated() -> None:
    assert set(peers(LINE)["mg_2"].weights.values()) == {1.0 / 3.0}
    with pytest.raises(ValueError, match="none for the edge"):
        Table(AverageConsensus, {"weights": {"mg_1": {"mg_2": 0.3}}}, peers(LINE))


# ---- in a topology --------------------------------------------------------------------------------------------------

ALL = {"mg_1": {"mg_2": 0.1, "mg_3": 0.05}, "mg_2": {"mg_3": 0.1}}


def test_in_a_topology_they_are_findings() -> None:
    with pytest.raises(TopologyError) as caught:
        zgrid.parallel_env("3mg_consensus", **{"horizontal.weights": {**ALL, "mg_2": {"mg_3": 0.95}}})
    assert [(finding.path, finding.message) for finding in caught.value.findings] == [
        ("horizontal", "weights of mg_2 sum to 1.05, above their bound of 1: what it keeps would be negative")
    ]


def test_in_a_topology_they_change_the_rounds_and_not_the_dispatch_and_are_the_same_in_every_mode() -> None:
    told = []
    for overrides in ({"centralized": True}, {"message_broker": "in_memory", "centralized": False}, {}):
        weights = {"horizontal.weights": ALL} if overrides else {"centralized": True}
        with closing(zgrid.parallel_env("3mg_consensus", **{**overrides, **weights})) as env:
            env.reset(seed=0)
            _, rewards, _, _, infos = env.step(dict.fromkeys(env.agents))
            told.append((rewards, [info["rounds"] for info in infos.values()]))
    own, in_memory, metropolis = told
    assert own == in_memory
    assert own[1] != metropolis[1]
    assert list(own[0].values()) == pytest.approx(list(metropolis[0].values()), rel=1e-4)
