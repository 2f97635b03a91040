"""TimedTalk: one conversation by the clock, carried by messages; nobody waits for anybody."""

from __future__ import annotations

from zgrid.messages import Envelope, Peer, channel
from zgrid.post import Post
from zgrid.protocols import Heard, Local, Outbox, Protocol, checked


class TimedTalk:
    """The clock is somebody else's: ``start`` begins a step, ``hear`` takes what comes, ``go_on`` ends a period."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.step = self.round = 0
        """The round that is going on; 0: the step is over or has not begun."""
        self.messages = 0
        """Messages said in this step."""
        self._me = protocol.me
        self._cap = int(protocol.config.rounds)
        self._falls_silent = protocol.config.stop == "local"
        self._inbox: dict[str, list[Heard]] = {}
        self._early: list[Envelope] = []
        self._channels = {other: channel("peer", other, self._me.id) for other in self._me.weights}
        self.hears = {channel("peer", self._me.id, other): frozenset((other,)) for other in self._me.weights}

    def start(self, step: int, local: Local) -> list[Post]:
        """Begin a step: what to say in round 1, and to those who were early."""
        self.step, self.round, self.messages = step, 1, 0
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
        elif envelope.step == self.step and self.round and envelope.body.values is not None:
            age = max(0, self.round - envelope.round)
            return self._hand(envelope.sender, Heard(envelope.body.values, age))
        return []

    def go_on(self) -> list[Post]:
        """The period is over: what to say in the next."""
        outbox = self.protocol.on_round(self.round, self._inbox)
        self._open()
        if self.round == self._cap:
            self.round = 0
            return []
        self.round += 1
        return self._answer(outbox)

    def _open(self) -> None:
        self._inbox = {other: [] for other in self._me.weights}

    def _hand(self, sender: str, heard: Heard) -> list[Post]:
        """To the protocol: what it answers at once; what it leaves for the end of the period is kept."""
        outbox = self.protocol.on_message(sender, heard)
        if outbox is None:
            self._inbox[sender].append(heard)
            return []
        return self._answer(outbox)

    def _answer(self, outbox: Outbox) -> list[Post]:
        return [] if self._falls_silent and self.protocol.done() else self._say(outbox)

    def _say(self, outbox: Outbox) -> list[Post]:
        said = checked(self._me, outbox)
        self.messages += len(said)
        return [Post(self._channels[to], self.step, self.round, Peer(values)) for to, values in said.items()]
