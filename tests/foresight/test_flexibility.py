"""Devices in a linear program against optima worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zgrid.devices import device_class
from zgrid.foresight.flexibility import Corridor, add_device, why_not
from zgrid.foresight.program import Program

BATTERY = {
    "kind": "storage", "bus": "1", "p_max_mw": 1.0, "s_rated_mva": 1.0, "capacity_mwh": 2.0, "eta_charge": 0.9,
    "eta_discharge": 0.9,
}  # fmt: skip
DIESEL = {"kind": "generator", "bus": "1", "p_max_mw": 0.5, "s_rated_mva": 0.6, "cost_a": 100.0, "cost_b": 50.0}
PLANT = {"kind": "renewable", "bus": "1", "availability": "solar", "p_max_mw": 2.0, "s_rated_mva": 2.0}


def config(content: dict[str, Any], **changes: Any) -> Any:
    return device_class(content["kind"]).Config(**content | changes)


def sell(device: Any, prices: list[float], *, done: float = 0.0, radius: float = 1.0, series: Any = ()) -> Any:
    """The least cost of a device that is paid the price of an hour for what it injects, $, and its plan in MW."""
    n = len(prices)
    at = np.full(n, done)
    program = Program()
    columns = np.array(series, dtype=np.float64).reshape(n, -1) if len(series) else np.zeros((n, 0))
    injection = add_device(program, device, 1.0, Corridor(at, at * 0.0, columns, np.zeros(n), radius))
    earned = program.add_variables(n, -np.inf, np.inf, 1.0)
    price = np.array(prices)
    program.equal([(earned, 1.0), *((c, price * sign) for c, sign in injection.p)], 0.0)
    values, cost = program.solve()
    return cost, sum(sign * values[c] for c, sign in injection.p)


class TestStorage:
    def test_buys_cheap_and_sells_dear(self) -> None:
        """Two hours at 10 $/MWh, two at 50: 1 MWh of room takes 1.111 MWh; a full store of 2 MWh gives 1.8 MWh."""
        cost, plan = sell(config(BATTERY), [10.0, 10.0, 50.0, 50.0])
        assert cost == pytest.approx(10.0 / 0.9 - 50.0 * 1.8)
        assert plan[:2].sum() == pytest.approx(-1.0 / 0.9)
        assert plan[2:].sum() == pytest.approx(1.8)

    def test_only_sells_what_it_has_where_the_spread_does_not_pay(self) -> None:
        """The round trip keeps 0.81: 45 sold for each 50 / 0.81 = 61.7 bought does not pay, the 1 MWh in store does."""
        cost, plan = sell(config(BATTERY), [45.0, 50.0])
        assert cost == pytest.approx(-50.0 * 0.9)
        assert plan == pytest.approx([0.0, 0.9])

    def test_wear_is_paid_at_the_networks_side(self) -> None:
        assert sell(config(BATTERY, wear_cost=4.0), [45.0, 50.0])[0] == pytest.approx(-46.0 * 0.9)

    def test_stays_within_the_trust_region(self) -> None:
        """A tenth of the range from -1 to 1 MW, around 0.3 MW."""
        _, plan = sell(config(BATTERY), [-10.0, 50.0], done=0.3, radius=0.1)
        assert plan == pytest.approx([0.1, 0.5])


class TestGenerator:
    def test_runs_where_the_marginal_cost_meets_the_price(self) -> None:
        """2 x 100 p + 50 = 80 at 0.15 MW, which earns 80 x 0.15 - 100 x 0.15^2 - 50 x 0.15 = 2.25 $ an hour."""
        assert sell(config(DIESEL), [80.0, 80.0], done=0.15)[0] == pytest.approx(-4.5)

    def test_a_model_promises_at_least_the_optimum_wherever_it_begins(self) -> None:
        cost, plan = sell(config(DIESEL), [80.0], done=0.4)
        assert -2.25 - 0.1 < cost <= -2.25
        assert plan[0] == pytest.approx(0.15, abs=0.0313)  # half the distance of its tangents

    def test_a_ramp_holds_it_back(self) -> None:
        _, plan = sell(config(DIESEL, ramp_mw_per_h=0.1), [500.0, 500.0, 500.0])
        assert plan == pytest.approx([0.1, 0.2, 0.3])

    def test_follows_the_pieces_of_its_cost(self) -> None:
        pieces = config(DIESEL, cost_a=0.0, cost_b=0.0, cost_points=[(0.0, 5.0), (0.2, 15.0), (0.5, 45.0)])
        assert sell(pieces, [60.0])[0] == pytest.approx(15.0 - 12.0)  # 50 $/MWh up to 0.2 MW, then 100


class TestRenewable:
    def test_feeds_in_what_there_is_unless_it_costs_more_than_curtailing(self) -> None:
        plant = config(PLANT, curtailment_cost=5.0)
        cost, plan = sell(plant, [30.0, -3.0, -8.0], series=[0.5, 0.5, 0.5])
        assert plan == pytest.approx([1.0, 1.0, 0.0])
        assert cost == pytest.approx(-30.0 + 3.0 + 5.0)


class TestWhatCannotBePlanned:
    def test_another_kind(self) -> None:
        bank = config({"kind": "capacitor", "bus": "1", "q_mvar_per_step": 0.1, "steps": 2})
        assert why_not(bank) == "kind 'capacitor', expected one of generator, load, renewable, storage"

    def test_a_generator_that_is_committed(self) -> None:
        assert "commitment" in why_not(config(DIESEL, commitment=True))
        assert why_not(config(DIESEL)) == ""
