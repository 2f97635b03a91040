"""Synthetic feeders are radial, of the size asked for, and carry a microgrid at every connection bus."""

from __future__ import annotations

import pandapower as pp
import pandapower.topology
import pytest

from zgrid.errors import UnknownNameError
from zgrid.networks import find_network
from zgrid.networks.couple import couple
from zgrid.networks.coupled import Attachment, CoupledNetwork, Part
from zgrid.networks.feeder import radial_feeder


def carrying(n: int) -> CoupledNetwork:
    """A feeder with an ``ieee13`` network at every connection bus, and a device in each."""
    parts = [Part("feeder", find_network(f"feeder_{n}"))]
    parts += [Part(f"mg_{k}", find_network("ieee13"), connect_at=str(k)) for k in range(1, n + 1)]
    return couple(parts, [Attachment(f"mg_{k}.dg_1", f"mg_{k}", "675") for k in range(1, n + 1)])


@pytest.mark.parametrize("n", [1, 4, 5, 6, 10, 50, 100, 1000])
def test_a_feeder_is_radial_with_five_buses_to_a_lateral(n: int) -> None:
    tables = radial_feeder(n)
    assert [bus.name for bus in tables.buses] == ["source", *map(str, range(1, n + 1))]
    assert {bus.vn_kv for bus in tables.buses} == {24.9}
    fed_from = {line.to_bus: line.from_bus for line in tables.lines}
    assert set(fed_from) == {str(k) for k in range(1, n + 1)}
    for bus in fed_from:
        steps = 0
        while bus != "source":
            bus, steps = fed_from[bus], steps + 1
        assert steps <= 5
    assert sum(bus == "source" for bus in fed_from.values()) == -(-n // 5)
    assert all(0.6 <= line.length_km <= 1.8 for line in tables.lines)


@pytest.mark.parametrize("n", [0, -1, 1001])
def test_a_feeder_of_another_size_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match="1 to 1000"):
        radial_feeder(n)


@pytest.mark.parametrize("kind", ["feeder_0", "feeder_01", "feeder_1001", "feeder_", "feeder_x", "feeder_10 "])
def test_a_kind_of_another_size_is_unknown(kind: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown network"):
        find_network(kind)


def test_kinds_of_every_size_are_known() -> None:
    assert len(find_network("feeder_1").names().buses) == 2
    assert len(find_network("feeder_37").build().line) == 37
    assert len(find_network("feeder_1000").names().lines) == 1000


@pytest.mark.parametrize("n", [10, *(pytest.param(n, marks=pytest.mark.slow) for n in (50, 100))])
def test_a_feeder_keeps_its_voltages_with_a_microgrid_at_every_bus(n: int) -> None:
    joint = carrying(n)
    assert len(joint.net.bus) == 1 + 13 * n
    assert not pandapower.topology.unsupplied_buses(joint.net)
    for scale in (0.25, 0.02):
        joint.net.load["scaling"] = scale
        pp.runpp(joint.net, numba=False)
        at = [joint.areas[f"mg_{k}"].buses[0] for k in range(1, n + 1)]
        vm_pu = joint.net.res_bus.vm_pu.iloc[at]
        assert vm_pu.between(0.95, 1.05).all()
        assert joint.net.res_line.loading_percent.iloc[joint.areas["feeder"].lines].max() < 60.0
    assert joint.bus_names[joint.areas[f"mg_{n}"].buses[0]] == f"mg_{n}.650"
