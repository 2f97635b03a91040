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
from zgrid.powerflow.plant import Plant

if TYPE_CHECKING:
    from zgrid.networks.coupled import CoupledNetwork


def run_cold(net: Any) -> bool:
    """Newton-Raphson from the angles of a DC power flow (a flat start fails behind transformers that shift the phase);
    whether it converged. lightsim2grid and numba are off, so that results do not depend on what is installed.
    """
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", MatrixRankWarning)
            pp.runpp(
                net, algorithm="nr", init="dc", calculate_voltage_angles=True, lightsim2grid=False, numba=False
            )  # fmt: skip
    except LoadflowNotConverged:
        return False
    return True


class RunppPowerFlow(PowerFlow):
    """pandapower's ``runpp``, cold each time."""

    def __init__(self, network: CoupledNetwork) -> None:
        super().__init__(network)
        self._plant = Plant(network)

    def solve(self) -> Solution:
        plant = self._plant
        plant.write_topology(self._positions)
        plant.write_injections(self._device_p, self._device_q, self._scale)
        return self._nothing("runpp", converged=True) if not plant.has_source else self._run()

    def _run(self) -> Solution:
        if not run_cold(self._plant.net):
            return self._nothing("runpp", converged=False)
        return read_solution(self._plant)

    def to_pandapower(self) -> Any:
        return copy.deepcopy(self._plant.net)


def read_solution(plant: Plant) -> Solution:
    """The solution that the last ``runpp`` of a plant left in its net."""
    net = plant.net
    p_pcc, q_pcc = _import_at_pcc(plant)
    return Solution(
        True,
        net.res_bus["vm_pu"].to_numpy(dtype=np.float64).copy(),
        net.res_bus["va_degree"].to_numpy(dtype=np.float64).copy(),
        net.res_line["loading_percent"].to_numpy(dtype=np.float64).copy(),
        net.res_trafo["loading_percent"].to_numpy(dtype=np.float64).copy(),
        p_pcc,
        q_pcc,
        _given_by_formers(plant),
        int(net["_ppc"]["iterations"]),
        "runpp",
    )


def _import_at_pcc(plant: Plant) -> tuple[Array, Array]:
    """What flows into each part at its PCC: its branches there, plus its loads, less its generation there."""
    net, network = plant.net, plant.network
    flows = {table: net["res_" + table] for table in ("line", "trafo")}
    areas = [network.areas[part] for part in network.parts]
    p, q = np.zeros(len(areas)), np.zeros(len(areas))
    for k, area in enumerate(areas):
        for table, row, end in area.pcc_branches:
            p[k] += np.nan_to_num(flows[table][f"p_{end}_mw"].to_numpy()[row])
            q[k] += np.nan_to_num(flows[table][f"q_{end}_mvar"].to_numpy()[row])
        for sign, table, rows in ((1.0, "load", area.pcc_loads), (-1.0, "sgen", area.pcc_sgens)):
            p[k] += sign * np.nan_to_num(net["res_" + table]["p_mw"].to_numpy()[rows]).sum()
            q[k] += sign * np.nan_to_num(net["res_" + table]["q_mvar"].to_numpy()[rows]).sum()
    return p, q


def _given_by_formers(plant: Plant) -> Array:
    given = np.zeros(len(plant.network.parts))
    for part, row in plant.network.formers:
        given[part] = np.nan_to_num(plant.net.res_ext_grid["p_mw"].to_numpy()[row])
    return given
