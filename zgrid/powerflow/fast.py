"""Power flow ``fast``: pandapower's own admittances, kept as arrays, and a fixed point on them; the default."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from zgrid.powerflow import kernels, solvers
from zgrid.powerflow.base import ARRAYS, Array, PowerFlow, Solution, scatter
from zgrid.powerflow.model import DENSE_BUSES, Model, build, uncovered
from zgrid.powerflow.plant import Plant
from zgrid.powerflow.runpp import read_solution, run_cold

if TYPE_CHECKING:
    from zgrid.networks.coupled import CoupledNetwork

logger = logging.getLogger(__name__)

_LIMITS = (solvers.TOLERANCE_PU, solvers.FIXED_POINT_STEPS)
_ROWS_PER_THREAD = 16

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
        self._threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
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
            return "runpp, because it does not solve without load, or nothing but its source is alive"
        if len(model.pv):
            return (
                f"Newton on kept arrays, because {len(model.pv)} buses hold their voltage; {len(model.no_load)} buses"
            )
        how = "numba" if self._use_numba else "numpy"
        matrix = "dense impedances" if model.lu is None else "sparse LU"
        return f"fixed point on {matrix}, {len(model.no_load)} buses, {how}"

    def solve(self) -> Solution:
        model = self._model(self._positions)
        if model is None:
            return self._by_runpp()
        solution = self._by_model(model)
        return self._by_runpp() if solution is None else solution

    def solve_batch(self, device_p_mw: Array, device_q_mvar: Array, load_scale: Array, positions: Array) -> Solution:
        """Cases of one topology are solved together, the others after each other; see :class:`PowerFlow`."""
        keys = [tuple(row) for row in positions.tolist()]
        groups: dict[tuple[float, ...], list[int]] = {}
        for row, key in enumerate(keys):
            groups.setdefault(key, []).append(row)
        if len(groups) == 1:
            solution = self._solve_group(keys[0], device_p_mw, device_q_mvar, load_scale)
        else:
            case = (device_p_mw, device_q_mvar, load_scale)
            parts = [self._solve_group(key, *(array[rows] for array in case)) for key, rows in groups.items()]
            solution = scatter(parts, list(groups.values()), len(keys))
        self.set_injections(device_p_mw[-1], device_q_mvar[-1], load_scale[-1])
        self.set_topology(positions[-1])
        return solution

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
            out = self._rooms(())
            solve = kernels.solve_dense if model.triangles is None else kernels.solve_sparse
            arguments: Any = (*model.compiled(), p, q, scale, *_LIMITS, out)
            iterations = solve(*arguments)
            return self._solution(solvers.Results(*out), iterations) if iterations >= 0 else None
        s = solvers.inject(model.injections, p, q, scale)
        v, iterations = solvers.newton(model, s) if len(model.pv) else solvers.fixed_point(model, s)
        if iterations < 0:
            return None
        return self._solution(solvers.read(model, s, v, p, q, scale), iterations)

    def _solve_group(self, key: tuple[float, ...], p: Array, q: Array, scale: Array) -> Solution:
        """Cases of one topology."""
        model = self._model(key)
        if model is None or len(model.pv):
            return super().solve_batch(p, q, scale, np.broadcast_to(key, (len(p), len(key))))
        if self._use_numba:
            out, found = self._rooms((len(p),)), np.full(len(p), -1, dtype=np.int64)
            solve = kernels.solve_dense_rows if model.triangles is None else kernels.solve_sparse_rows
            self._share(solve, model, (p, q, scale), out, found)
            solution, good = self._solution(solvers.Results(*out), int(found.max())), found >= 0
        else:
            s = solvers.inject(model.injections, p, q, scale)
            v, iterations = solvers.fixed_point(model, s)
            solution = self._solution(solvers.read(model, s, v, p, q, scale), iterations)
            good = np.full(len(p), True) if iterations >= 0 else solvers.converged(model, s, v)
        return self._confirm(key, solution, good, (p, q, scale))

    def _share(self, solve: Any, model: Model, case: tuple[Array, ...], out: tuple[Array, ...], found: Any) -> None:
        """Divide the rows among threads, which compiled code lets run side by side."""
        rows = len(found)
        threads = min(self._threads, max(rows // _ROWS_PER_THREAD, 1))
        edges = [rows * k // threads for k in range(threads + 1)]

        def work(begin: int, end: int) -> None:
            mine = slice(begin, end)
            parts = [array[mine] for array in case]
            solve(*model.compiled(), *parts, *_LIMITS, tuple(array[mine] for array in out), found[mine])

        if threads == 1:
            return work(0, rows)
        with ThreadPoolExecutor(threads) as pool:  # its results raise what a worker raised
            list(pool.map(work, edges[:-1], edges[1:]))
        return None

    def _confirm(self, key: tuple[float, ...], solution: Solution, good: Any, case: tuple[Array, ...]) -> Solution:
        """Give those that did not converge to ``runpp``, one by one."""
        self._positions = key
        for row in np.flatnonzero(~good):
            self.set_injections(*(array[row] for array in case))
            alone = self._by_runpp()
            good[row] = alone.converged
            for name in ARRAYS:
                getattr(solution, name)[row] = getattr(alone, name)
        return dataclasses.replace(solution, converged=good)

    def _rooms(self, shape: tuple[int, ...]) -> tuple[Array, ...]:
        """Where the compiled solvers write their results."""
        n_bus, n_branch, parts = self._sizes
        empty = np.empty
        return (
            empty((*shape, n_bus)), empty((*shape, n_bus)), empty((*shape, n_branch)),
            empty((*shape, parts)), empty((*shape, parts)), empty((*shape, parts)),
        )  # fmt: skip

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
