"""What an agent is built from: the part of a topology that concerns it, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from zgrid.agents.reward import Reward, RewardConfig, reward_class
from zgrid.devices import AssetConfig, Control, Device, device_class
from zgrid.links import LinkConfig, reaches
from zgrid.policies import PolicyConfig
from zgrid.protocols import LocalControl, Participant, ProtocolConfig, horizontal_class, vertical_class

Names: TypeAlias = tuple[str, ...]

GRID_SERIES = ("price", "price_low", "price_high", "load")
"""A grid's own time series, before those of its devices: price now, its daily quartiles ($/MWh), load (pu)."""


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One device: its global id, the id of its grid, its parameters, its part in the grid's vertical protocol, and the
    rules of all faults of links."""

    id: str
    grid: str
    config: AssetConfig
    dt_h: float
    vertical: ProtocolConfig | None = None
    me: Participant | None = None
    """Where the vertical protocol talks in rounds: the device among those of its grid."""
    links: tuple[LinkConfig, ...] = ()

    def local_control(self) -> LocalControl | None:
        """What it does by itself on top of its setpoints, for one episode."""
        if self.vertical is None:
            return None
        kind, name = vertical_class(self.vertical.kind), self.id.partition(".")[2]
        control: LocalControl | None = kind.local_control(self.vertical, self.config, name)
        return control

    @property
    def remembers(self) -> bool:
        """Whether its agent knows more of an episode than the state that it says in every step."""
        return self.me is not None or self.local_control() is not None or reaches(self.links, self.id)

    def build(self) -> Device:
        """The device's physics, on floats."""
        device: Device = device_class(self.config.kind).one(self.config, self.dt_h)
        return device

    @property
    def safe(self) -> tuple[float, ...]:
        """The setpoint that the topology declares safe, in the order of its kind's ``SETPOINT``."""
        safe: tuple[float, ...] = device_class(self.config.kind).safe(self.config)
        return safe

    @property
    def controls(self) -> tuple[Control, ...]:
        """The entries of the device's action."""
        controls: tuple[Control, ...] = device_class(self.config.kind).controls(self.config)
        return controls


@dataclass(frozen=True, slots=True)
class GridSpec:
    """One grid: its devices, protocols, reward and policy. ``peer`` is its place among its neighbours, ``head`` that
    among its devices where the vertical protocol talks in rounds.

    ``hold_steps`` is for how long its devices hold their last setpoints once it has failed and falls back. ``links``
    are the rules of all faults of links.
    """

    id: str
    dt_h: float
    devices: tuple[DeviceSpec, ...]
    reward: RewardConfig
    policy: PolicyConfig
    vertical: ProtocolConfig
    horizontal: ProtocolConfig | None
    peer: Participant
    head: Participant | None = None
    hold_steps: int = 1
    forming_unit: str | None = None
    """The device that holds the voltage, and with droop makes the frequency, while the grid is islanded."""
    links: tuple[LinkConfig, ...] = ()

    @property
    def weights(self) -> Mapping[str, float]:
        """The neighbours it talks with, and their weights."""
        return self.peer.weights if self.horizontal is not None else {}

    @property
    def trades(self) -> bool:
        """Whether its horizontal protocol moves money between grids."""
        return bool(self.weights and self.horizontal and horizontal_class(self.horizontal.kind).TRADES)

    def build_reward(self) -> Reward:
        """The grid's reward."""
        costs = [device_class(device.config.kind).COST for device in self.devices]
        reward: Reward = reward_class(self.reward.kind)(self.reward, costs, self.dt_h)
        return reward

    @property
    def controls(self) -> tuple[tuple[str, Control], ...]:
        """(device id, control) for each entry of the grid's action, in order."""
        return tuple((device.id, control) for device in self.devices for control in device.controls)

    @property
    def term_names(self) -> tuple[str, ...]:
        """Names of the terms of a Report."""
        talking = TALKING if self.weights else ()
        trading = TRADING if self.trades else ()
        return (*self.build_reward().term_names, *talking, *trading, *MEASURED)

    def observation_names(self, buses: Names, lines: Names, trafos: Names, elsewhere: Names = ()) -> tuple[str, ...]:
        """What each entry of an observation is, for the grid's own elements and, with full observability, all buses."""
        names: list[str] = []
        for device in self.devices:
            entries = ("p_mw", "q_mvar", *(f"state.{name}" for name in device_class(device.config.kind).STATE))
            names += [f"{device.id}.{entry}" for entry in entries]
        names += [*(f"{name}_per_100" for name in GRID_SERIES[:3]), "load_pu"]
        for device in self.devices:
            names += [f"{device.id}.series.{name}" for name in device_class(device.config.kind).SERIES]
        names += ["hour_sin", "hour_cos"]
        if self.horizontal is not None and self.weights:
            names += list(horizontal_class(self.horizontal.kind).RESULT)
        names += ["p_pcc_mw", "q_pcc_mvar"]
        names += [f"vm_pu[{bus}]" for bus in buses]
        names += [f"loading_pu[{name}]" for name in (*lines, *trafos)]
        return (*names, *(f"vm_pu[{bus}]" for bus in elsewhere))


TALKING = ("rounds", "agreed")
"""What a Report tells after the terms of the reward where grids talk: rounds played in the step, and 1 if its protocol
had converged by its own measure, else 0."""

TRADING = ("trade_cost",)
"""What it tells then where they trade: what the grid paid for its trades, $."""

MEASURED = ("p_pcc_mw", "q_pcc_mvar", "vm_min_pu", "vm_max_pu", "converged")
"""What every Report tells beside the terms of the reward; voltages are 0 where the area is dead or diverged."""
