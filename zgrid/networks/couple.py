"""Join a feeder and the networks of its grids to one pandapower net, and resolve names to positions, once."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import numpy as np
import pandapower as pp
from numpy.typing import NDArray
from pandapower import toolbox

from zgrid.errors import NetworkError
from zgrid.networks.build import distinct_names, element_names
from zgrid.networks.coupled import Actuation, Actuator, Area, Attachment, CoupledNetwork, Former, Forming, Part

FEEDER = "feeder"
PCC = "PCC"
_BRANCH_ENDS = {"line": ("from_bus", "to_bus"), "trafo": ("hv_bus", "lv_bus")}
_ELEMENTS = frozenset({"bus", *(table for table, _ in toolbox.element_bus_tuples())})
_METERED = ("line", "trafo", "load", "sgen", "ext_grid", "switch")
"""Tables whose elements at a PCC the import counts, or that take nothing there (switches at the end of a branch)."""


def couple(
    parts: Sequence[Part],
    devices: Sequence[Attachment],
    actuations: Sequence[Actuation] = (),
    forming: Sequence[Forming] = (),
) -> CoupledNetwork:
    """The joint net of the parts; the first is the feeder if any other says ``connect_at``.

    A part with a PCC breaker keeps a bus of its own at the feeder, behind a switch without impedance.

    Raises:
        NetworkError: a part or device names something that is not there, or a PCC that cannot be metered.
    """
    runs = [tuple(run) for _, run in itertools.groupby(parts, lambda part: part.network.identity)]
    source_of = {part.id: bus for run in runs for part, bus in zip(run, _source_buses(run), strict=True)}
    net = functools.reduce(_append, map(_prepare, runs))
    bus_of = dict(zip(net["bus"]["name"], net["bus"].index, strict=True))
    breakers = {actuation.part for actuation in actuations if actuation.kind == "pcc"}
    fused = _hang(net, bus_of, parts, source_of, breakers)

    def bus_of_own(part: str, bus: str, who: str) -> int:
        return _lookup(bus_of, fused.get(f"{part}.{bus}", f"{part}.{bus}"), who)

    first_device = len(net["sgen"])
    for device in devices:
        bus = bus_of_own(device.part, device.bus, device.id)
        pp.create_sgen(net, bus, 0.0, 0.0, name=device.id, area=device.part)
    _fold_scaling(net)
    ids = tuple(part.id for part in parts)
    position = {part: k for k, part in enumerate(ids)}
    actuators = tuple(_actuator(net, actuation, bus_of_own) for actuation in actuations)
    sources = {part.id: part.network.names().source_bus for part in parts} if forming else {}
    formers = tuple(_former(net, one, position[one.part], sources[one.part], bus_of_own) for one in forming)
    areas = {part.id: _area(net, part, source_of[part.id], bus_of, fused) for part in parts}
    bus_row = {bus: row for row, bus in enumerate(net["bus"].index)}
    return CoupledNetwork(
        net,
        ids,
        areas,
        tuple(net["bus"]["name"]),
        first_device,
        len(devices),
        net["load"]["p_mw"].to_numpy(dtype=np.float64).copy(),
        net["load"]["q_mvar"].to_numpy(dtype=np.float64).copy(),
        np.array([position[area] for area in net["load"]["area"]], dtype=np.intp),
        np.array([bus_row[bus] for bus in net["load"]["bus"]], dtype=np.intp),
        np.array([bus_row[bus] for bus in net["sgen"]["bus"].iloc[first_device:]], dtype=np.intp),
        actuators,
        np.array([float(net[one.table][one.column].iloc[one.row]) for one in actuators], dtype=np.float64),
        formers,
    )


def _source_buses(run: Sequence[Part]) -> list[str]:
    """The name of each part's source bus in the joint net; the parts have equal networks."""
    bus = run[0].network.names().source_bus
    return [f"{part.id}.{bus}" for part in run]


