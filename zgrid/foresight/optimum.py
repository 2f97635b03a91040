"""Optimum: the best plan for a day whose every hour is known beforehand, by successive linear programming.

Each round makes the network linear around the plan that was played last, finds the best plan of that model within a
trust region, plays it, and keeps it if it earns more. What counts is what a plan earns when it is played.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import NamedTuple, TypeAlias

import numpy as np

from zgrid.errors import ForesightError
from zgrid.foresight.bound import upper_bound
from zgrid.foresight.flexibility import why_not
from zgrid.foresight.model import promise, why_not_rewarded
from zgrid.foresight.program import Array
from zgrid.foresight.rehearsal import Played, Rehearsal
from zgrid.topology import Topology
from zgrid.world import World

_ROUNDS = 40
_SMALLEST_RADIUS = 1e-4
_ENOUGH = 1e-5
"""A model that promises less than this share of the return more than was earned has converged."""
_SHARES = (1.0, 0.7, 0.4, 0.2, 0.1)
"""Shares of the way to the promised plan that are played."""

_DAYS_PER_PROCESS = 8
"""A process takes seconds to start; fewer days than this do not pay for it."""

Start: TypeAlias = tuple[Array, Array]
"""What devices injected on a day, MW and Mvar, (n_steps, n_devices) float64 each."""


class Planned(NamedTuple):
    """The best plan found: its actions, (n_steps, n_controls) in [-1, 1], and what it earned when it was played, $.

    ``promised`` is the best return within the last trust region, had the network been linear, and ``promised_anywhere``
    without a trust region, $. ``bound`` is a return that no plan can beat, $; NaN where none is known. ``rounds`` is
    how many models were solved.
    """

    actions: Array
    earned: float
    promised: float
    promised_anywhere: float
    bound: float
    rounds: int


def check(topology: Topology) -> None:
    """Whether a topology can be planned.

    Raises:
        ForesightError: a device or a reward cannot; with its path.
    """
    found = [
        (f"{spec.grid}.devices.{spec.id.partition('.')[2]}", why_not(spec.config)) for spec in topology.device_specs
    ]
    found += [
        (f"{name}.reward", why_not_rewarded(grid.reward or topology.reward)) for name, grid in topology.grids.items()
    ]
    reasons = [f"grids.{path}: {why}" for path, why in found if why]
    if reasons:
        raise ForesightError("cannot be planned: " + "; ".join(reasons))


def plan_day(rehearsal: Rehearsal, starts: Sequence[Start]) -> Planned:
    """The best plan found from any of the starts.

    Raises:
        ForesightError: a power flow diverges, or a linear program cannot be solved.
    """
    found = [
        _climb(rehearsal, played)
        for played in rehearsal.play(np.stack([rehearsal.actions(*start) for start in starts]))
    ]
    best = max(found, key=lambda one: one.earned)
    (played,) = rehearsal.play(best.actions[None])
    anywhere = promise(rehearsal, played, rehearsal.slopes(played), 1.0).value
    return best._replace(promised_anywhere=anywhere, bound=upper_bound(rehearsal))


def plan_days(
    topology: Topology, days: Sequence[int], starts: Iterable[Sequence[Start]], processes: int = 1
) -> Iterator[Planned]:
    """The best plan of each day, in their order; the same whatever the number of ``processes``, which are spawned.

    ``starts`` has, per day, what planning begins with.

    Raises:
        ForesightError: the topology cannot be planned, or a day cannot be solved.
    """
    check(topology)
    jobs = list(zip(days, starts, strict=True))
    processes = min(processes, len(jobs) // _DAYS_PER_PROCESS)
    if processes < 2:
        world = World(topology)
        for day, plans in jobs:
            yield plan_day(Rehearsal(topology, world, day), plans)
        return
    pickled = pickle.dumps(topology)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        yield from pool.map(_plan, ((pickled, day, plans) for day, plans in jobs))


def _plan(job: tuple[bytes, int, Sequence[Start]]) -> Planned:
    """One day, in a process of the pool."""
    text, day, plans = job
    topology, world = _case(text)
    return plan_day(Rehearsal(topology, world, day), plans)


@cache
def _case(pickled: bytes) -> tuple[Topology, World]:
    """A topology and its world, once per process."""
    topology: Topology = pickle.loads(pickled)
    return topology, World(topology)


def _climb(rehearsal: Rehearsal, played: Played) -> Planned:
    """Improve a plan until the model around it promises nothing more, or the trust region is too small."""
    radius, slopes, rounds = 1.0, rehearsal.slopes(played), 0
    while True:
        hoped, rounds = promise(rehearsal, played, slopes, radius), rounds + 1
        gain = hoped.value - played.value
        if gain <= _ENOUGH * abs(played.value) or radius < _SMALLEST_RADIUS or rounds == _ROUNDS:
            return Planned(played.actions, played.value, hoped.value, hoped.value, math.nan, rounds)
        share, best = _walk(rehearsal, played, hoped.actions)
        improved = best.value - played.value
        if improved > 0.0:
            played, slopes = best, rehearsal.slopes(best)
        radius = _next_radius(radius, share, improved / gain)


def _walk(rehearsal: Rehearsal, played: Played, actions: Array) -> tuple[float, Played]:
    """The best of some plans on the way from the one that was played to ``actions``, and its share of the way."""
    way = actions - played.actions
    tried = rehearsal.play(np.stack([played.actions + share * way for share in _SHARES]))
    return max(zip(_SHARES, tried, strict=True), key=lambda one: one[1].value)


def _next_radius(radius: float, share: float, kept: float) -> float:
    """The trust region after a step of ``share`` of the promised way, which ``kept`` a share of the promise."""
    if kept > 0.5 and share == 1.0:
        return min(2.0 * radius, 1.0)
    return radius * max(0.5 * share, 0.25) if kept > 0.0 else 0.1 * radius
