"""Protocols alone, each participant in a process of its own: by the clock, and when one of them fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from zgrid.errors import NodeDiedError
from zgrid.links import Delay, LinkConfig, Links
from zgrid.parley import meet
from zgrid.participant import Job, Outcome
from zgrid.protocols import Inbox, Local, Outbox, Participant, Protocol, Result, RoundsConfig, Table, Trade, Unit, peers
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


class Listening(Protocol):
    """Says step and round, and tells what it heard of whom, with its age, as if it were a dispatch."""

    Config = RoundsConfig

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        super().__init__(config, me, rng)
        self.heard: dict[str, float] = {}

    def start(self, step: int, local: Local) -> Outbox:
        self.step = float(step)
        return dict.fromkeys(self.me.weights, (self.step, 1.0))

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        for sender, messages in inbox.items():
            self.heard |= {f"{sender} {heard.values}": float(heard.age) for heard in messages}
        return dict.fromkeys(self.me.weights, (self.step, round + 1.0))

    def result(self) -> Result:
        return Result(dispatch_mw=self.heard)


def listen(every_s: float = 0.3, *, rounds: int = 6, steps: int = 1, **rule: Any) -> dict[str, Mapping[str, float]]:
    """What three on a ring hear of each other with a rule, each message with its age."""
    rules = [LinkConfig.model_validate({"kind": "peer", **rule})]
    locals = dict.fromkeys(ring(3), [Local()] * steps)
    run = meet(Listening, {"rounds": rounds}, ring(3), locals, seed=4, period_s=every_s, links=rules)
    return {name: result.dispatch_mw for name, result in run.results.items()}


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


@pytest.mark.slow
def test_by_the_clock_what_is_lost_is_what_is_lost_in_lockstep_and_what_is_late_as_old() -> None:
    """A message that is due in its second round is two rounds old, whenever within them it really came."""
    rule: dict[str, Any] = {"loss": 0.2, "gilbert_elliott": {"p_gb": 0.2, "p_bg": 0.5}}
    rule["delay"] = {"kind": "constant", "value": 2}
    heard = listen(rounds=10, **rule)
    assert heard == listen(0.0, rounds=10, **rule)
    assert {age for ages in heard.values() for age in ages.values()} == {2.0}
    assert all(0 < len(ages) < 16 for ages in heard.values())


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({"loss": 1.0}, marks=pytest.mark.slow),
        pytest.param({"denial": True}, marks=pytest.mark.slow),
        pytest.param({"partition": [["mg_1"], ["mg_2"], ["mg_3"]]}, marks=pytest.mark.slow),
        pytest.param(
            {"delay": {"kind": "constant", "value": 2}, "receiver": "drop", "max_age": 1}, marks=pytest.mark.slow
        ),
        {"delay": {"kind": "constant", "value": 0.9}, "period_s": 0.1},  # nine rounds in lockstep, three by this clock
    ],
)
def test_by_the_clock_nothing_is_heard_where_all_is_lost_or_too_late(rule: dict[str, Any]) -> None:
    assert listen(rounds=3, **rule) == {name: {} for name in ring(3)}


@pytest.mark.slow
def test_by_the_clock_an_outage_lasts_its_steps() -> None:
    heard = listen(rounds=2, steps=2, outages=[[1, 1]])
    assert heard.keys() == set(ring(3))
    for name, neighbours in ring(3).items():
        assert set(heard[name]) == {f"{other} {(2.0, round)}" for other in neighbours for round in (1.0, 2.0)}


@pytest.mark.slow
def test_by_the_clock_running_sums_balance_under_loss() -> None:
    rules = [LinkConfig(kind="peer", loss=0.2)]
    run = meet(RatioConsensus, {"rounds": 200, "tolerance": 1e-9}, ring(3), PROBLEMS, period_s=0.01, links=rules)
    powers = [p for result in run.results.values() for p in result.dispatch_mw.values()]
    assert powers == pytest.approx([425.0, 283.3333333, 141.6666667], abs=1e-3)


def test_a_rule_in_seconds_counts_in_the_periods_of_the_clock() -> None:
    rules = [{"kind": "peer", "delay": {"kind": "constant", "value": 0.5}, "period_s": 0.2}]
    job = Job("module:Class", {}, peers(line(2))["mg_1"], [], 0, "run", 0.1, rules)
    for period_s, ages in ((0.0, {2}), (0.1, {5})):
        ears = job._replace(period_s=period_s).ears()
        heard = [ears.carry("mg_2", round, (1.0,)) for round in range(1, 10)]
        assert {one.age for messages in heard for one in messages} == ages


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
