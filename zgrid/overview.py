"""Overview: what the env says to nodes in columns and takes from them, with the world between, all as arrays."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from zgrid.agents import DeviceSpec
from zgrid.devices import device_class
from zgrid.messages import DeviceState, Floats, NetworkState, Table
from zgrid.outcome import ColumnOutcome, Order, bodies
from zgrid.tables import Array, Shape, table
from zgrid.topology import Topology
from zgrid.topology.alike import Groups
from zgrid.world import World

Tables = tuple[Table, ...]


class Overview:
    """All agents of a topology whose grids are alike in groups, ``groups`` by the node that hosts them."""

    def __init__(self, topology: Topology, world: World, groups: Mapping[str, Groups]) -> None:
        self._world = world
        self._specs = {spec.id: spec for spec in topology.grid_specs}
        self.nodes = tuple(groups)
        self._groups = groups
        self.states = {node: self._state_shapes(groups[node]) for node in groups}
        """The tables of states that each node says."""
        self.reports: dict[str, tuple[Shape, ...]] = {}
        """The tables of reports that each node says."""
        self._wire_actions()
        self._wire_states(topology)
        self._wire_networks()
        devices = [device.id for device in topology.device_specs]
        told = [device for node in groups for _, agents, _ in self.states[node] for device in agents.split(" ")]
        grids = [grid for node in groups for group in groups[node] for grid in group]
        self._order = Order(tuple(topology.grids), devices, grids, told)

    def split(self, values: Array) -> list[Floats]:
        """The actions of all grids, (n_controls,) side by side, one by one."""
        return [tuple(values[begin:end].tolist()) for begin, end in self._controls.values()]

    def actions(self, values: Array) -> dict[str, Tables]:
        """What each node is told, of the actions of all grids, (n_controls,) side by side."""
        return {
            node: tuple(table(*shape, values[at]) for shape, at in zip(shapes, places, strict=True))
            for node, (shapes, places) in self._actions.items()
        }

    def advance(self, states: Mapping[str, Tables]) -> dict[str, Tables]:
        """Move the world by what all nodes say that their devices did; what each node is told of the network."""
        values = np.concatenate([one.values for node in self.nodes for one in states[node]])
        told = self._world.advance_arrays(values[self._p], values[self._q], values[self._positions])
        return {
            node: tuple(table(*shape, told[at]) for shape, at in zip(shapes, places, strict=True))
            for node, (shapes, places) in self._networks.items()
        }

    def outcome(self, states: Mapping[str, Tables], reports: Mapping[str, Tables]) -> ColumnOutcome:
        """What a step came to."""
        said, told = ([one for node in self.nodes for one in by[node]] for by in (states, reports))
        return ColumnOutcome(self._order, said, told)

    def singles(self, states: Mapping[str, Tables]) -> list[DeviceState]:
        """What all devices did, one by one, in the order of the topology."""
        return self._order.devices_of(bodies([one for node in self.nodes for one in states[node]]))

    def networks(self, networks: Mapping[str, Tables]) -> list[NetworkState]:
        """What all grids are told of the network, one by one, in the order of the topology."""
        return self._order.grids_of(bodies([one for node in self.nodes for one in networks[node]]))

    # ---- where everything stands -----------------------------------------------------------------------------------

    def _wire_actions(self) -> None:
        ends = np.cumsum([0, *(len(spec.controls) for spec in self._specs.values())]).tolist()
        self._controls = dict(zip(self._specs, itertools.pairwise(ends), strict=True))
        self._actions: dict[str, tuple[list[Shape], list[NDArray[np.intp]]]] = {}
        for node, groups in self._groups.items():
            shapes: list[Shape] = [("action", " ".join(ids), (len(self._specs[ids[0]].controls),)) for ids in groups]
            places = [np.array([np.arange(*self._controls[grid]) for grid in ids], dtype=np.intp) for ids in groups]
            self._actions[node] = shapes, places

    def _state_shapes(self, groups: Groups) -> tuple[Shape, ...]:
        """Kind by kind, each in the order of the groups."""
        kinds: dict[str, list[DeviceSpec]] = {}
        for ids in groups:
            for grid in ids:
                for device in self._specs[grid].devices:
                    kinds.setdefault(device.config.kind, []).append(device)
        return tuple(
            ("state", " ".join(device.id for device in devices), (len(device_class(kind).STATE),))
            for kind, devices in kinds.items()
        )

    def _wire_states(self, topology: Topology) -> None:
        """Where the row of each device begins in the states of all nodes."""
        begin, at = dict[str, int](), 0
        for node in self.nodes:
            for _, agents, (n_state,) in self.states[node]:
                for device in agents.split(" "):
                    begin[device] = at
                    at += 4 + n_state
        rows = [begin[device.id] for device in topology.device_specs]
        self._p = np.array([rows[k] for k in self._world.injecting], dtype=np.intp)
        self._q = self._p + 1
        self._positions = np.array([rows[k] + 4 + at for k, at in self._world.moving], dtype=np.intp)

    def _wire_networks(self) -> None:
        self._networks: dict[str, tuple[list[Shape], list[NDArray[np.intp]]]] = {}
        for node, groups in self._groups.items():
            found = [self._world.rows_told(ids) for ids in groups]
            shapes = [("network", " ".join(ids), sizes) for ids, (sizes, _) in zip(groups, found, strict=True)]
            self._networks[node] = shapes, [at for _, at in found]
            self.reports[node] = tuple(map(self._report_shape, groups, (sizes for sizes, _ in found)))

    def _report_shape(self, ids: Sequence[str], sizes: tuple[int, ...]) -> Shape:
        spec = self._specs[ids[0]]
        _, _, _, n_measured, _, n_series, n_clock = sizes
        n_devices = sum(2 + len(device_class(device.config.kind).STATE) for device in spec.devices)
        return "report", " ".join(ids), (len(spec.term_names), n_devices + n_series + n_clock + 2 + n_measured)
