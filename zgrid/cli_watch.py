"""``zgrid topic``, ``zgrid node`` and ``zgrid top``: look at a run while it goes on."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from zgrid.command import FAILED, OK, add_connect, count, guarded, nothing_heard, seconds, tell
from zgrid.messages import Batch, Columns
from zgrid.messaging import Tap
from zgrid.watching import ChannelFigures, Ear, tap

PATIENCE_S = 2.0
_REFRESH_S = 1.0
_NODES = ("beat/", "control/")


def add_watch(commands: Any) -> None:
    """The commands and their parts."""
    topic = commands.add_parser(
        "topic",
        help="look at the channels of a run",
        description="Look at the channels of a run while it goes on. Nobody waits for a watcher.",
        epilog="examples:\n"
        "  zgrid topic list topologies/3mg.yaml\n"
        "  zgrid topic echo state/mg_1 --count 5\n"
        "  zgrid topic hz report/mg_1/\n"
        "  zgrid topic info setpoint/mg_1.dg_1/ topologies/3mg.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = topic.add_subparsers(dest="part", required=True, metavar="PART")
    made = _part(parts, "list", "which channels are spoken on", "zgrid topic list topologies/3mg.yaml --for 5", 2.0)
    _add_topology(made, "also tell channels of this file that are not heard")
    made.add_argument("--json", action="store_true", help="for programs")
    made = _part(parts, "echo", "print messages", "zgrid topic echo state/mg_1 --count 5 --json")
    made.add_argument("channel", metavar="CHANNEL", help="a channel, or how its name begins")
    made.add_argument("--count", metavar="N", type=count, help="end after N messages (default: with Ctrl-C)")
    made.add_argument("--json", action="store_true", help="one JSON object a line")
    made = _part(parts, "hz", "how often it is spoken on", "zgrid topic hz report/mg_1/ --for 5", 2.0)
    made.add_argument("channel", metavar="CHANNEL", help="a channel, or how its name begins")
    made = _part(parts, "info", "who speaks and hears, and what was said", "zgrid topic info state/mg_1.dg_1/ 3mg", 2.0)
    made.add_argument("channel", metavar="CHANNEL", help="a channel")
    _add_topology(made, "tells who hears it")
    node = commands.add_parser("node", help="look at the nodes of a run", epilog="example: zgrid node list")
    parts = node.add_subparsers(dest="part", required=True, metavar="PART")
    made = _part(parts, "list", "which nodes are there", "zgrid node list --json", 2.0)
    made.add_argument("--json", action="store_true", help="for programs")
    made = _part(commands, "top", "watch the nodes of a run", "zgrid top\nzgrid top --once --json --for 5")
    made.add_argument("--for", dest="seconds", metavar="S", type=seconds, help="end after S seconds")
    made.add_argument("--once", action="store_true", help="listen (2 s, or --for), print once, and end")
    made.add_argument("--json", action="store_true", help="one JSON object a second, or once")


def _part(parts: Any, name: str, what: str, example: str, listens_s: float | None = None) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = parts.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ".",
        epilog="example: " + example.replace("\n", "\n         "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_connect(made)
    if listens_s is not None:
        made.add_argument(
            "--for", dest="seconds", metavar="S", type=seconds, default=listens_s, help="listen so long (default: 2)"
        )
    return made


def _add_topology(made: argparse.ArgumentParser, what: str) -> None:
    made.add_argument("file", metavar="TOPOLOGY", nargs="?", help=what)
    made.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override a key; repeatable")


def watch(arguments: argparse.Namespace) -> int:
    """Run one of the commands; the exit code."""
    part = f"{arguments.command} {getattr(arguments, 'part', '')}".strip()
    command: Callable[[argparse.Namespace], int] = {
        "topic list": _list, "topic echo": _echo, "topic hz": _hz, "topic info": _info,
        "node list": _nodes, "top": _top,
    }[part]  # fmt: skip
    return guarded(command, arguments)


# ---- channels ------------------------------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace) -> int:
    from zgrid.watch_view import columns

    derived = _derived(arguments.file, arguments.set)
    with tap(arguments.connect, arguments.keys) as listening:
        ear, listened_s = _hear(listening, arguments.seconds)
        if not ear.frames:
            return nothing_heard(listening.address, arguments.seconds)
    rows = [_figures(one, listened_s) for _, one in sorted(ear.channels.items())]
    missing = {name: why for name, why in derived.items() if name not in ear.channels}
    if arguments.json:
        print(json.dumps({"seconds": round(listened_s, 3), "channels": rows, "not_heard": missing}, indent=2))
        return OK
    heads = ("channel", "speaker", "kind", "msg/s", "bytes/s", "")
    table = [heads, *(_cells(row) for row in rows)]
    for line in columns(table, right=(3, 4)):
        print(line)
    lost = f", {ear.gaps.lost} lost" if ear.gaps.lost else ""
    print(f"{len(rows)} channels, {ear.frames} frames in {listened_s:.1f} s{lost}")
    if missing:
        print("not heard, but in the topology:")
        for line in columns([(f"  {name}", why) for name, why in missing.items()]):
            print(line)
    return OK


def _hear(listening: Tap, listen_s: float) -> tuple[Ear, float]:
    """Listen for a while; what was heard, and for how long since the first message."""
    ear, began = Ear(), time.monotonic()
    for heard in listening.listen(listen_s):
        if heard is not None:
            began = began if ear.frames else time.monotonic()
            ear.take(heard)
    return ear, time.monotonic() - began


def _figures(one: ChannelFigures, listened_s: float) -> dict[str, Any]:
    return {
        "channel": one.channel, "speakers": sorted(one.speakers), "kind": one.kind,
        "messages_per_s": round(one.messages / listened_s, 1), "bytes_per_s": round(one.bytes / listened_s),
        "in_batches": one.bytes == 0,
    }  # fmt: skip


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    size = "" if row["in_batches"] else f"{row['bytes_per_s']:,}"
    note = "in batches" if row["in_batches"] else ""
    return row["channel"], ", ".join(row["speakers"]), row["kind"], f"{row['messages_per_s']:,.1f}", size, note


def _derived(file: str | None, settings: list[str]) -> dict[str, str]:
    """The channels of agents that a topology derives, and who speaks and hears there."""
    if file is None:
        return {}
    from zgrid.topology import load, parse_overrides
    from zgrid.topology.nodes import node_plans
    from zgrid.topology.traffic import hearers, homes, lines

    topology = load(file, parse_overrides(settings), checked=False)
    heard_at, home = hearers(topology), homes(node_plans(topology), topology)
    return {
        line.channel: f"{line.speaker} to {', '.join(line.hearers)}"
        + (f", within node {home[line.speaker]}" if heard_at[line.channel] <= {home[line.speaker]} else "")
        for line in lines(topology)
    }


def _echo(arguments: argparse.Namespace) -> int:
    from zgrid.watch_view import message_json, message_line

    prefix, shown, show = arguments.channel, 0, message_json if arguments.json else message_line
    began, ear, told = time.monotonic(), Ear(), False
    with tap(arguments.connect, arguments.keys, {prefix, "batch/", "beat/"}) as listening:
        for heard in listening.listen():
            if not shown and not told and time.monotonic() - began > PATIENCE_S:
                code = _not_on(prefix, ear, listening, PATIENCE_S)
                if not ear.frames:
                    return code
                told = True
            for message in ear.take(heard) if heard is not None else ():
                frame = heard.channel if heard is not None else ""
                holds_others = isinstance(message.envelope.body, Batch | Columns)
                if holds_others or not (message.channel + " " + frame).startswith(prefix):
                    continue
                print(show(message), flush=True)
                shown += 1
                if shown == arguments.count:
                    return OK
    return OK


def _not_on(name: str, ear: Ear, listening: Tap, listened_s: float) -> int:
    """Nothing on a channel: say whether the run goes on; the exit code."""
    if not ear.frames:
        return nothing_heard(listening.address, listened_s)
    return tell(
        f"nothing heard on {name} within {listened_s:g} s, but the run goes on; zgrid topic list shows what there is",
        FAILED,
    )


def _hz(arguments: argparse.Namespace) -> int:
    prefix = arguments.channel
    with tap(arguments.connect, arguments.keys, {prefix, "batch/", "beat/"}) as listening:
        ear, listened_s = _hear(listening, arguments.seconds)
        found = [one for name, one in sorted(ear.channels.items()) if name.startswith(prefix)]
        if not found:
            return _not_on(prefix, ear, listening, arguments.seconds)
    for one in found:
        rate = f"{one.channel}  {one.messages / listened_s:,.1f} messages/s"
        if not one.intervals_ms:
            print(f"{rate}; one message in {listened_s:.1f} s")
            continue
        mean, deviation, least, greatest = one.jitter_ms
        print(
            f"{rate}; every {mean:.2f} ms, standard deviation {deviation:.2f} ms, least {least:.2f} ms, "
            f"greatest {greatest:.2f} ms"
        )
    return OK


def _info(arguments: argparse.Namespace) -> int:
    from zgrid.watch_view import columns, message_line

    name = arguments.channel if arguments.channel.endswith("/") else arguments.channel + "/"
    derived = _derived(arguments.file, arguments.set)
    with tap(arguments.connect, arguments.keys, {name, "batch/", "beat/"}) as listening:
        ear, listened_s = _hear(listening, arguments.seconds)
        one = ear.channels.get(name)
        if one is None:
            return _not_on(f"{name} ({derived[name]})" if name in derived else name, ear, listening, arguments.seconds)
    assert one.last is not None
    rows = [("channel", name), ("speaker", ", ".join(sorted(one.speakers))), ("kind", one.kind)]
    if derived:
        rows.append(("topology", derived.get(name, "knows no such channel of agents")))
    size = f", {one.bytes / one.messages:,.0f} bytes each" if one.bytes else ", in batches"
    rows += [("rate", f"{one.messages / listened_s:,.1f} messages/s{size}"), ("last", message_line(one.last))]
    for line in columns(rows):
        print(line)
    return OK


# ---- nodes ---------------------------------------------------------------------------------------------------------


def _nodes(arguments: argparse.Namespace) -> int:
    from zgrid.watch_view import agents_text, columns, nodes_json

    with tap(arguments.connect, arguments.keys, _NODES) as listening:
        ear, _ = _hear(listening, arguments.seconds)
        if not ear.nodes:
            return nothing_heard(listening.address, arguments.seconds)
    now_ns = time.time_ns()
    if arguments.json:
        print(json.dumps(nodes_json(ear.nodes, now_ns)["nodes"], indent=2))
        return OK
    rows = [("node", "state", "pid", "incarnation", "agents")]
    for _, node in sorted(ear.nodes.items()):
        state = f"up, heard for {(node.last_ns - node.first_ns) * 1e-9:.1f} s"
        silent = f"silent for {node.silence_s(now_ns):.1f} s"
        rows.append((
            node.name, state if node.is_up(now_ns) else silent, str(node.beat.pid), str(node.incarnation),
            agents_text(node.beat.agents),
        ))  # fmt: skip
    for line in columns(rows, right=(2, 3)):
        print(line)
    return OK


def _top(arguments: argparse.Namespace) -> int:
    from zgrid.watch_view import Top, nodes_json

    once = arguments.once
    end = time.monotonic() + (arguments.seconds or (PATIENCE_S if once else 1e9))
    patience = time.monotonic() + max(PATIENCE_S, arguments.seconds or 0.0)
    live = not once and not arguments.json and sys.stdout.isatty()
    ear, due = Ear(), time.monotonic() + _REFRESH_S
    with tap(arguments.connect, arguments.keys, _NODES) as listening, Top(live=live) as top:

        def show() -> None:
            now_ns = time.time_ns()
            title = f"zgrid top: {listening.address}" + (", the run has ended" if ear.stopped else "")
            if arguments.json:
                print(json.dumps(nodes_json(ear.nodes, now_ns)), flush=True)
            else:
                top.show(ear.nodes, now_ns, title)

        for heard in listening.listen(end - time.monotonic()):
            if heard is not None:
                ear.take(heard)
            now = time.monotonic()
            if not ear.nodes and now > patience:
                break
            if not once and ear.nodes and now > due:
                show()
                due = now + _REFRESH_S
        if not ear.nodes:
            return nothing_heard(listening.address, min(PATIENCE_S, arguments.seconds or PATIENCE_S))
        if once:
            show()
    return OK
