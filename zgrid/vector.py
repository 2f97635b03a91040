"""NetworkedVectorEnv: many copies of a topology stepped together in one process, for training without processes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from zgrid.agents.seeing import measured, observation
from zgrid.agents.spec import GRID_SERIES
from zgrid.errors import ActionError, Finding, TopologyError
from zgrid.fleet import Fleet
from zgrid.powerflow import Solution
from zgrid.spaces import Space, box
from zgrid.topology import Source, Topology, load
from zgrid.world import World

Observations = dict[str, NDArray[np.float32]]


class NetworkedVectorEnv:
    """``num_envs`` copies of a topology; agents are the grids, and every array has a leading axis of the copies.

    The conventions are those of ``gymnasium.vector``, with a dict by agent where a single-agent env has one array:
    ``reset(seed=s)`` seeds copy k with s + k; an episode that is over is begun anew by the next step, whose action is
    ignored for that copy and whose reward is 0 (``AutoresetMode.NEXT_STEP``). Copy k is the env
    ``zgrid.parallel_env(topology)`` that was reset with its seed, within 1e-7.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "zgrid_vector_v0", "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, topology: Source, num_envs: int, overrides: Mapping[str, Any] | None = None) -> None:
        """``overrides`` are dotted keys, as for ``--set``; the mode of the topology does not matter.

        Raises:
            TopologyError: a topology that cannot run, or has what only single envs do: a horizontal protocol, another
                vertical protocol than ``setpoint``, faults of links, observations or actions as dicts.
            ValueError: fewer than one copy.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs: expected at least 1, got {num_envs}")
        self.topology = topology if isinstance(topology, Topology) and not overrides else load(topology, overrides)
        _check(self.topology)
        self.num_envs = num_envs
        self.possible_agents = list(self.topology.grids)
        self.agents = list(self.possible_agents)
        self._world = World(self.topology)
        self._specs = self.topology.grid_specs
        self._rewards = [spec.build_reward() for spec in self._specs]
        self._fleet = Fleet(self.topology.device_specs, num_envs, self.topology.dt_h)
        self._days = np.array(self._world.calendar.days(self.topology.profiles.split, self.topology.episode_steps))
        self._rngs = [np.random.default_rng(self.topology.seed + k) for k in range(num_envs)]
        self._rows = np.zeros(num_envs, dtype=np.intp)
        self._steps = np.zeros(num_envs, dtype=np.intp)
        self._over = np.ones(num_envs, dtype=bool)
        self._solved = self._rows.copy()
        self._last_rewards = np.zeros((num_envs, len(self._specs)))
        self._networks: list[Any] = []
        self._solution: Solution | None = None
        self._terms: list[Any] = []
        self._slice_devices()
        self._make_spaces()

    # ---- spaces ----------------------------------------------------------------------------------------------------

    def single_observation_space(self, agent: str) -> Space:
        """The space of one copy."""
        return self.single_observation_spaces[agent]

    def single_action_space(self, agent: str) -> Space:
        """The space of one copy."""
        return self.single_action_spaces[agent]

    def observation_space(self, agent: str) -> Space:
        """The space of all copies, (num_envs, n_obs)."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Space:
        """The space of all copies, (num_envs, n_controls)."""
        return self.action_spaces[agent]

    # ---- episodes --------------------------------------------------------------------------------------------------

    def reset(
        self,
        *,
        seed: int | np.integer[Any] | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Observations, dict[str, dict[str, Any]]]:
        """Begin an episode in every copy, or in those of ``options={"reset_mask": (num_envs,) bool}``.

        ``options={"day": n}``, or one per copy, fixes the days of the data.

        Raises:
            ActionError: no such day, or a mask or seeds of another length.
        """
        options = options or {}
        which = np.asarray(options.get("reset_mask", np.ones(self.num_envs, dtype=bool)), dtype=bool)
        if which.shape != (self.num_envs,):
            raise ActionError(f"reset_mask: expected shape ({self.num_envs},), got {which.shape}")
        if self._solution is None and not which.all():
            raise ActionError("reset_mask: the first reset begins every copy")
        seeds: list[int | None] | None = None
        if isinstance(seed, int | np.integer):
            seeds = [int(seed) + k for k in range(self.num_envs)]
        elif seed is not None:
            seeds = list(seed)
        if seeds is not None and len(seeds) != self.num_envs:
            raise ActionError(f"seed: expected {self.num_envs} seeds, got {len(seeds)}")
        for k, one in enumerate(seeds or ()):
            if one is not None and which[k]:
                self._rngs[k] = np.random.default_rng(one)
        self._begin(which, options.get("day"))
        self._solve(np.where(which, self._rows, self._solved))
        kept = np.where(which[:, None], 0.0, self._last_rewards)
        self._terms = [tuple(np.where(which, 0.0, term) for term in terms) for terms in self._terms]
        return self._observations(), self._infos(kept)

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[
        Observations, dict[str, NDArray[np.float64]], dict[str, NDArray[np.bool_]], dict[str, NDArray[np.bool_]],
        dict[str, dict[str, Any]],
    ]:  # fmt: skip
        """One step of every copy; per agent an action (num_envs, n_controls).

        Raises:
            ActionError: before reset, an agent that is missing or unknown, or an action of another shape or not finite.
                Entries beyond [-1, 1] are clipped where they are applied.
        """
        if self._solution is None:
            raise ActionError("no episode is running; call reset() first")
        flat, over, rows = self._flat(actions), self._over.copy(), self._rows.copy()
        prices = [network.series[0] for network in self._networks]
        series = np.concatenate([self._series_of(network) for network in self._networks], axis=0).T
        local = np.concatenate([network.local for network in self._networks], axis=0).T
        self._fleet.step(flat, np.ascontiguousarray(series), np.ascontiguousarray(local))
        self._rows = (rows + 1) % self._world.calendar.n_rows
        self._steps += 1
        if over.any():
            self._begin(over, None)
            rows = np.where(over, self._rows, rows)
        self._solve(rows)
        rewards = self._assess(prices, over)
        self._over = (self._steps >= self.topology.episode_steps) & ~over
        nobody = np.zeros(self.num_envs, dtype=bool)
        shared = (
            np.broadcast_to(rewards.mean(axis=1)[:, None], rewards.shape) if self.topology.share_reward else rewards
        )
        return (
            self._observations(),
            {agent: shared[:, k].copy() for k, agent in enumerate(self.agents)},
            {agent: nobody.copy() for agent in self.agents},
            {agent: self._over.copy() for agent in self.agents},
            self._infos(rewards),
        )

    def state(self) -> NDArray[np.float32]:
        """The global state of every copy, (num_envs, n_state) float32."""
        if self._solution is None:
            raise ActionError("no episode is running; call reset() first")
        return self._world.global_rows(self._fleet.states(), self._solution, self._rows)

    def close(self) -> None:
        """Nothing to end."""

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _slice_devices(self) -> None:
        """Where the devices and the controls of each grid stand in those of all."""
        devices = np.cumsum([0, *(len(spec.devices) for spec in self._specs)])
        self._devices = [slice(*pair) for pair in itertools.pairwise(devices)]
        self._sizes = [len(spec.controls) for spec in self._specs]

    def _make_spaces(self) -> None:
        pad = self.topology.spaces.pad
        longest = max(self._sizes)
        self.single_action_spaces = {
            agent: gymnasium.spaces.Box(-1.0, 1.0, (longest if pad else size,), np.float32)
            for agent, size in zip(self.agents, self._sizes, strict=True)
        }
        sizes = []
        for agent, spec in zip(self.agents, self._specs, strict=True):
            area = self._world.area(agent)
            names = (area.bus_names, area.line_names, area.trafo_names, self._world.elsewhere)
            sizes.append(len(spec.observation_names(*names)))
        self._seen = [max(sizes) if pad else size for size in sizes]
        self.single_observation_spaces = dict(zip(self.agents, map(box, self._seen), strict=True))
        self.observation_spaces = {a: batch_space(s, self.num_envs) for a, s in self.single_observation_spaces.items()}
        self.action_spaces = {a: batch_space(s, self.num_envs) for a, s in self.single_action_spaces.items()}
        self.state_space = box(self._world.state_size)

    def _begin(self, which: NDArray[np.bool_], day: Any) -> None:
        """Put these copies at the start of an episode; each draws as a single env does."""
        fixed = None if day is None else np.asarray(day, dtype=np.intp)
        if fixed is not None and fixed.shape not in ((), (self.num_envs,)):
            raise ActionError(f"day: expected one or {self.num_envs}, got {len(fixed)}")
        fixed = None if fixed is None else np.broadcast_to(fixed, (self.num_envs,))
        n_days = self._world.calendar.n_days
        if fixed is not None and not ((fixed >= 0) & (fixed < n_days)).all():
            raise ActionError(f"day {day}: the data has days 0 to {n_days - 1}")
        for k in np.flatnonzero(which):
            drawn = int(self._rngs[k].choice(self._days))
            self._rngs[k].integers(2**31)  # a single env draws the seed of its policies here
            start = drawn if fixed is None else int(fixed[k])
            self._rows[k] = (start % n_days) * self._world.calendar.steps_per_day
        self._steps[which] = 0
        self._over[which] = False
        self._fleet.reset(which)

    def _flat(self, actions: Mapping[str, Any]) -> NDArray[np.float64]:
        """The actions of all grids side by side, (num_envs, n_controls) float64."""
        if actions.keys() != self.single_action_spaces.keys():
            raise ActionError(f"expected actions for {', '.join(self.agents)}; got {', '.join(map(str, actions))}")
        columns = []
        for agent, size in zip(self.agents, self._sizes, strict=True):
            values = np.asarray(actions[agent], dtype=np.float64)
            shape = self.action_spaces[agent].shape
            if values.shape != shape:
                raise ActionError(f"action of {agent}: expected shape {shape}, got {values.shape}")
            columns.append(values[:, :size])
        flat = np.concatenate(columns, axis=1)
        if not np.isfinite(flat).all():
            raise ActionError("actions: not finite")
        return flat

    def _solve(self, rows: NDArray[np.intp]) -> None:
        """Solve the network for what the devices do, at these rows, and learn what the coming ones bring."""
        world, fleet = self._world, self._fleet
        injecting = list(world.injecting)
        p, q = np.ascontiguousarray(fleet.p_mw[:, injecting]), np.ascontiguousarray(fleet.q_mvar[:, injecting])
        self._states = fleet.states()
        positions = np.zeros((self.num_envs, len(world.moving)))
        for column, (k, at) in enumerate(world.moving):
            positions[:, column] = self._states[k].state[at]
        self._solved = rows.copy()
        self._solution = world.solve_rows(p, q, positions, rows)
        self._networks = world.network_rows(self._solution, p, rows, self._rows)

    def _series_of(self, network: Any) -> Any:
        """The time series of a grid's devices, (n_series, num_envs)."""
        return np.array(network.series[len(GRID_SERIES) :]).reshape(-1, self.num_envs)

    def _assess(self, prices: Sequence[Any], over: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The reward of every grid, (num_envs, n_grids), 0 where an episode has just begun."""
        rewards = np.zeros((self.num_envs, len(self._specs)))
        self._terms = []
        for k, (reward, mine, network, price) in enumerate(
            zip(self._rewards, self._devices, self._networks, prices, strict=True)
        ):
            value, terms = reward.assess_rows(self._states[mine], network, price)
            rewards[:, k] = np.where(over, 0.0, value)
            self._terms.append(tuple(np.where(over, 0.0, term) for term in terms))
        self._last_rewards = rewards
        return rewards

    def _observations(self) -> Observations:
        seen = {}
        for agent, mine, network, size in zip(self.agents, self._devices, self._networks, self._seen, strict=True):
            raw = observation(self._states[mine], network, ())
            raw.flags.writeable = True
            seen[agent] = raw if raw.shape[1] == size else np.pad(raw, ((0, 0), (0, size - raw.shape[1])))
        return seen

    def _infos(self, rewards: NDArray[np.float64]) -> dict[str, dict[str, Any]]:
        """Every term of each grid by name, (num_envs,) each."""
        infos: dict[str, dict[str, Any]] = {}
        for k, (agent, spec, network) in enumerate(zip(self.agents, self._specs, self._networks, strict=True)):
            names = spec.term_names
            terms = self._terms[k] if self._terms else ()
            told = (*terms, *measured(network))
            if not terms:
                told = (*(np.zeros(self.num_envs) for _ in range(len(names) - len(told))), *told)
            infos[agent] = dict(zip(names, told, strict=True)) | {"own_reward": rewards[:, k].copy()}
        return infos


def _check(topology: Topology) -> None:
    findings = []
    if topology.horizontal is not None and any(spec.weights for spec in topology.grid_specs):
        findings.append(Finding("horizontal", "copies do not talk; expected no horizontal protocol (use parallel_env)"))
    if topology.links:
        findings.append(Finding("links", "copies send nothing; expected no faults of links (use parallel_env)"))
    for spec in topology.grid_specs:
        if spec.vertical.kind != "setpoint":
            findings.append(Finding("vertical", f"expected setpoint, got {spec.vertical.kind} (use parallel_env)"))
    for key in ("action", "observation"):
        if getattr(topology.spaces, key) != "flat":
            findings.append(Finding(f"spaces.{key}", "expected flat; copies have one array per agent"))
    if findings:
        raise TopologyError(topology.name, list(dict.fromkeys(findings)))


def vector_env(topology: Source = "3mg", num_envs: int = 1, **overrides: Any) -> NetworkedVectorEnv:
    """``num_envs`` copies of a topology in one process; ``overrides`` are dotted keys, as for ``--set``.

    Raises:
        TopologyError: a topology that cannot run, or not in copies.
    """
    return NetworkedVectorEnv(topology, num_envs, overrides)
