"""What a link does to rounds of peers, by hand where chance is certain and by binomial bounds where it is not."""

from __future__ import annotations

import pickle
from math import sqrt
from typing import Any

import pytest

from zgrid.links import Ears, Link, LinkConfig, Links

SILENT = None


def link(*rules: dict[str, Any], seed: int = 1, me: str = "mg_2") -> Link:
    """The link from mg_1 to mg_2, or to another."""
    ears = Ears([LinkConfig.model_validate(rule) for rule in rules], me, seed=seed)
    made = ears.link("peer", "mg_1")
    assert made is not None
    return made


def talk(one: Link, rounds: int, step: int = 1) -> list[list[tuple[float, int]]]:
    """(value, age) of what is heard in each round; in round k the number k is said."""
    return [[(heard.values[0], heard.age) for heard in one.carry(step, k, (float(k),))] for k in range(1, rounds + 1)]


def trace(*values: float, **keys: Any) -> dict[str, Any]:
    return {"delay": {"kind": "trace", "values": list(values)}, **keys}


def within(count: int, n: int, p: float) -> bool:
    """Whether a count lies within five standard deviations of a binomial."""
    return abs(count - n * p) <= 5.0 * sqrt(n * p * (1.0 - p))


class TestDelay:
    def test_of_two_rounds(self) -> None:
        one = link(trace(2))
        assert talk(one, 5) == [[], [], [(1.0, 2)], [(2.0, 2)], [(3.0, 2)]]
        assert (one.counts.sent, one.counts.delivered, one.counts.late, one.counts.lost) == (5, 3, 3, 0)

    def test_of_less_than_a_round_is_in_time(self) -> None:
        assert talk(link(trace(0.9)), 2) == [[(1.0, 0)], [(2.0, 0)]]

    def test_messages_that_come_together_are_handed_over_oldest_first(self) -> None:
        assert talk(link(trace(2, 1, 0)), 4) == [[], [], [(1.0, 2), (2.0, 1), (3.0, 0)], []]

    def test_delays_of_several_rules_add_up(self) -> None:
        assert talk(link(trace(0.5), trace(0.5)), 2) == [[], [(1.0, 1)]]

    def test_in_seconds_is_counted_in_rounds(self) -> None:
        assert talk(link(trace(0.25, period_s=0.2)), 2) == [[], [(1.0, 1)]]

    def test_nothing_outlives_its_step(self) -> None:
        one = link(trace(2))
        talk(one, 3, step=1)
        assert talk(one, 3, step=2) == [[], [], [(1.0, 2)]]
        assert (one.counts.delivered, one.counts.lost) == (2, 2)

    def test_too_old_messages_are_not_handed_over(self) -> None:
        one = link(trace(2, 0), {"receiver": "drop", "max_age": 1})
        assert talk(one, 4) == [[], [(2.0, 0)], [], [(4.0, 0)]]
        assert (one.counts.delivered, one.counts.lost) == (2, 1)  # the third is on its way

    def test_silence_brings_what_is_on_its_way(self) -> None:
        one = link(trace(1))
        assert list(one.carry(1, 1, (1.0,))) == []
        assert [tuple(heard) for heard in one.carry(1, 2, SILENT)] == [((1.0,), 1)]
        assert list(one.carry(1, 3, SILENT)) == []
        assert one.counts.sent == 1


