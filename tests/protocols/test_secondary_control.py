"""Neighbours bring frequency and voltage back, each with its share."""

from __future__ import annotations

import pytest

from zgrid.protocols import Heard, Local, Table, horizontal_class
from zgrid.protocols.rounds import Carry
from zgrid.protocols.secondary_control import SecondaryControl, SecondaryControlConfig

RING = {"g1": ("g4", "g2"), "g2": ("g1", "g3"), "g3": ("g2", "g4"), "g4": ("g3", "g1")}
DROOP = {"g1": 400.0, "g2": 200.0, "g3": 400.0, "g4": 800.0}  # MW/Hz
LOAD = 1900.0
SHARES = {"g1": 422.22, "g2": 211.11, "g3": 422.22, "g4": 844.44}


def frequency(
    steps: int, carries: dict[str, Carry] | None = None, noise: int = 0, **config: object
) -> tuple[float, dict[str, float]]:
    """The deviation after so many steps, Hz, and what each gives, MW. In the first ``noise`` steps each measures it
    differently, as while machines swing against each other."""
    table = Table(SecondaryControl, {"value": "frequency", **config}, RING, carries=carries)
    efforts = dict.fromkeys(RING, 0.0)
    deviation = -LOAD / sum(DROOP.values())
    for step in range(1, steps + 1):
        swing = {name: 0.2 * k if step <= noise else 0.0 for k, name in enumerate(RING)}
        run = table.play({name: Local({"deviation_hz": deviation + swing[name]}) for name in RING}, step)
        efforts = {name: result.values[0] for name, result in run.results.items()}
        deviation = (sum(DROOP[name] * efforts[name] for name in RING) - LOAD) / sum(DROOP.values())
    return deviation, {name: DROOP[name] * (efforts[name] - deviation) for name in RING}


def test_without_secondary_control_the_droop_alone_holds_the_load() -> None:
    deviation, powers = frequency(0)
    assert deviation == pytest.approx(-1.055556, abs=1e-6)
    assert powers == pytest.approx(SHARES, abs=5e-3)


@pytest.mark.parametrize("rounds", [1, 20])
def test_the_deviation_goes_to_zero_and_the_shares_stay(rounds: int) -> None:
    deviation, powers = frequency(60, noise=3, rounds=rounds)
    assert deviation == pytest.approx(0.0, abs=1e-9)
    assert powers == pytest.approx(SHARES, abs=5e-3)


def test_under_loss_it_comes_to_the_same() -> None:
    def lossy(sender: str, round: int, values: tuple[float, ...] | None) -> list[Heard]:
        return [] if values is None or (3 * round + len(sender) + ord(sender[1])) % 4 == 0 else [Heard(values)]

    deviation, powers = frequency(80, dict.fromkeys(RING, lossy), noise=3)
    assert deviation == pytest.approx(0.0, abs=1e-9)
    assert powers == pytest.approx(SHARES, abs=5e-3)


@pytest.mark.parametrize(("gain", "factor"), [(0.5, 0.5), (1.0, 0.0), (1.9, -0.9), (2.1, -1.1)])
def test_the_deviation_shrinks_by_the_published_factor(gain: float, factor: float) -> None:
    # The static droop answers at once, so a step multiplies the deviation by 1 - gain.
    deviation, _ = frequency(4, integral_gain=gain)
    assert deviation == pytest.approx(-LOAD / 1800.0 * factor**4, abs=1e-12)
    assert bool(SecondaryControl.misfits(SecondaryControlConfig(integral_gain=gain), RING)) == (gain >= 2.0)


def test_voltages_are_brought_back_by_equal_effort() -> None:
    # Each grid's voltage rises by 0.03 pu at its own full effort and by 0.01 pu at that of each other.
    base = {"g1": 0.97, "g2": 0.99, "g3": 0.98, "g4": 0.96}
    table = Table(SecondaryControl, {"rounds": 200, "rise_pu": 0.06}, RING)
    voltages = dict(base)
    for step in range(1, 61):
        run = table.play({name: Local({"vm_mean_pu": voltages[name]}) for name in RING}, step)
        efforts = {name: run.results[name].q_pu or 0.0 for name in RING}
        total = sum(efforts.values())
        voltages = {name: base[name] + 0.02 * efforts[name] + 0.01 * total for name in RING}
    # 0.975 on average: the missing 0.025 pu of the 0.06 pu that all together can raise
    assert efforts == pytest.approx(dict.fromkeys(RING, 0.025 / 0.06), abs=1e-9)
    assert sum(voltages.values()) / 4 == pytest.approx(1.0, abs=1e-9)


def test_a_grid_alone_brings_its_voltage_back_within_its_rating() -> None:
    table = Table(SecondaryControl, {}, {"g1": ()})
    voltage = 0.99
    for step in range(1, 41):
        q_pu = table.play({"g1": Local({"vm_mean_pu": voltage})}, step).results["g1"].q_pu
        assert q_pu is not None
        voltage = 0.99 + 0.04 * q_pu
    assert voltage == pytest.approx(1.0, abs=1e-9)
    for step in range(41, 45):
        result = table.play({"g1": Local({"vm_mean_pu": 0.5})}, step).results["g1"]
    assert result.q_pu == 1.0
    # A dead grid asks for nothing more, and the integral has not wound up.
    assert table.play({"g1": Local({"vm_mean_pu": 0.0})}, 45).results["g1"].q_pu == 1.0
    assert table.play({"g1": Local({"vm_mean_pu": 1.05})}, 46).results["g1"].q_pu == pytest.approx(0.5)


def test_it_stops_when_all_know_that_the_efforts_are_equal() -> None:
    table = Table(SecondaryControl, {"rounds": 500, "stop": "flooded"}, RING)
    run = table.play({name: Local({"vm_mean_pu": 0.97 + 0.01 * k}) for k, name in enumerate(RING)})
    assert set(run.statuses.values()) == {"converged"}
    assert run.rounds < 100
    assert horizontal_class("secondary_control") is SecondaryControl
