"""Play episodes with the grids' own policies, and keep what they show."""

from __future__ import annotations

import csv
import hashlib
import json
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zgrid.errors import MissingExtraError
from zgrid.links import summed
from zgrid.plots import draw_day
from zgrid.view import View

if TYPE_CHECKING:
    from zgrid.environment import NetworkedGridEnv

EPISODES = 7
_PER_STEP = ("action", "brief", "peer", "setpoint")
_PER_TICK = ("state", "network", "report")


class Plan(NamedTuple):
    """What to play: ``episodes`` (default 7, or as many as ``steps`` take), at most ``steps`` in all, and where the
    results go."""

    episodes: int | None = None
    steps: int | None = None
    seed: int = 0
    out: Path | None = None

    def total(self, episode_steps: int) -> int:
        """Steps to play in all."""
        if self.episodes is None:
            return self.steps if self.steps is not None else EPISODES * episode_steps
        whole = self.episodes * episode_steps
        return whole if self.steps is None else min(self.steps, whole)


class Recorder:
    """Takes in every reset and step: digest, rows for steps.csv, sums and latencies."""

    def __init__(self, env: NetworkedGridEnv) -> None:
        self._env = env
        self._hash = hashlib.sha256()
        self._latency_ms: list[float] = []
        self._sums: dict[str, dict[str, float]] = {agent: {} for agent in env.possible_agents}
        self._returns = dict.fromkeys(env.possible_agents, 0.0)
        self._violations = dict.fromkeys(env.possible_agents, 0)
        self._diverged = dict.fromkeys(env.possible_agents, 0)
        self.episodes = 0
        self.events: list[dict[str, Any]] = []
        """Failures, restarts, fallbacks and returns, each with its step."""
        self.links: list[dict[str, Any]] = []
        """What became of messages on links with faults, as in the env's stats, over all episodes that have ended."""
        self.rows: list[dict[str, float]] = []

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return len(self.rows)

    def begin(self, observations: Mapping[str, Any], infos: Mapping[str, Any]) -> list[str]:
        """An episode began; what happened to agents meanwhile."""
        self.episodes += 1
        self._add_observations(observations)
        return self._add_events(infos)

    def add(self, result: tuple[Any, ...], latency_ms: float) -> list[str]:
        """A step was taken; what happened to agents in it."""
        observations, rewards, terminations, _, infos = result
        self._latency_ms.append(latency_ms)
        self._add_observations(observations)
        row: dict[str, float] = {"episode": self.episodes, "step": len(self.rows) + 1}
        row |= self._env.snapshot()
        for agent, reward in rewards.items():
            self._hash.update(struct.pack("<d?", reward, terminations[agent]))
            row[f"{agent}.reward"] = reward
            self._returns[agent] += reward
            self._add_terms(agent, infos[agent])
        self.rows.append(row)
        return self._add_events(infos)

    def end(self) -> None:
        """An episode is over; the next one would count anew what became of messages."""
        if self._env.topology.links:
            self.links = summed([*self.links, *self._env.stats()["links"]])

    def digest(self) -> str:
        """SHA-256 over all observations, rewards and terminations, in order."""
        return self._hash.hexdigest()

    def summary(self, elapsed_s: float) -> dict[str, Any]:
        """Everything in figures."""
        env, topology = self._env, self._env.topology
        stats = {name: value for name, value in env.stats().items() if name != "links"}
        latency = np.percentile(self._latency_ms, (50.0, 99.0)) if self._latency_ms else (0.0, 0.0)
        return {
            "topology": topology.name,
            "mode": topology.mode,
            "seed": topology.seed,
            "episodes": self.episodes,
            "steps": self.steps,
            "digest": self.digest(),
            "grids": {agent: self._grid_summary(agent) for agent in env.possible_agents},
            "events": self.events,
            "messages_per_step": self._per_step(stats["messages"]),
            "stats": stats,
            "links": self.links,
            "steps_per_s": self.steps / elapsed_s if elapsed_s > 0.0 else 0.0,
            "step_latency_ms": {"p50": float(latency[0]), "p99": float(latency[1])},
        }

    def _grid_summary(self, agent: str) -> dict[str, Any]:
        return {
            "policy": (self._env.topology.grids[agent].policy or self._env.topology.policy).kind,
            "return": self._returns[agent],
            "terms": self._sums[agent],
            "violation_steps": self._violations[agent],
            "diverged_steps": self._diverged[agent],
        }

    def _add_observations(self, observations: Mapping[str, Any]) -> None:
        for observation in observations.values():
            parts = observation.values() if isinstance(observation, dict) else (observation,)
            for part in parts:
                self._hash.update(part.tobytes())

    def _add_events(self, infos: Mapping[str, Mapping[str, Any]]) -> list[str]:
        events = list(dict.fromkeys(event for info in infos.values() for event in info.get("events", ())))
        self.events += [{"episode": self.episodes, "step": len(self.rows), "event": event} for event in events]
        return events

    def _add_terms(self, agent: str, info: Mapping[str, float]) -> None:
        sums = self._sums[agent]
        for name, value in info.items():
            if name.endswith("_cost") or name in ("voltage", "overload", "device_limits", "safety"):
                sums[name] = sums.get(name, 0.0) + value
        topology = self._env.topology
        limits = topology.grids[agent].reward or topology.reward
        if not info["converged"]:
            self._diverged[agent] += 1
        elif info["vm_min_pu"] < limits.vm_min_pu or info["vm_max_pu"] > limits.vm_max_pu:
            self._violations[agent] += 1

    def _per_step(self, messages: Mapping[str, int]) -> dict[str, float]:
        """Messages of one step by kind: a reset has its own, which share three kinds with a step."""
        ticks = self.steps + self.episodes
        per_step = {kind: messages[kind] / max(self.steps, 1) for kind in _PER_STEP if kind in messages}
        return per_step | {kind: messages[kind] / ticks for kind in _PER_TICK if kind in messages}


