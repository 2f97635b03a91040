"""A price that a grid moves and its devices answer splits a demand at least cost."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from zgrid.devices import Control
from zgrid.protocols import Controls, Heard, Local, Table, Unit, horizontal_class, star, vertical_class
from zgrid.protocols.none import NoHorizontal
from zgrid.protocols.price_signal import PriceNegotiation, PriceSignalConfig, slope_of, smoothed
from zgrid.protocols.rounds import Carry
from zgrid.protocols.run import Run

# [Wood and Wollenberg, Power Generation, Operation and Control, example 3A]
WOOD = (
    Unit("u1", 150.0, 600.0, 0.001562, 7.92, 561.0),
    Unit("u2", 100.0, 400.0, 0.00194, 7.85, 310.0),
    Unit("u3", 50.0, 200.0, 0.00482, 7.97, 78.0),
)
FREE = tuple(unit._replace(p_min_mw=-1e9, p_max_mw=1e9) for unit in WOOD)
OPTIMUM = {"u1": 393.1698, "u2": 334.6038, "u3": 122.2264}
BOUND = 2.0 / slope_of(WOOD)


def play(
    units: tuple[Unit, ...], carries: dict[str, Carry] | None = None, demand: float = 850.0, **config: object
) -> Run:
    table = Table(PriceNegotiation, config, star("grid", [unit.id for unit in units]), carries=carries)
    return table.play({"grid": Local(demand_mw=demand)} | {unit.id: Local(units=(unit,)) for unit in units})


def dispatch(run: Run) -> dict[str, float]:
    return {name: p for result in run.results.values() for name, p in result.dispatch_mw.items()}


def test_the_bound_of_the_step_is_the_published_one() -> None:
    assert pytest.approx(2.9344e-3, rel=1e-4) == BOUND


def test_half_of_the_bound_needs_one_iteration() -> None:
    # A price, its answers, the next price: three rounds.
    for run in (play(FREE, rounds=3), play(FREE, rounds=3, step=BOUND / 2.0)):
        assert run.results["grid"].price == pytest.approx(9.148263, abs=1e-6)
        assert dispatch(run) == pytest.approx(OPTIMUM, abs=1e-4)
        assert run.messages == 9


@pytest.mark.parametrize(("share", "converges"), [(0.05, True), (0.5, True), (0.975, True), (1.025, False)])
def test_it_converges_below_the_bound_only(share: float, converges: bool) -> None:
    # From price 0 the error is 9.148; per iteration it is multiplied by 1 - 2 share.
    iterations = 40
    run = play(FREE, rounds=2 * iterations, step=share * BOUND)
    error = run.results["grid"].values[0] - 9.148263
    assert error == pytest.approx(-9.148263 * (1.0 - 2.0 * share) ** iterations, rel=1e-4, abs=1e-6)
    assert (abs(error) < 9.0) == converges


def test_with_limits_that_bind_it_settles_at_the_limits() -> None:
    # [Wood and Wollenberg, example 3B]: unit 1 is cheap and runs at its most power.
    units = (WOOD[0]._replace(cost_b=6.48, cost_a=0.00128), *WOOD[1:])
    run = play(units, rounds=200, stop="coordinator")
    assert run.results["grid"].price == pytest.approx(8.576065, abs=1e-6)
    assert dispatch(run) == pytest.approx({"u1": 600.0, "u2": 187.1302, "u3": 62.8698}, abs=1e-4)
    assert run.statuses["grid"] == "converged"
    assert run.rounds < 200


def test_loss_and_delay_change_when_it_gets_there_and_not_where() -> None:
    def lossy(sender: str, round: int, values: tuple[float, ...] | None) -> list[Heard]:
        return [] if values is None or (round * 7 + len(sender)) % 3 == 0 else [Heard(values)]

    held: dict[str, list[tuple[float, ...] | None]] = {}

    def late(sender: str, round: int, values: tuple[float, ...] | None) -> list[Heard]:
        queue = held.setdefault(sender, [])
        queue.append(values)
        due = queue.pop(0) if len(queue) > 3 else None
        return [] if due is None else [Heard(due, 3)]

    for carry in (lossy, late):
        run = play(WOOD, {"grid": carry}, rounds=400)
        assert dispatch(run) == pytest.approx(OPTIMUM, abs=1e-4)
        assert abs(run.results["grid"].values[1]) < 1e-6


def test_the_last_answer_of_a_device_that_falls_silent_is_held() -> None:
    def dies(sender: str, round: int, values: tuple[float, ...] | None) -> list[Heard]:
        return [] if values is None or (sender == "u3" and round > 2) else [Heard(values)]

    run = play(WOOD, {"grid": dies}, rounds=400)
    # At the price 0 of its one answer, unit 3 runs at its 50 MW; units 1 and 2 meet the other 800.
    powers = dispatch(run)
    assert powers["u1"] + powers["u2"] == pytest.approx(800.0, abs=1e-3)


def test_a_demand_beyond_all_limits_ends_at_the_price_cap_and_is_reported() -> None:
    run = play(WOOD, demand=2000.0, rounds=400, price_max=100.0)
    assert dispatch(run) == {"u1": 600.0, "u2": 400.0, "u3": 200.0}
    assert run.results["grid"].values == (100.0, 800.0)


def test_a_unit_with_linear_cost_is_split_within_its_band() -> None:
    units = (Unit("flat", 0.0, 10.0, 0.0, 20.0), Unit("dear", 0.0, 10.0, 0.0, 30.0))
    run = play(units, demand=13.0, rounds=2000)
    assert dispatch(run) == pytest.approx({"flat": 10.0, "dear": 3.0}, abs=1e-4)
    assert smoothed(units[0], 0.1).at_price(20.0) == pytest.approx(5.0)


def test_one_round_and_no_round_give_powers_within_the_limits() -> None:
    assert dispatch(play(WOOD, rounds=1)) == {"u1": 150.0, "u2": 100.0, "u3": 50.0}
    assert play((), rounds=5).results["grid"].values == (0.0, 850.0)


@pytest.mark.parametrize("stop", ["coordinator", "flooded"])
def test_it_stops_when_the_demand_is_met(stop: str) -> None:
    run = play(WOOD, rounds=300, stop=stop)
    assert dispatch(run) == pytest.approx(OPTIMUM, abs=1e-4)
    assert set(run.statuses.values()) == {"converged"}
    assert run.messages < 100


def test_a_later_step_begins_at_the_last_price() -> None:
    table = Table(PriceNegotiation, {"rounds": 3}, star("grid", [unit.id for unit in FREE]))
    problem = {"grid": Local(demand_mw=850.0)} | {unit.id: Local(units=(unit,)) for unit in FREE}
    table.play(problem, 1)
    run = table.play(problem | {"grid": Local(demand_mw=900.0)}, 2)
    assert run.results["grid"].values == pytest.approx((9.148263 + 50.0 * BOUND / 2.0, 50.0), abs=1e-6)


def test_a_step_above_the_bound_is_found_with_the_bound() -> None:
    def found(config: PriceSignalConfig) -> list[str]:
        return PriceNegotiation.unit_misfits(config, {}, {unit.id: [unit] for unit in WOOD})

    assert "0.0029344" in found(PriceSignalConfig(step=0.003))[0]
    assert found(PriceSignalConfig(step=0.0029)) == []
    assert found(PriceSignalConfig()) == []
    with pytest.raises(ValidationError, match="step"):
        PriceSignalConfig(step=0.0)
    with pytest.raises(ValidationError, match="stop: local"):
        PriceSignalConfig(stop="local")
    with pytest.raises(ValidationError, match="price_min 5 is above price_max 1"):
        PriceSignalConfig(price_min=5.0, price_max=1.0)


def test_its_setpoints_are_those_of_the_setpoint_protocol() -> None:
    protocol = vertical_class("price_signal")
    devices = [Controls((Control("p_mw", 0.0, 2.0),), (0,), (0.0, 0.0))]
    assert protocol(protocol.Config(), devices).setpoints((0.5,)) == [(1.5, 0.0)]
    assert protocol.NEGOTIATION is PriceNegotiation


def test_none_says_nothing_and_leaves_devices_as_they_are() -> None:
    protocol = vertical_class("none")
    tap = Controls((Control("tap", -4.0, 4.0, levels=9, idle=2.0),), (0,), (0.0,))
    unit = Controls((Control("p_mw", 0.2, 1.0), Control("on", 0.0, 1.0, 2, idle=1.0)), (0, 2), (0.0, 0.0, 1.0))
    assert protocol(protocol.Config(), [tap, unit]).setpoints((1.0, 1.0, -1.0)) == [(2.0,), (0.2, 0.0, 1.0)]
    run = Table(NoHorizontal, {}, {"a": ["b"], "b": ["a"]}).play({"a": Local(), "b": Local()})
    assert run.messages == 0
    assert run.results["a"].values == ()
    assert horizontal_class("none") is NoHorizontal
