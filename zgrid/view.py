"""What a run shows: on a terminal, or as JSON lines to a parent process."""

from __future__ import annotations

import json
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from zgrid.errors import TopologyError, ZgridError
from zgrid.links import summed
from zgrid.topology import Topology
from zgrid.topology.nodes import node_plans

_PROGRESS_EVERY_S = 0.1


class View(ABC):
    """Hears of a run as it goes. Use as a context: what is shown alive ends with it."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """The run is over, or failed."""

    def checked(self) -> None:  # noqa: B027 - a person need not be told
        """The network is built and solves; now agents may start."""

    @abstractmethod
    def ready(self, nodes: set[str]) -> None:
        """These nodes have answered the roll call."""

    def silent(self, node: str, incarnation: int) -> None:  # noqa: B027 - the event that follows tells a person
        """A node does not answer: whoever started this incarnation of it has to end it."""

    @abstractmethod
    def begin(self, total: int) -> None:
        """The first episode has begun; so many steps are to come."""

    @abstractmethod
    def progress(self, steps: int) -> None:
        """So many steps are done."""

    @abstractmethod
    def event(self, step: int, text: str) -> None:
        """Something happened to an agent: a restart, a fallback, a return."""

    @abstractmethod
    def finish(self, summary: Mapping[str, Any]) -> None:
        """All is done, with these figures."""


class JsonView(View):
    """One JSON object per line, for :func:`relay` in the parent."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = 0.0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if isinstance(error, TopologyError):
            self._say("findings", [error.source, error.findings])
        elif isinstance(error, ZgridError):
            self._say("error", str(error))
        elif error is not None:
            self._say("error", "".join(traceback.format_exception(error)))

    def checked(self) -> None:
        self._say("checked", True)

    def ready(self, nodes: set[str]) -> None:
        self._say("ready", sorted(nodes))

    def silent(self, node: str, incarnation: int) -> None:
        self._say("silent", [node, incarnation])

    def begin(self, total: int) -> None:
        self._say("begin", total)

    def progress(self, steps: int) -> None:
        now = time.monotonic()
        if now - self._last >= _PROGRESS_EVERY_S:
            self._last = now
            self._say("progress", steps)

    def event(self, step: int, text: str) -> None:
        self._say("event", [step, text])

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._say("finish", summary)

    def _say(self, event: str, value: Any) -> None:
        self._stream.write(json.dumps([event, value]) + "\n")
        self._stream.flush()


def relay(line: str, view: View) -> tuple[str, Any]:
    """Show one line of a :class:`JsonView`; the event and its value."""
    event, value = json.loads(line)
    if event == "ready":
        view.ready(set(value))
    elif event == "begin":
        view.begin(value)
    elif event == "progress":
        view.progress(value)
    elif event == "event":
        view.event(*value)
    elif event == "finish":
        view.finish(value)
    return event, value


