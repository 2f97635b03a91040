"""A protocol alone, played once: what it took, what came of it, and how far that is from the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from zgrid.encoding import encode
from zgrid.links import Counts, Ears, Links
from zgrid.messages import Envelope, Floats, Peer, channel
from zgrid.protocols import Heard, Run, Table, Unit
from zgrid.protocols.incremental_cost_consensus import balance_price
from zgrid.protocols.rounds import Carry
from zgrid.protocols.run import Record
from zgrid.studies.case import Case, ProtocolPart

_NOW_NS = 1 << 60
"""In place of a sender's clock: as many bytes as any time of this century takes."""
_RUN_ID = "0" * 32
HISTORY = ("round", "residual", "spread", "messages")


class Outcome(NamedTuple):
    """The metrics of a run by name, None where there is none, and rows of ``HISTORY``."""

    metrics: dict[str, float | None]
    history: list[tuple[float | None, ...]]


class Meter:
    """Counts what is said, round by round, on its way into the links."""

    def __init__(self) -> None:
        self.messages: dict[int, int] = {}
        self.bytes: dict[int, int] = {}

    def into(self, receiver: str, ears: Ears | None) -> Carry:
        """What a receiver hears with."""
        line = Ears((), receiver) if ears is None else ears

        def carry(sender: str, round: int, values: Floats | None) -> Sequence[Heard]:
            if values is not None:
                self.messages[round] = self.messages.get(round, 0) + 1
                self.bytes[round] = self.bytes.get(round, 0) + size_of(sender, receiver, round, len(values))
            return line.carry(sender, round, values)

        return carry


@cache
def size_of(sender: str, receiver: str, round: int, numbers: int) -> int:
    """Bytes of a message as it goes over ZeroMQ: channel, a zero byte, the encoded envelope. Every number takes the
    same."""
    envelope = Envelope(sender, _RUN_ID, 0, round, 1, round, _NOW_NS, Peer((0.0,) * numbers))
    return len(channel("peer", receiver, sender).encode()) + 1 + len(encode(envelope))


def play_protocol(part: ProtocolPart, seed: int, tolerance: float) -> Outcome:
    """One step of a protocol among all its participants; ``seed`` decides problems, links and randomness.

    Raises:
        ValidationError, UnknownNameError: a protocol that cannot be made.
    """
    case, meter = Case(part, seed), Meter()
    links = Links(part.links, seed)
    ears = {name: links.into(name) for name in case.participants}
    carries = {name: meter.into(name, one) for name, one in ears.items()}
    table = Table(case.protocol, case.config, case.participants, seed=seed, carries=carries)
    run = table.play(case.locals)
    settled = settled_round(run.history, tolerance)
    metrics: dict[str, float | None] = {
        "rounds": run.rounds,
        "messages": sum(meter.messages.values()),
        "bytes": sum(meter.bytes.values()),
        "settled_round": settled,
        "messages_to_tolerance": _until(meter.messages, settled),
        "bytes_to_tolerance": _until(meter.bytes, settled),
        "residual": _finite(max(walk.protocol.residual() for walk in table.walks.values())),
        "converged": sum(status == "converged" for status in run.statuses.values()),
        "spread": _spread([result.values[:1] for result in run.results.values()]),
    }
    metrics |= _agreement(case, run) | _dispatch(case, run) | _trades(run)
    metrics |= _links([one for one in ears.values() if one is not None], sum(meter.messages.values()))
    return Outcome(metrics, [_history_row(record, meter) for record in run.history])


def settled_round(history: Sequence[Record], tolerance: float) -> int | None:
    """The first round from which on nobody's residual is above the tolerance; None: it never settled."""
    settled = None
    for record in history:
        if max(record.residuals, default=math.inf) > tolerance:
            settled = None
        elif settled is None:
            settled = record.round
    return settled


def _until(counts: Mapping[int, int], settled: int | None) -> int | None:
    return None if settled is None else sum(count for round, count in counts.items() if round <= settled)


