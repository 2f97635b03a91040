"""What the tests of security share: a proxy with keys, and peers that do not play by the rules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq
from conftest import small_topology, wait_until

from zgrid.messaging import PROXY, Address, Credentials
from zgrid.messaging.keys import create
from zgrid.session import Session
from zgrid.topology import load

NAMES = ("broker", "env", "watch", "mg_1", "mg_1.dg_1", "mg_1.pv_1", "mg_1.ess_1")
WITHIN_S = 1.0


def make_keys(folder: Path) -> Path:
    """Keys of the small topology."""
    create(folder, NAMES)
    return folder


class SecuredProxy:
    """A running proxy, its folder of keys, and what it logs."""

    def __init__(self, session: Session, keys: Path) -> None:
        self.keys = keys
        self.address = session.start_proxy()
        self._process = session.processes[PROXY]

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.popen.poll() is None

    @property
    def log(self) -> str:
        """All that it wrote."""
        fd = self._process.log.fileno()
        return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")

    def tells(self, *words: str, within_s: float = WITHIN_S) -> bool:
        """Whether one line of the log has all these words in time."""
        return wait_until(lambda: any(all(word in line for word in words) for line in self.log.splitlines()), within_s)


@contextmanager
def secured_proxy(folder: Path, ports: tuple[int, int] | None = None) -> Iterator[SecuredProxy]:
    """A proxy with keys in a process of its own."""
    keys = make_keys(folder)
    session = Session(load(small_topology(), {"broker.keys": str(keys), "broker.ports": ports}))
    try:
        yield SecuredProxy(session, keys)
    finally:
        session.stop()


@contextmanager
def raw_socket(kind: int, address: Address, own: Credentials | None) -> Iterator[zmq.Socket[bytes]]:
    """A socket without any of zgrid's care, connected to the proxy with keys or without."""
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, 0)
    if own is not None:
        socket.curve_publickey, socket.curve_secretkey = own.public, own.secret
        socket.curve_serverkey = own.server_public
    port = address.publish_port if kind in (zmq.PUB, zmq.XPUB) else address.subscribe_port
    socket.connect(f"tcp://{address.host}:{port}")
    try:
        yield socket
    finally:
        socket.close()
        context.term()
