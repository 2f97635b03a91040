"""Join a feeder and the networks of its grids to one pandapower net, and resolve names to positions, once."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandapower as pp
from numpy.typing import NDArray
from pandapower import toolbox

from zgrid.errors import NetworkError
from zgrid.networks.base import Network
from zgrid.networks.build import element_names

FEEDER = "feeder"
_BRANCH_ENDS = {"line": ("from_bus", "to_bus"), "trafo": ("hv_bus", "lv_bus")}
_METERED = ("line", "trafo", "load", "sgen", "ext_grid")
"""Tables whose elements at a PCC the import counts, or that take nothing there."""


@dataclass(frozen=True, slots=True)
class Part:
    """One network to join: its own name, tap positions by transformer, and where it hangs on the feeder."""

    id: str
    network: Network
    taps: Mapping[str, int] = field(default_factory=dict)
    source_vm_pu: float | None = None
    connect_at: str | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """A device to attach: its id, the part it belongs to and the bus in it."""

    id: str
    part: str
    bus: str


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

    ``load_p_mw`` and ``load_q_mvar`` are (n_load,) float64 at a scale of 1; ``load_part`` is (n_load,), the position
    in ``parts`` of the part each load belongs to.
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


def couple(parts: Sequence[Part], devices: Sequence[Attachment]) -> CoupledNetwork:
    """The joint net of the parts; the first is the feeder if any other says ``connect_at``.

    Raises:
        NetworkError: a part or device names something that is not there, or a PCC that cannot be metered.
    """
    net = functools.reduce(_merge, map(_prepare, parts))
    bus_of = dict(zip(net["bus"]["name"], net["bus"].index, strict=True))
    fused: dict[str, str] = {}
    for part in parts:
        if part.connect_at is not None:
            if f"{FEEDER}.{part.connect_at}" in fused:
                raise NetworkError(f"{part.id}: another grid hangs at feeder bus {part.connect_at} already")
            _connect(net, bus_of, part)
            fused[f"{FEEDER}.{part.connect_at}"] = f"{part.id}.{part.network.names().source_bus}"
    first_device = len(net["sgen"])
    for device in devices:
        name = f"{device.part}.{device.bus}"
        pp.create_sgen(
            net, _lookup(bus_of, fused.get(name, name), device.id), 0.0, 0.0, name=device.id, area=device.part
        )
    _fold_scaling(net)
    ids = tuple(part.id for part in parts)
    areas = {part.id: _area(net, part, bus_of, fused) for part in parts}
    load_part = np.array([ids.index(area) for area in net["load"]["area"]], dtype=np.intp)
    return CoupledNetwork(
        net,
        ids,
        areas,
        tuple(net["bus"]["name"]),
        first_device,
        len(devices),
        net["load"]["p_mw"].to_numpy(dtype=np.float64).copy(),
        net["load"]["q_mvar"].to_numpy(dtype=np.float64).copy(),
        load_part,
    )


def _prepare(part: Part) -> Any:
    """A part's own net, with the part's id before every name and in an ``area`` column."""
    net = part.network.build()
    trafo = dict(zip(element_names(net, "trafo"), net.trafo.index, strict=True))
    for name, position in part.taps.items():
        if name not in trafo:
            raise NetworkError(f"{part.id}: no transformer {name}")
        net.trafo.loc[trafo[name], "tap_pos"] = position
    if part.source_vm_pu is not None:
        net.ext_grid["vm_pu"] = part.source_vm_pu
    for table in {"bus", *(table for table, _ in toolbox.element_bus_tuples())}:
        net[table]["area"] = np.array([part.id] * len(net[table]), dtype=object)
    for table in ("bus", "line", "trafo", "load", "sgen"):
        frame = net[table]
        frame["name"] = np.array([f"{part.id}.{name}" for name in element_names(net, table)], dtype=object)
    if part.connect_at is not None:
        net.ext_grid["in_service"] = False
    return net


def _merge(net: Any, other: Any) -> Any:
    return toolbox.merge_nets(
        net, other, validate=False, merge_results=False, std_prio_on_net1=True, net2_reindex_log_level=None
    )


def _connect(net: Any, bus_of: Mapping[str, int], part: Part) -> None:
    """Fuse a part's source bus with its bus on the feeder; the part's bus stays."""
    own = _lookup(bus_of, f"{part.id}.{part.network.names().source_bus}", part.id)
    feeder = _lookup(bus_of, f"{FEEDER}.{part.connect_at}", f"{part.id}.connect_at")
    own_kv, feeder_kv = net.bus.vn_kv[own], net.bus.vn_kv[feeder]
    if own_kv != feeder_kv:
        raise NetworkError(f"{part.id}: its PCC has {own_kv} kV, feeder bus {part.connect_at} has {feeder_kv} kV")
    toolbox.fuse_buses(net, own, feeder, drop=True)


def _lookup(bus_of: Mapping[str, int], name: str, who: str) -> int:
    try:
        return bus_of[name]
    except KeyError as error:
        raise NetworkError(f"{who}: no bus {name}") from error


def _fold_scaling(net: Any) -> None:
    """Fold each load's own scaling into its power, so that a scale of 1 means the load as it was built."""
    for column in ("p_mw", "q_mvar"):
        net.load[column] = net.load[column].astype(np.float64) * net.load["scaling"]
    net.load["scaling"] = 1.0


