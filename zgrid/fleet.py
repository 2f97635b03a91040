"""Fleet: all devices of a topology, many copies of each, stepped kind by kind on arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zgrid.agents import DeviceSpec
from zgrid.devices import Device, device_class
from zgrid.messages import DeviceState

Array = NDArray[np.float64]


class _Kind(NamedTuple):
    """The devices of one kind: rows of ``device``, and where each stands in the order of the topology.

    ``controls`` has, per setpoint entry, the column of the action of each device, -1 where it stays ``neutral``;
    ``series`` per time series the column of each device, and ``measures`` whether the local voltage follows them.
    """

    device: Device
    places: NDArray[np.intp]
    controls: tuple[NDArray[np.intp], ...]
    neutral: tuple[float, ...]
    series: tuple[NDArray[np.intp], ...]
    measures: bool


class Fleet:
    """``n`` copies of every device. Arrays are (n, n_devices) in the topology's order, states kind by kind."""

    def __init__(self, specs: Sequence[DeviceSpec], n: int, dt_h: float) -> None:
        self.n = n
        self._count = len(specs)
        self._setpoints = _Scale([control for spec in specs for control in spec.controls])
        self._kinds = _kinds(specs, dt_h)
        self.n_series = sum(len(device_class(spec.config.kind).SERIES) for spec in specs)
        self.reset(np.ones(n, dtype=bool))

    def reset(self, which: NDArray[np.bool_]) -> None:
        """Put these copies, (n,) bool, where they begin: initial states, injecting nothing."""
        if which.all():
            self._states = [self._initial(kind) for kind in self._kinds]
            self.p_mw, self.q_mvar, self.cost, self.violation = (np.zeros((self.n, self._count)) for _ in range(4))
            return
        for kind, state in zip(self._kinds, self._states, strict=True):
            for now, begun in zip(state, self._initial(kind), strict=True):
                now[which] = begun[which]
        for array in (self.p_mw, self.q_mvar, self.cost, self.violation):
            array[which] = 0.0

    def step(self, actions: Array, series: Array, local: Array) -> None:
        """Apply actions (n, n_controls) in [-1, 1], with the time series (n, n_series) and the voltage at each device,
        (n, n_devices)."""
        values = self._setpoints(actions)
        for index, kind in enumerate(self._kinds):
            shape = (self.n, len(kind.places))
            setpoint = tuple(
                np.where(columns >= 0, values[:, columns], neutral) if (columns >= 0).any() else np.full(shape, neutral)
                for columns, neutral in zip(kind.controls, kind.neutral, strict=True)
            )
            given = tuple(series[:, columns] for columns in kind.series)
            if kind.measures:
                given = (*given, local[:, kind.places])
            state, effect = kind.device.step(self._states[index], setpoint, given)
            self._states[index] = tuple(np.broadcast_to(one, shape).copy() for one in state)
            for array, value in zip((self.p_mw, self.q_mvar, self.cost, self.violation), effect, strict=True):
                array[:, kind.places] = value

    def states(self) -> list[Any]:
        """What every device did, as a DeviceState whose numbers are arrays (n,), in the topology's order."""
        entries: list[tuple[Array, ...]] = [()] * self._count
        for kind, state in zip(self._kinds, self._states, strict=True):
            for row, place in enumerate(kind.places):
                entries[place] = tuple(entry[:, row] for entry in state)
        columns = (self.p_mw.T, self.q_mvar.T, self.cost.T, self.violation.T, entries)
        return [DeviceState._make(values) for values in zip(*columns, strict=True)]

    def _initial(self, kind: _Kind) -> tuple[Array, ...]:
        shape = (self.n, len(kind.places))
        return tuple(np.broadcast_to(entry, shape).copy() for entry in kind.device.initial())


