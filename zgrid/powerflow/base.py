"""What a power flow is: injections and positions in, voltages and loadings out, as arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zgrid.networks.coupled import CoupledNetwork

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Solution:
    """One solved network. Rows as in the tables of the joint net; NaN where dead, and everywhere after divergence.

    ``vm_pu`` and ``va_degree`` (n_bus,), ``line_loading`` (n_line,), ``trafo_loading`` (n_trafo,) in percent, the
    import of each part at its PCC, ``p_pcc_mw`` and ``q_pcc_mvar`` (n_part,), and what the slack of an islanded part
    gives, ``p_forming_mw`` (n_part,): all float64. ``iterations`` are those of the backend that found it.

    Of a batch, every array has a leading axis of its size, and ``converged`` is (size,) bool.
    """

    converged: Any
    vm_pu: Array
    va_degree: Array
    line_loading: Array
    trafo_loading: Array
    p_pcc_mw: Array
    q_pcc_mvar: Array
    p_forming_mw: Array
    iterations: int
    backend: str

    @property
    def energised(self) -> NDArray[np.bool_]:
        """Which buses have a voltage, (n_bus,) bool."""
        return ~np.isnan(self.vm_pu)


ARRAYS = ("vm_pu", "va_degree", "line_loading", "trafo_loading", "p_pcc_mw", "q_pcc_mvar", "p_forming_mw")
"""The arrays of a solution."""


class PowerFlow(ABC):
    """Solves one joint net again and again. Divergence is a result, never an exception; the next solve recovers.

    What is solved depends on what was set last and on nothing that came before, so that equal inputs give equal bytes.
    """

    def __init__(self, network: CoupledNetwork) -> None:
        self.network = network
        self._device_p = np.zeros(network.n_devices)
        self._device_q = np.zeros(network.n_devices)
        self._scale = np.ones(len(network.parts))
        self._positions = tuple(network.positions.tolist())
        self.rebuilds = 0
        """How often something was factorised anew because the topology had not been seen, or not lately."""

    def reset(self) -> None:  # noqa: B027 - most have nothing to forget
        """Begin an episode."""

    def set_injections(self, device_p_mw: Array, device_q_mvar: Array, load_scale: Array) -> None:
        """What the next solve starts from: (n_devices,) injections, and (n_part,) the scale of each part's loads."""
        self._device_p, self._device_q, self._scale = device_p_mw, device_q_mvar, load_scale

    def set_topology(self, positions: Array) -> None:
        """Where the network's actuators stand from now on, (n_actuators,) float64: see :class:`Actuator`."""
        self._positions = tuple(positions.tolist())

    @abstractmethod
    def solve(self) -> Solution:
        """Solve for what was set last."""

    def solve_batch(self, device_p_mw: Array, device_q_mvar: Array, load_scale: Array, positions: Array) -> Solution:
        """Solve many cases; every argument as in the setters, with a leading axis of the same size."""
        solutions = []
        for p, q, scale, position in zip(device_p_mw, device_q_mvar, load_scale, positions, strict=True):
            self.set_injections(p, q, scale)
            self.set_topology(position)
            solutions.append(self.solve())
        return stack(solutions)

    @abstractmethod
    def to_pandapower(self) -> Any:
        """A pandapower net with the injections and results of the last solve, for analysis."""

    def _nothing(self, backend: str, *, converged: bool, iterations: int = 0) -> Solution:
        """A solution without any voltage: diverged, or converged because there is no source left anywhere."""
        net, parts = self.network.net, len(self.network.parts)
        shapes = (len(net["bus"]), len(net["bus"]), len(net["line"]), len(net["trafo"]))
        vm, va, line, trafo = (np.full(n, np.nan) for n in shapes)
        nothing = np.zeros(parts)
        return Solution(converged, vm, va, line, trafo, nothing, nothing, nothing, iterations, backend)


def stack(solutions: list[Solution]) -> Solution:
    """Solutions as one, with a leading axis."""
    first = solutions[0]
    arrays: dict[str, Any] = {name: np.stack([getattr(one, name) for one in solutions]) for name in ARRAYS}
    converged = np.array([one.converged for one in solutions])
    iterations = max(one.iterations for one in solutions)
    return Solution(converged=converged, **arrays, iterations=iterations, backend=first.backend)


def scatter(parts: list[Solution], rows: list[list[int]], size: int) -> Solution:
    """Batches as one of ``size``; ``rows`` says where those of each belong."""
    arrays: dict[str, Any] = {}
    for name in ("converged", *ARRAYS):
        whole = np.empty((size, *getattr(parts[0], name).shape[1:]), dtype=getattr(parts[0], name).dtype)
        for part, mine in zip(parts, rows, strict=True):
            whole[mine] = getattr(part, name)
        arrays[name] = whole
    return Solution(**arrays, iterations=max(part.iterations for part in parts), backend=parts[0].backend)
