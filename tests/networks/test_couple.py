"""A feeder and the networks of its grids become one net, in which every name is where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandapower as pp
import pytest
from conftest import small_topology

from zgrid.errors import NetworkError
from zgrid.networks import find_network
from zgrid.networks.couple import couple
from zgrid.networks.coupled import Attachment, CoupledNetwork, Part
from zgrid.topology import load
from zgrid.world import join

PCC = {"mg_1": "822", "mg_2": "848", "mg_3": "856"}
DEVICES = [
    Attachment("mg_1.dg_1", "mg_1", "675"),
    Attachment("mg_2.pv_1", "mg_2", "652"),
    Attachment("mg_2.dg_1", "mg_2", "650"),
    Attachment("feeder_ess", "feeder", "848"),
    Attachment("feeder_pv", "feeder", "890"),
]


def feeder(**options: Any) -> Part:
    return Part("feeder", find_network("ieee34"), **options)


def grid(name: str, connect_at: str | None, kind: str = "ieee13", **options: Any) -> Part:
    return Part(name, find_network(kind), connect_at=connect_at, **options)


@pytest.fixture(scope="module")
def joint() -> CoupledNetwork:
    return couple([feeder(), *(grid(name, bus) for name, bus in PCC.items())], DEVICES)


def names(joint: CoupledNetwork, table: str) -> list[str]:
    return list(joint.net[table]["name"])


# ---- what the joint net holds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "count"),
    # 36 + 3 x 13 buses, of which 3 pairs are one; 32 + 3 x 9; 3 + 3 x 2; 25 + 3 x 8; 2 + 0; 0 + 3 x 1
    [("bus", 72), ("line", 59), ("trafo", 9), ("load", 49), ("shunt", 2), ("switch", 3), ("sgen", 5)],
)
def test_the_joint_net_has_the_elements_of_all_parts(joint: CoupledNetwork, table: str, count: int) -> None:
    assert len(joint.net[table]) == count


@pytest.mark.parametrize("table", ["bus", "line", "trafo"])
def test_every_name_has_its_part_before_it_and_is_unique(joint: CoupledNetwork, table: str) -> None:
    found = names(joint, table)
    assert len(set(found)) == len(found)
    assert {name.split(".")[0] for name in found} == {"feeder", *PCC}


def test_only_the_source_of_the_feeder_stays_in_service(joint: CoupledNetwork) -> None:
    sources = joint.net.ext_grid[joint.net.ext_grid.in_service]
    assert joint.net.bus.name[sources.bus.iloc[0]] == "feeder.800"
    assert len(sources) == 1


@pytest.mark.parametrize(("part", "bus"), PCC.items())
def test_a_grid_and_the_feeder_share_the_bus_of_the_pcc(joint: CoupledNetwork, part: str, bus: str) -> None:
    assert f"{part}.650" in names(joint, "bus")
    assert f"feeder.{bus}" not in names(joint, "bus")
    shared = joint.net.bus.index[joint.net.bus.name == f"{part}.650"][0]
    ends = {
        name
        for table, columns in (("line", ("from_bus", "to_bus")), ("trafo", ("hv_bus", "lv_bus")))
        for column in columns
        for name in joint.net[table]["name"][joint.net[table][column] == shared]
    }
    tables = find_network("ieee34").tables  # type: ignore[attr-defined]
    lines = {f"feeder.{line.name}" for line in tables.lines if bus in (line.from_bus, line.to_bus)}
    assert ends == {f"{part}.Substation"} | lines


def test_nothing_points_at_a_bus_that_is_gone(joint: CoupledNetwork) -> None:
    buses = set(joint.net.bus.index)
    for table, column in (
        ("line", "from_bus"), ("line", "to_bus"), ("trafo", "hv_bus"), ("trafo", "lv_bus"), ("load", "bus"),
        ("shunt", "bus"), ("sgen", "bus"), ("switch", "bus"), ("switch", "element"), ("ext_grid", "bus"),
    ):  # fmt: skip
        assert set(joint.net[table][column]) <= buses, (table, column)


def test_devices_sit_at_their_buses_in_their_order(joint: CoupledNetwork) -> None:
    sgens = joint.net.sgen.iloc[joint.first_device :]
    assert joint.n_devices == 5
    at = [joint.net.bus.name[bus] for bus in sgens.bus]
    # Bus 848 of the feeder is the PCC of mg_2, and goes by that name.
    assert list(zip(sgens.name, at, strict=True)) == [
        ("mg_1.dg_1", "mg_1.675"),
        ("mg_2.pv_1", "mg_2.652"),
        ("mg_2.dg_1", "mg_2.650"),
        ("feeder_ess", "mg_2.650"),
        ("feeder_pv", "feeder.890"),
    ]


def test_devices_inject_nothing_before_the_first_step(joint: CoupledNetwork) -> None:
    assert not joint.net.sgen[["p_mw", "q_mvar"]].to_numpy().any()


def test_load_rows_carry_their_part(joint: CoupledNetwork) -> None:
    sums = [joint.load_p_mw[joint.load_part == k].sum() for k in range(4)]
    assert joint.parts == ("feeder", "mg_1", "mg_2", "mg_3")
    assert sums == pytest.approx([1.608, 3.899, 3.899, 3.899], abs=1e-9)
    assert joint.load_q_mvar.sum() == pytest.approx(1.052 + 3 * 2.297, abs=1e-9)


def test_taps_and_source_voltage_are_those_of_the_part() -> None:
    parts = [
        feeder(taps={"Regulator 1": 8}, source_vm_pu=1.02),
        grid("mg_1", "822", taps={"Substation": -1}),
        grid("mg_2", "848"),
    ]
    net = couple(parts, []).net
    taps = dict(zip(net.trafo.name, net.trafo.tap_pos, strict=True))
    assert taps["feeder.Regulator 1"] == 8
    assert taps["feeder.Regulator 2"] == 16  # as shipped
    assert (taps["mg_1.Substation"], taps["mg_2.Substation"]) == (-1, 0)
    assert net.ext_grid.vm_pu[net.ext_grid.in_service].tolist() == [1.02]


def test_parts_of_equal_and_other_networks_keep_their_order_and_their_settings() -> None:
    """Equal networks in a row are built once and merged together; every part must still be as if it were alone."""
    own = {"mg_1": ("822", -1, 1.01), "mg_2": ("848", 2, None), "mg_3": ("856", 0, 0.99), "mg_5": ("858", 1, None)}
    parts = [feeder()]
    for name, (bus, tap, vm_pu) in own.items():
        parts.append(grid(name, bus, taps={"Substation": tap}, source_vm_pu=vm_pu))
        if name == "mg_3":
            parts.append(grid("mg_4", "860", plugin(with_shunt_behind_the_line)))
    joint = couple(parts, [])
    net, order = joint.net, [part.id for part in parts]
    for table in ("bus", "line", "trafo", "load", "ext_grid"):
        areas = [order.index(area) for area in net[table]["area"]]
        assert areas == sorted(areas)
        assert net[table].index.is_monotonic_increasing
        assert net[table].index.is_unique
    taps = dict(zip(net.trafo.name, net.trafo.tap_pos, strict=True))
    sources = dict(zip(net.ext_grid.area, net.ext_grid.vm_pu, strict=True))
    for name, (_, tap, vm_pu) in own.items():
        assert taps[f"{name}.Substation"] == tap
        assert sources[name] == (vm_pu or 1.0)
        assert joint.load_p_mw[joint.load_part == order.index(name)].sum() == pytest.approx(3.899)
    for table, ends in (("line", ("from_bus", "to_bus")), ("trafo", ("lv_bus",)), ("load", ("bus",))):
        for end in ends:
            here = net.bus["area"].loc[net[table][end]].to_numpy()
            microgrid = (net[table]["area"] != "feeder").to_numpy()
            assert (here[microgrid] == net[table]["area"].to_numpy()[microgrid]).all()


def test_a_grid_may_stand_alone() -> None:
    alone = couple([grid("mg_1", None)], [Attachment("mg_1.dg_1", "mg_1", "675")])
    assert alone.parts == ("mg_1",)
    assert alone.areas["mg_1"].bus_names == find_network("ieee13").names().buses
    assert alone.net.ext_grid.in_service.tolist() == [True]


# ---- areas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "field"), [("bus", "buses"), ("line", "lines"), ("trafo", "trafos")])
def test_areas_partition_the_tables(joint: CoupledNetwork, table: str, field: str) -> None:
    rows = np.concatenate([getattr(area, field) for area in joint.areas.values()])
    assert sorted(rows) == list(range(len(joint.net[table])))


@pytest.mark.parametrize("part", PCC)
def test_the_area_of_a_grid_is_its_own_network(joint: CoupledNetwork, part: str) -> None:
    area, own = joint.areas[part], find_network("ieee13").names()
    assert (area.bus_names, area.line_names, area.trafo_names) == (own.buses, own.lines, own.trafos)


def test_the_area_of_the_feeder_lacks_the_buses_of_the_pccs(joint: CoupledNetwork) -> None:
    own = find_network("ieee34").names()
    assert joint.areas["feeder"].bus_names == tuple(bus for bus in own.buses if bus not in PCC.values())
    assert joint.areas["feeder"].line_names == own.lines


@pytest.mark.parametrize("table", ["bus", "line", "trafo"])
def test_rows_of_an_area_are_in_the_order_of_its_names(joint: CoupledNetwork, table: str) -> None:
    for part, area in joint.areas.items():
        rows = {"bus": area.buses, "line": area.lines, "trafo": area.trafos}[table]
        own = {"bus": area.bus_names, "line": area.line_names, "trafo": area.trafo_names}[table]
        assert [names(joint, table)[row] for row in rows] == [f"{part}.{name}" for name in own]


def test_the_pcc_of_a_grid_is_metered_at_its_substation_and_at_devices_on_its_bus(joint: CoupledNetwork) -> None:
    area = joint.areas["mg_2"]
    assert [(table, names(joint, table)[row], end) for table, row, end in area.pcc_branches] == [
        ("trafo", "mg_2.Substation", "hv")
    ]
    assert area.pcc_loads.tolist() == []  # the loads of feeder bus 848 are the feeder's
    assert area.pcc_sgens.tolist() == [2]  # feeder_ess at the same bus is the feeder's


# ---- what cannot be joined ------------------------------------------------------------------------------------------


def small(extra: Callable[[Any, int, int], Any] | None = None) -> Any:
    """A source S, a line and an end E with a load, at 24.9 kV."""
    net = pp.create_empty_network()
    source, end = (pp.create_bus(net, vn_kv=24.9, name=name) for name in ("S", "E"))
    pp.create_ext_grid(net, source)
    pp.create_line_from_parameters(net, source, end, 1.0, 0.2, 0.1, 0.0, 0.3, name="L")
    pp.create_load(net, end, 0.2, 0.1)
    if extra is not None:
        extra(net, source, end)
    return net


def with_switch() -> Any:
    def extra(net: Any, source: int, end: int) -> None:
        other = pp.create_bus(net, vn_kv=24.9, name="B")
        pp.create_switch(net, source, other, "b")

    return small(extra)


def with_shunt() -> Any:
    return small(lambda net, source, end: pp.create_shunt(net, source, -0.1))


def with_storage() -> Any:
    return small(lambda net, source, end: pp.create_storage(net, source, 0.1, 1.0))


def with_shunt_behind_the_line() -> Any:
    return small(lambda net, source, end: pp.create_shunt(net, end, -0.1))


def plugin(function: Any) -> str:
    return f"{__name__}:{function.__name__}"


@pytest.mark.parametrize(
    ("parts", "devices", "text"),
    [
        ([feeder(), grid("mg_1", "890")], [], "mg_1: its PCC has 24.9 kV, feeder bus 890 has 4.16 kV"),
        ([feeder(), grid("mg_1", "999")], [], "mg_1.connect_at: no bus feeder.999"),
        ([feeder(), grid("mg_1", "822")], [Attachment("mg_1.dg_1", "mg_1", "999")], "mg_1.dg_1: no bus mg_1.999"),
        ([feeder()], [Attachment("x", "mg_7", "650")], "x: no bus mg_7.650"),
        ([feeder(), grid("mg_1", "822", plugin(with_switch))], [], "mg_1: a bus-bus switch at the PCC bus"),
    ],
)
def test_what_does_not_fit_is_refused(parts: list[Part], devices: list[Attachment], text: str) -> None:
    with pytest.raises(NetworkError, match=text):
        couple(parts, devices)


@pytest.mark.parametrize("function", [with_shunt, with_storage])
def test_an_element_at_the_pcc_that_the_import_would_miss_is_refused(function: Any) -> None:
    with pytest.raises(NetworkError, match="at the PCC bus is not covered"):
        couple([feeder(), grid("mg_1", "822", plugin(function))], [])


def test_a_shunt_behind_the_pcc_is_welcome() -> None:
    joint = couple([feeder(), grid("mg_1", "822", plugin(with_shunt_behind_the_line))], [])
    assert len(joint.net.shunt) == 3


def test_a_shunt_of_the_feeder_at_the_pcc_is_welcome(joint: CoupledNetwork) -> None:
    shunts = [joint.net.bus.name[bus] for bus in joint.net.shunt.bus]
    assert shunts == ["feeder.844", "mg_2.650"]  # SCB 2 of the feeder stands at 848


def test_a_tap_of_an_unknown_transformer_is_refused() -> None:
    with pytest.raises(NetworkError, match="nowhere"):
        couple([feeder(taps={"nowhere": 1})], [])


def test_two_grids_at_one_bus_of_the_feeder_are_refused() -> None:
    with pytest.raises(NetworkError, match="822"):
        couple([feeder(), grid("mg_1", "822"), grid("mg_2", "822")], [])


# ---- worlds that are alike -------------------------------------------------------------------------------------------


def test_worlds_that_are_alike_share_nothing_that_one_could_change() -> None:
    one, other = join(load("3mg")), join(load("3mg"))
    assert one.net is not other.net
    before = other.net.bus["vn_kv"].copy()
    one.net.bus["vn_kv"] = 0.0
    one.positions[:] = -1.0
    one.load_p_mw[:] = 0.0
    third = join(load("3mg"))
    for found in (other, third):
        assert found.net.bus["vn_kv"].equals(before)
        assert found.load_p_mw.any()
        assert (found.positions != -1.0).all()


def test_worlds_that_differ_in_a_tap_or_the_source_are_coupled_anew() -> None:
    def built(**changes: Any) -> tuple[float, float]:
        net = join(load("3mg", changes)).net
        return float(net.trafo.set_index("name")["tap_pos"]["feeder.Regulator 1"]), float(net.ext_grid["vm_pu"].iloc[0])

    assert built(**{"network.taps": {"Regulator 1": 3}, "network.source_vm_pu": 1.01}) == (3.0, 1.01)
    assert built(**{"network.taps": {"Regulator 1": -2}, "network.source_vm_pu": 1.01}) == (-2.0, 1.01)
    assert built(**{"network.taps": {"Regulator 1": 3}, "network.source_vm_pu": 1.02}) == (3.0, 1.02)
    assert built(**{"network.taps": {"Regulator 1": 3}, "network.source_vm_pu": 1.01}) == (3.0, 1.01)


def changing() -> Any:
    net = IEEE13_NET.build()
    net.line["length_km"] *= LENGTH[0]
    return net


LENGTH = [1.0]
IEEE13_NET = find_network("ieee13")


def test_a_network_of_the_users_own_is_built_anew_each_time() -> None:
    content = small_topology()
    content["grids"]["mg_1"]["network"]["kind"] = f"{__name__}:changing"
    lengths = []
    for LENGTH[0] in (1.0, 2.0):
        lengths.append(join(load(content)).net.line["length_km"].sum())
    assert lengths[1] == pytest.approx(2.0 * lengths[0])
