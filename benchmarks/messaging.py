"""What messages cost: zgrid over ZeroMQ beside bare pyzmq loops and HELICS, and a message's way through the codec.

``python -m benchmarks.messaging`` starts everything that it measures at once and lets one after the other play for a
moment, again and again, so that the noise of a machine falls on all of them alike; each figure is the median of its
turns. The power flow is stubbed: what is left are messages and agents. Nothing passes or fails here; the marks are what
zgrid wants to reach.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import helics_lockstep as helics
from benchmarks.acting import ActingBatchedLoop, ActingLoop, ActingSquadsLoop
from benchmarks.bare import AgentLoop, BatchedLoop
from benchmarks.lockstep import MODES, EnvLoop
from benchmarks.stub import STUB
from zgrid.encoding import decode, encode, packer
from zgrid.environment import NetworkedGridEnv
from zgrid.errors import TopologyError
from zgrid.messages import ENV, Envelope
from zgrid.messaging import PROXY, Inspector
from zgrid.topology import load
from zgrid.topology.generated import generate
from zgrid.topology.nodes import node_plans

ZMQ = MODES["ZeroMQ"] | STUB
KEYS = "keys"
"""In place of a folder of keys, which is made when the row is started."""

_RECORDED = 60
"""Steps whose messages are encoded and decoded."""


class Loop(Protocol):
    """Something that plays steps."""

    def measure(self, seconds: float) -> dict[str, float]:
        """Steps per second and per CPU second."""

    def close(self) -> None:
        """End it."""


class NotAvailable(Exception):
    """A row that cannot be measured here; the text says why."""


@dataclass
class Row:
    """A row of the table: how it is started, and what its turns came to."""

    title: str
    start: Callable[[], Loop]
    turns: list[dict[str, float]] = field(default_factory=list)
    absent: str = ""

    def median(self, figure: str) -> float:
        """The median of the turns; NaN if there is none."""
        return float(np.median([turn[figure] for turn in self.turns])) if self.turns else float("nan")


class Ratio:
    """One row's steps per second over another's, and its mark: the median over the turns, each row's beside the
    other's of the same turn."""

    def __init__(self, title: str, over: str, under: str, mark: float | None = None) -> None:
        self.title, self.over, self.under, self.mark = title, over, under, mark

    def value(self, rows: dict[str, Row]) -> float:
        """NaN unless both were measured."""
        if not {self.over, self.under} <= rows.keys():
            return float("nan")
        pairs = zip(rows[self.over].turns, rows[self.under].turns, strict=False)
        each = [over["steps_per_s"] / under["steps_per_s"] for over, under in pairs]
        return float(np.median(each)) if each else float("nan")


RATIOS = [
    Ratio("13 processes over bare", "agent", "bare", 0.7),
    Ratio("  of that, what acting alone leaves", "acting", "bare"),
    Ratio("CURVE over unsecured", "curve", "agent", 0.6),
    Ratio("3 workers over bare batched", "grid", "batched", 0.6),
    Ratio("  of that, what acting alone leaves", "acting_3", "batched"),
    Ratio("100 microgrids, 2 workers over bare batched", "pool_100", "batched_100", 0.6),
    Ratio("  of that, what acting alone leaves", "acting_100", "batched_100"),
    Ratio("13 processes over HELICS, zmq core", "agent", "helics", 2.5),
    Ratio("13 processes over HELICS, tcp core", "agent", "helics_tcp", 2.5),
    Ratio("bare loop whose 13 processes act over HELICS, zmq core", "acting", "helics"),
    Ratio("bare loop whose 13 processes act over HELICS, tcp core", "acting", "helics_tcp"),
]
STEPS_MARK, MESSAGE_MARK_US = 400.0, 10.0


