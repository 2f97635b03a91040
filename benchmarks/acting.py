"""Bare loops whose processes act: the floor under every lockstep of these agents in Python over a ZeroMQ proxy.

They do what the loops of :mod:`benchmarks.bare` do, and besides pack, unpack and call the agents' own functions.
Nothing is checked, counted, gathered out of order, watched or survived, and the env makes no dicts for a trainer. What
zgrid could reach at most, if all of that cost nothing, is their speed over that of the loop that looks at nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgpack
import numpy as np

from benchmarks.bare import AgentLoop, BatchedLoop, Job, die_with_parent, meet
from zgrid.agents import DeviceAgent, GridAgent, GridSpec
from zgrid.encoding import packer, unpack_array
from zgrid.messages import Body, DeviceState, NetworkState, Setpoint, Table, channel
from zgrid.messaging import Address
from zgrid.overview import Overview
from zgrid.squad import Squad
from zgrid.topology import Topology
from zgrid.topology.alike import Groups, squads
from zgrid.topology.nodes import node_plans
from zgrid.world import World

Frame: TypeAlias = tuple[bytes, bytes]
Answer: TypeAlias = Callable[[bytes, bytes], Iterator[Frame]]

_ACTIONS = 50


class Opening(NamedTuple):
    """An episode that has begun: what every device did and every grid was told, grid by grid."""

    world: World
    states: list[list[DeviceState]]
    networks: list[NetworkState]

    @classmethod
    def of(cls, topology: Topology) -> Opening:
        """Its first one."""
        world = World(topology)
        states = [[DeviceAgent(device).reset(0) for device in spec.devices] for spec in topology.grid_specs]
        return cls(world, states, world.begin(0, [state for group in states for state in group]))


class ActingLoop(AgentLoop):
    """Each agent is a process that acts: 27 messages a step with three grids of three devices."""

    def __init__(self, topology: Topology) -> None:
        self._specs = topology.grid_specs
        self._opening = Opening.of(topology)
        self._actions_of = _drawn([len(spec.controls) for spec in self._specs])
        self._pack = packer().pack
        places = (channel("state", device.id).encode() for device in topology.device_specs)
        self._place = {name: place for place, name in enumerate(places)}
        super().__init__(topology)

    def jobs(self, address: Address) -> list[Job]:
        _, states, networks = self._opening
        grids = zip(self._specs, states, networks, strict=True)
        jobs: list[Job] = [(_serve_grid, (address, *grid)) for grid in grids]
        return jobs + [(_serve_device, (address, device)) for spec in self._specs for device in spec.devices]

    def step(self) -> None:
        send, recv, pack = self._pub.send_multipart, self._sub.recv_multipart, self._pack
        for out, values in zip(self._actions, next(self._actions_of), strict=True):
            send((out, pack(values)))
        states: list[Any] = [None] * len(self._place)
        for _ in self._place:
            name, data = recv()
            states[self._place[name]] = DeviceState(*_unpack(data))
        for out, network in zip(self._networks, self._opening.world.advance(states), strict=True):
            send((out, pack(network)))
        for _ in self._networks:
            _unpack(recv()[1])


class ActingBatchedLoop(BatchedLoop):
    """A few workers host the grids with their devices and act for them, one by one; a frame for each in a phase."""

    def __init__(self, topology: Topology, workers: int) -> None:
        self._specs = topology.grid_specs
        self._opening = Opening.of(topology)
        self._actions_of = _drawn([len(spec.controls) for spec in self._specs])
        self._pack = packer().pack
        super().__init__(topology, workers)

    def jobs(self, address: Address) -> list[Job]:
        super().jobs(address)
        workers = len(self._names)
        hosted = list(zip(self._specs, self._opening.states, self._opening.networks, strict=True))
        self._tell = [[channel(kind, name).encode() for name in self._names] for kind in ("action", "network")]
        self._place = {channel("state", name).encode(): k for k, name in enumerate(self._names)}
        return [(_serve_worker, (address, name, hosted[k::workers])) for k, name in enumerate(self._names)]

    def step(self) -> None:
        count = len(self._names)
        self._send(0, next(self._actions_of))
        states: list[Any] = [None] * len(self._specs)
        for _ in self._names:
            name, data = self._sub.recv_multipart()
            states[self._place[name] :: count] = _unpack(data)
        said = [DeviceState(*state) for group in states for state in group]
        self._send(1, self._opening.world.advance(said))
        for _ in self._names:
            _unpack(self._sub.recv_multipart()[1])

    def _send(self, phase: int, bodies: Sequence[Any]) -> None:
        for k, out in enumerate(self._tell[phase]):
            self._pub.send_multipart((out, self._pack(bodies[k :: len(self._names)])))


class ActingSquadsLoop(BatchedLoop):
    """The same as arrays: each node's worker steps its grids as a squad, and a frame has the tables of a phase."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._opening = Opening.of(topology)
        self._hosted = squads(topology, node_plans(topology))
        self._overview = Overview(topology, self._opening.world, self._hosted)
        self._pack = packer().pack
        super().__init__(topology, len(self._hosted))

    def jobs(self, address: Address) -> list[Job]:
        super().jobs(address)
        _, states, networks = self._opening
        whole = {spec.id: one for spec, *one in zip(self._topology.grid_specs, states, networks, strict=True)}
        self._tell = [[channel(kind, name).encode() for name in self._names] for kind in ("action", "network")]
        self._node = {
            channel(kind, name).encode(): node
            for kind in ("state", "report")
            for name, node in zip(self._names, self._hosted, strict=True)
        }
        specs = {spec.id: spec for spec in self._topology.grid_specs}
        size = sum(len(spec.controls) for spec in specs.values())
        self._actions_of = (np.array(values[0]) for values in _drawn([size]))
        return [
            (_serve_squad, (address, name, specs, groups, whole))
            for name, groups in zip(self._names, self._hosted.values(), strict=True)
        ]

    def step(self) -> None:
        overview = self._overview
        states = self._ask(0, overview.actions(next(self._actions_of)))
        reports = self._ask(1, overview.advance(states))
        overview.outcome(states, reports)

    def _ask(self, phase: int, told: Mapping[str, Sequence[Table]]) -> dict[str, tuple[Table, ...]]:
        for out, tables in zip(self._tell[phase], told.values(), strict=True):
            self._pub.send_multipart((out, self._pack(tables)))
        heard = dict.fromkeys(told, ())
        for _ in told:
            name, data = self._sub.recv_multipart()
            heard[self._node[name]] = _tables(data)
        return heard


