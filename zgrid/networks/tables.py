"""Electrical networks as plain tables, readable without pandapower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Bus(NamedTuple):
    """Nominal voltage in kV."""

    name: str
    vn_kv: float


class LineType(NamedTuple):
    """Per kilometre: ohm, ohm, nF; thermal limit in kA."""

    name: str
    r_ohm_per_km: float
    x_ohm_per_km: float
    c_nf_per_km: float
    max_i_ka: float


class Line(NamedTuple):
    """A line of a type; length in km."""

    name: str
    from_bus: str
    to_bus: str
    length_km: float
    line_type: str


class Tap(NamedTuple):
    """An on-load tap changer at the low-voltage side, ratio type: step in percent, positions."""

    neutral: int
    low: int
    high: int
    step_percent: float
    position: int


class Trafo(NamedTuple):
    """A two-winding transformer: MVA, kV, kV, percent, percent."""

    name: str
    hv_bus: str
    lv_bus: str
    sn_mva: float
    vn_hv_kv: float
    vn_lv_kv: float
    vkr_percent: float
    vk_percent: float
    tap: Tap | None


class StaticLoad(NamedTuple):
    """A constant-power load in MW and Mvar."""

    bus: str
    p_mw: float
    q_mvar: float


class Shunt(NamedTuple):
    """A switched shunt; reactive power per step in Mvar, negative for a capacitor."""

    name: str
    bus: str
    q_mvar: float
    step: int
    max_step: int


class BusSwitch(NamedTuple):
    """A switch between two buses, without impedance."""

    name: str
    bus: str
    other_bus: str
    closed: bool


@dataclass(frozen=True, slots=True)
class NetworkTables:
    """A balanced, positive-sequence network with one source."""

    name: str
    source_bus: str
    source_vm_pu: float
    buses: tuple[Bus, ...]
    line_types: tuple[LineType, ...]
    lines: tuple[Line, ...]
    trafos: tuple[Trafo, ...]
    loads: tuple[StaticLoad, ...]
    shunts: tuple[Shunt, ...] = ()
    switches: tuple[BusSwitch, ...] = ()


class TapRange(NamedTuple):
    """Lowest and highest position of a tap changer."""

    low: int
    high: int


class Names(NamedTuple):
    """Names of a network's elements, in the order of its tables; ``taps`` those of transformers with a tap changer."""

    source_bus: str
    buses: tuple[str, ...]
    lines: tuple[str, ...]
    trafos: tuple[str, ...]
    taps: dict[str, TapRange]
    kv: tuple[float, ...]
    switches: tuple[str, ...] = ()
    shunts: tuple[str, ...] = ()

    def vn_kv(self, bus: str) -> float:
        """Nominal voltage of a bus, kV."""
        return self.kv[self.buses.index(bus)]
