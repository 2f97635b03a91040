"""The ZeroMQ proxy: the only thing that binds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import zmq

from zgrid.errors import BrokerError
from zgrid.messaging.address import Address
from zgrid.messaging.zmq_broker import configure

BACKLOG = 100_000
"""Messages that wait for one subscriber; more are dropped. A participant reads as fast as the network carries, and in
lockstep is never more than a step behind. This bounds what a watcher costs that is connected, but hardly reads.
"""


def run_proxy(host: str, ports: Sequence[int] | None, bound: Callable[[Address], None]) -> None:
    """Bind, tell ``bound`` where, and forward until the process ends.

    Raises:
        BrokerError: an address that cannot be bound.
    """
    context = zmq.Context()
    publishers, subscribers = context.socket(zmq.XSUB), context.socket(zmq.XPUB)
    for socket in (publishers, subscribers):
        configure(socket)
    subscribers.setsockopt(zmq.SNDHWM, BACKLOG)
    wanted = ports or (0, 0)
    try:
        address = Address(host, bind(publishers, host, wanted[0]), bind(subscribers, host, wanted[1]))
    except BrokerError:
        context.destroy(linger=0)
        raise
    publishers.send(b"\x01")  # subscribe to all, so that no publisher filters while subscriptions travel
    bound(address)
    zmq.proxy(publishers, subscribers)


def bind(socket: zmq.Socket[bytes], host: str, port: int) -> int:
    """Bind to a port, 0: any that is free; which it is.

    Raises:
        BrokerError: it cannot be bound.
    """
    try:
        socket.bind(f"tcp://{host}:{port or '*'}")
    except zmq.ZMQError as error:
        raise BrokerError(f"cannot bind {host}:{port or '*'}: {error}; is another run using it?") from error
    endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(endpoint, bytes)
    return int(endpoint.rstrip(b"\0").rpartition(b":")[2])
