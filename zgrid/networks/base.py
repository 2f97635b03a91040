"""What a network is: names that can be read cheaply, and a pandapower net that is built once."""

from __future__ import annotations

import copy
import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zgrid.errors import NetworkError, UnknownNameError
from zgrid.networks.feeder import radial_feeder
from zgrid.networks.tables import Names, NetworkTables, TapRange
from zgrid.registry import resolve


class Network(ABC):
    """An electrical network with one source, which becomes the PCC of a grid that hangs on a feeder."""

    _built: Any = None

    @property
    def identity(self) -> object:
        """Networks with an equal one build equal nets, so that one build serves them all."""
        return self

    @abstractmethod
    def names(self) -> Names:
        """Names of the elements.

        Raises:
            NetworkError: the network cannot be read.
        """

    def build(self) -> Any:
        """A new pandapower net; it is made once and then copied, which is over ten times as fast.

        Raises:
            NetworkError: the network cannot be built.
        """
        if self._built is None:
            self._built = self._make_net()
        return copy.deepcopy(self._built)

    @abstractmethod
    def _make_net(self) -> Any:
        """The pandapower net."""


class TableNetwork(Network):
    """A network that ships as tables; its names need no pandapower."""

    def __init__(self, tables: NetworkTables) -> None:
        self.tables = tables

    @property
    def identity(self) -> object:
        return self.tables

    def names(self) -> Names:
        tables = self.tables
        return Names(
            tables.source_bus,
            tuple(bus.name for bus in tables.buses),
            tuple(line.name for line in tables.lines),
            tuple(trafo.name for trafo in tables.trafos),
            {trafo.name: TapRange(trafo.tap.low, trafo.tap.high) for trafo in tables.trafos if trafo.tap is not None},
            tuple(bus.vn_kv for bus in tables.buses),
            tuple(switch.name for switch in tables.switches),
            tuple(shunt.name for shunt in tables.shunts),
        )

    def _make_net(self) -> Any:
        from zgrid.networks.build import build_tables

        return build_tables(self.tables)


class PandapowerNetwork(Network):
    """Any pandapower net, from a function or a file; reading its names builds it, once."""

    def __init__(self, source: str, make: Callable[[], Any]) -> None:
        self._source, self._make = source, make
        self._names: Names | None = None

    @property
    def identity(self) -> object:
        return self._source, self._make

    def names(self) -> Names:
        from zgrid.networks.build import read_names

        if self._names is None:
            self._names = read_names(self._source, self.build())
        return self._names

    def _make_net(self) -> Any:
        try:
            net = self._make()
        except NetworkError:
            raise
        except Exception as error:  # a plug-in is a user's code
            raise NetworkError(f"network {self._source!r}: building it failed: {error!r}") from error
        if type(net).__name__ != "pandapowerNet":
            raise NetworkError(f"network {self._source!r}: expected a pandapower net, got {type(net).__name__}")
        return net


NETWORKS = {
    "case33bw": "zgrid.networks.published:case33bw",
    "cigre_lv": "zgrid.networks.published:cigre_lv",
    "cigre_mv": "zgrid.networks.published:cigre_mv",
    "ieee123": "zgrid.networks.ieee123:IEEE123",
    "ieee13": "zgrid.networks.ieee13:IEEE13",
    "ieee34": "zgrid.networks.ieee34:IEEE34",
}


_FEEDER = re.compile(r"feeder_([1-9]\d{0,2}|1000)")


def find_network(kind: str) -> Network:
    """The network of a kind: a built-in name, ``module:function`` that returns a pandapower net, or a JSON file of one.

    ``feeder_<n>`` is a synthetic feeder with n connection buses, 1 to 1000 (feeder.py).

    Raises:
        UnknownNameError: none of these.
        NetworkError: the file does not exist.
    """
    if kind.endswith(".json"):
        path = Path(kind)
        if not path.is_file():
            raise NetworkError(f"network {kind!r}: no such file")
        return PandapowerNetwork(kind, lambda: _read_json(path))
    return _built_in(kind) if kind in NETWORKS or _FEEDER.fullmatch(kind) else _resolved(kind)


@functools.cache
def _built_in(kind: str) -> Network:
    """A network that ships, read once."""
    if feeder := _FEEDER.fullmatch(kind):
        return TableNetwork(radial_feeder(int(feeder[1])))
    return _resolved(kind)


def _resolved(kind: str) -> Network:
    found = resolve("network", kind, NETWORKS)
    if isinstance(found, NetworkTables):
        return TableNetwork(found)
    if not callable(found):
        raise UnknownNameError(f"network {kind!r}: expected a function that returns a pandapower net")
    return PandapowerNetwork(kind, found)


def _read_json(path: Path) -> Any:
    from zgrid.networks.build import read_json

    return read_json(path)
