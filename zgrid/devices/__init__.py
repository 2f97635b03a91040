"""Device kinds. To add one: write a file beside these, and a line in ``DEVICES``."""

from __future__ import annotations

from typing import Any

from zgrid.devices.base import (
    Actuation,
    AssetConfig,
    Clock,
    Control,
    Device,
    DeviceConfig,
    Effect,
    ElementConfig,
    Market,
    SeriesSource,
)
from zgrid.devices.elementwise import ARRAYS, FLOATS, Elementwise
from zgrid.registry import resolve_class

__all__ = [
    "ARRAYS",
    "DEVICES",
    "FLOATS",
    "Actuation",
    "AssetConfig",
    "Clock",
    "Control",
    "Device",
    "DeviceConfig",
    "Effect",
    "ElementConfig",
    "Elementwise",
    "Market",
    "SeriesSource",
    "device_class",
]

DEVICES = {
    "capacitor": "zgrid.devices.capacitor:Capacitor",
    "ev_charger": "zgrid.devices.ev_charger:EvCharger",
    "flexible_load": "zgrid.devices.flexible_load:FlexibleLoad",
    "generator": "zgrid.devices.generator:Generator",
    "grid_tie": "zgrid.devices.grid_tie:GridTie",
    "load": "zgrid.devices.load:Load",
    "pcc_breaker": "zgrid.devices.switch:PccBreaker",
    "renewable": "zgrid.devices.renewable:Renewable",
    "shunt": "zgrid.devices.capacitor:Shunt",
    "smart_renewable": "zgrid.devices.renewable:SmartRenewable",
    "smart_storage": "zgrid.devices.storage:SmartStorage",
    "storage": "zgrid.devices.storage:Storage",
    "switch": "zgrid.devices.switch:Switch",
    "tap_changer": "zgrid.devices.tap_changer:TapChanger",
}


def device_class(kind: str) -> Any:
    """The :class:`Device` subclass of a kind.

    Raises:
        UnknownNameError: no such kind.
    """
    return resolve_class("device kind", kind, DEVICES, Device)
