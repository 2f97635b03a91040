"""Power flow by pandapower's own ``runpp``, cold each time: the reference."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandapower as pp
from pandapower.powerflow import LoadflowNotConverged
from scipy.sparse.linalg import MatrixRankWarning

from zgrid.powerflow.base import Array, PowerFlow, Solution

if TYPE_CHECKING:
    from zgrid.networks.couple import CoupledNetwork


class RunppPowerFlow(PowerFlow):
    """Newton-Raphson from a flat start. lightsim2grid and numba are off, so that results do not depend on what is
    installed.
    """

    def __init__(self, network: CoupledNetwork) -> None:
        super().__init__(network)
        self._net = copy.deepcopy(network.net)
        self._other_p = self._net.sgen["p_mw"].to_numpy(dtype=np.float64)[: network.first_device].copy()
        self._other_q = self._net.sgen["q_mvar"].to_numpy(dtype=np.float64)[: network.first_device].copy()

    def solve(self) -> Solution:
        self._write_injections()
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore", MatrixRankWarning)
                pp.runpp(
                    self._net,
                    algorithm="nr",
                    init="flat",
                    calculate_voltage_angles=True,
                    lightsim2grid=False,
                    numba=False,
                )
        except LoadflowNotConverged:
            return self._diverged("runpp")
        return self._solution()

    def to_pandapower(self) -> Any:
        return copy.deepcopy(self._net)

    def _write_injections(self) -> None:
        net = self._net
        net.sgen["p_mw"] = self._sgen_p = np.concatenate((self._other_p, self._device_p))
        net.sgen["q_mvar"] = self._sgen_q = np.concatenate((self._other_q, self._device_q))
        net.load["p_mw"] = self._load_p
        net.load["q_mvar"] = self._load_q

    def _solution(self) -> Solution:
        net = self._net
        p_pcc, q_pcc = self._import_at_pcc()
        return Solution(
            True,
            net.res_bus["vm_pu"].to_numpy(dtype=np.float64).copy(),
            net.res_bus["va_degree"].to_numpy(dtype=np.float64).copy(),
            net.res_line["loading_percent"].to_numpy(dtype=np.float64).copy(),
            net.res_trafo["loading_percent"].to_numpy(dtype=np.float64).copy(),
            p_pcc,
            q_pcc,
            "runpp",
        )

    def _import_at_pcc(self) -> tuple[Array, Array]:
        """What flows into each part at its PCC: its branches there, plus its loads, less its generation there."""
        flows = {table: self._net["res_" + table] for table in ("line", "trafo")}
        areas = [self.network.areas[part] for part in self.network.parts]
        p, q = np.zeros(len(areas)), np.zeros(len(areas))
        for k, area in enumerate(areas):
            for table, row, end in area.pcc_branches:
                p[k] += flows[table][f"p_{end}_mw"].to_numpy()[row]
                q[k] += flows[table][f"q_{end}_mvar"].to_numpy()[row]
            p[k] += self._load_p[area.pcc_loads].sum() - self._sgen_p[area.pcc_sgens].sum()
            q[k] += self._load_q[area.pcc_loads].sum() - self._sgen_q[area.pcc_sgens].sum()
        return np.nan_to_num(p), np.nan_to_num(q)
