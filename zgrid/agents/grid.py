"""GridAgent: the controller of one microgrid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np

from zgrid.agents.coordination import Coordination, net_bought_mwh, settled, trade_cost
from zgrid.agents.parts import actor_of, horizontal_of, negotiation_of, policy_of, series_slices, vertical_of
from zgrid.agents.seeing import measured, observation
from zgrid.agents.spec import MEASURED, GridSpec
from zgrid.agents.talk import Talk
from zgrid.devices import Market
from zgrid.gather import STALE, TAKEN, Gather
from zgrid.links import Ears
from zgrid.messages import (
    ENV,
    Action,
    Brief,
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
    make,
)
from zgrid.policies import GridView
from zgrid.post import Post
from zgrid.protocols import Result


class GridAgent:
    """The agent of one grid.

    One step: ``begin`` takes the action, ``exchange`` runs the rounds with neighbours, ``negotiate`` and ``converse``
    those with the devices, ``decide`` gives the setpoints, ``assess`` turns what came of them into reward and next
    observation. ``receive`` does the same on messages.
    """

    def __init__(self, spec: GridSpec) -> None:
        self.id = spec.id
        self.spec = spec
        self.refused: Counter[str] = Counter()
        self.reward = spec.build_reward()
        self._dt_h = spec.dt_h
        self.ears = Ears.where_needed(spec.links, spec.id, spec.dt_h)
        """What it hears all others with; None: links without faults."""
        self._devices = tuple(device.id for device in spec.devices)
        self._actors = tuple(actor_of(device) for device in spec.devices)
        self._slices = series_slices(self._actors)
        self._vertical = vertical_of(spec, self._actors)
        controls = {device.id: device.local_control() for device in spec.devices}
        self._droops = any(control is not None for control in controls.values())
        forming = controls.get(spec.forming_unit or "")
        self._forming_mw_per_hz = 0.0 if forming is None else forming.gain_mw_per_hz
        self._policy = policy_of(spec, self._actors)
        self._trades = spec.trades
        self._no_terms = (0.0,) * (len(spec.term_names) - len(MEASURED))
        self._action: Floats | None = None
        self.fallen, self._holds_left = False, 0
        self._setpoints: list[Floats] = []
        self._wanted: list[Floats] | None = None
        self._count = 0
        self._begin_episode(0)
        self._network: NetworkState | None = None
        self._step, self._resetting = -1, True
        self._wire()

    # ---- what a grid does ------------------------------------------------------------------------------------------

    def reset(self, seed: int) -> None:
        """Begin an episode. The policy's randomness comes from the seed and the grid's name."""
        self._policy.reset((seed, crc32(self.id.encode())))
        self._begin_episode(seed)

    def begin(self, step: int, action: Floats | None) -> Mapping[str, Peer]:
        """Take the action of a step; a frame for each neighbour in round 1 (nothing: there is nobody to talk with)."""
        if self.ears is not None:
            self.ears.begin()
            action = self.ears.action(action, (0.0,) * len(self.spec.controls))
        self._action, self._count = action, self._count + 1
        self._wanted = None
        if self._horizontal is None:
            return {}
        return self._horizontal.start(self._count, self._coordination.local(self._wish()))

    def exchange(self, frames: Sequence[Peer]) -> Mapping[str, Peer]:
        """Take one round of neighbours' frames, in their order; those of the next (nothing: it is over)."""
        assert self._horizontal is not None
        return self._horizontal.take(frames)

    def briefs(self) -> list[Brief]:
        """What each device is told before they talk."""
        return [Brief(series) for series in self._device_series]

    def negotiate(self) -> Mapping[str, Peer]:
        """Begin to talk with the devices, after the neighbours: a frame for each in round 1 (nothing: decide now)."""
        if self._negotiation is None or self.fallen:
            return {}
        local = self._coordination.local(self._wish())
        demand_mw = self._coordination.dispatched_mw(self._coordinated())
        return self._negotiation.start(self._count, local._replace(units=(), demand_mw=demand_mw))

    def converse(self, frames: Sequence[Peer]) -> Mapping[str, Peer]:
        """Take one round of the devices' frames, in their order; those of the next (nothing: it is over)."""
        assert self._negotiation is not None
        return self._negotiation.take(frames)

    def decide(self) -> list[Setpoint]:
        """A setpoint for each device, from the action or, where that is None, from the grid's own policy, and from what
        was agreed with neighbours; once it has fallen back, what they had before, and then what is safe.
        """
        self._setpoints = setpoints = self._fallen_setpoints() if self.fallen else self._coordinated()
        told = zip(setpoints, self._device_series, self._measured, strict=True)
        return [make(Setpoint, one) for one in told]

    def fall_back(self, fallen: bool = True) -> None:
        """From now on its devices hold their setpoints for ``hold_steps``, and then are told the safe
        ones; or no longer.
        """
        self.fallen = fallen
        self._holds_left = self.spec.hold_steps if self._setpoints else 0

    def _wish(self) -> list[Floats]:
        """What the grid would do alone."""
        if self._wanted is None:
            self._wanted = self._fallen_wish() if self.fallen else self._chosen_setpoints()
        return self._wanted

    def _fallen_wish(self) -> list[Floats]:
        return self._setpoints or [device.safe for device in self.spec.devices]

    def _coordinated(self) -> list[Floats]:
        """What it does after talking with its neighbours."""
        if self._horizontal is None:
            return self._wish()
        changed = self._coordination.change(self._wish(), self._horizontal.protocol.result())
        return [floats("setpoint", values) for values in changed]

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
        trades = self._result().trades
        bought_mwh = net_bought_mwh(self.id, trades)
        reward, terms = self.reward.assess(states, settled(network, bought_mwh, self._dt_h), self._price)
        if self._horizontal is not None:
            terms = (*terms, self._horizontal.done_rounds, self._horizontal.status == "converged")
        if self._trades:
            paid = trade_cost(self.id, trades)
            reward, terms = reward - paid, (*terms, paid)
        self._learn(states, network)
        said = floats("reward and terms", (reward, *terms))
        return Report(said[0], said[1:] + measured(network), self._observation)

    def observe(self, states: Sequence[DeviceState], network: NetworkState) -> Report:
        """The first observation of an episode; nothing was done yet, so reward and terms of the reward are 0."""
        self._learn(states, network)
        return Report(0.0, self._no_terms + measured(network), self._observation)

    @property
    def last_step(self) -> int:
        """The step whose action, or the reset, it has heard last; negative before the first."""
        return self._step

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
        self._states.open(step)
        self._peers.open(step)
        self._subordinates.open(step)
        body = envelope.body
        self._resetting = type(body) is Reset
        if type(body) is Reset:
            self.reset(body.seed)
            return [Post(address, step, 0, body) for address in self._reset_channels]
        assert type(body) is Action
        frames = self.begin(step, body.values)
        if not frames:
            return self._brief_devices()
        assert self._horizontal is not None
        return self._peers.begin(self._horizontal, frames) + self._exchange_when_complete()

    def _on_peer(self, envelope: Envelope) -> list[Post]:
        talk = self._peers if envelope.sender in self._peers.expected else self._subordinates
        verdict = talk.hear(envelope)
        if verdict is not TAKEN:
            self.refused[f"{verdict} {envelope.sender}"] += 1
            return []
        return self._exchange_when_complete() if talk is self._peers else self._negotiate_when_complete()

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

    def _exchange_when_complete(self) -> list[Post]:
        """Go on with the neighbours while their rounds are complete; after the last one, with the devices."""
        heard = self._peers.collect()
        if heard is None:
            return []
        frames = self.exchange(heard)
        posts = self._peers.go_on(frames)
        return posts + (self._exchange_when_complete() if frames else self._brief_devices())

    def _brief_devices(self) -> list[Post]:
        """Open the negotiation with the devices, or decide where there is none."""
        frames = self.negotiate()
        if self._negotiation is None or not frames:
            return self._say_setpoints()
        briefs = zip(self._brief_channels, self.briefs(), strict=True)
        posts = [Post(address, self._step, 0, brief) for address, brief in briefs]
        return posts + self._subordinates.begin(self._negotiation, frames) + self._negotiate_when_complete()

    def _negotiate_when_complete(self) -> list[Post]:
        heard = self._subordinates.collect()
        if heard is None:
            return []
        frames = self.converse(heard)
        posts = self._subordinates.go_on(frames)
        return posts + (self._negotiate_when_complete() if frames else self._say_setpoints())

    def _say_setpoints(self) -> list[Post]:
        pairs = zip(self._setpoint_channels, self.decide(), strict=True)
        return [Post(address, self._step, 0, setpoint) for address, setpoint in pairs]

    def _report_when_complete(self) -> list[Post]:
        network = self._network
        if network is None or not self._states.complete:
            return []
        states = self._states.values()
        report = self.observe(states, network) if self._resetting else self.assess(states, network)
        return [make(Post, (self._report_channel, self._step, 0, report))]

    # ---- what it knows ---------------------------------------------------------------------------------------------

    def _wire(self) -> None:
        """Addresses and waiting places for the distributed execution."""
        self.hears = {channel(kind, self.id): frozenset((ENV,)) for kind in ("action", "reset", "network")}
        self.hears |= {channel("state", device): frozenset((device,)) for device in self._devices}
        self._peers = Talk(self.id, self.spec.weights)
        self._subordinates = Talk(self.id, self._devices if self.spec.head is not None else ())
        self.hears |= self._peers.hears | self._subordinates.hears
        self._brief_channels = tuple(channel("brief", device) for device in self._devices)
        self._setpoint_channels = tuple(channel("setpoint", device) for device in self._devices)
        self._reset_channels = tuple(channel("reset", device) for device in self._devices)
        self._report_channel = channel("report", self.id)
        self._states: Gather[DeviceState] = Gather(self._devices)

    def _begin_episode(self, seed: int) -> None:
        self._action = None
        if self.ears is not None:
            self.ears.reset(seed)
        carry = None if self.ears is None else self.ears.carry
        self._horizontal = horizontal_of(self.spec, seed, carry)
        self._negotiation = negotiation_of(self.spec, seed, carry)
        self._coordination = Coordination(self.spec, self._actors)
        self._wanted = None
        self._count = 0
        self._measured: list[Floats] = [()] * len(self._devices)
        self._setpoints = []
        self._last_states: Sequence[DeviceState] = ()
        self._last_network: NetworkState | None = None
        self._observation: FiniteArray = np.zeros(0, dtype=np.float32)
        self._price, self._market = 0.0, Market(0.0, 0.0, 0.0)
        self._device_series: list[Floats] = [()] * len(self._devices)

    def _learn(self, states: Sequence[DeviceState], network: NetworkState) -> None:
        """Keep what a step has shown, and what the coming one brings."""
        series = network.series
        self._price = series[0]
        self._market = Market(series[0], series[1], series[2])
        self._device_series = self._split(series, network.local)
        if self._droops:
            self._measured = self._measure(network)
        if self.ears is not None:
            states, network = self.ears.states(self._devices, states), self.ears.network(network)
        self._last_states, self._last_network = states, network
        self._observation = observation(states, network, self._result().values)
        if self._horizontal is not None or self._negotiation is not None:
            self._coordination.learn(states, network, self._device_series)

    def _split(self, series: Floats, local: Floats) -> list[Floats]:
        """The time series of each device, and what it measures."""
        split = []
        for (begin, end, measures), vm_pu in zip(self._slices, local, strict=True):
            split.append((*series[begin:end], vm_pu) if measures else series[begin:end])
        return split

    def _measure(self, network: NetworkState) -> list[Floats]:
        """What each device's own control measures: the voltage at its bus, and how far the frequency is from nominal.

        While the grid is islanded its forming unit gives what is missing, and the frequency falls with that by its
        droop. What it does itself is in the network already.
        """
        gain = self._forming_mw_per_hz
        deviation_hz = -network.p_forming_mw / gain if gain > 0.0 else 0.0
        forming = self.spec.forming_unit
        pairs = zip(self._devices, network.local, strict=True)
        return [(vm_pu, 0.0 if name == forming else deviation_hz) for name, vm_pu in pairs]

    def _view(self) -> GridView:
        states, network = self._last_states, self._last_network
        return GridView(self._observation, states, self._market, self._device_series, network)

    def _result(self) -> Result:
        """What was agreed with the neighbours; nothing where there are none."""
        return _NOTHING if self._horizontal is None else self._horizontal.protocol.result()


_NOTHING = Result()
