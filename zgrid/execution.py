"""Execution: one step from start to end, by direct calls or by messages. Both move the same agents."""

from __future__ import annotations

import time
import traceback
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from zgrid.agents import DeviceAgent, GridAgent
from zgrid.errors import AgentError, LostMessageError, NodeDiedError, RefusedError, StartTimeout, StepTimeout
from zgrid.gather import Gather
from zgrid.host import Host
from zgrid.messages import (
    ENV,
    Action,
    DeviceState,
    Floats,
    NetworkState,
    Report,
    Reset,
    RollCall,
    StatsRequest,
    Stop,
    channel,
)
from zgrid.messaging import MessageBroker
from zgrid.node import CONTROL, make_agent, steward_of
from zgrid.port import EnvPort, percentiles
from zgrid.protocols import Outbox
from zgrid.session import Session, start_command
from zgrid.topology import Topology
from zgrid.world import World

T = TypeVar("T")

_SLICE_S = 0.2
_STOP_S = 1.0
_OFTEN = 1000
_LATENCIES = 10_000


class Outcome(NamedTuple):
    """What one step came to: the devices' states and the grids' reports, in the order of the topology."""

    states: list[DeviceState]
    reports: list[Report]


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

    @abstractmethod
    def step(self, actions: Sequence[Floats | None]) -> Outcome:
        """One step; an action per grid, None: its own policy decides.

        Raises:
            AgentError: an agent raised.
            StepTimeout: a message did not come.
            NodeDiedError: a node ended.
        """

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Messages and bytes by kind, refusals by cause, latency by kind in ms."""

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

    def start(self) -> None:
        """Nothing to bring up."""

    def reset(self, day: int, seed: int) -> Outcome:
        self._step += 1
        for grid in self._grids:
            self._ask(grid, grid.reset, seed)
        states = [[self._ask(device, device.reset) for device in devices] for devices in self._devices]
        flat = [state for group in states for state in group]
        networks = self._world.begin(day, flat)
        reports = [self._ask(g, g.observe, s, n) for g, s, n in zip(self._grids, states, networks, strict=True)]
        return Outcome(flat, reports)

    def step(self, actions: Sequence[Floats | None]) -> Outcome:
        self._step += 1
        outboxes = [self._ask(g, g.begin, self._step, action) for g, action in zip(self._grids, actions, strict=True)]
        self._coordinate(outboxes)
        states = [
            [self._ask(device, device.apply, setpoint) for device, setpoint in zip(devices, setpoints, strict=True)]
            for devices, setpoints in zip(self._devices, [self._ask(g, g.decide) for g in self._grids], strict=True)
        ]
        flat = [state for group in states for state in group]
        networks = self._world.advance(flat)
        reports = [self._ask(g, g.assess, s, n) for g, s, n in zip(self._grids, states, networks, strict=True)]
        return Outcome(flat, reports)

    def _ask(self, agent: GridAgent | DeviceAgent, method: Callable[..., T], *arguments: Any) -> T:
        """Call an agent; what it raises is told as over messages."""
        try:
            return method(*arguments)
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            raise AgentError(agent.id, self._step, cause, traceback.format_exc()) from error

    def stats(self) -> dict[str, Any]:
        return {"messages": {}, "bytes": {}, "refused": {}, "latency_ms": {}}

    def close(self) -> None:
        """Nothing to end."""

    def _coordinate(self, outboxes: list[Outbox]) -> None:
        """Run the rounds of the horizontal protocol until nobody has anything left to send."""
        round = 1
        while any(outboxes):
            sent = {grid.id: outbox for grid, outbox in zip(self._grids, outboxes, strict=True)}
            outboxes = [
                self._ask(grid, grid.exchange, round, {other: sent[other][grid.id] for other in grid.spec.weights})
                if outbox
                else {}
                for grid, outbox in zip(self._grids, outboxes, strict=True)
            ]
            round += 1


class MessageExecution(Execution):
    """Distributed: the env's walk through a step, on any broker, with each agent inline or somewhere else."""

    def __init__(
        self,
        topology: Topology,
        world: World,
        broker: MessageBroker,
        *,
        run: str,
        inline: Iterable[str],
        session: Session | None = None,
        on_ready: Callable[[set[str]], None] | None = None,
    ) -> None:
        """``inline`` agents live in this process; all others have to answer the roll call."""
        self._topology, self._world = topology, world
        self._session, self._on_ready = session, on_ready
        self._grids = tuple(topology.grids)
        self._step = 0
        self._closed = False
        here = tuple(inline)
        self._remote = [agent for agent in topology.placement() if agent not in here]
        self._port = EnvPort(topology, self._remote)
        self._host = Host(broker, run)
        self._host.add(self._port)
        self.agents = {agent: make_agent(topology, agent) for agent in here}
        for agent in self.agents.values():
            self._host.add(agent)

    def start(self) -> None:
        self._host.broker.prove(self._topology.broker.ready_timeout_s)
        port, begin = self._port, time.monotonic()
        told: set[str] = set()
        while port.waiting:
            self._say(CONTROL, RollCall(self._topology.hash()))
            self._host.pump(_SLICE_S / 2)
            for _ in self._remote:  # most have answered at once
                self._host.pump(0.0)
            ready = set(self._remote) - port.waiting
            if self._on_ready is not None and ready != told:
                self._on_ready(ready)
            told = ready
            self._check_session()
            waited = time.monotonic() - begin
            if port.waiting and waited > self._topology.broker.ready_timeout_s:
                raise StartTimeout(
                    {agent: self._reason(agent) for agent in self._remote if agent in port.waiting}, waited
                )

    def reset(self, day: int, seed: int) -> Outcome:
        self._open_step()
        for grid in self._grids:
            self._say(channel("reset", grid), Reset(seed))
        states = self._collect(self._port.states, "state")
        return self._close_step(states, self._world.begin(day, states))

    def step(self, actions: Sequence[Floats | None]) -> Outcome:
        self._open_step()
        for grid, action in zip(self._grids, actions, strict=True):
            self._say(channel("action", grid), Action(action))
        states = self._collect(self._port.states, "state")
        return self._close_step(states, self._world.advance(states))

    def stats(self) -> dict[str, Any]:
        """Asks every node what it sent; latencies are those of what the env itself heard."""
        port = self._port
        port.node_stats.clear()
        begin = time.monotonic()
        if self._remote:
            self._say(CONTROL, StatsRequest())
        nodes = set(map(steward_of, self._remote))
        while not nodes <= port.node_stats.keys():
            self._host.pump(_SLICE_S)
            if time.monotonic() - begin > _SLICE_S:
                self._lose_patience(begin, "stats", sorted(nodes - port.node_stats.keys()), silent=False)
        sent, size = self._host.sent(), self._host.sent_bytes()
        refused = self._host.refused()
        for stats in port.node_stats.values():
            sent.update({kind: count for kind, count, _ in stats.sent})
            size.update({kind: count for kind, _, count in stats.sent})
            refused.update({cause: count for cause, count, _ in stats.refused})
        latency = {kind: percentiles(values) for kind, values in sorted(port.latency_ns.items())}
        return {"messages": dict(sent), "bytes": dict(size), "refused": dict(refused), "latency_ms": latency}

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._dismiss()
        finally:
            if self._session is not None:
                self._session.stop()
            self._host.broker.close()

    def _open_step(self) -> None:
        self._step += 1
        self._port.open(self._step)

    def _close_step(self, states: list[DeviceState], networks: Sequence[NetworkState]) -> Outcome:
        for grid, network in zip(self._grids, networks, strict=True):
            self._say(channel("network", grid), network)
        return Outcome(states, self._collect(self._port.reports, "report"))

    def _say(self, to: str, body: Any) -> None:
        self._host.send(ENV, to, self._step, 0, body)

    def _collect(self, gather: Gather[Any], kind: str) -> list[Any]:
        """Wait until every expected sender has been heard."""
        begin, pump, taken = time.monotonic(), self._host.pump, 0
        while not gather.complete:
            taken += 1
            if not pump(_SLICE_S):
                self._lose_patience(begin, kind, gather.missing, silent=True)
            elif taken % _OFTEN == 0:  # noise from elsewhere must not hide that somebody is silent
                self._lose_patience(begin, kind, gather.missing, silent=False)
        return gather.values()

    def _lose_patience(self, begin: float, kind: str, missing: Sequence[str], *, silent: bool) -> None:
        """Raise if a node died, if it took too long, or if all is silent and nobody else could speak."""
        self._check_session()
        waited = time.monotonic() - begin
        if (silent and self._host.broker.ALONE) or waited > self._topology.broker.step_timeout_s:
            raise StepTimeout(self._step, kind, missing, waited)

    def _check_session(self) -> None:
        if self._session is not None:
            self._session.check()

    def _reason(self, agent: str) -> str:
        if agent in self._port.wrong_topology:
            return "it was started from another topology; start it from the same file with the same --set"
        if self._session is not None:
            return self._session.reason(agent)
        if self._topology.placement()[agent] != "external":
            return "it never answered the roll call"
        command = start_command(self._topology, agent, "FILE", self._host.broker.address)
        return f"external, and it never answered; start it with\n      {command}"

    def _dismiss(self) -> None:
        """Tell everybody that the run is over, and wait a moment for their word."""
        if not self._remote:
            return
        patience_s = _STOP_S
        if self._session is not None:
            try:
                self._session.check()
                self._session.let_go()
            except NodeDiedError:
                patience_s = 0.0  # its word will never come; the session ends the others, and external ones hear Stop
        self._say(CONTROL, Stop())
        deadline = time.monotonic() + patience_s
        while self._port.stopping and time.monotonic() < deadline:
            with suppress(
                AgentError, LostMessageError, RefusedError
            ):  # the run is over, whatever is said on the way out
                self._host.pump(_SLICE_S)


def new_run() -> str:
    """A run id that no other run has."""
    return uuid.uuid4().hex
