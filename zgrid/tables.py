"""Tables: how the messages of many agents stand in the rows of one array, and how they come out of it again.

    action    its values
    state     p_mw, q_mvar, cost, violation, then the state
    network   converged, p_pcc_mw, q_pcc_mvar, p_forming_mw, p_unserved_mw, then measured, local, series and clock
    report    the reward, then the terms and the observation

A table says by itself whom it concerns and how long the parts are, so that a bystander can read it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zgrid.messages import (
    ENV,
    Action,
    Body,
    Columns,
    DeviceState,
    Item,
    NetworkState,
    Report,
    Steps,
    Table,
    channel,
    make,
)

Array: TypeAlias = NDArray[np.float64]

Shape: TypeAlias = tuple[str, str, Steps]
"""A table without its values: kind, agents, sizes."""


class _Layout(NamedTuple):
    """How many numbers of a row are always there, how many parts follow, and how a row becomes a body."""

    fixed: int
    parts: int
    body: Callable[[Array, Steps], Body]


def shape_of(table: Table) -> Shape:
    """What a table says beside its values."""
    return table.kind, table.agents, table.sizes


def width(kind: str, sizes: Steps) -> int:
    """Numbers in a row. The first three sizes of a network are of what is measured, the fourth of all that."""
    return LAYOUTS[kind].fixed + sum(sizes[3:] if kind == "network" else sizes)


def count(agents: str) -> int:
    """How many agents a table has."""
    return agents.count(" ") + 1


def rows(table: Table) -> Array:
    """The values of a table, (n_agents, width) float64."""
    return table.values.reshape(count(table.agents), -1)


def table(kind: str, agents: str, sizes: Steps, values: Array) -> Table:
    """A table of rows (n_agents, width) float64."""
    return Table(kind, agents, sizes, values.reshape(-1))


def items(columns: Columns, step: int) -> Iterator[Item]:
    """The same as single messages, in the order of the rows. None is of a successor: those speak for themselves."""
    for one in columns.tables:
        body = LAYOUTS[one.kind].body
        from_env = one.kind in ("action", "network")
        for agent, row in zip(one.agents.split(" "), rows(one), strict=True):
            sender = ENV if from_env else agent
            yield Item(channel(one.kind, agent), one.kind, sender, 0, step, 0, body(row, one.sizes))


def network_sizes(network: NetworkState) -> Steps:
    """How long the parts of a network's row are."""
    lists = (network.measured, network.local, network.series, network.clock)
    return (*network.sizes, *(len(one) for one in lists))


def network_row(network: NetworkState) -> list[float]:
    """A network as the numbers of its row."""
    converged, _, measured, *flows, local, series, clock = network
    return [float(converged), *flows, *measured.tolist(), *local, *series, *clock]


def state_columns(values: Array) -> DeviceState:
    """Rows of states, (n, 4 + n_state), as one whose numbers are arrays (n,)."""
    p_mw, q_mvar, cost, violation, *state = values.T
    return DeviceState(p_mw, q_mvar, cost, violation, tuple(state))


def network_columns(values: Array, sizes: Steps) -> Any:
    """Rows of networks as one NetworkState whose numbers are arrays (n,), and ``measured`` (n, n_measured)."""
    n_bus, n_line, n_trafo, *parts = sizes
    measured, local, series, clock = _parts(values, 5, parts)
    converged, *flows = values[:, :5].T
    lists = (tuple(part.T) for part in (local, series, clock))
    return NetworkState._make((converged == 1.0, (n_bus, n_line, n_trafo), measured, *flows, *lists))


def _parts(values: Array, begin: int, sizes: Sequence[int]) -> list[Array]:
    """The parts of rows, or of one row, after the first numbers."""
    found = []
    for size in sizes:
        found.append(values[..., begin : begin + size])
        begin += size
    return found


def _action(row: Array, sizes: Steps) -> Action:
    return Action(tuple(row.tolist()))


