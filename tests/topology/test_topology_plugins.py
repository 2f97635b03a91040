"""Kinds of users' own, ``module:Class``: checked with their own parameters, like those that ship with zgrid."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import small_topology

from zgrid.topology import examine, load

PLUGIN = """
from typing import Any, ClassVar

from pydantic import Field, model_validator

from zgrid.devices import Device, DeviceConfig, Effect, Control
from zgrid.policies import Policy, PolicyConfig
from zgrid.policies.rule_based import RuleBased


class FuelCellConfig(DeviceConfig):
    p_max_mw: float = Field(gt=0)
    hydrogen_cost: float = 0.0
    fuel: str | float = 1.0

    @model_validator(mode="after")
    def _fits(self) -> Any:
        if self.hydrogen_cost > 100.0:
            raise ValueError("nobody pays that")
        return self

    def series(self):
        return (self.fuel,)


class FuelCell(Device):
    Config = FuelCellConfig
    SERIES = ("fuel",)
    COST = "generation_cost"

    @classmethod
    def controls(cls, config):
        return (Control("p_mw", 0.0, config.p_max_mw),)

    def initial(self):
        return ()

    def step(self, state, setpoint, series):
        return (), Effect(setpoint[0], 0.0, 0.0, 0.0)

    def respond(self, state, series, market):
        return (0.0, 0.0)


class LazyConfig(PolicyConfig):
    laziness: float = Field(0.5, ge=0, le=1)


class Lazy(Policy):
    Config = LazyConfig

    def reset(self, seed):
        pass

    def act(self, view):
        return (0.0,) * self.size


class Refined(RuleBased):
    "Its parameters are those of the policy it refines."


class NotADevice:
    Config = FuelCellConfig
"""
FUEL_CELL = {"kind": "zgrid_test_plugin:FuelCell", "bus": "675", "p_max_mw": 0.2}
HERE = "grids.mg_1.devices.fc_1"


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module with a device kind and a policy, importable while the test runs."""
    (tmp_path / "zgrid_test_plugin.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("zgrid_test_plugin", None)


def with_fuel_cell(**changes: Any) -> dict[str, Any]:
    topology = small_topology()
    topology["grids"]["mg_1"]["devices"]["fc_1"] = FUEL_CELL | changes
    return topology


def test_a_device_kind_is_loaded_with_its_own_config() -> None:
    device = load(with_fuel_cell(hydrogen_cost=12.0)).grids["mg_1"].devices["fc_1"]
    assert type(device).__name__ == "FuelCellConfig"
    assert (device.p_max_mw, device.hydrogen_cost) == (0.2, 12.0)


def test_a_policy_is_loaded_in_short_and_in_long_form() -> None:
    short = load(small_topology() | {"policy": "zgrid_test_plugin:Lazy"})
    long = load(small_topology() | {"policy": {"kind": "zgrid_test_plugin:Lazy", "laziness": 0.5}})
    assert short.policy == long.policy
    assert short.policy.laziness == 0.5


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"colour": 1}, f"{HERE}.colour", "unknown key"),
        ({"p_max_mw": 0}, f"{HERE}.p_max_mw", "greater than 0"),
        ({"hydrogen_cost": 101.0}, HERE, "nobody pays that"),
        ({"fuel": "nobody"}, f"{HERE}.fuel", "unknown series"),
        ({"bus": "nowhere"}, f"{HERE}.bus", "unknown bus"),
        ({"kind": "zgrid_test_plugin:FuelCel"}, f"{HERE}.kind", "has no 'FuelCel'"),
        ({"kind": "zgrid_test_plugin:NotADevice"}, f"{HERE}.kind", "expected a subclass of zgrid.devices.base.Device"),
        ({"kind": "zgrid_test_plugin:Lazy"}, f"{HERE}.kind", "expected a subclass of zgrid.devices.base.Device"),
    ],
)
def test_what_is_wrong_with_a_plug_in_is_told_at_its_path(changes: dict[str, Any], path: str, words: str) -> None:
    (finding,) = examine(with_fuel_cell(**changes))[1]
    assert finding.path == path
    assert words in finding.message


def test_what_is_wrong_with_the_parameters_of_a_policy_is_told() -> None:
    content = small_topology() | {"policy": {"kind": "zgrid_test_plugin:Lazy", "laziness": 2}}
    assert [finding.path for finding in examine(content)[1]] == ["policy.laziness"]


def test_a_policy_that_refines_a_built_in_one_takes_its_parameters() -> None:
    assert examine(small_topology() | {"policy": "zgrid_test_plugin:Refined"})[1] == []


def test_a_plug_in_survives_json_and_counts_in_the_hash() -> None:
    topology = load(with_fuel_cell(hydrogen_cost=12.0))
    again = load(json.loads(topology.model_dump_json()))
    assert again == topology
    assert again.hash() == topology.hash() != load(with_fuel_cell(hydrogen_cost=13.0)).hash()
