"""Survey: the voltages of a topology at every hour of some days, with idle devices and with all of them feeding in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from zgrid.agents.spec import GRID_SERIES
from zgrid.fleet import Fleet
from zgrid.topology import Topology
from zgrid.world import World


class Finding(NamedTuple):
    """What a survey saw: the lowest and highest voltage, pu, the hours without a solution, and the hours in all."""

    devices: str
    vm_min_pu: float
    vm_max_pu: float
    diverged: int
    hours: int


def survey(topology: Topology, days: Sequence[int]) -> list[Finding]:
    """Solve every step of these days of the data: once with idle devices, once with all that feed in at their most."""
    world = World(topology)
    per_day = world.calendar.steps_per_day
    rows = np.concatenate([np.arange(day * per_day, (day + 1) * per_day) for day in days])
    specs = topology.device_specs
    fleet = Fleet(specs, len(rows), topology.dt_h)
    found = [_look("idle", world, fleet, rows)]
    most = np.array([0.0 if control.name == "q_mvar" else 1.0 for spec in specs for control in spec.controls])
    series = np.concatenate([values[rows, len(GRID_SERIES) :] for values in world.series], axis=1)
    fleet.step(np.tile(most, (len(rows), 1)), series, np.ones((len(rows), len(specs))))
    return [*found, _look("feeding in", world, fleet, rows)]


def _look(devices: str, world: World, fleet: Fleet, rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Finding:
    injecting = list(world.injecting)
    positions = np.zeros((len(rows), len(world.moving)))
    states = fleet.states()
    for column, (k, at) in enumerate(world.moving):
        positions[:, column] = states[k].state[at]
    p, q = (np.ascontiguousarray(array[:, injecting]) for array in (fleet.p_mw, fleet.q_mvar))
    solution = world.solve_rows(p, q, positions, rows)
    vm = solution.vm_pu[solution.converged]
    lowest, highest = (float(np.nanmin(vm)), float(np.nanmax(vm))) if vm.size else (np.nan, np.nan)
    return Finding(devices, lowest, highest, int((~solution.converged).sum()), len(rows))
