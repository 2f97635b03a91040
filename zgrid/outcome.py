"""Outcome: what one step came to, agent by agent or as tables, and what of it the env tells a trainer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zgrid.messages import Columns, DeviceState, Report, Table
from zgrid.tables import items, rows

Names = tuple[str, ...]


class Outcome:
    """The devices' states and the grids' reports, in the order of the topology."""

    def __init__(self, states: Sequence[DeviceState], reports: Sequence[Report]) -> None:
        self.states: Sequence[DeviceState] = states
        self.reports: Sequence[Report] = reports

    def rewards(self) -> list[float]:
        """Of each grid, in $."""
        return [report.reward for report in self.reports]

    def observations(self, sizes: Sequence[int]) -> list[NDArray[np.float32]]:
        """Of each grid, (size,) float32, filled up with zeros; writeable."""
        return [_pad(report.observation, size) for report, size in zip(self.reports, sizes, strict=True)]

    def infos(self, names: Sequence[Names]) -> list[dict[str, Any]]:
        """The terms of each grid, and then its reward, by these names."""
        pairs = zip(self.reports, names, strict=True)
        return [dict(zip(mine, (*report.terms, report.reward), strict=True)) for report, mine in pairs]


class ColumnOutcome(Outcome):
    """The same from tables; what is asked for seldom is made when it is asked for."""

    def __init__(self, order: Order, states: Sequence[Table], reports: Sequence[Table]) -> None:
        self._order, self._state_tables = order, states
        self._tables = [(one.sizes, rows(one)) for one in reports]
        self._report_tables = reports

    @cached_property
    def states(self) -> list[DeviceState]:  # type: ignore[override]
        return self._order.devices_of(bodies(self._state_tables))

    @cached_property
    def reports(self) -> list[Report]:  # type: ignore[override]
        return self._order.grids_of(bodies(self._report_tables))

    def rewards(self) -> list[float]:
        return self._order.grids_of([reward for _, values in self._tables for reward in values[:, 0].tolist()])

    def observations(self, sizes: Sequence[int]) -> list[NDArray[np.float32]]:
        size = max(sizes)
        seen: list[NDArray[np.float32]] = []
        for (n_terms, n_seen), values in self._tables:
            padded = size if min(sizes) == size else n_seen
            copy = np.zeros((len(values), padded), dtype=np.float32)
            copy[:, :n_seen] = values[:, 1 + n_terms :]
            seen += [row.copy() for row in copy]  # a row of its own keeps no others alive
        return self._order.grids_of(seen)

    def infos(self, names: Sequence[Names]) -> list[dict[str, Any]]:
        told: list[list[float]] = []
        for (n_terms, _), values in self._tables:
            told += values[:, [*range(1, 1 + n_terms), 0]].tolist()
        return list(map(dict, map(zip, names, self._order.grids_of(told))))


class Order:
    """How what comes table by table is put into the order of the topology."""

    def __init__(
        self, grids: Sequence[str], devices: Sequence[str], of_grids: Sequence[str], of_devices: Sequence[str]
    ):
        """The ids in the order of the topology, and in that of the rows of all tables."""
        self._grids = _places(grids, of_grids)
        self._devices = _places(devices, of_devices)

    def grids_of(self, values: Sequence[Any]) -> list[Any]:
        """What the rows of grids have, in the order of the grids."""
        return list(values) if self._grids is None else [values[place] for place in self._grids]

    def devices_of(self, values: Sequence[Any]) -> list[Any]:
        """What the rows of devices have, in the order of the devices."""
        return list(values) if self._devices is None else [values[place] for place in self._devices]


def _places(wanted: Sequence[str], found: Sequence[str]) -> list[int] | None:
    """Where each stands; None if all stand where they shall."""
    where = {name: place for place, name in enumerate(found)}
    places = [where[name] for name in wanted]
    return None if places == list(range(len(places))) else places


def bodies(tables: Sequence[Table]) -> list[Any]:
    """What the rows of tables say, one by one."""
    return [item.body for item in items(Columns(tuple(tables)), 0)]


def _pad(observation: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    if len(observation) == size:
        return observation.copy()
    padded = np.zeros(size, dtype=np.float32)
    padded[: len(observation)] = observation
    return padded
