"""The reference power flow says what pandapower says, and divergence is a result that the next solve forgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandapower as pp
import pytest

from zgrid.networks import NetworkTables, find_network
from zgrid.networks.couple import couple
from zgrid.networks.coupled import Attachment, CoupledNetwork, Part
from zgrid.networks.ieee13 import IEEE13
from zgrid.networks.ieee34 import IEEE34
from zgrid.powerflow import PowerFlow, Solution, power_flow_class
from zgrid.powerflow.runpp import RunppPowerFlow

PCC = {"mg_1": "822", "mg_2": "848", "mg_3": "856"}
TAPS = {"Regulator 1": 8, "Regulator 2": 8}
DEVICES = [
    Attachment("mg_1.dg_1", "mg_1", "675"),
    Attachment("mg_2.pv_1", "mg_2", "652"),
    Attachment("mg_3.ess_1", "mg_3", "645"),
    Attachment("mg_3.dg_1", "mg_3", "650"),  # at the PCC itself
]
P_MW, Q_MVAR = np.array([0.4, 0.2, -0.3, 0.1]), np.array([0.1, 0.0, 0.05, -0.02])
SCALE = np.array([0.2, 0.16, 0.12, 0.2])


@pytest.fixture(scope="module")
def joint() -> CoupledNetwork:
    parts = [Part("feeder", find_network("ieee34"), TAPS)]
    parts += [Part(name, find_network("ieee13"), connect_at=bus) for name, bus in PCC.items()]
    return couple(parts, DEVICES)


@pytest.fixture(scope="module")
def solution(joint: CoupledNetwork) -> Solution:
    return solve(RunppPowerFlow(joint))


def solve(power_flow: PowerFlow, p_mw: Any = P_MW, q_mvar: Any = Q_MVAR, scale: Any = SCALE) -> Solution:
    power_flow.set_injections(np.asarray(p_mw, float), np.asarray(q_mvar, float), np.asarray(scale, float))
    return power_flow.solve()


def same(a: Solution, b: Solution) -> bool:
    arrays = ("vm_pu", "va_degree", "line_loading", "trafo_loading", "p_pcc_mw", "q_pcc_mvar")
    return a.converged == b.converged and all(getattr(a, x).tobytes() == getattr(b, x).tobytes() for x in arrays)


# ---- against pandapower itself --------------------------------------------------------------------------------------


def by_hand() -> tuple[Any, dict[str, int]]:
    """The same network written straight into pandapower, grid by grid, from the tables; solved there."""
    net = pp.create_empty_network(sn_mva=1.0)
    buses: dict[str, int] = {}
    write(net, buses, "feeder", IEEE34, SCALE[0])
    for k, (part, bus) in enumerate(PCC.items(), 1):
        buses[f"{part}.650"] = buses[f"feeder.{bus}"]
        write(net, buses, part, IEEE13, SCALE[k])
    pp.create_ext_grid(net, buses["feeder.800"], vm_pu=1.05)
    for (name, part, bus), p, q in zip(((d.id, d.part, d.bus) for d in DEVICES), P_MW, Q_MVAR, strict=True):
        pp.create_sgen(net, buses[f"{part}.{bus}"], p, q, name=name)
    net.trafo.loc[net.trafo.name.isin(["feeder.Regulator 1", "feeder.Regulator 2"]), "tap_pos"] = 8
    pp.runpp(net, init="flat", calculate_voltage_angles=True, numba=False, lightsim2grid=False)
    return net, buses


def write(net: Any, buses: dict[str, int], part: str, tables: NetworkTables, scale: float) -> None:
    for name, vn_kv in tables.buses:
        if f"{part}.{name}" not in buses:
            buses[f"{part}.{name}"] = pp.create_bus(net, vn_kv)
    at = {name: buses[f"{part}.{name}"] for name, _ in tables.buses}
    kinds = {kind.name: kind[1:] for kind in tables.line_types}
    for name, begin, end, length, kind in tables.lines:
        pp.create_line_from_parameters(net, at[begin], at[end], length, *kinds[kind], name=f"{part}.{name}")
    for name, hv, lv, sn_mva, hv_kv, lv_kv, vkr, vk, tap in tables.trafos:
        options: dict[str, Any] = {}
        if tap is not None:
            options = {"tap_side": "lv", "tap_neutral": 0, "tap_step_percent": tap.step_percent,
                       "tap_min": tap.low, "tap_max": tap.high, "tap_pos": tap.position,
                       "tap_changer_type": "Ratio"}  # fmt: skip
        pp.create_transformer_from_parameters(
            net, at[hv], at[lv], sn_mva, hv_kv, lv_kv, vkr, vk, 0.0, 0.0, name=f"{part}.{name}", **options
        )
    for bus, p, q in tables.loads:
        pp.create_load(net, at[bus], p * scale, q * scale)
    for name, bus, q, step, most in tables.shunts:
        pp.create_shunt(net, at[bus], q, step=step, max_step=most, name=name)
    for _, bus, other, closed in tables.switches:
        pp.create_switch(net, at[bus], at[other], "b", closed)


@pytest.fixture(scope="module")
def reference() -> tuple[Any, dict[str, int]]:
    return by_hand()


def test_voltages_are_those_of_pandapower(joint: CoupledNetwork, solution: Solution, reference: Any) -> None:
    net, buses = reference
    rows = [buses[name] for name in joint.bus_names]
    assert solution.converged
    np.testing.assert_allclose(solution.vm_pu, net.res_bus.vm_pu.loc[rows], rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(solution.va_degree, net.res_bus.va_degree.loc[rows], rtol=0.0, atol=1e-7)
    assert 0.8 < solution.vm_pu.min() < solution.vm_pu.max() < 1.1


@pytest.mark.parametrize("table", ["line", "trafo"])
def test_loadings_are_those_of_pandapower(
    joint: CoupledNetwork, solution: Solution, reference: Any, table: str
) -> None:
    net, _ = reference
    expected = dict(zip(net[table]["name"], net[f"res_{table}"]["loading_percent"], strict=True))
    found = solution.line_loading if table == "line" else solution.trafo_loading
    assert len(found) == len(expected)
    for name, loading in zip(joint.net[table]["name"], found, strict=True):
        assert loading == pytest.approx(expected[name], abs=1e-6)
    assert found.max() > 10.0


def test_the_import_of_a_grid_is_what_flows_into_its_substation(
    joint: CoupledNetwork, solution: Solution, reference: Any
) -> None:
    net, _ = reference
    for part, own_p, own_q in (("mg_1", 0.0, 0.0), ("mg_2", 0.0, 0.0), ("mg_3", 0.1, -0.02)):
        row = net.trafo.index[net.trafo.name == f"{part}.Substation"][0]
        k = joint.parts.index(part)
        # What a device at the PCC bus feeds in does not have to come through the feeder.
        assert solution.p_pcc_mw[k] == pytest.approx(net.res_trafo.p_hv_mw[row] - own_p, abs=1e-9)
        assert solution.q_pcc_mvar[k] == pytest.approx(net.res_trafo.q_hv_mvar[row] - own_q, abs=1e-9)


def test_the_import_of_the_feeder_is_what_its_source_gives(solution: Solution, reference: Any) -> None:
    net, _ = reference
    assert solution.p_pcc_mw[0] == pytest.approx(net.res_ext_grid.p_mw.iloc[0], abs=1e-9)
    assert solution.q_pcc_mvar[0] == pytest.approx(net.res_ext_grid.q_mvar.iloc[0], abs=1e-9)


def test_results_come_in_the_shapes_of_the_tables(joint: CoupledNetwork, solution: Solution) -> None:
    arrays = (solution.vm_pu, solution.va_degree, solution.line_loading, solution.trafo_loading, solution.p_pcc_mw)
    assert [array.shape for array in arrays] == [(72,), (72,), (59,), (9,), (4,)]
    assert {array.dtype for array in arrays} == {np.dtype(np.float64)}
    assert solution.backend == "runpp"


# ---- signs ----------------------------------------------------------------------------------------------------------


def test_an_injection_lifts_the_voltage_and_lowers_the_import(joint: CoupledNetwork) -> None:
    power_flow = RunppPowerFlow(joint)
    before = solve(power_flow, [0.0, 0.0, 0.0, 0.0], np.zeros(4))
    after = solve(power_flow, [0.1, 0.0, 0.0, 0.0], np.zeros(4))
    bus = joint.bus_names.index("mg_1.675")
    assert after.vm_pu[bus] > before.vm_pu[bus] + 1e-3
    # 0.1 MW less, and a little less for the losses behind the PCC
    saved = before.p_pcc_mw[1] - after.p_pcc_mw[1]
    assert 0.1 < saved < 0.105


def test_reactive_power_is_an_injection_too(joint: CoupledNetwork) -> None:
    power_flow = RunppPowerFlow(joint)
    before = solve(power_flow, np.zeros(4), np.zeros(4))
    after = solve(power_flow, np.zeros(4), [0.1, 0.0, 0.0, 0.0])
    bus = joint.bus_names.index("mg_1.675")
    assert after.vm_pu[bus] > before.vm_pu[bus]
    assert 0.1 < before.q_pcc_mvar[1] - after.q_pcc_mvar[1] < 0.11


def test_each_part_has_its_own_load_scale(joint: CoupledNetwork) -> None:
    power_flow = RunppPowerFlow(joint)
    none = solve(power_flow, np.zeros(4), np.zeros(4), [0.0, 0.0, 0.0, 0.0])
    one = solve(power_flow, np.zeros(4), np.zeros(4), [0.0, 0.0, 0.1, 0.0])
    # mg_2 takes 0.1 x 3.899 MW and its losses; the others take what they took.
    assert one.p_pcc_mw[2] - none.p_pcc_mw[2] == pytest.approx(0.3899, rel=0.02)
    assert one.p_pcc_mw[[1, 3]] == pytest.approx(none.p_pcc_mw[[1, 3]], abs=1e-4)


# ---- divergence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [20.0, 1e3, 1e6, 1e12, 1e300])
def test_an_absurd_load_diverges_and_the_next_solve_recovers(joint: CoupledNetwork, load: float) -> None:
    power_flow = RunppPowerFlow(joint)
    before = solve(power_flow)
    diverged = solve(power_flow, scale=[load] * 4)
    assert not diverged.converged
    for array in (diverged.vm_pu, diverged.va_degree, diverged.line_loading, diverged.trafo_loading):
        assert np.isnan(array).all()
    assert [array.shape for array in (diverged.vm_pu, diverged.line_loading, diverged.trafo_loading)] == [
        (72,),
        (59,),
        (9,),
    ]
    assert np.isfinite(diverged.p_pcc_mw).all()
    assert np.isfinite(diverged.q_pcc_mvar).all()
    assert same(solve(power_flow), before)


def test_a_solution_does_not_depend_on_what_was_solved_before(joint: CoupledNetwork, solution: Solution) -> None:
    power_flow = RunppPowerFlow(joint)
    solve(power_flow, -P_MW, -Q_MVAR, 0.5 * SCALE)
    assert same(solve(power_flow), solution)


def test_a_solution_is_not_overwritten_by_the_next(joint: CoupledNetwork) -> None:
    power_flow = RunppPowerFlow(joint)
    first = solve(power_flow)
    kept = [first.vm_pu.copy(), first.line_loading.copy(), first.p_pcc_mw.copy()]
    solve(power_flow, -P_MW, -Q_MVAR)
    for array, before in zip((first.vm_pu, first.line_loading, first.p_pcc_mw), kept, strict=True):
        assert (array == before).all()


def test_the_shared_network_is_left_alone(joint: CoupledNetwork) -> None:
    solve(RunppPowerFlow(joint))
    assert not joint.net.sgen.p_mw.any()
    assert joint.net.load.p_mw.sum() == pytest.approx(1.608 + 3 * 3.899)


def test_the_net_of_the_last_solve_can_be_analysed(joint: CoupledNetwork, solution: Solution) -> None:
    power_flow = RunppPowerFlow(joint)
    solve(power_flow)
    net = power_flow.to_pandapower()
    assert net.sgen.p_mw.iloc[joint.first_device :].tolist() == P_MW.tolist()
    assert net.res_bus.vm_pu.tolist() == solution.vm_pu.tolist()
    net.load["p_mw"] = 0.0
    assert same(power_flow.solve(), solution)


# ---- a PCC with something on it -------------------------------------------------------------------------------------


def small(*, sgen_at_source: bool = False, load_in_service: bool = True) -> Any:
    """Source S with a load of 2 x 0.15 MW of its own, a line, and an end E with 2 x 0.2 MW."""
    net = pp.create_empty_network(sn_mva=1.0)
    source, end = (pp.create_bus(net, vn_kv=24.9, name=name) for name in ("S", "E"))
    pp.create_ext_grid(net, source)
    pp.create_line_from_parameters(net, source, end, 2.0, 0.4, 0.3, 10.0, 0.3, name="L")
    pp.create_load(net, source, 0.15, 0.05, scaling=2.0, in_service=load_in_service)
    pp.create_load(net, end, 0.2, 0.05, scaling=2.0)
    if sgen_at_source:
        pp.create_sgen(net, source, 0.1, 0.0)
    return net


def small_with_sgen() -> Any:
    return small(sgen_at_source=True)


def small_with_idle_load() -> Any:
    return small(load_in_service=False)


def alone(function: Any) -> CoupledNetwork:
    """The small network as a grid without a feeder: what its source gives is what it imports."""
    devices = [Attachment("mg_1.at_pcc", "mg_1", "S"), Attachment("mg_1.at_end", "mg_1", "E")]
    return couple([Part("mg_1", find_network(f"{__name__}:{function.__name__}"))], devices)


def assert_import_is_what_the_source_gives(function: Any, p_mw: Sequence[float], q_mvar: Sequence[float]) -> None:
    power_flow = RunppPowerFlow(alone(function))
    found = solve(power_flow, p_mw, q_mvar, [1.0])
    source = power_flow.to_pandapower().res_ext_grid
    assert found.p_pcc_mw[0] == pytest.approx(source.p_mw.iloc[0], abs=1e-9)
    assert found.q_pcc_mvar[0] == pytest.approx(source.q_mvar.iloc[0], abs=1e-9)


@pytest.mark.parametrize(
    ("p_mw", "q_mvar"), [((0.0, 0.0), (0.0, 0.0)), ((0.07, 0.0), (-0.02, 0.0)), ((-0.5, 0.3), (0.1, 0.1))]
)
def test_loads_and_devices_at_the_pcc_count_in_the_import(p_mw: tuple[float, ...], q_mvar: tuple[float, ...]) -> None:
    assert_import_is_what_the_source_gives(small, p_mw, q_mvar)


def test_the_import_at_the_pcc_is_the_sum_worked_out_by_hand() -> None:
    found = solve(RunppPowerFlow(alone(small)), [0.05, 0.0], [0.0, 0.0], [1.0])
    # 2 x 0.15 MW at S, 2 x 0.2 MW at E (scaling of the net's own), 0.05 MW fed in at S. The line loses
    # R (P^2 + Q^2) / V^2 = 0.8 ohm x (0.4^2 + 0.1^2) MVA^2 / (24.9 kV)^2 = 0.000219 MW.
    assert found.p_pcc_mw[0] == pytest.approx(0.65 + 0.000219, abs=2e-6)


def test_the_import_does_not_depend_on_whether_there_is_a_feeder() -> None:
    # The feeder holds no loads and is stiff: what the grid takes at its PCC is what it takes on its own.
    parts = [Part("feeder", find_network("ieee34"), {"Regulator 1": 0, "Regulator 2": 0}, 1.0)]
    parts.append(Part("mg_1", find_network(f"{__name__}:small"), connect_at="802"))
    joint = couple(parts, [Attachment("mg_1.at_pcc", "mg_1", "S")])
    found = solve(RunppPowerFlow(joint), [0.05], [0.0], [0.0, 1.0])
    assert found.p_pcc_mw[1] == pytest.approx(0.65 + 0.000219, abs=5e-6)


def test_a_generator_of_the_network_itself_at_the_pcc_counts_in_the_import() -> None:
    assert_import_is_what_the_source_gives(small_with_sgen, (0.0, 0.0), (0.0, 0.0))


def test_a_load_at_the_pcc_that_is_out_of_service_does_not_count_in_the_import() -> None:
    assert_import_is_what_the_source_gives(small_with_idle_load, (0.0, 0.0), (0.0, 0.0))


def test_the_import_of_the_feeder_counts_where_a_grid_hangs_on_its_source() -> None:
    parts = [Part("feeder", find_network("ieee34")), Part("mg_1", find_network("ieee13"), connect_at="800")]
    found = solve(RunppPowerFlow(couple(parts, [])), [], [], [0.2, 0.1])
    assert found.p_pcc_mw[0] > 0.2 * 1.608  # the feeder's own loads at least


def small_and_half_dead() -> Any:
    net = small()
    net.line["in_service"] = False
    return net


def test_a_bus_without_supply_has_no_voltage_and_the_rest_is_solved() -> None:
    found = solve(RunppPowerFlow(alone(small_and_half_dead)), [0.0, 0.1], [0.0, 0.0], [1.0])
    assert found.converged
    assert found.vm_pu[0] == 1.0
    assert np.isnan(found.vm_pu[1])
    assert found.p_pcc_mw[0] == pytest.approx(0.3, abs=1e-12)


def test_a_second_backend_would_be_chosen_by_its_name() -> None:
    assert power_flow_class("runpp") is RunppPowerFlow
    assert power_flow_class("zgrid.powerflow.runpp:RunppPowerFlow") is RunppPowerFlow
