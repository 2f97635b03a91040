"""NetworkedGridEnv: a topology as a PettingZoo ParallelEnv; its agents are the grids."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pettingzoo
from numpy.typing import NDArray
from pettingzoo.utils import conversions

from zgrid.agents.spec import DeviceSpec
from zgrid.devices import device_class
from zgrid.errors import ActionError, TopologyError
from zgrid.execution import DirectExecution, Execution
from zgrid.lockstep import MessageExecution, new_run
from zgrid.messages import ENV, DeviceState
from zgrid.messaging import Address, InMemoryBroker, ZmqBroker, credentials_of
from zgrid.outcome import Outcome
from zgrid.session import Session
from zgrid.spaces import Space, action_codecs, box, flat_of_all, policy_findings, with_state
from zgrid.topology import Source, Topology, load
from zgrid.topology.nodes import node_plans
from zgrid.world import World

Observation = Any


class NetworkedGridEnv(pettingzoo.ParallelEnv[str, Observation, Any]):  # type: ignore[misc]
    """Agents are the grids of the topology; an action of None lets a grid's own policy decide.

    Nothing is started before the first ``reset``: no socket, no thread, no process. A live env pickles and copies by
    being made anew from its topology.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "zgrid_v0",
        "render_modes": ["human", "ansi"],
        "is_parallelizable": True,
    }

    def __init__(
        self,
        topology: Source,
        overrides: Mapping[str, Any] | None = None,
        *,
        render_mode: str | None = None,
        connect: Address | None = None,
        on_ready: Callable[[set[str]], None] | None = None,
        on_silent: Callable[[str, int], None] | None = None,
    ) -> None:
        """``overrides`` are dotted keys, as for ``--set``. With ``connect`` the env joins a proxy whose nodes somebody
        else starts; ``on_ready`` is then told which agents are there, and ``on_silent`` which node does not answer,
        with its incarnation, and has to be begun anew.

        Raises:
            TopologyError: a topology that cannot run.
            NetworkError: an electrical network that cannot be built.
        """
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode {render_mode!r}: expected one of {self.metadata['render_modes']}")
        self.topology = topology if isinstance(topology, Topology) and not overrides else load(topology, overrides)
        self.render_mode = render_mode
        self._connect, self._on_ready, self._on_silent = connect, on_ready, on_silent
        self._world = World(self.topology)
        self._execution: Execution | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._outcome: Outcome | None = None
        self._rng = np.random.default_rng(self.topology.seed)
        self._step_count = 0
        self._day = 0
        self.possible_agents = list(self.topology.grids)
        self.agents: list[str] = []
        self._make_spaces()
        findings = policy_findings(self.topology, self._sizes)
        if findings:
            raise TopologyError(self.topology.name, findings)

    # ---- spaces ----------------------------------------------------------------------------------------------------

    def observation_space(self, agent: str) -> Space:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Space:
        return self.action_spaces[agent]

    def observation_names(self, agent: str) -> tuple[str, ...]:
        """What each entry of an agent's observation is."""
        area = self._world.area(agent)
        spec = self._specs[agent]
        return spec.observation_names(area.bus_names, area.line_names, area.trafo_names, self._world.elsewhere)

    def action_names(self, agent: str) -> tuple[str, ...]:
        """What each entry of an agent's action is: ``device.control``."""
        return tuple(f"{device}.{control.name}" for device, control in self._specs[agent].controls)

    # ---- episodes --------------------------------------------------------------------------------------------------

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Begin an episode on a seeded day of the split, or on ``options={"day": n}`` of the data.

        Raises:
            ActionError: no such day.
            StartTimeout: an agent does not come up.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        day = int(self._rng.choice(self._days))
        policy_seed = int(self._rng.integers(2**31))
        if options and "day" in options:
            day = int(options["day"])
            if not 0 <= day < self._world.calendar.n_days:
                raise ActionError(f"day {day}: the data has days 0 to {self._world.calendar.n_days - 1}")
        execution = self._execution or self._start()
        self._day, self._step_count = day, 0
        self.agents = list(self.possible_agents)
        self._outcome = outcome = execution.reset(day, policy_seed)
        return self._observations(outcome), self._infos(outcome)

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """One step of ``dt_h``; an action for every agent, None for its own policy.

        Raises:
            ActionError: before reset, after the end, an agent that is missing or unknown, or an action that is not in
                the space.
            AgentError: an agent raised. StepTimeout: a message did not come. NodeDiedError: a node ended.
        """
        execution = self._execution
        if execution is None or not self.agents:
            raise ActionError("no episode is running; call reset() first")
        if actions.keys() != self._specs.keys():
            raise ActionError(f"expected actions for {', '.join(self.agents)}; got {', '.join(map(str, actions))}")
        given = [actions[agent] for agent in self.possible_agents]
        values = flat_of_all(self._codecs, given) if execution.columnar else None
        if values is None:
            pairs = zip(given, self._codecs, strict=True)
            flat = [None if action is None else codec.to_flat(action) for action, codec in pairs]
            self._outcome = outcome = execution.step(flat)
        else:
            self._outcome = outcome = execution.step_all(values)
        self._step_count += 1
        over = self._step_count >= self.topology.episode_steps
        agents = self.agents
        if over:
            self.agents = []
        return (
            self._observations(outcome),
            self._rewards(outcome),
            dict.fromkeys(agents, False),
            dict.fromkeys(agents, over),
            self._infos(outcome),
        )

    def state(self) -> NDArray[np.float32]:
        """The global state, (n_state,) float32: for centralized critics, in every mode."""
        if self._outcome is None:
            raise ActionError("no episode is running; call reset() first")
        return self._world.global_state(self._outcome.states)

    def stats(self) -> dict[str, Any]:
        """Since the start: ``messages`` and ``bytes`` by kind (bytes only where encoded), ``refused`` by cause, and
        ``latency_ms`` by kind of what the env heard; empty in centralized mode.

        ``links``, the same in every mode, has for each link with faults what became of its messages in this episode:
        ``source``, ``destination``, ``kind``, and the counts of :class:`zgrid.links.Counts` by name, with ``age_mean``.
        """
        if self._execution is None:
            return {"messages": {}, "bytes": {}, "refused": {}, "latency_ms": {}, "links": []}
        return self._execution.stats()

    def close(self) -> None:
        """End everything that was started; again is harmless, and ``reset`` starts anew."""
        execution, self._execution, self.agents = self._execution, None, []
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
        if execution is not None:
            execution.close()

    def render(self) -> str | None:
        """The last step as a line per grid: returned ("ansi") or printed ("human")."""
        text = self._text()
        if self.render_mode == "ansi":
            return text
        if self.render_mode == "human":
            print(text)
        return None

    def snapshot(self) -> dict[str, float]:
        """The last step in engineering units, by name: day, hour, and per grid and device what it did."""
        outcome = self._outcome
        if outcome is None:
            raise ActionError("no episode is running; call reset() first")
        values: dict[str, float] = {"day": self._day, "hour": self._hour_done()}
        values |= {f"{agent}.price": price for agent, price in self._world.prices_done().items()}
        for agent, report in zip(self.possible_agents, outcome.reports, strict=True):
            values |= {f"{agent}.{name}": value for name, value in zip(self._terms[agent], report.terms, strict=True)}
        for spec, state in zip(self.topology.device_specs, outcome.states, strict=True):
            values |= _device_values(spec, state)
        return values

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _make_spaces(self) -> None:
        topology = self.topology
        self._specs = {spec.id: spec for spec in topology.grid_specs}
        self._terms = {agent: spec.term_names for agent, spec in self._specs.items()}
        self._told = [(*names, "own_reward") for names in self._terms.values()]
        self._codecs = action_codecs(topology)
        self._days = np.array(self._world.calendar.days(topology.profiles.split, topology.episode_steps))
        self.action_spaces = dict(zip(self.possible_agents, (codec.space for codec in self._codecs), strict=True))
        sizes = {agent: len(self.observation_names(agent)) for agent in self.possible_agents}
        longest = max(sizes.values())
        self._sizes = dict.fromkeys(sizes, longest) if topology.spaces.pad else sizes
        self.state_space = box(self._world.state_size)
        self._with_state = topology.spaces.observation == "dict"
        self.observation_spaces = {agent: self._observation_space(size) for agent, size in self._sizes.items()}

    def _observation_space(self, size: int) -> Space:
        return with_state(box(size), self.state_space) if self._with_state else box(size)

    def _start(self) -> Execution:
        """Build the execution that the topology asks for and bring its agents up."""
        execution = _build_execution(self.topology, self._world, self._connect, self._on_ready, self._on_silent)
        self._finalizer = weakref.finalize(self, execution.close)
        try:
            execution.start()
        except BaseException:
            self._finalizer()
            self._finalizer = None
            raise
        self._execution = execution
        return execution

    def _observations(self, outcome: Outcome) -> dict[str, Observation]:
        seen = outcome.observations(tuple(self._sizes.values()))
        flat = dict(zip(self.possible_agents, seen, strict=True))
        if not self._with_state:
            return flat
        return {agent: {"obs": observation, "state": self.state()} for agent, observation in flat.items()}

    def _rewards(self, outcome: Outcome) -> dict[str, float]:
        rewards = outcome.rewards()
        if self.topology.share_reward:
            rewards = [sum(rewards) / len(rewards)] * len(rewards)
        return dict(zip(self.possible_agents, rewards, strict=True))

    def _infos(self, outcome: Outcome) -> dict[str, dict[str, Any]]:
        """Every term of each grid by name, and its own reward also where rewards are shared."""
        infos = dict(zip(self.possible_agents, outcome.infos(self._told), strict=True))
        self._tell_events(infos)
        return infos

    def _tell_events(self, infos: dict[str, dict[str, Any]]) -> None:
        """What happened to agents stands in their grid's info as ``events``, where something did."""
        for agent, what in self._execution.events() if self._execution is not None else ():
            grid = agent.partition(".")[0]
            for info in [infos[grid]] if grid in infos else infos.values():
                info.setdefault("events", []).append(f"{agent}: {what}")

    def _hour_done(self) -> float:
        """The hour of the day at which the last step began."""
        return max(self._step_count - 1, 0) * self.topology.dt_h % 24.0

    def _text(self) -> str:
        if self._outcome is None:
            return f"{self.topology.name}: not reset yet"
        lines = [f"{self.topology.name}, day {self._day}, step {self._step_count}"]
        for agent, report in zip(self.possible_agents, self._outcome.reports, strict=True):
            terms = dict(zip(self._terms[agent], report.terms, strict=True))
            lines.append(
                f"  {agent}: reward {report.reward:10.3f} $   import {terms['p_pcc_mw']:7.3f} MW   "
                f"voltage {terms['vm_min_pu']:.3f} to {terms['vm_max_pu']:.3f} pu"
            )
        return "\n".join(lines)

    def __getstate__(self) -> dict[str, Any]:
        return {"topology": self.topology, "render_mode": self.render_mode, "connect": self._connect}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["topology"], render_mode=state["render_mode"], connect=state["connect"])  # type: ignore[misc]


