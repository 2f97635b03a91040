"""Rehearsal: plans for one episode played on arrays, with the results that the env gives to the last digits."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zgrid.agents.spec import GRID_SERIES
from zgrid.devices import device_class
from zgrid.errors import ForesightError
from zgrid.fleet import Fleet
from zgrid.foresight.program import Array
from zgrid.messages import DeviceState
from zgrid.powerflow import Solution
from zgrid.topology import Topology
from zgrid.world import World

_REACH = 0.01


class Played(NamedTuple):
    """One plan that was played: its actions, (n_steps, n_controls) in [-1, 1], cut to what the devices really did;
    what they injected, ``p_mw`` and ``q_mvar`` (n_steps, n_devices); the solved networks, a batch of n_steps; the
    rewards (n_steps, n_grids) in $; and their sum. All float64.
    """

    actions: Array
    p_mw: Array
    q_mvar: Array
    solution: Solution
    rewards: Array
    value: float


class Slopes(NamedTuple):
    """How the network moves with each control, (n_steps, n_controls, n) float64, per MW or Mvar: ``vm_pu`` of every
    bus, ``loading`` in percent of lines, then transformers, and ``p_pcc_mw`` of every grid. 0 where dead.
    """

    vm_pu: Array
    loading: Array
    p_pcc_mw: Array


class Rehearsal:
    """One episode of a topology. Its devices must inject what their setpoint and state say: no measures, no moves."""

    def __init__(self, topology: Topology, world: World, day: int) -> None:
        self.topology, self.world, self.day = topology, world, day
        self.specs = topology.device_specs
        self.controls = [(k, control) for k, spec in enumerate(self.specs) for control in spec.controls]
        calendar, n_steps = world.calendar, topology.episode_steps
        self.rows = (day * calendar.steps_per_day + np.arange(n_steps)) % calendar.n_rows
        self.series = np.concatenate([values[self.rows, len(GRID_SERIES) :] for values in world.series], axis=1)
        self.prices = np.stack([values[self.rows, 0] for values in world.series], axis=1)
        self._coming = (self.rows + 1) % calendar.n_rows
        self._grids = topology.grid_specs
        self._assessors = [spec.build_reward() for spec in self._grids]
        self.rewards = [assessor.config for assessor in self._assessors]
        ends = np.cumsum([0, *(len(spec.devices) for spec in self._grids)])
        self.devices = [slice(*pair) for pair in itertools.pairwise(ends)]
        self._parts = [world.network.parts.index(grid) for grid in world.grids]

    @property
    def n_steps(self) -> int:
        """Steps of the episode."""
        return len(self.rows)

    def series_of(self, device: int) -> Array:
        """The time series of one device, (n_steps, n_series) float64."""
        sizes = [len(device_class(spec.config.kind).SERIES) for spec in self.specs]
        begin = sum(sizes[:device])
        return self.series[:, begin : begin + sizes[device]]

    def fixed_p_mw(self, device: int) -> Array:
        """What a device without controls injects, (n_steps,) float64, MW."""
        one = self.specs[device].build()
        state, found = one.initial(), []
        for row in self.series_of(device):
            state, effect = one.step(state, one.neutral(), tuple(row.tolist()))
            found.append(effect.p_mw)
        return np.array(found)

    def import_mw(self, played: Played) -> Array:
        """What the grids took at their PCCs, (n_steps, n_grids) float64."""
        return played.solution.p_pcc_mw[:, self._parts]

    def play(self, plans: Array) -> list[Played]:
        """Play plans, (n, n_steps, n_controls) in [-1, 1], of each what the devices can do of it."""
        n = len(plans)
        p, q, *_ = self._move(plans)
        p, q, cost, violation = self._move(self.actions(p, q).reshape(n, self.n_steps, -1))
        solution = self._solve(p, q)
        rewards = self._assess(solution, p, q, cost, violation).reshape(n, self.n_steps, -1)
        p, q = p.reshape(n, self.n_steps, -1), q.reshape(n, self.n_steps, -1)
        done = self.actions(p, q)
        return [
            Played(done[k], p[k], q[k], _part(solution, k, self.n_steps), rewards[k], float(rewards[k].sum()))
            for k in range(n)
        ]

    def slopes(self, played: Played) -> Slopes:
        """The slopes of the network around a plan, by central differences of the real power flow.

        Raises:
            ForesightError: a power flow diverges, or a bus is dead.
        """
        if np.isnan(played.solution.vm_pu[played.solution.converged]).any():
            raise ForesightError(f"day {self.day}: a bus is dead; expected a network that is alive everywhere")
        n = self.n_steps
        cases = np.repeat(np.arange(n), 2 * len(self.controls))
        p, q = played.p_mw[cases], played.q_mvar[cases]
        widths = np.empty(len(self.controls))
        for k, (device, control) in enumerate(self.controls):
            widths[k] = _REACH * max(control.high - control.low, 1e-6)
            moved = p if control.name == "p_mw" else q
            moved[2 * k :: 2 * len(self.controls), device] += widths[k]
            moved[2 * k + 1 :: 2 * len(self.controls), device] -= widths[k]
        solution = self._solve(p, q, self.rows[cases])
        if not (np.all(played.solution.converged) and np.all(solution.converged)):
            raise ForesightError(f"day {self.day}: the power flow diverges around a plan; expected one that solves")
        loading = np.concatenate((solution.line_loading, solution.trafo_loading), axis=1)
        return Slopes(
            *(
                _differences(values, n, widths)
                for values in (solution.vm_pu, loading, solution.p_pcc_mw[:, self._parts])
            )
        )

    def actions(self, p: Array, q: Array) -> Array:
        """The actions that ask for exactly what was injected, (..., n_controls) in [-1, 1]."""
        columns = []
        for device, control in self.controls:
            done = (p if control.name == "p_mw" else q)[..., device]
            span = control.high - control.low
            share = (done - control.low) / span if span > 0.0 else np.full(done.shape, 0.5)
            columns.append(np.clip(2.0 * share - 1.0, -1.0, 1.0))
        return np.stack(columns, axis=-1) if columns else np.zeros((*p.shape[:-1], 0))

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _move(self, plans: Array) -> tuple[Array, Array, Array, Array]:
        """Step the devices through plans: injections in MW and Mvar, cost in $, violation in pu, each
        (n x n_steps, n_devices)."""
        n, n_devices = len(plans), len(self.specs)
        fleet = Fleet(self.specs, n, self.topology.dt_h)
        moved = np.empty((4, n, self.n_steps, n_devices))
        nowhere = np.ones((n, n_devices))
        for step in range(self.n_steps):
            series = np.ascontiguousarray(np.broadcast_to(self.series[step], (n, self.series.shape[1])))
            fleet.step(plans[:, step], series, nowhere)
            moved[:, :, step] = fleet.p_mw, fleet.q_mvar, fleet.cost, fleet.violation
        p, q, cost, violation = moved.reshape(4, n * self.n_steps, n_devices)
        return p, q, cost, violation

    def _solve(self, p: Array, q: Array, rows: NDArray[np.intp] | None = None) -> Solution:
        rows = np.resize(self.rows, len(p)) if rows is None else rows
        return self.world.solve_rows(p, q, np.zeros((len(p), 0)), rows)

    def _assess(self, solution: Solution, p: Array, q: Array, cost: Array, violation: Array) -> Array:
        """The reward of every grid, (n_cases, n_grids), $."""
        repeats = len(p) // self.n_steps
        networks = self.world.network_rows(solution, p, np.resize(self.rows, len(p)), np.resize(self._coming, len(p)))
        columns = (p.T, q.T, cost.T, violation.T)
        states = [DeviceState._make((*column, ())) for column in zip(*columns, strict=True)]
        rewards: list[Any] = []
        for k, (assessor, mine, network) in enumerate(zip(self._assessors, self.devices, networks, strict=True)):
            rewards.append(assessor.assess_rows(states[mine], network, np.tile(self.prices[:, k], repeats))[0])
        return np.stack(rewards, axis=1)


def _differences(values: Array, n_steps: int, widths: Array) -> Array:
    """Central differences, (n_steps, n_controls, n), of cases that alternate between up and down; 0 where dead."""
    pairs = np.nan_to_num(values).reshape(n_steps, len(widths), 2, -1)
    return np.asarray((pairs[:, :, 0] - pairs[:, :, 1]) / (2.0 * widths[:, None]))


def _part(batch: Solution, k: int, size: int) -> Solution:
    """Cases k x size to (k + 1) x size of a batch."""
    mine = slice(k * size, (k + 1) * size)
    arrays = ("converged", "vm_pu", "va_degree", "line_loading", "trafo_loading")
    powers = ("p_pcc_mw", "q_pcc_mvar", "p_forming_mw")
    cut = {name: getattr(batch, name)[mine] for name in (*arrays, *powers)}
    return Solution(**cut, iterations=batch.iterations, backend=batch.backend)
