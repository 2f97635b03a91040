"""A conversation by the clock: what comes is handed over or kept, what is said goes out at once. No clock is needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest

from examples.event_protocol import Alarm
from examples.own_protocol import MaxConsensus
from zgrid.agents.timed_talk import TimedTalk
from zgrid.links import Delay, Ears, LinkConfig
from zgrid.messages import Envelope, Peer, channel
from zgrid.post import Post
from zgrid.protocols import Inbox, Local, Outbox, Protocol, Result, RoundsConfig, Table
from zgrid.testing import line


class Listening(Protocol):
    """Says its round, and keeps what it hears."""

    Config = RoundsConfig

    def start(self, step: int, local: Local) -> Outbox:
        self.inboxes: list[Inbox] = []
        return dict.fromkeys(self.me.weights, (1.0,))

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        self.inboxes.append(inbox)
        return dict.fromkeys(self.me.weights, (round + 1.0,))

    def done(self) -> bool:
        return len(self.inboxes) > 1

    def result(self) -> Result:
        return Result()


def talks(protocol: type[Protocol], n: int, rules: Sequence[LinkConfig] = (), **config: Any) -> dict[str, TimedTalk]:
    walks = Table(protocol, config, line(n)).walks
    return {name: TimedTalk(walk.protocol, Ears(rules, name, seed=1)) for name, walk in walks.items()}


def said(sender: str, step: int, round: int, *values: float) -> Envelope:
    return Envelope(sender, "run", 0, 0, step, round, 0, Peer(values))


def deliver(all: dict[str, TimedTalk], sender: str, posts: list[Post]) -> int:
    """Bring posts and the answers to them to where they go, until nobody answers; how many they were."""
    waiting, count = deque((sender, post) for post in posts), 0
    while waiting:
        speaker, post = waiting.popleft()
        count += 1
        for name, talk in all.items():
            if speaker in talk.hears.get(post.channel, ()):
                answers = talk.hear(Envelope(speaker, "run", 0, 0, post.step, post.round, 0, post.body))
                waiting += [(name, answer) for answer in answers]
    return count


def test_a_step_hears_nothing_of_another() -> None:
    one = talks(Listening, 2, rounds=2)["mg_1"]
    one.hear(said("mg_2", 2, 1, 21.0))
    one.start(1, Local())
    one.hear(said("mg_2", 1, 1, 11.0))
    assert one.hear(said("mg_2", 2, 2, 22.0)) == []
    one.go_on()
    assert one.go_on() == []
    assert one.round == 0
    assert one.protocol.inboxes == [{"mg_2": [((11.0,), 0)]}, {"mg_2": []}]
    one.hear(said("mg_2", 1, 2, 12.0))  # too late
    one.start(2, Local())
    one.hear(said("mg_2", 1, 2, 12.0))
    one.go_on()
    assert one.protocol.inboxes == [{"mg_2": [((21.0,), 0), ((22.0,), 0)]}]


def test_what_comes_late_has_an_age() -> None:
    one = talks(Listening, 2, rounds=3)["mg_1"]
    one.start(1, Local())
    one.go_on()
    one.go_on()
    one.hear(said("mg_2", 1, 1, 1.0))
    one.hear(said("mg_2", 1, 3, 3.0))
    one.go_on()
    assert one.protocol.inboxes[2] == {"mg_2": [((1.0,), 2), ((3.0,), 0)]}


def test_without_faults_and_hurry_it_is_as_in_lockstep() -> None:
    problems = {name: Local({"p_pcc_mw": 0.1 * k}) for k, name in enumerate(line(4))}
    expected = Table(MaxConsensus, {"rounds": 3}, line(4)).play(problems)
    all = talks(MaxConsensus, 4, rounds=3)
    posts = {name: talk.start(1, problems[name]) for name, talk in all.items()}
    for _ in range(3):
        for name in all:
            deliver(all, name, posts[name])
        posts = {name: talk.go_on() for name, talk in all.items()}
    assert {name: talk.protocol.result() for name, talk in all.items()} == expected.results
    assert sum(talk.messages for talk in all.values()) == expected.messages


def test_answers_cross_a_line_before_anybodys_period_is_over() -> None:
    problems = {name: Local({"p_pcc_mw": -float(k)}) for k, name in enumerate(line(20))}
    all = talks(Alarm, 20, rounds=1)
    first = [(name, talk.start(1, problems[name])) for name, talk in all.items()]
    for name, posts in first:
        deliver(all, name, posts)
    assert {talk.round for talk in all.values()} == {1}
    assert {talk.protocol.result().values for talk in all.values()} == {(0.0,)}


def test_who_is_early_is_answered_when_the_step_begins() -> None:
    one = talks(Alarm, 3, rounds=1)["mg_2"]
    assert one.hear(said("mg_1", 1, 1, 7.0)) == []
    posts = one.start(1, Local({"p_pcc_mw": 1.0}))
    told = [(post.channel, post.body.values) for post in posts if isinstance(post.body, Peer)]
    left, right = channel("peer", "mg_1", "mg_2"), channel("peer", "mg_3", "mg_2")
    assert told == [(left, (1.0,)), (right, (1.0,)), (right, (7.0,))]
    assert {(post.step, post.round) for post in posts} == {(1, 1)}
    assert one.messages == 3


def test_with_stop_local_who_has_converged_says_no_more() -> None:
    one = talks(Listening, 2, rounds=4, stop="local")["mg_1"]
    assert [len(one.start(1, Local())), *(len(one.go_on()) for _ in range(4))] == [1, 1, 0, 0, 0]
    assert one.messages == 2


def test_nobody_speaks_to_strangers_by_the_clock_either() -> None:
    class Rude(Listening):
        def start(self, step: int, local: Local) -> Outbox:
            return {"mg_9": (1.0,)}

    with pytest.raises(ValueError, match="mg_1 speaks to mg_9"):
        talks(Rude, 2, rounds=1)["mg_1"].start(1, Local())


def test_what_a_link_holds_up_is_answered_when_its_round_begins() -> None:
    rules = [LinkConfig(kind="peer", delay=Delay(kind="constant", value=2.0))]
    one = talks(Alarm, 3, rules, rounds=4)["mg_2"]
    one.start(1, Local({"p_pcc_mw": 1.0}))
    assert one.hear(said("mg_1", 1, 1, 7.0)) == []
    told = [[post.body.values for post in one.go_on() if isinstance(post.body, Peer)] for _ in range(2)]
    assert told == [[(1.0,), (1.0,)], [(1.0,), (1.0,), (7.0,)]]
    assert one.round == 3


def test_what_a_link_holds_up_is_in_the_inbox_of_its_round_with_its_age() -> None:
    rules = [LinkConfig(kind="peer", delay=Delay(kind="trace", values=(2.0, 0.0, 0.0)))]
    one = talks(Listening, 2, rules, rounds=4)["mg_1"]
    one.start(1, Local())
    for round in (1, 2, 3, 4):
        one.hear(said("mg_2", 1, round, float(round)))
        one.go_on()
    inboxes = [[(heard.values[0], heard.age) for heard in inbox["mg_2"]] for inbox in one.protocol.inboxes]
    assert inboxes == [[], [(2.0, 0)], [(1.0, 2), (3.0, 0)], []]  # the fourth is held up as the first was


def test_a_step_in_which_nobody_spoke_moves_bursts_on_as_in_lockstep() -> None:
    rules = [LinkConfig.model_validate({"gilbert_elliott": {"p_gb": 0.4, "p_bg": 0.3}})]
    ears = Ears(rules, "mg_1", seed=1)
    silent = [ears.carry("mg_2", round, None) for round in range(1, 21)]
    expected = [[heard.values for heard in ears.carry("mg_2", round, (float(round),))] for round in range(1, 21)]
    one = talks(Listening, 2, rules, rounds=20)["mg_1"]
    for step in (1, 2):
        one.start(step, Local())
        for round in range(1, 21):
            if step == 2:
                one.hear(said("mg_2", 2, round, float(round)))
            one.go_on()
    assert not any(silent)
    assert 0 < len([values for values in expected if values]) < 20
    assert [[heard.values for heard in inbox["mg_2"]] for inbox in one.protocol.inboxes] == expected
