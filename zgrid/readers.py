"""Readers: the bodies of a step, from the fields that came over the wire, each checked in one go.

What a message costs in a process that wakes for it is the code that it touches. So each of the kinds that every step or
round has is read by one function. It says None where anything is unusual; the checks of :mod:`zgrid.encoding`, field by
field, then decide, and say what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np

from zgrid.messages import Action, Body, DeviceState, NetworkState, Peer, Report, Setpoint, are_finite, make

_LARGE = 500
"""Numbers from which on numpy looks through an array faster than a list can be made of it."""


def _action(fields: Any) -> Action | None:
    (values,) = fields
    return make(Action, fields) if type(values) is tuple and are_finite(values) else None


def _setpoint(fields: Any) -> Setpoint | None:
    values, series, measured = fields
    if not type(values) is type(series) is type(measured) is tuple:
        return None
    return make(Setpoint, fields) if are_finite(values) and are_finite(series) and are_finite(measured) else None


def _state(fields: Any) -> DeviceState | None:
    state = fields[4]
    if type(state) is not tuple or len(fields) != 5:
        return None
    return make(DeviceState, fields) if are_finite(fields[:4] + state) else None


def _network(fields: Any) -> NetworkState | None:
    converged, (n_bus, n_line, n_trafo), measured, _, _, _, _, local, series, clock = fields
    if not (
        type(converged) is bool
        and type(n_bus) is type(n_line) is type(n_trafo) is int
        and (n_bus | n_line | n_trafo) >= 0
        and type(fields[1]) is type(local) is type(series) is type(clock) is tuple
        and type(measured) is np.ndarray
        and n_bus + n_line + n_trafo <= measured.size < _LARGE
    ):
        return None
    numbers = fields[3:7] + local + series + clock
    if are_finite(numbers) and isfinite(sum(measured.tolist())):
        return make(NetworkState, fields)
    return None


def _peer(fields: Any) -> Peer | None:
    values, agreed, stop = fields
    if type(values) is not tuple or not type(agreed) is type(stop) is int or agreed < 0 or stop < 0:
        return None
    return make(Peer, fields) if are_finite(values) else None


def _report(fields: Any) -> Report | None:
    reward, terms, observation = fields
    if type(terms) is tuple and type(observation) is np.ndarray and observation.size < _LARGE:
        numbers = (reward, *terms)
        if are_finite(numbers) and isfinite(sum(observation.tolist())):
            return make(Report, fields)
    return None


READERS: dict[str, Callable[[Any], Body | None]] = {
    "action": _action,
    "setpoint": _setpoint,
    "state": _state,
    "network": _network,
    "peer": _peer,
    "report": _report,
}
"""By kind. The fields are a tuple of anything: what does not fit raises ValueError, IndexError or TypeError, or gives
None."""
