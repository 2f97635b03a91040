"""Bound: a return that no plan for a day can beat, because its network loses nothing and has no limits.

Where every branch is passive and every load takes a fixed power, a grid's import is at least its demand minus what its
devices inject: the difference is its losses. With a price that is not negative, less import costs less, and penalties
are never negative. So the best plan without losses and limits, one small linear program, earns at least as much as any
plan whose power flow has a solution. Convex costs enter as maxima of tangents, which are never above them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zgrid.agents.reward import EconomicConfig
from zgrid.foresight.flexibility import Corridor, Injection, add_device
from zgrid.foresight.program import Array, Program
from zgrid.foresight.rehearsal import Rehearsal

_ANYWHERE = math.inf
"""A trust region that holds nothing back, wherever it is around."""
_NOT_PASSIVE = (
    *("gen", "storage", "ward", "xward", "motor", "impedance", "dcline", "trafo3w", "asymmetric_load"),
    *("asymmetric_sgen", "svc", "tcsc", "ssc", "vsc", "b2b_vsc"),
)


def upper_bound(rehearsal: Rehearsal) -> float:
    """The bound, $ of the day; NaN where a price is negative, or the network may do more than lose power.

    Raises:
        ForesightError: the linear program cannot be solved.
    """
    if (rehearsal.prices < 0.0).any() or not _is_passive(rehearsal.world.network):
        return math.nan
    program, dt_h = Program(), rehearsal.topology.dt_h
    demand = _demand(rehearsal)
    for k, (config, devices) in enumerate(zip(rehearsal.rewards, rehearsal.devices, strict=True)):
        injections = [_add(program, rehearsal, device) for device in range(devices.start, devices.stop)]
        if type(config) is not EconomicConfig:
            continue
        cost = program.add_variables(rehearsal.n_steps, -np.inf, np.inf, 1.0)
        for share in (1.0, config.sell_discount):
            per_mw = rehearsal.prices[:, k] * dt_h * share
            terms = [(columns, -sign * per_mw) for injection in injections for columns, sign in injection.p]
            program.at_most([(cost, -1.0), *terms], -per_mw * demand[:, k])
    return -program.solve().cost


def _add(program: Program, rehearsal: Rehearsal, device: int) -> Injection:
    """A device that may do anything it can."""
    nothing = np.zeros(rehearsal.n_steps)
    corridor = Corridor(nothing, nothing, rehearsal.series_of(device), nothing, _ANYWHERE)
    return add_device(program, rehearsal.specs[device].config, rehearsal.topology.dt_h, corridor)


def _demand(rehearsal: Rehearsal) -> Array:
    """What the loads of each grid take, its network's and those among its devices, (n_steps, n_grids) float64, MW."""
    world = rehearsal.world
    network = world.network
    demand = np.zeros((rehearsal.n_steps, len(world.grids)))
    for step, row in enumerate(rehearsal.rows):
        taken = network.load_p_mw * world.load_scale(int(row))[network.load_part]
        demand[step] = [taken[network.load_part == network.parts.index(grid)].sum() for grid in world.grids]
    for k, devices in enumerate(rehearsal.devices):
        for device in range(devices.start, devices.stop):
            if rehearsal.specs[device].config.kind == "load":
                demand[:, k] -= rehearsal.fixed_p_mw(device)
    return demand


def _is_passive(network: Any) -> bool:
    """Whether nothing but the devices and sources can give power, and no load depends on the voltage."""
    net = network.net
    if network.first_device > 0 or any(len(net[table]) for table in _NOT_PASSIVE if table in net):
        return False
    voltage_dependent = [name for name in net["load"] if name.startswith("const_")]
    at_least_0 = [("line", "r_ohm_per_km"), ("line", "g_us_per_km"), ("trafo", "vkr_percent"), ("trafo", "pfe_kw"),
                  ("shunt", "p_mw")]  # fmt: skip
    return not net["load"][voltage_dependent].to_numpy().any() and all(
        (net[table][column].to_numpy() >= 0.0).all() for table, column in at_least_0 if column in net[table]
    )
