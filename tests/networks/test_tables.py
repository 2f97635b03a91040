"""The shipped networks hold the numbers of their feeders, and become the pandapower nets they describe."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from zgrid.errors import NetworkError, UnknownNameError
from zgrid.networks import NETWORKS, TapRange, find_network


@pytest.fixture(scope="module")
def nets() -> dict[str, Any]:
    return {kind: find_network(kind).build() for kind in NETWORKS}


@pytest.mark.parametrize(
    ("kind", "buses", "lines", "trafos", "loads", "shunts", "switches", "p_mw", "q_mvar"),
    [
        ("ieee13", 13, 9, 2, 8, 0, 1, 3.899, 2.297),
        ("ieee34", 36, 32, 3, 25, 2, 0, 1.608, 1.052),
    ],
)
def test_a_net_has_the_elements_and_loads_of_its_feeder(
    nets: dict[str, Any],
    kind: str,
    buses: int,
    lines: int,
    trafos: int,
    loads: int,
    shunts: int,
    switches: int,
    p_mw: float,
    q_mvar: float,
) -> None:
    net = nets[kind]
    counted = [len(net[table]) for table in ("bus", "line", "trafo", "load", "shunt", "switch", "ext_grid")]
    assert counted == [buses, lines, trafos, loads, shunts, switches, 1]
    assert net.load.p_mw.sum() == pytest.approx(p_mw, abs=1e-9)
    assert net.load.q_mvar.sum() == pytest.approx(q_mvar, abs=1e-9)


@pytest.mark.parametrize("kind", NETWORKS)
def test_names_are_those_of_the_built_net(nets: dict[str, Any], kind: str) -> None:
    names, net = find_network(kind).names(), nets[kind]
    assert names.buses == tuple(net.bus.name)
    assert names.lines == tuple(net.line.name)
    assert names.trafos == tuple(net.trafo.name)
    assert names.kv == tuple(net.bus.vn_kv)
    assert names.switches == tuple(net.switch.name)
    assert names.shunts == tuple(net.shunt.name)
    assert names.source_bus == net.bus.name[net.ext_grid.bus.iloc[0]]
    adjustable = net.trafo[net.trafo.tap_side == "lv"]
    assert names.taps == {
        row["name"]: TapRange(int(row["tap_min"]), int(row["tap_max"])) for _, row in adjustable.iterrows()
    }


def test_names_of_a_shipped_network_need_no_pandapower() -> None:
    code = (
        "import sys; from zgrid.networks import find_network;"
        "assert len(find_network('ieee34').names().buses) == 36;"
        "assert 'pandapower' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_names_tell_the_voltage_of_a_bus() -> None:
    names = find_network("ieee13").names()
    assert (names.source_bus, names.vn_kv("650"), names.vn_kv("675"), names.vn_kv("634")) == ("650", 24.9, 4.16, 0.48)


def test_ieee13_is_fed_through_its_substation_alone(nets: dict[str, Any]) -> None:
    net = nets["ieee13"]
    source = net.ext_grid.bus.iloc[0]
    assert net.trafo.hv_bus.tolist().count(source) == 1
    assert source not in {*net.line.from_bus, *net.line.to_bus, *net.load.bus}


def test_every_build_is_a_net_of_its_own() -> None:
    network = find_network("ieee13")
    first, second = network.build(), network.build()
    first.load["p_mw"] = 0.0
    assert second.load.p_mw.sum() == pytest.approx(3.899)


@pytest.mark.parametrize("position", [-2, -1, 0, 1, 2])
def test_a_tap_moves_the_voltage_by_its_step(position: int) -> None:
    import pandapower as pp

    net = find_network("ieee13").build()
    net.load["in_service"] = False
    net.trafo.loc[net.trafo.name == "Substation", "tap_pos"] = position
    pp.runpp(net, numba=False)
    # Without load the low side follows the ratio: 2.5 % a step. Line charging lifts it by less than 0.01 %.
    vm_pu = net.res_bus.vm_pu[net.bus.name == "632"].iloc[0]
    assert vm_pu == pytest.approx(1.0 + 0.025 * position, abs=1e-4)


def test_regulators_of_ieee34_lift_the_voltage_as_shipped() -> None:
    import pandapower as pp

    net = find_network("ieee34").build()
    net.load["in_service"] = False
    pp.runpp(net, numba=False)
    vm_pu = dict(zip(net.bus.name, net.res_bus.vm_pu, strict=True))
    # Positions 12 and 16 at 0.625 % a step: + 7.5 % and + 10 %
    assert vm_pu["RG10"] / vm_pu["814"] == pytest.approx(1.075, abs=1e-3)
    assert vm_pu["RG11"] / vm_pu["852"] == pytest.approx(1.1, abs=1e-3)


# ---- networks of users ----------------------------------------------------------------------------------------------


def two_buses() -> Any:
    """A plug-in: a source, a line and a load, the second bus without a name."""
    import pandapower as pp

    net = pp.create_empty_network()
    source = pp.create_bus(net, vn_kv=20.0, name="S")
    end = pp.create_bus(net, vn_kv=20.0)
    pp.create_ext_grid(net, source)
    pp.create_line_from_parameters(net, source, end, 1.0, 0.2, 0.1, 0.0, 0.3, name="L")
    pp.create_load(net, end, 0.2, 0.1)
    return net


def without_source() -> Any:
    net = two_buses()
    net.ext_grid = net.ext_grid.iloc[:0]
    return net


def with_two_sources() -> Any:
    import pandapower as pp

    net = two_buses()
    pp.create_ext_grid(net, 1)
    return net


def with_equal_names() -> Any:
    net = two_buses()
    net.bus["name"] = "S"
    return net


def with_switches() -> Any:
    """Two switches of one name, a shunt with a name and one without."""
    import pandapower as pp

    net = two_buses()
    for name in ("A", "A"):
        pp.create_switch(net, 0, 0, "l", name=name)
    for shunt in ("C", None):
        pp.create_shunt(net, 1, -0.1, name=shunt)
    return net


def not_a_net() -> Any:
    return {"bus": []}


def plugin(function: Any) -> str:
    return f"{__name__}:{function.__name__}"


def test_a_plug_in_function_is_a_network() -> None:
    names = find_network(plugin(two_buses)).names()
    assert names.buses == ("S", "1")  # the index where there is no name
    assert (names.source_bus, names.lines, names.trafos, names.taps) == ("S", ("L",), (), {})
    assert len(find_network(plugin(two_buses)).build().load) == 1


def test_switches_and_shunts_go_by_their_index_where_names_are_missing_or_repeated() -> None:
    names = find_network(plugin(with_switches)).names()
    assert (names.switches, names.shunts) == (("0", "1"), ("C", "1"))


def test_names_of_switches_and_shunts_are_those_of_the_tables() -> None:
    assert find_network("ieee13").names().switches == ("Switch 671-692",)
    assert find_network("ieee34").names().shunts == ("SCB 1", "SCB 2")


def test_a_json_file_of_pandapower_is_a_network(tmp_path: Any) -> None:
    import pandapower as pp

    path = tmp_path / "mine.json"
    pp.to_json(find_network("ieee13").build(), str(path))
    read = find_network(str(path))
    assert read.names() == find_network("ieee13").names()
    assert read.build().load.p_mw.sum() == pytest.approx(3.899)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (without_source, "expected exactly one external grid, found 0"),
        (with_two_sources, "expected exactly one external grid, found 2"),
        (with_equal_names, "bus names are not unique: S"),
        (not_a_net, "expected a pandapower net, got dict"),
    ],
)
def test_a_plug_in_that_is_no_usable_net_is_refused(function: Any, text: str) -> None:
    with pytest.raises(NetworkError, match=f"{function.__name__}.*{text}"):
        find_network(plugin(function)).names()


def test_a_json_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"'absent\.json': no such file"):
        find_network("absent.json")


@pytest.mark.parametrize("text", ["", "no json", "{}", "[1, 2]"])
def test_a_json_file_of_something_else_is_refused(tmp_path: Any, text: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(NetworkError, match=r"mine\.json"):
        find_network(str(path)).names()


def test_something_that_cannot_be_called_is_no_network() -> None:
    with pytest.raises(UnknownNameError, match="expected a function that returns a pandapower net"):
        find_network("math:pi")
