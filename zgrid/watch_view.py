"""What watchers are shown: messages as lines, nodes as tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from zgrid.watching import Message, NodeFigures, by_kind

_SHOWN = 6
_REFUSALS = 12


# ---- messages ------------------------------------------------------------------------------------------------------


def message_line(message: Message) -> str:
    """A message as one line for a person: when, which step, from whom on which channel, and what it says."""
    envelope = message.envelope
    said = " ".join(f"{name}={_brief(value)}" for name, value in _fields(envelope.body))
    at = f"step {envelope.step}" + (f".{envelope.round}" if envelope.round else "")
    return f"{clock(message.received_ns)}  {at:<9} {message.channel}  {message.kind} of {envelope.sender}: {said}"


def message_json(message: Message) -> str:
    """A message as one line of JSON, with all its numbers; what is not a number is null."""
    envelope = message.envelope
    head = {"received_ns": message.received_ns, "channel": message.channel, "kind": message.kind}
    head |= {name: getattr(envelope, name) for name in envelope._fields[:-1]}
    head |= {"in_batch": message.size == 0, "body": {name: _plain(value) for name, value in _fields(envelope.body)}}
    return json.dumps(head, allow_nan=False)


def clock(at_ns: int) -> str:
    """The local time of day, to the millisecond."""
    return datetime.fromtimestamp(at_ns * 1e-9).strftime("%H:%M:%S.%f")[:-3]


def columns(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Rows as aligned lines, the first of them the headings; the columns ``right`` are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    flush = set(right)
    return [
        "  ".join(
            cell.rjust(width) if at in flush else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _fields(body: Any) -> list[tuple[str, Any]]:
    return list(zip(body._fields, body, strict=True))


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, np.ndarray):
        return _brief(tuple(value.tolist()))
    if isinstance(value, tuple):
        shown = ", ".join(_brief(one) for one in value[:_SHOWN])
        return f"({shown}, ... {len(value)})" if len(value) > _SHOWN else f"({shown})"
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(tuple(value.tolist()))
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- nodes ---------------------------------------------------------------------------------------------------------


def nodes_json(nodes: dict[str, NodeFigures], now_ns: int) -> dict[str, Any]:
    """All that is known of the nodes, for a program."""
    return {
        "at_ns": now_ns,
        "nodes": [
            {
                "node": node.name, "up": node.is_up(now_ns), "silence_s": round(node.silence_s(now_ns), 3),
                "pid": node.beat.pid, "incarnation": node.incarnation, "agents": list(node.beat.agents),
                "heard_for_s": round((node.last_ns - node.first_ns) * 1e-9, 3),
                "messages_per_s": round(node.rate.messages, 1), "bytes_per_s": round(node.rate.bytes),
                "refused": {cause: count for cause, count, _ in node.beat.refused},
            }
            for node in nodes.values()
        ],
        "kinds": [
            {
                "kind": row.kind, "messages_per_s": round(row.rate.messages, 1), "bytes_per_s": round(row.rate.bytes),
                "p50_us": row.p50_us, "p99_us": row.p99_us,
            }
            for row in by_kind(nodes)
        ],
    }  # fmt: skip


class Top:
    """The nodes of a run as tables: alive on a terminal, else printed when asked."""

    def __init__(self, *, live: bool) -> None:
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False, screen=live) if live else None

    def __enter__(self) -> Top:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, nodes: dict[str, NodeFigures], now_ns: int, title: str) -> None:
        """Show the state of things."""
        shown = Group(
            Text(title, style="dim"), _node_table(nodes, now_ns), Text(), _kind_table(nodes), *_refused(nodes)
        )
        if self._live is not None:
            self._live.update(shown, refresh=True)
        else:
            self._console.print(shown)


def agents_text(agents: Sequence[str]) -> str:
    """The agents of a node, a few by name."""
    if len(agents) > 4:
        return f"{', '.join(agents[:3])}, ... {len(agents)}"
    return ", ".join(agents) or "-"


def _node_table(nodes: dict[str, NodeFigures], now_ns: int) -> Table:
    table = _table(("node", ""), ("state", ""), ("incarnation", "r"), ("msg/s", "r"), ("kB/s", "r"), ("agents", ""))
    for node in sorted(nodes.values(), key=lambda node: (node.is_up(now_ns), -node.rate.messages)):
        up = node.is_up(now_ns)
        state = Text("up", style="green") if up else Text(f"silent {node.silence_s(now_ns):.1f} s", style="bold red")
        rate = node.rate if up else None
        table.add_row(
            node.name,
            state,
            str(node.incarnation),
            f"{rate.messages:,.0f}" if rate else "-",
            f"{rate.bytes / 1000.0:,.1f}" if rate else "-",
            agents_text(node.beat.agents),
        )
    return table


def _kind_table(nodes: dict[str, NodeFigures]) -> Table:
    table = _table(("kind", ""), ("msg/s", "r"), ("kB/s", "r"), ("p50 ms", "r"), ("p99 ms", "r"))
    for kind, rate, p50_us, p99_us in by_kind(nodes):
        times = ("-" if us is None else f"{us / 1000.0:,.2f}" for us in (p50_us, p99_us))
        table.add_row(kind, f"{rate.messages:,.0f}", f"{rate.bytes / 1000.0:,.1f}", *times)
    return table


def _refused(nodes: dict[str, NodeFigures]) -> list[Any]:
    rows = [(node.name, cause, count) for node in nodes.values() for cause, count, _ in node.beat.refused]
    if not rows:
        return []
    table = _table(("refused at", ""), ("cause", ""), ("count", "r"))
    for name, cause, count in sorted(rows, key=lambda row: -row[2])[:_REFUSALS]:
        table.add_row(name, cause, f"{count:,}")
    return [Text(), table]


def _table(*headings: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, side in headings:
        table.add_column(heading, justify="right" if side else "left", no_wrap=heading != "agents")
    return table
