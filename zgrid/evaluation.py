"""Evaluation: the same days of a topology, played by several policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zgrid.agents.spec import MEASURED
from zgrid.environment import NetworkedGridEnv
from zgrid.errors import ForesightError
from zgrid.foresight import Planned, plan_days
from zgrid.scores import BASELINE, BEST, RIVAL, WORST, PlayedDay, assess, without_nan
from zgrid.topology import Source, Topology, load, load_calendar

REFERENCES = (BASELINE, WORST, RIVAL)
"""The policies that always play too."""

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
"""Told the name of a policy, how many of the days it has played, and how many there are."""

STARTS = (BASELINE, RIVAL)
"""The policies whose days the optimum begins with."""


class Settings(NamedTuple):
    """What to play: ``episodes`` days of the ``split`` chosen by ``seed`` (None: all of them), with ``overrides`` of
    the topology as dotted keys. With ``optimum``, the optimum with foresight plays too, planned by at most so many
    ``processes``, which are spawned."""

    split: str = "test"
    episodes: int | None = None
    seed: int = 0
    overrides: Mapping[str, Any] = {}
    optimum: bool = True
    processes: int = 1


class Evaluation(NamedTuple):
    """Days of the data, (n_days,), and what every policy made of them, in the order of the days.

    ``planned`` is how the optimum's plans were found; where there is no optimum, ``no_optimum`` says why.
    """

    topology: Topology
    settings: Settings
    days: tuple[int, ...]
    played: dict[str, list[PlayedDay]]
    planned: tuple[Planned, ...] = ()
    no_optimum: str = ""

    def summary(self) -> dict[str, Any]:
        """Everything in figures, ready for JSON."""
        topology, settings = self.topology, self.settings
        return {
            "topology": topology.name,
            "split": settings.split,
            "seed": settings.seed,
            "days": list(self.days),
            "steps_per_day": topology.episode_steps,
            "optimum": self._optimum(),
            "policies": assess(self.played, list(topology.grids), topology.dt_h),
        }

    def _optimum(self) -> dict[str, Any]:
        """How far the linear models' promises and the proven bound are above what was earned: means of a day in $, and
        % of it. The bound is None where a day has none."""
        if not self.planned:
            return {"missing": self.no_optimum}
        earned = float(np.mean([day.value for day in self.played[BEST]]))
        promised = {
            "gap": float(np.mean([one.promised for one in self.planned])) - earned,
            "gap_anywhere": float(np.mean([one.promised_anywhere for one in self.planned])) - earned,
            "bound_gap": float(np.mean([one.bound for one in self.planned])) - earned,
        }
        shares = {f"{name}_percent": 100.0 * gap / abs(earned) if earned else 0.0 for name, gap in promised.items()}
        found: dict[str, Any] = without_nan(promised | shares)
        return found | {"models": sum(one.rounds for one in self.planned)}

    def rows(self) -> list[dict[str, Any]]:
        """A row per policy and day: its return in $, of all grids and of each, the steps with a violation or without a
        solution, and the terms of the reward summed over grids and steps."""
        return [_row(name, day, list(self.topology.grids)) for name, days in self.played.items() for day in days]


def choose_days(days: Sequence[int], count: int | None, seed: int) -> tuple[int, ...]:
    """The first ``count`` of a seeded permutation of the days, in rising order; all of them where there are no more."""
    if count is None or count >= len(days):
        return tuple(sorted(days))
    return tuple(sorted(np.random.default_rng(seed).permutation(np.asarray(days))[:count].tolist()))


def day_seed(seed: int, day: int) -> int:
    """The seed of a policy's own randomness on a day, whatever other days are played."""
    return int(np.random.SeedSequence((seed, day)).generate_state(1)[0])


def evaluate(
    source: Source,
    policies: Mapping[str, str],
    settings: Settings = Settings(),  # noqa: B008 - frozen
    progress: Progress = lambda name, done, total: None,
) -> Evaluation:
    """Play the same days, centralized, with each of the ``policies`` (what to call it -> what a topology calls it)
    and with those of ``REFERENCES``.

    Raises:
        TopologyError: a topology or a policy that cannot run, or a split without days.
        ValueError: fewer than one day asked for, or a negative seed.
    """
    if settings.episodes is not None and settings.episodes < 1:
        raise ValueError(f"episodes {settings.episodes}: expected at least 1")
    wanted = {**dict.fromkeys(REFERENCES), **policies}
    envs = {name: NetworkedGridEnv(_load(source, settings, policy or name)) for name, policy in wanted.items()}
    topology = envs[BASELINE].topology
    days = choose_days(_days_of(envs[BASELINE]), settings.episodes, settings.seed)
    played = {name: _play_days(name, env, (days, settings.seed), progress) for name, env in envs.items()}
    evaluation = Evaluation(topology, settings, days, played)
    if not settings.optimum:
        return evaluation._replace(no_optimum="not asked for")
    try:
        return _with_optimum(evaluation, _load(source, settings, BASELINE, **_FLAT), progress)
    except ForesightError as error:
        return evaluation._replace(no_optimum=str(error))


