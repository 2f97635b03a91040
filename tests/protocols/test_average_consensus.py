"""Neighbours that talk to nobody else agree on the mean, as fast as theory says."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from zgrid.messages import Floats
from zgrid.protocols import (
    Graph,
    Heard,
    Local,
    Participant,
    Run,
    Table,
    generator,
    horizontal_class,
    metropolis_weights,
)
from zgrid.protocols.average_consensus import AverageConsensus, AverageConsensusConfig, step_bound


def ring(n: int) -> Graph:
    return {f"mg_{i}": (f"mg_{(i - 1) % n}", f"mg_{(i + 1) % n}") for i in range(n)}


def one(weights: Mapping[str, float], **parameters: Any) -> AverageConsensus:
    config = AverageConsensusConfig.model_validate(parameters)
    return AverageConsensus(config, Participant("mg_1", weights), generator(0, "mg_1"))


def play(graph: Graph, values: Mapping[str, float], rounds: int, **parameters: Any) -> Run:
    table = Table(AverageConsensus, AverageConsensusConfig(rounds=rounds, **parameters), graph)
    return table.play({name: Local({"p_pcc_mw": values[name]}) for name in graph})


def after(run: Run) -> dict[str, float]:
    return {name: result.values[0] for name, result in run.results.items()}


def late(rounds: int) -> Callable[[str, int, Floats | None], Sequence[Heard]]:
    """A link on which everything comes so many rounds later."""
    held: dict[tuple[str, int], Floats | None] = {}

    def carry(sender: str, round: int, values: Floats | None) -> Sequence[Heard]:
        held[sender, round] = values
        out = held.get((sender, round - rounds))
        return () if out is None else (Heard(out, rounds),)

    return carry


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
    run = play(ring(n), values, 400)
    assert after(run) == pytest.approx(dict.fromkeys(values, math.fsum(values.values()) / n), abs=1e-12)
    assert set(run.statuses.values()) == {"converged"}
    assert run.messages == 400 * 2 * n  # one message for each neighbour in each round


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_the_slowest_mode_of_a_ring_contracts_by_the_published_factor(n: int) -> None:
    # All degrees are 2, so every weight is 1/3 and the matrix is the circulant (1/3, 1/3, 0, ..., 1/3). Its slowest
    # mode is cos(2 pi i / n), with the eigenvalue 1/3 + 2/3 cos(2 pi / n) [Xiao and Boyd 2004].
    factor = (1.0 + 2.0 * math.cos(2.0 * math.pi / n)) / 3.0
    mode = {f"mg_{i}": math.cos(2.0 * math.pi * i / n) for i in range(n)}
    before: Sequence[float] = list(mode.values())
    for record in play(ring(n), mode, 4).history:
        now = [values[0] for values in record.values]
        assert now == pytest.approx([factor * x for x in before], abs=1e-12)
        before = now


def test_two_neighbours_meet_in_one_round() -> None:
    # Degrees 1 and 1: both weights are 1/2.
    run = play({"mg_1": ["mg_2"], "mg_2": ["mg_1"]}, {"mg_1": 1.0, "mg_2": 4.0}, 1)
    assert after(run) == {"mg_1": 2.5, "mg_2": 2.5}


def test_a_chain_of_three_takes_a_round_as_worked_out_by_hand() -> None:
    # Degrees 1, 2, 1: both weights are 1 / (1 + 2) = 1/3.
    # 3 + (0 - 3)/3 = 2;  0 + (3 - 0)/3 + (9 - 0)/3 = 4;  9 + (0 - 9)/3 = 6
    chain = {"mg_1": ["mg_2"], "mg_2": ["mg_1", "mg_3"], "mg_3": ["mg_2"]}
    run = play(chain, {"mg_1": 3.0, "mg_2": 0.0, "mg_3": 9.0}, 1)
    assert after(run) == pytest.approx({"mg_1": 2.0, "mg_2": 4.0, "mg_3": 6.0}, rel=1e-15)


@given(st.permutations([f"mg_{i}" for i in range(1, 6)]))
def test_the_result_does_not_depend_on_the_order_of_the_inbox(order: list[str]) -> None:
    values = {f"mg_{i}": [Heard((0.1 * i**3,))] for i in range(1, 6)}
    results = []
    for names in (sorted(order), order):
        centre = one(dict.fromkeys(sorted(order), 1.0 / 6.0))
        centre.start(1, Local({"p_pcc_mw": 0.7}))
        centre.on_round(1, {name: values[name] for name in names})
        results.append(np.float64(centre.result().values[0]).tobytes())
    assert results[0] == results[1]


def test_each_step_starts_anew_from_the_local_value() -> None:
    peer = one({"mg_2": 0.5})
    peer.start(1, Local({"p_pcc_mw": 1.0}))
    peer.on_round(1, {"mg_2": [Heard((4.0,))]})
    assert peer.start(2, Local({"p_pcc_mw": -3.0})) == {"mg_2": (-3.0,)}
    assert peer.result().values == (-3.0,)
    assert peer.residual() == math.inf


def test_the_config_chooses_the_local_value() -> None:
    peer = one({"mg_2": 0.5}, value="price")
    assert peer.start(1, Local({"p_pcc_mw": 1.0, "vm_mean_pu": 1.02, "price": 30.0})) == {"mg_2": (30.0,)}


def test_a_neighbour_that_is_not_heard_is_left_out() -> None:
    peer = one({"mg_2": 0.25, "mg_3": 0.25})
    peer.start(1, Local({"p_pcc_mw": 1.0}))
    peer.on_round(1, {"mg_2": [], "mg_3": [Heard((5.0,))]})
    assert peer.result().values == (2.0,)


def test_the_result_is_zero_before_the_first_step() -> None:
    assert one({"mg_2": 0.5}).result().values == (0.0,)


@pytest.mark.parametrize(
    ("delay", "margin"), [(0, 0.5), (1, 0.25), (2, 0.15451), (3, 0.11126), (4, 0.08682), (5, 0.07116)]
)
def test_the_delay_margin_of_a_ring_of_four_is_the_published_one(delay: int, margin: float) -> None:
    # x+ = x - e L x(k - d) on the eigenvalue 4 of L [Olfati-Saber and Murray 2004, in discrete time].
    assert step_bound(ring(4), delay) == pytest.approx(margin, abs=5e-6)
    values = {"mg_0": 1.0, "mg_1": -1.0, "mg_2": 1.0, "mg_3": -1.0}  # the mode of the largest eigenvalue
    grown = {}
    for factor in (0.98, 1.02):
        config = AverageConsensusConfig(rounds=2000, step=factor * margin)
        table = Table(AverageConsensus, config, ring(4), carries={name: late(delay) for name in values})
        run = table.play({name: Local({"p_pcc_mw": value}) for name, value in values.items()})
        grown[factor] = max(abs(value) for value in after(run).values())
    assert grown[0.98] < 1e-3
    assert grown[1.02] > 10.0


def test_a_delay_that_is_the_same_everywhere_leaves_the_mean() -> None:
    values = {"mg_0": 7.0, "mg_1": -1.0, "mg_2": 3.0, "mg_3": 0.0}
    config = AverageConsensusConfig(rounds=600, step=0.1)
    table = Table(AverageConsensus, config, ring(4), carries={name: late(2) for name in values})
    run = table.play({name: Local({"p_pcc_mw": value}) for name, value in values.items()})
    assert after(run) == pytest.approx(dict.fromkeys(values, 2.25), abs=1e-9)


def test_a_step_that_cannot_converge_is_a_misfit_that_says_the_bound() -> None:
    fits = AverageConsensusConfig(step=0.49)
    grows = AverageConsensusConfig(step=0.51)
    assert AverageConsensus.misfits(fits, ring(4)) == []
    assert AverageConsensus.misfits(AverageConsensusConfig(), ring(4)) == []
    assert AverageConsensus.misfits(grows, ring(4)) == [
        "step 0.51 is not below 0.5, the bound of this graph without delay"
    ]
    assert AverageConsensus.misfits(grows, {"mg_1": []}) == []


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


@pytest.mark.parametrize(
    "parameters", [{"rounds": 0}, {"rounds": 10_001}, {"value": "soc"}, {"gain": 1.0}, {"step": 0}]
)
def test_a_config_that_cannot_be_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(parameters))):
        horizontal_class("average_consensus").Config.model_validate({"kind": "average_consensus", **parameters})