def _drawn(sizes: Sequence[int]) -> Iterator[list[tuple[float, ...]]]:
    """Random actions of so many entries, again and again."""
    rng = np.random.default_rng(0)
    drawn = [[tuple(rng.uniform(-1.0, 1.0, size).tolist()) for size in sizes] for _ in range(_ACTIONS)]
    while True:
        yield from drawn


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, use_list=False, ext_hook=unpack_array)


def _tables(data: bytes) -> tuple[Table, ...]:
    return tuple(Table(*fields) for fields in _unpack(data))


# ---- in the workers ----------------------------------------------------------------------------------------------


def _serve(address: Address, me: str, hears: Sequence[str], answer: Answer) -> None:
    """Send what ``answer`` gives for each frame, until told to stop."""
    die_with_parent()
    context, pub, sub = meet(address, me, [*hears, "stop/"])
    while True:
        name, data = sub.recv_multipart()
        if name == b"stop/":
            break
        for frame in answer(name, data):
            pub.send_multipart(frame)
    context.destroy(linger=0)


def _serve_device(address: Address, spec: Any) -> None:
    agent, pack = DeviceAgent(spec), packer().pack
    agent.reset(0)
    out = channel("state", spec.id).encode()

    def answer(_: bytes, data: bytes) -> Iterator[Frame]:
        yield out, pack(agent.apply(Setpoint(*_unpack(data))))

    _serve(address, spec.id, [channel("setpoint", spec.id)], answer)


