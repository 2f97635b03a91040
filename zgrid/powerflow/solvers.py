"""The fixed point V = no_load + Z conj(S / V), and Newton, on the arrays of a model; with numpy.

It starts from the voltages without load and has no memory. Voltages here are complex and in pu; a leading axis of any
of the injections is a batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import bmat, csr_matrix, diags
from scipy.sparse.linalg import splu

from zgrid.powerflow.model import Complexes, Floats, Indices, Injections, Model

TOLERANCE_PU = 1e-11
"""The fixed point stops when no voltage moves by more; far below what is promised, because it creeps near the nose."""

FIXED_POINT_STEPS = 400
NEWTON_STEPS = 10
NEWTON_TOLERANCE = 1e-8
"""Both as ``runpp`` has them, so that Newton on the kept arrays converges exactly where ``runpp`` does."""


class Results(NamedTuple):
    """What a solver leaves: rows of the net, as in :class:`Solution`."""

    vm_pu: Floats
    va_degree: Floats
    loading: Floats
    p_pcc_mw: Floats
    q_pcc_mvar: Floats
    p_forming_mw: Floats


def inject(injections: Injections, p_mw: Floats, q_mvar: Floats, scale: Floats) -> Complexes:
    """The power at each injection, (..., m) complex128, pu."""
    m = len(injections.at)
    s = np.zeros((*scale.shape[:-1], m + 1), dtype=np.complex128)  # the last one takes what is dead
    s[..., :m] = injections.constant + scale @ injections.load
    np.add.at(s.T, injections.device, (p_mw + 1j * q_mvar).T / injections.base_mva)
    return s[..., :m]


def fixed_point(model: Model, s: Complexes) -> tuple[Complexes, int]:
    """The voltages (..., n), and the iterations that took; negative where it did not converge.

    In a batch all go on until the last has converged; -1 then says that some have not.
    """
    with np.errstate(all="ignore"):
        return _fixed_point_dense(model, s) if model.lu is None else _fixed_point_sparse(model, s)


def _fixed_point_dense(model: Model, s: Complexes) -> tuple[Complexes, int]:
    at, to_v = model.no_load[model.injections.at], model.z_at.T
    v = at
    iterations = -1
    for iteration in range(1, FIXED_POINT_STEPS + 1):
        following = at + (s / v).conj() @ to_v
        change = following - v
        v = following
        if _settled(change):
            iterations = iteration
            break
    return model.no_load + (s / v).conj() @ model.z.T, iterations


def _fixed_point_sparse(model: Model, s: Complexes) -> tuple[Complexes, int]:
    at, pq, no_load = model.injections.at, model.pq, model.no_load
    v = np.broadcast_to(no_load, (*s.shape[:-1], len(no_load))).copy()
    current = np.zeros_like(v)
    for iteration in range(1, FIXED_POINT_STEPS + 1):
        current[..., at] = (s / v[..., at]).conj()
        if not np.isfinite(current).all():
            return v, -1
        following = no_load[pq] + model.lu.solve(np.ascontiguousarray(current[..., pq].T)).T
        change = following - v[..., pq]
        v[..., pq] = following
        if _settled(change):
            return v, iteration
    return v, -1


def _settled(change: Complexes) -> bool:
    flat = change.view(np.float64)
    return bool(
        flat.size == 0 or np.maximum.reduce(flat, axis=None) < TOLERANCE_PU > -np.minimum.reduce(flat, axis=None)
    )


def converged(model: Model, s: Complexes, v: Complexes) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which of a batch have converged, (...,) bool: those that one more iteration does not move."""
    with np.errstate(all="ignore"):
        at = v[..., model.injections.at]
        if model.lu is None:
            again = model.no_load[model.injections.at] + (s / at).conj() @ model.z_at.T
            change = np.abs(again - at)
        else:
            current = np.zeros_like(v)
            current[..., model.injections.at] = (s / at).conj()
            current[~np.isfinite(current)] = np.nan
            pq = model.pq
            again = model.no_load[pq] + model.lu.solve(np.ascontiguousarray(current[..., pq].T)).T
            change = np.abs(again - v[..., pq])
        return np.asarray((change < 10.0 * TOLERANCE_PU).all(axis=-1))


