"""What a power flow is: injections in, voltages and loadings out, as arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zgrid.networks.couple import CoupledNetwork

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Solution:
    """One solved network. Rows as in the tables of the joint net; NaN where dead, and everywhere after divergence.

    ``vm_pu`` and ``va_degree`` (n_bus,), ``line_loading`` (n_line,), ``trafo_loading`` (n_trafo,) in percent, and the
    import of each part at its PCC, ``p_pcc_mw`` and ``q_pcc_mvar`` (n_part,): all float64.
    """

    converged: bool
    vm_pu: Array
    va_degree: Array
    line_loading: Array
    trafo_loading: Array
    p_pcc_mw: Array
    q_pcc_mvar: Array
    backend: str


class PowerFlow(ABC):
    """Solves one joint net again and again. Divergence is a result, never an exception; the next solve recovers."""

    def __init__(self, network: CoupledNetwork) -> None:
        self.network = network
        self._device_p = np.zeros(network.n_devices)
        self._device_q = np.zeros(network.n_devices)
        self._load_p = network.load_p_mw.copy()
        self._load_q = network.load_q_mvar.copy()

    def reset(self) -> None:  # noqa: B027 - a cold backend has nothing to forget
        """Begin an episode: forget what the last solutions left behind."""

    def set_injections(self, device_p_mw: Array, device_q_mvar: Array, load_scale: Array) -> None:
        """What the next solve starts from: (n_devices,) injections, and (n_part,) the scale of each part's loads."""
        scale = load_scale[self.network.load_part]
        self._device_p, self._device_q = device_p_mw, device_q_mvar
        self._load_p = self.network.load_p_mw * scale
        self._load_q = self.network.load_q_mvar * scale

    @abstractmethod
    def solve(self) -> Solution:
        """Solve for the injections set last."""

    @abstractmethod
    def to_pandapower(self) -> Any:
        """A pandapower net with the injections and results of the last solve, for analysis."""

    def _diverged(self, backend: str) -> Solution:
        net, parts = self.network.net, len(self.network.parts)
        shapes = (len(net["bus"]), len(net["bus"]), len(net["line"]), len(net["trafo"]))
        vm, va, line, trafo = (np.full(n, np.nan) for n in shapes)
        return Solution(False, vm, va, line, trafo, np.zeros(parts), np.zeros(parts), backend)
