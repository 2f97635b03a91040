"""The IEEE 123-node feeder: totals as published, impedances from an independent source, sane when it is solved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandapower as pp
import pytest
from pandapower import topology

from zgrid.networks import TapRange, find_network
from zgrid.networks.ieee123 import IEEE123

MILE_KM = 1.609344


@pytest.fixture
def net() -> Any:
    return find_network("ieee123").build()


def solve(net: Any, load: float = 1.0) -> Any:
    net.load["scaling"] = load
    pp.runpp(net, numba=False)
    return net


def losses_mw(net: Any) -> float:
    return float(net.res_line.pl_mw.sum() + net.res_trafo.pl_mw.sum())


def test_the_load_is_the_published_total() -> None:
    assert sum(load.p_mw for load in IEEE123.loads) == pytest.approx(3.49, abs=1e-12)
    assert sum(load.q_mvar for load in IEEE123.loads) == pytest.approx(1.92, abs=1e-12)
    assert len({load.bus for load in IEEE123.loads}) == len(IEEE123.loads) == 85


def test_what_can_be_moved_has_the_names_of_the_case() -> None:
    names = find_network("ieee123").names()
    assert (names.source_bus, names.vn_kv("150"), names.vn_kv("610")) == ("150", 4.16, 0.48)
    assert names.taps == {f"Regulator {k}": TapRange(-16, 16) for k in (1, 2, 3, 4)}
    assert names.switches == tuple(f"Sw{k}" for k in range(1, 9))
    assert names.shunts == ("C83", "C88", "C90", "C92")
    assert sum(shunt.q_mvar * shunt.step for shunt in IEEE123.shunts) == pytest.approx(-0.75)


def test_every_bus_but_those_of_the_regulators_has_the_number_of_a_node() -> None:
    names = [bus.name for bus in IEEE123.buses]
    assert len(names) == len(set(names)) == 130
    # Nodes 1 to 114; 135 to 197 behind switches, 250 to 450 at ends, 610 behind the transformer; four regulators, Sw6
    beyond = {"135", "149", "150", "151", "152", "160", "197", "250", "300", "450", "610"}
    assert {*names} == {*map(str, range(1, 115)), *beyond, "9r", "25r", "150r", "160r", "61s"}


def test_it_is_one_tree_with_its_open_switches_open(net: Any) -> None:
    assert not topology.unsupplied_buses(net)
    branches = len(IEEE123.lines) + len(IEEE123.trafos) + sum(switch.closed for switch in IEEE123.switches)
    assert branches == len(IEEE123.buses) - 1


def test_three_phase_overhead_lines_have_the_positive_sequence_of_a_textbook() -> None:
    # W. H. Kersting, Distribution System Modeling and Analysis, example 4.1: Z1 = 0.3061 + j0.6270 ohm per mile
    kind = next(kind for kind in IEEE123.line_types if kind.name == "CF-1")
    assert kind.r_ohm_per_km * MILE_KM == pytest.approx(0.3061, abs=1e-4)
    assert kind.x_ohm_per_km * MILE_KM == pytest.approx(0.6270, abs=1e-4)


def test_a_line_of_one_phase_drops_and_loses_what_it_does_in_the_original() -> None:
    """40 kW and 20 kvar on one phase over 1 km of code 9, by hand: what the equivalent has to give."""
    self_ohm, phase_kv = complex(0.251742424, 0.255208333) / 0.3048, 4.16 / np.sqrt(3.0)
    current_ka = complex(0.04, -0.02) / phase_kv
    drop_pu = (self_ohm * current_ka).real / phase_kv
    kind = next(kind for kind in IEEE123.line_types if kind.name == "CF-9")
    equivalent = complex(kind.r_ohm_per_km, kind.x_ohm_per_km)
    assert (equivalent * complex(0.04, -0.02)).real / 4.16**2 == pytest.approx(drop_pu, rel=1e-5)
    lost_mw = abs(current_ka) ** 2 * self_ohm.real
    assert abs(complex(0.04, 0.02)) ** 2 / 4.16**2 * equivalent.real == pytest.approx(lost_mw, rel=1e-5)


def test_it_is_sane_at_the_published_load(net: Any) -> None:
    solve(net)
    assert 0.95 < net.res_bus.vm_pu.min() < net.res_bus.vm_pu.max() < 1.05
    assert net.res_bus.vm_pu.min() == pytest.approx(0.9707, abs=1e-4)
    assert net.bus.name[net.res_bus.vm_pu.idxmin()] == "66"
    assert 0.02 < losses_mw(net) / net.res_ext_grid.p_mw.iloc[0] < 0.03
    assert net.res_line.loading_percent.max() < 100.0
    assert net.res_trafo.loading_percent.max() < 100.0


@pytest.mark.parametrize("load", [0.2, 0.5, 0.8])
def test_it_is_sane_at_part_load(net: Any, load: float) -> None:
    solve(net, load)
    assert 0.95 < net.res_bus.vm_pu.min() < net.res_bus.vm_pu.max() < 1.05


def test_at_the_published_taps_losses_are_below_those_of_the_unbalanced_feeder(net: Any) -> None:
    net.trafo.loc[:3, "tap_pos"] = (7, -1, 0, 5)
    solve(net)
    assert net.res_bus.vm_pu.max() < 1.05
    assert losses_mw(net) == pytest.approx(0.0890, abs=5e-4)


@pytest.mark.parametrize("taps", [(16, 16, 16, 16), (-16, -16, -16, -16), (16, -16, 16, -16), (-16, 16, -16, 16)])
def test_a_power_flow_converges_at_any_taps(net: Any, taps: tuple[int, ...]) -> None:
    net.trafo.loc[:3, "tap_pos"] = taps
    assert solve(net).converged


def test_capacitors_lift_the_voltage(net: Any) -> None:
    before = solve(net).res_bus.vm_pu.min()
    net.shunt["step"] = 0
    assert solve(net).res_bus.vm_pu.min() < before - 0.01


def test_the_ties_feed_from_the_other_side(net: Any) -> None:
    net.switch.loc[net.switch.name == "Sw5", "closed"] = False  # cuts off 101 to 114, 197 and 300
    assert len(topology.unsupplied_buses(net)) == 16
    net.switch.loc[net.switch.name == "Sw7", "closed"] = True
    assert not topology.unsupplied_buses(net)
    assert solve(net).res_bus.vm_pu.min() > 0.9
