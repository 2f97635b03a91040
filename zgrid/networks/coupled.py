"""Coupled: what is joined to one net, and what comes of it: rows and columns in place of names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zgrid.networks.base import Network


@dataclass(frozen=True, slots=True)
class Part:
    """One network to join: its own name, tap positions by transformer, and where it hangs on the feeder."""

    id: str
    network: Network
    taps: Mapping[str, int] = field(default_factory=dict, hash=False)
    source_vm_pu: float | None = None
    connect_at: str | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """A device to attach: its id, the part it belongs to and the bus in it."""

    id: str
    part: str
    bus: str


class Actuation(NamedTuple):
    """What a device moves in the network: its id, the part it belongs to, a kind and an element.

    ``kind`` and ``element``: "tap" (a transformer with a tap changer), "switch", "line" and "shunt" name an element of
    the part; "capacitor" adds a shunt of ``q_mvar`` per step and ``max_step`` steps at the bus ``element``; "pcc" is
    the breaker between the part and its feeder or, where it stands alone, its source, and has no element.
    """

    id: str
    part: str
    kind: str
    element: str = ""
    q_mvar: float = 0.0
    max_step: int = 0


class Forming(NamedTuple):
    """A part that keeps its voltage when it is cut off: a slack at ``bus`` with ``vm_pu``, in service only then."""

    part: str
    bus: str
    vm_pu: float = 1.0


class Actuator(NamedTuple):
    """An entry of the network's topology: a column of one row of a table of the joint net.

    Its position is a float: the tap position, the steps of a shunt, or 1 where closed or in service and else 0.
    """

    id: str
    table: str
    row: int
    column: str


class Former(NamedTuple):
    """A slack that is in service only while its bus has no other source: the part's position, its ext_grid's row."""

    part: int
    row: int


@dataclass(frozen=True, slots=True)
class Area:
    """Rows of one part's elements in the tables of the joint net, and how to read its PCC.

    The import at the PCC sums what flows into the part's ``pcc_branches`` (table, row, end) there, and what its loads
    and static generators (devices are such) at the PCC bus itself take.
    """

    id: str
    bus_names: tuple[str, ...]
    line_names: tuple[str, ...]
    trafo_names: tuple[str, ...]
    buses: NDArray[np.intp]
    lines: NDArray[np.intp]
    trafos: NDArray[np.intp]
    pcc_branches: tuple[tuple[str, int, str], ...]
    pcc_loads: NDArray[np.intp]
    pcc_sgens: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class CoupledNetwork:
    """The joint net. Device k is row k of its sgen table from ``first_device`` on; load rows carry their part.

    ``load_p_mw`` and ``load_q_mvar`` are (n_load,) float64 at a scale of 1, 0 where out of service; ``load_part`` is
    (n_load,), the position in ``parts`` of the part each load belongs to. ``load_bus`` (n_load,) and ``device_bus``
    (n_devices,) are rows of the bus table. ``actuators`` are what :meth:`PowerFlow.set_topology` moves, and
    ``positions`` (n_actuators,) float64 where they stand in ``net``.
    """

    net: Any
    parts: tuple[str, ...]
    areas: Mapping[str, Area]
    bus_names: tuple[str, ...]
    first_device: int
    n_devices: int
    load_p_mw: NDArray[np.float64]
    load_q_mvar: NDArray[np.float64]
    load_part: NDArray[np.intp]
    load_bus: NDArray[np.intp]
    device_bus: NDArray[np.intp]
    actuators: tuple[Actuator, ...]
    positions: NDArray[np.float64]
    formers: tuple[Former, ...]
