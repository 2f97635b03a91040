"""Horizontal protocol ``consensus_admm``: optimal power flow by areas that agree on the angles at their borders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from zgrid.messages import Floats
from zgrid.protocols.area import Angle, Area, AreaProblem, Scales, Vector
from zgrid.protocols.base import DispatchConfig, Inbox, Local, Outbox, Participant, Protocol, Result, RoundsConfig


class ConsensusAdmmConfig(DispatchConfig):
    """Parameters of the method, and the areas. ``tolerance`` is of both residuals, see the protocol."""

    kind: str = "consensus_admm"
    rounds: int = Field(500, ge=1, le=10_000, description="most rounds per step; one is one iteration without faults")
    tolerance: float = Field(
        1e-4, gt=0, description="primal residual in pu of base_mva and dual residual in pu of the price"
    )
    rho: float = Field(
        0.5, gt=0, description="penalty of a disagreement on a tie's flow, $/(MW^2 h); about the cost_a of the units"
    )
    base_mva: float = Field(100.0, gt=0, description="base of the reactances, MVA")
    areas: dict[str, Area] = Field({}, description="participant -> its area; who has none is a bus by itself")


class ConsensusAdmm(Protocol):
    """DC optimal power flow, min sum C(P), by consensus on the angles of both ends of each tie [Boyd et al. 2011,
    Distributed optimization and statistical learning via the alternating direction method of multipliers, 7.1;
    Erseghe 2014, Distributed optimal power flow using ADMM]. An area i has its own copy theta_i of each angle that it
    shares with a neighbour j:

    - solve:  P_i, theta_i = argmin C(P) + sum_s (rho w_s / 2) (theta_s - z_s + u_s)^2, balanced at each own bus
    - say:    v_i = theta_i + u_i to j
    - agree:  z = (v_i + v_j) / 2,  u_i = v_i - z

    w is the squared susceptance in MW/rad of the tie, so a disagreement counts by the flow it means. Primal residual:
    the most |theta - z| times susceptance, pu of base_mva. Dual: the most rho w |z - z_before| over susceptance, pu of
    the area's price. Both must be small: on the primal alone it stops at a dispatch that is several % too dear.

    It converges for every rho > 0; a rho far from the cost_a of the units only makes it slow. An iteration is taken
    when all neighbours' v of it are there, and a message carries the v before too: so loss and delay change when it
    gets there, not where; a neighbour that falls silent for good stops it, at powers within the limits of the units.
    z and u are kept from step to step. Limits of lines are not modelled. Without neighbours an area meets its own
    demand.

    ``price`` is the mean of its buses' marginal prices, ``import_mw`` its demand less what its units give.
    """

    Config: ClassVar[type[RoundsConfig]] = ConsensusAdmmConfig
    RESULT = ("price", "import_mw")
    TOLERATES = frozenset({"loss", "delay"})

    def __init__(self, config: Any, me: Participant, rng: np.random.Generator) -> None:
        super().__init__(config, me, rng)
        self._area: Area = config.areas.get(me.id, Area.model_validate({"buses": (me.id,)}))
        self._shared: dict[str, Sequence[Angle]] = {other: self._area.shared(me.id, other) for other in me.weights}
        ends = np.cumsum([0, *(len(angles) for angles in self._shared.values())])
        self._parts = {other: slice(ends[k], ends[k + 1]) for k, other in enumerate(self._shared)}
        self._z: Vector = np.zeros(ends[-1])
        self._u: Vector = np.zeros(ends[-1])
        self._problem: AreaProblem | None = None
        self._demand = 0.0
        self._step = self._iteration = 0
        self._said: list[Vector] = []
        self._heard: dict[str, dict[int, Vector]] = {}
        self.primal = self.dual = float("inf")
        """The two residuals of the last iteration."""

    @classmethod
    def misfits(cls, config: Any, graph: Mapping[str, Sequence[str]]) -> list[str]:
        found = [f"consensus_admm: no participant {name!r} for its area" for name in config.areas if name not in graph]
        for name, neighbours in graph.items():
            if name not in config.areas:
                found.append(f"consensus_admm: no area for {name!r}")
            else:
                found += config.areas[name].faults(name, config.areas, neighbours)
        return found

    def start(self, step: int, local: Local) -> Outbox:
        self._step, self._iteration, self._demand = step, 0, local.demand_mw
        config, me = self.config, self.me
        scales = Scales(base_mva=config.base_mva, rho=config.rho, demand_mw=local.demand_mw)
        shared = {other: angles for other, angles in self._shared.items() if angles}
        self._problem = AreaProblem(me.id, self._area, shared, local.units, scales)
        self._heard = {other: {} for other in shared}
        self.primal = self.dual = float("inf") if shared else 0.0
        self._said = []
        self._solve()
        return self._to_all()

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        for other in self._heard:
            for values, _ in inbox[other]:
                self._hear(other, values)
        while self._heard and all(self._iteration in heard for heard in self._heard.values()):
            self._agree()
            self._iteration += 1
            self._solve()
        return self._to_all()

    def residual(self) -> float:
        return max(self.primal, self.dual)

    def result(self) -> Result:
        problem = self._problem
        if problem is None:
            return Result((0.0, 0.0))
        powers = {unit.id: float(p) for unit, p in zip(problem.units, problem.p_mw, strict=True)}
        return Result((problem.price, self._demand - sum(powers.values())), powers, price=problem.price)

    def _solve(self) -> None:
        assert self._problem is not None
        self._theta = self._problem.solve(self._z - self._u)
        self._said = [self._theta + self._u, *self._said[:1]]

    def _agree(self) -> None:
        """Take an iteration's values of all neighbours: where to agree, how far apart, and how far it moved."""
        assert self._problem is not None
        before, said = self._z, self._said[0]
        theirs = np.concatenate([self._heard[other].pop(self._iteration) for other in self._heard])
        self._z = 0.5 * (said + theirs)
        self._u = said - self._z
        stiffness, rho = self._problem.mw_per_rad, self.config.rho
        price = max(abs(self._problem.price), 1.0)
        self.primal = float(np.max(stiffness * np.abs(self._theta - self._z))) / self.config.base_mva
        self.dual = float(np.max(rho * stiffness * np.abs(self._z - before))) / price

    def _hear(self, other: str, values: Floats) -> None:
        """Keep the values of iterations that are not over: of the one that is named, and of the one before."""
        if int(values[0]) != self._step:
            return
        iteration, n = int(values[1]), len(self._shared[other])
        for k in range(2):
            entries = values[2 + k * n : 2 + (k + 1) * n]
            if len(entries) == n and iteration - k >= self._iteration:
                self._heard[other][iteration - k] = np.array(entries)

    def _to_all(self) -> Outbox:
        head = (float(self._step), float(self._iteration))
        return {
            other: (*head, *(float(v) for said in self._said for v in said[self._parts[other]]))
            for other in self._heard
        }
