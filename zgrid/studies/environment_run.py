"""A topology, played once with the grids' own policies: what it earned, what it violated, what was said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

from zgrid.agents.spec import MEASURED, TALKING
from zgrid.environment import NetworkedGridEnv
from zgrid.links import summed
from zgrid.topology import Source

SAID = ("action", "peer", "brief", "setpoint", "state", "network", "report")
"""The messages of a step and a reset; others (beats, the roll call) depend on the time that a run takes."""
MISMATCH = "mismatch_mw"
"""What a protocol that dispatches tells of its balance."""
BECAME = ("delivered", "late", "lost", "duplicated", "attacked")
"""What became of messages on links with faults."""


class Tally:
    """Takes in the steps of a run."""

    def __init__(self, env: NetworkedGridEnv) -> None:
        topology = env.topology
        self._dt_h = topology.dt_h
        self._limits = {grid: topology.grids[grid].reward or topology.reward for grid in topology.grids}
        self._terms = {
            spec.id: [name for name in spec.term_names if name not in (*TALKING, *MEASURED)]
            for spec in topology.grid_specs
        }
        self._talking = [spec.id for spec in topology.grid_specs if spec.weights]
        self._returns = dict.fromkeys(topology.grids, 0.0)
        self._sums: dict[str, float] = {}
        self._at = {grid: names.index(MISMATCH) for grid in topology.grids
                    if MISMATCH in (names := env.observation_names(grid))}  # fmt: skip
        self._mismatch = self._import_mwh = self._outside_pu = 0.0
        self._peak_mw = float("-inf")
        self._violations = self._diverged = self._events = self._steps = 0
        self._rounds = self._agreed = 0.0
        self._links: list[dict[str, Any]] = []

    def add(self, observations: Mapping[str, Any], infos: Mapping[str, Mapping[str, Any]]) -> None:
        """A step was taken."""
        self._steps += 1
        outside = [self._outside(grid, info) for grid, info in infos.items()]
        self._outside_pu += sum(outside)
        self._violations += any(one > 0.0 for one in outside)
        self._diverged += any(not info["converged"] for info in infos.values())
        imported = sum(info["p_pcc_mw"] for info in infos.values())
        self._import_mwh += imported * self._dt_h
        self._peak_mw = max(self._peak_mw, imported)
        self._events += len({event for info in infos.values() for event in info.get("events", ())})
        for grid, info in infos.items():
            self._returns[grid] += info["own_reward"]
            for name in self._terms[grid]:
                self._sums[name] = self._sums.get(name, 0.0) + info[name]
        for grid in self._talking:
            self._rounds += infos[grid]["rounds"]
            self._agreed += infos[grid]["agreed"]
        for grid, at in self._at.items():
            flat = observations[grid]["obs"] if isinstance(observations[grid], dict) else observations[grid]
            self._mismatch += abs(float(flat[at]))

    def end(self, links: Iterable[Mapping[str, Any]]) -> None:
        """An episode is over, with these counts of its links."""
        self._links = summed([*self._links, *links], ("kind",))

    def metrics(self) -> dict[str, float | None]:
        """All steps in figures."""
        told, talked = self._steps * len(self._at), self._steps * len(self._talking)
        return {
            "return": sum(self._returns.values()),
            **{f"return.{grid}": value for grid, value in self._returns.items()},
            **{name: float(value) for name, value in self._sums.items()},
            "violation_steps": self._violations,
            "violation_pu": self._outside_pu,
            "diverged_steps": self._diverged,
            "import_mwh": self._import_mwh,
            "peak_import_mw": self._peak_mw,
            "mean_mismatch_mw": self._mismatch / told if told else None,
            "mean_rounds": self._rounds / talked if talked else None,
            "agreed_share": self._agreed / talked if talked else None,
            **self._link_metrics(),
            "events": self._events,
            "steps": self._steps,
        }

    def _link_metrics(self) -> dict[str, float | None]:
        """What became of all messages on links with faults; ages apart, since peers count in rounds."""
        every = _whole(self._links)
        rounds = _whole(one for one in self._links if one["kind"] == "peer")
        steps = _whole(one for one in self._links if one["kind"] != "peer")
        found: dict[str, float | None] = {name: every.get(name) for name in BECAME}
        for unit, ages in (("rounds", rounds), ("steps", steps)):
            found |= {f"{name}_{unit}": ages.get(name) for name in ("age_mean", "age_max")}
        return found

    def _outside(self, grid: str, info: Mapping[str, Any]) -> float:
        """How far the worst bus of a grid is outside its limits, pu; 0 where the step has no solution."""
        limits = self._limits[grid]
        if not info["converged"]:
            return 0.0
        return float(max(limits.vm_min_pu - info["vm_min_pu"], info["vm_max_pu"] - limits.vm_max_pu, 0.0))


def play_topology(
    source: Source, overrides: Mapping[str, Any], seed: int, length: tuple[int, int | None]
) -> dict[str, Any]:
    """So many episodes, of at most so many steps in all (``length``); the same days for the same seed.

    Raises:
        ZgridError: whatever a topology or a run can come to.
    """
    episodes, steps = length
    with closing(NetworkedGridEnv(source, {**overrides, "seed": seed})) as env:
        tally = Tally(env)
        left = episodes * env.topology.episode_steps if steps is None else steps
        for episode in range(episodes):
            if left == 0:
                break
            env.reset(seed=seed if episode == 0 else None)
            while env.agents and left > 0:
                observations, _, _, _, infos = env.step(dict.fromkeys(env.agents))
                tally.add(observations, infos)
                left -= 1
            if env.topology.links:
                tally.end(env.stats()["links"])  # the next reset begins them anew
        return tally.metrics() | _said(env.stats())


def _whole(links: Iterable[Mapping[str, Any]]) -> Mapping[str, float]:
    """All of these links together; nothing where there are none."""
    return next(iter(summed(links, ())), {})


def _said(stats: Mapping[str, Any]) -> dict[str, float | None]:
    """Messages in all and by kind; 0 where nobody needs any. Bytes where messages are encoded."""
    messages = {kind: int(stats["messages"].get(kind, 0)) for kind in SAID}
    sizes = [int(stats["bytes"].get(kind, 0)) for kind in SAID]
    return {
        "messages": sum(messages.values()),
        **{f"messages.{kind}": count for kind, count in messages.items()},
        "bytes": sum(sizes) if any(sizes) else None,
    }