def newton(model: Model, s: Complexes) -> tuple[Complexes, int]:
    """Newton-Raphson in polar form from ``model.start``, for networks with generators that hold their voltage.

    The mismatch and Jacobian of Zimmerman et al., MATPOWER (2011), in scipy's sparse matrices.
    """
    y = model.y.tocsr()
    power = np.zeros(y.shape[0], dtype=np.complex128)
    power[model.injections.at] = s
    angles, magnitudes = np.concatenate((model.pv, model.pq)), model.pq
    v = model.start.copy()
    for iteration in range(NEWTON_STEPS + 1):
        current = y @ v
        mismatch = v * current.conj() - power
        f = np.concatenate((mismatch[angles].real, mismatch[magnitudes].imag))
        if not np.isfinite(f).all():
            return v, -1
        if f.size == 0 or np.abs(f).max() < NEWTON_TOLERANCE:
            return v, iteration
        if iteration == NEWTON_STEPS:
            break
        try:
            step = splu(_jacobian(y, v, current, angles, magnitudes).tocsc()).solve(-f)
        except RuntimeError:  # a singular Jacobian: beyond the nose
            return v, -1
        va, vm = np.angle(v), np.abs(v)
        va[angles] += step[: len(angles)]
        vm[magnitudes] += step[len(angles) :]
        v = vm * np.exp(1j * va)
    return v, -1


def _jacobian(y: csr_matrix, v: Complexes, current: Complexes, angles: Indices, magnitudes: Indices) -> csr_matrix:
    of_v, direction = diags(v), diags(v / np.abs(v))
    by_angle = (1j * of_v @ (diags(current) - y @ of_v).conj()).tocsr()
    by_magnitude = (of_v @ (y @ direction).conj() + diags(current.conj()) @ direction).tocsr()
    return bmat(
        [
            [by_angle[angles][:, angles].real, by_magnitude[angles][:, magnitudes].real],
            [by_angle[magnitudes][:, angles].imag, by_magnitude[magnitudes][:, magnitudes].imag],
        ]
    )


def read(model: Model, s: Complexes, v: Complexes, p_mw: Floats, q_mvar: Floats, scale: Floats) -> Results:
    """The results for voltages (..., n); the other arguments are those of the case."""
    branches = model.branches
    alive = np.append(np.ones(v.shape[-1]), np.nan)
    shown = np.concatenate((v, np.ones((*v.shape[:-1], 1))), axis=-1)[..., model.bus]
    dead = alive[model.bus]
    vf, vt = v[..., branches.f], v[..., branches.t]
    i_f = branches.yff * vf + branches.yft * vt
    i_t = branches.ytf * vf + branches.ytt * vt
    loading = np.maximum(np.abs(i_f) * branches.percent_f, np.abs(i_t) * branches.percent_t) + branches.fixed
    imported = _imported(model, vf, vt, i_f, i_t, p_mw + 1j * q_mvar, scale)
    return Results(
        np.abs(shown) * dead, np.degrees(np.angle(shown)) * dead, loading, imported.real.copy(), imported.imag.copy(),
        _formed(model, s, v, imported.shape),
    )  # fmt: skip


def _imported(
    model: Model, vf: Complexes, vt: Complexes, i_f: Complexes, i_t: Complexes, device: Complexes, scale: Floats
) -> Complexes:
    """What flows into each part at its PCC, (..., n_part) complex128, MVA."""
    meters = model.meters
    at_end = meters.end.astype(bool)
    voltage = np.where(at_end, vt[..., meters.branch], vf[..., meters.branch])
    current = np.where(at_end, i_t[..., meters.branch], i_f[..., meters.branch])
    n_part = scale.shape[-1]
    pcc = np.zeros((*scale.shape[:-1], n_part + 1), dtype=np.complex128)  # the last one takes what is not at a PCC
    pcc[..., :n_part] = meters.constant + scale * meters.load
    np.add.at(pcc.T, meters.part, (model.injections.base_mva * voltage * current.conj()).T)
    np.subtract.at(pcc.T, meters.device, device.T)
    return pcc[..., :n_part]


def _formed(model: Model, s: Complexes, v: Complexes, shape: tuple[int, ...]) -> Floats:
    """What the slacks of islanded parts give, (..., n_part) float64, MW."""
    meters, given = model.meters, np.zeros(shape)
    known = np.concatenate((s, np.zeros((*s.shape[:-1], 1))), axis=-1)
    for part, bus, y, at in zip(meters.former, meters.former_bus, meters.former_y, meters.former_at, strict=True):
        power = v[..., bus] * (v @ y).conj() - known[..., at]
        given[..., part] += model.injections.base_mva * power.real
    return given
