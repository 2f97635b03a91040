"""Chronicle: what those have heard who may fail and go on, so that their successors know it.

An agent is a function of what it hears. So one that is built anew and hears all of it again is the same to the bit. A
device says its whole state in every step, so it needs no more than what it has heard since, unless its part in a
vertical protocol remembers more.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, TypeAlias

from zgrid.agents import DeviceAgent, GridAgent
from zgrid.host import Host
from zgrid.messages import ENV, KIND, Columns, DeviceState, Envelope, Floats, Item, Reset, Steps, channel
from zgrid.post import Post
from zgrid.tables import items
from zgrid.topology import Topology
from zgrid.topology.traffic import lines

Agent: TypeAlias = GridAgent | DeviceAgent

_FOR_EVER = 2**62


class Memory(NamedTuple):
    """What a successor has to know: the state a device had after step ``at``, the steps in which it fell back (first,
    first after, ...), and what it has heard.
    """

    at: int
    state: Floats
    fallen: Steps
    history: tuple[Item, ...]

    def is_fallen(self, step: int) -> bool:
        """Whether it falls back in a step."""
        edges = (*self.fallen, _FOR_EVER)
        return any(first <= step < end for first, end in list(pairwise(edges))[::2])


class Chronicle:
    """The env's record, by agent. It costs memory for an episode's messages of those grids that do not simply fail."""

    def __init__(self, topology: Topology) -> None:
        self._history: dict[str, dict[tuple[str, int, int], Item]] = {
            agent: {} for agent, policy in topology.on_failure().items() if policy.kind != "fail"
        }
        self._last: dict[str, tuple[int, Floats]] = {}
        self._fallen: dict[str, list[int]] = {agent: [] for agent in self._history}
        self._of = {
            line.channel: (line.speaker, heard)
            for line in lines(topology)
            if (heard := tuple(agent for agent in line.hearers if agent in self._history))
        }
        devices = {device.id for device in topology.device_specs}
        self._remembering = {device.id for device in topology.device_specs if device.remembers}
        self._states = {channel("state", agent): agent for agent in self._history if agent in devices}
        self._columns: list[Envelope] = []
        """What was said in columns in this episode, and is taken apart when somebody has to know it."""

    def attach(self, host: Host) -> None:
        """Hear what they hear, and what devices say of their state."""
        host.tap({**self._of, **self._states}, self._hear)
        if self._history:
            host.tap_columns(self._columns.append)

    def memory(self, agent: str) -> Memory:
        """What the agent's successor has to know."""
        self._take_apart()
        at, state = self._last.get(agent, (0, ()))
        return Memory(at, state, tuple(self._fallen[agent]), tuple(self._history[agent].values()))

    def fall(self, agent: str, step: int) -> None:
        """From this step on the agent falls back."""
        if len(self._fallen[agent]) % 2 == 0:
            self._fallen[agent].append(step)

    def rise(self, agent: str, step: int) -> None:
        """From this step on it does so no longer."""
        if len(self._fallen[agent]) % 2 == 1:
            self._fallen[agent].append(step)

    def _hear(self, name: str, envelope: Envelope) -> None:
        if type(envelope.body) is Reset and envelope.sender == ENV:
            self._columns.clear()
        elif self._columns:
            self._take_apart()
        self._keep(name, envelope)

    def _take_apart(self) -> None:
        """Keep what was said in columns, in the order in which it was."""
        for envelope in self._columns:
            assert type(envelope.body) is Columns
            for to, _, sender, incarnation, step, round, body in items(envelope.body, envelope.step):
                self._keep(to, Envelope(sender, envelope.run, incarnation, 0, step, round, envelope.sent_ns, body))
        self._columns.clear()

    def _keep(self, name: str, envelope: Envelope) -> None:
        sender, _, incarnation, _, step, round, _, body = envelope
        if isinstance(body, DeviceState) and self._states.get(name) == sender:
            self._last[sender] = (step, body.state)
            if sender not in self._remembering:
                self._history[sender].clear()
        speaker, agents = self._of.get(name, (sender, ()))
        if sender != speaker:
            return
        item = Item(name, KIND[type(body)], sender, incarnation, step, round, body)
        for agent in agents:
            history = self._history[agent]
            if type(body) is Reset:
                history.clear()
            history.setdefault((name, step, round), item)


def recall(agent: Agent, memory: Memory, step: int) -> list[Post]:
    """Let a new agent know what its predecessor did; what it says of ``step``, which is still open."""
    device = agent if isinstance(agent, DeviceAgent) and memory.at else None
    posts: list[Post] = []
    for _, _, sender, incarnation, at, round, body in memory.history:
        if device is not None and at > memory.at:
            device.restore(memory.at, memory.state)  # its own word counts, as where a watchdog had tripped
            device = None
        _fall_back(agent, memory.is_fallen(at))
        posts += agent.receive(Envelope(sender, "", incarnation, 0, at, round, 0, body))
    if device is not None:
        device.restore(memory.at, memory.state)
    _fall_back(agent, memory.is_fallen(step))
    return [post for post in posts if post.step == step]


def _fall_back(agent: Agent, fallen: bool) -> None:
    """Let it fall back or rise, unless it has."""
    if agent.fallen != fallen:
        agent.fall_back(fallen)
