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
    "generator": "zgrid.devices.generator:Generator",
    "load": "zgrid.devices.load:Load",
    "renewable": "zgrid.devices.renewable:Renewable",
    "storage": "zgrid.devices.storage:Storage",
}


def device_class(kind: str) -> Any:
    """The :class:`Device` subclass of a kind.

    Raises:
        UnknownNameError: no such kind.
    """
    return resolve_class("device kind", kind, DEVICES, Device)
