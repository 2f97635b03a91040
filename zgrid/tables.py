"""Tables: how the messages of many agents stand in the rows of one array, and how they come out of it again.

    action    its values
    state     p_mw, q_mvar, cost, violation, then the state
    network   converged, p_pcc_mw, q_pcc_mvar, p_forming_mw, p_unserved_mw, then measured, local, series and clock
    report    the reward, then the terms and the observation

A table says by itself whom it concerns and how long the parts are, so that a bystander can read it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zgrid.messages import ENV, Action, Body, Columns, DeviceState, Item, NetworkState, Report, Steps, Table, channel

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


def fault(kind: Any, agents: Any, sizes: Any, values: Any) -> str:
    """What is wrong with a table off the wire; empty where nothing is.

    Numbers are finite, but what is measured may be NaN; a flag is 0 or 1, and an observation within float32.
    """
    layout = LAYOUTS.get(kind) if type(kind) is str else None
    if layout is None or type(agents) is not str or not all(agents.split(" ")) or type(sizes) is not tuple:
        return "a field of a table"
    if len(sizes) != layout.parts or not all(type(size) is int and size >= 0 for size in sizes):
        return "sizes of a table"
    if type(values) is not np.ndarray or values.dtype.char != "d":
        return "values of a table"
    return _fault_of_values(kind, agents, sizes, values)


def _fault_of_values(kind: str, agents: str, sizes: Steps, values: Array) -> str:
    n, columns = count(agents), width(kind, sizes)
    if values.size != n * columns:
        return "length of a table"
    if kind == "network":
        return _fault_of_networks(values.reshape(n, columns), sizes)
    if not np.logical_and.reduce(np.isfinite(values)):
        return "a number of a table"
    if kind == "report" and not np.abs(values).max(initial=0.0) <= _FLOAT32_MAX:
        return _fault_of_reports(values.reshape(n, columns), sizes)
    return ""


def _fault_of_networks(values: Array, sizes: Steps) -> str:
    if sum(sizes[:3]) > sizes[3]:
        return "sizes of a table"
    if not {0.0, 1.0}.issuperset(values[:, 0].tolist()):
        return "a flag of a table"
    if np.logical_and.reduce(np.isfinite(values.reshape(-1))):
        return ""
    end = 5 + sizes[3]
    good = not np.isinf(values).any() and np.isfinite(values[:, :5]).all() and np.isfinite(values[:, end:]).all()
    return "" if good else "a number of a table"


def _fault_of_reports(values: Array, sizes: Steps) -> str:
    return "" if np.abs(values[:, 1 + sizes[0] :]).max(initial=0.0) <= _FLOAT32_MAX else "a number of a table"
