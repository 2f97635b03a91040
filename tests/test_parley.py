"""Protocols alone, each participant in a process of its own: by the clock, and when one of them fails."""

from __future__ import annotations

from typing import Any

import pytest

from zgrid.errors import NodeDiedError
from zgrid.links import Delay, LinkConfig, Links
from zgrid.parley import meet
from zgrid.participant import Job, Outcome
from zgrid.protocols import Inbox, Local, Outbox, Participant, Protocol, Result, RoundsConfig, Table, Trade, Unit
from zgrid.protocols.ratio_consensus import RatioConsensus
from zgrid.testing import line, ring

LIMITS = ((150.0, 600.0), (100.0, 400.0), (50.0, 200.0))
PROBLEMS = {
    name: Local(units=(Unit(f"{name}.dg_1", low, high, 0.1),), demand_mw=850.0 / 3.0)
    for name, (low, high) in zip(ring(3), LIMITS, strict=True)
}


class Failing(Protocol):
    """Raises in the second round, at one of them."""

    Config = RoundsConfig

    def start(self, step: int, local: Local) -> Outbox:
        return dict.fromkeys(self.me.weights, (1.0,))

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        if round == 2 and self.me.place == 0:
            raise ArithmeticError("out of patience")
        return dict.fromkeys(self.me.weights, (1.0,))

    def result(self) -> Result:
        return Result()


def test_by_the_clock_running_sums_come_to_the_published_shares() -> None:
    """The ratio is exact whatever came late: 850 MW among [150, 600], [100, 400] and [50, 200] is .611111 of each."""
    run = meet(RatioConsensus, {"rounds": 80, "tolerance": 1e-9}, ring(3), PROBLEMS, period_s=0.01)
    powers = [p for result in run.results.values() for p in result.dispatch_mw.values()]
    assert powers == pytest.approx([425.0, 283.3333333, 141.6666667], abs=1e-3)
    assert run.rounds == 80


def test_by_the_clock_a_cap_that_is_too_low_is_a_timeout() -> None:
    run = meet(RatioConsensus, {"rounds": 2, "tolerance": 1e-12}, line(3), PROBLEMS, period_s=0.01)
    assert "timeout" in run.statuses.values()
    for name, result in run.results.items():
        (unit,) = PROBLEMS[name].units
        assert unit.p_min_mw <= result.dispatch_mw[unit.id] <= unit.p_max_mw


def test_by_the_clock_who_has_converged_goes_on_listening() -> None:
    run = meet(RatioConsensus, {"rounds": 60, "stop": "local"}, line(3), PROBLEMS, period_s=0.01)
    powers = [p for result in run.results.values() for p in result.dispatch_mw.values()]
    assert sum(powers) == pytest.approx(850.0, abs=0.01)
    with pytest.raises(ValueError, match="nobody waits"):
        meet(RatioConsensus, {"stop": "flooded"}, line(3), PROBLEMS, period_s=0.01)


def test_several_steps_are_played_one_after_the_other() -> None:
    other = {name: local._replace(demand_mw=200.0) for name, local in PROBLEMS.items()}
    table = Table(RatioConsensus, {"rounds": 30}, ring(3))
    table.play(PROBLEMS, step=1)
    expected = table.play(other, step=2).results
    both = {name: [PROBLEMS[name], other[name]] for name in PROBLEMS}
    assert meet(RatioConsensus, {"rounds": 30}, ring(3), both).results == expected


def test_under_faults_of_links_processes_come_to_what_a_table_comes_to() -> None:
    rules = [LinkConfig(kind="peer", loss=0.3, duplicate=0.1, delay=Delay(kind="uniform", low=0.0, high=3.0))]
    links = Links(rules, seed=5)
    ears = {name: links.into(name) for name in PROBLEMS}
    carries = {name: one.carry for name, one in ears.items() if one is not None}
    assert carries.keys() == PROBLEMS.keys()
    here = Table(RatioConsensus, {"rounds": 40}, line(3), seed=5, carries=carries).play(PROBLEMS)
    there = meet(RatioConsensus, {"rounds": 40}, line(3), PROBLEMS, seed=5, links=rules)
    assert there.results == here.results
    assert here.results != Table(RatioConsensus, {"rounds": 40}, line(3), seed=5).play(PROBLEMS).results
    with pytest.raises(ValueError, match="lockstep"):
        meet(RatioConsensus, {}, line(3), PROBLEMS, links=rules, period_s=0.1)


def test_one_that_raises_is_named_with_its_reason() -> None:
    with pytest.raises(NodeDiedError, match="out of patience") as caught:
        meet(Failing, {"rounds": 5}, ring(3), PROBLEMS)
    assert caught.value.node == "mg_1"


def test_jobs_and_outcomes_survive_the_way_to_another_process() -> None:
    me = Participant("mg_1", {"mg_2": 1.0 / 3.0}, size=2, diameter=1, names=("mg_1", "mg_2"))
    job = Job("module:Class", {"rounds": 3}, me, [PROBLEMS["mg_1"]], 7, "run", 0.0, [{"loss": 0.5}])
    assert Job.load(job.dump()) == job
    result = Result((0.1, 1.0 / 3.0), {"mg_1.dg_1": 0.1}, 0.5, 9.148262, (Trade("mg_1", "mg_2", 0.1, 70.0, 0.05),))
    outcome: Any = Outcome(result, "converged", 3, 6)
    assert Outcome.load(outcome.dump()) == outcome