def _prepare(run: Sequence[Part]) -> Any:
    """One net of parts with equal networks, one after the other in every table.

    Every element has its part's id before its name and in an ``area`` column.
    """
    one = run[0].network.build()
    counts = {table: len(one[table]) for table in _ELEMENTS}
    names = {table: element_names(one, table) for table in ("bus", "line", "trafo", "load", "sgen")}
    names |= {table: distinct_names(one, table) for table in ("switch", "shunt")}
    net = _repeat(one, len(run))
    ids = [part.id for part in run]
    for table, count in counts.items():
        net[table]["area"] = np.array([name for name in ids for _ in range(count)], dtype=object)
    for table, own in names.items():
        net[table]["name"] = np.array([f"{part}.{name}" for part in ids for name in own], dtype=object)
    for position, part in enumerate(run):
        _set_up(net, part, names["trafo"], position)
    return net


def _set_up(net: Any, part: Part, trafos: Sequence[str], position: int) -> None:
    """Set taps and source of the part at this position of its run."""
    for name, tap in part.taps.items():
        if name not in trafos:
            raise NetworkError(f"{part.id}: no transformer {name}")
        net.trafo.loc[net.trafo.index[position * len(trafos) + trafos.index(name)], "tap_pos"] = tap
    mine = net.ext_grid["area"] == part.id
    if part.source_vm_pu is not None:
        net.ext_grid.loc[mine, "vm_pu"] = part.source_vm_pu
    if part.connect_at is not None:
        net.ext_grid.loc[mine, "in_service"] = False


