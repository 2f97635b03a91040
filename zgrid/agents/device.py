"""DeviceAgent: owns one device, does what its grid says, and tells what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from zgrid.agents.spec import DeviceSpec
from zgrid.agents.talk import Talk
from zgrid.gather import DUPLICATE, STALE, TAKEN
from zgrid.links import Ears
from zgrid.messages import Brief, DeviceState, Envelope, Floats, Peer, Reset, Setpoint, channel, floats, make
from zgrid.post import Post
from zgrid.protocols import Local, Rounds, Unit, seated, vertical_class


class DeviceAgent:
    """The agent of one device. ``reset`` and ``apply`` are what it does; ``receive`` does it on messages."""

    def __init__(self, spec: DeviceSpec) -> None:
        self.id = spec.id
        self.device = spec.build()
        self.refused: Counter[str] = Counter()
        self.hears = dict.fromkeys((channel("reset", self.id), channel("setpoint", self.id)), frozenset((spec.grid,)))
        self.spec = spec
        self._talk = Talk(self.id, (spec.grid,) if spec.me is not None else ())
        if spec.me is not None:
            self.hears |= self._talk.hears | {channel("brief", self.id): frozenset((spec.grid,))}
        self.remembers = spec.remembers
        self.ears = Ears.where_needed(spec.links, self.id, spec.dt_h)
        """What it hears its grid with; None: links without faults."""
        self._count = 0
        self._begin_episode(0)
        self._channel = channel("state", self.id)
        self._step = self._briefed = -1
        self._state = self.device.initial()
        self._safe = spec.safe
        self.fallen = False
        self._heard = -1
        self.latched = False
        """Whether its watchdog has tripped: it keeps to its safe setpoint, whatever it is told, until it is rearmed."""

    def reset(self, seed: int = 0) -> DeviceState:
        """Begin an episode: the initial state, injecting nothing."""
        self._begin_episode(seed)
        self._state = floats("initial state", self.device.initial())
        return DeviceState(0.0, 0.0, 0.0, 0.0, self._state)

    @property
    def last_step(self) -> int:
        """The step that it has taken last, or was restored to; negative before the first."""
        return self._step

    @property
    def state(self) -> Floats:
        """Its state, in the order of its kind's ``STATE``."""
        return self._state

    def restore(self, step: int, state: Floats) -> None:
        """Go on from the state it had after a step."""
        self._step, self._state = step, state

    def fall_back(self, fallen: bool = True) -> None:
        """Keep to the safe setpoint from now on, because it stands in for one that has failed; or no longer."""
        self.fallen = fallen

    def trip(self) -> None:
        """Keep to the safe setpoint until :meth:`rearm`, or until a newer incarnation of its grid speaks."""
        self.latched = True

    def rearm(self) -> None:
        """Follow setpoints again."""
        self.latched = False

    def apply(self, setpoint: Setpoint) -> DeviceState:
        """Apply a setpoint for one step; the safe one where it has latched or fallen back."""
        self._begin_step()
        heard = self._heard_by(setpoint)
        values = self._safe if self.latched or self.fallen or heard is None else self._own(heard)
        self._begun = False
        state, effect = self.device.step(self._state, values, setpoint.series)
        said = floats("effect and state", (*effect, *state))
        p_mw, q_mvar, cost, violation = said[:4]
        self._state = said[4:]
        return make(DeviceState, (p_mw, q_mvar, cost, violation, self._state))

    def brief(self, brief: Brief) -> Mapping[str, Peer]:
        """Before the setpoints, the grid talks with its devices: this one's frame of round 1."""
        assert self._walk is not None
        self._begin_step()
        offer = None if self.latched or self.fallen else self.device.offer(self._state, brief.series)
        units = () if offer is None else (Unit(self.id, *offer),)
        self._count += 1
        self._agreed = False
        return self._walk.start(self._count, Local({}, units, 0.0, self.device.dt_h))

    def converse(self, frames: Sequence[Peer]) -> Mapping[str, Peer]:
        """Take the grid's frame of a round: the one of the next (nothing: it is over)."""
        assert self._walk is not None
        following = self._walk.take(frames)
        self._agreed = not following
        return following

    def receive(self, envelope: Envelope) -> list[Post]:
        """Reset or Setpoint in, DeviceState out: once, on a channel that grid and env both hear. Before a setpoint
        there may be talk: a brief, and rounds.
        """
        if envelope.step <= self._step:
            self.refused[f"{STALE} {envelope.sender}"] += 1
            return []
        body = envelope.body
        if type(body) is Peer and self._walk is not None:
            return self._on_peer(envelope)
        if type(body) is Brief and self._walk is not None:
            return self._on_brief(envelope.step, self._walk, body)
        if envelope.incarnation > self._heard:
            self._heard = envelope.incarnation
            self.rearm()
        if type(body) is Setpoint:
            state = self.apply(body)
        elif type(body) is Reset:
            state = self.reset(body.seed)
        else:
            self.refused[f"unexpected {envelope.sender}"] += 1
            return []
        self._step = envelope.step
        return [make(Post, (self._channel, self._step, 0, state))]

    def _on_brief(self, step: int, walk: Rounds, brief: Brief) -> list[Post]:
        if step <= self._briefed:  # said again, by a successor of the grid or for one of the proxy
            self.refused[f"{DUPLICATE} {self.spec.grid}"] += 1
            return []
        self._briefed = step
        self._talk.open(step)
        return self._talk.begin(walk, self.brief(brief)) + self._converse_when_complete()

    def _on_peer(self, envelope: Envelope) -> list[Post]:
        verdict = self._talk.hear(envelope)
        if verdict is not TAKEN:
            self.refused[f"{verdict} {envelope.sender}"] += 1
            return []
        return self._converse_when_complete()

    def _converse_when_complete(self) -> list[Post]:
        heard = self._talk.collect()
        if heard is None:
            return []
        frames = self.converse(heard)
        posts = self._talk.go_on(frames)
        return posts + (self._converse_when_complete() if frames else [])

    def _begin_step(self) -> None:
        """Tell the ears that a step begins, once, whether or not there is talk before the setpoint."""
        if self.ears is not None and not self._begun:
            self.ears.begin()
        self._begun = True

    def _heard_by(self, setpoint: Setpoint) -> Setpoint | None:
        """What comes of a setpoint over its link; None: it knows of none. What it measures itself takes no link."""
        if self.ears is None:
            return setpoint
        values = self.ears.setpoint(self.spec.grid, setpoint.values, self.device.neutral())
        return None if values is None else setpoint._replace(values=values)

    def _own(self, setpoint: Setpoint) -> Floats:
        """The setpoint as the device follows it: with what it has agreed to, and with its own local control."""
        values, agreed = setpoint.values, self._agreed
        self._agreed = False
        if agreed and self._walk is not None and "p_mw" in self.device.SETPOINT:
            p_mw = self._walk.protocol.result().dispatch_mw.get(self.id)
            at = self.device.SETPOINT.index("p_mw")
            values = values if p_mw is None else floats("dispatch", (*values[:at], p_mw, *values[at + 1 :]))
        if self._control is not None:
            measured = dict(zip(MEASURED_BY_DEVICES, setpoint.measured, strict=False))
            values = floats("corrected setpoint", self._control.correct(values, measured))
        return values

    def _begin_episode(self, seed: int) -> None:
        spec = self.spec
        self._agreed = self._begun = False
        if self.ears is not None:
            self.ears.reset(seed)
        self._count = 0
        self._control = spec.local_control()
        self._walk: Rounds | None = None
        if spec.me is not None and spec.vertical is not None:
            kind = vertical_class(spec.vertical.kind).NEGOTIATION
            carry = None if self.ears is None else self.ears.carry
            self._walk = seated(kind, spec.vertical, spec.me, seed, carry)


MEASURED_BY_DEVICES = ("vm_pu", "deviation_hz")
"""What ``Setpoint.measured`` has."""