def _state(row: Array, sizes: Steps) -> DeviceState:
    p_mw, q_mvar, cost, violation, *state = row.tolist()
    return DeviceState(p_mw, q_mvar, cost, violation, tuple(state))


def _network(row: Array, sizes: Steps) -> NetworkState:
    n_bus, n_line, n_trafo, *parts = sizes
    measured, *rest = _parts(row, 5, parts)
    local, series, clock = (tuple(part.tolist()) for part in rest)
    converged, p_pcc, q_pcc, forming, unserved = row[:5].tolist()
    counted = (n_bus, n_line, n_trafo)
    return NetworkState(
        converged == 1.0, counted, measured.copy(), p_pcc, q_pcc, forming, unserved, local, series, clock
    )


def _report(row: Array, sizes: Steps) -> Report:
    terms, observation = _parts(row, 1, sizes)
    seen = observation.astype(np.float32)
    seen.flags.writeable = False
    return Report(float(row[0]), tuple(terms.tolist()), seen)


LAYOUTS = {
    "action": _Layout(0, 1, _action),
    "state": _Layout(4, 1, _state),
    "network": _Layout(5, 7, _network),
    "report": _Layout(1, 2, _report),
}
"""By the kind of a table."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def taken(kind: Any, agents: Any, sizes: Any, values: Any) -> Table:
    """A table off the wire, with every field checked.

    Numbers are finite, but what is measured may be NaN; a flag is 0 or 1, and an observation within float32.

    Raises:
        ValueError: what is wrong with it.
    """
    if not type(kind) is type(agents) is str or type(sizes) is not tuple or not {int}.issuperset(map(type, sizes)):
        raise ValueError("a field of a table")
    shape, n, columns = (_extent if len(agents) < _LONG else _extent.__wrapped__)(kind, agents, sizes)
    if type(values) is not np.ndarray or values.dtype.char != "d":
        raise ValueError("values of a table")
    if values.size != n * columns:
        raise ValueError("length of a table")
    if not _HOLDS[kind](values, n, shape[2]):
        raise ValueError("a number of a table")
    return make(Table, (*shape, values))


_LONG = 1 << 16


@lru_cache(maxsize=64)
def _extent(kind: str, agents: str, sizes: Steps) -> tuple[Shape, int, int]:
    """The shape of a table, its rows and its columns. In a run the same few come in every step.

    Raises:
        ValueError: there is no such table.
    """
    layout = LAYOUTS.get(kind)
    if layout is None or not all(agents.split(" ")):
        raise ValueError("a field of a table")
    if len(sizes) != layout.parts or min(sizes) < 0 or (kind == "network" and sum(sizes[:3]) > sizes[3]):
        raise ValueError("sizes of a table")
    return (kind, agents, sizes), count(agents), width(kind, sizes)


def _are_finite(values: Array, n: int, sizes: Steps) -> bool:
    return bool(np.logical_and.reduce(np.isfinite(values)))


def _are_networks(values: Array, n: int, sizes: Steps) -> bool:
    by_row = values.reshape(n, -1)
    if not {0.0, 1.0}.issuperset(by_row[:, 0].tolist()):
        return False
    if _are_finite(values, n, sizes):
        return True
    end = 5 + sizes[3]
    return not np.isinf(values).any() and bool(np.isfinite(by_row[:, :5]).all() and np.isfinite(by_row[:, end:]).all())


def _are_reports(values: Array, n: int, sizes: Steps) -> bool:
    if values.min(initial=0.0) >= -_FLOAT32_MAX and values.max(initial=0.0) <= _FLOAT32_MAX:  # so none is NaN
        return True
    seen = values.reshape(n, -1)[:, 1 + sizes[0] :]
    return _are_finite(values, n, sizes) and bool(np.abs(seen).max(initial=0.0) <= _FLOAT32_MAX)


_HOLDS = {"action": _are_finite, "state": _are_finite, "network": _are_networks, "report": _are_reports}
"""By the kind of a table: whether its values (n * width,) may be."""
