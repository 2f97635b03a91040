"""What a grid does by itself: nothing, anything, or what pays at the price of the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from pydantic import ValidationError

from zgrid.devices import Effect, Market, device_class
from zgrid.messages import DeviceState
from zgrid.policies import POLICIES, Actor, GridView, Policy, policy_class
from zgrid.protocols import Controls, vertical_class

GENERATOR = {"kind": "generator", "p_max_mw": 0.66, "s_rated_mva": 1.0, "cost_a": 100.0, "cost_b": 72.4}
COMMITTED = {**GENERATOR, "p_min_mw": 0.2, "commitment": True, "cost_c": 3.0, "start_cost": 10.0}
SOLAR = {"kind": "renewable", "availability": "solar", "p_max_mw": 0.4, "s_rated_mva": 0.5, "q_control": True}
BATTERY = {"kind": "storage", "p_max_mw": 0.5, "s_rated_mva": 0.6, "capacity_mwh": 2.0, "eta_charge": 0.9,
           "eta_discharge": 0.8, "wear_cost": 5.0, "q_control": True}  # fmt: skip
LOAD = {"kind": "load", "demand": "load_1", "p_mw": 0.3}


def actor(raw: dict[str, Any]) -> Actor:
    found = device_class(raw["kind"])
    config = found.Config.model_validate({"bus": "b", **raw})
    controls = found.controls(config)
    return Actor(found.one(config, 1.0), controls, tuple(found.SETPOINT.index(control.name) for control in controls))


class Grid:
    """A policy with its devices, outside any agent."""

    def __init__(self, policy: str, devices: Sequence[dict[str, Any]]) -> None:
        self.actors = [actor(raw) for raw in devices]
        found = policy_class(policy)
        self.policy: Policy = found(found.Config(), self.actors)
        self.policy.reset((7, 8))

    def act(self, market: Market, availability: float = 0.5, soc: float | None = None) -> tuple[float, ...]:
        states, series = [], []
        for one in self.actors:
            state = one.device.initial() if soc is None or one.device.STATE != ("soc",) else (soc,)
            states.append(DeviceState(0.0, 0.0, 0.0, 0.0, state))
            series.append((availability,) * len(one.device.SERIES))
        return self.policy.act(GridView(np.zeros(1, dtype=np.float32), states, market, series, None))

    def effects(self, market: Market, availability: float = 0.5, soc: float | None = None) -> list[Effect]:
        """What the devices do when they are told what the policy says."""
        controls = [Controls(one.controls, one.positions, one.device.neutral()) for one in self.actors]
        setpoints = vertical_class("setpoint")(None, controls).setpoints(self.act(market, availability, soc))
        effects = []
        for one, setpoint in zip(self.actors, setpoints, strict=True):
            state = one.device.initial() if soc is None or one.device.STATE != ("soc",) else (soc,)
            effects.append(one.device.step(state, setpoint, (availability,) * len(one.device.SERIES))[1])
        return effects


MARKET = Market(30.0, 20.0, 40.0)


@pytest.mark.parametrize("kind", [kind for kind in POLICIES if kind != "onnx"])  # that one needs a file
def test_every_policy_gives_one_entry_in_range_per_control(kind: str) -> None:
    # generator p; committed p, on; solar p, q; battery p, q; load nothing
    grid = Grid(kind, [GENERATOR, COMMITTED, SOLAR, BATTERY, LOAD])
    for price in (-20.0, 30.0, 500.0):
        action = grid.act(Market(price, 20.0, 40.0))
        assert len(action) == 7
        assert all(type(x) is float and -1.0 <= x <= 1.0 for x in action)


@pytest.mark.parametrize("kind", POLICIES)
def test_every_policy_refuses_an_unknown_parameter(kind: str) -> None:
    with pytest.raises(ValidationError, match="speed"):
        policy_class(kind).Config.model_validate({"kind": kind, "speed": 1.0})


# ---- idle -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [GENERATOR, COMMITTED, SOLAR, BATTERY], ids=["generator", "committed", "pv", "battery"])
def test_idle_gives_no_power_and_asks_nothing_impossible(raw: dict[str, Any]) -> None:
    (effect,) = Grid("idle", [raw]).effects(MARKET)
    assert effect.p_mw == 0.0
    assert effect.q_mvar == pytest.approx(0.0, abs=1e-16)
    assert effect.violation == pytest.approx(0.0, abs=1e-15)


def test_idle_leaves_a_unit_that_must_run_at_its_least_power() -> None:
    (effect,) = Grid("idle", [{**GENERATOR, "p_min_mw": 0.2}]).effects(MARKET)
    assert effect.p_mw == 0.2


def test_idle_does_not_start_a_unit() -> None:
    (effect,) = Grid("idle", [COMMITTED]).effects(MARKET)
    assert effect.cost == 0.0


# ---- random ---------------------------------------------------------------------------------------------------------


def draws(seed: Sequence[int], n: int = 3) -> list[tuple[float, ...]]:
    grid = Grid("random", [GENERATOR, BATTERY])
    grid.policy.reset(seed)
    return [grid.act(MARKET) for _ in range(n)]


def test_random_repeats_with_the_same_seed() -> None:
    assert draws((7, 1)) == draws((7, 1))


def test_random_repeats_after_a_reset_of_the_same_policy() -> None:
    grid = Grid("random", [GENERATOR, BATTERY])
    episodes = []
    for _ in range(2):
        grid.policy.reset((7, 1))
        episodes.append([grid.act(MARKET) for _ in range(3)])
    assert episodes[0] == episodes[1]
    assert len(set(episodes[0])) == 3


def test_random_differs_by_seed_and_by_grid() -> None:
    first, second = crc32(b"mg_1"), crc32(b"mg_2")
    assert len({tuple(draws(seed)) for seed in ((7, first), (8, first), (7, second))}) == 3


def test_random_covers_the_whole_range_evenly() -> None:
    actions = np.array(draws((7, 1), 2000))
    assert actions.min() < -0.99
    assert actions.max() > 0.99
    # The mean of 2000 uniform draws on [-1, 1] has a deviation of (1 / sqrt 3) / sqrt 2000 = 0.013.
    assert np.abs(actions.mean(axis=0)).max() < 5 * 0.013


# ---- rule based -----------------------------------------------------------------------------------------------------


def test_rules_run_a_generator_where_marginal_cost_meets_the_price() -> None:
    # 2 x 100 x p + 72.4 = 122.4: p = 50 / 200 = 0.25
    (effect,) = Grid("rule_based", [GENERATOR]).effects(Market(122.4, 20.0, 150.0))
    assert effect.p_mw == pytest.approx(0.25, rel=1e-12)


def test_rules_leave_a_generator_idle_below_its_marginal_cost() -> None:
    (effect,) = Grid("rule_based", [GENERATOR]).effects(Market(72.0, 20.0, 150.0))
    assert effect.p_mw == 0.0


@pytest.mark.parametrize(
    ("price", "p_mw"),
    # At 0.2 MW: 100 x 0.04 + 72.4 x 0.2 + 3 = 21.48 $/h. A price of 100 asks for (100 - 72.4) / 200 = 0.138, so p_min
    # 0.2, and earns 20 $/h: off. A price of 132.4 asks for 0.3 and earns 39.72 against 9 + 21.72 + 3 = 33.72: on.
    [(100.0, 0.0), (132.4, 0.3)],
)
def test_rules_start_a_unit_where_that_earns(price: float, p_mw: float) -> None:
    (effect,) = Grid("rule_based", [COMMITTED]).effects(Market(price, 20.0, 150.0))
    assert effect.p_mw == pytest.approx(p_mw, rel=1e-12)


@pytest.mark.parametrize("availability", [0.0, 0.37, 1.0])
def test_rules_feed_in_what_the_weather_gives(availability: float) -> None:
    (effect,) = Grid("rule_based", [SOLAR]).effects(MARKET, availability)
    assert effect.p_mw == pytest.approx(0.4 * availability, abs=1e-12)
    assert effect.q_mvar == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(
    ("price", "p_mw"), [(19.0, -0.5), (20.0, -0.5), (20.1, 0.0), (49.9, 0.0), (50.0, 0.5), (90.0, 0.5)]
)
def test_rules_charge_in_the_cheap_and_discharge_in_the_dear_quarter(price: float, p_mw: float) -> None:
    (effect,) = Grid("rule_based", [BATTERY]).effects(Market(price, 20.0, 50.0))
    assert effect.p_mw == pytest.approx(p_mw, abs=1e-15)


@pytest.mark.parametrize("price", [20.0, 28.0])
def test_rules_leave_a_battery_idle_where_the_spread_does_not_pay_losses(price: float) -> None:
    # Without wear: 1 MWh bought at 20 returns 0.9 x 0.8 = 0.72 MWh: worth less than 20 at any price below 27.8.
    (effect,) = Grid("rule_based", [{**BATTERY, "wear_cost": 0.0}]).effects(Market(price, 20.0, 27.0))
    assert effect.p_mw == 0.0
    (effect,) = Grid("rule_based", [{**BATTERY, "wear_cost": 0.0}]).effects(Market(28.0, 20.0, 28.0))
    assert effect.p_mw == 0.5


@pytest.mark.parametrize("price", [20.0, 37.0])
def test_rules_leave_a_battery_idle_where_the_spread_does_not_pay_wear(price: float) -> None:
    # 27.8 as above and wear of 5 on what goes in (1 / 0.72 = 1.39 MWh per MWh out) and of 5 on what comes out.
    (effect,) = Grid("rule_based", [BATTERY]).effects(Market(price, 20.0, 37.0))
    assert effect.p_mw == 0.0


def test_rules_count_wear_on_every_mwh_taken() -> None:
    # Efficiency 0.5 x 0.5 = 0.25: 4 MWh bought at 10 and worn at 10 cost 80; 1 MWh sold at 70 and worn brings 60.
    lossy = {**BATTERY, "eta_charge": 0.5, "eta_discharge": 0.5, "wear_cost": 10.0}
    (effect,) = Grid("rule_based", [lossy]).effects(Market(70.0, 10.0, 70.0))
    assert effect.p_mw == 0.0


def test_rules_do_not_ask_a_full_battery_to_charge_nor_an_empty_one_to_discharge() -> None:
    grid = Grid("rule_based", [BATTERY])
    assert grid.effects(Market(10.0, 20.0, 50.0), soc=1.0)[0][0::3] == (0.0, 0.0)
    assert grid.effects(Market(90.0, 20.0, 50.0), soc=0.0)[0][0::3] == (0.0, 0.0)


def test_rules_ask_each_device_for_itself() -> None:
    devices = [LOAD, SOLAR, GENERATOR, BATTERY]
    together = Grid("rule_based", devices).effects(Market(122.4, 20.0, 50.0), 0.6)
    alone = [Grid("rule_based", [one]).effects(Market(122.4, 20.0, 50.0), 0.6)[0] for one in devices]
    assert together == alone
    assert [effect.p_mw for effect in together] == pytest.approx([-0.18, 0.24, 0.25, 0.5], rel=1e-12)
