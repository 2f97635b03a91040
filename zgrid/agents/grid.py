"""GridAgent: the controller of one microgrid."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from zlib import crc32

import numpy as np

from zgrid.agents.spec import GRID_SERIES, DeviceSpec, GridSpec
from zgrid.devices import Market, device_class
from zgrid.gather import STALE, TAKEN, Gather
from zgrid.messages import (
    ENV,
    Action,
    DeviceState,
    Envelope,
    FiniteArray,
    Floats,
    NetworkState,
    Peer,
    Report,
    Reset,
    Setpoint,
    channel,
    floats,
)
from zgrid.policies import Actor, GridView, Policy, policy_class
from zgrid.post import Post
from zgrid.protocols import Controls, HorizontalProtocol, Outbox, VerticalProtocol, horizontal_class, vertical_class

_new = tuple.__new__  # a named tuple's own makes a call in Python of each

OBSERVATION_LIMIT = 100.0
"""Observations are clipped to +-this, so that their Box is finite."""


class GridAgent:
    """The agent of one grid.

    One step: ``begin`` takes the action, ``exchange`` runs the rounds with neighbours, ``decide`` gives the setpoints,
    ``assess`` turns what came of them into reward and next observation. ``receive`` does the same on messages.
    """

    def __init__(self, spec: GridSpec) -> None:
        self.id = spec.id
        self.spec = spec
        self.refused: Counter[str] = Counter()
        self.reward = spec.build_reward()
        self._dt_h = spec.dt_h
        self._devices = tuple(device.id for device in spec.devices)
        self._actors = tuple(_actor(device) for device in spec.devices)
        self._slices = _slices(self._actors)
        self._vertical = _vertical(spec, self._actors)
        self._policy = _policy(spec, self._actors)
        self._horizontal = _horizontal(spec)
        self._action: Floats | None = None
        self.fallen, self._holds_left = False, 0
        self._setpoints: list[Floats] = []
        self._begin_episode()
        self._network: NetworkState | None = None
        self._step, self._round, self._resetting = -1, 0, True
        self._wire()

    # ---- what a grid does ------------------------------------------------------------------------------------------

    def reset(self, seed: int) -> None:
        """Begin an episode. The policy's randomness comes from the seed and the grid's name."""
        self._policy.reset((seed, crc32(self.id.encode())))
        self._horizontal = _horizontal(self.spec)
        self._begin_episode()

    def begin(self, step: int, action: Floats | None) -> Outbox:
        """Take the action of a step; what to send to neighbours in round 1 (nothing: decide now)."""
        self._action = action
        return {} if self._horizontal is None else _said(self._horizontal.start(step, self._local_values()))

    def exchange(self, round: int, inbox: Mapping[str, Floats]) -> Outbox:
        """Take one round of neighbours' messages; what to send in the next (nothing: decide now)."""
        assert self._horizontal is not None
        return _said(self._horizontal.on_round(round, inbox))

    def decide(self) -> list[Setpoint]:
        """A setpoint for each device, from the action or, where that is None, from the grid's own policy; once it has
        fallen back, what they had before, and then what is safe.
        """
        self._setpoints = setpoints = self._fallen_setpoints() if self.fallen else self._chosen_setpoints()
        return [_new(Setpoint, pair) for pair in zip(setpoints, self._device_series, strict=True)]

    def fall_back(self, fallen: bool = True) -> None:
        """From now on its devices hold their setpoints for ``hold_steps``, and then are told the safe
        ones; or no longer.
        """
        self.fallen = fallen
        self._holds_left = self.spec.hold_steps if self._setpoints else 0

    def _chosen_setpoints(self) -> list[Floats]:
        action = self._action
        if action is None:
            action = floats("action of the policy", self._policy.act(self._view()))
        return [floats("setpoint", values) for values in self._vertical.setpoints(action)]

    def _fallen_setpoints(self) -> list[Floats]:
        self._holds_left -= 1
        holds = self._holds_left >= 0 and self._setpoints
        return self._setpoints if holds else [device.safe for device in self.spec.devices]

    def assess(self, states: Sequence[DeviceState], network: NetworkState) -> Report:
        """The reward and terms of a step, and the observation for the next one."""
        reward, terms = self.reward.assess(states, network, self._price)
        self._learn(states, network)
        said = floats("reward and terms", (reward, *terms))
        return Report(said[0], said[1:] + measured(network), self._observation)

    def observe(self, states: Sequence[DeviceState], network: NetworkState) -> Report:
        """The first observation of an episode; nothing was done yet, so reward and terms of the reward are 0."""
        self._learn(states, network)
        return Report(0.0, (0.0,) * len(self.reward.term_names) + measured(network), self._observation)

    @property
    def last_network(self) -> NetworkState | None:
        """What it knows of the network; None before the first observation of an episode."""
        return self._last_network

    def catch_up(self, states: Sequence[DeviceState], network: NetworkState) -> None:
        """Know what a step has shown that somebody else took for it."""
        self._learn(states, network)

    # ---- the same on messages --------------------------------------------------------------------------------------

    def receive(self, envelope: Envelope) -> list[Post]:
        """A message in, the messages it leads to out. What is late or repeated is counted in ``refused``."""
        kind = type(envelope.body)
        if kind is DeviceState:
            return self._on_state(envelope)
        if kind is NetworkState:
            return self._on_network(envelope)
        if kind is Peer:
            return self._on_peer(envelope)
        if kind is Action or kind is Reset:
            return self._on_command(envelope)
        self.refused[f"unexpected {envelope.sender}"] += 1
        return []

    def _on_command(self, envelope: Envelope) -> list[Post]:
        if envelope.step <= self._step:
            self.refused[f"{STALE} {envelope.sender}"] += 1
            return []
        self._step = step = envelope.step
        self._network = None
        self._round = 0
        self._states.open(step)
        self._peers.open(step, 0)
        body = envelope.body
        self._resetting = type(body) is Reset
        if type(body) is Reset:
            self.reset(body.seed)
            return [Post(address, step, 0, body) for address in self._reset_channels]
        assert type(body) is Action
        return self._send_round(1, self.begin(step, body.values))

    def _on_peer(self, envelope: Envelope) -> list[Post]:
        assert type(envelope.body) is Peer
        verdict = self._peers.add(envelope.sender, envelope.body.values, envelope.step, envelope.round)
        if verdict is not TAKEN:
            self.refused[f"{verdict} {envelope.sender}"] += 1
            return []
        return self._exchange_when_complete()

    def _on_state(self, envelope: Envelope) -> list[Post]:
        assert type(envelope.body) is DeviceState
        verdict = self._states.add(envelope.sender, envelope.body, envelope.step)
        if verdict is not TAKEN:
            self.refused[f"{verdict} {envelope.sender}"] += 1
            return []
        return self._report_when_complete()

    def _on_network(self, envelope: Envelope) -> list[Post]:
        if envelope.step != self._step or self._network is not None:
            self.refused[f"{STALE} {envelope.sender}"] += 1
            return []
        assert type(envelope.body) is NetworkState
        self._network = envelope.body
        return self._report_when_complete()

    def _send_round(self, round: int, outbox: Outbox) -> list[Post]:
        """Post a round and wait for the neighbours', or decide where there is none."""
        if not outbox:
            return [
                _new(Post, (address, self._step, 0, setpoint))
                for address, setpoint in zip(self._setpoint_channels, self.decide(), strict=True)
            ]
        self._round = round
        self._peers.open(self._step, round)
        posts = [Post(channel("peer", to, self.id), self._step, round, Peer(values)) for to, values in outbox.items()]
        return posts + self._exchange_when_complete()

    def _exchange_when_complete(self) -> list[Post]:
        if self._round == 0 or not self._peers.complete:
            return []
        round, self._round = self._round, 0
        inbox = dict(zip(self._peers.expected, self._peers.values(), strict=True))
        return self._send_round(round + 1, self.exchange(round, inbox))

    def _report_when_complete(self) -> list[Post]:
        network = self._network
        if network is None or not self._states.complete:
            return []
        states = self._states.values()
        report = self.observe(states, network) if self._resetting else self.assess(states, network)
        return [_new(Post, (self._report_channel, self._step, 0, report))]

    # ---- what it knows ---------------------------------------------------------------------------------------------

    def _wire(self) -> None:
        """Addresses and waiting places for the distributed execution."""
        self.hears = {channel(kind, self.id): frozenset((ENV,)) for kind in ("action", "reset", "network")}
        self.hears |= {channel("state", device): frozenset((device,)) for device in self._devices}
        self.hears |= {channel("peer", self.id, other): frozenset((other,)) for other in self.spec.weights}
        self._setpoint_channels = tuple(channel("setpoint", device) for device in self._devices)
        self._reset_channels = tuple(channel("reset", device) for device in self._devices)
        self._report_channel = channel("report", self.id)
        self._states: Gather[DeviceState] = Gather(self._devices)
        self._peers: Gather[Floats] = Gather(self.spec.weights)

    def _begin_episode(self) -> None:
        self._action = None
        self._setpoints = []
        self._last_states: Sequence[DeviceState] = ()
        self._last_network: NetworkState | None = None
        self._observation: FiniteArray = np.zeros(0, dtype=np.float32)
        self._price, self._market = 0.0, Market(0.0, 0.0, 0.0)
        self._device_series: list[Floats] = [()] * len(self._devices)

    def _learn(self, states: Sequence[DeviceState], network: NetworkState) -> None:
        """Keep what a step has shown, and what the coming one brings."""
        series = network.series
        self._last_states, self._last_network = states, network
        self._price = series[0]
        self._market = Market(series[0], series[1], series[2])
        self._device_series = self._split(series, network.local)
        told = () if self._horizontal is None else self._horizontal.result()
        self._observation = observation(states, network, told)

    def _split(self, series: Floats, local: Floats) -> list[Floats]:
        """The time series of each device, and what it measures."""
        split = []
        for (begin, end, measures), vm_pu in zip(self._slices, local, strict=True):
            split.append((*series[begin:end], vm_pu) if measures else series[begin:end])
        return split

    def _view(self) -> GridView:
        states, network = self._last_states, self._last_network
        return GridView(self._observation, states, self._market, self._device_series, network)

    def _local_values(self) -> dict[str, float]:
        """What a horizontal protocol may start from."""
        network = self._last_network
        assert network is not None
        alive = network.vm_pu[~np.isnan(network.vm_pu)]
        vm_mean_pu = float(alive.mean()) if alive.size else 0.0
        return {"p_pcc_mw": network.p_pcc_mw, "vm_mean_pu": vm_mean_pu, "price": self._price}


