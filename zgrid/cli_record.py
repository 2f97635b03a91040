"""``zgrid record`` and ``zgrid replay``: keep what a run says, and use it again."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zgrid.command import (
    BAD_INPUT,
    FAILED,
    OK,
    add_connect,
    count,
    guarded,
    nothing_heard,
    seconds,
    sigterm_raises,
    tell,
)
from zgrid.errors import RecordingError
from zgrid.messaging import Heard, Playback, Tap
from zgrid.recording import Reader, Writer
from zgrid.runfile import RunFile
from zgrid.watching import ChannelFigures, Ear, tap

_PATIENCE_S = 2.0
_AFTERWARDS_S = 0.5
_WATCHER_S = 0.2


def add_record(commands: Any) -> None:
    """The two commands."""
    made = commands.add_parser(
        "record",
        help="record what a run says",
        description="Record all messages of a run, until it ends, a limit is reached, or Ctrl-C. The run never waits "
        "for the recorder; what it lost is counted.",
        epilog="example: zgrid record run.zrec && zgrid replay run.zrec --node mg_1.dg_1 topologies/3mg.yaml",
    )
    made.add_argument("file", metavar="FILE", type=Path, help="file to write; there must not be one yet")
    limit = made.add_mutually_exclusive_group()
    limit.add_argument("--for", dest="seconds", metavar="S", type=seconds, help="end after S seconds")
    limit.add_argument("--messages", metavar="N", type=count, help="end after N messages")
    add_connect(made)
    made = commands.add_parser(
        "replay",
        help="use a recording",
        description="Tell what is in a recording, let the agents of a node live through it again, or play it to "
        "watchers in real time.",
        epilog="examples:\n"
        "  zgrid replay run.zrec --list\n"
        "  zgrid replay run.zrec --node mg_1 topologies/3mg.yaml\n"
        "  zgrid replay run.zrec --serve --speed 2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("file", metavar="FILE", type=Path, help="a recording")
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="tell what is in it")
    what.add_argument(
        "--node",
        metavar=("NODE", "TOPOLOGY"),
        nargs=2,
        help="let the agents of a node of the file that was run hear all again, and compare what they say",
    )
    what.add_argument("--serve", action="store_true", help="play it to watchers, on free ports of this machine")
    made.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override a key; repeatable")
    made.add_argument("--speed", metavar="X", type=seconds, default=1.0, help="X times as fast (default: 1)")


# ---- record --------------------------------------------------------------------------------------------------------


def record(arguments: argparse.Namespace) -> int:
    """Record; the exit code."""
    return guarded(_record, arguments)


def _record(arguments: argparse.Namespace) -> int:
    with sigterm_raises(KeyboardInterrupt), tap(arguments.connect, arguments.keys) as listening:
        ear = Ear()
        try:
            writer = Writer(arguments.file)
        except RecordingError as error:
            return tell(f"error: {error}", BAD_INPUT)
        with writer:
            print(f"recording {listening.address} to {arguments.file}; Ctrl-C ends it", flush=True)
            try:
                for heard in _until_stop(listening, ear, arguments.seconds, arguments.messages):
                    writer.write(heard) if heard is not None else writer.tick()
            except KeyboardInterrupt:
                pass
        if not writer.messages:
            arguments.file.unlink(missing_ok=True)
            return nothing_heard(listening.address, max(_PATIENCE_S, arguments.seconds or 0.0))
        print(_told(writer, ear, listening))
    return OK


def _until_stop(listening: Tap, ear: Ear, seconds: float | None, limit: int | None) -> Iterator[Heard | None]:
    """What is heard, until a limit, or for a moment after the run has said that it is over."""
    began = time.monotonic()
    end = None
    for heard in listening.listen(seconds):
        yield heard
        if heard is not None:
            ear.take(heard)
        if ear.frames == limit or (not ear.frames and time.monotonic() - began > max(_PATIENCE_S, seconds or 0.0)):
            return
        if ear.stopped and end is None:
            end = time.monotonic() + _AFTERWARDS_S
        if end is not None and time.monotonic() > end:
            return


def _told(writer: Writer, ear: Ear, listening: Tap) -> str:
    why = "the run has ended; " if ear.stopped else ""
    slow = f" ({listening.dropped} because this recorder was too slow)" if listening.dropped else ""
    return f"{why}{writer.messages:,} messages, {writer.bytes:,} bytes, {ear.gaps.lost:,} lost{slow}"


# ---- replay --------------------------------------------------------------------------------------------------------


def replay(arguments: argparse.Namespace) -> int:
    """Use a recording; the exit code."""
    return guarded(_replay, arguments)


def _replay(arguments: argparse.Namespace) -> int:
    if arguments.list:
        return _summary(arguments.file)
    if arguments.serve:
        return _serve(arguments.file, arguments.speed)
    return _again(arguments)


def _summary(file: Path) -> int:
    from zgrid.watch_view import agents_text, clock, columns

    reader, ear = Reader(file), Ear()
    first = last = None
    runs: set[str] = set()
    steps: set[int] = set()
    for heard in reader:
        first, last = first or heard, heard
        for message in ear.take(heard):
            runs.add(message.envelope.run)
            steps.add(message.envelope.step)
    if first is None or last is None:
        return tell(f"error: {file} holds no message", FAILED)
    span_s = (last.received_ns - first.received_ns) * 1e-9
    runs.discard("")
    print(f"{file}: {ear.frames:,} messages in {span_s:.1f} s from {clock(first.received_ns)}, "
          f"steps {min(steps - {0}, default=0)} to {max(steps)}, {len(runs)} run{'s' if len(runs) != 1 else ''}, "
          f"{ear.gaps.lost} lost")  # fmt: skip
    print("the run's end was recorded" if ear.stopped else "the run's end was not recorded")
    if reader.torn or ear.malformed:
        print(f"ignored: {reader.torn} bytes of a torn record at the end, {ear.malformed} malformed messages")
    nodes = [(node.name, agents_text(node.beat.agents)) for _, node in sorted(ear.nodes.items())]
    for line in columns([("node", "agents"), *nodes]) if nodes else ():
        print(line)
    unplaced = _speakers(ear) - {agent for node in ear.nodes.values() for agent in node.beat.agents}
    if unplaced:
        print(f"of nodes without a heartbeat here: {', '.join(sorted(unplaced))}")
    for line in columns([("kind", "channels", "messages", "bytes"), *_kind_rows(ear)], right=(1, 2, 3)):
        print(line)
    return OK


def _speakers(ear: Ear) -> set[str]:
    """The agents that have spoken, and env."""
    steps = (one for one in ear.channels.values() if one.kind not in ("probe", "beat"))
    return {speaker for one in steps for speaker in one.speakers if not speaker.startswith("node:")}


def _kind_rows(ear: Ear) -> Iterator[tuple[str, str, str, str]]:
    """By kind of channel: how many, their messages, also those in batches, and their bytes."""
    kinds: dict[str, list[ChannelFigures]] = {}
    for name, figures in sorted(ear.channels.items()):
        kinds.setdefault(name.partition("/")[0], []).append(figures)
    for kind, group in kinds.items():
        messages, size = sum(one.messages for one in group), sum(one.bytes for one in group)
        yield kind, str(len(group)), f"{messages:,}", f"{size:,}" if size else "in batches"


def _again(arguments: argparse.Namespace) -> int:
    from zgrid.replaying import describe, replay
    from zgrid.topology import load, parse_overrides

    node, file = arguments.node
    topology = load(file, parse_overrides(arguments.set), checked=False)
    began = time.monotonic()
    result = replay(arguments.file, topology, node)
    took_s = time.monotonic() - began
    if result.other_topology:
        tell("this node was recorded with another topology than the one named here", OK)
    kinds = ", ".join(f"{kind} {number:,}" for kind, number in sorted(result.kinds.items()))
    first, last = result.steps
    episodes = f"{result.episodes} episode{'s' if result.episodes != 1 else ''}"
    print(f"{node}: {episodes}, steps {first} to {last}, replayed in {took_s:.2f} s")
    print(f"{result.equal:,} messages equal ({kinds or 'none'}), {result.different:,} different")
    if result.beyond:
        print(f"{result.beyond} more were said after the recording ended")
    if result.first is not None:
        print("\n".join(describe(result.first)))
        return FAILED
    if not result.equal:
        return tell("error: the recording holds nothing that this node has said", FAILED)
    return OK


def _serve(file: Path, speed: float) -> int:
    """Play a recording in real time, from the moment somebody listens."""
    reader, playback = Reader(file), Playback()
    run = RunFile.write(str(playback.address), str(file))
    try:
        print(
            f"at {playback.address}; begins with the first watcher: zgrid top --connect {playback.address}", flush=True
        )
        while not playback.await_watcher(_WATCHER_S):
            pass
        played = _play(reader, playback, speed)
        print(f"played {played:,} messages")
    finally:
        if run is not None:
            run.remove()
        playback.close()
    return OK


def _play(reader: Reader, playback: Playback, speed: float) -> int:
    """Publish each message when its time has come; how many."""
    began, first_ns, played = time.monotonic(), 0, 0
    for heard in reader:
        first_ns = first_ns or heard.received_ns
        playback.wait(began + (heard.received_ns - first_ns) * 1e-9 / speed - time.monotonic())
        playback.publish(heard.channel, heard.body)
        played += 1
    return played