def play_day(env: NetworkedGridEnv, day: int, seed: int, plan: Sequence[Mapping[str, Any]] | None = None) -> PlayedDay:
    """Play a day with the grids' own policies, or with a ``plan``: the actions of each step by grid."""
    log = _Log(env)
    env.reset(seed=seed, options={"day": day})
    step = 0
    while env.agents:
        actions = dict.fromkeys(env.agents) if plan is None else plan[step]
        log.add(env.step(actions)[4], env.snapshot())
        step += 1
    return log.played(day)


class _Log:
    """Takes in the steps of a day."""

    def __init__(self, env: NetworkedGridEnv) -> None:
        topology = env.topology
        self._grids = list(topology.grids)
        self._limits = [topology.grids[grid].reward or topology.reward for grid in self._grids]
        self._devices = [spec.id for spec in topology.device_specs]
        self._terms = [spec.term_names for spec in topology.grid_specs]
        self._infos: list[list[Mapping[str, float]]] = []
        self._injected: list[tuple[list[float], list[float]]] = []

    def add(self, infos: Mapping[str, Mapping[str, float]], snapshot: Mapping[str, float]) -> None:
        """A step was taken."""
        self._infos.append([infos[grid] for grid in self._grids])
        p, q = ([snapshot[f"{device}.{name}"] for device in self._devices] for name in ("p_mw", "q_mvar"))
        self._injected.append((p, q))

    def played(self, day: int) -> PlayedDay:
        """The day is over."""
        return PlayedDay(
            day,
            self._array("own_reward").sum(axis=0),
            tuple(self._sums(k) for k in range(len(self._grids))),
            self._array("p_pcc_mw"),
            np.array([[_excursion(info, limit) for info, limit in zip(step, self._limits, strict=True)]
                      for step in self._infos]),
            (self._array("converged") == 0.0).any(axis=1),
            np.array([p for p, _ in self._injected]),
            np.array([q for _, q in self._injected]),
        )  # fmt: skip

    def _array(self, name: str) -> Array:
        return np.array([[info[name] for info in step] for step in self._infos], dtype=np.float64)

    def _sums(self, k: int) -> dict[str, float]:
        names = [name for name in self._terms[k] if name not in MEASURED]
        return {name: float(sum(step[k][name] for step in self._infos)) for name in names}


def _excursion(info: Mapping[str, float], limits: Any) -> float:
    """How far the worst bus of a grid is outside its limits, pu; 0 where the step has no solution."""
    if not info["converged"]:
        return 0.0
    return float(max(limits.vm_min_pu - info["vm_min_pu"], info["vm_max_pu"] - limits.vm_max_pu, 0.0))


_FLAT = {"spaces.action": "flat", "spaces.pad": False}
"""How the plans of the optimum are played."""


def _load(source: Source, settings: Settings, policy: str, **more: Any) -> Topology:
    """The topology of an evaluation, in which every grid plays a policy."""
    fixed = {"centralized": True, "profiles.split": settings.split, "seed": settings.seed, **more}
    return load(source, {**settings.overrides, **fixed, "policy": policy, "grids.*.policy": None})


def _with_optimum(evaluation: Evaluation, topology: Topology, progress: Progress) -> Evaluation:
    """The same with the optimum, planned from what ``STARTS`` did, and played.

    Raises:
        ForesightError: it cannot be found.
    """
    days, seed = evaluation.days, evaluation.settings.seed
    begun = (evaluation.played[name] for name in STARTS)
    starts = [[(one.p_mw, one.q_mvar) for one in same_day] for same_day in zip(*begun, strict=True)]
    env = NetworkedGridEnv(topology)
    sizes = [len(spec.controls) for spec in topology.grid_specs]
    planned, played = [], []
    for done, plan in enumerate(plan_days(topology, days, starts, evaluation.settings.processes), start=1):
        cut = np.split(plan.actions, np.cumsum(sizes)[:-1], axis=1)
        steps = [dict(zip(env.possible_agents, step, strict=True)) for step in zip(*cut, strict=True)]
        played.append(play_day(env, day := days[done - 1], day_seed(seed, day), steps))
        planned.append(plan)
        progress(BEST, done, len(days))
    env.close()
    return evaluation._replace(played={**evaluation.played, BEST: played}, planned=tuple(planned))


def _days_of(env: NetworkedGridEnv) -> tuple[int, ...]:
    topology = env.topology
    return load_calendar(topology).days(topology.profiles.split, topology.episode_steps)


def _play_days(
    name: str, env: NetworkedGridEnv, when: tuple[Sequence[int], int], progress: Progress
) -> list[PlayedDay]:
    """Play days with a policy, ``when`` being the days and the seed; the env is closed then."""
    days, seed = when
    found = []
    for done, day in enumerate(days, start=1):
        found.append(play_day(env, day, day_seed(seed, day)))
        progress(name, done, len(days))
    env.close()
    return found


def _row(name: str, day: PlayedDay, grids: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"policy": name, "day": day.day, "return": day.value}
    row |= {f"{grid}.return": float(value) for grid, value in zip(grids, day.returns, strict=True)}
    row |= {"violation_steps": day.violation_steps, "diverged_steps": int(day.diverged.sum())}
    for terms in day.terms:
        for term, value in terms.items():
            row[term] = row.get(term, 0.0) + value
    return row