class Line:
    """One copy of every device; what they did comes as rows, new arrays each time."""

    def __init__(self, specs: Sequence[DeviceSpec], dt_h: float) -> None:
        self._setpoints = _Scale([control for spec in specs for control in spec.controls])
        self._kinds = _kinds(specs, dt_h)
        self._controls = [
            tuple(_control(columns, value) for columns, value in zip(kind.controls, kind.neutral, strict=True))
            for kind in self._kinds
        ]
        self._series = [tuple(map(selected, kind.series)) for kind in self._kinds]
        self._local = [selected(kind.places) for kind in self._kinds]
        self._states: list[tuple[Array, ...]] = [()] * len(self._kinds)

    @property
    def places(self) -> list[NDArray[np.intp]]:
        """Where the devices of each kind stand in the order of the topology."""
        return [kind.places for kind in self._kinds]

    def put(self, states: Sequence[Array]) -> None:
        """Let the devices go on from these states, kind by kind: (n_devices of the kind, n_state)."""
        self._states = [tuple(entry.copy() for entry in state.T) for state in states]

    def step(self, actions: Array, series: Array, local: Array) -> list[Array]:
        """Apply actions (n_controls,) in [-1, 1], with the time series (n_series,) and the voltage at each device,
        (n_devices,); what was done, kind by kind: (n_devices of the kind, 4 + n_state) of p_mw, q_mvar, cost, violation
        and the state.
        """
        values, rows = self._setpoints(actions), []
        for index, kind in enumerate(self._kinds):
            setpoint = tuple(control(values) for control in self._controls[index])
            given = tuple(series[columns] for columns in self._series[index])
            if kind.measures:
                given = (*given, local[self._local[index]])
            state, effect = kind.device.step(self._states[index], setpoint, given)
            done = np.empty((4 + len(state), len(kind.places)))
            for row, value in enumerate((*effect, *state)):
                done[row] = value
            self._states[index] = tuple(done[4:])
            rows.append(done.T)
        return rows


def _control(columns: NDArray[np.intp], neutral: float) -> Callable[[Array], Array]:
    """One entry of the setpoints of a kind, (n_devices,), from those of all controls."""
    given = columns >= 0
    unmoved = np.full(len(columns), neutral)
    if not given.any():
        return lambda _: unmoved
    where = selected(columns)
    if given.all():
        return lambda values: values[where]
    return lambda values: np.where(given, values[columns], neutral)


def selected(places: NDArray[np.intp]) -> Any:
    """Places as a slice where they follow each other at one distance: that costs no copy."""
    distance = int(places[1] - places[0]) if len(places) > 1 else 1
    if distance > 0 and (np.diff(places) == distance).all() and places[0] >= 0:
        return slice(int(places[0]), int(places[-1]) + 1, distance)
    return places


class _Scale:
    """The setpoint entry of every control from its action: what ``Control.scale`` gives, to the bit."""

    def __init__(self, controls: Sequence[Any]) -> None:
        self._low, high = (np.array([getattr(one, name) for one in controls]) for name in ("low", "high"))
        self._span = high - self._low
        self._levels = np.array([control.levels for control in controls], dtype=np.float64)
        self._stepped = bool(self._levels.any())

    def __call__(self, actions: Array) -> Array:
        low, span, levels = self._low, self._span, self._levels
        clipped = np.minimum(np.maximum(actions, -1.0), 1.0)
        smooth = low + (clipped + 1.0) * 0.5 * span
        if not self._stepped:
            return np.asarray(smooth)
        level = np.minimum(np.floor((clipped + 1.0) * 0.5 * levels), levels - 1.0)
        return np.asarray(np.where(levels > 0.0, low + level * span / np.maximum(levels - 1.0, 1.0), smooth))


def _kinds(specs: Sequence[DeviceSpec], dt_h: float) -> list[_Kind]:
    by_kind: dict[type[Device], list[int]] = {}
    for k, spec in enumerate(specs):
        by_kind.setdefault(device_class(spec.config.kind), []).append(k)
    first_control = np.cumsum([0, *(len(spec.controls) for spec in specs)])
    first_series = np.cumsum([0, *(len(device_class(spec.config.kind).SERIES) for spec in specs)])
    return [
        _kind(kind, [specs[k] for k in places], np.array(places), first_control, first_series, dt_h)
        for kind, places in by_kind.items()
    ]


def _kind(
    kind: type[Device], specs: Sequence[DeviceSpec], places: NDArray[np.intp], first_control: NDArray[np.intp],
    first_series: NDArray[np.intp], dt_h: float,
) -> _Kind:  # fmt: skip
    controls = np.full((len(kind.SETPOINT), len(specs)), -1, dtype=np.intp)
    for row, (spec, place) in enumerate(zip(specs, places, strict=True)):
        for k, control in enumerate(spec.controls):
            controls[kind.SETPOINT.index(control.name), row] = first_control[place] + k
    device = kind.many([spec.config for spec in specs], dt_h)
    series = tuple(first_series[places] + k for k in range(len(kind.SERIES)))
    return _Kind(device, places, tuple(controls), device.neutral(), series, bool(kind.MEASURES))
