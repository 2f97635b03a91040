"""Make a pandapower net from tables, and read names from any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandapower as pp

from zgrid.errors import NetworkError
from zgrid.networks.tables import Names, NetworkTables, TapRange, Trafo


def build_tables(tables: NetworkTables) -> Any:
    """A pandapower net of these tables, at 50 Hz and a base of 1 MVA."""
    net = pp.create_empty_network(name=tables.name, f_hz=50.0, sn_mva=1.0)
    bus = {row.name: pp.create_bus(net, vn_kv=row.vn_kv, name=row.name) for row in tables.buses}
    types = {row.name: row for row in tables.line_types}
    for line in tables.lines:
        kind = types[line.line_type]
        pp.create_line_from_parameters(
            net,
            bus[line.from_bus],
            bus[line.to_bus],
            line.length_km,
            kind.r_ohm_per_km,
            kind.x_ohm_per_km,
            kind.c_nf_per_km,
            kind.max_i_ka,
            name=line.name,
        )
    for trafo in tables.trafos:
        _create_trafo(net, bus, trafo)
    for load in tables.loads:
        pp.create_load(net, bus[load.bus], load.p_mw, load.q_mvar, name=f"Load {load.bus}")
    for shunt in tables.shunts:
        pp.create_shunt(net, bus[shunt.bus], shunt.q_mvar, step=shunt.step, max_step=shunt.max_step, name=shunt.name)
    for switch in tables.switches:
        pp.create_switch(net, bus[switch.bus], bus[switch.other_bus], "b", switch.closed, type="LS", name=switch.name)
    pp.create_ext_grid(net, bus[tables.source_bus], vm_pu=tables.source_vm_pu, name="Source")
    return net


def _create_trafo(net: Any, bus: dict[str, int], trafo: Trafo) -> None:
    tap = trafo.tap
    # Without tap_changer_type pandapower 3 ignores tap positions without a word.
    taps: dict[str, Any] = {}
    if tap is not None:
        taps = {
            "tap_side": "lv",
            "tap_neutral": tap.neutral,
            "tap_min": tap.low,
            "tap_max": tap.high,
            "tap_step_percent": tap.step_percent,
            "tap_pos": tap.position,
            "tap_changer_type": "Ratio",
        }
    pp.create_transformer_from_parameters(
        net,
        bus[trafo.hv_bus],
        bus[trafo.lv_bus],
        sn_mva=trafo.sn_mva,
        vn_hv_kv=trafo.vn_hv_kv,
        vn_lv_kv=trafo.vn_lv_kv,
        vkr_percent=trafo.vkr_percent,
        vk_percent=trafo.vk_percent,
        pfe_kw=0.0,
        i0_percent=0.0,
        name=trafo.name,
        **taps,
    )


def read_names(source: str, net: Any) -> Names:
    """The names of a net's elements; where one has no name, its index.

    Raises:
        NetworkError: names of buses, lines or transformers that are not unique, or not exactly one external grid.
    """
    if len(net.ext_grid) != 1:
        raise NetworkError(f"network {source!r}: expected exactly one external grid, found {len(net.ext_grid)}")
    named = {table: element_names(net, table) for table in ("bus", "line", "trafo")}
    for table, names in named.items():
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise NetworkError(f"network {source!r}: {table} names are not unique: {', '.join(repeated[:5])}")
    buses = dict(zip(net.bus.index, named["bus"], strict=True))
    taps = {
        name: TapRange(int(low), int(high))
        for name, low, high, side in zip(
            named["trafo"], net.trafo.tap_min, net.trafo.tap_max, net.trafo.tap_side, strict=True
        )
        if side in ("hv", "lv") and low == low and high == high  # NaN: it cannot be moved
    }
    return Names(
        buses[net.ext_grid.bus.iloc[0]],
        named["bus"],
        named["line"],
        named["trafo"],
        taps,
        tuple(net.bus.vn_kv),
        distinct_names(net, "switch"),
        distinct_names(net, "shunt"),
    )


def element_names(net: Any, table: str) -> tuple[str, ...]:
    """Names of a table's elements in row order; the index where an element has none."""
    frame = net[table]
    return tuple(
        name if isinstance(name, str) and name else str(index)
        for index, name in zip(frame.index, frame["name"], strict=True)
    )


def distinct_names(net: Any, table: str) -> tuple[str, ...]:
    """Names of a table's elements in row order; the index of every one where two would have the same name."""
    names = element_names(net, table)
    return names if len(set(names)) == len(names) else tuple(map(str, net[table].index))


def read_json(path: Path) -> Any:
    """A pandapower net from its JSON file.

    Raises:
        NetworkError: not such a file.
    """
    try:
        return pp.from_json(str(path))
    except (ValueError, UserWarning, KeyError, TypeError, AttributeError) as error:
        raise NetworkError(f"network {str(path)!r}: not a pandapower JSON file: {error}") from error
