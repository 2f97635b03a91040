"""Areas of a network for optimal power flow by areas: what one is, and its own problem (DC, convex quadratic)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from zgrid.protocols.base import Unit

Vector: TypeAlias = NDArray[np.float64]
Angle: TypeAlias = tuple[str, str]
"""A bus: the participant whose it is, and its name there."""
Reactance: TypeAlias = Annotated[float, Field(gt=0)]
Share: TypeAlias = Annotated[float, Field(ge=0)]


class Scales(NamedTuple):
    """What an area's problem is scaled by: base of the reactances in MVA, penalty in $/(MW^2 h), demand in MW."""

    base_mva: float
    rho: float
    demand_mw: float


class Area(BaseModel):
    """One participant's part of the network, lossless: reactances only."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)

    buses: tuple[str, ...] = Field(min_length=1, description="names of its buses")
    lines: tuple[tuple[str, str, Reactance], ...] = Field(
        (), description="lines within it: bus, bus, reactance in pu of base_mva"
    )
    ties: tuple[tuple[str, str, str, Reactance], ...] = Field(
        (), description="lines to neighbours: own bus, neighbour, its bus, reactance in pu of base_mva"
    )
    loads: dict[str, Share] = Field({}, description="bus -> share of its demand, any unit; default: the first bus")
    units: dict[str, str] = Field({}, description="unit -> its bus; default: the first bus")

    def shared(self, me: str, neighbour: str) -> list[Angle]:
        """The angles it has in common with a neighbour: the ends of their ties, the same list on both sides."""
        ends = ((own, theirs) for own, other, theirs, _ in self.ties if other == neighbour)
        return sorted({end for own, theirs in ends for end in ((me, own), (neighbour, theirs))})

    def faults(self, me: str, areas: Mapping[str, Area], neighbours: Sequence[str]) -> list[str]:
        """What is wrong with it, in words."""
        named = {bus for a, b, _ in self.lines for bus in (a, b)} | {tie[0] for tie in self.ties}
        named |= set(self.loads) | set(self.units.values())
        found = [f"area {me}: no bus {bus!r} among its buses" for bus in sorted(named - set(self.buses))]
        for own, other, theirs, x in self.ties:
            if other not in neighbours:
                found.append(f"area {me}: a tie to {other!r}, which is no neighbour")
            elif other in areas and (theirs, me, own, x) not in areas[other].ties:
                found.append(f"area {me}: its tie {own} - {other}.{theirs} is not among the ties of {other}")
        if self.ties and not found and self._adrift():
            found.append(f"area {me}: no way from {', '.join(self._adrift())} to a tie")
        return found

    def _adrift(self) -> list[str]:
        reached = {tie[0] for tie in self.ties}
        for _ in self.buses:
            reached |= {b for line in self.lines for b in line[:2] if reached.intersection(line[:2])}
        return [bus for bus in self.buses if bus not in reached]


class AreaProblem:
    """min sum C(P) + sum_s (rho w_s / 2) (theta_s - t_s)^2 over its units' powers P, within their limits, and all
    angles theta it knows, so that at each own bus A theta = E P - L, E telling which unit is where; s runs over the
    angles shared with each neighbour. A tie to somebody with whom nothing is shared is open.

    Angles are eliminated: given P they follow from the equality-constrained KKT system, which is inverted once.
    What is left is a quadratic in P with bounds.
    """

    def __init__(
        self, me: str, area: Area, shared: Mapping[str, Sequence[Angle]], units: Sequence[Unit], scales: Scales
    ) -> None:
        """``shared``: the angles in common with each neighbour; ``scales``: base_mva, rho and demand."""
        self.units = tuple(units)
        own = [(me, bus) for bus in area.buses]
        angles = own + sorted({angle for listed in shared.values() for angle in listed} - set(own))
        at = {angle: k for k, angle in enumerate(angles)}
        self._n, pairs = len(own), [(name, angle) for name, listed in shared.items() for angle in listed]
        self._rows = np.array([at[angle] for _, angle in pairs], dtype=np.intp)
        self.mw_per_rad = np.sqrt([_stiffness(area, me, *pair, scales.base_mva) for pair in pairs])
        """Of each shared angle, (n_shared,) float64: the square of it weighs the angle."""
        self.weight = scales.rho * self.mw_per_rad**2
        self._load = _spread(area, scales.demand_mw)
        self._place = np.zeros((self._n, len(self.units)))
        for k, unit in enumerate(self.units):
            self._place[area.buses.index(area.units.get(unit.id, area.buses[0])), k] = 1.0
        self._a = np.array([unit.cost_a for unit in self.units])
        self._b = np.array([unit.cost_b for unit in self.units])
        self._low = np.array([unit.p_min_mw for unit in self.units])
        self._high = np.array([unit.p_max_mw for unit in self.units])
        flows = _flows(me, area, at, scales.base_mva)
        penalty = np.zeros((len(angles), len(angles)))
        np.add.at(penalty, (self._rows, self._rows), self.weight)
        zero = np.zeros((self._n, self._n))
        self._inverse = np.linalg.inv(np.block([[penalty, flows.T], [flows, zero]])) if pairs else None
        self._m = len(angles)
        self.p_mw = np.clip(np.zeros(len(self.units)), self._low, self._high)
        self.price = 0.0

    def solve(self, target: Vector) -> Vector:
        """Its best powers and its price, given what the shared angles shall be, rad; the shared angles, rad."""
        if self._inverse is None:
            self._alone()
            return target
        pull = np.zeros(self._m + self._n)
        np.add.at(pull, self._rows, self.weight * target)
        corner, m = self._inverse[self._m :, self._m :], self._m
        hessian = np.diag(2.0 * self._a + _LEAST_CURVATURE) - self._place.T @ corner @ self._place
        dual = self._inverse[m:, :m] @ pull[:m] - corner @ self._load
        self.p_mw = box_qp(hessian, self._b - self._place.T @ dual, self._low, self._high, self.p_mw)
        pull[m:] = self._place @ self.p_mw - self._load
        solution = self._inverse @ pull
        self.price = float(np.mean(solution[m:]))
        return np.asarray(solution[self._rows])

    def _alone(self) -> None:
        """No neighbours: the price at which its own units meet its demand, as near as they can, by bisection."""
        demand = float(self._load.sum())
        bounds = [2.0 * u.cost_a * p + u.cost_b for u in self.units for p in (u.p_min_mw, u.p_max_mw)]
        low, high = min(bounds, default=0.0) - 1.0, max(bounds, default=0.0) + 1.0
        for _ in range(100):
            self.price = 0.5 * (low + high)
            if sum(unit.at_price(self.price) for unit in self.units) < demand:
                low = self.price
            else:
                high = self.price
        least = np.array([unit.at_price(low) for unit in self.units])
        most = np.array([unit.at_price(high) for unit in self.units])
        gap = float(most.sum() - least.sum())
        share = min(max((demand - float(least.sum())) / gap, 0.0), 1.0) if gap > 0.0 else 0.0
        self.p_mw = np.clip(least + share * (most - least), self._low, self._high)


_LEAST_CURVATURE = 1e-7  # $/(MW^2 h): makes units without quadratic cost a strictly convex problem


def box_qp(hessian: Vector, g: Vector, low: Vector, high: Vector, x: Vector) -> Vector:
    """argmin x'Hx / 2 + g'x within [low, high], H positive definite, from x: the primal active-set method [Nocedal and
    Wright 2006, Numerical optimization, 16.5], finite for bounds."""
    x = np.clip(x, low, high)
    fixed = (x <= low) | (x >= high)
    for _ in range(20 + 10 * len(x)):
        free = ~fixed
        step = np.zeros(len(x))
        if free.any():
            step[free] = np.linalg.solve(hessian[np.ix_(free, free)], -(hessian @ x + g)[free])
        room = np.where(step > 0.0, high - x, np.where(step < 0.0, x - low, np.inf))
        share = np.divide(room, np.abs(step), out=np.full(len(x), np.inf), where=step != 0.0)
        length = min(1.0, float(share.min(initial=np.inf)))
        x = np.clip(x + length * step, low, high)
        if length < 1.0:
            blocking = int(np.argmin(share))
            x[blocking] = high[blocking] if step[blocking] > 0.0 else low[blocking]
            fixed[blocking] = True
            continue
        slope = hessian @ x + g
        inward = np.where(fixed & (low < high), np.where(x <= low, -slope, slope), 0.0)
        release = int(np.argmax(inward)) if len(x) else 0
        if not len(x) or inward[release] <= 1e-12 * (1.0 + abs(g[release])):
            break
        fixed[release] = False
    return x


def areas_of(
    area_of: Mapping[str, str],
    lines: Iterable[tuple[str, str, float]],
    loads: Mapping[str, float],
    units: Mapping[str, str],
) -> dict[str, Area]:
    """Areas from a whole network: ``area_of`` bus -> participant, lines as (bus, bus, x_pu), loads in MW by bus, and
    the bus of each unit."""
    parts: dict[str, dict[str, list[tuple[str | float, ...]]]] = {}
    for bus, name in area_of.items():
        parts.setdefault(name, {"buses": [], "lines": [], "ties": []})["buses"].append((bus,))
    for a, b, x in lines:
        if area_of[a] == area_of[b]:
            parts[area_of[a]]["lines"].append((a, b, x))
            continue
        for own, theirs in ((a, b), (b, a)):
            parts[area_of[own]]["ties"].append((own, area_of[theirs], theirs, x))
    return {
        name: Area.model_validate(
            {
                "buses": [bus for (bus,) in part["buses"]],
                "lines": part["lines"],
                "ties": part["ties"],
                "loads": {bus: mw for bus, mw in loads.items() if area_of[bus] == name},
                "units": {unit: bus for unit, bus in units.items() if area_of[bus] == name},
            }
        )
        for name, part in parts.items()
    }


def _stiffness(area: Area, me: str, neighbour: str, angle: Angle, base_mva: float) -> float:
    """Sum of (base_mva / x)^2 of the ties with a neighbour that end at an angle."""
    ends = (((me, own), (other, theirs), x) for own, other, theirs, x in area.ties if other == neighbour)
    return sum((base_mva / x) ** 2 for here, there, x in ends if angle in (here, there))


def _flows(me: str, area: Area, at: Mapping[Angle, int], base_mva: float) -> Vector:
    """A of A theta = injection, (n own buses, n angles) float64, MW/rad; own buses are the first angles."""
    flows = np.zeros((len(area.buses), len(at)))
    ends = [((me, a), (me, b), x) for a, b, x in area.lines]
    ends += [((me, own), (other, theirs), x) for own, other, theirs, x in area.ties if (other, theirs) in at]
    for one, two, x in ends:
        for here, there in ((at[one], at[two]), (at[two], at[one])):
            if here < len(area.buses):
                flows[here, here] += base_mva / x
                flows[here, there] -= base_mva / x
    return flows


def _spread(area: Area, demand_mw: float) -> Vector:
    """The demand at each bus, MW."""
    shares = np.array([area.loads.get(bus, 0.0) for bus in area.buses])
    total = float(shares.sum())
    if total == 0.0:
        shares[0] = total = 1.0
    return np.asarray(shares * (demand_mw / total))