def observation(states: Sequence[DeviceState], network: NetworkState, told: Floats) -> FiniteArray:
    """What a grid sees, (n_obs,) float32, finite: see ``GridSpec.observation_names`` for what each entry is.

    Powers in MW and Mvar, voltages and loadings in pu (dead: 0), prices in 100 $/MWh. Of a batch, where every number is
    an array (n_rows,) and ``network.measured`` (n_rows, n): (n_rows, n_obs).
    """
    known: list[float] = []
    for state in states:
        known += (state.p_mw, state.q_mvar, *state.state)
    price, low, high, *rest = network.series
    known += (price * 0.01, low * 0.01, high * 0.01, *rest, *network.clock, *told)
    known += (network.p_pcc_mw, network.q_pcc_mvar)
    n = len(known)
    n_bus, n_line, n_trafo = network.sizes
    if network.measured.ndim == 1:
        known += network.measured.tolist()
        if isfinite(sum(known)) and min(known) >= -OBSERVATION_LIMIT and max(known) <= OBSERVATION_LIMIT:
            whole = np.array(known, dtype=np.float32)
            whole[n + n_bus : n + n_bus + n_line + n_trafo] *= 0.01
            whole.flags.writeable = False
            return whole
        del known[n:]
    seen: FiniteArray = np.empty((*network.measured.shape[:-1], n + network.measured.shape[-1]), dtype=np.float32)
    seen[..., :n] = np.array(known).T
    seen[..., n:] = network.measured
    seen[..., n + n_bus : n + n_bus + n_line + n_trafo] *= 0.01
    dead = np.isnan(seen)
    if dead.any():
        seen[dead] = 0.0
    np.minimum(np.maximum(seen, -OBSERVATION_LIMIT, out=seen), OBSERVATION_LIMIT, out=seen)
    seen.flags.writeable = False
    return seen