class TestLoss:
    @pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
    def test_has_its_rate(self, p: float) -> None:
        one = link({"loss": p})
        heard = talk(one, 3000)
        assert within(one.counts.lost, 3000, p)
        assert one.counts.lost == sum(not values for values in heard)

    def test_of_two_rules_both_count(self) -> None:
        one = link({"loss": 0.5}, {"loss": 0.5})
        talk(one, 3000)
        assert within(one.counts.lost, 3000, 0.75)

    @pytest.mark.parametrize(("loss_good", "loss_bad"), [(0.0, 1.0), (0.02, 0.6)])
    def test_in_bursts_is_stationary(self, loss_good: float, loss_bad: float) -> None:
        # Bad with probability 0.05 / (0.05 + 0.2) = 0.2. Correlation over t rounds is 0.75^t, so a count's variance is
        # at most (1 + 0.75) / (1 - 0.75) = 7 times that of a binomial.
        chain = {"p_gb": 0.05, "p_bg": 0.2, "loss_good": loss_good, "loss_bad": loss_bad}
        one, n = link({"gilbert_elliott": chain}), 10_000
        talk(one, n)
        p = 0.8 * loss_good + 0.2 * loss_bad
        assert abs(one.counts.lost - n * p) < 5.0 * sqrt(7.0 * n * p * (1.0 - p))

    def test_in_bursts_has_bursts_of_the_mean_length(self) -> None:
        # a burst ends with probability 0.25 in each round: 4 rounds on average, standard deviation sqrt(12)
        heard = talk(link({"gilbert_elliott": {"p_gb": 0.05, "p_bg": 0.25}}), 10_000)
        lost = [not values for values in heard]
        bursts = sum(now and not before for before, now in zip([False, *lost], lost, strict=False))
        assert sum(lost) / bursts == pytest.approx(4.0, abs=5.0 * sqrt(12.0 / bursts))

    def test_in_bursts_goes_on_while_nothing_is_said(self) -> None:
        # the chain moves with the rounds: silence changes no fate
        rule = {"gilbert_elliott": {"p_gb": 0.3, "p_bg": 0.3}}
        all_said, half_said = link(rule), link(rule)
        for k in range(1, 101):
            full = all_said.carry(1, k, (1.0,))
            half = half_said.carry(1, k, (1.0,) if k % 2 else SILENT)
            assert not k % 2 or full == half

    def test_episodes_begin_in_the_bad_state_as_often_as_it_is(self) -> None:
        lost = sum(not talk(link({"gilbert_elliott": {"p_gb": 0.1, "p_bg": 0.3}}, seed=k), 1)[0] for k in range(1000))
        assert within(lost, 1000, 0.25)

    def test_never_bad_is_never_lost(self) -> None:
        one = link({"gilbert_elliott": {"p_gb": 0.0, "p_bg": 0.0}})
        talk(one, 100)
        assert one.counts.lost == 0


class TestDuplicates:
    def test_come_twice_in_a_row(self) -> None:
        one = link({"duplicate": 1.0})
        assert talk(one, 2) == [[(1.0, 0), (1.0, 0)], [(2.0, 0), (2.0, 0)]]
        assert (one.counts.sent, one.counts.delivered, one.counts.duplicated) == (2, 2, 2)

    def test_have_their_rate(self) -> None:
        one = link({"duplicate": 0.2})
        talk(one, 3000)
        assert within(one.counts.duplicated, 3000, 0.2)

    def test_have_delays_of_their_own(self) -> None:
        one = link({"duplicate": 1.0, "delay": {"kind": "uniform", "low": 0, "high": 2}})
        apart = [values for values in talk(one, 100) if len({value for value, _ in values}) != len(values)]
        assert 0 < len(apart) < 100


class TestReordering:
    def test_holds_back_for_a_round(self) -> None:
        assert talk(link({"reorder": 1.0}), 3) == [[], [(1.0, 1)], [(2.0, 1)]]

    def test_has_its_rate(self) -> None:
        one = link({"reorder": 0.25})
        talk(one, 3000)
        assert within(one.counts.late, 3000, 0.25)


class TestRate:
    def test_lets_others_wait(self) -> None:
        # one in two rounds: 1 leaves in round 1, 2 in 3, 3 in 5
        one = link({"rate": 0.5})
        assert talk(one, 6) == [[(1.0, 0)], [], [(2.0, 1)], [], [(3.0, 2)], []]

    def test_with_a_queue_loses_what_finds_it_full(self) -> None:
        # 2 waits for a round, half a place; 3 for two, one place; 4 for three (lost); 5 for two; 6 for three (lost)
        one = link({"rate": 0.5, "queue": 1})
        assert talk(one, 7) == [[(1.0, 0)], [], [(2.0, 1)], [], [(3.0, 2)], [], [(5.0, 2)]]
        assert one.counts.lost == 2

    def test_without_a_place_to_wait(self) -> None:
        one = link({"rate": 0.5, "queue": 0})
        assert talk(one, 4) == [[(1.0, 0)], [], [(3.0, 0)], []]

    def test_of_one_a_round_changes_nothing(self) -> None:
        assert talk(link({"rate": 1, "queue": 0}), 3) == [[(1.0, 0)], [(2.0, 0)], [(3.0, 0)]]

    def test_begins_anew_with_a_step(self) -> None:
        one = link({"rate": 0.5})
        talk(one, 3, step=1)
        assert talk(one, 1, step=2) == [[(1.0, 0)]]