def _serve_grid(address: Address, spec: GridSpec, states: Sequence[DeviceState], network: NetworkState) -> None:
    agent, pack = _begun(spec, states, network), packer().pack
    action, report = channel("action", spec.id), channel("report", spec.id).encode()
    told = [channel("setpoint", device.id).encode() for device in spec.devices]
    place = {channel("state", device.id).encode(): k for k, device in enumerate(spec.devices)}
    heard: dict[int, DeviceState] = {}
    seen: list[NetworkState] = []

    def answer(name: bytes, data: bytes) -> Iterator[Frame]:
        body = _unpack(data)
        if name == action.encode():
            agent.begin(0, body)
            yield from zip(told, map(pack, agent.decide()), strict=True)
            return
        if name in place:
            heard[place[name]] = DeviceState(*body)
        else:
            seen.append(NetworkState(*body))
        if seen and len(heard) == len(place):
            yield report, pack(agent.assess([heard[k] for k in range(len(place))], seen.pop()))
            heard.clear()

    hears = [action, channel("network", spec.id), *(channel("state", device.id) for device in spec.devices)]
    _serve(address, spec.id, hears, answer)


def _serve_worker(address: Address, me: str, hosted: Sequence[tuple[GridSpec, Any, NetworkState]]) -> None:
    grids = [_begun(*one) for one in hosted]
    devices = [[DeviceAgent(device) for device in spec.devices] for spec, *_ in hosted]
    for device in (device for group in devices for device in group):
        device.reset(0)
    done: list[list[Any]] = [[] for _ in grids]

    def act(actions: Sequence[Any]) -> list[Any]:
        for k, (grid, values) in enumerate(zip(grids, actions, strict=True)):
            grid.begin(0, values)
            done[k] = [device.apply(setpoint) for device, setpoint in zip(devices[k], grid.decide(), strict=True)]
        return done

    def assess(networks: Sequence[Any]) -> list[Body]:
        return [g.assess(s, NetworkState(*n)) for g, s, n in zip(grids, done, networks, strict=True)]

    _serve_phases(address, me, lambda data: act(_unpack(data)), lambda data: assess(_unpack(data)))


def _serve_squad(
    address: Address, me: str, specs: Mapping[str, GridSpec], groups: Groups, opening: Mapping[str, Any]
) -> None:
    mine = [specs[grid] for group in groups for grid in group]
    agents: dict[str, Any] = {spec.id: _begun(spec, *opening[spec.id]) for spec in mine}
    agents |= {device.id: DeviceAgent(device) for spec in mine for device in spec.devices}
    for spec in mine:
        for device in spec.devices:
            agents[device.id].reset(0)
    squad, step = Squad(specs, groups, agents), 0

    def act(data: bytes) -> Any:
        nonlocal step
        step += 1
        return squad.act(step, _tables(data))

    _serve_phases(address, me, act, lambda data: squad.assess(step, _tables(data)))


def _serve_phases(address: Address, me: str, act: Callable[[bytes], Any], assess: Callable[[bytes], Any]) -> None:
    pack, action = packer().pack, channel("action", me)
    state, report = (channel(kind, me).encode() for kind in ("state", "report"))

    def answer(name: bytes, data: bytes) -> Iterator[Frame]:
        yield (state, pack(act(data))) if name == action.encode() else (report, pack(assess(data)))

    _serve(address, me, [action, channel("network", me)], answer)


def _begun(spec: GridSpec, states: Sequence[DeviceState], network: NetworkState) -> GridAgent:
    agent = GridAgent(spec)
    agent.reset(0)
    agent.observe(states, network)
    return agent
