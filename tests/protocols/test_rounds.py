"""Rounds end for all at once, as their policy says, and never later than their cap."""

from __future__ import annotations

from typing import Any

import pytest

from zgrid.protocols import Inbox, Local, Outbox, Participant, Protocol, Result, Rounds, RoundsConfig, Table, generator
from zgrid.protocols.graph import diameter, distances, islands
from zgrid.testing import line, ring


class Countdown(Protocol):
    """Converged once as many rounds have passed as its own value says."""

    Config = RoundsConfig

    def start(self, step: int, local: Local) -> Outbox:
        self.left = local.values["left"]
        return dict.fromkeys(self.me.weights, (self.left,))

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        self.left -= 1.0
        return dict.fromkeys(self.me.weights, (self.left,))

    def residual(self) -> float:
        return max(self.left, 0.0)

    def result(self) -> Result:
        return Result()


def play(graph: Any, left: dict[str, float], **config: Any) -> Any:
    return Table(Countdown, config, graph).play({name: Local({"left": left[name]}) for name in graph})


def test_fixed_rounds_are_all_played() -> None:
    run = play(ring(4), dict.fromkeys(ring(4), 3.0), rounds=10)
    assert (run.rounds, run.messages, set(run.statuses.values())) == (10, 10 * 8, {"converged"})


def test_a_cap_that_is_too_low_is_told() -> None:
    assert set(play(ring(4), dict.fromkeys(ring(4), 30.0), rounds=10, stop="flooded").statuses.values()) == {
        "max_rounds"
    }


@pytest.mark.parametrize("slowest", ["mg_1", "mg_3", "mg_5"])
def test_flooding_ends_when_all_know_that_all_have_converged(slowest: str) -> None:
    # A line of five: the last converges in round 9. It then stands one edge from itself, and each further edge takes a
    # round, so the first to stand beyond the diameter of 4 does so 4 rounds later, and names a round 4 rounds ahead.
    left = dict.fromkeys(line(5), 1.0) | {slowest: 9.0}
    run = play(line(5), left, rounds=100, stop="flooded")
    assert set(run.statuses.values()) == {"converged"}
    assert 9 + 4 <= run.rounds <= 9 + 2 * 4


def test_the_coordinator_ends_it_for_all() -> None:
    # The first converges in round 2, whatever the others do; two edges away it is heard of in round 4.
    run = play(line(3), {"mg_1": 2.0, "mg_2": 50.0, "mg_3": 50.0}, rounds=100, stop="coordinator")
    assert run.rounds == 4
    assert run.statuses == {"mg_1": "converged", "mg_2": "max_rounds", "mg_3": "max_rounds"}


def test_who_has_converged_on_its_own_falls_silent() -> None:
    left = {"mg_1": 1.0, "mg_2": 3.0, "mg_3": 3.0}
    assert (
        play(line(3), left, rounds=100, stop="local").messages
        < play(line(3), left, rounds=100, stop="flooded").messages
    )


def test_islands_end_when_they_will() -> None:
    graph = {"a": ("b",), "b": ("a",), "c": ("d",), "d": ("c",), "e": ()}
    run = play(graph, {"a": 1.0, "b": 1.0, "c": 20.0, "d": 20.0, "e": 0.0}, rounds=100, stop="flooded")
    assert 20 < run.rounds < 24
    assert set(run.statuses.values()) == {"converged"}


def test_nobody_speaks_to_strangers() -> None:
    class Rude(Countdown):
        def start(self, step: int, local: Local) -> Outbox:
            return {"mg_9": (1.0,)}

    walk = Rounds(Rude(RoundsConfig(kind="rude"), Participant("mg_1", {"mg_2": 0.5}), generator(0, "mg_1")))
    with pytest.raises(ValueError, match="mg_1 speaks to mg_9"):
        walk.start(1, Local())


def test_a_graph_has_distances_islands_and_a_diameter() -> None:
    assert distances(line(4), "mg_1") == {"mg_1": 0, "mg_2": 1, "mg_3": 2, "mg_4": 3}
    assert (diameter(line(4)), diameter(ring(6)), diameter({"a": ()})) == (3, 3, 0)
    assert islands({"a": ("b",), "b": ("a",), "c": ()}) == [["a", "b"], ["c"]]
