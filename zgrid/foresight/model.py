"""Model: what a plan would earn if the network were linear around a plan that was played."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zgrid.agents.reward import EconomicConfig, ReferenceConfig
from zgrid.foresight.flexibility import Corridor, Injection, add_device
from zgrid.foresight.program import Array, Columns, Program, Term
from zgrid.foresight.rehearsal import Played, Rehearsal, Slopes

_BOTH_MW = 1e-6
"""Charging and discharging at once beyond this is told apart."""


class Promise(NamedTuple):
    """The best plan of a model: its actions, (n_steps, n_controls) in [-1, 1], and the return it promises, $."""

    actions: Array
    value: float


def promise(rehearsal: Rehearsal, played: Played, slopes: Slopes, radius: float) -> Promise:
    """The best plan of the model, no control farther than ``radius`` x its range away from what was played.

    A linear model may charge and discharge a battery at once; where it does, it is solved again with the sign fixed.

    Raises:
        ForesightError: the linear program cannot be solved.
    """
    signs = np.zeros(played.p_mw.shape)
    for _ in range(3):
        model = _Model(rehearsal, played, slopes, radius, signs)
        values, cost = model.program.solve()
        found = Promise(model.actions(values), -cost)
        both = model.both_ways(values)
        if not both.any():
            break
        signs = np.where(both, np.where(model.injected(values)[0] >= 0.0, 1.0, -1.0), signs)
    return found


def why_not_rewarded(config: Any) -> str:
    """Why a reward cannot be planned for; empty where it can."""
    if type(config) is ReferenceConfig:
        return ""
    if type(config) is not EconomicConfig:
        return f"kind {config.kind!r}, expected economic or reference"
    return "" if config.voltage == "l1" else f"voltage {config.voltage!r}, expected l1, which is piecewise linear"


class _Model:
    """The linear program of one round."""

    def __init__(self, rehearsal: Rehearsal, played: Played, slopes: Slopes, radius: float, signs: Array) -> None:
        self.program = Program()
        self._rehearsal, self._played, self._radius = rehearsal, played, radius
        self._injections = [self._device(k, signs[:, k]) for k in range(len(rehearsal.specs))]
        self._columns = [
            (self._injections[device].p, played.p_mw[:, device])
            if control.name == "p_mw"
            else (self._injections[device].q, played.q_mvar[:, device])
            for device, control in rehearsal.controls
        ]
        self._reach = np.array([control.high - control.low for _, control in rehearsal.controls]) * radius
        loading = np.concatenate((played.solution.line_loading, played.solution.trafo_loading), axis=1)
        for k, config in enumerate(rehearsal.rewards):
            area = rehearsal.world.area(rehearsal.world.grids[k])
            self._add_excursions(config, played.solution.vm_pu, slopes.vm_pu, area.buses)
            elements = area.lines
            if type(config) is EconomicConfig:
                elements = np.concatenate((elements, played.solution.line_loading.shape[1] + area.trafos))
                self._add_import(config, k, slopes.p_pcc_mw[:, :, k])
            self._add_overloads(config, loading, slopes.loading, elements)

    def injected(self, values: Array) -> tuple[Array, Array]:
        """What devices inject at a solution, MW and Mvar, (n_steps, n_devices) float64; where nothing is decided, what
        was played."""
        found = self._played.p_mw.copy(), self._played.q_mvar.copy()
        for k, injection in enumerate(self._injections):
            for array, terms in zip(found, (injection.p, injection.q), strict=True):
                if terms:
                    array[:, k] = sum(sign * values[columns] for columns, sign in terms)
        return found

    def actions(self, values: Array) -> Array:
        """The actions of a solution, (n_steps, n_controls) in [-1, 1]."""
        return self._rehearsal.actions(*self.injected(values))

    def both_ways(self, values: Array) -> NDArray[np.bool_]:
        """Where a device gives and takes at once, (n_steps, n_devices)."""
        found = np.zeros(self._played.p_mw.shape, dtype=bool)
        for k, injection in enumerate(self._injections):
            if len(injection.p) == 2:
                found[:, k] = np.minimum(*(values[columns] for columns, _ in injection.p)) > _BOTH_MW
        return found

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _device(self, k: int, signs: Array) -> Injection:
        rehearsal, played = self._rehearsal, self._played
        p, q = played.p_mw[:, k], played.q_mvar[:, k]
        corridor = Corridor(p, q, rehearsal.series_of(k), signs, self._radius)
        return add_device(self.program, rehearsal.specs[k].config, rehearsal.topology.dt_h, corridor)

    def _response(self, values: Array, slopes: Array, steps: Columns, places: Columns) -> tuple[list[Term], Array]:
        """A quantity (n_steps, n) at some steps and places, as terms of the program and a constant."""
        terms: list[Term] = []
        constant = values[steps, places].copy()
        for k, (columns, played) in enumerate(self._columns):
            slope = slopes[steps, k, places]
            constant -= slope * played[steps]
            terms += [(column[steps], sign * slope) for column, sign in columns]
        return terms, constant

    def _moves(self, slopes: Array) -> Array:
        """How far a quantity can move at most, (n_steps, n)."""
        return np.asarray(np.abs(slopes).transpose(0, 2, 1) @ self._reach)

    def _add_excursions(self, config: Any, vm_pu: Array, slopes: Array, buses: Columns) -> None:
        """The penalty of every pu outside the voltage limits, where the plan can come there."""
        vm, slope = vm_pu[:, buses], slopes[:, :, buses]
        moves = self._moves(slope)
        weight = config.penalty * getattr(config, "voltage_weight", 1.0)
        steps, places = np.nonzero((vm + moves > config.vm_max_pu) | (vm - moves < config.vm_min_pu))
        if not len(steps):
            return
        outside = self.program.add_variables(len(steps), 0.0, np.inf, weight)
        terms, constant = self._response(vm, slope, steps, places)
        self.program.at_most([*terms, (outside, -1.0)], config.vm_max_pu - constant)
        self.program.at_most([*((c, -v) for c, v in terms), (outside, -1.0)], constant - config.vm_min_pu)

    def _add_overloads(self, config: Any, loading: Array, slopes: Array, elements: Columns) -> None:
        """The penalty of every percent of loading above 100, where the plan can come there."""
        percent, slope = np.nan_to_num(loading[:, elements]), slopes[:, :, elements]
        steps, places = np.nonzero(percent + self._moves(slope) > 100.0)
        if not len(steps):
            return
        weight = 0.01 * config.penalty * getattr(config, "overload_weight", 1.0)
        above = self.program.add_variables(len(steps), 0.0, np.inf, weight)
        terms, constant = self._response(percent, slope, steps, places)
        self.program.at_most([*terms, (above, -1.0)], 100.0 - constant)

    def _add_import(self, config: EconomicConfig, grid: int, slopes: Array) -> None:
        """What the import costs: the price, or ``sell_discount`` of it where it is an export.

        With a negative price that is not convex; it then costs what the import or export that was played costs.
        """
        rehearsal = self._rehearsal
        imported = rehearsal.import_mw(self._played)[:, grid]
        price, dt_h = rehearsal.prices[:, grid], rehearsal.topology.dt_h
        steps = np.arange(rehearsal.n_steps, dtype=np.intp)
        terms, constant = self._response(imported[:, None], slopes[:, :, None], steps, steps * 0)
        cost = self.program.add_variables(len(steps), -np.inf, np.inf, 1.0)
        played = np.where(imported >= 0.0, 1.0, config.sell_discount)
        for share in (1.0, config.sell_discount):
            per_mw = price * dt_h * np.where(price >= 0.0, share, played)
            self.program.at_most([*((c, v * per_mw[: len(c)]) for c, v in terms), (cost, -1.0)], -per_mw * constant)
