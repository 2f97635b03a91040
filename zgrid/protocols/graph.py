"""Graphs of participants: weights, distances, and what can be said of convergence before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from zgrid.protocols.base import Participant

Graph: TypeAlias = Mapping[str, Sequence[str]]
"""Participant -> its neighbours, in the order of the topology."""


def metropolis_weights(graph: Graph, me: str) -> dict[str, float]:
    """Metropolis weights of one peer's edges: 1 / (1 + max(degree, degree of the neighbour)).

    They make the weight matrix doubly stochastic [Xiao, Boyd and Lall 2005, A scheme for robust distributed sensor
    fusion based on average consensus].
    """
    degree = len(graph[me])
    return {other: 1.0 / (1.0 + max(degree, len(graph[other]))) for other in graph[me]}


def weight_matrix(graph: Graph) -> NDArray[np.float64]:
    """The Metropolis weights of all, with what is left on the diagonal, (n, n) float64, in the order of the graph."""
    names = list(graph)
    matrix = np.zeros((len(names), len(names)))
    for row, me in enumerate(names):
        for other, weight in metropolis_weights(graph, me).items():
            matrix[row, names.index(other)] = weight
        matrix[row, row] = 1.0 - matrix[row].sum()
    return matrix


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
