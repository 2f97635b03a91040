"""A protocol that does not wait for rounds: who hears of a higher value passes it on at once.

``python examples/event_protocol.py`` lets six neighbours on a line find the highest of their values, each in a process
of its own: in lockstep it takes five rounds, by the clock less than one. It is said again in each round, so that what
a link loses is made up for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zgrid.parley import meet
from zgrid.protocols import EventProtocol, Heard, Inbox, Local, Outbox, Participant, Result, RoundsConfig


class Alarm(EventProtocol):
    """x_i <- max(x_i, x_j), by message instead of by round."""

    Config = RoundsConfig
    RESULT = ("highest",)
    TOLERATES = frozenset(("loss", "delay"))

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        super().__init__(config, me, rng)
        self.x = 0.0

    def start(self, step: int, local: Local) -> Outbox:
        self.x = local.values["p_pcc_mw"]
        return dict.fromkeys(self.me.weights, (self.x,))

    def on_message(self, sender: str, heard: Heard) -> Outbox:
        if heard.values[0] <= self.x:
            return {}  # nothing new: say nothing, or the talk never comes to rest
        self.x = heard.values[0]
        return {other: (self.x,) for other in self.me.weights if other != sender}

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        super().on_round(round, inbox)
        return dict.fromkeys(self.me.weights, (self.x,))

    def result(self) -> Result:
        return Result((self.x,))


if __name__ == "__main__":
    names = [f"mg_{k}" for k in range(1, 7)]
    line = {name: [names[j] for j in (k - 1, k + 1) if 0 <= j < 6] for k, name in enumerate(names)}
    imports = {name: Local({"p_pcc_mw": (6 - k) / 10}) for k, name in enumerate(names)}
    for rounds, period_s in ((1, 0.0), (5, 0.0), (1, 2.0)):
        run = meet(Alarm, {"rounds": rounds}, line, imports, period_s=period_s)
        pace = "by the clock" if period_s else "in lockstep"
        print(f"{pace}, {rounds} round{'s' * (rounds > 1)}:", [result.values[0] for result in run.results.values()])