def _area(net: Any, part: Part, bus_of: Mapping[str, int], fused: Mapping[str, str]) -> Area:
    def rows(table: str) -> NDArray[np.intp]:
        return np.flatnonzero((net[table]["area"] == part.id).to_numpy())

    def own(table: str) -> tuple[str, ...]:
        return tuple(name.removeprefix(part.id + ".") for name in net[table]["name"].iloc[rows(table)])

    source = f"{part.id}.{part.network.names().source_bus}"
    pcc = bus_of[fused.get(source, source)]
    if part.id != FEEDER:
        _check_pcc(net, part.id, pcc)

    def at_pcc(table: str) -> NDArray[np.intp]:
        frame = net[table]
        here = (frame["area"] == part.id) & (frame["bus"] == pcc) & frame["in_service"].astype(bool)
        return np.flatnonzero(here.to_numpy())

    return Area(
        part.id,
        own("bus"),
        own("line"),
        own("trafo"),
        rows("bus"),
        rows("line"),
        rows("trafo"),
        tuple(_pcc_branches(net, part.id, pcc)),
        at_pcc("load"),
        at_pcc("sgen"),
    )


def _pcc_branches(net: Any, area: str, pcc: int) -> list[tuple[str, int, str]]:
    """(table, row, end) of the part's branches at the PCC; end as in pandapower's results: from, to, hv, lv."""
    found = []
    for table, ends in _BRANCH_ENDS.items():
        mine = (net[table]["area"] == area).to_numpy()
        for end in ends:
            here = np.flatnonzero(mine & (net[table][end] == pcc).to_numpy())
            found += [(table, int(row), end.removesuffix("_bus")) for row in here]
    return found


def _check_pcc(net: Any, area: str, pcc: int) -> None:
    """Refuse elements at the PCC whose flow the import would miss.

    Shunts and the like that came from the feeder's bus belong to the feeder and are no part of the import.
    """
    switches = net.switch[(net.switch.et == "b") & ((net.switch.bus == pcc) | (net.switch.element == pcc))]
    if len(switches):
        raise NetworkError(f"{area}: a bus-bus switch at the PCC bus is not covered; put a bus or a line between")
    for table, end in toolbox.element_bus_tuples():
        frame = net[table]
        if table not in _METERED and len(frame) and ((frame[end] == pcc) & (frame["area"] == area)).any():
            raise NetworkError(f"{area}: a {table} at the PCC bus is not covered; put a line between")
