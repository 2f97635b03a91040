"""What a grid sees and measures of a solved step: one function each, for a step and for a batch."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isnan

import numpy as np

from zgrid.messages import DeviceState, FiniteArray, Floats, NetworkState

OBSERVATION_LIMIT = 100.0
"""Observations are clipped to +-this, so that their Box is finite."""


def observation(states: Sequence[DeviceState], network: NetworkState, told: Floats) -> FiniteArray:
    """What a grid sees, (n_obs,) float32, finite: see ``GridSpec.observation_names`` for what each entry is.

    Powers in MW and Mvar, voltages and loadings in pu (dead: 0), prices in 100 $/MWh. Of a batch, where every number is
    an array (n_rows,) and ``network.measured`` (n_rows, n): (n_rows, n_obs).
    """
    known: list[float] = []
    for state in states:
        known += (state.p_mw, state.q_mvar, *state.state)
    price, low, high, *rest = network.series
    known += (price * 0.01, low * 0.01, high * 0.01, *rest, *network.clock, *told)
    known += (network.p_pcc_mw, network.q_pcc_mvar)
    n = len(known)
    n_bus, n_line, n_trafo = network.sizes
    if network.measured.ndim == 1:
        known += network.measured.tolist()
        if isfinite(sum(known)) and min(known) >= -OBSERVATION_LIMIT and max(known) <= OBSERVATION_LIMIT:
            whole = np.array(known, dtype=np.float32)
            whole[n + n_bus : n + n_bus + n_line + n_trafo] *= 0.01
            whole.flags.writeable = False
            return whole
        del known[n:]
    seen: FiniteArray = np.empty((*network.measured.shape[:-1], n + network.measured.shape[-1]), dtype=np.float32)
    seen[..., :n] = np.array(known).T
    seen[..., n:] = network.measured
    seen[..., n + n_bus : n + n_bus + n_line + n_trafo] *= 0.01
    dead = np.isnan(seen)
    if dead.any():
        seen[dead] = 0.0
    np.minimum(np.maximum(seen, -OBSERVATION_LIMIT, out=seen), OBSERVATION_LIMIT, out=seen)
    seen.flags.writeable = False
    return seen


def measured(network: NetworkState) -> Floats:
    """The values of ``MEASURED``; of a batch, an array (n_rows,) each."""
    if network.measured.ndim == 1:
        voltages = network.vm_pu.tolist()
        if voltages and isfinite(sum(voltages)):
            flag = 1.0 if network.converged else 0.0
            return network.p_pcc_mw, network.q_pcc_mvar, min(voltages), max(voltages), flag
    low = np.fmin.reduce(network.vm_pu, axis=-1)
    high = np.fmax.reduce(network.vm_pu, axis=-1)
    if isinstance(network.p_pcc_mw, np.ndarray):
        seen = np.where(np.isnan(low), 0.0, low), np.where(np.isnan(high), 0.0, high)
        return network.p_pcc_mw, network.q_pcc_mvar, *seen, network.converged + 0.0
    low, high = (0.0 if isnan(value) else float(value) for value in (low, high))
    return network.p_pcc_mw, network.q_pcc_mvar, low, high, 1.0 if network.converged else 0.0
