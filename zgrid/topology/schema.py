"""The schema of a topology file."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, StringConstraints

from zgrid.agents import DeviceSpec, GridSpec
from zgrid.agents.reward import RewardConfig
from zgrid.devices import AssetConfig, SeriesSource
from zgrid.failure import FAIL, FailurePolicy, OnFailure
from zgrid.links import LinkConfig
from zgrid.policies import PolicyConfig
from zgrid.protocols import Participant, ProtocolConfig, peers, star, vertical_class

GridId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z]+_[0-9]+$")]
DeviceId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Run: TypeAlias = Literal["process", "inline", "external"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)


class NetworkConfig(_Section):
    """An electrical network: the feeder's, or a grid's own."""

    kind: str = Field(
        description="ieee13, ieee34, ieee123, case33bw, cigre_mv, cigre_lv, feeder_N, module:function that returns a "
        "pandapower net, or a JSON file of one"
    )
    load: SeriesSource = Field(1.0, description="time series that scales the network's own loads, or a constant")
    load_scale: float = Field(1.0, ge=0, description="factor on that series")
    taps: dict[str, int] = Field({}, description="tap position by transformer name")
    source_vm_pu: float | None = Field(None, gt=0, description="voltage of the source, where it is the slack")


class ProfilesConfig(_Section):
    """Where time series come from."""

    file: str | tuple[str, ...] = Field(description="CSV or npz files; zgrid:NAME is one that ships with zgrid")
    dt_h: float | None = Field(
        None, gt=0, description="hours per row of files that do not say; default: one row a step"
    )
    split: Literal["all", "train", "test"] = Field("all", description="the days that episodes start on")


class PowerFlowConfig(_Section):
    """How the network is solved."""

    kind: str = Field("fast", description="fast, runpp (the reference), or a plug-in, module:Class")


class BrokerConfig(_Section):
    """The ZeroMQ proxy."""

    host: str = Field("127.0.0.1", description="address that the proxy binds and the nodes connect to")
    ports: tuple[int, int] | None = Field(None, description="its two ports; default: chosen by the system")
    keys: str | None = Field(
        None, description="folder of keys (zgrid keys): encrypt, and check who says and hears what"
    )
    insecure: bool = Field(False, description="allow an address other than loopback, without any keys")
    on_failure: FailurePolicy = Field(FAIL, description="a proxy that dies: fail, or restart (on the same ports)")
    silence_s: float = Field(
        1.5, ge=0.5, description="a node of which nothing was heard for so long has failed; heartbeats come every 0.3 s"
    )
    ready_timeout_s: float = Field(60.0, gt=0, description="patience until all agents are ready")
    step_timeout_s: float = Field(30.0, gt=0, description="patience for the messages of one phase of a step")


class Pool(_Section):
    """So many worker processes share the grids, each with its devices."""

    pool: int = Field(ge=1, description="worker processes")


class SpacesConfig(_Section):
    """The shape of actions and observations."""

    action: Literal["flat", "dict"] = Field("flat", description="flat: one Box; dict: Box and MultiDiscrete")
    observation: Literal["flat", "dict"] = Field(
        "flat", description="flat: one Box; dict: with the global state beside"
    )
    pad: bool = Field(False, description="make all grids' spaces equal by padding with zeros")


class GridConfig(_Section):
    """One microgrid."""

    network: NetworkConfig
    connect_at: str | None = Field(None, description="bus of the feeder at which the grid's source bus hangs (its PCC)")
    price: SeriesSource = Field(description="time series of the price in $/MWh, or a constant")
    reward: SerializeAsAny[RewardConfig] | None = Field(None, description="default: the topology's")
    policy: SerializeAsAny[PolicyConfig] | None = Field(None, description="default: the topology's")
    vertical: SerializeAsAny[ProtocolConfig] | None = Field(None, description="default: the topology's")
    neighbours: tuple[str, ...] = Field((), description="grids it talks to in the horizontal protocol")
    run: Run = Field("process", description="as for devices: where the grid's agent runs over ZeroMQ")
    host: str | None = Field(None, description="as for devices: the machine it runs on")
    on_failure: FailurePolicy = Field(FAIL, description="what its failure leads to")
    islanding: Literal["blackout", "grid_forming"] = Field(
        "blackout", description="cut off from its source: dead, or held by its forming unit"
    )
    forming_unit: str | None = Field(None, description="the device at whose bus the voltage is held while islanded")
    forming_vm_pu: float = Field(1.0, gt=0, description="the voltage it holds")
    devices: dict[DeviceId, SerializeAsAny[AssetConfig]] = Field(min_length=1)


class Topology(_Section):
    """Everything a run needs."""

    name: str = Field(min_length=1)
    centralized: bool = Field(False, description="true: direct calls, no broker")
    message_broker: Literal["in_memory", "zmq"] = Field("zmq", description="the broker where centralized is false")
    dt_h: float = Field(1.0, ge=0.001, le=24, description="hours per step")
    episode_steps: int = Field(24, ge=1, description="steps per episode")
    seed: int = Field(0, ge=0, description="seed of the first reset")
    share_reward: bool = Field(False, description="give every grid the mean of all rewards")
    observability: Literal["area", "full"] = Field(
        "area", description="full: grids see all voltages (centralized only)"
    )
    profiles: ProfilesConfig
    network: NetworkConfig | None = Field(
        None, description="the feeder that the grids hang on; none: grids stand alone"
    )
    power_flow: PowerFlowConfig = PowerFlowConfig.model_validate({})
    broker: BrokerConfig = BrokerConfig.model_validate({})
    placement: Literal["agent", "grid"] | Pool = Field(
        "agent", description="which agents share a process: none, those of a grid, or pool: N, all grids over N of them"
    )
    spaces: SpacesConfig = SpacesConfig.model_validate({})
    reward: SerializeAsAny[RewardConfig]
    policy: SerializeAsAny[PolicyConfig]
    vertical: SerializeAsAny[ProtocolConfig]
    horizontal: SerializeAsAny[ProtocolConfig] | None = Field(None, description="protocol between neighbour grids")
    links: tuple[LinkConfig, ...] = Field((), description="faults of links: delays, losses, attacks; default: none")
    grids: dict[GridId, GridConfig] = Field(min_length=1)

    @property
    def mode(self) -> str:
        """centralized, in_memory or zmq."""
        return "centralized" if self.centralized else self.message_broker

    @property
    def device_specs(self) -> tuple[DeviceSpec, ...]:
        """All devices, grid by grid, in the order of the file."""
        return tuple(device for grid in self.grid_specs for device in grid.devices)

    @property
    def grid_specs(self) -> tuple[GridSpec, ...]:
        """All grids, in the order of the file."""
        return tuple(self._grid_spec(grid_id) for grid_id in self.grids)

    def _grid_spec(self, grid_id: str) -> GridSpec:
        grid = self.grids[grid_id]
        vertical = grid.vertical or self.vertical
        names = [f"{grid_id}.{name}" for name in grid.devices]
        circle = star(grid_id, names) if vertical_class(vertical.kind).NEGOTIATION is not None else {}
        devices = tuple(
            DeviceSpec(name, grid_id, config, self.dt_h, vertical, circle.get(name), self.links)
            for name, config in zip(names, grid.devices.values(), strict=True)
        )
        return GridSpec(
            grid_id,
            self.dt_h,
            devices,
            grid.reward or self.reward,
            grid.policy or self.policy,
            vertical,
            self._talking,
            self._peers[grid_id],
            circle.get(grid_id),
            grid.on_failure.hold_steps,
            None if grid.forming_unit is None else f"{grid_id}.{grid.forming_unit}",
            self.links,
        )

    @property
    def _talking(self) -> ProtocolConfig | None:
        """The horizontal protocol, unless it is that of having none."""
        return None if self.horizontal is None or self.horizontal.kind == "none" else self.horizontal

    @cached_property
    def _peers(self) -> dict[str, Participant]:
        """Every grid among its neighbours; alone where there is no horizontal protocol."""
        talk = self._talking is not None
        return peers({name: grid.neighbours if talk else () for name, grid in self.grids.items()})

    def runs(self) -> dict[str, Run]:
        """Where each agent runs over ZeroMQ, by agent id; devices before grids, as they come up."""
        devices: dict[str, Run] = {
            f"{grid_id}.{name}": device.run
            for grid_id, grid in self.grids.items()
            for name, device in grid.devices.items()
        }
        return devices | {grid_id: grid.run for grid_id, grid in self.grids.items()}

    def on_failure(self) -> dict[str, OnFailure]:
        """What the failure of each agent leads to, by agent id."""
        of_grids = {grid_id: grid.on_failure for grid_id, grid in self.grids.items()}
        return {device.id: device.config.on_failure for device in self.device_specs} | of_grids

    @property
    def tolerates_gaps(self) -> bool:
        """Whether a run may go on when something has failed. Then a gap in what is heard can be the trace of that,
        as of a link that was down, and is counted; what is missing still is: no step ends without it.
        """
        policies = (self.broker.on_failure, *self.on_failure().values())
        return any(policy.kind != "fail" for policy in policies)

    def series(self) -> set[str]:
        """Names of all time series in use."""
        networks = [grid.network for grid in self.grids.values()] + ([self.network] if self.network else [])
        sources = [network.load for network in networks] + [grid.price for grid in self.grids.values()]
        for grid in self.grids.values():
            sources += [source for device in grid.devices.values() for source in device.series()]
        return {source for source in sources if isinstance(source, str)}

    def hash(self, agent: str | None = None) -> str:
        """SHA-256 over what agents must agree on: grids, devices and their order, protocols, links, step; not where
        or how anything runs, and not the electrical networks, which only the env knows.

        With an ``agent``: over what that one has to know. Of files of policies only their content counts, and only to
        the grids: the machine of a device needs none.
        """
        data = self.model_dump(
            mode="json", include={"dt_h", "reward", "policy", "vertical", "horizontal", "links", "grids"}
        )
        for grid in data["grids"].values():
            for key in ("run", "host", "network", "connect_at", "islanding", "forming_unit", "forming_vm_pu"):
                del grid[key]
            for device in grid["devices"].values():
                del device["run"], device["host"]
        for holder in (data, *data["grids"].values()):
            if agent is not None and agent not in self.grids:
                del holder["policy"]
            elif holder["policy"] is not None and "sha256" in holder["policy"]:
                del holder["policy"]["file"]
        return hashlib.sha256(json.dumps(data).encode()).hexdigest()
