"""Units share a demand in proportion to their ranges, exactly, whatever becomes of the messages."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from dispatch_cases import LINE, THREE, powers, problems, ring, run

from zgrid.protocols import Heard, Local, Participant, Unit, generator
from zgrid.protocols.ratio_consensus import RatioConsensus, RatioConsensusConfig


def one(neighbours: int = 1, **parameters: object) -> RatioConsensus:
    weights = {f"mg_{k + 2}": 0.5 for k in range(neighbours)}
    config = RatioConsensusConfig.model_validate(parameters)
    return RatioConsensus(config, Participant("mg_1", weights, size=1 + neighbours), generator(0, "mg_1"))


@pytest.mark.parametrize("faults", [{"loss": 0.3}, {"loss": 0.0, "delay": 4}, {"loss": 0.5, "delay": 3, "copies": 2}])
@pytest.mark.parametrize("value", ["p_pcc_mw", "price"])
def test_the_mean_of_a_local_value_survives_loss_delay_and_duplication(faults: dict[str, float], value: str) -> None:
    values = dict(zip(LINE, (3.0, -7.5, 12.0), strict=True))
    locals = {name: Local({"p_pcc_mw": 0.0, "price": 0.0, value: x}) for name, x in values.items()}
    played = run(RatioConsensus, {"rounds": 400, "value": value}, LINE, locals, **faults)
    for result in played.results.values():
        assert result.values == pytest.approx((2.5,), abs=1e-9)
        assert not result.dispatch_mw


def test_a_round_of_two_is_as_worked_out_by_hand() -> None:
    # Both keep and give a half: 20/2 + 40/2 over 100/2 + 60/2 at each = 30/80.
    units = (Unit("a", 0.0, 100.0, 1.0), Unit("b", 20.0, 80.0, 1.0))
    pair = {"mg_1": ["mg_2"], "mg_2": ["mg_1"]}
    locals = {
        "mg_1": Local(units=units[:1], demand_mw=20.0),
        "mg_2": Local(units=units[1:], demand_mw=60.0),
    }
    played = run(RatioConsensus, {"rounds": 1}, pair, locals)
    assert [result.values[0] for result in played.results.values()] == [0.375, 0.375]
    assert powers(played) == pytest.approx([37.5, 42.5], abs=1e-12)


@pytest.mark.parametrize(("demand", "ratio", "total"), [(1201.0, 1.0, 1200.0), (200.0, 0.0, 300.0)])
def test_a_demand_that_cannot_be_met_ends_at_the_limits(demand: float, ratio: float, total: float) -> None:
    played = run(RatioConsensus, {}, ring(3), problems(THREE, demand, list(ring(3))))
    assert {result.values for result in played.results.values()} == {(ratio,)}
    assert powers(played).sum() == total


def test_who_has_several_units_or_none_takes_part() -> None:
    locals = {
        "mg_1": Local(units=THREE[:2], demand_mw=100.0),
        "mg_2": Local(demand_mw=750.0),
        "mg_3": Local(units=THREE[2:]),
    }
    played = run(RatioConsensus, {"rounds": 200}, LINE, locals, loss=0.2)
    assert powers(played) == pytest.approx([425.0, 850.0 / 3.0, 425.0 / 3.0], abs=1e-6)


def test_alone_it_meets_its_own_demand() -> None:
    alone = one(neighbours=0)
    assert alone.start(1, Local(units=THREE[:1], demand_mw=330.0)) == {}
    assert alone.result() == ((0.4,), {"unit_1": 330.0}, None, None, ())
    assert alone.done()


def test_it_is_feasible_after_one_round_and_zero_before_the_first_step() -> None:
    assert one().result().values == (0.0,)
    played = run(RatioConsensus, {"rounds": 1}, LINE, problems(THREE, 850.0, list(LINE)), loss=1.0)
    assert all(unit.p_min_mw <= p <= unit.p_max_mw for unit, p in zip(THREE, powers(played), strict=True))
    assert set(played.statuses.values()) == {"max_rounds"}


def test_the_order_of_delivery_changes_nothing() -> None:
    late = [Heard((1.0, 2.0), 2), Heard((3.0, 3.0), 1), Heard((4.0, 3.5), 0)]
    ends = set()
    for order in permutations(late):
        peer = one()
        peer.start(1, Local(units=THREE[:1], demand_mw=330.0))
        peer.on_round(3, {"mg_2": order})
        peer.on_round(4, {"mg_2": [Heard((3.0, 3.0), 3)]})  # comes again, and adds nothing
        ends.add(np.float64(peer.result().values[0]).tobytes())
    assert len(ends) == 1


def test_each_step_starts_anew() -> None:
    peer = one()
    first = peer.start(1, Local(units=THREE[:1], demand_mw=330.0))
    peer.on_round(1, {"mg_2": [Heard((4.0, 5.0))]})
    assert peer.start(2, Local(units=THREE[:1], demand_mw=330.0)) == first
