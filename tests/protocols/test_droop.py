"""Devices that follow frequency and voltage by themselves settle at the published points."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from zgrid.devices import device_class
from zgrid.protocols import Controls, vertical_class
from zgrid.protocols.droop import DroopConfig, DroopProtocol

PV_BUSES = (12, 17, 21, 24, 28, 32)


def asset(kind: str = "generator", **parameters: Any) -> Any:
    return device_class(kind).Config.model_validate({"kind": kind, "bus": "b", **parameters})


def pv() -> Any:
    return asset("renewable", availability=1.0, p_max_mw=0.3, s_rated_mva=0.5)


def droop(device: Any, name: str = "unit", **config: Any) -> Any:
    return DroopProtocol.local_control(DroopConfig.model_validate(config), device, name)


def test_primary_control_splits_a_load_by_the_gains() -> None:
    gains = {"u1": 400.0, "u2": 200.0, "u3": 400.0, "u4": 800.0}
    config = {"gains": {name: {"gain_mw_per_hz": gain} for name, gain in gains.items()}}
    units = {name: droop(asset(p_max_mw=2000.0, s_rated_mva=2000.0), name, **config) for name in gains}
    deviation, powers = 0.0, dict.fromkeys(gains, 0.0)
    for _ in range(200):  # what the devices lack of the load slows the machines down
        measured = {"deviation_hz": deviation}
        powers = {name: unit.correct((0.0, 0.0, 1.0), measured)[0] for name, unit in units.items()}
        deviation += 2e-4 * (sum(powers.values()) - 1900.0)
    assert deviation == pytest.approx(-1.055556, abs=1e-6)
    assert powers == pytest.approx({"u1": 422.22, "u2": 211.11, "u3": 422.22, "u4": 844.44}, abs=5e-3)


def feeder(gain: float, steps: int, **config: Any) -> tuple[int, float, float]:
    """Iterations until no output moves by more than 1e-8 Mvar, lowest voltage in pu, loss in kW."""
    pandapower = pytest.importorskip("pandapower")
    net = pandapower.networks.case33bw()
    net.ext_grid.vm_pu = 1.0
    for bus in PV_BUSES:
        pandapower.create_sgen(net, bus, p_mw=0.3, q_mvar=0.0)
    gains = {"*": {"gain_mvar_per_pu": gain}}
    controls = [droop(pv(), gains=gains, **config) for _ in PV_BUSES]
    pandapower.runpp(net)
    count = steps
    for iteration in range(1, steps + 1):
        voltages = net.res_bus.vm_pu.loc[list(PV_BUSES)]
        outputs = [one.correct((0.3, 0.0), {"vm_pu": v})[1] for one, v in zip(controls, voltages, strict=True)]
        settled = max(abs(outputs - net.sgen.q_mvar)) < 1e-8
        net.sgen.q_mvar = outputs
        pandapower.runpp(net, init="results")
        if settled:
            count = iteration
            break
    return count, net.res_bus.vm_pu.min(), 1e3 * net.res_line.pl_mw.sum()


@pytest.mark.filterwarnings("ignore")
def test_voltage_droop_settles_on_a_feeder() -> None:
    # q = 5 Mvar/pu (1 - v), undamped, without a dead band, within sqrt(0.5^2 - 0.3^2) = 0.4 Mvar.
    assert feeder(0.0, 0)[1:] == pytest.approx((0.95003, 90.43), rel=1e-5)
    iterations, voltage, loss = feeder(5.0, 60, response=1.0)
    assert 20 <= iterations <= 24
    assert voltage == pytest.approx(0.96242, abs=5e-6)
    assert loss == pytest.approx(50.70, abs=5e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("gain", [pytest.param(20.0, marks=pytest.mark.slow), 40.0])
def test_a_gain_beyond_the_bound_swings_without_damping_and_settles_with_it(gain: float) -> None:
    assert feeder(gain, 40, response=1.0)[0] == 40
    iterations, voltage, _ = feeder(gain, 100, response=0.2)
    assert iterations < 100
    assert voltage > 0.9757


def test_within_the_dead_band_nothing_moves_and_beyond_it_only_the_rest_counts() -> None:
    one = droop(pv(), v_dead_band_pu=0.02, response=1.0)  # 5 pu of 0.5 MVA: 2.5 Mvar per pu
    assert one.correct((0.3, 0.1), {"vm_pu": 0.985}) == pytest.approx((0.3, 0.1))
    assert one.correct((0.3, 0.1), {"vm_pu": 0.96}) == pytest.approx((0.3, 0.15))
    assert one.correct((0.3, 0.1), {"vm_pu": 1.04}) == pytest.approx((0.3, 0.05))


def test_what_is_asked_stays_within_power_limits_and_circle() -> None:
    one = droop(pv(), response=1.0, p_gain_pu=1.0)
    p, q = one.correct((0.2, 0.0), {"vm_pu": 0.5, "deviation_hz": -3.0})
    assert p == pytest.approx(0.3)
    assert p**2 + q**2 == pytest.approx(0.25)
    assert one.correct((0.2, 0.0), {"deviation_hz": 3.0})[0] == pytest.approx(0.0)


def test_what_is_not_known_leaves_the_setpoint() -> None:
    one = droop(pv())
    assert one.correct((0.2, 0.1), {}) == (0.2, 0.1)
    assert one.correct((0.2, 0.1), {"vm_pu": 0.0}) == (0.2, 0.1)


def test_damping_goes_a_share_of_the_way_in_each_step() -> None:
    one = droop(pv(), response=0.5)
    assert one.correct((0.3, 0.0), {"vm_pu": 0.98})[1] == pytest.approx(0.025)  # half of 2.5 x 0.02
    assert one.correct((0.3, 0.0), {"vm_pu": 0.98})[1] == pytest.approx(0.0375)


def test_gains_are_found_by_name_then_kind_and_devices_without_have_no_control() -> None:
    gains = {"pv_1": {"gain_mvar_per_pu": 1.0}, "renew*": {"gain_mvar_per_pu": 2.0}, "battery": {}}
    found = [droop(pv(), name, gains=gains).gains.gain_mvar_per_pu for name in ("pv_1", "pv_2")]
    assert found == [1.0, 2.0]
    assert droop(pv(), "battery", gains={"battery": {}}) is None
    assert droop(asset("load", demand=1.0, p_mw=0.1)) is None
    assert droop(pv(), p_gain_pu=0.0, q_gain_pu=0.0) is None


def test_its_setpoints_are_those_of_the_setpoint_protocol() -> None:
    protocol = vertical_class("droop")
    kind = device_class("renewable")
    devices = [Controls(kind.controls(pv()), (0,), kind.neutral())]
    assert protocol(protocol.Config(), devices).setpoints((1.0,)) == [(0.3, 0.0)]
    with pytest.raises(ValidationError, match="response"):
        protocol.Config(response=0.0)
