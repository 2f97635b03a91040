"""Rounds: one participant's walk through the rounds of a step, the same for every runner.

In each round everybody sends each neighbour one frame: what the protocol says, possibly nothing, and two numbers by
which all stop in the same round. So nobody waits for somebody who has stopped, and what was lost can be told from what
is late. Faults of links touch what is said, never the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from zgrid.messages import Floats, Peer, floats, make
from zgrid.protocols.base import Heard, Local, Outbox, Participant, Protocol, Status

Carry: TypeAlias = Callable[[str, int, Floats | None], Sequence[Heard]]
"""What the link from a neighbour makes of a message of a round: what comes out of it in that round, oldest first."""


def as_sent(sender: str, round: int, values: Floats | None) -> Sequence[Heard]:
    """A link without faults."""
    return () if values is None else (make(Heard, (values, 0)),)


class Rounds:
    """Runs a protocol object: ``start``, then ``take`` round by round until it returns nothing."""

    def __init__(self, protocol: Protocol, carry: Carry | None = None) -> None:
        """``carry`` None: links without faults."""
        self.protocol = protocol
        self.me: Participant = protocol.me
        self.round = 0
        """The round that is being exchanged; 0: none, it is over or has not begun."""
        self.done_rounds = 0
        self.messages = 0
        """Messages said in this step, frames without a word not counted."""
        self._carry = as_sent if carry is None else carry
        self._cap = int(protocol.config.rounds)
        self._policy = str(protocol.config.stop)
        self._agreed = self._stop = 0

    def start(self, step: int, local: Local) -> Mapping[str, Peer]:
        """Begin a step: a frame for each neighbour; empty: there is nobody, or nothing to do."""
        self.round, self.done_rounds, self.messages = 0, 0, 0
        self._agreed, self._stop = 0, 0
        outbox = checked(self.me, self.protocol.start(step, local))
        if not self.me.weights:
            return {}
        self.round = 1
        return self._frames(outbox)

    def take(self, frames: Sequence[Peer]) -> Mapping[str, Peer]:
        """Take the frames of a round, one per neighbour in the order of the weights: those of the next; empty: over."""
        round, carry = self.round, self._carry
        pairs = zip(self.me.weights, frames, strict=True)
        inbox = {sender: carry(sender, round, frame.values) for sender, frame in pairs}
        outbox = checked(self.me, self.protocol.on_round(round, inbox))
        self.done_rounds = round
        if self._policy != "fixed":
            self._agree(round, frames)
        if round >= self._cap or round >= self._stop > 0:
            self.round = 0
            return {}
        self.round = round + 1
        silent = self._policy == "local" and self.protocol.done()
        return self._frames({} if silent else outbox)

    @property
    def status(self) -> Status:
        """Whether it has converged by its own measure, or ran out of rounds."""
        return "converged" if self.protocol.done() else "max_rounds"

    def _agree(self, round: int, frames: Sequence[Peer]) -> None:
        """Learn whether all have converged, and agree on the last round.

        A converged participant stands one edge further than the least of its neighbours; who stands beyond the
        graph's diameter knows of all, and names a round that is far enough ahead for everybody to hear of it.
        """
        known = [frame.stop for frame in frames if frame.stop]
        if self._policy == "coordinator":
            if self.me.place == 0 and not self._stop and self.protocol.done():
                known.append(round + self.me.diameter)
        else:
            done = self.protocol.done()
            self._agreed = 1 + min(frame.agreed for frame in frames) if done else 0
            if self._agreed > self.me.diameter:
                known.append(round + self.me.diameter)
        self._stop = min([*known, self._stop] if self._stop else known, default=0)

    def _frames(self, outbox: Outbox) -> dict[str, Peer]:
        self.messages += len(outbox)
        agreed, stop, frames = self._agreed, self._stop, {}
        frame = make(Peer, (None, agreed, stop))
        for other in self.me.weights:
            values = outbox.get(other)
            if values is not frame.values:  # who says the same to all says it in one object, which is encoded once
                frame = make(Peer, (values, agreed, stop))
            frames[other] = frame
        return frames


def checked(me: Participant, outbox: Outbox) -> dict[str, Floats]:
    """What a participant says, as finite floats to neighbours only.

    Raises:
        ValueError: it speaks to somebody else.
    """
    if not outbox.keys() <= me.weights.keys():
        strangers = ", ".join(sorted(outbox.keys() - me.weights.keys()))
        raise ValueError(f"{me.id} speaks to {strangers}: no neighbour in its protocol")
    said: dict[str, Floats] = {}
    last: Floats | None = None
    for to, values in outbox.items():
        said[to] = last = last if values is last else floats("a round", values)
    return said
