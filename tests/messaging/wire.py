"""What the tests of messaging share: a real proxy, envelopes to send, and a peer that speaks raw ZeroMQ."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import zmq
from conftest import small_topology

from zgrid.encoding import encode
from zgrid.messages import Body, Envelope, Peer
from zgrid.messaging import Address, Delivery, MessageBroker, ZmqBroker
from zgrid.messaging.address import END
from zgrid.session import Session
from zgrid.topology import load

RUN = "run-of-these-tests"
PATIENCE_S = 10.0
LINE = "peer/mg_1/mg_2/"


@contextmanager
def running_proxy(overrides: Mapping[str, Any] | None = None) -> Iterator[Address]:
    """A proxy in a process of its own, on ports the system chose."""
    session = Session(load(small_topology(), overrides))
    try:
        yield session.start_proxy()
    finally:
        session.stop()


def say(
    sequence: int = 0,
    sender: str = "a",
    *,
    run: str = RUN,
    incarnation: int = 0,
    step: int = 1,
    body: Body | None = None,
) -> Envelope:
    """An envelope that differs from others in what matters to the test."""
    return Envelope(sender, run, incarnation, sequence, step, 0, 123, body or Peer((float(sequence),)))


def frame(name: bytes | str, body: bytes) -> bytes:
    """What stands on the wire: one frame."""
    return (name.encode() if isinstance(name, str) else name) + END + body


def listen(broker: MessageBroker, *channels: str) -> None:
    """Subscribe, and return when the subscriptions are in force."""
    for name in channels:
        broker.subscribe(name)
    broker.prove(PATIENCE_S)


def receive(broker: MessageBroker, count: int) -> list[Delivery]:
    """The next deliveries; fewer where no more come."""
    deliveries = (broker.poll(PATIENCE_S) for _ in range(count))
    return [delivery for delivery in deliveries if delivery is not None]


@contextmanager
def raw_peer(address: Address, hearer: ZmqBroker, *channels: str) -> Iterator[zmq.Socket[bytes]]:
    """A PUB socket without any of zgrid's care, heard by ``hearer``, who listens on the channels."""
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(f"tcp://{address.host}:{address.publish_port}")
    listen(hearer, "hello/", *channels)
    try:
        greet(socket, hearer)
        yield socket
    finally:
        socket.close()
        context.term()


def greet(socket: zmq.Socket[bytes], hearer: ZmqBroker) -> None:
    """Call until the hearer hears the call: the connection stands."""
    deadline = time.monotonic() + PATIENCE_S
    sequence = time.monotonic_ns()
    while time.monotonic() < deadline:
        socket.send(frame("hello/", encode(say(0, f"raw-{sequence}"))))
        if hearer.poll(0.02) is not None:
            while hearer.poll(0.05) is not None:
                pass
            return
        sequence += 1
    raise TimeoutError("the raw peer was never heard")
