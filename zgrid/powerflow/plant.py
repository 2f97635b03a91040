"""Plant: a pandapower net on which topologies and injections are written."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pandapower.topology

from zgrid.errors import NetworkError
from zgrid.powerflow.base import Array

if TYPE_CHECKING:
    from zgrid.networks.coupled import CoupledNetwork


class Plant:
    """A copy of the joint pandapower net, on which topologies and injections are written and solved."""

    def __init__(self, network: CoupledNetwork) -> None:
        self.network = network
        self.net = copy.deepcopy(network.net)
        self._written: tuple[float, ...] | None = None
        first = network.first_device
        self._other_p = self.net.sgen["p_mw"].to_numpy(dtype=np.float64)[:first].copy()
        self._other_q = self.net.sgen["q_mvar"].to_numpy(dtype=np.float64)[:first].copy()

    def write_topology(self, positions: tuple[float, ...]) -> None:
        """Set every actuator, and put the slacks of those parts into service that have no other source.

        Raises:
            NetworkError: as many positions as actuators are expected.
        """
        if positions == self._written:
            return
        if len(positions) != len(self.network.actuators):
            raise NetworkError(f"expected {len(self.network.actuators)} positions, got {len(positions)}")
        for actuator, position in zip(self.network.actuators, positions, strict=True):
            column = self.net[actuator.table][actuator.column].to_numpy().copy()
            column[actuator.row] = position
            self.net[actuator.table][actuator.column] = column
        self._place_formers()
        self._written = positions

    @property
    def has_source(self) -> bool:
        """Whether anything holds a voltage; ``runpp`` refuses a network where nothing does."""
        net = self.net
        slack_gens = len(net.gen) and (net.gen["slack"].to_numpy(bool) & net.gen["in_service"].to_numpy(bool)).any()
        return bool(net.ext_grid["in_service"].to_numpy(bool).any() or slack_gens)

    def write_injections(self, device_p_mw: Array, device_q_mvar: Array, load_scale: Array) -> None:
        """Set the injections of the devices and the loads."""
        net, network = self.net, self.network
        scale = load_scale[network.load_part]
        net.sgen["p_mw"] = np.concatenate((self._other_p, device_p_mw))
        net.sgen["q_mvar"] = np.concatenate((self._other_q, device_q_mvar))
        net.load["p_mw"] = network.load_p_mw * scale
        net.load["q_mvar"] = network.load_q_mvar * scale

    def _place_formers(self) -> None:
        """One slack per island that would be dead otherwise, in the order of the parts."""
        formers = self.network.formers
        if not formers:
            return
        in_service = self.net.ext_grid["in_service"].to_numpy(dtype=bool).copy()
        in_service[[former.row for former in formers]] = False
        self.net.ext_grid["in_service"] = in_service
        for former in formers:
            dead = pandapower.topology.unsupplied_buses(self.net)
            if self.net.ext_grid["bus"].iloc[former.row] in dead:
                in_service = in_service.copy()
                in_service[former.row] = True
                self.net.ext_grid["in_service"] = in_service
