"""TimedTalk: one conversation by the clock, carried by messages; nobody waits for anybody."""

from __future__ import annotations

from collections.abc import Sequence

from zgrid.links import Ears
from zgrid.messages import Envelope, Peer, channel
from zgrid.post import Post
from zgrid.protocols import Heard, Local, Outbox, Protocol, checked


class TimedTalk:
    """The clock is somebody else's: ``start`` begins a step, ``hear`` takes what comes, ``go_on`` ends a period."""

    def __init__(self, protocol: Protocol, ears: Ears) -> None:
        self.protocol = protocol
        self.step = self.round = 0
        """The round that is going on; 0: the step is over or has not begun."""
        self.messages = 0
        """Messages said in this step."""
        self._me, self._ears = protocol.me, ears
        self._cap = int(protocol.config.rounds)
        self._falls_silent = protocol.config.stop == "local"
        self._inbox: dict[str, list[Heard]] = {}
        self._early: list[Envelope] = []
        self._channels = {other: channel("peer", other, self._me.id) for other in self._me.weights}
        self.hears = {channel("peer", self._me.id, other): frozenset((other,)) for other in self._me.weights}

    def start(self, step: int, local: Local) -> list[Post]:
        """Begin a step: what to say in round 1, and to those who were early."""
        self.step, self.round, self.messages = step, 1, 0
        self._ears.begin()
        self._open()
        posts = self._say(self.protocol.start(step, local))
        early, self._early = self._early, []
        for envelope in early:
            posts += self.hear(envelope)
        return posts

    def hear(self, envelope: Envelope) -> list[Post]:
        """Take a message: what the protocol answers. What is of a later step waits, of an older one it is too late."""
        assert type(envelope.body) is Peer
        if envelope.step > self.step:
            self._early.append(envelope)
        elif envelope.step == self.step and self.round:
            sender, values = envelope.sender, envelope.body.values
            return self._hand(sender, self._ears.arrive(sender, envelope.round, values, self.round))
        return []

    def go_on(self) -> list[Post]:
        """The period is over: what to say in the next, and to what was held up until then."""
        outbox = self.protocol.on_round(self.round, self._inbox)
        self._open()
        if self.round == self._cap:
            return self._end()
        self.round += 1
        posts = self._answer(outbox)
        for other in self._me.weights:
            posts += self._hand(other, self._ears.due(other, self.round))
        return posts

    def _end(self) -> list[Post]:
        """The step is over; the links have seen all of its rounds, whatever came."""
        for other in self._me.weights:
            self._ears.arrive(other, self.round, None, self.round)
        self.round = 0
        return []

    def _open(self) -> None:
        self._inbox = {other: [] for other in self._me.weights}

    def _hand(self, sender: str, messages: Sequence[Heard]) -> list[Post]:
        """To the protocol: what it answers at once; what it leaves for the end of the period is kept."""
        posts: list[Post] = []
        for heard in messages:
            outbox = self.protocol.on_message(sender, heard)
            if outbox is None:
                self._inbox[sender].append(heard)
            else:
                posts += self._answer(outbox)
        return posts

    def _answer(self, outbox: Outbox) -> list[Post]:
        return [] if self._falls_silent and self.protocol.done() else self._say(outbox)

    def _say(self, outbox: Outbox) -> list[Post]:
        said = checked(self._me, outbox)
        self.messages += len(said)
        return [Post(self._channels[to], self.step, self.round, Peer(values)) for to, values in said.items()]
