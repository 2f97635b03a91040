"""Tampering: false data in the numbers of a message, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zgrid.links.config import FalseData
from zgrid.messages import Action, DeviceState, Floats, NetworkState


def falsify(body: Any, attack: FalseData, n: int) -> Any:
    """The body as it is heard in the ``n``-th step or round of an attack.

    The numbers of a state are (p_mw, q_mvar, *state), of a network (p_pcc_mw, q_pcc_mvar, *measured); those of an
    action stay within [-1, 1], and one that leaves the decision to the grid has none.
    """
    if isinstance(body, Action):
        return body if body.values is None else Action(_clipped(_changed(body.values, attack, n)))
    if isinstance(body, DeviceState):
        p_mw, q_mvar, *state = _changed((body.p_mw, body.q_mvar, *body.state), attack, n)
        return body._replace(p_mw=p_mw, q_mvar=q_mvar, state=tuple(state))
    if isinstance(body, NetworkState):
        numbers = (body.p_pcc_mw, body.q_pcc_mvar, *body.measured.tolist())
        p_mw, q_mvar, *measured = _changed(numbers, attack, n)
        return body._replace(p_pcc_mw=p_mw, q_pcc_mvar=q_mvar, measured=np.array(measured, dtype=np.float64))
    return _changed(body, attack, n)


def _changed(numbers: Sequence[float], attack: FalseData, n: int) -> Floats:
    hit = range(len(numbers)) if attack.entries is None else attack.entries
    return tuple(attack.on(value, n) if k in hit else value for k, value in enumerate(numbers))


def _clipped(values: Floats) -> Floats:
    return tuple(min(max(value, -1.0), 1.0) for value in values)
