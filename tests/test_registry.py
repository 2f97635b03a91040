"""Kinds resolve to objects, and what cannot be resolved is told in words that help."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zgrid.devices import Device, device_class
from zgrid.devices.generator import Generator
from zgrid.errors import UnknownNameError
from zgrid.networks import find_network
from zgrid.policies import policy_class
from zgrid.powerflow import power_flow_class
from zgrid.protocols import horizontal_class, vertical_class
from zgrid.registry import is_plugin, resolve, resolve_class

TABLE = {"generator": "zgrid.devices.generator:Generator", "broken": "zgrid.devices.generator:Missing"}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on the import path for modules of a user."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_built_in_name_resolves_to_its_class() -> None:
    assert resolve("device kind", "generator", TABLE) is Generator


def test_module_and_attribute_resolve_to_a_plug_in(plugin: Path) -> None:
    (plugin / "my_fuel_cells.py").write_text("from zgrid.devices.load import Load\nclass FuelCell(Load): pass\n")
    found = resolve_class("device kind", "my_fuel_cells:FuelCell", TABLE, Device)
    assert found.__name__ == "FuelCell"
    assert issubclass(found, Device)


def test_a_plug_in_may_live_in_a_package(plugin: Path) -> None:
    (plugin / "my_devices_pkg").mkdir()
    (plugin / "my_devices_pkg" / "__init__.py").write_text("")
    (plugin / "my_devices_pkg" / "cells.py").write_text("VALUE = 7\n")
    assert resolve("device kind", "my_devices_pkg.cells:VALUE", TABLE) == 7


def test_a_built_in_member_is_imported_only_when_it_is_named(plugin: Path) -> None:
    (plugin / "my_costly_module.py").write_text("VALUE = 1\n")
    table = {"cheap": "zgrid.devices.load:Load", "costly": "my_costly_module:VALUE"}
    resolve("thing", "cheap", table)
    assert "my_costly_module" not in sys.modules
    assert resolve("thing", "costly", table) == 1


def test_a_typing_error_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown device kind 'generatr'; did you mean 'generator'\?"):
        resolve("device kind", "generatr", TABLE)


def test_an_unknown_name_is_answered_with_all_names_and_the_form_of_a_plug_in() -> None:
    with pytest.raises(UnknownNameError) as caught:
        resolve("device kind", "xyz", TABLE)
    assert str(caught.value) == "unknown device kind 'xyz'; built in: broken, generator; or a plug-in, module:attribute"


def test_a_missing_module_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"'no_such_module_x:FuelCell': no module 'no_such_module_x'"):
        resolve("device kind", "no_such_module_x:FuelCell", TABLE)


def test_a_missing_module_in_a_package_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"no module 'zgrid\.devices\.fuel_cell'"):
        resolve("device kind", "zgrid.devices.fuel_cell:FuelCell", TABLE)


def test_a_missing_attribute_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"module 'zgrid\.devices\.generator' has no 'FuelCell'"):
        resolve("device kind", "zgrid.devices.generator:FuelCell", TABLE)


def test_what_a_plug_in_itself_cannot_import_is_told(plugin: Path) -> None:
    (plugin / "my_broken_plugin.py").write_text("import no_such_dependency_x\n")
    with pytest.raises(UnknownNameError, match="my_broken_plugin needs a module that is not there"):
        resolve("device kind", "my_broken_plugin:FuelCell", TABLE)


@pytest.mark.parametrize("name", ["json:", "json:a:b", "a..b:X"])
def test_a_malformed_plug_in_name_is_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match="device kind"):
        resolve("device kind", name, TABLE)


@pytest.mark.parametrize("name", [":FuelCell", ".cells:FuelCell"])
def test_a_plug_in_without_an_absolute_module_is_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match="device kind"):
        resolve("device kind", name, TABLE)


@pytest.mark.parametrize("name", ["json:dumps", "collections:OrderedDict", "math:pi", "zgrid.devices:DEVICES"])
def test_what_is_no_subclass_of_the_base_is_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"expected a subclass of zgrid\.devices\.base\.Device"):
        resolve_class("device kind", name, TABLE, Device)


@pytest.mark.parametrize(
    ("find", "family"),
    [
        (device_class, "device kind"),
        (policy_class, "policy"),
        (vertical_class, "vertical protocol"),
        (horizontal_class, "horizontal protocol"),
        (power_flow_class, "power flow"),
        (find_network, "network"),
    ],
)
def test_every_family_names_itself_in_its_error(find: Any, family: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown {family} 'no_such_kind'"):
        find("no_such_kind")


def test_a_plug_in_is_told_by_its_colon() -> None:
    assert is_plugin("my_package.module:FuelCell")
    assert not is_plugin("generator")
