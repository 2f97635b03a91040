"""Program: a linear program that grows by blocks of variables and rows, solved by HiGHS through scipy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_matrix

from zgrid.errors import ForesightError

Array: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = NDArray[np.intp]
Term: TypeAlias = tuple[Columns, Any]
"""Columns of variables, (n,) intp, and their coefficients, (n,) float64 or a number: one entry in each of n rows."""


class Solved(NamedTuple):
    """The variables at the optimum, (n_variables,) float64, and the least cost."""

    values: Array
    cost: float


class _Rows:
    """Rows of one sense, as the triplets of a sparse matrix."""

    def __init__(self) -> None:
        self.count = 0
        self._triplets: list[tuple[Columns, Columns, Array]] = []
        self._bounds: list[Array] = []

    def add(self, terms: Sequence[Term], bound: Any) -> None:
        n = len(terms[0][0])
        at = np.arange(self.count, self.count + n, dtype=np.intp)
        self._triplets += [(at, columns, np.broadcast_to(np.asarray(c, float), (n,))) for columns, c in terms]
        self._bounds.append(np.broadcast_to(np.asarray(bound, dtype=np.float64), (n,)))
        self.count += n

    def matrix(self, n_columns: int) -> tuple[Any, Any]:
        if self.count == 0:
            return None, None
        rows, columns, values = (np.concatenate(parts) for parts in zip(*self._triplets, strict=True))
        return csr_matrix((values, (rows, columns)), shape=(self.count, n_columns)), np.concatenate(self._bounds)


class Program:
    """Minimises the sum of cost x variable, plus a constant, subject to its rows."""

    def __init__(self) -> None:
        self.constant = 0.0
        self._size = 0
        self._low: list[Array] = []
        self._high: list[Array] = []
        self._cost: list[Array] = []
        self._at_most, self._equal = _Rows(), _Rows()

    def add_variables(self, n: int, low: Any, high: Any, cost: Any = 0.0) -> Columns:
        """``n`` variables within [low, high], each with its cost; their columns, (n,) intp."""
        for kept, given in ((self._low, low), (self._high, high), (self._cost, cost)):
            kept.append(np.broadcast_to(np.asarray(given, dtype=np.float64), (n,)))
        self._size += n
        return np.arange(self._size - n, self._size, dtype=np.intp)

    def at_most(self, terms: Sequence[Term], bound: Any) -> None:
        """Rows: the sum of the terms <= bound."""
        self._at_most.add(terms, bound)

    def equal(self, terms: Sequence[Term], bound: Any) -> None:
        """Rows: the sum of the terms == bound."""
        self._equal.add(terms, bound)

    def solve(self) -> Solved:
        """The optimum.

        Raises:
            ForesightError: HiGHS finds none.
        """
        a_ub, b_ub = self._at_most.matrix(self._size)
        a_eq, b_eq = self._equal.matrix(self._size)
        cost = np.concatenate(self._cost)
        bounds = np.stack((np.concatenate(self._low), np.concatenate(self._high)), axis=1)
        found = linprog(cost, a_ub, b_ub, a_eq, b_eq, bounds, method="highs")
        if found.status != 0:
            raise ForesightError(f"the linear program has no optimum: {found.message}")
        return Solved(np.asarray(found.x), float(found.fun) + self.constant)