def play(env: NetworkedGridEnv, plan: Plan, view: View) -> dict[str, Any]:
    """Play the plan and show it; the summary. With ``plan.out``, also write it."""
    total = plan.total(env.topology.episode_steps)
    recorder = Recorder(env)
    elapsed_s = 0.0
    while recorder.steps < total:
        observations, infos = env.reset(seed=plan.seed if recorder.episodes == 0 else None)
        if recorder.episodes == 0:
            view.begin(total)
        for event in recorder.begin(observations, infos):
            view.event(recorder.steps, event)
        begin = time.perf_counter()
        while env.agents and recorder.steps < total:
            before = time.perf_counter()
            result = env.step(dict.fromkeys(env.agents))
            for event in recorder.add(result, (time.perf_counter() - before) * 1e3):
                view.event(recorder.steps, event)
            view.progress(recorder.steps)
        elapsed_s += time.perf_counter() - begin
        recorder.end()
    summary = recorder.summary(elapsed_s)
    if plan.out is not None:
        files, hint = write(plan.out, summary, recorder.rows, env)
        summary |= {"files": files, "hint": hint}
    view.finish(summary)
    return summary


def write(
    out: Path, summary: Mapping[str, Any], rows: list[dict[str, float]], env: NetworkedGridEnv
) -> tuple[list[str], str]:
    """Write summary.json, steps.csv and, where matplotlib is installed, day.png; the names of what was written, and
    what would be needed for the rest.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    with (out / "steps.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["episode", "step"])
        writer.writeheader()
        writer.writerows(rows)
    files = [str(out / "summary.json"), str(out / "steps.csv")]
    try:
        draw_day(rows, env.topology, out / "day.png")
    except MissingExtraError as error:
        return files, f"no day.png: {error}"
    return [*files, str(out / "day.png")], ""
