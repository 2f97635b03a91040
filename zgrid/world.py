"""World: what the agents act on and cannot decide, the time series and the solved network."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from zgrid.agents.seeing import OBSERVATION_LIMIT
from zgrid.agents.spec import GRID_SERIES
from zgrid.devices import AssetConfig, Clock, DeviceConfig, device_class
from zgrid.errors import Finding, NetworkError, TopologyError
from zgrid.messages import DeviceState, Floats, NetworkState, Sizes, Steps
from zgrid.networks import find_network
from zgrid.networks.couple import FEEDER, couple
from zgrid.networks.coupled import Actuation, Area, Attachment, CoupledNetwork, Forming, Part
from zgrid.powerflow import PowerFlow, Solution, power_flow_class
from zgrid.topology import GridConfig, NetworkConfig, Topology, load_calendar


class World:
    """Owns the power flow and the time series. ``begin`` starts an episode, ``advance`` closes each step."""

    def __init__(self, topology: Topology) -> None:
        """Build the joint network and resolve every name, once; solve it for the first row of the data, with all
        devices as they begin.

        Raises:
            NetworkError: a network that cannot be built or joined.
            ProfileError: a time series that cannot be read.
            TopologyError: a network that does not solve, or a device on a bus that is dead.
        """
        self.network = join(topology)
        self.power_flow: PowerFlow = power_flow_class(topology.power_flow.kind)(self.network)
        self.calendar = load_calendar(topology)
        self.grids = tuple(topology.grids)
        self._wire_devices(topology)
        self._sees_all = topology.observability == "full"
        self._meters = tuple(self._meter(self.network.areas[grid]) for grid in self.grids)
        self._parts = tuple(self.network.parts.index(grid) for grid in self.grids)
        angles = [2.0 * math.pi * (k * self.calendar.dt_h) / 24.0 for k in range(self.calendar.steps_per_day)]
        self._clocks = np.array([(math.sin(angle), math.cos(angle)) for angle in angles])
        self._load_scale = np.stack([self._scale_of(topology, part) for part in self.network.parts], axis=1)
        self._wire_series([self._series_of(topology, grid) for grid in self.grids])
        self._device_entries = sum(2 + len(device_class(d.config.kind).STATE) for d in topology.device_specs)
        self._row = self._done = 0
        self.solution: Solution | None = None
        self._check(topology)

    @property
    def series(self) -> tuple[NDArray[np.float64], ...]:
        """The time series of each grid, (n_rows, n_series) float64: those of ``GRID_SERIES``, then its devices'."""
        return self._series

    def load_scale(self, row: int) -> NDArray[np.float64]:
        """What scales the loads of each part at a row of the time series, (n_part,) float64."""
        return np.asarray(self._load_scale[row])

    @property
    def row(self) -> int:
        """The row of the time series that the coming step uses."""
        return self._row

    @property
    def hour(self) -> float:
        """The hour of the day at which the coming step begins."""
        return (self._row % self.calendar.steps_per_day) * self.calendar.dt_h

    def begin(self, day: int, states: Sequence[DeviceState]) -> list[NetworkState]:
        """Start an episode on a day of the data: each grid's network as the first step finds it."""
        self._row = self._done = (day % self.calendar.n_days) * self.calendar.steps_per_day
        self.power_flow.reset()
        return self._network_states(self._solve(states))

    def advance_arrays(
        self, p_mw: NDArray[np.float64], q_mvar: NDArray[np.float64], positions: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The same with arrays: injections and positions in the order of ``injecting`` and ``moving``; all that grids
        are told side by side, which ``rows_told`` sorts out.
        """
        solution = self._solve_for(p_mw, q_mvar, positions)
        self._done = self._row
        self._row = (self._row + 1) % self.calendar.n_rows
        self._local[:-1] = np.where(self._dead, 0.0, solution.vm_pu)
        return np.concatenate(
            (
                (1.0 if solution.converged else 0.0,), solution.p_pcc_mw, solution.q_pcc_mvar, solution.p_forming_mw,
                self._unserved, solution.vm_pu, solution.line_loading, solution.trafo_loading, self._local,
                self._all_series[self._row], self._clocks[self._row % self.calendar.steps_per_day],
            )
        )  # fmt: skip

    def rows_told(self, grids: Sequence[str]) -> tuple[Steps, NDArray[np.intp]]:
        """Where the row of each of these grids stands in what ``advance_arrays`` gives, (n_grids, width), and how long
        its parts are: see :mod:`zgrid.tables`.

        Raises:
            ValueError: the grids are not alike.
        """
        n_part, net = len(self.network.parts), self.network.net
        n_measured = len(net["bus"]) + len(net["line"]) + len(net["trafo"])
        begin = np.cumsum([1, *(n_part,) * 4, n_measured, len(self._local), self._all_series.shape[1], 2])
        flows, (measured, local, series, clock) = begin[:4], begin[4:8]
        found, shapes = [], set()
        for grid in grids:
            k = self.grids.index(grid)
            (sizes, told), devices, columns = self._meters[k], self._device_rows[k], self._series_columns[k]
            parts = (measured + told, local + devices, series + np.arange(*columns), clock + np.arange(2))
            found.append(np.concatenate(((0,), flows + self._parts[k], *parts)))
            shapes.add((*sizes, *map(len, parts)))
        if len(shapes) != 1:
            raise ValueError(f"grids that are not alike: {', '.join(grids)}")
        return shapes.pop(), np.stack(found).astype(np.intp)

    def advance(self, states: Sequence[DeviceState]) -> list[NetworkState]:
        """Close a step with what the devices did: each grid's network, and what the next step brings."""
        solution = self._solve(states)
        self._done = self._row
        self._row = (self._row + 1) % self.calendar.n_rows
        return self._network_states(solution)

    def global_state(self, states: Sequence[DeviceState]) -> NDArray[np.float32]:
        """Everything at once, (n_state,) float32, finite: device powers and states, all voltages and loadings, imports
        at the PCCs, all time series of the coming step, time of day. Units as in the observations.
        """
        assert self.solution is not None
        return self.global_rows(states, self.solution, self._row)

    def global_rows(self, states: Sequence[Any], solution: Solution, coming: Any) -> NDArray[np.float32]:
        """The same for a solution, and the row of the coming step; of a batch, (n, n_state)."""
        devices: list[Any] = []
        for state in states:
            devices += (state.p_mw, state.q_mvar, *state.state)
        series = [series[coming].copy() for series in self._series]
        for one in series:
            one[..., :3] *= 0.01
        parts = list(self._parts)
        raw = np.concatenate(
            (
                np.array(devices).T,
                solution.vm_pu,
                solution.line_loading * 0.01,
                solution.trafo_loading * 0.01,
                solution.p_pcc_mw[..., parts],
                solution.q_pcc_mvar[..., parts],
                *series,
                self._clocks[coming % self.calendar.steps_per_day],
            ),
            axis=-1,
        )
        raw[np.isnan(raw)] = 0.0
        return np.asarray(np.clip(raw, -OBSERVATION_LIMIT, OBSERVATION_LIMIT), dtype=np.float32)

    @property
    def state_size(self) -> int:
        """Entries of the global state."""
        net = self.network.net
        return int(
            self._device_entries
            + len(net["bus"])
            + len(net["line"])
            + len(net["trafo"])
            + 2 * len(self.grids)
            + sum(series.shape[1] for series in self._series)
            + len(self._clock())
        )

    def prices_done(self) -> dict[str, float]:
        """The price of the last step by grid, $/MWh."""
        return {grid: float(series[self._done, 0]) for grid, series in zip(self.grids, self._series, strict=True)}

    def area(self, grid: str) -> Area:
        """The rows and names of a grid's elements in the joint network."""
        return self.network.areas[grid]

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Names of the buses that a grid sees beside its own: all or none."""
        return self.network.bus_names if self._sees_all else ()

    def _wire_series(self, series: Sequence[NDArray[np.float64]]) -> None:
        """The time series of all grids side by side, (n_rows, n) float64, and those of each, which are part of it."""
        ends = np.cumsum([0, *(one.shape[1] for one in series)]).tolist()
        self._all_series = np.concatenate(series, axis=1)
        self._series_columns = tuple(itertools.pairwise(ends))
        self._series = tuple(self._all_series[:, begin:end] for begin, end in self._series_columns)

    def _wire_devices(self, topology: Topology) -> None:
        """Which devices inject, and where; which move the network, and what of their state is the position."""
        specs = topology.device_specs
        self.injecting = tuple(k for k, spec in enumerate(specs) if isinstance(spec.config, DeviceConfig))
        moving = [(k, spec) for k, spec in enumerate(specs) if spec.config.actuation() is not None]
        self.moving = tuple((k, _position(spec.config)) for k, spec in moving)
        injector = {k: n for n, k in enumerate(self.injecting)}
        buses = self.network.device_bus
        n_bus = len(self.network.net["bus"])
        self._local = np.zeros(n_bus + 1)  # the last one is for devices without a bus
        at = np.array([buses[injector[k]] if k in injector else n_bus for k in range(len(specs))], dtype=np.intp)
        grids = [spec.grid for spec in specs]
        self._device_rows = tuple(at[[k for k, one in enumerate(grids) if one == grid]] for grid in self.grids)
        self._injector_part = np.array([self.network.parts.index(specs[k].grid) for k in self.injecting], dtype=np.intp)

    def _check(self, topology: Topology) -> None:
        """Solve the network as it begins.

        Raises:
            TopologyError: it does not solve, or a device is on a bus that is dead.
        """
        specs = topology.device_specs
        begun = [DeviceState(0.0, 0.0, 0.0, 0.0, spec.build().initial()) for spec in specs]
        solution = self._solve(begun)
        if not solution.converged:
            text = (
                "the network does not solve at row 0 of the data with idle devices; expected a power flow to converge"
            )
            raise TopologyError(topology.name, [Finding("network" if topology.network else "grids", text)])
        alive, rows = solution.energised, dict(zip(self.injecting, self.network.device_bus, strict=True))
        findings = [
            Finding(f"grids.{spec.grid}.devices.{spec.id.split('.')[1]}.bus", f"bus {spec.config.bus} is dead")
            for k, spec in enumerate(specs)
            if isinstance(spec.config, DeviceConfig) and not alive[rows[k]]
        ]
        if findings:
            raise TopologyError(topology.name, findings)
        self.solution = None

    def _solve(self, states: Sequence[DeviceState]) -> Solution:
        injecting = [states[k] for k in self.injecting]
        p = np.array([state.p_mw for state in injecting], dtype=np.float64)
        q = np.array([state.q_mvar for state in injecting], dtype=np.float64)
        return self._solve_for(p, q, np.array([states[k].state[at] for k, at in self.moving], dtype=np.float64))

    def _solve_for(self, p: NDArray[np.float64], q: NDArray[np.float64], positions: NDArray[np.float64]) -> Solution:
        self.power_flow.set_injections(p, q, self._load_scale[self._row])
        if self.moving:
            self.power_flow.set_topology(positions)
        self.solution = solution = self.power_flow.solve()
        self._dead = np.isnan(solution.vm_pu)
        self._unserved = self._unserved_of(self._dead if solution.converged else None, p, self._load_scale[self._row])
        return solution

    # ---- many at once ----------------------------------------------------------------------------------------------

    def solve_rows(
        self,
        p_mw: NDArray[np.float64],
        q_mvar: NDArray[np.float64],
        positions: NDArray[np.float64],
        rows: NDArray[np.intp],
    ) -> Solution:
        """Solve a batch: injections (n, n_injecting) and positions (n, n_moving) in the order of ``injecting`` and
        ``moving``, at these rows of the time series (n,)."""
        return self.power_flow.solve_batch(p_mw, q_mvar, self._load_scale[rows], positions)

    def network_rows(
        self, solution: Solution, p_mw: NDArray[np.float64], rows: NDArray[np.intp], coming: NDArray[np.intp]
    ) -> list[Any]:
        """Each grid's NetworkState of a batch, solved at ``rows``; every number is an array (n,), ``measured`` (n, k).

        ``coming`` are the rows of the coming steps.
        """
        dead = np.isnan(solution.vm_pu)
        unserved = self._unserved_of(dead & solution.converged[:, None], p_mw, self._load_scale[rows])
        everything = np.concatenate((solution.vm_pu, solution.line_loading, solution.trafo_loading), axis=1)
        local = np.append(np.where(dead, 0.0, solution.vm_pu), np.zeros((len(rows), 1)), axis=1)
        clock = tuple(self._clocks[coming % self.calendar.steps_per_day].T)
        return [
            NetworkState._make(
                (
                    solution.converged, sizes, everything[:, told], solution.p_pcc_mw[:, part],
                    solution.q_pcc_mvar[:, part], solution.p_forming_mw[:, part], unserved[:, part],
                    tuple(local[:, devices].T), tuple(series[coming].T), clock,
                )
            )
            for (sizes, told), part, devices, series in zip(
                self._meters, self._parts, self._device_rows, self._series, strict=True
            )
        ]  # fmt: skip

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _unserved_of(
        self, dead: NDArray[np.bool_] | None, device_p_mw: NDArray[np.float64], scale: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The load at dead buses by part, (..., n_part) float64, MW: the network's own, and what devices take."""
        network = self.network
        unserved = np.zeros(scale.shape)
        if dead is not None and dead.any():
            load_mw = network.load_p_mw * scale[..., network.load_part]
            np.add.at(unserved.T, network.load_part, np.where(dead[..., network.load_bus], load_mw, 0.0).T)
            taken = np.maximum(-device_p_mw, 0.0)
            np.add.at(unserved.T, self._injector_part, np.where(dead[..., network.device_bus], taken, 0.0).T)
        return unserved

    def _network_states(self, solution: Solution) -> list[NetworkState]:
        clock, row = self._clock(), self._row
        everything = np.concatenate((solution.vm_pu, solution.line_loading, solution.trafo_loading))
        local = self._local
        local[:-1] = solution.vm_pu
        local[:-1][self._dead] = 0.0
        columns = (solution.p_pcc_mw, solution.q_pcc_mvar, solution.p_forming_mw, self._unserved)
        p_pcc, q_pcc, forming, unserved = (column.tolist() for column in columns)
        return [
            NetworkState(
                solution.converged,
                sizes,
                everything[rows],
                p_pcc[part],
                q_pcc[part],
                forming[part],
                unserved[part],
                tuple(local[devices].tolist()),
                tuple(series[row].tolist()),
                clock,
            )
            for (sizes, rows), part, devices, series in zip(
                self._meters, self._parts, self._device_rows, self._series, strict=True
            )
        ]

    def _meter(self, area: Area) -> tuple[Sizes, NDArray[np.intp]]:
        """What a grid is told of the solution: how many voltages and loadings, and their rows in all of them."""
        n_bus, n_line = len(self.network.net["bus"]), len(self.network.net["line"])
        rows = [area.buses, n_bus + area.lines, n_bus + n_line + area.trafos]
        if self._sees_all:
            rows.append(np.arange(n_bus))
        return (len(area.buses), len(area.lines), len(area.trafos)), np.concatenate(rows)

    def _clock(self) -> Floats:
        sine, cosine = self._clocks[self._row % self.calendar.steps_per_day].tolist()
        return sine, cosine

    def _scale_of(self, topology: Topology, part: str) -> NDArray[np.float64]:
        """What scales a part's loads on every row, (n_rows,) float64."""
        config = topology.network if part == FEEDER else topology.grids[part].network
        assert config is not None
        return self.calendar.column(config.load) * config.load_scale

    def _series_of(self, topology: Topology, grid: str) -> NDArray[np.float64]:
        """A grid's time series in the order that its agent expects, (n_rows, n_series) float64."""
        config, calendar = topology.grids[grid], self.calendar
        own = {
            "price": calendar.column(config.price),
            "price_low": calendar.daily_quantile(config.price, 0.25),
            "price_high": calendar.daily_quantile(config.price, 0.75),
            "load": calendar.column(config.network.load) * config.network.load_scale,
        }
        columns = [own[name] for name in GRID_SERIES]
        clock = Clock(calendar.n_days, calendar.steps_per_day, calendar.dt_h)
        for name, device in config.devices.items():
            rng = np.random.default_rng(crc32(f"{grid}.{name}".encode()))
            columns += device.columns(calendar.column, clock, rng)
        return np.stack(columns, axis=1)


def join(topology: Topology) -> CoupledNetwork:
    """The joint network of a topology, with its devices attached.

    Raises:
        NetworkError: a network that cannot be built or joined.
    """
    parts = [] if topology.network is None else [_part(FEEDER, topology.network, None)]
    parts += [_part(grid_id, grid.network, grid.connect_at) for grid_id, grid in topology.grids.items()]
    specs = topology.device_specs
    devices = [Attachment(s.id, s.grid, s.config.bus) for s in specs if isinstance(s.config, DeviceConfig)]
    moves = [(spec, spec.config.actuation()) for spec in specs]
    actuations = [Actuation(spec.id, spec.grid, *move) for spec, move in moves if move is not None]
    forming = [_forming(grid_id, grid) for grid_id, grid in topology.grids.items() if grid.islanding == "grid_forming"]
    return copy.deepcopy(_coupled(tuple(parts), tuple(devices), tuple(actuations), tuple(forming)))


@functools.lru_cache(maxsize=4)
def _coupled(
    parts: tuple[Part, ...],
    devices: tuple[Attachment, ...],
    actuations: tuple[Actuation, ...],
    forming: tuple[Forming, ...],
) -> CoupledNetwork:
    """Coupled once for worlds that are alike and copied for each, which is over twenty times as fast.

    Networks are alike that are the same object: those that ship; a plug-in or a file is read anew each time.
    """
    return couple(parts, devices, actuations, forming)


def _part(name: str, config: NetworkConfig, connect_at: str | None) -> Part:
    return Part(name, find_network(config.kind), dict(config.taps), config.source_vm_pu, connect_at)


def _forming(grid_id: str, grid: GridConfig) -> Forming:
    unit = grid.devices.get(grid.forming_unit or "")
    if not isinstance(unit, DeviceConfig):
        raise NetworkError(f"grids.{grid_id}.forming_unit: expected a device at a bus, got {grid.forming_unit!r}")
    return Forming(grid_id, unit.bus, grid.forming_vm_pu)


def _position(config: AssetConfig) -> int:
    """Where in a device's state the position stands of what it moves."""
    kind = device_class(config.kind)
    return int(kind.STATE.index(kind.POSITION))
