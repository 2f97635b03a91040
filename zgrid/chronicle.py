"""Chronicle: what agents have heard in this episode who may fail and go on, so that their successors know it.

An agent is a function of what it hears. So one that is built anew and hears all of it again is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from zgrid.agents import DeviceAgent, GridAgent
from zgrid.host import Host
from zgrid.messages import KIND, Envelope, Item, Reset
from zgrid.post import Post
from zgrid.topology import Topology
from zgrid.topology.traffic import lines

Agent: TypeAlias = GridAgent | DeviceAgent


class Chronicle:
    """The env's record, by agent. It costs memory for an episode's messages of those alone that do not simply fail."""

    def __init__(self, topology: Topology) -> None:
        self._history: dict[str, dict[tuple[str, int, int], Item]] = {
            agent: {} for agent, policy in topology.on_failure().items() if policy.kind != "fail"
        }
        self._of = {
            line.channel: (line.speaker, heard)
            for line in lines(topology)
            if (heard := tuple(agent for agent in line.hearers if agent in self._history))
        }

    def attach(self, host: Host) -> None:
        """Hear what they hear."""
        host.tap(self._of, self._keep)

    def history(self, agent: str) -> tuple[Item, ...]:
        """What the agent has heard in this episode, in order."""
        return tuple(self._history[agent].values())

    def _keep(self, name: str, envelope: Envelope) -> None:
        speaker, agents = self._of[name]
        if envelope.sender != speaker:
            return
        sender, _, incarnation, _, step, round, _, body = envelope
        item = Item(name, KIND[type(body)], sender, incarnation, step, round, body)
        for agent in agents:
            history = self._history[agent]
            if type(body) is Reset:
                history.clear()
            history.setdefault((name, step, round), item)


def recall(agent: Agent, history: Iterable[Item], step: int, *, fall_back: bool = False) -> list[Post]:
    """Let a new agent hear a history; what it says of ``step``, which is still open. With ``fall_back`` it falls back
    as that begins.
    """
    posts: list[Post] = []
    fallen = False
    for _, _, sender, incarnation, at, round, body in history:
        if fall_back and not fallen and at >= step:
            agent.fall_back()
            fallen = True
        posts += agent.receive(Envelope(sender, "", incarnation, 0, at, round, 0, body))
    if fall_back and not fallen:
        agent.fall_back()
    return [post for post in posts if post.step == step]
