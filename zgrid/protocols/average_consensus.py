"""Horizontal protocol ``average_consensus``: neighbours agree on the mean of a local value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from zgrid.protocols.base import AveragingConfig, Inbox, Local, Outbox, Participant, Protocol, Result, RoundsConfig
from zgrid.protocols.graph import Graph, islands


class AverageConsensusConfig(AveragingConfig):
    """Parameters of the consensus."""

    kind: str = "average_consensus"
    value: Literal["p_pcc_mw", "vm_mean_pu", "price"] = Field(
        "p_pcc_mw", description="the local value: import at the PCC, mean voltage of the last step, or price"
    )
    step: float | None = Field(
        None,
        gt=0,
        description="weight of every edge, compared at the time a message was said; null: weights",
    )
    rounds: int = Field(5, ge=1, le=10_000, description="rounds per step; each sends one message to each neighbour")

    @model_validator(mode="after")
    def _one_of_two(self) -> AverageConsensusConfig:
        if self.step is not None and self.weights is not None:
            raise ValueError("step and weights both say what an edge weighs; expected one of them")
        return self


class AverageConsensus(Protocol):
    """x_i <- x_i + sum_j w_ij (x_j - x_i), with Metropolis weights.

    On a ring of n the error contracts by (1 + 2 cos(2 pi / n)) / 3 a round [Xiao and Boyd 2004, Fast linear
    iterations for distributed averaging]. It starts anew from the local value in each step. A neighbour that was not
    heard in a round is left out of it, so the mean drifts under loss: ratio_consensus does not.

    With ``step`` e it is x(k+1) = x(k) - e L x(k - d), L the Laplacian, d the age of the messages: each compares what
    it hears with what it held itself when that was said. So a delay that is the same everywhere leaves the mean, but
    it lowers the bound of e, see :func:`step_bound` [Olfati-Saber and Murray 2004, Consensus problems in networks of
    agents with switching topology and time-delays]. Metropolis weights compare with the present value: stable under
    any delay, with a mean that drifts.
    """

    Config: ClassVar[type[RoundsConfig]] = AverageConsensusConfig
    RESULT = ("consensus",)

    @classmethod
    def needs(cls, config: Any) -> tuple[str, ...]:
        return (config.value,)

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        super().__init__(config, me, rng)
        self._x, self._spread = 0.0, float("inf")
        self._held: list[float] = []

    @classmethod
    def misfits(cls, config: Any, graph: Mapping[str, Sequence[str]]) -> list[str]:
        bound = step_bound(graph)
        if config.step is None or config.step < bound:
            return []
        return [f"step {config.step:g} is not below {bound:.5g}, the bound of this graph without delay"]

    def start(self, step: int, local: Local) -> Outbox:
        self._x, self._spread = local.values[self.config.value], float("inf")
        self._held = [self._x]
        return self._to_all()

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        x, step = self._x, self.config.step
        change = spread = 0.0
        for neighbour, weight in self.me.weights.items():
            heard = inbox[neighbour]
            if not heard:
                continue
            values, age = heard[-1]
            theirs = values[0]
            change += weight * (theirs - x) if step is None else step * (theirs - self._held[-1 - age])
            spread = max(spread, abs(theirs - x))
        self._x, self._spread = x + change, spread
        self._held.append(self._x)
        return self._to_all()

    def residual(self) -> float:
        return self._spread

    def result(self) -> Result:
        return Result((self._x,))

    def _to_all(self) -> Outbox:
        return dict.fromkeys(self.me.weights, (self._x,))


def step_bound(graph: Graph, delay: int = 0) -> float:
    """The ``step`` from which the mean is not reached when every message is ``delay`` rounds late.

    It is 2 sin(pi / (2 (2 d + 1))) over the largest eigenvalue l of the Laplacian, where x(k+1) = x(k) - e l x(k - d)
    leaves the unit circle; l is at most twice the largest degree.
    """
    largest = max((float(np.linalg.eigvalsh(_laplacian(graph, island))[-1]) for island in islands(graph)), default=0.0)
    return 2.0 * math.sin(math.pi / (2.0 * (2 * delay + 1))) / largest if largest > 0.0 else float("inf")


def _laplacian(graph: Graph, names: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    rows = [[float(len(graph[me])) if me == other else -float(other in graph[me]) for other in names] for me in names]
    return np.array(rows)
