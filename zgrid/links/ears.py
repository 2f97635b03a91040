"""Ears: all links into one agent, and what it hears through them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from zgrid.links.config import LinkConfig
from zgrid.links.draws import Draws
from zgrid.links.link import Counts, Link
from zgrid.links.passage import Passage
from zgrid.messages import ENV, Action, DeviceState, Floats, NetworkState
from zgrid.protocols import Heard


class Ears:
    """The links into one agent. An agent calls ``reset``, then ``begin`` in each step, then what it wants to hear."""

    def __init__(self, rules: Sequence[LinkConfig], id: str, dt_h: float = 1.0, seed: int = 0) -> None:
        self.id = id
        self.step = 0
        """The step of the episode; 0: it was reset."""
        self._rules, self._dt_h = tuple(rules), dt_h
        self.reset(seed)

    @classmethod
    def where_needed(cls, rules: Sequence[LinkConfig], id: str, dt_h: float = 1.0) -> Ears | None:
        """The ears of an agent; None where no rule can touch what it hears."""
        return cls(rules, id, dt_h) if reaches(rules, id) else None

    def reset(self, seed: int) -> None:
        """Begin an episode, which the seed decides."""
        self._seed, self.step = seed, 0
        self._links: dict[tuple[str, str], Link | None] = {}

    def begin(self) -> None:
        """Begin a step."""
        self.step += 1

    def link(self, kind: str, sender: str) -> Link | None:
        """The link from a sender; None: it has no faults."""
        key = (kind, sender)
        if key not in self._links:
            self._links[key] = self._made(kind, sender)
        return self._links[key]

    def counts(self) -> Mapping[tuple[str, str], Counts]:
        """By (kind, sender), what has become of the messages of this episode on links with faults."""
        return {key: link.counts for key, link in sorted(self._links.items()) if link is not None}

    def carry(self, sender: str, round: int, values: Floats | None) -> Sequence[Heard]:
        """What a neighbour's message of a round becomes (a ``Carry``). A step that nobody began begins with round 1."""
        link = self.link("peer", sender)
        if link is None:
            return () if values is None else (Heard(values),)
        if self.step == 0 or (link.step == self.step and round <= link.round):
            self.begin()
        return link.carry(self.step, round, values)

    def arrive(self, sender: str, said: int, values: Floats | None, now: int) -> Sequence[Heard]:
        """By the clock: what is heard in round ``now`` because a neighbour's message of its own round ``said`` came."""
        link = self.link("peer", sender)
        if link is None:
            return () if values is None else (Heard(values, max(0, now - said)),)
        link.take(self.step, said, values)
        return link.due(self.step, now)

    def due(self, sender: str, now: int) -> Sequence[Heard]:
        """By the clock: what was held up on the link from a neighbour, and is there in round ``now``."""
        link = self.link("peer", sender)
        return () if link is None else link.due(self.step, now)

    def setpoint(self, sender: str, values: Floats, zero: Floats) -> Floats | None:
        """The setpoint to follow; None: none is known, as before the first."""
        heard: Floats | None = self._held("setpoint", sender, values, zero)
        return heard

    def action(self, values: Floats | None, zero: Floats) -> Floats | None:
        """The action to follow; None: the grid's own policy decides."""
        heard: Action | None = self._held("action", ENV, Action(values), Action(zero))
        return None if heard is None else heard.values

    def states(self, senders: Iterable[str], states: Sequence[DeviceState]) -> Sequence[DeviceState]:
        """What a grid takes for the states of its devices; zeros where it knows nothing."""
        return [self._state(sender, state) for sender, state in zip(senders, states, strict=True)]

    def network(self, network: NetworkState) -> NetworkState:
        """What a grid takes for the state of its network; zeros where it knows nothing.

        What the coming step brings (``series``, ``clock``) and what devices measure (``local``) take another way.
        """
        zero = network._replace(measured=np.zeros_like(network.measured))
        zero = zero._replace(p_pcc_mw=0.0, q_pcc_mvar=0.0, p_forming_mw=0.0, p_unserved_mw=0.0)
        heard: NetworkState | None = self._held("network", ENV, network, zero)
        heard = zero if heard is None else heard
        return heard._replace(series=network.series, clock=network.clock, local=network.local)

    def _state(self, sender: str, state: DeviceState) -> DeviceState:
        zero = DeviceState(0.0, 0.0, 0.0, 0.0, (0.0,) * len(state.state))
        heard: DeviceState | None = self._held("state", sender, state, zero)
        return zero if heard is None else heard

    def _held(self, kind: str, sender: str, body: Any, zero: Any) -> Any:
        link = self.link(kind, sender)
        return body if link is None else link.hold(self.step, body, zero)

    def _made(self, kind: str, sender: str) -> Link | None:
        draws = Draws(self._seed, sender, self.id, kind)
        ends = (sender, self.id)
        fitting = [
            Passage(index, rule, ends, draws, self._dt_h)
            for index, rule in enumerate(self._rules)
            if rule.fits(sender, self.id, kind)
        ]
        return Link(fitting) if fitting else None


class Links:
    """All links of a topology, for whoever runs several agents in one place."""

    def __init__(self, rules: Sequence[LinkConfig], seed: int, dt_h: float = 1.0) -> None:
        self.rules, self.seed, self.dt_h = tuple(rules), seed, dt_h

    def into(self, receiver: str) -> Ears | None:
        """What an agent hears with; None where no rule can touch it."""
        ears = Ears.where_needed(self.rules, receiver, self.dt_h)
        if ears is not None:
            ears.reset(self.seed)
        return ears


def reaches(rules: Iterable[LinkConfig], id: str) -> bool:
    """Whether a rule can touch what an agent hears."""
    return any(
        fnmatchcase(id, rule.destination) or (rule.direction == "both" and fnmatchcase(id, rule.source))
        for rule in rules
    )
