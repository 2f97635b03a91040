"""What is acted on where nothing comes: the newest known, zeros, or nothing once that is too old."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zgrid.links import Ears, LinkConfig
from zgrid.messages import DeviceState, Floats, NetworkState

GONE = [2, 4]


def ears(*rules: dict[str, Any], me: str = "mg_1.dg_1") -> Ears:
    return Ears([LinkConfig.model_validate(rule) for rule in rules], me)


def setpoints(*rules: dict[str, Any], steps: int = 6) -> list[Floats | None]:
    """What a device follows in each step when (k,) is said in step k."""
    one = ears(*rules)
    heard: list[Floats | None] = []
    for k in range(1, steps + 1):
        one.begin()
        heard.append(one.setpoint("mg_1", (float(k),), (0.0,)))
    return heard


@pytest.mark.parametrize(
    ("rule", "heard"),
    [
        ({"outages": [GONE]}, [1.0, 1.0, 1.0, 1.0, 5.0, 6.0]),
        ({"outages": [GONE], "receiver": "hold_last"}, [1.0, 1.0, 1.0, 1.0, 5.0, 6.0]),
        ({"outages": [GONE], "receiver": "zero"}, [1.0, 0.0, 0.0, 0.0, 5.0, 6.0]),
        ({"outages": [GONE], "receiver": "drop", "max_age": 2}, [1.0, 1.0, 1.0, None, 5.0, 6.0]),
        ({"outages": [GONE], "receiver": "drop", "max_age": 0}, [1.0, None, None, None, 5.0, 6.0]),
        ({"outages": [[1, 2]]}, [None, None, 3.0, 4.0, 5.0, 6.0]),
        ({"outages": [[1, 2]], "receiver": "zero"}, [0.0, 0.0, 3.0, 4.0, 5.0, 6.0]),
    ],
)
def test_in_an_outage(rule: dict[str, Any], heard: list[float | None]) -> None:
    assert setpoints(rule) == [None if value is None else (value,) for value in heard]


def test_a_delay_of_two_steps_is_acted_on_two_steps_later() -> None:
    rule = {"delay": {"kind": "constant", "value": 2}}
    assert setpoints(rule) == [None, None, (1.0,), (2.0,), (3.0,), (4.0,)]


def test_what_is_older_than_what_is_known_changes_nothing() -> None:
    # 1 comes in step 4, after 2 and 3
    rule = {"delay": {"kind": "trace", "values": [3, 0, 0, 9, 9, 9]}}
    assert setpoints(rule) == [None, (2.0,), (3.0,), (3.0,), (3.0,), (3.0,)]


def test_a_late_one_that_is_news_counts_as_heard_even_where_silence_is_zero() -> None:
    # 1 comes in step 2, 2 in 4, 3 at once
    rule = {"delay": {"kind": "trace", "values": [1, 2, 0, 9, 9, 9]}, "receiver": "zero"}
    assert setpoints(rule) == [(0.0,), (1.0,), (3.0,), (0.0,), (0.0,), (0.0,)]


def test_the_last_rule_that_names_a_receiver_decides() -> None:
    rules = {"outages": [GONE], "receiver": "zero"}, {"receiver": "hold_last", "window": [1, 3]}
    assert setpoints(*rules) == [(1.0,), (1.0,), (1.0,), (0.0,), (5.0,), (6.0,)]


def test_counts_of_a_delay_of_two_steps() -> None:
    one = ears({"delay": {"kind": "constant", "value": 2}})
    for k in range(1, 7):
        one.begin()
        one.setpoint("mg_1", (float(k),), (0.0,))
    counts = one.counts()["setpoint", "mg_1"]
    assert (counts.sent, counts.delivered, counts.late, counts.lost) == (6, 4, 4, 0)
    assert (counts.age_max, counts.age_sum) == (2, 1 + 5 * 2)


def test_an_action_that_is_lost_leaves_the_last_one_and_none_before_it() -> None:
    one = ears({"kind": "action", "outages": [[1, 1], [3, 3]]}, me="mg_1")
    heard = []
    for values in ((0.1,), (0.2,), (0.3,), None):
        one.begin()
        heard.append(one.action(values, (0.0,)))
    assert heard == [None, (0.2,), (0.2,), None]


@pytest.mark.parametrize(
    "policy", [{"receiver": "zero"}, {"receiver": "drop", "max_age": 0}], ids=["zero", "drop at once"]
)
def test_a_grid_that_knows_nothing_of_its_devices_and_network_sees_zeros(policy: dict[str, Any]) -> None:
    one = ears({"outages": [[1, 1]], **policy}, me="mg_1")
    state = DeviceState(0.1, 0.2, 3.0, 0.4, (0.5,))
    network = NetworkState(True, (1, 0, 0), np.array([1.02]), 0.3, 0.1, 0.05, 0.02, (1.0,), (30.0,), (0.0, 1.0))
    one.states(["mg_1.a"], [state])
    one.network(network)
    one.begin()
    assert list(one.states(["mg_1.a"], [state])) == [DeviceState(0.0, 0.0, 0.0, 0.0, (0.0,))]
    told = one.network(network)
    assert (told.p_pcc_mw, told.q_pcc_mvar, told.p_forming_mw, told.p_unserved_mw) == (0.0, 0.0, 0.0, 0.0)
    assert told.measured.tolist() == [0.0]
    assert (told.series, told.clock, told.local) == (network.series, network.clock, network.local)


def test_a_network_that_is_late_comes_with_the_prices_of_now() -> None:
    one = ears({"kind": "network", "delay": {"kind": "constant", "value": 1}}, me="mg_1")
    told = []
    for k in range(3):
        network = NetworkState(True, (0, 0, 0), np.zeros(0), 1.0 * k, 0.0, 0.0, 0.0, (), (10.0 * k,), (0.0, 1.0))
        told.append(one.network(network))
        one.begin()
    assert [(one.p_pcc_mw, one.series) for one in told] == [(0.0, (0.0,)), (0.0, (10.0,)), (1.0, (20.0,))]


def test_an_episode_repeats_itself_with_its_seed_only() -> None:
    one = ears({"loss": 0.5})

    def episode(seed: int) -> list[Floats | None]:
        one.reset(seed)
        heard = []
        for k in range(1, 31):
            one.begin()
            heard.append(one.setpoint("mg_1", (float(k),), (0.0,)))
        return heard

    first = episode(1)
    assert episode(2) != first
    assert episode(1) == first
