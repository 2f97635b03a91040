"""What a grid agent is made of: actors, policy and protocols, from its spec."""

from __future__ import annotations

from collections.abc import Sequence

from zgrid.agents.spec import GRID_SERIES, DeviceSpec, GridSpec
from zgrid.devices import device_class
from zgrid.policies import Actor, Policy, policy_class
from zgrid.protocols import Controls, Rounds, VerticalProtocol, horizontal_class, seated, vertical_class
from zgrid.protocols.rounds import Carry


def series_slices(actors: Sequence[Actor]) -> tuple[tuple[int, int, bool], ...]:
    """Where each device's time series stand in those of the grid, and whether it measures the voltage at its bus."""
    slices, begin = [], len(GRID_SERIES)
    for actor in actors:
        end = begin + len(actor.device.SERIES)
        slices.append((begin, end, bool(actor.device.MEASURES)))
        begin = end
    return tuple(slices)


def actor_of(spec: DeviceSpec) -> Actor:
    """A device as policies and coordination see it."""
    kind = device_class(spec.config.kind)
    controls = spec.controls
    return Actor(spec.build(), controls, tuple(kind.SETPOINT.index(control.name) for control in controls))


def vertical_of(spec: GridSpec, actors: Sequence[Actor]) -> VerticalProtocol:
    """The grid's side of its vertical protocol."""
    devices = [Controls(actor.controls, actor.positions, actor.device.neutral()) for actor in actors]
    vertical: VerticalProtocol = vertical_class(spec.vertical.kind)(spec.vertical, devices)
    return vertical


def policy_of(spec: GridSpec, actors: Sequence[Actor]) -> Policy:
    """The grid's own policy."""
    policy: Policy = policy_class(spec.policy.kind)(spec.policy, actors)
    return policy


def horizontal_of(spec: GridSpec, seed: int, carry: Carry | None) -> Rounds | None:
    """Its place among its neighbours, for one episode; None: it has none."""
    if spec.horizontal is None or not spec.weights:
        return None
    return seated(horizontal_class(spec.horizontal.kind), spec.horizontal, spec.peer, seed, carry)


def negotiation_of(spec: GridSpec, seed: int, carry: Carry | None) -> Rounds | None:
    """Its talk with its devices, for one episode; None: they do not talk."""
    if spec.head is None:
        return None
    return seated(vertical_class(spec.vertical.kind).NEGOTIATION, spec.vertical, spec.head, seed, carry)
