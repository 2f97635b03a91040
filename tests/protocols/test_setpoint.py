"""The setpoint protocol turns a grid's action into a setpoint for each of its devices."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from zgrid.devices import Control
from zgrid.protocols import Controls, ProtocolConfig, vertical_class

GENERATOR = Controls((Control("p_mw", 0.0, 2.0), Control("on", 0.0, 1.0, levels=2)), (0, 2), (0.0, 0.0, 1.0))
BATTERY = Controls((Control("p_mw", -0.5, 0.5), Control("q_mvar", -0.75, 0.75)), (0, 1), (0.0, 0.0))
LOAD = Controls((), (), (0.0, 0.0))
ALWAYS_ON = Controls((Control("p_mw", 0.2, 1.0),), (0,), (0.0, 0.0, 1.0))


def setpoints(devices: list[Controls], action: tuple[float, ...]) -> list[tuple[float, ...]]:
    protocol = vertical_class("setpoint")
    return list(protocol(protocol.Config(), devices).setpoints(action))


def test_entries_go_to_the_devices_in_their_order() -> None:
    # 0.5 on [0, 2] is 1.5, 1 is on; -1 on [-0.5, 0.5] is -0.5, 0.5 on [-0.75, 0.75] is 0.375
    assert setpoints([GENERATOR, BATTERY], (0.5, 1.0, -1.0, 0.5)) == [(1.5, 0.0, 1.0), (-0.5, 0.375)]
    assert setpoints([BATTERY, GENERATOR], (0.5, 1.0, -1.0, 0.25)) == [(0.25, 0.75), (0.0, 0.0, 1.0)]


def test_a_device_without_controls_takes_no_entry() -> None:
    assert setpoints([LOAD, BATTERY, LOAD], (1.0, 0.0)) == [(0.0, 0.0), (0.5, 0.0), (0.0, 0.0)]


def test_what_no_control_sets_stays_neutral() -> None:
    # A unit without commitment stays on, whatever the action; -1 on [0.2, 1] is 0.2.
    assert setpoints([ALWAYS_ON], (-1.0,)) == [(0.2, 0.0, 1.0)]


def test_a_call_leaves_nothing_behind_for_the_next() -> None:
    protocol = vertical_class("setpoint")(None, [BATTERY])
    protocol.setpoints((1.0, 1.0))
    assert protocol.setpoints((0.0, 0.0)) == [(0.0, 0.0)]


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValidationError, match="gain"):
        vertical_class("setpoint").Config.model_validate({"kind": "setpoint", "gain": 1.0})
    assert issubclass(vertical_class("setpoint").Config, ProtocolConfig)