def _repeat(net: Any, times: int) -> Any:
    """A net of this many copies of a net, in few merges; each takes long, however small the nets."""
    if times == 1:
        return net
    half = _repeat(net, times // 2)
    both = _merge(half, half)
    return _merge(both, net) if times % 2 else both


def _append(net: Any, other: Any) -> Any:
    """Merge, with the indices of the second net behind those of the first; merging moves only those that collide."""
    for table in sorted(_ELEMENTS):
        if not (len(net[table]) and len(other[table])):
            continue
        start = net[table].index.max() + 1
        old = other[table].index
        toolbox.reindex_elements(other, table, lookup=dict(zip(old, range(start, start + len(old)), strict=True)))
    return _merge(net, other)


def _merge(net: Any, other: Any) -> Any:
    return toolbox.merge_nets(
        net, other, validate=False, merge_results=False, std_prio_on_net1=True, net2_reindex_log_level=None
    )


def _hang(
    net: Any, bus_of: Mapping[str, int], parts: Sequence[Part], source_of: Mapping[str, str], breakers: Set[str]
) -> dict[str, str]:
    """Connect the parts to the buses of the feeder where they hang; the feeder's buses that are one with a source."""
    fused: dict[str, str] = {}
    taken: set[str] = set()
    for part in parts:
        if part.connect_at is None:
            continue
        if part.connect_at in taken:
            raise NetworkError(f"{part.id}: another grid hangs at feeder bus {part.connect_at} already")
        taken.add(part.connect_at)
        _connect(net, bus_of, part, source_of[part.id], has_breaker=part.id in breakers)
        if part.id not in breakers:
            fused[f"{FEEDER}.{part.connect_at}"] = source_of[part.id]
    return fused


def _connect(net: Any, bus_of: Mapping[str, int], part: Part, source: str, *, has_breaker: bool) -> None:
    """Fuse a part's source bus with its bus on the feeder (the part's bus stays), or put a breaker between them."""
    own = _lookup(bus_of, source, part.id)
    feeder = _lookup(bus_of, f"{FEEDER}.{part.connect_at}", f"{part.id}.connect_at")
    own_kv, feeder_kv = net.bus.vn_kv[own], net.bus.vn_kv[feeder]
    if own_kv != feeder_kv:
        raise NetworkError(f"{part.id}: its PCC has {own_kv} kV, feeder bus {part.connect_at} has {feeder_kv} kV")
    if has_breaker:
        pp.create_switch(net, feeder, own, "b", closed=True, type="CB", name=f"{part.id}.{PCC}", area=FEEDER)
    else:
        toolbox.fuse_buses(net, own, feeder, drop=True)


def _lookup(bus_of: Mapping[str, int], name: str, who: str) -> int:
    try:
        return bus_of[name]
    except KeyError as error:
        raise NetworkError(f"{who}: no bus {name}") from error


def _fold_scaling(net: Any) -> None:
    """Fold each load's own scaling into its power, so that a scale of 1 means the load as it was built."""
    for column in ("p_mw", "q_mvar"):
        net.load[column] = net.load[column].astype(np.float64) * net.load["scaling"] * net.load["in_service"]
    net.load["scaling"] = 1.0


_TABLE_OF = {"tap": "trafo", "switch": "switch", "line": "line", "shunt": "shunt"}
_COLUMN_OF = {"tap": "tap_pos", "switch": "closed", "line": "in_service", "shunt": "step"}


def _actuator(net: Any, actuation: Actuation, bus_of: Callable[[str, str, str], int]) -> Actuator:
    """Where in the joint net an actuation acts; a capacitor is added."""
    who, part, kind, element, q_mvar, max_step = actuation
    if kind == "capacitor":
        bus = bus_of(part, element, who)
        pp.create_shunt(net, bus, -q_mvar, step=0, max_step=max_step, name=who, area=part)
        return Actuator(who, "shunt", len(net["shunt"]) - 1, "step")
    if kind == "pcc":
        return _breaker(net, who, part)
    table, column = _TABLE_OF[kind], _COLUMN_OF[kind]
    found = np.flatnonzero((net[table]["name"] == f"{part}.{element}").to_numpy())
    if len(found) != 1:
        raise NetworkError(f"{who}: no {table} {element} in {part}")
    row = int(found[0])
    if kind == "shunt" and max_step > int(net.shunt["max_step"].iloc[row]):
        raise NetworkError(f"{who}.steps: {max_step} is above the {int(net.shunt['max_step'].iloc[row])} of {element}")
    if kind == "tap":
        _check_tap(net.trafo, row, f"{who}: trafo {element} in {part}")
    return Actuator(who, table, row, column)


def _check_tap(trafo: Any, row: int, what: str) -> None:
    """Refuse a tap changer that would be ignored; give it a position where it has none."""
    if trafo["tap_changer_type"].iloc[row] != "Ratio":
        raise NetworkError(f"{what} has no tap changer of type Ratio")
    if np.isnan(trafo["tap_pos"].iloc[row]):
        trafo.loc[trafo.index[row], "tap_pos"] = trafo["tap_neutral"].iloc[row]


def _breaker(net: Any, who: str, part: str) -> Actuator:
    """The switch between a part and its feeder, or the part's own source where it stands alone."""
    ours = (net.switch["name"] == f"{part}.{PCC}") & (net.switch["area"] == FEEDER)
    switch = np.flatnonzero(ours.to_numpy())
    if len(switch):
        return Actuator(who, "switch", int(switch[0]), "closed")
    source = np.flatnonzero((net.ext_grid["area"] == part).to_numpy() & net.ext_grid["in_service"].to_numpy())
    if len(source) != 1:
        raise NetworkError(f"{who}: {part} has no source to be cut off from")
    return Actuator(who, "ext_grid", int(source[0]), "in_service")


def _former(net: Any, forming: Forming, part: int, source_bus: str, bus_of: Callable[[str, str, str], int]) -> Former:
    """Add the slack of a part that forms its own voltage, out of service."""
    who = f"{forming.part}.forming_unit"
    bus = bus_of(forming.part, forming.bus, who)
    if bus == bus_of(forming.part, source_bus, who):
        raise NetworkError(f"{who}: at the PCC bus {source_bus} its power would count as import; choose another bus")
    pp.create_ext_grid(net, bus, forming.vm_pu, in_service=False, name=f"{forming.part}.former", area="")
    return Former(part, len(net["ext_grid"]) - 1)


def _area(net: Any, part: Part, source: str, bus_of: Mapping[str, int], fused: Mapping[str, str]) -> Area:
    def rows(table: str) -> NDArray[np.intp]:
        return np.flatnonzero((net[table]["area"] == part.id).to_numpy())

    def own(table: str) -> tuple[str, ...]:
        return tuple(name.removeprefix(part.id + ".") for name in net[table]["name"].iloc[rows(table)])

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
    own = (net.switch["name"] != f"{area}.{PCC}") | (net.switch["area"] != FEEDER)
    switches = net.switch[own & (net.switch.et == "b") & ((net.switch.bus == pcc) | (net.switch.element == pcc))]
    if len(switches):
        raise NetworkError(f"{area}: a bus-bus switch at the PCC bus is not covered; put a bus or a line between")
    for table, end in toolbox.element_bus_tuples():
        frame = net[table]
        if table not in _METERED and len(frame) and ((frame[end] == pcc) & (frame["area"] == area)).any():
            raise NetworkError(f"{area}: a {table} at the PCC bus is not covered; put a line between")