def rows() -> dict[str, Row]:
    """All rows by their names."""
    large = generate(100, seed=0)
    return {
        "bare": Row("bare pyzmq loop, 13 processes", lambda: AgentLoop(load("3mg", ZMQ))),
        "acting": Row("bare loop whose 13 processes act", lambda: ActingLoop(load("3mg", ZMQ))),
        "agent": Row("zgrid, 13 processes", lambda: zgrid("3mg", {})),
        "curve": Row("zgrid, 13 processes, CURVE, checking proxy", lambda: zgrid("3mg", {"broker.keys": KEYS})),
        "batched": Row("bare batched loop, 3 workers", lambda: BatchedLoop(load("3mg", ZMQ), 3)),
        "acting_3": Row("bare batched loop whose 3 workers act", lambda: ActingBatchedLoop(load("3mg", ZMQ), 3)),
        "grid": Row("zgrid, 3 workers", lambda: zgrid("3mg", {"placement": "grid"})),
        "batched_100": Row(
            "bare batched loop, 100 microgrids in 2 workers", lambda: BatchedLoop(load(large, MODES["ZeroMQ"]), 2)
        ),
        "acting_100": Row(
            "bare batched loop whose 2 workers act for 100 microgrids",
            lambda: ActingSquadsLoop(load(large, ZMQ | {"placement": {"pool": 2}})),
        ),
        "pool_100": Row("zgrid, 100 microgrids in 2 workers", lambda: zgrid(large, {"placement": {"pool": 2}})),
        "helics": Row("HELICS, 13 federates, zmq core", lambda: federates(helics.Setting())),
        "helics_tcp": Row("HELICS, 13 federates, tcp core", lambda: federates(helics.Setting("tcp"))),
    }


def zgrid(topology: Any, overrides: dict[str, Any]) -> Loop:
    """An env and its nodes.

    Raises:
        NotAvailable: the topology has no such setting.
    """
    try:
        if overrides.get("broker.keys") == KEYS:
            return SecuredLoop(topology, overrides)
        return EnvLoop(topology, ZMQ | overrides)
    except TopologyError as error:
        raise NotAvailable(str(error.findings[0].path)) from error


class SecuredLoop(EnvLoop):
    """An env and its nodes with keys, which are made for it and deleted after it."""

    def __init__(self, topology: Any, overrides: dict[str, Any]) -> None:
        try:
            keys = importlib.import_module("zgrid.messaging.keys")
        except ModuleNotFoundError as error:
            raise NotAvailable("zgrid.messaging.keys") from error
        self._folder = tempfile.TemporaryDirectory()
        try:
            keys.create(Path(self._folder.name), [PROXY, ENV, *node_plans(load(topology, ZMQ))])
            super().__init__(topology, ZMQ | overrides | {"broker.keys": self._folder.name})
        except BaseException:
            self._folder.cleanup()
            raise

    def close(self) -> None:
        """End the environment and its processes, and delete the keys."""
        super().close()
        self._folder.cleanup()


def federates(setting: helics.Setting) -> Loop:
    """The federation.

    Raises:
        NotAvailable: HELICS is not installed, or did not start.
    """
    if not helics.installed():
        raise NotAvailable(helics.INSTALL)
    try:
        return helics.HelicsLoop(load("3mg", ZMQ), setting)
    except helics.HelicsError as error:
        raise NotAvailable(str(error)) from error


def measure(console: Console, chosen: dict[str, Row], seconds: float, repeat: int) -> None:
    """Start all rows, and let them take turns."""
    with ExitStack() as stack:
        loops: dict[str, Loop] = {}
        for name, row in chosen.items():
            with console.status(f"starting: {row.title}"):
                try:
                    loops[name] = row.start()
                except NotAvailable as error:
                    row.absent = str(error)
                    continue
            stack.callback(loops[name].close)
        for turn in range(repeat):
            for name, loop in list(loops.items()):
                with console.status(f"turn {turn + 1} of {repeat}: {chosen[name].title}"):
                    try:
                        chosen[name].turns.append(loop.measure(seconds))
                    except helics.HelicsError as error:
                        chosen[name].absent = str(error)
                        del loops[name]


# ---- one message -------------------------------------------------------------------------------------------------


def recorded() -> dict[str, list[tuple[str, Envelope]]]:
    """All messages of some steps of 3mg, by kind, each with its channel."""
    env = NetworkedGridEnv("3mg", {**MODES["in-memory"], "profiles.split": "all", "episode_steps": 1_000_000})
    env.reset(seed=0)
    broker = getattr(env._execution, "_host").broker  # noqa: B009 - in memory, there is one
    publish, kept = broker.publish, dict[str, list[tuple[str, Envelope]]]()

    def record(channel: str, envelope: Envelope) -> int:
        kept.setdefault(channel.partition("/")[0], []).append((channel, envelope))
        return int(publish(channel, envelope))

    broker.publish = record
    for _ in range(_RECORDED):
        env.step({agent: env.action_space(agent).sample() for agent in env.agents})
    env.close()
    return kept


