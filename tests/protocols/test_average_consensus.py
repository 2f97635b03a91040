"""Neighbours that talk to nobody else agree on the mean, as fast as theory says."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from zgrid.protocols import horizontal_class, metropolis_weights
from zgrid.protocols.average_consensus import AverageConsensus, AverageConsensusConfig

Graph = Mapping[str, Sequence[str]]


def ring(n: int) -> Graph:
    return {f"mg_{i}": (f"mg_{(i - 1) % n}", f"mg_{(i + 1) % n}") for i in range(n)}


def peer(graph: Graph, me: str, rounds: int) -> AverageConsensus:
    config = AverageConsensusConfig.model_validate({"kind": "average_consensus", "rounds": rounds})
    return AverageConsensus(config, metropolis_weights(graph, me))


def play(graph: Graph, values: Mapping[str, float], rounds: int) -> list[dict[str, float]]:
    """Let the peers talk; what each holds after every round, the begin included."""
    peers = {name: peer(graph, name, rounds) for name in graph}
    sent = {name: one.start(1, {"p_pcc_mw": values[name]}) for name, one in peers.items()}
    history = [dict(values)]
    for round in range(1, rounds + 1):
        assert all(set(outbox) == set(graph[name]) for name, outbox in sent.items())
        inboxes = {name: {other: sent[other][name] for other in graph[name]} for name in graph}
        sent = {name: one.on_round(round, inboxes[name]) for name, one in peers.items()}
        history.append({name: one.result()[0] for name, one in peers.items()})
    assert not any(sent.values()), "they go on talking after the last round"
    return history


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Undirected graphs of 2 to 8 peers, connected or not."""
    names = [f"mg_{i}" for i in range(draw(st.integers(2, 8)))]
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    edges = [pair for pair in pairs if draw(st.booleans())]
    return {name: [b if a == name else a for a, b in edges if name in (a, b)] for name in names}


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_a_ring_agrees_on_the_mean(n: int) -> None:
    rng = random.Random(n)
    values = {name: rng.uniform(-5.0, 5.0) for name in ring(n)}
    mean = math.fsum(values.values()) / n
    for value in play(ring(n), values, 400)[-1].values():
        assert value == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_the_slowest_mode_of_a_ring_contracts_by_the_published_factor(n: int) -> None:
    # All degrees are 2, so every weight is 1/3 and the matrix is the circulant (1/3, 1/3, 0, ..., 1/3). Its slowest
    # mode is cos(2 pi i / n), with the eigenvalue 1/3 + 2/3 cos(2 pi / n) [Xiao and Boyd 2004].
    factor = (1.0 + 2.0 * math.cos(2.0 * math.pi / n)) / 3.0
    mode = {f"mg_{i}": math.cos(2.0 * math.pi * i / n) for i in range(n)}
    for before, after in zip((history := play(ring(n), mode, 4)), history[1:], strict=False):
        for name in mode:
            assert after[name] == pytest.approx(factor * before[name], abs=1e-12)


def test_two_neighbours_meet_in_one_round() -> None:
    # Degrees 1 and 1: both weights are 1/2.
    assert play({"mg_1": ["mg_2"], "mg_2": ["mg_1"]}, {"mg_1": 1.0, "mg_2": 4.0}, 1)[-1] == {"mg_1": 2.5, "mg_2": 2.5}


def test_a_chain_of_three_takes_a_round_as_worked_out_by_hand() -> None:
    # Degrees 1, 2, 1: both weights are 1 / (1 + 2) = 1/3.
    # 3 + (0 - 3)/3 = 2;  0 + (3 - 0)/3 + (9 - 0)/3 = 4;  9 + (0 - 9)/3 = 6
    chain = {"mg_1": ["mg_2"], "mg_2": ["mg_1", "mg_3"], "mg_3": ["mg_2"]}
    after = play(chain, {"mg_1": 3.0, "mg_2": 0.0, "mg_3": 9.0}, 1)[-1]
    assert after == pytest.approx({"mg_1": 2.0, "mg_2": 4.0, "mg_3": 6.0}, rel=1e-15)


@given(st.permutations([f"mg_{i}" for i in range(1, 6)]))
def test_the_result_does_not_depend_on_the_order_of_the_inbox(order: list[str]) -> None:
    star = {"mg_0": [f"mg_{i}" for i in range(1, 6)], **{f"mg_{i}": ["mg_0"] for i in range(1, 6)}}
    values = {f"mg_{i}": (0.1 * i**3,) for i in range(1, 6)}
    results = []
    for names in (sorted(order), order):
        centre = peer(star, "mg_0", 1)
        centre.start(1, {"p_pcc_mw": 0.7})
        centre.on_round(1, {name: values[name] for name in names})
        results.append(np.float64(centre.result()[0]).tobytes())
    assert results[0] == results[1]


def test_each_step_starts_anew_from_the_local_value() -> None:
    one = peer({"mg_1": ["mg_2"], "mg_2": ["mg_1"]}, "mg_1", 1)
    one.start(1, {"p_pcc_mw": 1.0})
    one.on_round(1, {"mg_2": (4.0,)})
    assert one.start(2, {"p_pcc_mw": -3.0}) == {"mg_2": (-3.0,)}
    assert one.result() == (-3.0,)


def test_the_config_chooses_the_local_value() -> None:
    config = AverageConsensusConfig.model_validate({"kind": "average_consensus", "value": "price"})
    one = AverageConsensus(config, {"mg_2": 0.5})
    assert one.start(1, {"p_pcc_mw": 1.0, "vm_mean_pu": 1.02, "price": 30.0}) == {"mg_2": (30.0,)}


def test_the_result_is_zero_before_the_first_step() -> None:
    assert peer(ring(3), "mg_0", 1).result() == (0.0,)


@given(graphs())
def test_metropolis_weights_are_symmetric_and_doubly_stochastic(graph: Graph) -> None:
    names = list(graph)
    matrix = np.zeros((len(names), len(names)))
    for i, me in enumerate(names):
        for other, weight in metropolis_weights(graph, me).items():
            matrix[i, names.index(other)] = weight
    np.fill_diagonal(matrix, 1.0 - matrix.sum(axis=1))
    assert (matrix >= 0.0).all()
    assert (matrix == matrix.T).all()
    assert matrix.sum(axis=0) == pytest.approx(np.ones(len(names)), abs=1e-15 * len(names))


def test_metropolis_weights_count_the_larger_degree() -> None:
    star = {"mg_0": ["mg_1", "mg_2", "mg_3"], "mg_1": ["mg_0"], "mg_2": ["mg_0"], "mg_3": ["mg_0"]}
    assert metropolis_weights(star, "mg_0") == {"mg_1": 0.25, "mg_2": 0.25, "mg_3": 0.25}  # 1 / (1 + 3)
    assert metropolis_weights(star, "mg_1") == {"mg_0": 0.25}


@pytest.mark.parametrize("parameters", [{"rounds": 0}, {"rounds": 1001}, {"value": "soc"}, {"gain": 1.0}])
def test_a_config_that_cannot_be_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(parameters))):
        horizontal_class("average_consensus").Config.model_validate({"kind": "average_consensus", **parameters})
