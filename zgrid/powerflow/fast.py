"""Power flow ``fast``: pandapower's own admittances, kept as arrays, and a fixed point on them; the default."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from zgrid.powerflow import kernels, solvers
from zgrid.powerflow.base import Array, Plant, PowerFlow, Solution
from zgrid.powerflow.model import DENSE_BUSES, Model, build, uncovered
from zgrid.powerflow.runpp import read_solution, run_cold

if TYPE_CHECKING:
    from zgrid.networks.couple import CoupledNetwork

logger = logging.getLogger(__name__)

KEPT = 256
"""Topologies whose factorisation is kept; the one that was not used for longest goes first."""


class FastPowerFlow(PowerFlow):
    """A fixed point on a dense impedance matrix (up to 300 buses) or a sparse LU; Newton where generators hold a
    voltage; ``runpp`` for what neither covers, and to confirm a divergence, once. All start cold.
    """

    def __init__(self, network: CoupledNetwork, use_numba: bool | None = None, dense_buses: int = DENSE_BUSES) -> None:
        """``use_numba``: default, where it is installed. Up to ``dense_buses`` buses the impedances are kept dense."""
        super().__init__(network)
        self._plant = Plant(network)
        self._dense_buses = dense_buses
        self._models: OrderedDict[tuple[float, ...], Model | None] = OrderedDict()
        self._use_numba = kernels.AVAILABLE if use_numba is None else use_numba and kernels.AVAILABLE
        self._uncovered = uncovered(self._plant.net)
        self._n_line = len(network.net["line"])
        self._sizes = len(network.net["bus"]), self._n_line + len(network.net["trafo"]), len(network.parts)
        self._current: tuple[tuple[float, ...] | None, Model | None] = (None, None)
        logger.info("power flow: %s", self.describe())

    def describe(self) -> str:
        """Which method solves the network as it stands, and why."""
        if self._uncovered:
            return f"runpp, because of {self._uncovered}"
        model = self._model(self._positions)
        if model is None:
            return "runpp, because it does not solve without load"
        if len(model.pv):
            return (
                f"Newton on kept arrays, because {len(model.pv)} buses hold their voltage; {len(model.no_load)} buses"
            )
        how = "numba" if self._use_numba else "numpy"
        matrix = "sparse LU" if model.z_at.size == 0 else "dense impedances"
        return f"fixed point on {matrix}, {len(model.no_load)} buses, {how}"

    def solve(self) -> Solution:
        model = self._model(self._positions)
        if model is None:
            return self._by_runpp()
        solution = self._by_model(model)
        return self._by_runpp() if solution is None else solution

    def solve_batch(self, device_p_mw: Array, device_q_mvar: Array, load_scale: Array, positions: Array) -> Solution:
        keys = [tuple(row) for row in positions.tolist()]
        model = self._model(keys[0])
        if model is None or len(model.pv) or any(key != keys[0] for key in keys) or self._use_numba:
            return super().solve_batch(device_p_mw, device_q_mvar, load_scale, positions)
        s = solvers.inject(model.injections, device_p_mw, device_q_mvar, load_scale)
        v, iterations = solvers.fixed_point(model, s)
        results = solvers.read(model, s, v, device_p_mw, device_q_mvar, load_scale)
        solution = self._solution(results, iterations)
        if iterations >= 0:
            return dataclasses.replace(solution, converged=np.ones(len(keys), dtype=bool))
        self._positions = keys[0]
        good = solvers.converged(model, s, v)
        for row in np.flatnonzero(~good):
            self.set_injections(device_p_mw[row], device_q_mvar[row], load_scale[row])
            alone = self._by_runpp()
            good[row] = alone.converged
            for name in (
                "vm_pu",
                "va_degree",
                "line_loading",
                "trafo_loading",
                "p_pcc_mw",
                "q_pcc_mvar",
                "p_forming_mw",
            ):
                getattr(solution, name)[row] = getattr(alone, name)
        return dataclasses.replace(solution, converged=good)

    def to_pandapower(self) -> Any:
        self._write()
        run_cold(self._plant.net)
        return copy.deepcopy(self._plant.net)

    # ---- one solve -------------------------------------------------------------------------------------------------

    def _model(self, positions: tuple[float, ...]) -> Model | None:
        """The model of a topology; None where only ``runpp`` will do."""
        known, model = self._current
        if positions == known:
            return model
        if self._uncovered:
            model = None
        elif positions in self._models:
            self._models.move_to_end(positions)
            model = self._models[positions]
        else:
            self.rebuilds += 1
            model = self._models[positions] = build(self._plant, positions, self._dense_buses)
            if len(self._models) > KEPT:
                self._models.popitem(last=False)
        self._current = (positions, model)
        return model

    def _by_model(self, model: Model) -> Solution | None:
        p, q, scale = self._device_p, self._device_q, self._scale
        if self._use_numba and not len(model.pv):
            return self._compiled(model, p, q, scale)
        s = solvers.inject(model.injections, p, q, scale)
        v, iterations = solvers.newton(model, s) if len(model.pv) else solvers.fixed_point(model, s)
        if iterations < 0:
            return None
        return self._solution(solvers.read(model, s, v, p, q, scale), iterations)

    def _compiled(self, model: Model, p: Array, q: Array, scale: Array) -> Solution | None:
        injections = model.injections
        s = np.empty(len(injections.at), dtype=np.complex128)
        v = np.empty(len(model.no_load), dtype=np.complex128)
        kernels.inject(injections, p, q, scale, s)
        limits = (solvers.TOLERANCE_PU, solvers.FIXED_POINT_STEPS)
        if model.triangles is None:
            iterations = kernels.dense(model.no_load, injections.at, model.z, model.z_at, s, *limits, v)
        else:
            iterations = kernels.sparse(model.no_load, injections.at, model.pq, model.triangles, s, *limits, v)
        if iterations < 0:
            return None
        out = self._rooms()
        kernels.read(model.bus, model.branches, model.meters, injections.base_mva, s, v, p, q, scale, out)
        return self._solution(solvers.Results(*out), iterations)

    def _rooms(self) -> tuple[Array, ...]:
        """Where the compiled solver writes its results."""
        n_bus, n_branch, parts = self._sizes
        empty = np.empty
        return empty(n_bus), empty(n_bus), empty(n_branch), empty(parts), empty(parts), empty(parts)

    def _solution(self, results: solvers.Results, iterations: int) -> Solution:
        vm, va, loading, p_pcc, q_pcc, forming = results
        n = self._n_line
        return Solution(
            True, vm, va, loading[..., :n], loading[..., n:], p_pcc, q_pcc, forming, iterations, "fast"
        )  # fmt: skip

    def _write(self) -> None:
        self._plant.write_topology(self._positions)
        self._plant.write_injections(self._device_p, self._device_q, self._scale)

    def _by_runpp(self) -> Solution:
        """Cold, by pandapower itself: its word on whether there is a solution is final."""
        self._write()
        if not self._plant.has_source:
            return self._nothing("fast", converged=True)
        if not run_cold(self._plant.net):
            return self._nothing("runpp", converged=False, iterations=-1)
        return read_solution(self._plant)
