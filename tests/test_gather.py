"""Gather waits for one message per expected sender, whatever order they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zgrid.gather import DUPLICATE, STALE, STRANGER, TAKEN, Gather

SENDERS = ("mg_2", "mg_1", "mg_10")


def opened(step: int, round: int = 0) -> Gather[str]:
    gather: Gather[str] = Gather(SENDERS)
    gather.open(step, round)
    return gather


def test_it_is_complete_when_every_sender_was_heard() -> None:
    gather = opened(1)
    for sender in SENDERS:
        assert not gather.complete
        assert gather.add(sender, sender, 1) == TAKEN
    assert gather.complete


def test_it_is_complete_at_once_when_nobody_is_expected() -> None:
    gather: Gather[str] = Gather(())
    gather.open(1)
    assert gather.complete
    assert gather.values() == []


@given(st.permutations(SENDERS))
def test_values_are_in_the_order_of_the_expected_senders(arrival: list[str]) -> None:
    gather = opened(1)
    for sender in arrival:
        gather.add(sender, f"from {sender}", 1)
    assert gather.values() == ["from mg_2", "from mg_1", "from mg_10"]


@given(st.permutations([(sender, step, round) for sender in SENDERS for step in (1, 2) for round in (1, 2)]))
def test_any_order_of_arrival_over_steps_and_rounds_gives_the_same_values(arrival: list[tuple[str, int, int]]) -> None:
    gather = opened(1, 1)
    for sender, step, round in arrival:
        assert gather.add(sender, f"{sender} {step} {round}", step, round) == TAKEN
    assert gather.values() == [f"{sender} 1 1" for sender in SENDERS]
    for step, round in ((1, 2), (2, 1), (2, 2)):
        gather.open(step, round)
        assert gather.values() == [f"{sender} {step} {round}" for sender in SENDERS]


def test_missing_names_who_was_not_heard_in_order() -> None:
    gather = opened(1)
    gather.add("mg_1", "x", 1)
    assert gather.missing == ("mg_2", "mg_10")


def test_an_early_message_waits_for_its_step() -> None:
    gather = opened(1)
    assert gather.add("mg_1", "early", 2) == TAKEN
    assert gather.missing == SENDERS
    gather.open(2)
    assert gather.missing == ("mg_2", "mg_10")


def test_an_early_message_waits_for_its_round_of_the_same_step() -> None:
    gather = opened(3, 1)
    assert gather.add("mg_1", "early", 3, 2) == TAKEN
    assert gather.missing == SENDERS
    gather.open(3, 2)
    assert gather.missing == ("mg_2", "mg_10")


def test_an_early_message_waits_over_several_steps() -> None:
    gather = opened(1)
    gather.add("mg_1", "early", 4)
    for step in (2, 3):
        gather.open(step)
        assert gather.missing == SENDERS
    gather.open(4)
    assert gather.missing == ("mg_2", "mg_10")


def test_a_message_that_comes_before_the_first_step_0_is_opened_waits() -> None:
    gather: Gather[str] = Gather(SENDERS)
    assert gather.add("mg_1", "early", 0) == TAKEN
    gather.open(0)
    assert gather.missing == ("mg_2", "mg_10")


@pytest.mark.parametrize(("step", "round"), [(1, 2), (1, 9), (0, 1), (2, 0)])
def test_a_late_message_is_refused(step: int, round: int) -> None:
    gather = opened(2, 1)
    assert gather.add("mg_1", "late", step, round) == STALE
    assert gather.missing == SENDERS


def test_a_duplicate_is_refused_and_the_first_message_stays() -> None:
    gather = opened(1)
    for sender in SENDERS:
        gather.add(sender, "first", 1)
    assert gather.add("mg_1", "second", 1) == DUPLICATE
    assert gather.values() == ["first"] * 3


def test_a_duplicate_of_an_early_message_is_refused() -> None:
    gather = opened(1)
    assert gather.add("mg_1", "first", 2) == TAKEN
    assert gather.add("mg_1", "second", 2) == DUPLICATE


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_stranger_is_refused_in_every_step(step: int) -> None:
    gather = opened(1)
    assert gather.add("mg_3", "x", step) == STRANGER
    gather.open(2)
    assert gather.missing == SENDERS


def test_a_new_step_begins_empty() -> None:
    gather = opened(1)
    for sender in SENDERS:
        gather.add(sender, "old", 1)
    gather.open(2)
    assert not gather.complete
    assert gather.missing == SENDERS


def test_early_messages_of_a_step_that_was_skipped_are_forgotten() -> None:
    gather = opened(1)
    gather.add("mg_1", "early", 2)
    gather.open(3)
    assert gather.add("mg_1", "again", 2) == STALE
    assert gather.missing == SENDERS