def time_messages(repeat: int) -> dict[str, dict[str, float]]:
    """For each kind: how many a step, their mean size, and microseconds to encode one, to decode and check it, and
    both; the best of some rounds.
    """
    kept, pack, costs = recorded(), packer(), dict[str, dict[str, float]]()
    for kind, messages in kept.items():
        encoded = [(channel, encode(envelope, pack)) for channel, envelope in messages]
        run = messages[0][1].run
        out, back = [], []
        for _ in range(max(5, repeat)):
            begin = time.perf_counter()
            for _, envelope in messages:
                encode(envelope, pack)
            middle = time.perf_counter()
            accepts, accepted = Inspector(Counter(), run).accepts, 0
            for channel, data in encoded:
                accepted += accepts(channel, decode(data))
            out.append(middle - begin)
            back.append(time.perf_counter() - middle)
            assert accepted == len(messages), kind
        count = len(messages)
        costs[kind] = {
            "a_step": count / _RECORDED,
            "bytes": sum(len(data) for _, data in encoded) / count,
            "encode_us": min(out) / count * 1e6,
            "decode_and_check_us": min(back) / count * 1e6,
            "total_us": (min(out) + min(back)) / count * 1e6,
        }
    steps = sum(cost["a_step"] for cost in costs.values())
    costs["mean"] = {
        figure: sum(cost[figure] * cost["a_step"] for cost in costs.values()) / steps
        for figure in ("bytes", "encode_us", "decode_and_check_us", "total_us")
    } | {"a_step": steps}
    return costs


# ---- telling -----------------------------------------------------------------------------------------------------


def tell(console: Console, chosen: dict[str, Row], title: str) -> None:
    """Print the rows, and the ratios that they allow."""
    table = Table(title=title)
    for heading in ("what", "steps/s", "lowest", "highest", "steps per CPU-second"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for row in chosen.values():
        if not row.turns:
            table.add_row(row.title, "not available", "", "", row.absent)
            continue
        each = [turn["steps_per_s"] for turn in row.turns]
        figures = (row.median("steps_per_s"), min(each), max(each), row.median("steps_per_cpu_s"))
        table.add_row(row.title, *(f"{figure:,.0f}" for figure in figures))
    console.print(table)
    for ratio in RATIOS:
        if not np.isnan(value := ratio.value(chosen)):
            mark = "" if ratio.mark is None else f" (mark {ratio.mark:g})"
            console.print(f"{ratio.title}: {value:.2f}{mark}")
    if "pool_100" in chosen and chosen["pool_100"].turns:
        steps = chosen["pool_100"].median("steps_per_s")
        console.print(f"100 microgrids in 2 workers: {steps:,.0f} steps/s (mark {STEPS_MARK:g})")


def tell_messages(console: Console, costs: dict[str, dict[str, float]]) -> None:
    """Print what a message of each kind costs."""
    table = Table(title="one message, microseconds, the best of some rounds")
    for heading in ("kind", "a step", "bytes", "encode", "decode and check", "together"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for kind, cost in costs.items():
        times = (cost["encode_us"], cost["decode_and_check_us"], cost["total_us"])
        table.add_row(kind, f"{cost['a_step']:g}", f"{cost['bytes']:.0f}", *(f"{value:.1f}" for value in times))
    console.print(table)
    console.print(f"a message of a step, in the mean: {costs['mean']['total_us']:.1f} us (mark {MESSAGE_MARK_US:g})")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    every = rows()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.messaging",
        description=__doc__,
        epilog="example: python -m benchmarks.messaging --seconds 1 --repeat 5 --only bare agent message",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds of a turn (default: 2)")
    parser.add_argument("--repeat", type=int, default=5, help="turns of each row; the median is told (default: 5)")
    names = [*every, "message"]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=" ".join(names))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to a file")
    arguments = parser.parse_args(argv)
    console = Console()
    chosen = {name: row for name, row in every.items() if name in arguments.only}
    costs = time_messages(arguments.repeat) if "message" in arguments.only else {}
    measure(console, chosen, arguments.seconds, arguments.repeat)
    if chosen:
        tell(console, chosen, f"lockstep, {arguments.seconds:g} s a turn, median of {arguments.repeat}")
    if costs:
        tell_messages(console, costs)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures(chosen, costs), indent=2) + "\n", encoding="utf-8")


def figures(chosen: dict[str, Row], costs: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Everything that was measured, for JSON."""
    measured = {
        name: {"title": row.title, "turns": row.turns} if row.turns else {"title": row.title, "absent": row.absent}
        for name, row in chosen.items()
    }
    ratios = {ratio.title: ratio.value(chosen) for ratio in RATIOS}
    kept = {title: value for title, value in ratios.items() if not np.isnan(value)}
    return {"rows": measured, "ratios": kept, "messages": costs}


if __name__ == "__main__":
    main()
