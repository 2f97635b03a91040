"""Protocols over links with faults: repeatable, independent of order, and as wrong or exact as they are said to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from zgrid.links import LinkConfig, Links
from zgrid.protocols import Local, Run, Table
from zgrid.protocols.average_consensus import AverageConsensus
from zgrid.protocols.ratio_consensus import RatioConsensus

NAMES = [f"mg_{k}" for k in range(1, 6)]
RING = {name: (NAMES[k - 1], NAMES[(k + 1) % 5]) for k, name in enumerate(NAMES)}
VALUES = {name: 1.5 * k * k - 2.0 for k, name in enumerate(NAMES)}  # their mean is 1.5 * 6 - 2 = 7
MEAN = 7.0
FAULTS = {
    "loss": {"loss": 0.3},
    "bursts": {"gilbert_elliott": {"p_gb": 0.1, "p_bg": 0.3}},
    "delay": {"delay": {"kind": "exponential", "mean": 1.0}, "jitter": 0.5},
    "everything": {"loss": 0.1, "delay": {"kind": "uniform", "low": 0, "high": 2}, "duplicate": 0.2, "reorder": 0.2},
}


def play(
    rule: Mapping[str, Any] | None, *, graph: Mapping[str, Sequence[str]] = RING, kind: Any = AverageConsensus,
    rounds: int = 20, steps: int = 1, seed: int = 3,
) -> Run:  # fmt: skip
    """The last of some steps."""
    links = Links([] if rule is None else [LinkConfig.model_validate(rule)], seed)
    carries = {name: ears.carry for name in graph if (ears := links.into(name)) is not None}
    table = Table(kind, {"value": "p_pcc_mw", "rounds": rounds}, graph, carries=carries)
    for step in range(1, steps + 1):
        run = table.play({name: Local({"p_pcc_mw": VALUES[name]}) for name in graph}, step)
    return run


@pytest.mark.parametrize("fault", FAULTS)
def test_two_runs_are_equal_to_the_bit(fault: str) -> None:
    assert play(FAULTS[fault], steps=3) == play(FAULTS[fault], steps=3)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_order_of_participants_and_of_neighbours_changes_nothing(fault: str) -> None:
    order = ["mg_4", "mg_1", "mg_5", "mg_3", "mg_2"]
    permuted = {name: RING[name][::-1] for name in order}
    one, other = play(FAULTS[fault]), play(FAULTS[fault], graph=permuted)
    assert {name: other.results[name] for name in NAMES} == dict(one.results)


@pytest.mark.parametrize("fault", FAULTS)
def test_another_seed_another_step_and_no_fault_differ(fault: str) -> None:
    runs = [play(FAULTS[fault]), play(FAULTS[fault], seed=4), play(FAULTS[fault], steps=2), play(None)]
    assert len({tuple(run.results[name].values for name in NAMES) for run in runs}) == 4


def test_a_rule_that_does_nothing_changes_nothing() -> None:
    assert play({"loss": 0.0}) == play(None)


def test_average_consensus_drifts_from_the_mean_under_loss_and_ratio_consensus_does_not() -> None:
    averages = play(FAULTS["loss"], rounds=300).results
    ratios = play(FAULTS["loss"], rounds=300, kind=RatioConsensus).results
    assert max(abs(result.values[0] - averages["mg_1"].values[0]) for result in averages.values()) < 1e-9
    assert abs(averages["mg_1"].values[0] - MEAN) > 0.1
    for result in ratios.values():
        assert result.values[0] == pytest.approx(MEAN, abs=1e-9)


@pytest.mark.parametrize("fault", FAULTS)
def test_ratio_consensus_is_exact_under_every_fault_but_lies(fault: str) -> None:
    for result in play(FAULTS[fault], rounds=400, kind=RatioConsensus).results.values():
        assert result.values[0] == pytest.approx(MEAN, abs=1e-9)


def test_a_partition_agrees_on_two_means() -> None:
    # a line 1-2-3-4 that is cut in the middle: VALUES are -2, -0.5, 4, 11.5
    line = {"mg_1": ["mg_2"], "mg_2": ["mg_1", "mg_3"], "mg_3": ["mg_2", "mg_4"], "mg_4": ["mg_3"]}
    run = play({"partition": [["mg_1", "mg_2"], ["mg_3", "mg_4"]]}, graph=line, rounds=200)
    values = {name: run.results[name].values[0] for name in line}
    assert values == pytest.approx({"mg_1": -1.25, "mg_2": -1.25, "mg_3": 7.75, "mg_4": 7.75}, abs=1e-9)


def test_a_round_of_two_with_false_data_by_hand() -> None:
    # both weights are 1/2; mg_1 (-2) hears -0.5 + 3 = 2.5 and goes to 0.25; mg_2 hears the truth and goes to -1.25
    two = {"mg_1": ["mg_2"], "mg_2": ["mg_1"]}
    run = play({"destination": "mg_1", "false_data": {"bias": 3.0}}, graph=two, rounds=1)
    assert [run.results[name].values for name in two] == [(0.25,), (-1.25,)]