def _device_values(spec: DeviceSpec, state: DeviceState) -> dict[str, float]:
    names = device_class(spec.config.kind).STATE
    values = {f"{spec.id}.p_mw": state.p_mw, f"{spec.id}.q_mvar": state.q_mvar, f"{spec.id}.cost": state.cost}
    return values | {f"{spec.id}.{name}": value for name, value in zip(names, state.state, strict=True)}


def _build_execution(
    topology: Topology,
    world: World,
    connect: Address | None,
    on_ready: Callable[[set[str]], None] | None,
    on_silent: Callable[[str, int], None] | None,
) -> Execution:
    """The one place where the mode decides."""
    if topology.mode == "centralized":
        return DirectExecution(topology, world)
    run = new_run()
    if topology.mode == "in_memory":
        return MessageExecution(topology, world, InMemoryBroker(), run=run, nodes={})
    nodes = node_plans(topology)
    credentials = credentials_of(topology.broker.keys, ENV)
    tolerant = topology.tolerates_gaps
    if connect is not None:
        broker = ZmqBroker(connect, run, credentials, tolerant=tolerant)
        return MessageExecution(topology, world, broker, run=run, nodes=nodes, on_ready=on_ready, on_silent=on_silent)
    session = Session(topology)
    try:
        address = session.start_proxy()
        session.start_agents(address)
        broker = ZmqBroker(address, run, credentials, tolerant=tolerant)
        return MessageExecution(topology, world, broker, run=run, nodes=nodes, session=session, on_ready=on_ready)
    except BaseException:
        session.stop()
        raise


