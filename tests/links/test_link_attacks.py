"""Attacks change the numbers that are heard, by hand-worked numbers, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zgrid.links import Ears, LinkConfig
from zgrid.messages import DeviceState, Floats, NetworkState


def ears(*rules: dict[str, Any], me: str = "mg_1") -> Ears:
    return Ears([LinkConfig.model_validate(rule) for rule in rules], me)


def peers(rule: dict[str, Any], rounds: int = 3) -> list[Floats]:
    """What is heard when (k, 10 k) is said in round k."""
    one = ears(rule)
    return [heard.values for k in range(1, rounds + 1) for heard in one.carry("mg_2", k, (1.0 * k, 10.0 * k))]


def network(p_mw: float) -> NetworkState:
    measured = np.array([1.0, np.nan, 50.0])
    return NetworkState(True, (2, 1, 0), measured, p_mw, 0.5, 0.0, 0.0, (1.0,), (30.0,), (0.0, 1.0))


@pytest.mark.parametrize(
    ("attack", "heard"),
    [
        ({"bias": 0.5}, [(1.5, 10.5), (2.5, 20.5), (3.5, 30.5)]),
        ({"scale": -2.0}, [(-2.0, -20.0), (-4.0, -40.0), (-6.0, -60.0)]),
        ({"ramp": 0.25}, [(1.25, 10.25), (2.5, 20.5), (3.75, 30.75)]),
        ({"replace": 7.0}, [(7.0, 7.0)] * 3),
        ({"replace": 7.0, "entries": [1]}, [(1.0, 7.0), (2.0, 7.0), (3.0, 7.0)]),
        ({"scale": 2.0, "bias": 1.0, "ramp": 0.5, "entries": [0]}, [(3.5, 10.0), (6.0, 20.0), (8.5, 30.0)]),
        ({"bias": 1.0, "entries": [5]}, [(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]),
    ],
)
def test_false_data_by_hand(attack: dict[str, Any], heard: list[Floats]) -> None:
    assert peers({"false_data": attack}) == heard


def test_a_lie_that_feeds_on_itself_stays_finite() -> None:
    one = ears({"false_data": {"scale": -1e6}})
    value = 1.0
    for k in range(1, 101):
        (heard,) = one.carry("mg_2", k, (value,))
        value = heard.values[0]
    assert value == 1e9


def test_replay_says_what_was_said_before() -> None:
    assert peers({"replay": 2}, 5) == [(1.0, 10.0), (2.0, 20.0), (1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]


def test_replay_looks_new_and_does_not_reach_into_the_last_step() -> None:
    one = ears({"replay": 1})
    assert [tuple(heard) for k in (1, 2) for heard in one.carry("mg_2", k, (1.0 * k,))] == [((1.0,), 0), ((1.0,), 0)]
    assert [tuple(heard) for heard in one.carry("mg_2", 1, (9.0,))] == [((9.0,), 0)]
    link = one.link("peer", "mg_2")
    assert link is not None
    assert (link.counts.sent, link.counts.attacked) == (3, 1)


def test_denial_lets_nothing_through() -> None:
    one = ears({"denial": True})
    assert [list(one.carry("mg_2", k, (1.0,))) for k in (1, 2)] == [[], []]
    counts = one.counts()["peer", "mg_2"]
    assert (counts.sent, counts.delivered, counts.lost, counts.attacked) == (2, 0, 2, 2)


def test_a_ramp_of_steps_counts_from_the_first_step_of_its_window() -> None:
    one = ears({"false_data": {"ramp": 0.1}, "window": [3, 4]}, me="mg_1.dg_1")
    heard = []
    for _ in range(5):
        one.begin()
        heard.append(one.setpoint("mg_1", (1.0,), (0.0,)))
    assert heard == [(1.0,), (1.0,), (1.1,), (1.2,), (1.0,)]


def test_an_attacked_action_stays_in_its_range_and_none_is_left_to_the_grid() -> None:
    one = ears({"kind": "action", "false_data": {"scale": 3.0}})
    one.begin()
    assert one.action((0.25, 0.5, -1.0), (0.0,) * 3) == (0.75, 1.0, -1.0)
    one.begin()
    assert one.action(None, (0.0,) * 3) is None


def test_an_attacked_state_lies_of_powers_and_state_but_not_of_cost() -> None:
    one = ears({"kind": "state", "false_data": {"bias": 1.0, "entries": [0, 2]}})
    one.begin()
    told = one.states(["mg_1.a", "mg_1.b"], [DeviceState(0.1, 0.2, 5.0, 0.3, (0.5, 0.6))] * 2)
    assert list(told) == [DeviceState(1.1, 0.2, 5.0, 0.3, (1.5, 0.6))] * 2


def test_an_attacked_network_lies_of_measurements_and_leaves_the_truth_alone() -> None:
    one = ears({"kind": "network", "false_data": {"scale": 2.0, "entries": [0, 2, 3]}})
    one.begin()
    truth = network(0.25)
    told = one.network(truth)
    assert (told.p_pcc_mw, told.q_pcc_mvar) == (0.5, 0.5)
    np.testing.assert_array_equal(told.measured, [2.0, np.nan, 50.0])
    np.testing.assert_array_equal(truth.measured, [1.0, np.nan, 50.0])
    assert (told.series, told.clock, told.local, told.sizes) == (truth.series, truth.clock, truth.local, truth.sizes)


def test_what_is_heard_at_a_reset_is_true() -> None:
    one = ears({"false_data": {"bias": 1.0}}, {"denial": True})
    truth = network(0.25)
    assert one.network(truth).p_pcc_mw == 0.25
    state = DeviceState(0.0, 0.0, 0.0, 0.0, (0.5,))
    assert list(one.states(["mg_1.a"], [state])) == [state]


def test_replay_of_a_state_may_reach_back_to_the_reset() -> None:
    one = ears({"kind": "state", "replay": 2})
    heard = []
    for k in range(5):
        heard += one.states(["mg_1.a"], [DeviceState(0.1 * k, 0.0, 0.0, 0.0, ())])
        one.begin()
    assert [state.p_mw for state in heard] == [0.0, 0.1, 0.0, 0.1, 0.2]
