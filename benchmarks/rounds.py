"""What a round of a protocol costs over ZeroMQ: three grids beside a bare pyzmq loop of the same messages.

``python -m benchmarks.rounds`` lets both play by turns in one run; the ratio is the median of those of each turn. Every
grid is a process; in a round each sends each other one message through the proxy of zgrid and waits for theirs. The
bare loop sends frames of the same bytes and looks at nothing. A third row tells what coding alone costs: the bare loop
that encodes what it sends, and decodes and checks what it hears, as zgrid does. Nothing passes or fails here.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
import uuid
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import zmq
from rich.console import Console
from rich.table import Table

from benchmarks.bare import die_with_parent, end
from nodes.common import finish_before_others
from zgrid.encoding import Familiar, encode, packer
from zgrid.host import Host
from zgrid.messages import Envelope, Peer, Reset, channel
from zgrid.messaging import Address, ZmqBroker
from zgrid.participant import CONVENER, Job, LockstepSeat
from zgrid.protocols import Local, Participant, peers
from zgrid.session import Session
from zgrid.topology import load

MARK = 0.6
GRAPH = {"mg_1": ("mg_2", "mg_3"), "mg_2": ("mg_1", "mg_3"), "mg_3": ("mg_1", "mg_2")}
PROTOCOL = "zgrid.protocols.average_consensus:AverageConsensus"
END = b"\0"
_PROVE_S, _PATIENCE_S = 20.0, 60.0

spawning = multiprocessing.get_context("spawn")


def with_zgrid(me: Participant, address: str, run: str, rounds: int, pipe: Connection) -> None:
    """One grid in this process: its rounds, again for each request, and the seconds they took."""
    die_with_parent()
    finish_before_others()  # as the nodes do
    job = Job(PROTOCOL, {"kind": PROTOCOL, "rounds": rounds}, me, [Local({"p_pcc_mw": 0.5})] * 1000, 0, run)
    broker = ZmqBroker(Address.parse(address), run)
    host, seat = Host(broker, run), LockstepSeat(job)
    host.add(seat)
    broker.prove(_PROVE_S)
    pipe.send(0.0)
    played, held = 0, seat.receive(Envelope(CONVENER, run, 0, 0, 0, 0, 0, Reset(0)))
    while pipe.recv():
        begin = time.perf_counter()
        for to, step, round, body in held:
            host.send(me.id, to, step, round, body)
        played += 1
        held = _until_next_step(host, seat, played)
        pipe.send(time.perf_counter() - begin)
    broker.close()


def _until_next_step(host: Host, seat: LockstepSeat, step: int) -> list[Any]:
    """Pump until the step is over; what is to be said first in the next is held back."""
    held: list[Any] = []
    receive = seat.receive

    def hold(envelope: Envelope) -> list[Any]:
        posts = receive(envelope)
        later = [post for post in posts if post.step > step]
        held.extend(later)
        return [post for post in posts if post.step == step]

    seat.receive = hold  # type: ignore[method-assign]
    while not held:
        host.pump(_PATIENCE_S)
    seat.receive = receive  # type: ignore[method-assign]
    return held


def bare(me: Participant, address: str, run: str, rounds: int, pipe: Connection) -> None:
    """The same messages without a look at them."""
    die_with_parent()
    context, pub, sub = _proved("bare", me, address)
    body = encode(_envelope(me.id, run))
    frames = [channel("bare", other, me.id).encode() + END + body for other in me.weights]
    own = channel("bare", me.id, "probe").encode()
    pipe.send(0.0)
    while pipe.recv():
        begin = time.perf_counter()
        for _ in range(rounds):
            for frame in frames:
                pub.send(frame)
            left = len(frames)
            while left:
                left -= not sub.recv().startswith(own)
        pipe.send(time.perf_counter() - begin)
    context.destroy(linger=0)


def coded(me: Participant, address: str, run: str, rounds: int, pipe: Connection) -> None:
    """The same loop, in which every message is encoded, decoded and checked."""
    die_with_parent()
    finish_before_others()
    context, pub, sub = _proved("coded", me, address)
    said, pack = _envelope(me.id, run), packer()
    heads = [channel("coded", other, me.id).encode() + END for other in me.weights]
    known = {
        name.encode(): Familiar(name, _envelope(other, run))
        for other, name in ((other, channel("coded", me.id, other)) for other in me.weights)
    }
    pipe.send(0.0)
    while pipe.recv():
        begin = time.perf_counter()
        for _ in range(rounds):
            for head in heads:
                pub.send(head + encode(said, pack))
            left = len(heads)
            while left:
                head, _, data = sub.recv().partition(END)
                if head in known:
                    left -= known[head].decode(data) is not None
        pipe.send(time.perf_counter() - begin)
    context.destroy(linger=0)


def _envelope(sender: str, run: str) -> Envelope:
    return Envelope(sender, run, 0, 1000, 1000, 1000, time.time_ns(), Peer((0.123456789,), 0, 0))


def _proved(word: str, me: Participant, address: str) -> tuple[Any, Any, Any]:
    """A context and its two sockets, which hear what they say."""
    context, where = zmq.Context(), Address.parse(address)
    pub, sub = context.socket(zmq.PUB), context.socket(zmq.SUB)
    pub.connect(f"tcp://{where.host}:{where.publish_port}")
    sub.connect(f"tcp://{where.host}:{where.subscribe_port}")
    sub.setsockopt(zmq.SUBSCRIBE, channel(word, me.id).encode())
    own = channel(word, me.id, "probe").encode()
    sub.setsockopt(zmq.RCVTIMEO, 50)
    heard = b""
    while heard != own:
        pub.send(own)
        try:
            heard = sub.recv()
        except zmq.Again:
            continue
    sub.setsockopt(zmq.RCVTIMEO, -1)
    return context, pub, sub


class Circle:
    """Three processes that play rounds when told."""

    def __init__(self, target: Any, address: str, rounds: int) -> None:
        self._rounds, run = rounds, uuid.uuid4().hex
        self._pipes, self._workers = [], []
        for me in peers(GRAPH).values():
            here, there = spawning.Pipe()
            worker = spawning.Process(target=target, args=(me, address, run, rounds, there), daemon=True)
            worker.start()
            self._pipes.append(here)
            self._workers.append(worker)
        self._hear()

    def _hear(self) -> list[float]:
        assert all(pipe.poll(_PATIENCE_S) for pipe in self._pipes), "a worker does not answer"
        return [float(pipe.recv()) for pipe in self._pipes]

    def measure(self) -> float:
        """Rounds per second, of the slowest."""
        for pipe in self._pipes:
            pipe.send(True)
        return self._rounds / max(self._hear())

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.send(False)
        end(self._workers)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rounds",
        description=__doc__,
        epilog="example: python -m benchmarks.rounds --rounds 500 --repeat 9",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=500, help="rounds of a turn (default: 500)")
    parser.add_argument("--repeat", type=int, default=9, help="turns; the median is told (default: 9)")
    arguments = parser.parse_args(argv)
    session = Session(load("3mg", checked=False))
    circles: list[Circle] = []
    try:
        address = str(session.start_proxy())
        circles += [Circle(target, address, arguments.rounds) for target in (bare, with_zgrid, coded)]
        turns = np.array([[circle.measure() for circle in circles] for _ in range(arguments.repeat)])
    finally:
        for circle in circles:
            circle.close()
        session.stop()
    console, table = Console(), Table(title=f"three grids, {arguments.rounds} rounds a turn, {arguments.repeat} turns")
    for heading in ("what", "rounds/s", "lowest", "highest"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    titles = ("bare pyzmq loop", "zgrid, average consensus", "bare loop that encodes, decodes and checks")
    for title, column in zip(titles, turns.T, strict=True):
        table.add_row(title, *(f"{value:,.0f}" for value in (np.median(column), column.min(), column.max())))
    console.print(table)
    ratio = float(np.median(turns[:, 1] / turns[:, 0]))
    console.print(f"rounds over ZeroMQ over the bare loop: {ratio:.2f} (mark {MARK:g})")
    console.print(f"coding alone over the bare loop: {float(np.median(turns[:, 2] / turns[:, 0])):.2f}")


if __name__ == "__main__":
    main()
