"""Link: one direction between two agents, for one kind of message, with everything that is on its way.

Time is counted in periods: a message of period t that takes d of them is there in period t + floor(d), since whoever
hears takes stock at a period's end. Among peers a period is a round, and nothing outlives its step; elsewhere it is a
step of the episode, 1 the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import floor
from typing import Any, NamedTuple

from zgrid.links.passage import Passage
from zgrid.messages import Floats
from zgrid.protocols import Heard


@dataclass(slots=True)
class Counts:
    """What has become of the messages of a link: ``sent`` = ``delivered`` + ``lost`` + those on their way.

    ``late`` ones are among those delivered, after their period; ``duplicated`` are further copies delivered, and
    ``attacked`` what was changed or denied. ``age`` is that of the newest known, in periods, at the end of each of
    ``periods``: its sum, and the largest. Where nothing is known yet, it counts from the begin.
    """

    sent: int = 0
    delivered: int = 0
    late: int = 0
    lost: int = 0
    duplicated: int = 0
    attacked: int = 0
    periods: int = 0
    age_sum: int = 0
    age_max: int = 0

    @property
    def age_mean(self) -> float:
        """Mean age of information, in periods."""
        return self.age_sum / self.periods if self.periods else 0.0

    def add(self, other: Counts) -> None:
        """Count what another has counted too."""
        for name in COUNTED[:-1]:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.age_max = max(self.age_max, other.age_max)


COUNTED = tuple(field.name for field in fields(Counts))
"""What a link counts, all whole numbers; ``age_max`` is the last."""


_COPIES = 1 << 16
"""More than a message can have copies: of several that are said in a round, each draws for itself."""


class _Flight(NamedTuple):
    """A message on its way: when it is there, when it was said, which copy it is."""

    due: int
    tick: int
    copy: int
    body: Any


class Link:
    """One link. ``carry`` moves the rounds of peers, ``hold`` everything that comes once per step; by the clock peers
    ``take`` what comes when it comes, and ask what is ``due``.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.counts = Counts()
        self.step = self.round = 0
        self._passages = tuple(passages)
        self._active: list[Passage] = []
        self._word = 0
        self._flights: list[_Flight] = []
        self._newest = 0
        self._known: Any = None
        self._past: dict[int, Any] = {}
        self._reach = max((passage.rule.replay or 0 for passage in passages), default=0)

    def carry(self, step: int, round: int, values: Floats | None) -> Sequence[Heard]:
        """What comes out in a round of a step, oldest first; values None: nothing was said."""
        self.take(step, round, values)
        heard = self.due(step, round)
        self._note_age(round)
        return heard

    def take(self, step: int, round: int, values: Floats | None) -> None:
        """Put on its way what was said in a round of a step, None: nothing. Rounds in between were silent."""
        if step != self.step:
            self._clear(step)
        self._word = 0 if round > self.round else self._word + 1
        for one in range(self.round + 1, round + 1):
            self._move_on(one)
            self.round = one
        if values is not None:
            self._send(round, round, values)

    def due(self, step: int, round: int) -> list[Heard]:
        """What is there by a round of whoever hears, oldest first, each once."""
        if step != self.step:
            self._clear(step)
        limits = [one.rule.max_age for one in self._active if one.rule.max_age is not None]
        return [Heard(flight.body, max(0, round - flight.tick)) for flight in self._arrivals(round, limits)]

    def hold(self, step: int, body: Any, zero: Any) -> Any:
        """What whoever hears acts on in a step; ``zero`` is what to take for nothing, None comes back where it shall
        act as if it had never heard a thing. In step 0, the reset, everything is heard.
        """
        self._begin(step)
        if step == 0:
            self._known = self._past[0] = body
            return body
        self._move_on(0)
        if body is not None:
            self._send(0, step, body)
        arrived = [flight for flight in self._arrivals(step) if flight.tick >= self._newest]
        self._known = arrived[-1].body if arrived else self._known
        self._note_age(step)
        policies = [passage.rule for passage in self._active if passage.rule.receiver is not None]
        if policies and policies[-1].receiver == "zero" and not arrived:
            return zero
        if policies and policies[-1].max_age is not None and step - self._newest > policies[-1].max_age:
            return None
        return self._known

    def _begin(self, step: int) -> None:
        self.step = step
        self._active = [passage for passage in self._passages if passage.active(step)]

    def _move_on(self, round: int) -> None:
        for passage in self._active:
            passage.move_on(self.step, round)

    def _send(self, round: int, tick: int, body: Any) -> None:
        """Put a message on its way."""
        self.counts.sent += 1
        said, attacked = body, False
        for passage in self._active:
            former = self._past.get(tick - passage.rule.replay) if passage.rule.replay else None
            body, hit = passage.tampered(body, self.step, round, former)
            attacked = attacked or hit
        self.counts.attacked += attacked
        self._remember(tick, said)
        first = self._word * _COPIES
        through = self._through(round, tick, first)
        if through is None:
            self.counts.lost += 1
            return
        for copy in range(1 + sum(passage.doubles(self.step, round, first) for passage in self._active)):
            due = floor(through + sum(passage.delay(self.step, round, first + copy) for passage in self._active))
            self._flights.append(_Flight(due, tick, copy, body))

    def _through(self, round: int, tick: int, first: int) -> float | None:
        """When the message is through every bottleneck; None: never."""
        if any(passage.loses(self.step, round, first) for passage in self._active):
            return None
        at: float | None = float(tick)
        for passage in self._active:
            at = None if at is None else passage.queue(at)
        return at

    def _arrivals(self, tick: int, limits: Sequence[int] = ()) -> list[_Flight]:
        """Take what is there by now, oldest first; what is older than a limit is lost. What nothing has held up is
        there, also if the clock of whoever said it is ahead.
        """
        there = sorted((one for one in self._flights if one.due <= max(tick, one.tick)), key=lambda one: one.tick)
        if there:
            self._flights = [one for one in self._flights if one.due > max(tick, one.tick)]
        limit = min(limits, default=tick)
        taken = [one for one in there if tick - one.tick <= limit]
        self.counts.lost += sum(one.copy == 0 for one in there) - sum(one.copy == 0 for one in taken)
        for one in taken:
            self.counts.duplicated += one.copy > 0
            self.counts.delivered += one.copy == 0
            self.counts.late += one.copy == 0 and one.tick < tick
        self._newest = max(self._newest, taken[-1].tick) if taken else self._newest
        return taken

    def _note_age(self, tick: int) -> None:
        age = tick - self._newest
        self.counts.periods += 1
        self.counts.age_sum += age
        self.counts.age_max = max(self.counts.age_max, age)

    def _remember(self, tick: int, body: Any) -> None:
        """Keep what a replay may need."""
        if self._reach:
            self._past[tick] = body
            self._past.pop(tick - self._reach, None)

    def _clear(self, step: int) -> None:
        """A new step of peers: what is on its way is lost."""
        self.counts.lost += sum(flight.copy == 0 for flight in self._flights)
        self._begin(step)
        self.round, self._newest = 0, 0
        self._flights.clear()
        self._past.clear()
        for passage in self._passages:
            passage.clear()