def parallel_env(
    topology: Source = "3mg", *, render_mode: str | None = None, max_cycles: int | None = None, **overrides: Any
) -> NetworkedGridEnv:
    """A topology as a PettingZoo ParallelEnv.

    ``overrides`` are dotted keys, as for ``--set``: ``parallel_env("3mg", centralized=True, **{"profiles.split":
    "test"})``. ``max_cycles`` is PettingZoo's name for ``episode_steps``.

    Raises:
        TopologyError: a topology that cannot run.
    """
    if max_cycles is not None:
        overrides["episode_steps"] = max_cycles
    return NetworkedGridEnv(topology, overrides, render_mode=render_mode)


def env(topology: Source = "3mg", **keywords: Any) -> Any:
    """The same as a PettingZoo AECEnv: grids act one after the other, the step happens with the last."""
    return conversions.parallel_to_aec(parallel_env(topology, **keywords))


def _register() -> None:
    """Make ``pettingzoo.make("parallel", "zgrid/three_microgrids_v0")`` work where this PettingZoo has a registry."""
    register = getattr(pettingzoo, "register", None)
    if register is not None:
        register("parallel", "zgrid/three_microgrids_v0", "zgrid.environment:parallel_env")
        register("aec", "zgrid/three_microgrids_v0", "zgrid.environment:env")


_register()