class TestOutages:
    def test_lose_all_within_their_steps(self) -> None:
        one = link({"outages": [[2, 3], [5, 5]]})
        assert [bool(talk(one, 1, step)[0]) for step in range(1, 7)] == [True, False, False, True, False, True]

    def test_a_window_bounds_a_rule(self) -> None:
        one = link({"loss": 1.0, "window": [2, 3]})
        assert [bool(talk(one, 1, step)[0]) for step in range(1, 5)] == [True, False, False, True]

    @pytest.mark.parametrize(("me", "cut"), [("mg_2", False), ("mg_3", True), ("mg_4", False)])
    def test_a_partition_cuts_between_groups(self, me: str, cut: bool) -> None:
        one = link({"partition": [["mg_1", "mg_2"], ["mg_3"]]}, me=me)
        assert talk(one, 1) == [[] if cut else [(1.0, 0)]]


class TestAge:
    def test_of_information_is_that_of_the_newest(self) -> None:
        # newest known after rounds 1 to 5: none, none, 1, 2, 3; ages 1, 2, 2, 2, 2
        one = link(trace(2))
        talk(one, 5)
        assert (one.counts.periods, one.counts.age_sum, one.counts.age_max) == (5, 9, 2)
        assert one.counts.age_mean == 1.8

    def test_is_nought_without_faults_that_hit(self) -> None:
        one = link({"loss": 0.0})
        talk(one, 5)
        assert one.counts.age_mean == 0.0

    def test_before_anything_is_known(self) -> None:
        assert link({}).counts.age_mean == 0.0


def test_every_message_is_delivered_lost_or_on_its_way() -> None:
    one = link(
        {"delay": {"kind": "exponential", "mean": 1}, "duplicate": 0.3, "loss": 0.1, "rate": 1, "queue": 2},
        {"reorder": 0.2, "gilbert_elliott": {"p_gb": 0.1, "p_bg": 0.3}},
    )
    for step in range(1, 21):
        talk(one, 20, step)
    before = one.counts.delivered + one.counts.lost
    waiting = one.counts.sent - before
    one.carry(21, 1, SILENT)  # a new step: what was on its way is lost
    assert one.counts.sent == one.counts.delivered + one.counts.lost == 400
    assert 0 < waiting < 20


def test_rules_do_not_touch_other_links() -> None:
    ears = Ears([LinkConfig.model_validate({"source": "mg_1", "kind": "peer", "loss": 1.0})], "mg_2")
    assert ears.link("peer", "mg_3") is None
    assert ears.link("network", "env") is None
    assert [tuple(heard) for heard in ears.carry("mg_3", 1, (1.0,))] == [((1.0,), 0)]
    assert list(ears.carry("mg_3", 2, None)) == []
    assert set(ears.counts()) == set()


def test_a_further_rule_leaves_the_fates_of_the_others() -> None:
    one, other = link({"loss": 0.5}), link({"loss": 0.5}, {"duplicate": 0.5})
    assert [len(values) > 0 for values in talk(one, 200)] == [len(values) > 0 for values in talk(other, 200)]


def test_links_can_be_pickled_with_what_is_on_its_way() -> None:
    rule = LinkConfig.model_validate({"delay": {"kind": "exponential", "mean": 2}, "loss": 0.1})
    ears = Links([rule], seed=1).into("mg_2")
    assert ears is not None
    for k in range(1, 6):
        ears.carry("mg_1", k, (float(k),))
    copy = pickle.loads(pickle.dumps(ears))
    assert pickle.loads(pickle.dumps(Links([rule], seed=1))).rules == (rule,)
    for k in range(6, 20):
        assert copy.carry("mg_1", k, (float(k),)) == ears.carry("mg_1", k, (float(k),))
    assert copy.counts() == ears.counts()


def test_without_a_rule_nothing_is_built() -> None:
    assert Links([], seed=1).into("mg_1") is None
    assert Links([LinkConfig(destination="mg_2")], seed=1).into("mg_1") is None
    assert Links([LinkConfig(source="mg_1", destination="mg_2", direction="both")], seed=1).into("mg_1") is not None
