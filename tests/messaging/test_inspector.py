"""The inspector lets the right run and the newest incarnation pass, without gaps, and counts what it refuses."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
from wire import RUN, say

from zgrid.errors import LostMessageError
from zgrid.messages import RollCall
from zgrid.messaging import Inspector

ONE, TWO = "state/mg_1.dg_1/", "state/mg_1.dg_2/"


@pytest.fixture
def refused() -> Counter[str]:
    return Counter()


@pytest.fixture
def inspector(refused: Counter[str]) -> Inspector:
    return Inspector(refused, RUN)


def test_a_sequence_without_gaps_passes(inspector: Inspector, refused: Counter[str]) -> None:
    assert all(inspector.accepts(ONE, say(k)) for k in range(100))
    assert refused == {}


def test_a_sequence_may_be_joined_late(inspector: Inspector, refused: Counter[str]) -> None:
    assert inspector.accepts(ONE, say(41))
    assert inspector.accepts(ONE, say(42))
    assert refused == {}


def test_each_sender_and_each_channel_counts_for_itself(inspector: Inspector) -> None:
    assert inspector.accepts(ONE, say(5, "a"))
    assert inspector.accepts(ONE, say(9, "b"))
    assert inspector.accepts(TWO, say(0, "a"))
    assert inspector.accepts(ONE, say(6, "a"))
    assert inspector.accepts(ONE, say(10, "b"))


def test_another_run_is_refused(inspector: Inspector, refused: Counter[str]) -> None:
    assert not inspector.accepts(ONE, say(0, run="yesterday"))
    assert refused == {"other_run a": 1}
    assert inspector.accepts(ONE, say(0))


def test_another_run_leaves_no_trace_in_the_sequence(inspector: Inspector) -> None:
    inspector.accepts(ONE, say(70, run="yesterday", incarnation=3))
    assert inspector.accepts(ONE, say(0))
    assert inspector.accepts(ONE, say(1))


@pytest.mark.parametrize("again", [0, 1, 2])
def test_a_duplicate_is_refused(inspector: Inspector, refused: Counter[str], again: int) -> None:
    for k in range(3):
        inspector.accepts(ONE, say(k))
    assert not inspector.accepts(ONE, say(again))
    assert refused == {"duplicate a": 1}
    assert inspector.accepts(ONE, say(3))


def test_a_gap_is_an_error_that_names_all(inspector: Inspector, refused: Counter[str]) -> None:
    inspector.accepts(ONE, say(0))
    with pytest.raises(LostMessageError) as raised:
        inspector.accepts(ONE, say(3))
    error = raised.value
    assert (error.sender, error.channel, error.expected, error.got) == ("a", ONE, 1, 3)
    assert str(error) == f"lost message: a on {ONE}: expected sequence 1, got 3"
    assert refused == {"gap a": 1}


def test_after_a_gap_the_sequence_goes_on(inspector: Inspector) -> None:
    inspector.accepts(ONE, say(0))
    with pytest.raises(LostMessageError):
        inspector.accepts(ONE, say(3))
    assert inspector.accepts(ONE, say(4))
    with pytest.raises(LostMessageError):
        inspector.accepts(ONE, say(6))


def test_a_new_incarnation_restarts_its_sequences_on_all_channels(inspector: Inspector) -> None:
    for name in (ONE, TWO):
        for k in range(5):
            inspector.accepts(name, say(k))
    assert inspector.accepts(ONE, say(0, incarnation=1))
    assert inspector.accepts(TWO, say(0, incarnation=1))
    with pytest.raises(LostMessageError):
        inspector.accepts(TWO, say(2, incarnation=1))


def test_a_new_incarnation_may_be_joined_late(inspector: Inspector, refused: Counter[str]) -> None:
    inspector.accepts(ONE, say(0))
    assert inspector.accepts(ONE, say(7, incarnation=1))
    assert inspector.accepts(ONE, say(8, incarnation=1))
    assert refused == {}


def test_a_new_incarnation_leaves_the_sequences_of_others_alone(inspector: Inspector) -> None:
    inspector.accepts(ONE, say(0, "b"))
    inspector.accepts(ONE, say(0, "a", incarnation=1))
    with pytest.raises(LostMessageError):
        inspector.accepts(ONE, say(2, "b"))


def test_an_old_incarnation_is_refused(inspector: Inspector, refused: Counter[str]) -> None:
    inspector.accepts(ONE, say(0, incarnation=2))
    assert not inspector.accepts(ONE, say(1, incarnation=1))
    assert not inspector.accepts(TWO, say(0, incarnation=0))
    assert refused == {"old_incarnation a": 2}
    assert inspector.accepts(ONE, say(1, incarnation=2))


def test_an_old_incarnation_is_refused_where_the_new_one_was_heard_on_another_channel_only(
    inspector: Inspector, refused: Counter[str]
) -> None:
    inspector.accepts(ONE, say(0))
    inspector.accepts(TWO, say(0, incarnation=1))
    assert not inspector.accepts(ONE, say(1))
    assert refused == {"old_incarnation a": 1}


def test_without_a_run_only_roll_calls_pass_until_one_is_adopted(refused: Counter[str]) -> None:
    inspector = Inspector(refused, None)
    roll_call = say(0, "env", run="y")._replace(body=RollCall("x", 0))
    assert not inspector.accepts(ONE, say(0, "a", run="x"))
    assert inspector.accepts(TWO, roll_call)
    inspector.adopt("y")
    inspector.adopt("x")
    assert not inspector.accepts(ONE, say(1, "a", run="x"))
    assert inspector.accepts(ONE, say(1, "b", run="y"))
    assert refused == {"no_run_yet a": 1, "other_run a": 1}


def test_names_off_the_wire_do_not_fill_the_memory(refused: Counter[str]) -> None:
    inspector = Inspector(refused, "x")
    for k in range(1500):
        inspector.accepts(ONE, say(0, f"stranger_{k}", run="y"))
    assert len(refused) == 1001
    assert refused["other_run"] == 500


def test_a_run_is_adopted_once(refused: Counter[str]) -> None:
    inspector = Inspector(refused, None)
    inspector.adopt("x")
    inspector.adopt("y")
    assert inspector.accepts(ONE, say(0, run="x"))
    assert not inspector.accepts(ONE, say(1, run="y"))


def test_a_run_that_was_given_stays(inspector: Inspector) -> None:
    inspector.adopt("other")
    assert inspector.accepts(ONE, say(0))


def test_refusals_are_counted_exactly_and_logged_once(
    inspector: Inspector, refused: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    inspector.accepts(ONE, say(0, "a"))
    for _ in range(5):
        inspector.accepts(ONE, say(0, "a"))
    for _ in range(3):
        inspector.accepts(ONE, say(0, "b", run="yesterday"))
    for _ in range(2):
        assert inspector.refuse("malformed") is False
    assert refused == {"duplicate a": 5, "other_run b": 3, "malformed": 2}
    told = [record.getMessage() for record in caplog.records]
    assert [text.split(": ")[1].split(" (")[0] for text in told] == ["duplicate a", "other_run b", "malformed"]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_what_passes_is_not_logged(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for k in range(10):
        inspector.accepts(ONE, say(k))
    assert not caplog.records


def test_a_tolerant_one_counts_a_gap_and_takes_what_comes_after_it(refused: Counter[str]) -> None:
    inspector = Inspector(refused, RUN, tolerant=True)
    assert all(inspector.accepts(ONE, say(k)) for k in (0, 3, 4))
    assert refused == {"gap a": 1}
    assert not inspector.accepts(ONE, say(2))
    assert refused == {"gap a": 1, "duplicate a": 1}


def test_after_it_was_told_to_forget_no_sequence_has_a_gap_and_none_is_repeated(
    inspector: Inspector, refused: Counter[str]
) -> None:
    for name in (ONE, TWO):
        inspector.accepts(name, say(5))
    inspector.forget()
    assert inspector.accepts(ONE, say(9))
    assert inspector.accepts(TWO, say(0))
    assert refused == {}
    with pytest.raises(LostMessageError):
        inspector.accepts(ONE, say(11))


def test_it_does_not_forget_who_is_the_newest_incarnation(inspector: Inspector, refused: Counter[str]) -> None:
    inspector.accepts(ONE, say(0, incarnation=2))
    inspector.forget()
    assert not inspector.accepts(ONE, say(1, incarnation=1))
    assert refused == {"old_incarnation a": 1}


class TestAdmits:
    """Of a sender within a batch only the incarnation is judged."""

    def test_the_first_and_every_newer_one(self, inspector: Inspector, refused: Counter[str]) -> None:
        assert all(inspector.admits("a", incarnation) for incarnation in (0, 0, 1, 1, 5))
        assert refused == {}

    def test_no_older_one(self, inspector: Inspector, refused: Counter[str]) -> None:
        assert inspector.admits("a", 2)
        assert not inspector.admits("a", 1)
        assert not inspector.admits("a", 0)
        assert inspector.admits("b", 0)
        assert refused == {"old_incarnation a": 2}

    def test_what_was_heard_plain_counts_too_and_the_other_way_round(
        self, inspector: Inspector, refused: Counter[str]
    ) -> None:
        assert inspector.accepts(ONE, say(0, incarnation=1))
        assert not inspector.admits("a", 0)
        assert inspector.admits("a", 2)
        assert not inspector.accepts(ONE, say(1, incarnation=1))
        assert refused == {"old_incarnation a": 2}

    def test_a_successors_sequences_begin_anew(self, inspector: Inspector, refused: Counter[str]) -> None:
        inspector.accepts(ONE, say(7))
        assert inspector.admits("a", 1)
        assert inspector.accepts(ONE, say(0, incarnation=1))
        assert refused == {}


def test_who_may_not_speak_on_a_channel_cannot_claim_to_be_the_next_incarnation_of_another() -> None:
    refused: Counter[str] = Counter()
    inspector = Inspector(refused, RUN)
    inspector.speakers = {"report/mg_1/": {"mg_1"}, "report/mg_2/": {"mg_2"}}
    assert inspector.accepts("report/mg_2/", say(0, "mg_2"))
    assert inspector.accepts("report/mg_1/", say(0, "mg_2", incarnation=10**18))  # for the host to refuse
    assert inspector.accepts("report/mg_2/", say(1, "mg_2"))
    assert not refused
