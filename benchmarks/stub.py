"""Power flows for benchmarks: one that solves nothing, to measure everything else, and ``fast`` without numba."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from zgrid.networks.coupled import CoupledNetwork
from zgrid.powerflow import PowerFlow, Solution
from zgrid.powerflow.fast import FastPowerFlow

STUB = {"power_flow.kind": "benchmarks.stub:FlatPowerFlow"}


class FlatPowerFlow(PowerFlow):
    """The same flat solution each time: 1 pu, no load."""

    def __init__(self, network: CoupledNetwork) -> None:
        super().__init__(network)
        net, parts = network.net, len(network.parts)
        self._solution = Solution(
            True,
            np.ones(len(net["bus"])),
            np.zeros(len(net["bus"])),
            np.full(len(net["line"]), 10.0),
            np.full(len(net["trafo"]), 10.0),
            np.zeros(parts),
            np.zeros(parts),
            np.zeros(parts),
            0,
            "flat",
        )

    def solve(self) -> Solution:
        return self._solution

    def to_pandapower(self) -> Any:
        return copy.deepcopy(self.network.net)


class NumpyPowerFlow(FastPowerFlow):
    """The power flow ``fast`` as it is without numba."""

    def __init__(self, network: CoupledNetwork) -> None:
        super().__init__(network, use_numba=False)
