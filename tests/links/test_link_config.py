"""Rules say whom they are about and when; what makes no sense is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from zgrid.links import LinkConfig


def rule(**keys: Any) -> LinkConfig:
    return LinkConfig.model_validate(keys)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"colour": 1}, "Extra inputs"),
        ({"kind": "report"}, "'peer', 'setpoint', 'state', 'action', 'network'"),
        ({"loss": 1.1}, "less than or equal to 1"),
        ({"loss": -0.1}, "greater than or equal to 0"),
        ({"duplicate": 2}, "less than or equal to 1"),
        ({"reorder": 2}, "less than or equal to 1"),
        ({"jitter": -1}, "greater than or equal to 0"),
        ({"jitter": float("nan")}, "finite"),
        ({"rate": 0}, "greater than 0"),
        ({"queue": 1}, "queue needs a rate"),
        ({"window": [0, 3]}, "greater than or equal to 1"),
        ({"window": [4, 3]}, "expected a first and a last"),
        ({"hours": [4, 3]}, "expected a first and a last"),
        ({"hours": [-1, 3]}, "expected a first and a last"),
        ({"outages": [[4, 3]]}, "expected a first and a last"),
        ({"partition": [["mg_1"]]}, "two groups or more"),
        ({"receiver": "drop"}, "go together"),
        ({"max_age": 3}, "go together"),
        ({"receiver": "zero", "kind": "peer"}, "up to their protocol"),
        ({"replay": 0}, "greater than or equal to 1"),
        ({"period_s": 1.0}, "needs a delay or a jitter"),
        ({"delay": {"kind": "constant"}}, "a constant delay has value"),
        ({"delay": {"kind": "constant", "value": 1, "mean": 1}}, "a constant delay has value"),
        ({"delay": {"kind": "uniform", "low": 2, "high": 1}}, "low <= high"),
        ({"delay": {"kind": "normal", "mean": -1, "std": 1}}, "greater than or equal to 0"),
        ({"delay": {"kind": "trace"}}, "a trace delay has values"),
        ({"delay": {"kind": "trace", "values": [1, -1]}}, "greater than or equal to 0"),
        ({"delay": {"kind": "lognormal", "median": 1, "sigma": 0}}, "greater than 0"),
        ({"delay": {"kind": "pareto"}}, "'constant', 'uniform'"),
        ({"gilbert_elliott": {"p_gb": 0.1}}, "Field required"),
        ({"gilbert_elliott": {"p_gb": 0.1, "p_bg": 1.1}}, "less than or equal to 1"),
        ({"false_data": {"bias": 1e7}}, "less than or equal to 1000000"),
        ({"false_data": {"entries": [-1]}}, "greater than or equal to 0"),
    ],
)
def test_what_makes_no_sense_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        rule(**keys)
    assert words in str(caught.value)


def test_a_rule_is_frozen_and_survives_a_trip_through_json() -> None:
    one = rule(partition=[["mg_1"], ["mg_*"]], window=[1, 3], delay={"kind": "trace", "values": [1, 2]})
    assert LinkConfig.model_validate_json(one.model_dump_json()) == one
    with pytest.raises(ValidationError, match="frozen"):
        one.loss = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("keys", "channel", "fits"),
    [
        ({}, ("mg_1", "mg_2", "peer"), True),
        ({"source": "mg_1"}, ("mg_1", "mg_2", "peer"), True),
        ({"source": "mg_1"}, ("mg_10", "mg_2", "peer"), False),
        ({"source": "mg_?"}, ("mg_9", "mg_2", "peer"), True),
        ({"source": "mg_[!1]"}, ("mg_1", "mg_2", "peer"), False),
        ({"source": "*.dg_1"}, ("mg_1.dg_1", "mg_1", "state"), True),
        ({"source": "mg_1"}, ("mg_2", "mg_1", "peer"), False),
        ({"source": "mg_1", "direction": "both"}, ("mg_2", "mg_1", "peer"), True),
        ({"source": "mg_1", "destination": "mg_2", "direction": "both"}, ("mg_1", "mg_3", "peer"), False),
        ({"kind": "state"}, ("mg_1", "mg_2", "peer"), False),
        ({"kind": "state"}, ("mg_1.dg_1", "mg_1", "state"), True),
        ({"source": "env"}, ("env", "mg_1", "action"), True),
    ],
)
def test_a_rule_fits_channels_by_ids_kind_and_direction(keys: dict[str, Any], channel: Any, fits: bool) -> None:
    assert rule(**keys).fits(*channel) is fits


@pytest.mark.parametrize(
    ("keys", "dt_h", "steps", "first"),
    [
        ({}, 1.0, [1, 2, 3, 4, 5, 6], 1),
        ({"window": [2, 4]}, 1.0, [2, 3, 4], 2),
        ({"hours": [2, 4]}, 1.0, [3, 4], 3),  # step 3 begins after 2 h, step 5 after 4 h
        ({"hours": [1, 2]}, 0.5, [3, 4], 3),
        ({"hours": [0.75, 2]}, 0.5, [3, 4], 3),  # steps begin after 0, 0.5, 1, 1.5, 2 h
        ({"window": [4, 9], "hours": [2, 5]}, 1.0, [4, 5], 4),
    ],
)
def test_a_rule_acts_in_its_window(keys: dict[str, Any], dt_h: float, steps: list[int], first: int) -> None:
    one = rule(**keys)
    assert [step for step in range(1, 7) if one.active(step, dt_h)] == steps
    assert one.first(dt_h) == first


def test_a_partition_parts_its_groups_and_nobody_else() -> None:
    one = rule(partition=[["mg_1", "mg_2"], ["mg_3*"]])
    ends = [("mg_1", "mg_2"), ("mg_1", "mg_3"), ("mg_3.dg_1", "mg_2"), ("mg_1", "mg_4"), ("env", "mg_1")]
    assert [one.severs(*both) for both in ends] == [False, True, True, False, False]