def _said(outbox: Outbox) -> Outbox:
    return {to: floats(f"round for {to}", values) for to, values in outbox.items()}


def measured(network: NetworkState) -> Floats:
    """The values of ``MEASURED``; of a batch, an array (n_rows,) each."""
    if network.measured.ndim == 1:
        voltages = network.vm_pu.tolist()
        if voltages and isfinite(sum(voltages)):
            flag = 1.0 if network.converged else 0.0
            return network.p_pcc_mw, network.q_pcc_mvar, min(voltages), max(voltages), flag
    low = np.fmin.reduce(network.vm_pu, axis=-1)
    high = np.fmax.reduce(network.vm_pu, axis=-1)
    if isinstance(network.p_pcc_mw, np.ndarray):
        seen = np.where(np.isnan(low), 0.0, low), np.where(np.isnan(high), 0.0, high)
        return network.p_pcc_mw, network.q_pcc_mvar, *seen, network.converged + 0.0
    low, high = (0.0 if math.isnan(value) else float(value) for value in (low, high))
    return network.p_pcc_mw, network.q_pcc_mvar, low, high, 1.0 if network.converged else 0.0


def _slices(actors: Sequence[Actor]) -> tuple[tuple[int, int, bool], ...]:
    """Where each device's time series stand in those of the grid, and whether it measures the voltage at its bus."""
    slices, begin = [], len(GRID_SERIES)
    for actor in actors:
        end = begin + len(actor.device.SERIES)
        slices.append((begin, end, bool(actor.device.MEASURES)))
        begin = end
    return tuple(slices)


def _actor(spec: DeviceSpec) -> Actor:
    kind = device_class(spec.config.kind)
    controls = spec.controls
    return Actor(spec.build(), controls, tuple(kind.SETPOINT.index(control.name) for control in controls))


def _vertical(spec: GridSpec, actors: Sequence[Actor]) -> VerticalProtocol:
    devices = [Controls(actor.controls, actor.positions, actor.device.neutral()) for actor in actors]
    vertical: VerticalProtocol = vertical_class(spec.vertical.kind)(spec.vertical, devices)
    return vertical


def _policy(spec: GridSpec, actors: Sequence[Actor]) -> Policy:
    policy: Policy = policy_class(spec.policy.kind)(spec.policy, actors)
    return policy


def _horizontal(spec: GridSpec) -> HorizontalProtocol | None:
    if spec.horizontal is None or not spec.weights:
        return None
    horizontal: HorizontalProtocol = horizontal_class(spec.horizontal.kind)(spec.horizontal, spec.weights)
    return horizontal
