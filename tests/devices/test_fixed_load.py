"""A load takes what its time series says."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from zgrid.devices.load import Load, LoadConfig


def config(**parameters: Any) -> LoadConfig:
    return LoadConfig.model_validate({"kind": "load", "bus": "671", "demand": "load_1", "p_mw": 0.4, **parameters})


def test_a_load_takes_power_out_of_the_network() -> None:
    load = Load.one(config(q_mvar=0.1, scale=0.5), 1.0)
    _, effect = load.step((), (0.0, 0.0), (0.75,))
    # -0.4 x 0.5 x 0.75 and -0.1 x 0.5 x 0.75
    assert effect[:2] == pytest.approx((-0.15, -0.0375), rel=1e-12)
    assert effect[2:] == (0.0, 0.0)


def test_a_load_does_not_listen_to_its_setpoint() -> None:
    load = Load.one(config(), 1.0)
    assert load.step((), (9.0, 9.0), (1.0,)) == load.step((), (0.0, 0.0), (1.0,))


def test_a_load_has_no_controls_and_no_state() -> None:
    assert Load.controls(config()) == ()
    assert Load.one(config(), 1.0).initial() == ()


def test_a_load_follows_the_series_of_its_config() -> None:
    assert config().series() == ("load_1",)
    assert config(demand=0.6).series() == (0.6,)


@pytest.mark.parametrize("parameters", [{"p_mw": -0.1}, {"scale": -1.0}, {"demand": None}])
def test_a_config_that_cannot_be_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(parameters))):
        config(**parameters)
