"""A battery's energy, losses, limits and wear, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from zgrid.devices import Effect
from zgrid.devices.storage import Storage, StorageConfig


def config(**parameters: Any) -> StorageConfig:
    raw = {"kind": "storage", "bus": "645", "p_max_mw": 0.5, "s_rated_mva": 0.625, "capacity_mwh": 2.0}
    return StorageConfig.model_validate({**raw, "eta_charge": 0.8, "eta_discharge": 0.5, **parameters})


def battery(dt_h: float = 1.0, **parameters: Any) -> Storage:
    return Storage.one(config(**parameters), dt_h)


def step(storage: Storage, soc: float, p_mw: float, q_mvar: float = 0.0) -> tuple[float, Effect]:
    (soc,), effect = storage.step((soc,), (p_mw, q_mvar), ())
    return soc, effect


def test_an_episode_begins_at_soc_init() -> None:
    assert battery(soc_init=0.3).initial() == (0.3,)


@pytest.mark.parametrize(("dt_h", "soc"), [(1.0, 0.66), (0.25, 0.54)])
def test_charging_stores_what_the_efficiency_leaves(dt_h: float, soc: float) -> None:
    # 0.4 MW x 0.8 = 0.32 MW stored; over 1 h 0.32 / 2 = 0.16, over a quarter 0.04
    got, effect = step(battery(dt_h), 0.5, -0.4)
    assert got == pytest.approx(soc, rel=1e-12)
    assert effect.p_mw == -0.4


@pytest.mark.parametrize(("dt_h", "soc"), [(1.0, 0.1), (0.25, 0.4)])
def test_discharging_takes_more_than_it_feeds_in(dt_h: float, soc: float) -> None:
    # 0.4 MW / 0.5 = 0.8 MW drawn; over 1 h 0.8 / 2 = 0.4, over a quarter 0.1
    got, effect = step(battery(dt_h), 0.5, 0.4)
    assert got == pytest.approx(soc, rel=1e-12)
    assert effect.p_mw == 0.4


@pytest.mark.parametrize(("asked", "done"), [(3.0, 0.5), (-3.0, -0.5)])
def test_power_stays_within_p_max(asked: float, done: float) -> None:
    _, effect = step(battery(0.25), 0.5, asked)
    assert effect.p_mw == done
    assert effect.violation == 0.0


def test_storage_stops_charging_when_full() -> None:
    storage = battery(soc_max=0.9)
    # (0.9 - 0.86) x 2 MWh = 0.08 MWh fit in: 0.08 / 0.8 = 0.1 MW for 1 h
    soc, effect = step(storage, 0.86, -0.5)
    assert effect.p_mw == pytest.approx(-0.1, rel=1e-12)
    assert soc == pytest.approx(0.9, rel=1e-15)
    assert step(storage, 0.9, -0.5)[0] == 0.9
    assert step(storage, 0.9, -0.5)[1].p_mw == 0.0


def test_storage_stops_discharging_when_empty() -> None:
    storage = battery(soc_min=0.2)
    # (0.24 - 0.2) x 2 MWh = 0.08 MWh are left: 0.08 x 0.5 = 0.04 MW for 1 h
    soc, effect = step(storage, 0.24, 0.5)
    assert effect.p_mw == pytest.approx(0.04, rel=1e-12)
    assert soc == pytest.approx(0.2, rel=1e-15)
    assert step(storage, 0.2, 0.5)[0] == 0.2
    assert step(storage, 0.2, 0.5)[1].p_mw == 0.0


def test_power_that_the_state_of_charge_cuts_is_a_violation() -> None:
    # asked -0.5, done -0.1, over 0.625 MVA: 0.4 / 0.625 = 0.64
    assert step(battery(soc_max=0.9), 0.86, -0.5)[1].violation == pytest.approx(0.64, rel=1e-9)


def test_energy_balances_over_a_random_year() -> None:
    storage = battery(soc_min=0.1, soc_max=0.95, eta_charge=0.93, eta_discharge=0.91)
    rng = np.random.default_rng(5)
    soc, charged, discharged = 0.5, 0.0, 0.0
    for asked in rng.uniform(-0.6, 0.6, 8760):
        soc, effect = step(storage, soc, float(asked))
        charged += max(-effect.p_mw, 0.0)
        discharged += max(effect.p_mw, 0.0)
        assert 0.1 <= soc <= 0.95
    assert charged > 100.0
    assert (soc - 0.5) * 2.0 == pytest.approx(charged * 0.93 - discharged / 0.91, abs=1e-9)


def test_a_round_trip_returns_the_product_of_the_efficiencies() -> None:
    storage = battery()
    soc, charged = step(storage, 0.5, -0.5)
    fed_in = 0.0
    while soc > 0.5 + 1e-12:
        # never draw below 0.5: at most (soc - 0.5) x 2 MWh x 0.5
        soc, effect = step(storage, soc, min(0.05, (soc - 0.5) * 2.0 * 0.5))
        fed_in += effect.p_mw
    assert charged.p_mw == -0.5
    assert soc == pytest.approx(0.5, rel=1e-12)
    assert fed_in == pytest.approx(0.5 * 0.8 * 0.5, rel=1e-9)


@pytest.mark.parametrize("p_mw", [0.4, -0.4])
def test_wear_counts_energy_both_ways(p_mw: float) -> None:
    # 0.4 MW x 0.25 h x 5 $/MWh = 0.5 $
    assert step(battery(0.25, wear_cost=5.0), 0.5, p_mw)[1].cost == pytest.approx(0.5, rel=1e-12)


def test_standing_still_costs_nothing_and_loses_nothing() -> None:
    soc, effect = step(battery(wear_cost=5.0), 0.37, 0.0)
    assert soc == 0.37
    assert effect == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("p_mw", [0.375, -0.375])
def test_reactive_power_stays_in_the_circle(p_mw: float) -> None:
    # sqrt(0.625^2 - 0.375^2) = sqrt(0.390625 - 0.140625) = 0.5; asked 0.6: 0.1 / 0.625 = 0.16
    _, effect = step(battery(0.25, q_control=True), 0.5, p_mw, 0.6)
    assert effect.q_mvar == pytest.approx(0.5, rel=1e-12)
    assert effect.violation == pytest.approx(0.16, rel=1e-9)


def test_an_empty_battery_still_gives_reactive_power() -> None:
    _, effect = step(battery(q_control=True), 0.0, 0.5, -0.625)
    assert effect[:2] == (0.0, -0.625)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"p_max_mw": 0.7}, "p_max_mw 0.7 is above s_rated_mva 0.625"),
        ({"soc_min": 0.6, "soc_max": 0.6, "soc_init": 0.6}, "soc_min 0.6 is not below soc_max 0.6"),
        ({"soc_min": 0.6}, "soc_init 0.5 is outside its band, 0.6 to 1.0"),
        ({"soc_max": 0.4}, "soc_init 0.5 is outside its band, 0.0 to 0.4"),
        ({"soc_max": 1.1}, "soc_max"),
        ({"eta_charge": 0.0}, "eta_charge"),
        ({"eta_discharge": 1.01}, "eta_discharge"),
        ({"capacity_mwh": 0.0}, "capacity_mwh"),
        ({"wear_cost": -1.0}, "wear_cost"),
    ],
)
def test_a_config_that_cannot_be_is_refused(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        config(**parameters)


def test_controls_charge_and_discharge_alike() -> None:
    p, q = Storage.controls(config(q_control=True))
    assert (p.low, p.high) == (-0.5, 0.5)
    assert (q.low, q.high) == (-0.625, 0.625)
