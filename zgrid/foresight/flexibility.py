"""What each device kind can do in a plan, as variables and rows of a linear program."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from zgrid.devices import Device, device_class
from zgrid.foresight.program import Array, Columns, Program, Term

_CIRCLE_SIDES = 24
_COST_TANGENTS = 9


class Corridor(NamedTuple):
    """Where a plan for one device may go: at most ``radius`` x its ranges away from what it did, on every step.

    ``p_mw`` and ``q_mvar`` (n_steps,) float64 are what it did, ``series`` (n_steps, n_series) its time series. ``sign``
    (n_steps,) is 1 where a battery may only discharge, -1 where it may only charge, 0 where the plan decides.
    """

    p_mw: Array
    q_mvar: Array
    series: Array
    sign: Array
    radius: float

    @property
    def n_steps(self) -> int:
        """Steps of the plan."""
        return len(self.p_mw)


class Injection(NamedTuple):
    """What a device injects: the sum of the terms ``p``, and of the terms ``q``, each with a column per step."""

    p: tuple[Term, ...]
    q: tuple[Term, ...]


Block: TypeAlias = Callable[[Program, Any, Any, Corridor], Injection]
"""Adds one device, given its physics (a :class:`Device` on floats) and its config, to a program."""


def _generator(program: Program, device: Any, config: Any, corridor: Corridor) -> Injection:
    """p within its limits and ramps (it begins at p_min); its convex cost as the maximum of tangents."""
    n = corridor.n_steps
    p = _around(program, corridor.p_mw, device.p_min, device.p_max, corridor.radius)
    if config.ramp_mw_per_h is not None:
        program.at_most([(p[:1], 1.0)], device.p_min + device.ramp_mw)
        program.at_most([(p[1:], 1.0), (p[:-1], -1.0)], device.ramp_mw)
        program.at_most([(p[:-1], 1.0), (p[1:], -1.0)], device.ramp_mw)
    cost = program.add_variables(n, -np.inf, np.inf, device.dt_h)
    touched = [np.full(n, one) for one in np.linspace(device.p_min, device.p_max, _COST_TANGENTS)]
    for at in (*touched, corridor.p_mw) if device.a > 0.0 else (corridor.p_mw,):
        slope = 2.0 * device.a * at + device.b
        program.at_most([(p, slope), (cost, -1.0)], device.a * at * at - device.c)
    _add_segments(program, device, p, cost)
    q = _reactive(program, config, device.s_rated, p, corridor)
    if q is None:
        return Injection(((p, 1.0),), ())
    if device.q_per_p >= 0.0:
        program.at_most([(q, 1.0), (p, -device.q_per_p)], 0.0)
        program.at_most([(q, -1.0), (p, -device.q_per_p)], 0.0)
    return Injection(((p, 1.0),), ((q, 1.0),))


def _add_segments(program: Program, device: Any, p: Columns, cost: Columns) -> None:
    """A piecewise linear cost is the maximum of its lines, because it is convex."""
    begin, value = device.p_min, device.c
    for slope, width in device.segments:
        program.at_most([(p, slope), (cost, -1.0)], slope * begin - value)
        begin, value = begin + width, value + slope * width


def _renewable(program: Program, device: Any, config: Any, corridor: Corridor) -> Injection:
    """p up to what is available; the rest costs its curtailment."""
    available = np.array([device.step(device.initial(), (0.0, 0.0), tuple(row))[0][0] for row in corridor.series])
    per_mw = config.curtailment_cost * device.dt_h
    p = _around(program, corridor.p_mw, 0.0, available, corridor.radius, -per_mw)
    program.constant += per_mw * float(available.sum())
    q = _reactive(program, config, device.s_rated, p, corridor)
    return Injection(((p, 1.0),), () if q is None else ((q, 1.0),))


def _storage(program: Program, device: Any, config: Any, corridor: Corridor) -> Injection:
    """Discharging and charging apart, and the state of charge.

    Both at once would burn energy, which no battery does. Where ``sign`` does not exclude it, the two share p_max:
    the convex hull of what a battery can do.
    """
    n, p_max, dt_h = corridor.n_steps, device.p_max, device.dt_h
    wear = device.wear_cost * dt_h
    out = program.add_variables(n, 0.0, np.where(corridor.sign < 0.0, 0.0, p_max), wear)
    into = program.add_variables(n, 0.0, np.where(corridor.sign > 0.0, 0.0, p_max), wear)
    program.at_most([(out, 1.0), (into, 1.0)], p_max)
    reach = corridor.radius * 2.0 * p_max
    if corridor.radius < 1.0:
        program.at_most([(out, 1.0), (into, -1.0)], corridor.p_mw + reach)
        program.at_most([(out, -1.0), (into, 1.0)], reach - corridor.p_mw)
    soc = program.add_variables(n, device.soc_min, device.soc_max)
    taken, stored = dt_h / (device.eta_discharge * device.capacity), dt_h * device.eta_charge / device.capacity
    program.equal([(soc[:1], 1.0), (out[:1], taken), (into[:1], -stored)], device.soc_init)
    program.equal([(soc[1:], 1.0), (soc[:-1], -1.0), (out[1:], taken), (into[1:], -stored)], 0.0)
    p = ((out, 1.0), (into, -1.0))
    if not config.q_control:
        return Injection(p, ())
    q = _around(program, corridor.q_mvar, -device.s_rated, device.s_rated, corridor.radius)
    _within_circle(program, device.s_rated, p, q, corridor)
    return Injection(p, ((q, 1.0),))


def _load(program: Program, device: Any, config: Any, corridor: Corridor) -> Injection:
    """Nothing to decide."""
    return Injection((), ())


FLEXIBLE: dict[str, Block] = {
    "generator": _generator,
    "load": _load,
    "renewable": _renewable,
    "storage": _storage,
}
"""The kinds that can be planned."""


def why_not(config: Any) -> str:
    """Why a device cannot be planned; empty where it can."""
    if config.kind not in FLEXIBLE:
        return f"kind {config.kind!r}, expected one of {', '.join(FLEXIBLE)}"
    if config.kind == "generator" and config.commitment:
        return "kind 'generator' with commitment, which takes yes-or-no decisions"
    return ""


def add_device(program: Program, config: Any, dt_h: float, corridor: Corridor) -> Injection:
    """Add one device to a program: its variables, limits and cost, $ of the whole plan."""
    device: Device = device_class(config.kind).one(config, dt_h)
    return FLEXIBLE[config.kind](program, device, config, corridor)


def _around(program: Program, done: Array, low: Any, high: Any, radius: float, cost: float = 0.0) -> Columns:
    """A variable per step within [low, high] and within ``radius`` x the widest such range of what was done; a radius
    of infinity also reaches all where there is no range."""
    reach = radius if math.isinf(radius) else radius * float(np.max(np.asarray(high) - low))
    bottom, top = np.maximum(low, done - reach), np.minimum(high, done + reach)
    return program.add_variables(len(done), np.minimum(bottom, top), top, cost)


def _reactive(program: Program, config: Any, s_rated: float, p: Columns, corridor: Corridor) -> Columns | None:
    """The reactive power of a device whose action sets it, within its limits and the circle."""
    if not config.q_control:
        return None
    low, high = getattr(config, "q_min_mvar", None), getattr(config, "q_max_mvar", None)
    low, high = -s_rated if low is None else low, s_rated if high is None else high
    q = _around(program, corridor.q_mvar, low, high, corridor.radius)
    _within_circle(program, s_rated, ((p, 1.0),), q, corridor)
    return q


def _within_circle(program: Program, s_rated: float, p: tuple[Term, ...], q: Columns, corridor: Corridor) -> None:
    """p^2 + q^2 <= s^2 by tangents all around, and by the one nearest to what was done, so that it is exact there."""
    n = corridor.n_steps
    angles = [np.full(n, 2.0 * math.pi * k / _CIRCLE_SIDES) for k in range(_CIRCLE_SIDES)]
    for angle in (*angles, np.arctan2(corridor.q_mvar, corridor.p_mw)):
        along, across = np.cos(angle), np.sin(angle)
        program.at_most([*((column, sign * along) for column, sign in p), (q, across)], s_rated)
