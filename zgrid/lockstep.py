"""Lockstep: the distributed execution, the env's walk through a step by messages, on any broker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from zgrid.agents import DeviceAgent, GridAgent
from zgrid.errors import (
    AgentError,
    LostMessageError,
    NodeDiedError,
    NodeSilentError,
    RefusedError,
    StartTimeout,
    StepTimeout,
)
from zgrid.execution import Execution
from zgrid.gather import Gather
from zgrid.guard import Guard, Silent
from zgrid.host import Host
from zgrid.links import counted, summed
from zgrid.messages import (
    ENV,
    Action,
    Columns,
    DeviceState,
    Floats,
    NetworkState,
    Reset,
    StatsRequest,
    Stop,
    Table,
    channel,
)
from zgrid.messaging import MessageBroker
from zgrid.node import correspondents, make_agents, make_bus
from zgrid.outcome import Outcome
from zgrid.overview import Overview
from zgrid.port import EnvPort
from zgrid.session import Session, start_command
from zgrid.tables import Array
from zgrid.topology import Topology
from zgrid.topology.alike import squads
from zgrid.topology.nodes import NodePlan
from zgrid.topology.traffic import CONTROL
from zgrid.world import World

_SLICE_S = 0.2
_STOP_S = 1.0
_OFTEN = 1000


class MessageExecution(Execution):
    """Distributed: the env's walk through a step, on any broker, with each agent inline or somewhere else."""

    def __init__(
        self,
        topology: Topology,
        world: World,
        broker: MessageBroker,
        *,
        run: str,
        nodes: Mapping[str, NodePlan],
        session: Session | None = None,
        on_ready: Callable[[set[str]], None] | None = None,
        on_silent: Silent | None = None,
    ) -> None:
        """The agents of ``nodes`` have to answer the roll call; all others live in this process."""
        self._topology, self._world = topology, world
        self._session, self._on_ready = session, on_ready
        self._grids = tuple(topology.grids)
        self._step = 0
        self._closed = False
        self._port = EnvPort(topology, nodes)
        bus = None if broker.ALONE else make_bus(topology, ENV)
        self._host = Host(broker, run, time.time_ns() // 1_000_000, bus)
        self._host.add(self._port)
        if bus is not None:
            self._host.hear_batches(correspondents(topology, bus))
        if topology.broker.on_failure.kind == "restart":
            self._host.remember()
        remote = {agent for plan in nodes.values() for agent in plan.agents}
        here = make_agents(topology, [agent for agent in topology.runs() if agent not in remote])
        self.agents = {agent.id: agent for agent in here}
        for agent in here:
            self._host.add(agent)
        self._guard = Guard(topology, self._host, self._port, session, on_silent)
        groups = squads(topology, nodes) if bus is not None else {}
        self.columnar = bool(groups)
        if groups:
            self._overview = Overview(topology, world, groups)
            self._host.man(self._port.muster)

    def start(self) -> None:
        patience_s = self._topology.broker.ready_timeout_s
        self._guard.prove(patience_s)
        port, begin = self._port, time.monotonic()
        told: set[str] = set()
        while port.waiting:
            self._guard.call(self._step)
            self._host.pump(_SLICE_S / 2)
            for _ in port.nodes:  # most have answered at once
                self._host.pump(0.0)
            ready = set(port.ready)
            if self._on_ready is not None and ready != told:
                self._on_ready(ready)
            told = ready
            if self._session is not None:
                self._session.supervise()
            waited = time.monotonic() - begin
            if port.waiting and waited > patience_s:
                raise StartTimeout({node: self._reason(node) for node in port.waiting}, waited)
        self._guard.start()

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

    def step_all(self, values: Array) -> Outcome:
        if not self._guard.undisturbed:
            return self.step(self._overview.split(values))
        self._open_step()
        overview, muster = self._overview, self._port.muster
        muster.open(self._step, overview.states)
        self._say_columns(overview.actions(values))
        heard = self._collect(self._port.states, "state")
        if muster.is_open and not self._guard.undisturbed:  # somebody was lost after the last had spoken
            heard = overview.singles(muster.taken)
            muster.close()
        if not muster.is_open:
            return self._close_step(heard, self._world.advance(heard))
        states = muster.taken
        networks = overview.advance(states)
        muster.open(self._step, overview.reports)
        self._say_columns(networks)
        reports = self._collect(self._port.reports, "report")
        if muster.is_open:
            muster.close()
            return overview.outcome(states, muster.taken)
        return Outcome(overview.singles(states), reports)

    def events(self) -> list[tuple[str, str]]:
        events, self._guard.events = self._guard.events, []
        notices, self._port.notices = self._port.notices, []
        return events + [(notice.agent, f"{notice.event}: {notice.cause}") for notice in notices]

    def stats(self) -> dict[str, Any]:
        """Asks every node what it sent and what its agents heard; latencies are those of what the env itself heard."""
        port = self._port
        port.ask_anew()
        begin = time.monotonic()
        if port.nodes:
            self._say(CONTROL, StatsRequest())
        nodes = set(port.ready)
        while not nodes <= port.node_stats.keys():
            self._host.pump(_SLICE_S)
            if time.monotonic() - begin > _SLICE_S:
                self._lose_patience(begin, "stats", sorted(nodes - port.node_stats.keys()), silent=False)
                nodes &= set(port.ready)
        sent, size = self._host.sent(), self._host.sent_bytes()
        refused = self._host.refused()
        refused.update(self._guard.refused_by_the_proxy)
        for stats in port.node_stats.values():
            sent.update({kind: count for kind, count, _ in stats.sent})
            size.update({kind: count for kind, _, count in stats.sent})
            refused.update({cause: count for cause, count, _ in stats.refused})
        latency = {kind: percentiles(values) for kind, values in sorted(self._host.latency_ns().items())}
        figures: dict[str, Any] = {"messages": dict(sent), "bytes": dict(size), "refused": dict(refused)}
        return {**figures, "latency_ms": latency, "links": self._links()}

    def _links(self) -> list[dict[str, Any]]:
        """What was heard over links with faults: of those who act here, also for others, and of all others."""
        here = {one.id: one.ears for one in self._host.receivers if isinstance(one, GridAgent | DeviceAgent)}
        elsewhere = [link for link in self._port.links.values() if link.destination not in here]
        return summed(link._asdict() for link in (*counted(here.values()), *elsewhere))

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
        self._guard.boundary(self._step)
        self._port.open(self._step)

    def _close_step(self, states: list[DeviceState], networks: Sequence[NetworkState]) -> Outcome:
        for grid, network in zip(self._grids, networks, strict=True):
            self._say(channel("network", grid), network)
        return Outcome(states, self._collect(self._port.reports, "report"))

    def _say(self, to: str, body: Any) -> None:
        self._host.send(ENV, to, self._step, 0, body)

    def _say_columns(self, tables: Mapping[str, tuple[Table, ...]]) -> None:
        for node, mine in tables.items():
            self._host.send_columns(node, self._step, Columns(mine))

    def _collect(self, gather: Gather[Any], kind: str) -> list[Any]:
        """Wait until every expected sender has been heard; nothing where all have said it in columns."""
        begin, pump, taken = time.monotonic(), self._host.pump, 0
        muster = self._port.muster
        while not gather.complete:
            if muster.is_open and muster.complete:
                return []
            taken += 1
            try:
                heard = pump(_SLICE_S)
                if not heard:
                    begin += self._lose_patience(begin, kind, self._missing(gather), silent=True)
                elif taken % _OFTEN == 0:  # noise from elsewhere must not hide that somebody is silent
                    begin += self._lose_patience(begin, kind, self._missing(gather), silent=False)
            except AgentError as error:
                self._guard.agent_failed(error, self._step)
        return gather.values()

    def _missing(self, gather: Gather[Any]) -> Sequence[str]:
        return self._port.muster.missing if self._port.muster.is_open else gather.missing

    def _lose_patience(self, begin: float, kind: str, missing: Sequence[str], *, silent: bool) -> float:
        """Raise if a node failed, if it took too long, or if all is silent and nobody else could speak; the seconds
        that getting over a failure took, which nobody has to answer for.
        """
        looked = time.monotonic()
        self._guard.look(self._step)
        waited = looked - begin
        if (silent and self._host.broker.ALONE) or waited > self._topology.broker.step_timeout_s:
            raise StepTimeout(self._step, kind, missing, waited)
        return time.monotonic() - looked

    def _reason(self, node: str) -> str:
        if node in self._port.wrong_topology:
            return "it was started from another topology; start it from the same file with the same --set"
        if self._session is not None:
            return self._session.reason(node)
        if self._port.plans[node].run != "external":
            return "it never answered the roll call"
        command = start_command(self._topology, node, "FILE", self._host.broker.address)
        return f"external, and it never answered; start it with\n      {command}"

    def _dismiss(self) -> None:
        """Tell everybody that the run is over, and wait a moment for their word."""
        port = self._port
        if not port.nodes:
            return
        port.stopping.intersection_update(port.ready)
        patience_s = _STOP_S
        if self._session is not None:
            try:
                self._session.supervise()
                self._session.let_go()
            except (NodeDiedError, NodeSilentError):
                patience_s = 0.0  # its word will never come; the session ends the others, and external ones hear Stop
        self._say(CONTROL, Stop())
        self._host.flush()
        deadline = time.monotonic() + patience_s
        while port.stopping and time.monotonic() < deadline:
            with suppress(AgentError, LostMessageError, RefusedError):  # the run is over, whatever is said on leaving
                self._host.pump(_SLICE_S)


def percentiles(latencies_ns: Iterable[int]) -> Mapping[str, float]:
    """Median and 99th percentile of latencies, in ms."""
    values = np.fromiter(latencies_ns, dtype=np.float64) * 1e-6
    p50, p99 = np.percentile(values, (50.0, 99.0))
    return {"p50": float(p50), "p99": float(p99)}


def new_run() -> str:
    """A run id that no other run has."""
    return uuid.uuid4().hex
