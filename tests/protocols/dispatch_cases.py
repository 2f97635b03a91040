"""What the tests of dispatch share: published cases, their optimum found another way, graphs, and links that fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zgrid.messages import Floats
from zgrid.protocols import Graph, Heard, Local, Participant, Protocol, Run, Table, Unit

# Wood and Wollenberg, Power Generation, Operation, and Control, examples 3A and 3B: a p^2 + b p + c.
THREE = (
    Unit("unit_1", 150.0, 600.0, 0.001562, 7.92, 561.0),
    Unit("unit_2", 100.0, 400.0, 0.00194, 7.85, 310.0),
    Unit("unit_3", 50.0, 200.0, 0.00482, 7.97, 78.0),
)
BINDING = (Unit("unit_1", 150.0, 600.0, 0.00128, 6.48, 459.0), *THREE[1:])
FIVE = tuple(
    Unit(f"unit_{k}", 0.0, high, a, b)
    for k, (b, a, high) in enumerate(
        [(2.0, 0.04, 80.0), (3.0, 0.03, 90.0), (4.0, 0.035, 70.0), (4.0, 0.03, 70.0), (2.5, 0.04, 80.0)], 1
    )
)
LINE = {"mg_1": ["mg_2"], "mg_2": ["mg_1", "mg_3"], "mg_3": ["mg_2"]}
CASES = {"R1": (THREE, LINE, 850.0), "R2": (BINDING, LINE, 850.0)}


def ring(n: int) -> Graph:
    return {f"mg_{k + 1}": [f"mg_{(k - 1) % n + 1}", f"mg_{(k + 1) % n + 1}"] for k in range(n)}


CASES["R4"] = (FIVE, ring(5), 300.0)


def optimum(units: Sequence[Unit], demand_mw: float) -> tuple[float, NDArray[np.float64]]:
    """Price and powers at least cost, by bisection on the price over all units at once."""
    a, b, low, high = (
        np.array([getattr(u, key) for u in units]) for key in ("cost_a", "cost_b", "p_min_mw", "p_max_mw")
    )

    def powers(price: float) -> NDArray[np.float64]:
        return np.clip((price - b) / (2.0 * a), low, high)

    below, above = 0.0, 1000.0
    for _ in range(200):
        middle = 0.5 * (below + above)
        below, above = (middle, above) if powers(middle).sum() < demand_mw else (below, middle)
    return above, powers(above)


def problems(units: Sequence[Unit], demand_mw: float, names: Sequence[str]) -> dict[str, Local]:
    """One unit for each, and the demand in unequal parts: 1, 2, 3, ..."""
    parts = np.arange(1.0, len(names) + 1.0)
    parts *= demand_mw / parts.sum()
    return {
        name: Local(units=(unit,), demand_mw=float(part)) for name, unit, part in zip(names, units, parts, strict=True)
    }


def failing(seed: int, loss: float, delay: int = 0, copies: int = 1) -> Callable[[str, int, Floats | None], Any]:
    """Links into one participant that lose messages and hold each back for 0 to ``delay`` rounds."""
    rng = np.random.default_rng(seed)
    held: dict[str, list[tuple[int, int, Floats]]] = {}

    def carry(sender: str, round: int, values: Floats | None) -> list[Heard]:
        queue = held.setdefault(sender, [])
        if values is not None and rng.random() >= loss:
            queue += [(round + int(rng.integers(delay + 1)), round, values) for _ in range(copies)]
        due = [entry for entry in queue if entry[0] <= round]
        held[sender] = [entry for entry in queue if entry[0] > round]
        return [Heard(values, round - said) for _, said, values in sorted(due, key=lambda entry: entry[1])]

    return carry


def run(
    protocol: type[Protocol],
    parameters: Mapping[str, Any],
    members: Graph | Mapping[str, Participant],
    locals: Mapping[str, Local],
    *,
    seed: int = 0,
    **faults: Any,
) -> Run:
    """One step around a table, with links that fail where ``faults`` say so."""
    carries = {name: failing(1000 * seed + k, **faults) for k, name in enumerate(members)} if faults else None
    return Table(protocol, protocol.Config.model_validate(dict(parameters)), members, carries=carries).play(locals)


def powers(run: Run) -> NDArray[np.float64]:
    """The powers of all units, in the order of the participants."""
    return np.array([p_mw for result in run.results.values() for p_mw in result.dispatch_mw.values()])


def settled(run: Run, tolerance: float) -> int:
    """The first round from which on every residual is within a tolerance."""
    outside = [record.round for record in run.history if not max(record.residuals) <= tolerance]
    return max(outside, default=0) + 1
