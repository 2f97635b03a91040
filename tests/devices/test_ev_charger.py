"""A charging point's schedule, charging and missed energy, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from zgrid.devices import Clock, Effect, Market
from zgrid.devices.ev_charger import EvCharger, EvChargerConfig

HOURLY, QUARTERLY = Clock(365, 24, 1.0), Clock(30, 96, 0.25)


def config(**parameters: Any) -> EvChargerConfig:
    raw = {"kind": "ev_charger", "bus": "634", "p_max_mw": 0.01, "eta": 0.8}
    return EvChargerConfig.model_validate({**raw, **parameters})


def schedule(clock: Clock, seed: int = 3, **parameters: Any) -> tuple[Any, Any]:
    arriving, left = config(**parameters).columns(lambda _: np.zeros(0), clock, np.random.default_rng(seed))
    return arriving, left


def certain(arrival_h: float, stay_h: float, energy_mwh: float = 0.01) -> dict[str, Any]:
    means = {"arrival_h": arrival_h, "stay_h": stay_h, "energy_mwh": energy_mwh}
    return {key: {"mean": mean} for key, mean in means.items()}


class TestSchedule:
    def test_a_car_that_is_certain_comes_every_day_at_its_hour(self) -> None:
        arriving, left = schedule(Clock(2, 24, 1.0), **certain(8.0, 3.0))
        day = np.zeros(24)
        day[8:11] = 3.0, 2.0, 1.0
        assert left.tolist() == [*day, *day]
        assert np.flatnonzero(arriving).tolist() == [8, 32]
        assert arriving[8] == 0.01

    def test_a_stay_over_night_wraps_at_the_end_of_the_data(self) -> None:
        _, left = schedule(Clock(2, 24, 1.0), **certain(22.0, 4.0))
        assert left[[22, 23, 24, 25, 26]].tolist() == [4.0, 3.0, 2.0, 1.0, 0.0]
        assert left[[46, 47, 0, 1, 2]].tolist() == [4.0, 3.0, 2.0, 1.0, 0.0]

    def test_a_car_that_finds_the_point_taken_drives_on(self) -> None:
        # each stays for 30 h: the next day's finds it taken
        arriving, _ = schedule(Clock(4, 24, 1.0), **certain(8.0, 30.0))
        assert np.flatnonzero(arriving).tolist() == [8, 8 + 48]

    def test_hours_left_count_down_and_energy_comes_at_arrival_only(self) -> None:
        arriving, left = schedule(QUARTERLY, seed=5)
        begins = (left > 0.0) & (left != np.roll(left, 1) - 0.25)
        assert begins.sum() > 20
        assert np.array_equal(np.flatnonzero(arriving), np.flatnonzero(begins))
        ends = (left > 0.0) & ((np.roll(left, -1) == 0.0) | np.roll(begins, -1))
        assert set(left[ends]) == {0.25}

    @pytest.mark.parametrize("clock", [HOURLY, QUARTERLY], ids=["hours", "quarters"])
    def test_what_is_needed_can_be_charged_within_the_stay(self, clock: Clock) -> None:
        arriving, left = schedule(clock, energy_mwh={"mean": 0.08, "std": 0.05})
        most = 0.01 * 0.8 * left[arriving > 0.0]
        assert (arriving[arriving > 0.0] <= most).all()
        assert (arriving[arriving > 0.0] == most).any()

    def test_the_share_of_days_with_a_car_is_kept(self) -> None:
        # 0.3 of 365 days are 109.5 +- sqrt(365 x 0.21) = 8.8
        arriving, _ = schedule(HOURLY, days_with_car=0.3)
        assert abs(np.count_nonzero(arriving) - 109.5) < 4 * 8.8
        assert not schedule(HOURLY, days_with_car=0.0)[1].any()

    def test_arrivals_have_the_mean_that_is_asked_for(self) -> None:
        arriving, _ = schedule(HOURLY, arrival_h={"mean": 12.0, "std": 2.0}, stay_h={"mean": 4.0})
        # the hour begun is half an hour before the mean; 2 / sqrt 365 = 0.1
        assert (np.flatnonzero(arriving) % 24).mean() == pytest.approx(11.5, abs=0.5)

    def test_it_repeats_with_the_same_seeds_and_differs_by_either(self) -> None:
        kinds = [
            config(seed=own).columns(lambda _: np.zeros(0), HOURLY, np.random.default_rng(seed))[0].tobytes()
            for seed, own in ((3, 0), (3, 0), (4, 0), (3, 1))
        ]
        assert kinds[0] == kinds[1]
        assert len(set(kinds)) == 3


def step(
    state: tuple[float, float], p_mw: float, series: tuple[float, float], dt_h: float = 1.0, **parameters: Any
) -> tuple[tuple[float, ...], Effect]:
    return EvCharger.one(config(**parameters), dt_h).step(state, (p_mw,), series)


@pytest.mark.parametrize(("dt_h", "needed"), [(1.0, 0.012), (0.25, 0.018)])
def test_charging_stores_what_the_efficiency_leaves(dt_h: float, needed: float) -> None:
    # 0.01 MW x 0.8 for an hour are 0.008 MWh
    state, effect = step((0.0, 0.0), -0.01, (0.02, 5.0), dt_h)
    assert state == pytest.approx((needed, 0.02), rel=1e-12)
    assert effect == (-0.01, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("asked", "done"), [(-9.0, -0.01), (-0.004, -0.004), (0.5, 0.0), (0.0, 0.0)])
def test_power_stays_within_p_max_and_never_feeds_in(asked: float, done: float) -> None:
    assert step((0.02, 0.02), asked, (0.0, 5.0))[1][0::3] == (done, 0.0)


def test_it_charges_no_more_than_is_needed() -> None:
    # 0.004 MWh in the car are 0.005 MWh at the network
    state, effect = step((0.004, 0.02), -0.01, (0.0, 5.0))
    assert effect.p_mw == pytest.approx(-0.005, rel=1e-12)
    assert state == (0.0, 0.02)


def test_without_a_car_nothing_flows() -> None:
    assert step((0.0, 0.0), -0.01, (0.0, 0.0)) == ((0.0, 0.0), (0.0, 0.0, 0.0, 0.0))


def test_what_is_missing_at_departure_costs_and_is_a_violation() -> None:
    # 0.01 needed, 0.004 x 0.8 charged in the last hour: 0.0068 MWh missing of 0.02
    state, effect = step((0.01, 0.02), -0.004, (0.0, 1.0), missed_cost=1000.0)
    assert state == (0.0, 0.0)
    assert effect.cost == pytest.approx(6.8, rel=1e-9)
    assert effect.violation == pytest.approx(0.34, rel=1e-9)
    assert step((0.01, 0.02), -0.004, (0.0, 2.0))[1][2:] == (0.0, 0.0)


@pytest.mark.parametrize(
    ("price", "left", "p_mw"),
    # 0.016 MWh need 2 h of full power: where it is dear, it may wait while more than 2 h are left after this one
    [(30.0, 9.0, -0.01), (60.0, 9.0, 0.0), (60.0, 3.0, 0.0), (60.0, 2.0, -0.01), (90.0, 1.0, -0.01)],
)
def test_by_itself_it_charges_at_once_unless_it_is_dear_and_there_is_time(
    price: float, left: float, p_mw: float
) -> None:
    charger = EvCharger.one(config(), 1.0)
    assert charger.respond((0.016, 0.02), (0.0, left), Market(price, 20.0, 60.0)) == (p_mw,)


@pytest.mark.parametrize("dt_h", [1.0, 0.25])
def test_by_itself_it_never_misses_anything_even_where_it_is_always_dear(dt_h: float) -> None:
    clock = Clock(100, round(24 / dt_h), dt_h)
    arriving, left = schedule(clock, energy_mwh={"mean": 0.06, "std": 0.04})
    charger = EvCharger.one(config(), dt_h)
    state, charged = charger.initial(), 0.0
    first = int(np.flatnonzero(arriving)[0])
    for series in zip(np.roll(arriving, -first).tolist(), np.roll(left, -first).tolist(), strict=True):
        state, effect = charger.step(state, charger.respond(state, series, Market(60.0, 20.0, 60.0)), series)
        charged -= effect.p_mw * dt_h * 0.8
        assert effect[2:] == (0.0, 0.0)
    assert charged == pytest.approx(arriving.sum(), rel=1e-9)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"p_max_mw": 0.0}, "p_max_mw"),
        ({"eta": 1.1}, "eta"),
        ({"arrival_h": {"mean": 24.0}}, "arrival_h.mean 24.0 is no hour of a day"),
        ({"stay_h": {"mean": 4.0, "std": -1.0}}, "stay_h.std"),
        ({"energy_mwh": {"average": 4.0}}, "energy_mwh"),
        ({"days_with_car": 1.1}, "days_with_car"),
    ],
)
def test_a_config_that_cannot_be_is_refused(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        config(**parameters)
