"""Rewards and their terms, against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from zgrid.agents.reward import overload, reward_class, voltage_bowl, voltage_l1, voltage_l2
from zgrid.errors import UnknownNameError
from zgrid.messages import DeviceState, NetworkState

NAN = math.nan
COSTS = ("generation_cost", "wear_cost", "generation_cost")


def network(
    vm_pu: Sequence[float] = (1.0,),
    line_loading: Sequence[float] = (),
    trafo_loading: Sequence[float] = (),
    p_pcc_mw: float = 0.0,
    converged: bool = True,
) -> NetworkState:
    arrays = [np.array(values, dtype=np.float64) for values in (vm_pu, line_loading, trafo_loading)]
    sizes = (len(vm_pu), len(line_loading), len(trafo_loading))
    return NetworkState(converged, sizes, np.concatenate(arrays), p_pcc_mw, 0.0, 0.0, 0.0, (), (), ())


def states(costs: Sequence[float] = (0.0, 0.0, 0.0), violations: Sequence[float] = (0.0, 0.0, 0.0)) -> list[Any]:
    return [DeviceState(0.0, 0.0, cost, violation, ()) for cost, violation in zip(costs, violations, strict=True)]


def assess(
    kind: str, state: NetworkState, devices: Sequence[DeviceState], price: float = 0.0, **parameters: Any
) -> tuple[float, dict[str, float]]:
    found = reward_class(kind)
    reward = found(found.Config.model_validate({"kind": kind, **parameters}), COSTS, 0.25)
    value, terms = reward.assess(devices, state, price)
    assert all(math.isfinite(x) for x in (value, *terms))
    return value, dict(zip(reward.term_names, terms, strict=True))


# ---- voltage --------------------------------------------------------------------------------------------------------

VM_PU = np.array([1.0, 0.95, 1.05, 1.06, 0.93, NAN])


def test_l1_sums_what_is_outside_the_band() -> None:
    # 0.01 above, 0.02 below, and a dead bus is 0.95 below
    assert voltage_l1(VM_PU[:5], 0.95, 1.05) == pytest.approx(0.03, rel=1e-12)
    assert voltage_l1(VM_PU, 0.95, 1.05) == pytest.approx(0.98, rel=1e-12)


def test_l2_sums_the_squares_of_what_is_outside_the_band() -> None:
    # 0.0001 + 0.0004, and 0.9025 of the dead bus
    assert voltage_l2(VM_PU[:5], 0.95, 1.05) == pytest.approx(0.0005, rel=1e-12)
    assert voltage_l2(VM_PU, 0.95, 1.05) == pytest.approx(0.903, rel=1e-12)


@pytest.mark.parametrize(
    ("vm_pu", "value"),
    [
        # N(0; 0, 0.1) = 10 / sqrt(2 pi) = 3.98942280401: 0.04 - 0.0398942280401
        (1.0, 0.000105771959857),
        # N(0.05; 0, 0.1) = 3.98942280401 x exp(-0.125) = 3.52065326764: 0.04 - 0.0352065326764
        (1.05, 0.0047934673236),
        (0.95, 0.0047934673236),
        # outside: 2 x 0.1 - 0.095 and 2 x 0.06 - 0.095
        (1.1, 0.105),
        (0.94, 0.025),
        # a dead bus is 1 away from the middle: 2 - 0.095
        (NAN, 1.905),
    ],
)
def test_the_bowl_is_flat_inside_and_steep_outside(vm_pu: float, value: float) -> None:
    assert voltage_bowl(np.array([vm_pu]), 0.95, 1.05) == pytest.approx(value, abs=1e-12)


def test_the_bowl_stretches_with_the_band() -> None:
    # In a band of +-0.1 a distance of 0.2 counts as 0.1.
    assert voltage_bowl(np.array([1.2]), 0.9, 1.1) == pytest.approx(0.105, abs=1e-12)
    assert voltage_bowl(np.array([1.0, 1.2]), 0.9, 1.1) == pytest.approx(0.105 + 0.000105771959857, abs=1e-12)


def test_overload_counts_only_what_is_above_the_rating() -> None:
    # 20 % and 50 % too much; a dead line carries nothing
    assert overload(np.array([120.0, 80.0, 100.0, 150.0, NAN])) == pytest.approx(0.7, rel=1e-12)
    assert overload(np.zeros(0)) == 0.0


# ---- economic -------------------------------------------------------------------------------------------------------


def test_an_import_costs_the_price() -> None:
    # 0.5 MW x 0.25 h x 40 $/MWh = 5 $
    value, terms = assess("economic", network(p_pcc_mw=0.5), states(), 40.0)
    assert value == -5.0
    assert terms["energy_cost"] == 5.0


@pytest.mark.parametrize(("discount", "earned"), [(0.9, 4.5), (1.0, 5.0), (0.0, 0.0)])
def test_an_export_is_paid_a_share_of_the_price(discount: float, earned: float) -> None:
    value, terms = assess("economic", network(p_pcc_mw=-0.5), states(), 40.0, sell_discount=discount)
    assert value == pytest.approx(earned, rel=1e-12)
    assert terms["energy_cost"] == pytest.approx(-earned, rel=1e-12)


def test_costs_of_one_name_are_one_term() -> None:
    value, terms = assess("economic", network(), states((3.0, 0.5, 4.0)))
    assert (terms["generation_cost"], terms["wear_cost"]) == (7.0, 0.5)
    assert value == -7.5


def test_safety_is_weighed_and_penalised() -> None:
    # voltage 0.02 (0.93), lines 0.2 and transformers 0.1 too high, devices 0.3 + 0.5 beyond their limits:
    # safety = 2 x 0.02 + 3 x 0.3 + 0.5 x 0.8 = 0.04 + 0.9 + 0.4 = 1.34, x 50 = 67
    value, terms = assess(
        "economic",
        network((1.0, 0.93), (120.0, 30.0), (110.0,)),
        states(violations=(0.3, 0.0, 0.5)),
        penalty=50.0,
        voltage_weight=2.0,
        overload_weight=3.0,
        device_weight=0.5,
    )
    assert value == pytest.approx(-67.0, rel=1e-9)
    expected = {"voltage": 0.02, "overload": 0.3, "device_limits": 0.8, "safety": 1.34}
    assert {name: terms[name] for name in expected} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("shape", "voltage"), [("l1", 0.98), ("l2", 0.903)])
def test_the_config_chooses_the_shape_of_the_voltage_penalty(shape: str, voltage: float) -> None:
    value, terms = assess("economic", network(tuple(VM_PU)), states(), voltage=shape, penalty=1.0)
    assert terms["voltage"] == pytest.approx(voltage, rel=1e-12)
    assert value == pytest.approx(-voltage, rel=1e-12)


def test_the_config_chooses_the_band() -> None:
    _, terms = assess("economic", network((1.0, 0.93, 1.06)), states(), vm_min_pu=0.9, vm_max_pu=1.04)
    assert terms["voltage"] == pytest.approx(0.02, rel=1e-9)


def test_the_reward_is_the_sum_of_its_terms() -> None:
    state = network((0.9, 1.1), (130.0,), (90.0,), p_pcc_mw=0.7)
    value, terms = assess("economic", state, states((3.0, 0.5, 4.0), (0.1, 0.0, 0.0)), 33.0, penalty=7.0)
    costs = ("generation_cost", "wear_cost", "energy_cost", "divergence_cost")
    assert value == pytest.approx(-sum(terms[name] for name in costs) - 7.0 * terms["safety"], rel=1e-12)


@pytest.mark.parametrize("kind", ["economic", "reference"])
def test_divergence_replaces_all_costs(kind: str) -> None:
    # 200 $ and a safety of 20 at 10 $ each
    dead = network((NAN, NAN), (NAN,), (NAN,), converged=False)
    value, terms = assess(kind, dead, states((3.0, 0.5, 4.0), (1.0, 1.0, 1.0)), 40.0)
    assert value == -400.0
    assert {name: x for name, x in terms.items() if x != 0.0} == {"divergence_cost": 200.0, "safety": 20.0}


def test_what_divergence_costs_can_be_chosen() -> None:
    dead = network((NAN,), converged=False)
    value, _ = assess("economic", dead, states(), diverged_cost=30.0, diverged_safety=2.0, penalty=5.0)
    assert value == -40.0


# ---- reference ------------------------------------------------------------------------------------------------------


def test_the_reference_counts_costs_voltages_lines_and_device_limits() -> None:
    # costs 7.5; safety: 0.01 + 0.02 voltage, 0.2 line, 0.1 device = 0.33, x 10
    value, terms = assess("reference", network((1.06, 0.93), (120.0,)), states((3.0, 0.5, 4.0), (0.1, 0.0, 0.0)))
    assert value == pytest.approx(-7.5 - 3.3, rel=1e-9)
    expected = {"generation_cost": 7.0, "wear_cost": 0.5, "voltage": 0.03, "overload": 0.2, "device_limits": 0.1,
                "safety": 0.33, "divergence_cost": 0.0}  # fmt: skip
    assert terms == pytest.approx(expected, rel=1e-9)


def test_the_reference_counts_neither_imports_nor_transformers() -> None:
    value, _ = assess("reference", network((1.0,), (), (150.0,), p_pcc_mw=3.0), states(), 40.0)
    assert value == 0.0


# ---- config ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("economic", {"voltage": "l3"}),
        ("economic", {"sell_discount": 1.1}),
        ("economic", {"penalty": -1.0}),
        ("economic", {"penalties": 1.0}),
        ("reference", {"sell_discount": 0.9}),
    ],
)
def test_a_config_that_cannot_be_is_refused(kind: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(parameters))):
        reward_class(kind).Config.model_validate({"kind": kind, **parameters})


@pytest.mark.parametrize(("low", "high"), [(1.05, 0.95), (1.0, 1.0)])
def test_a_band_that_is_empty_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValidationError, match="vm_min_pu"):
        reward_class("economic").Config.model_validate({"kind": "economic", "vm_min_pu": low, "vm_max_pu": high})


def test_an_unknown_reward_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'economic'"):
        reward_class("economc")
