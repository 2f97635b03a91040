"""Protocols that answer message by message: in lockstep the same bits everywhere, by the clock on arrival."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from examples.event_protocol import Alarm
from examples.own_protocol import MaxConsensus
from zgrid.errors import NodeDiedError
from zgrid.parley import meet
from zgrid.protocols import (
    EventProtocol,
    Heard,
    Local,
    Outbox,
    Participant,
    Protocol,
    Result,
    RoundsConfig,
    Table,
    generator,
)
from zgrid.testing import Case, ProtocolContract, line, ring

IMPORTS = {name: Local({"p_pcc_mw": 0.6 - 0.1 * k}) for k, name in enumerate(line(6))}


class Gossip(EventProtocol):
    """x_i <- (x_i + x_j) / 2 with each message, and word of it to the others: the order of messages is in every bit."""

    Config = RoundsConfig
    RESULT = ("mean", "heard")

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        super().__init__(config, me, rng)
        self.x, self.heard = 0.0, 0

    def start(self, step: int, local: Local) -> Outbox:
        self.x, self.heard = local.values["p_pcc_mw"], 0
        return dict.fromkeys(self.me.weights, (self.x,))

    def on_message(self, sender: str, heard: Heard) -> Outbox:
        self.heard += 1
        moved = abs(heard.values[0] - self.x)
        self.x = (self.x + heard.values[0]) / 2.0
        return dict.fromkeys(self.me.weights, (self.x,)) if moved > self.config.tolerance else {}

    def result(self) -> Result:
        return Result((self.x, float(self.heard)))


class TestGossip(ProtocolContract):
    case = Case(Gossip, {"rounds": 60, "tolerance": 1e-9}, ring(5), {name: IMPORTS[name] for name in ring(5)})


class TestAlarm(ProtocolContract):
    case = Case(Alarm, {"rounds": 20}, line(6), IMPORTS)

    @pytest.mark.slow
    def test_over_zeromq_it_is_the_same_to_the_bit(self) -> None:
        """As gossip is, whose every bit has the order of messages in it."""
        super().test_over_zeromq_it_is_the_same_to_the_bit()


class Answering(EventProtocol):
    """Answers every message with its number, and keeps what it heard."""

    Config = RoundsConfig

    def start(self, step: int, local: Local) -> Outbox:
        self.heard: list[tuple[str, Heard]] = []
        return {}

    def on_message(self, sender: str, heard: Heard) -> Outbox:
        self.heard.append((sender, heard))
        return {} if heard.values[0] < 0.0 else {sender: (float(len(self.heard)),), "c": (float(len(self.heard)),)}

    def result(self) -> Result:
        return Result()


def answering() -> Answering:
    me = Participant("me", dict.fromkeys("abc", 0.25), size=4, diameter=2)
    one = Answering(RoundsConfig(kind="answering", rounds=1), me, generator(0, "me"))
    one.start(1, Local())
    return one


def test_in_a_round_messages_are_answered_in_the_order_of_the_weights_and_oldest_first() -> None:
    one = answering()
    old, new, other = Heard((5.0,), 2), Heard((6.0,), 0), Heard((7.0,), 0)
    one.on_round(3, {"c": [], "b": [other], "a": [old, new]})
    assert one.heard == [("a", old), ("a", new), ("b", other)]


def test_of_several_answers_to_a_neighbour_the_last_is_said() -> None:
    one = answering()
    said = one.on_round(1, {"a": [Heard((1.0,)), Heard((1.0,)), Heard((-1.0,))], "b": [Heard((1.0,))], "c": []})
    assert said == {"a": (2.0,), "b": (4.0,), "c": (4.0,)}


def test_silence_is_answered_by_silence() -> None:
    one = answering()
    assert one.on_round(1, {}) == one.on_round(2, {"a": [], "b": [], "c": []}) == {}


def test_who_is_no_event_protocol_hears_in_rounds() -> None:
    (walk, *_) = Table(MaxConsensus, {}, line(2)).walks.values()
    assert walk.protocol.on_message("mg_2", Heard((1.0,))) is None


def test_an_event_protocol_says_what_it_answers() -> None:
    class Deaf(EventProtocol):
        Config = RoundsConfig

        def start(self, step: int, local: Local) -> Outbox:
            return {}

        def result(self) -> Result:
            return Result()

    with pytest.raises(TypeError, match="on_message"):
        Table(Deaf, {}, line(2))  # type: ignore[type-abstract]


def test_in_lockstep_it_moves_by_a_neighbour_in_a_round() -> None:
    # The first of the line has the highest import, .6 MW: after k rounds it is known k edges further.
    for rounds in (1, 3, 5):
        values = [
            result.values[0] for result in Table(Alarm, {"rounds": rounds}, line(6)).play(IMPORTS).results.values()
        ]
        assert [value == 0.6 for value in values] == [k <= rounds for k in range(6)]


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "reach"), [(Alarm, 5), (MaxConsensus, 1)])
def test_by_the_clock_answers_cross_a_line_within_a_period(protocol: type[Protocol], reach: int) -> None:
    """Rounds by the clock come one neighbour far, however long the period."""
    run = meet(protocol, {"rounds": 1}, line(6), IMPORTS, period_s=3.0)
    values = [result.values[0] for result in run.results.values()]
    assert [value == 0.6 for value in values] == [k <= reach for k in range(6)]
    assert run.rounds == 1


class Failing(Answering):
    """Raises at the first message."""

    def start(self, step: int, local: Local) -> Outbox:
        return dict.fromkeys(self.me.weights, (1.0,))

    def on_message(self, sender: str, heard: Heard) -> Outbox:
        raise ArithmeticError("out of answers")


def test_by_the_clock_one_that_raises_in_an_answer_ends_with_its_reason() -> None:
    with pytest.raises(NodeDiedError, match="out of answers"):
        meet(Failing, {"rounds": 20}, line(2), {name: Local() for name in line(2)}, period_s=0.5)
