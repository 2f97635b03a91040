"""Graphs of participants: weights, distances, and what can be said of convergence before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from zgrid.protocols.base import Participant

Graph: TypeAlias = Mapping[str, Sequence[str]]
"""Participant -> its neighbours, in the order of the topology."""

Weights: TypeAlias = Mapping[str, Mapping[str, float]]
"""Participant -> neighbour -> weight of the edge."""


def metropolis_weights(graph: Graph, me: str) -> dict[str, float]:
    """Metropolis weights of one peer's edges: 1 / (1 + max(degree, degree of the neighbour)).

    They make the weight matrix doubly stochastic [Xiao, Boyd and Lall 2005, A scheme for robust distributed sensor
    fusion based on average consensus].
    """
    degree = len(graph[me])
    return {other: 1.0 / (1.0 + max(degree, len(graph[other]))) for other in graph[me]}


def edge_weights(graph: Graph, me: str, weights: Weights | None) -> dict[str, float]:
    """The weights of one peer's edges: those given, or Metropolis weights.

    Raises:
        ValueError: an edge without a weight.
    """
    if weights is None:
        return metropolis_weights(graph, me)
    found = {other: _given(weights, me, other) for other in graph[me]}
    for other, given in found.items():
        if not given:
            raise ValueError(f"weights: none for the edge {me} - {other}")
    return {other: given[0] for other, given in found.items()}


def weight_matrix(graph: Graph, weights: Weights | None = None) -> NDArray[np.float64]:
    """The weights of all, those given or Metropolis weights, with what is left on the diagonal, (n, n) float64, in the
    order of the graph.
    """
    names = list(graph)
    matrix = np.zeros((len(names), len(names)))
    for row, me in enumerate(names):
        for other, weight in edge_weights(graph, me, weights).items():
            matrix[row, names.index(other)] = weight
        matrix[row, row] = 1.0 - matrix[row].sum()
    return matrix


def weight_misfits(graph: Graph, weights: Weights) -> list[str]:
    """Why weights of a graph's edges do not lead everybody to the mean, with the bound; empty where they do.

    The matrix has to be doubly stochastic, which with equal weights at both ends it is if no row sums to more than 1,
    and its eigenvalues other than 1 within the unit circle [Xiao and Boyd 2004, Fast linear iterations for distributed
    averaging].
    """
    found = [
        f"weights: {me} has no neighbour {other!r}"
        for me, row in weights.items()
        for other in row
        if other not in graph.get(me, ())
    ]
    place = {name: rank for rank, name in enumerate(graph)}
    edges = [(name, other) for name in graph for other in graph[name] if place[name] < place[other]]
    for one, two in edges:
        given = _given(weights, one, two)
        if not given:
            found.append(f"weights: none for the edge {one} - {two}")
        elif given[0] != given[-1]:
            found.append(
                f"weights: {one} has {given[0]:g} for {two}, which has {given[1]:g} for {one}; expected the same, "
                f"so that rows and columns sum to 1 (doubly stochastic)"
            )
    if found:
        return found
    for me in graph:
        total = sum(edge_weights(graph, me, weights).values())
        if total > 1.0 + 1e-12:
            found.append(f"weights of {me} sum to {total:g}, above their bound of 1: what it keeps would be negative")
    if not found and np.linalg.eigvalsh(weight_matrix(graph, weights))[0] <= -1.0 + 1e-12:
        found.append(
            "weights: nobody keeps anything of its own, and values swing for ever; the bound of 1 for their "
            "sum must not be reached by all"
        )
    return found


def _given(weights: Weights, me: str, other: str) -> list[float]:
    """What is said of an edge, from either end."""
    pairs = ((me, other), (other, me))
    return [weights[one][two] for one, two in pairs if two in weights.get(one, {})]


def distances(graph: Graph, begin: str) -> dict[str, int]:
    """Edges from one participant to each that it can reach, itself included."""
    reached, front = {begin: 0}, [begin]
    while front:
        following = [other for name in front for other in graph[name] if other not in reached]
        front = list(dict.fromkeys(following))
        reached |= {other: reached[name] + 1 for name in list(reached) for other in graph[name] if other in front}
    return reached


def diameter(graph: Graph) -> int:
    """The longest shortest path between two participants that reach each other, in edges."""
    return max((max(distances(graph, name).values()) for name in graph), default=0)


def islands(graph: Graph) -> list[list[str]]:
    """The connected components, in the order of the graph."""
    left, found = dict.fromkeys(graph), []
    while left:
        reached = distances(graph, next(iter(left)))
        found.append([name for name in left if name in reached])
        left = {name: None for name in left if name not in reached}
    return found


def peers(graph: Graph) -> dict[str, Participant]:
    """Everybody of a graph as a peer with Metropolis weights; each island is a group of its own."""
    result = {}
    for island in islands(graph):
        inside = {name: graph[name] for name in island}
        across = diameter(inside)
        for place, name in enumerate(island):
            weights = metropolis_weights(graph, name)
            result[name] = Participant(name, weights, "peer", place, len(island), across, tuple(island))
    return {name: result[name] for name in graph}


def star(coordinator: str, subordinates: Sequence[str]) -> dict[str, Participant]:
    """A coordinator and its subordinates, in this order; every weight is 1."""
    names = (coordinator, *subordinates)
    size, across = len(names), min(len(subordinates), 2)
    center = Participant(coordinator, dict.fromkeys(subordinates, 1.0), "coordinator", 0, size, across, names)
    return {coordinator: center} | {
        name: Participant(name, {coordinator: 1.0}, "subordinate", 1 + k, size, across, names)
        for k, name in enumerate(subordinates)
    }
