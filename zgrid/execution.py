"""Execution: one step from start to end; what is asked of every way to run one, and the centralized one, by calls."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from zgrid.agents import DeviceAgent, GridAgent
from zgrid.errors import AgentError
from zgrid.links import counted, summed
from zgrid.messages import ENV, Floats, Peer
from zgrid.outcome import Outcome
from zgrid.overview import Overview
from zgrid.squad import Squad
from zgrid.tables import Array
from zgrid.topology import Topology
from zgrid.topology.alike import alike
from zgrid.world import World

T = TypeVar("T")
Frames: TypeAlias = Mapping[str, Peer]


class Execution(ABC):
    """Runs the agents of one topology on one world."""

    @abstractmethod
    def start(self) -> None:
        """Bring the agents up.

        Raises:
            StartTimeout: an agent is not there in time.
        """

    @abstractmethod
    def reset(self, day: int, seed: int) -> Outcome:
        """Begin an episode."""

    columnar = False
    """Whether ``step_all`` takes the actions of all grids at once."""

    @abstractmethod
    def step(self, actions: Sequence[Floats | None]) -> Outcome:
        """One step; an action per grid, None: its own policy decides.

        Raises:
            AgentError: an agent raised.
            StepTimeout: a message did not come.
            NodeDiedError: a node ended.
        """

    def step_all(self, values: Array) -> Outcome:
        """The same where no grid decides itself, with the actions of all side by side, (n_controls,) float64.

        Only where :attr:`columnar`.
        """
        raise NotImplementedError

    def events(self) -> list[tuple[str, str]]:
        """What has happened since this was last asked: the agent (or ``*``), and what: a restart, a fallback, a
        return, a watchdog.
        """
        return []

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Messages and bytes by kind, refusals by cause, latency by kind in ms, and counts of links with faults."""

    @abstractmethod
    def close(self) -> None:
        """End the agents; again is harmless."""


class DirectExecution(Execution):
    """Centralized: the agents' methods, called one after the other."""

    def __init__(self, topology: Topology, world: World) -> None:
        self._world = world
        self._grids = [GridAgent(spec) for spec in topology.grid_specs]
        self._devices = [[DeviceAgent(device) for device in spec.devices] for spec in topology.grid_specs]
        self._step = 0
        groups = alike(topology)
        self.columnar = bool(groups)
        if groups:
            self._overview = Overview(topology, world, {ENV: groups})
            agents: dict[str, GridAgent | DeviceAgent] = {grid.id: grid for grid in self._grids}
            agents |= {device.id: device for devices in self._devices for device in devices}
            self._squad = Squad({spec.id: spec for spec in topology.grid_specs}, groups, agents)

    def start(self) -> None:
        """Nothing to bring up."""

    def reset(self, day: int, seed: int) -> Outcome:
        self._begin_step()
        for grid in self._grids:
            self._ask(grid, grid.reset, seed)
        states = [[self._ask(device, device.reset, seed) for device in devices] for devices in self._devices]
        flat = [state for group in states for state in group]
        networks = self._world.begin(day, flat)
        reports = [self._ask(g, g.observe, s, n) for g, s, n in zip(self._grids, states, networks, strict=True)]
        return Outcome(flat, reports)

    def step(self, actions: Sequence[Floats | None]) -> Outcome:
        self._begin_step()
        frames = [self._ask(g, g.begin, self._step, action) for g, action in zip(self._grids, actions, strict=True)]
        self._coordinate(frames)
        for grid, devices in zip(self._grids, self._devices, strict=True):
            self._negotiate(grid, devices)
        states = [
            [self._ask(device, device.apply, setpoint) for device, setpoint in zip(devices, setpoints, strict=True)]
            for devices, setpoints in zip(self._devices, [self._ask(g, g.decide) for g in self._grids], strict=True)
        ]
        flat = [state for group in states for state in group]
        networks = self._world.advance(flat)
        reports = [self._ask(g, g.assess, s, n) for g, s, n in zip(self._grids, states, networks, strict=True)]
        return Outcome(flat, reports)

    def step_all(self, values: Array) -> Outcome:
        overview, step = self._overview, self._step + 1
        states = self._squad.act(step, overview.actions(values)[ENV])
        if states is None:
            return self.step(overview.split(values))
        self._step = step
        networks = overview.advance({ENV: states})[ENV]
        reports = self._squad.assess(step, networks)
        if reports is not None:
            return overview.outcome({ENV: states}, {ENV: reports})
        self._squad.release()
        said, told = overview.singles({ENV: states}), overview.networks({ENV: networks})
        groups = iter(said)
        mine = [[next(groups) for _ in devices] for devices in self._devices]
        return Outcome(said, [self._ask(g, g.assess, s, n) for g, s, n in zip(self._grids, mine, told, strict=True)])

    def _begin_step(self) -> None:
        self._step += 1
        if self.columnar:
            self._squad.release()

    def _ask(self, agent: GridAgent | DeviceAgent, method: Callable[..., T], *arguments: Any) -> T:
        """Call an agent; what it raises is told as over messages."""
        try:
            return method(*arguments)
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            raise AgentError(agent.id, self._step, cause, traceback.format_exc()) from error

    def stats(self) -> dict[str, Any]:
        ears = [grid.ears for grid in self._grids] + [one.ears for devices in self._devices for one in devices]
        links = summed(link._asdict() for link in counted(ears))
        return {"messages": {}, "bytes": {}, "refused": {}, "latency_ms": {}, "links": links}

    def close(self) -> None:
        """Nothing to end."""

    def _coordinate(self, frames: list[Frames]) -> None:
        """Run the rounds of the horizontal protocol until nobody has anything left to send."""
        while any(frames):
            sent = {grid.id: frame for grid, frame in zip(self._grids, frames, strict=True)}
            frames = [
                self._ask(grid, grid.exchange, [sent[other][grid.id] for other in grid.spec.weights]) if frame else {}
                for grid, frame in zip(self._grids, frames, strict=True)
            ]

    def _negotiate(self, grid: GridAgent, devices: Sequence[DeviceAgent]) -> None:
        """Run the rounds between a grid and its devices, where they talk."""
        asked = self._ask(grid, grid.negotiate)
        if not asked:
            return
        briefs = self._ask(grid, grid.briefs)
        answers = [self._ask(device, device.brief, brief) for device, brief in zip(devices, briefs, strict=True)]
        while asked:
            told = [answer[grid.id] for answer in answers]
            answers = [self._ask(device, device.converse, [asked[device.id]]) for device in devices]
            asked = self._ask(grid, grid.converse, told)