def _agreement(case: Case, run: Run) -> dict[str, float | None]:
    """How far the worst result is from the mean of what all had, where a mean is what they look for."""
    name = str(getattr(case.config, "value", ""))
    if name not in next(iter(case.locals.values())).values:
        return {"mean_error": None}
    mean = math.fsum(local.values[name] for local in case.locals.values()) / len(case.locals)
    return {"mean_error": max(abs(result.values[0] - mean) for result in run.results.values())}


def _dispatch(case: Case, run: Run) -> dict[str, float | None]:
    """The dispatch beside the demand and beside the centralised optimum.

    ``gap_per_h`` is cost - optimal cost - optimal price x (dispatch - demand): never negative for convex costs, 0 at
    the optimum, and power that is missing or too much is valued at the optimal price.
    """
    units = list(case.units.values())
    given = {name: p for result in run.results.values() for name, p in result.dispatch_mw.items()}
    prices = [(result.price,) for result in run.results.values() if result.price is not None]
    names = ("dispatch_mw", "imbalance_mw", "cost_per_h", "optimum_per_h", "gap_per_h", "dispatch_gap_mw")
    if not {unit.id for unit in units} <= given.keys():
        return dict.fromkeys((*names, "price_spread"))
    price, best = optimum(units, case.demand_mw)
    total = math.fsum(given[unit.id] for unit in units)
    cost = math.fsum(unit.cost_per_h(given[unit.id]) for unit in units)
    least = math.fsum(unit.cost_per_h(best[unit.id]) for unit in units)
    gap = cost - least - price * (total - math.fsum(best.values()))
    away = max(abs(given[unit.id] - best[unit.id]) for unit in units)
    values = (total, total - case.demand_mw, cost, least, gap, away)
    return {**dict(zip(names, values, strict=True)), "price_spread": _spread(prices) if prices else None}


def optimum(units: Sequence[Unit], demand_mw: float) -> tuple[float, dict[str, float]]:
    """The price at which units meet a demand at least cost, $/MWh, by bisection, and the power of each, MW.

    Units of constant marginal cost share what is left at that price in their order.
    """
    price = balance_price(units, demand_mw)
    best = {unit.id: unit.at_price(price) for unit in units}
    surplus = math.fsum(best.values()) - demand_mw
    for unit in units:
        if surplus > 0.0 and unit.cost_a == 0.0 and math.isclose(unit.cost_b, price, rel_tol=1e-12):
            taken = min(surplus, best[unit.id] - unit.p_min_mw)
            best[unit.id] -= taken
            surplus -= taken
    return price, best


def _trades(run: Run) -> dict[str, float | None]:
    """Each trade once, by its seller."""
    sold = [trade for name, result in run.results.items() for trade in result.trades if trade.seller == name]
    return {"trades": len(sold), "traded_mwh": math.fsum(trade.energy_mwh for trade in sold)}


def _links(ears: Sequence[Ears], said: int) -> dict[str, float | None]:
    """What became of the messages; those on links without faults are delivered in time."""
    counts: list[Counts] = [count for one in ears for count in one.counts().values()]
    names = ("delivered", "late", "lost", "duplicated", "attacked")
    sums = {name: sum(getattr(count, name) for count in counts) for name in names}
    sums["delivered"] += said - sum(count.sent for count in counts)
    periods = sum(count.periods for count in counts)
    age: dict[str, Any] = {
        "age_mean_rounds": sum(count.age_sum for count in counts) / periods if periods else 0.0,
        "age_max_rounds": max((count.age_max for count in counts), default=0),
    }
    return {**sums, **age}


def _history_row(record: Record, meter: Meter) -> tuple[float | None, ...]:
    residual = _finite(max(record.residuals))
    return (
        record.round,
        residual,
        _spread([values[:1] for values in record.values]),
        meter.messages.get(record.round, 0),
    )


def _spread(values: Sequence[Sequence[float]]) -> float | None:
    """Largest less least of first entries; None where there are none."""
    first = [value[0] for value in values if value]
    return _finite(max(first) - min(first)) if first else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
