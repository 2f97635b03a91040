"""Devices talk with their grid before the setpoint: once a step, of what they can give; only what ended binds them."""

from __future__ import annotations

from typing import Any

import pytest

from zgrid.agents import DeviceAgent
from zgrid.agents.spec import DeviceSpec
from zgrid.agents.talk import Talk
from zgrid.devices import device_class
from zgrid.messages import Body, Brief, Envelope, Peer, Reset, Setpoint
from zgrid.protocols import Rounds, generator, star, vertical_class
from zgrid.protocols.average_consensus import AverageConsensus

PRICE = vertical_class("price_signal").Config(rounds=2)
RAW = {"kind": "generator", "bus": "675", "p_max_mw": 0.5, "s_rated_mva": 0.6, "cost_a": 100.0, "cost_b": 60.0}


def agent() -> DeviceAgent:
    config = device_class("generator").Config.model_validate(RAW)
    me = star("mg_1", ["mg_1.dg_1"])["mg_1.dg_1"]
    one = DeviceAgent(DeviceSpec("mg_1.dg_1", "mg_1", config, 1.0, PRICE, me))
    one.receive(envelope(1, Reset(0)))
    return one


def envelope(step: int, body: Body, round: int = 0) -> Envelope:
    return Envelope("mg_1", "run", 0, 0, step, round, 0, body)


def talk(one: DeviceAgent, step: int, price: float) -> list[Any]:
    """A brief and two rounds in which the grid says a price; what the device says."""
    said = one.receive(envelope(step, Brief(())))
    for round in (1, 2):
        said += one.receive(envelope(step, Peer((float(step), price)), round))
    return [post.body.values for post in said]


def test_a_device_follows_its_own_optimum_at_the_price_that_was_agreed() -> None:
    one = agent()
    talk(one, 2, 100.0)  # 2 x 100 p + 60 = 100
    assert one.receive(envelope(2, Setpoint((0.45, 0.0, 1.0), ())))[0].body.p_mw == pytest.approx(0.2)
    assert one.receive(envelope(3, Setpoint((0.45, 0.0, 1.0), ())))[0].body.p_mw == 0.45  # nobody talked: the command


def test_a_conversation_that_did_not_end_binds_nobody() -> None:
    one = agent()
    one.receive(envelope(2, Brief(())))
    one.receive(envelope(2, Peer((1.0, 100.0)), 1))
    assert one.receive(envelope(2, Setpoint((0.45, 0.0, 1.0), ())))[0].body.p_mw == 0.45


def test_a_brief_that_is_said_again_begins_nothing_anew() -> None:
    one, undisturbed = agent(), agent()
    for each in (one, undisturbed):
        talk(each, 2, 100.0)
    assert one.receive(envelope(2, Brief(()))) == []
    assert one.receive(envelope(2, Peer((2.0, 100.0)), 1)) == []
    assert one.refused["duplicate mg_1"] + one.refused["stale mg_1"] == 2
    order = envelope(2, Setpoint((0.45, 0.0, 1.0), ()))
    assert one.receive(order) == undisturbed.receive(order)
    assert talk(one, 3, 90.0) == talk(undisturbed, 3, 90.0)


@pytest.mark.parametrize("how", ["trip", "fall_back"])
def test_who_keeps_to_the_safe_setpoint_offers_nothing(how: str) -> None:
    one = agent()
    getattr(one, how)()
    assert all(values is None or values[1] == 0.0 for values in talk(one, 2, 100.0))


def test_a_round_is_handed_over_once_also_if_its_taker_raises() -> None:
    me = star("mg_1", ["mg_1.dg_1"])["mg_1"]._replace(role="peer")
    walk = Rounds(AverageConsensus(AverageConsensus.Config(rounds=9), me, generator(0, "mg_1")))
    one = Talk("mg_1", ["mg_1.dg_1"])
    one.open(2)
    walk.round = 1
    one.begin(walk, {"mg_1.dg_1": Peer((0.0,))})
    one.hear(Envelope("mg_1.dg_1", "run", 0, 0, 2, 1, 0, Peer((1.0,))))
    assert one.collect() == [Peer((1.0,))]
    one.hear(Envelope("mg_1.dg_1", "run", 0, 0, 2, 2, 0, Peer((2.0,))))  # an early one, while nobody has taken the last
    assert one.collect() is None
