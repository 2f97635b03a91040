"""Faults by the clock: what a link does to a message is what it does in lockstep, whenever the message comes."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest

from zgrid.links import Ears, LinkConfig

ROUNDS = 40
FAULTS: dict[str, dict[str, Any]] = {
    "loss": {"loss": 0.3},
    "bursts": {"gilbert_elliott": {"p_gb": 0.2, "p_bg": 0.3, "loss_bad": 0.8, "loss_good": 0.1}},
    "delay": {"delay": {"kind": "exponential", "mean": 1.5}, "jitter": 0.5},
    "duplicates": {"duplicate": 0.4, "delay": {"kind": "uniform", "low": 0, "high": 3}},
    "reordering": {"reorder": 0.4},
    "rate": {"rate": 0.7, "queue": 2},
    "window": {"loss": 0.5, "window": [2, 2]},
    "outage": {"outages": [[2, 2]]},
    "false data": {"false_data": {"bias": 0.5, "ramp": 0.1}},
    "replay": {"replay": 3},
}
Told = list[tuple[int, float]]
"""What is heard: the step, the value."""


def ears(rule: dict[str, Any]) -> Ears:
    return Ears([LinkConfig.model_validate(rule)], "mg_2", seed=7)


def in_lockstep(rule: dict[str, Any], steps: int = 3) -> list[list[tuple[float, int]]]:
    """What is heard in each round: in round k the number k is said."""
    one = ears(rule)
    rounds = [one.carry("mg_1", k, (float(k),)) for _ in range(steps) for k in range(1, ROUNDS + 1)]
    return [[(heard.values[0], heard.age) for heard in messages] for messages in rounds]


def by_the_clock(rule: dict[str, Any], *, behind: int = 0, bunch: int = 1, steps: int = 3) -> list[Any]:
    """As above, where messages come in bunches, so many rounds after they were said (negative: before)."""
    one, rounds = ears(rule), []
    for _ in range(steps):
        one.begin()
        said = 0
        for now in range(1, ROUNDS + 1):
            heard = list(one.due("mg_1", now))
            while now % bunch == 0 and said < min(now - behind, ROUNDS):
                said += 1
                heard += one.arrive("mg_1", said, (float(said),), now)
            rounds.append([(message.values[0], message.age) for message in heard])
        for late in range(said + 1, ROUNDS + 1):
            rounds[-1] += [(message.values[0], 0) for message in one.arrive("mg_1", late, (float(late),), ROUNDS)]
    return rounds


@pytest.mark.parametrize("fault", FAULTS)
def test_what_comes_in_its_round_becomes_what_it_becomes_in_lockstep(fault: str) -> None:
    rule = FAULTS[fault]
    assert by_the_clock(rule) == in_lockstep(rule)
    assert in_lockstep(rule) != in_lockstep({"loss": 0.0})


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("behind", "bunch"), [(3, 1), (0, 5), (-2, 1), (1, 7)])
def test_what_comes_early_late_or_in_bunches_has_the_same_fate(fault: str, behind: int, bunch: int) -> None:
    def values(rounds: list[Any]) -> list[float]:
        """Of each step, what has been heard by its end."""
        steps = [rounds[k * ROUNDS : (k + 1) * ROUNDS] for k in range(3)]
        return [sorted(value for messages in step for value, _ in messages) for step in steps]  # type: ignore[misc]

    rule = FAULTS[fault]
    assert values(by_the_clock(rule, behind=behind, bunch=bunch)) == values(in_lockstep(rule))


def test_what_is_too_old_when_it_comes_is_not_handed_over() -> None:
    rule = {"receiver": "drop", "max_age": 2}
    one = ears(rule)
    one.begin()
    assert [message.age for message in one.arrive("mg_1", 1, (1.0,), 3)] == [2]
    assert one.arrive("mg_1", 2, (2.0,), 5) == []
    assert by_the_clock({**rule, **FAULTS["delay"]}) == in_lockstep({**rule, **FAULTS["delay"]})


def test_a_clock_that_is_ahead_holds_nothing_up_and_shortens_no_delay() -> None:
    free, held = ears({"loss": 0.0}), ears({"delay": {"kind": "constant", "value": 2}})
    free.begin()
    held.begin()
    assert free.arrive("mg_1", 4, (4.0,), 3) == [((4.0,), 0)]
    assert free.due("mg_1", 4) == []
    assert held.arrive("mg_1", 4, (4.0,), 3) == []
    assert [held.due("mg_1", now) for now in (4, 5, 6, 7)] == [[], [], [((4.0,), 2)], []]


def test_of_several_messages_of_a_round_the_first_fares_as_in_lockstep_and_the_others_for_themselves() -> None:
    one, p, n = ears({"loss": 0.3}), 0.3, 3000
    one.begin()
    heard = [[bool(one.arrive("mg_1", k, (1.0,), k)) for _ in range(3)] for k in range(1, n + 1)]
    assert [bool(messages) for messages in in_lockstep({"loss": 0.3}, 1)] == [first for first, *_ in heard[:ROUNDS]]
    lost = [sum(not row[place] for row in heard) for place in range(3)]
    alike = sum(row[0] == row[1] for row in heard)
    assert all(abs(count - n * p) <= 5.0 * sqrt(n * p * (1.0 - p)) for count in lost)
    q = p * p + (1.0 - p) * (1.0 - p)  # two that have nothing to do with each other are as often alike
    assert abs(alike - n * q) <= 5.0 * sqrt(n * q * (1.0 - q))
    assert one.counts()["peer", "mg_1"].sent == 3 * n


def test_a_burst_takes_all_messages_of_a_round_and_moves_on_once_a_round() -> None:
    rule = FAULTS["bursts"] | {"gilbert_elliott": {"p_gb": 0.2, "p_bg": 0.3}}
    one = ears(rule)
    one.begin()
    heard = [{bool(one.arrive("mg_1", k, (1.0,), k)) for _ in range(3)} for k in range(1, ROUNDS + 1)]
    assert heard == [{bool(messages)} for messages in in_lockstep(rule, 1)]


def test_a_rate_makes_several_messages_of_a_round_wait() -> None:
    one = ears({"rate": 1})
    one.begin()
    now = [message.values for k in (1.0, 2.0, 3.0) for message in one.arrive("mg_1", 1, (k,), 1)]
    assert now == [(1.0,)]
    assert [one.due("mg_1", later) for later in (2, 3, 4)] == [[((2.0,), 1)], [((3.0,), 2)], []]


def test_a_link_without_faults_holds_nothing_up() -> None:
    one = Ears([], "mg_2")
    assert list(one.arrive("mg_1", 1, (1.0,), 3)) == [((1.0,), 2)]
    assert list(one.arrive("mg_1", 4, (1.0,), 3)) == [((1.0,), 0)]
    assert [*one.arrive("mg_1", 1, None, 3), *one.due("mg_1", 3)] == []


def test_bursts_move_on_through_rounds_of_which_nothing_is_heard() -> None:
    rule, said = {"gilbert_elliott": {"p_gb": 0.3, "p_bg": 0.3}}, range(3, ROUNDS + 1, 3)
    one = ears(rule)
    one.begin()
    heard = [bool(one.arrive("mg_1", k, (1.0,), k)) for k in said]
    assert heard == [bool(messages) for messages in in_lockstep(rule, 1)[2::3]]
    assert len(set(heard)) == 2


def test_nothing_outlives_its_step_by_the_clock_either() -> None:
    one = ears({"delay": {"kind": "constant", "value": 2}})
    one.begin()
    assert one.arrive("mg_1", 1, (1.0,), 1) == []
    one.begin()
    assert one.due("mg_1", 3) == []
    assert one.counts()["peer", "mg_1"].lost == 1
