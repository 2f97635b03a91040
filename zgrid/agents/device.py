"""DeviceAgent: owns one device, does what its grid says, and tells what it did."""

from __future__ import annotations

from collections import Counter

from zgrid.agents.spec import DeviceSpec
from zgrid.gather import STALE
from zgrid.messages import DeviceState, Envelope, Floats, Reset, Setpoint, channel, floats
from zgrid.post import Post

_new = tuple.__new__  # a named tuple's own makes a call in Python of each


class DeviceAgent:
    """The agent of one device. ``reset`` and ``apply`` are what it does; ``receive`` does it on messages."""

    def __init__(self, spec: DeviceSpec) -> None:
        self.id = spec.id
        self.device = spec.build()
        self.refused: Counter[str] = Counter()
        self.hears = dict.fromkeys((channel("reset", self.id), channel("setpoint", self.id)), frozenset((spec.grid,)))
        self._channel = channel("state", self.id)
        self._step = -1
        self._state = self.device.initial()
        self._safe = spec.safe
        self.fallen = False
        self._heard = -1
        self.latched = False
        """Whether its watchdog has tripped: it keeps to its safe setpoint, whatever it is told, until it is rearmed."""

    def reset(self) -> DeviceState:
        """Begin an episode: the initial state, injecting nothing."""
        self._state = floats("initial state", self.device.initial())
        return DeviceState(0.0, 0.0, 0.0, 0.0, self._state)

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
        values = self._safe if self.latched or self.fallen else setpoint.values
        state, effect = self.device.step(self._state, values, setpoint.series)
        said = floats("effect and state", (*effect, *state))
        p_mw, q_mvar, cost, violation = said[:4]
        self._state = said[4:]
        return _new(DeviceState, (p_mw, q_mvar, cost, violation, self._state))

    def receive(self, envelope: Envelope) -> list[Post]:
        """Reset or Setpoint in, DeviceState out: once, on a channel that grid and env both hear."""
        if envelope.step <= self._step:
            self.refused[f"{STALE} {envelope.sender}"] += 1
            return []
        body = envelope.body
        if envelope.incarnation > self._heard:
            self._heard = envelope.incarnation
            self.rearm()
        if type(body) is Setpoint:
            state = self.apply(body)
        elif type(body) is Reset:
            state = self.reset()
        else:
            self.refused[f"unexpected {envelope.sender}"] += 1
            return []
        self._step = envelope.step
        return [_new(Post, (self._channel, self._step, 0, state))]
