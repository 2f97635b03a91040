"""The fixed point and its results as loops, compiled by numba where it is installed (extra ``fast``).

The same equations as in solvers.py, one case at a time; they release the interpreter's lock, so that threads share a
batch. Without numba this module says so in ``AVAILABLE`` and nothing here is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

try:
    import numba
except ImportError:  # the extra is not installed
    numba = None

AVAILABLE = numba is not None

F = TypeVar("F", bound=Callable[..., Any])


def _compiled(function: F) -> F:
    if numba is None:
        return function
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


@_compiled
def inject(injections: Any, p_mw: Any, q_mvar: Any, scale: Any, s: Any) -> None:
    """Fill ``s`` (m,) with the power at each injection."""
    base, _, constant, load, device = injections
    m = s.size
    for i in range(m):
        total = constant[i]
        for k in range(scale.size):
            total += scale[k] * load[k, i]
        s[i] = total
    for k in range(device.size):
        if device[k] < m:
            s[device[k]] += complex(p_mw[k] / base, q_mvar[k] / base)


@_compiled
def _spread(columns: Any, current: Any, real: Any, imag: Any) -> None:
    """Add Z current to ``real`` and ``imag`` (n,), column by column, which compilers turn into vector instructions.

    ``columns`` is (2, m, n) float64: the real and the imaginary parts of the columns of Z.
    """
    for k in range(current.size):
        a, b = current[k].real, current[k].imag
        for i in range(real.size):
            real[i] += columns[0, k, i] * a - columns[1, k, i] * b
            imag[i] += columns[0, k, i] * b + columns[1, k, i] * a


@_compiled
def dense(no_load: Any, at: Any, columns: Any, columns_at: Any, s: Any, tolerance: float, most: int, v: Any) -> int:
    """Fill ``v`` (n,) with the fixed point; the iterations, -1 where it does not converge."""
    m = at.size
    start = np.empty(m, dtype=np.complex128)
    current = np.empty(m, dtype=np.complex128)
    for i in range(m):
        start[i] = no_load[at[i]]
    here = start.copy()
    real, imag = np.empty(m), np.empty(m)
    iterations = -1
    for iteration in range(1, most + 1):
        for i in range(m):
            current[i] = (s[i] / here[i]).conjugate()
            real[i] = start[i].real
            imag[i] = start[i].imag
        _spread(columns_at, current, real, imag)
        change = 0.0
        for i in range(m):
            moved = max(abs(real[i] - here[i].real), abs(imag[i] - here[i].imag))
            if not moved <= change:
                change = moved
            here[i] = complex(real[i], imag[i])
        if change < tolerance:
            iterations = iteration
            break
        if not change < 1e6:
            break
    for i in range(m):
        current[i] = (s[i] / here[i]).conjugate()
    every_real, every_imag = no_load.real.copy(), no_load.imag.copy()
    _spread(columns, current, every_real, every_imag)
    for i in range(no_load.size):
        v[i] = complex(every_real[i], every_imag[i])
    return iterations


@_compiled
def sparse(no_load: Any, at: Any, pq: Any, lu: Any, s: Any, tolerance: float, most: int, v: Any) -> int:
    """The same with the triangles of a sparse LU."""
    lower_start, lower_row, lower, upper_start, upper_row, upper, diagonal, row_order, column_order = lu
    n, m = no_load.size, at.size
    current = np.zeros(n, dtype=np.complex128)
    x = np.empty(pq.size, dtype=np.complex128)
    for i in range(n):
        v[i] = no_load[i]
    for iteration in range(1, most + 1):
        for i in range(m):
            current[at[i]] = (s[i] / v[at[i]]).conjugate()
        for i in range(pq.size):
            x[row_order[i]] = current[pq[i]]
        for j in range(pq.size):
            for k in range(lower_start[j], lower_start[j + 1]):
                x[lower_row[k]] -= lower[k] * x[j]
        for j in range(pq.size - 1, -1, -1):
            x[j] /= diagonal[j]
            for k in range(upper_start[j], upper_start[j + 1]):
                x[upper_row[k]] -= upper[k] * x[j]
        change = 0.0
        for i in range(pq.size):
            bus = pq[i]
            following = no_load[bus] + x[column_order[i]]
            step = following - v[bus]
            moved = max(abs(step.real), abs(step.imag))
            if not moved <= change:
                change = moved
            v[bus] = following
        if change < tolerance:
            return iteration
        if not change < 1e6:
            break
    return -1


@_compiled
def read(
    bus: Any, branches: Any, meters: Any, base: float, s: Any, v: Any, p_mw: Any, q_mvar: Any, scale: Any, out: Any
) -> None:
    """Fill ``out`` = (vm_pu, va_degree, loading, p_pcc_mw, q_pcc_mvar, p_forming_mw)."""
    f, t, yff, yft, ytf, ytt, percent_f, percent_t, fixed = branches
    part, branch, end, constant, load, device, former, former_bus, former_y, former_at = meters
    vm, va, loading, p_pcc, q_pcc, forming = out
    n, degrees = v.size, 180.0 / math.pi
    for i in range(bus.size):
        if bus[i] < n:
            one = v[bus[i]]
            vm[i] = math.sqrt(one.real * one.real + one.imag * one.imag)
            va[i] = math.atan2(one.imag, one.real) * degrees
        else:
            vm[i] = va[i] = math.nan
    for k in range(f.size):
        a = yff[k] * v[f[k]] + yft[k] * v[t[k]]
        b = ytf[k] * v[f[k]] + ytt[k] * v[t[k]]
        low = math.sqrt(a.real * a.real + a.imag * a.imag) * percent_f[k]
        high = math.sqrt(b.real * b.real + b.imag * b.imag) * percent_t[k]
        loading[k] = max(low, high) + fixed[k]
    for k in range(p_pcc.size):
        one = constant[k] + scale[k] * load[k]
        p_pcc[k] = one.real
        q_pcc[k] = one.imag
        forming[k] = 0.0
    for j in range(part.size):
        k = branch[j]
        if end[j]:
            one = base * v[t[k]] * (ytf[k] * v[f[k]] + ytt[k] * v[t[k]]).conjugate()
        else:
            one = base * v[f[k]] * (yff[k] * v[f[k]] + yft[k] * v[t[k]]).conjugate()
        p_pcc[part[j]] += one.real
        q_pcc[part[j]] += one.imag
    for d in range(device.size):
        if device[d] < p_pcc.size:
            p_pcc[device[d]] -= p_mw[d]
            q_pcc[device[d]] -= q_mvar[d]
    for j in range(former.size):
        current = 0.0 + 0.0j
        for i in range(n):
            current += former_y[j, i] * v[i]
        one = v[former_bus[j]] * current.conjugate()
        if former_at[j] < s.size:
            one -= s[former_at[j]]
        forming[former[j]] += base * one.real


@_compiled
def solve_dense(
    bus: Any, injections: Any, branches: Any, meters: Any, no_load: Any, columns: Any, columns_at: Any,
    p_mw: Any, q_mvar: Any, scale: Any, tolerance: float, most: int, out: Any,
) -> int:  # fmt: skip
    """One case from its injections to ``out``; the iterations, -1 where it does not converge."""
    s = np.empty(injections.at.size, dtype=np.complex128)
    v = np.empty(no_load.size, dtype=np.complex128)
    inject(injections, p_mw, q_mvar, scale, s)
    iterations = dense(no_load, injections.at, columns, columns_at, s, tolerance, most, v)
    if iterations >= 0:
        read(bus, branches, meters, injections.base_mva, s, v, p_mw, q_mvar, scale, out)
    return iterations


@_compiled
def solve_sparse(
    bus: Any, injections: Any, branches: Any, meters: Any, no_load: Any, pq: Any, lu: Any,
    p_mw: Any, q_mvar: Any, scale: Any, tolerance: float, most: int, out: Any,
) -> int:  # fmt: skip
    """The same for a sparse model."""
    s = np.empty(injections.at.size, dtype=np.complex128)
    v = np.empty(no_load.size, dtype=np.complex128)
    inject(injections, p_mw, q_mvar, scale, s)
    iterations = sparse(no_load, injections.at, pq, lu, s, tolerance, most, v)
    if iterations >= 0:
        read(bus, branches, meters, injections.base_mva, s, v, p_mw, q_mvar, scale, out)
    return iterations


@_compiled
def solve_dense_rows(
    bus: Any, injections: Any, branches: Any, meters: Any, no_load: Any, columns: Any, columns_at: Any,
    p_mw: Any, q_mvar: Any, scale: Any, tolerance: float, most: int, out: Any, iterations: Any,
) -> None:  # fmt: skip
    """Many cases, a row each; ``iterations`` (n_rows,) int64 tells of each what ``solve_dense`` returns."""
    vm, va, loading, p_pcc, q_pcc, forming = out
    for k in range(iterations.size):
        row = (vm[k], va[k], loading[k], p_pcc[k], q_pcc[k], forming[k])
        iterations[k] = solve_dense(
            bus, injections, branches, meters, no_load, columns, columns_at,
            p_mw[k], q_mvar[k], scale[k], tolerance, most, row,
        )  # fmt: skip


@_compiled
def solve_sparse_rows(
    bus: Any, injections: Any, branches: Any, meters: Any, no_load: Any, pq: Any, lu: Any,
    p_mw: Any, q_mvar: Any, scale: Any, tolerance: float, most: int, out: Any, iterations: Any,
) -> None:  # fmt: skip
    """The same for a sparse model."""
    vm, va, loading, p_pcc, q_pcc, forming = out
    for k in range(iterations.size):
        row = (vm[k], va[k], loading[k], p_pcc[k], q_pcc[k], forming[k])
        iterations[k] = solve_sparse(
            bus, injections, branches, meters, no_load, pq, lu,
            p_mw[k], q_mvar[k], scale[k], tolerance, most, row,
        )  # fmt: skip
