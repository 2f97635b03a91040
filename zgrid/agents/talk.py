"""Talk: one conversation of an agent in rounds, carried by messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zgrid.gather import Gather
from zgrid.messages import Envelope, Peer, channel, make
from zgrid.post import Post
from zgrid.protocols import Rounds


class Talk:
    """Frames out as posts, the others' in by Gather."""

    def __init__(self, me: str, others: Iterable[str]) -> None:
        self._frames: Gather[Peer] = Gather(others)
        self._walk: Rounds | None = None
        self._waits = False
        """Whether it waits for a round; one that is complete is handed over once, also if its taker raises."""
        self._step = 0
        self.hears = {channel("peer", me, other): frozenset((other,)) for other in self._frames.expected}
        self._channels = {other: channel("peer", other, me) for other in self._frames.expected}

    def open(self, step: int) -> None:
        """A new step: what belongs to an older one is refused from now on."""
        self._walk, self._step, self._waits = None, step, False
        self._frames.open(step, 0)

    def begin(self, walk: Rounds, frames: Mapping[str, Peer]) -> list[Post]:
        """Say the frames of round 1."""
        self._walk = walk
        return self._say(frames)

    def hear(self, envelope: Envelope) -> str:
        """Take a frame; the verdict of the Gather."""
        assert type(envelope.body) is Peer
        return self._frames.add(envelope.sender, envelope.body, envelope.step, envelope.round)

    @property
    def expected(self) -> tuple[str, ...]:
        """Whom it talks with."""
        return self._frames.expected

    def collect(self) -> list[Peer] | None:
        """The frames of the open round, in the order of the topology, once all are there; each round once."""
        if not self._waits or not self._frames.complete:
            return None
        self._waits = False
        return self._frames.values()

    def go_on(self, frames: Mapping[str, Peer]) -> list[Post]:
        """Say those of the next round; none: the conversation is over."""
        if not frames:
            self._walk = None
            return []
        return self._say(frames)

    def _say(self, frames: Mapping[str, Peer]) -> list[Post]:
        assert self._walk is not None
        round = self._walk.round
        self._waits = True
        step, channels = self._step, self._channels
        self._frames.open(step, round)
        return [make(Post, (channels[to], step, round, frame)) for to, frame in frames.items()]