class ConsoleView(View):
    """On a terminal: agents coming up, a progress bar, tables at the end. Elsewhere: the same as plain lines."""

    def __init__(self, topology: Topology, *, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(quiet=quiet)
        self._topology = topology
        self._states: dict[str, str] = {}
        self._ready: set[str] = set()
        self._live: Live | None = None
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._end_live()
        if self._progress is not None:
            self._progress.stop()

    def say(self, text: str) -> None:
        """A line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show that something takes a while."""
        with self._console.status(what):
            yield

    def coming(self, states: Mapping[str, str]) -> None:
        """These processes are on their way: name -> what is known (pid, or the command that starts it)."""
        self._states = dict(states)
        if self._live is None and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=8, transient=True)
            self._live.start()
        self._show_states()

    def ready(self, nodes: set[str]) -> None:
        self._ready = set(nodes)
        self._show_states()

    def begin(self, total: int) -> None:
        self._end_live()
        topology = self._topology
        where = {"centralized": "direct calls", "in_memory": "in-memory broker", "zmq": "ZeroMQ"}[topology.mode]
        self.say(
            f"{topology.name}: {len(topology.grids)} grids, {len(topology.device_specs)} devices, {where}"
            f"{f', {self._agents(self._ready)} agents ready' if self._ready else ''}"
        )
        self._progress = Progress(
            TextColumn("steps"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._progress.start()
        self._task = self._progress.add_task("steps", total=total)

    def progress(self, steps: int) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=steps)

    def event(self, step: int, text: str) -> None:
        self.say(f"step {step}: {text}")

    def finish(self, summary: Mapping[str, Any]) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=summary["steps"])
            self._progress.stop()
        self._console.print(_grid_table(summary))
        if summary["links"]:
            self._console.print(_link_table(summary["links"]))
        self._console.print(_run_table(summary))
        if summary.get("files"):
            self.say("written: " + ", ".join(summary["files"]))
        if summary.get("hint"):
            self.say(summary["hint"])

    def _show_states(self) -> None:
        if self._live is not None:
            count = f"{self._agents(self._ready)} of {self._agents(set(self._states))} agents ready"
            self._live.update(_state_table(self._states, self._ready, count))

    def _agents(self, nodes: set[str]) -> int:
        """How many agents nodes host."""
        return sum(len(plan.agents) for name, plan in node_plans(self._topology).items() if name in nodes)

    def _end_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class TrainingView:
    """A trainer at work: a row per iteration (on a terminal the last ones, with a bar), and how long it will take."""

    _ROWS = 12

    def __init__(self, total: int, console: Console | None = None) -> None:
        self._console = console or Console()
        self._total = total
        self._rows: list[tuple[str, ...]] = []
        self._bar = Progress(TextColumn("iterations"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._task = self._bar.add_task("iterations", total=total)
        self._live = Live(console=self._console, transient=True) if self._console.is_terminal else None

    def start(self, done: int) -> None:
        """Begin to show; so many iterations were done before."""
        self._bar.update(self._task, completed=done, total=max(self._total, done))
        if self._live is not None:
            self._live.start()
        else:
            self._console.print(_training_line(("iteration", "env steps", "return, $/day", "seconds")))

    def row(self, iteration: int, env_steps: int, mean_return: float, seconds: float) -> None:
        """An iteration is done."""
        cells = (str(iteration), f"{env_steps:,}", f"{mean_return:,.1f}", f"{seconds:.2f}")
        self._rows.append(cells)
        self._bar.update(self._task, completed=iteration)
        if self._live is None:
            self._console.print(_training_line(cells), highlight=False)
        else:
            self._live.update(Group(self._table(), self._bar))

    def stop(self) -> None:
        """Leave the last rows on the screen."""
        if self._live is not None:
            self._live.stop()
            self._console.print(self._table())

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in ("iteration", "env steps", "return, $/day", "seconds"):
            table.add_column(heading, justify="right")
        for cells in self._rows[-self._ROWS :]:
            table.add_row(*cells)
        return table


def _training_line(cells: Sequence[str]) -> str:
    return " ".join(cell.rjust(13) for cell in cells)


def _state_table(states: Mapping[str, str], ready: set[str], count: str) -> Group:
    table = Table(box=None, pad_edge=False, show_header=False)
    names = list(states)
    half = -(-len(names) // 2)
    for left, right in zip(names[:half], [*names[half:], ""], strict=False):
        table.add_row(*_state_cells(left, states, ready), "   ", *_state_cells(right, states, ready))
    return Group(Text(f"nodes coming up: {count}"), table)


def _is_agent(name: str) -> bool:
    return name not in ("broker", "env")


def _state_cells(name: str, states: Mapping[str, str], ready: set[str]) -> tuple[Text, Text]:
    if not name:
        return Text(), Text()
    if name in ready or (ready and not _is_agent(name)):
        return Text(f"● {name}", style="green"), Text(states[name], style="dim")
    return Text(f"○ {name}", style="yellow"), Text(states[name], style="dim")


def _grid_table(summary: Mapping[str, Any]) -> Table:
    """A column per grid, and their sum."""
    grids = summary["grids"]
    table = Table(title=f"{summary['steps']} steps, {summary['episodes']} episodes", title_justify="left")
    table.add_column("")
    for name in (*grids, "all"):
        table.add_column(name, justify="right")
    table.add_row("policy", *(grid["policy"] for grid in grids.values()), "")
    _add_sum(table, "return, $", [grid["return"] for grid in grids.values()])
    for term in dict.fromkeys(name for grid in grids.values() for name in grid["terms"]):
        _add_sum(table, _heading(term), [grid["terms"].get(term, 0.0) for grid in grids.values()])
    for key, heading in (("violation_steps", "violation steps"), ("diverged_steps", "diverged steps")):
        counts = [grid[key] for grid in grids.values()]
        table.add_row(heading, *(str(count) for count in counts), str(sum(counts)))
    return table


def _link_table(links: Sequence[Mapping[str, Any]]) -> Table:
    """A column per kind of message; what did not happen is left out."""
    kinds = summed(links, ("kind",))
    table = Table(title="links with faults", title_justify="left")
    table.add_column("")
    for kind in kinds:
        table.add_column(kind["kind"], justify="right")
    table.add_row("links", *(str(sum(link["kind"] == kind["kind"] for link in links)) for kind in kinds))
    for name in ("sent", "delivered", "late", "lost", "duplicated", "attacked"):
        if any(kind[name] for kind in kinds):
            table.add_row(name, *(f"{kind[name]:,}" for kind in kinds))
    units = ["rounds" if kind["kind"] == "peer" else "steps" for kind in kinds]
    table.add_row("mean age", *(f"{kind['age_mean']:.2f} {unit}" for kind, unit in zip(kinds, units, strict=True)))
    table.add_row("oldest", *(f"{kind['age_max']} {unit}" for kind, unit in zip(kinds, units, strict=True)))
    return table


def _add_sum(table: Table, heading: str, values: Sequence[float]) -> None:
    if any(abs(value) >= 0.005 for value in values):
        table.add_row(heading, *(f"{value:,.2f}" for value in (*values, sum(values))))


def _heading(term: str) -> str:
    """A term of the reward as a row's heading."""
    return term.removesuffix("_cost") + ", $" if term.endswith("_cost") else term.replace("_", " ")


def _run_table(summary: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    latency = summary["step_latency_ms"]
    table.add_row("speed", f"{summary['steps_per_s']:.1f} steps/s; a step takes {latency['p50']:.1f} ms (p50), "
                           f"{latency['p99']:.1f} ms (p99)")  # fmt: skip
    messages = summary["messages_per_step"]
    if messages:
        kinds = ", ".join(f"{kind} {count:g}" for kind, count in messages.items())
        table.add_row("messages", f"{sum(messages.values()):g} per step: {kinds}")
    refused = summary["stats"]["refused"]
    if refused:
        table.add_row("refused", ", ".join(f"{cause} {count}" for cause, count in refused.items()))
    table.add_row("digest", summary["digest"])
    return table
