"""Purpose-built faults: agents and a power flow that fail when told, a cable that can be cut, a peer that babbles."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from conftest import small_topology

import zgrid
from zgrid.messaging.address import END, Address
from zgrid.session import Session

SLOW_S = 2.2
"""Longer than the silence after which a node counts as failed."""

AGENTS = '''
"""A device and a policy that do something bad: when built (outside the test's own process), or in their N-th act."""
import ctypes, os, signal, sys, time
from zgrid.devices.load import Load
from zgrid.policies.rule_based import RuleBased

OWN = {own}
ONCE = __file__ + ".once"

def fail_once(what):
    """Not again in a successor, wherever it is."""
    if what and not os.path.exists(ONCE):
        open(ONCE, "w").close()
        fail(what)

def fail(what):
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "raise":
        raise RuntimeError("out of sorts")
    elif what == "hang":
        ctypes.PyDLL(None).sleep(600)  # with the lock of the interpreter: not even the thread that beats goes on
    elif what == "slow":
        time.sleep({slow})

class Device(Load):
    count = 0

    def __init__(self, *arguments):
        super().__init__(*arguments)
        if {ready!r} and sys.argv[0].endswith("device.py"):  # its grid builds one too
            fail({ready!r})

    def step(self, state, setpoint, series):
        type(self).count += 1
        if type(self).count == {at}:
            fail_once({acts!r})
        return super().step(state, setpoint, series)

class Policy(RuleBased):
    count = 0

    def __init__(self, *arguments):
        super().__init__(*arguments)
        if {ready!r} and os.getpid() != OWN:
            fail({ready!r})

    def act(self, view):
        type(self).count += 1
        if type(self).count == {at}:
            fail_once({acts!r})
        return super().act(view)
'''

FLOW = '''
"""A power flow that does something bad: when built, or in its N-th solve."""
import os, signal, time
from zgrid.powerflow.fast import FastPowerFlow
from {agents} import fail

class Flow(FastPowerFlow):
    count = 0

    def __init__(self, network):
        super().__init__(network)
        if {ready!r}:
            fail({ready!r})

    def solve(self):
        type(self).count += 1
        if type(self).count == {at}:
            fail({acts!r})
        return super().solve()
'''
DEVICE = "mg_1.load_1"
GRID = "mg_1"


def write_agents(folder: Path, name: str, *, ready: str = "", acts: str = "", at: int = 2) -> None:
    """The module ``name`` with a Device and a Policy."""
    text = AGENTS.format(own=os.getpid(), slow=SLOW_S, ready=ready, acts=acts, at=at)
    (folder / f"{name}.py").write_text(text)


def write_flow(folder: Path, name: str, *, ready: str = "", acts: str = "", at: int = 4) -> None:
    """The module ``name`` with a Flow; the env's first two solves check the network and begin the episode."""
    write_agents(folder, f"{name}_agents")
    (folder / f"{name}.py").write_text(FLOW.format(agents=f"{name}_agents", ready=ready, acts=acts, at=at))


def with_device(content: dict[str, Any], module: str) -> dict[str, Any]:
    """The faulty device, as ``mg_1.load_1``; a load like any other until it fails."""
    load = {"kind": f"{module}:Device", "bus": "646", "demand": "load_2", "p_mw": 0.2}
    content["grids"]["mg_1"]["devices"]["load_1"] = load
    return content


def with_policy(content: dict[str, Any], module: str) -> dict[str, Any]:
    """The faulty policy, at ``mg_1``."""
    content["grids"]["mg_1"]["policy"] = f"{module}:Policy"
    return content


def rewards(content: dict[str, Any], steps: int, seed: int = 0) -> list[dict[str, float]]:
    """What an undisturbed run of the content gives."""
    with closing(zgrid.parallel_env(content, centralized=True)) as env:
        env.reset(seed=seed)
        return [env.step(dict.fromkeys(env.agents))[1] for _ in range(steps)]


def plain(grids: int = 1) -> dict[str, Any]:
    """Small microgrids; time-outs so long that only a heartbeat can be sooner."""
    content = small_topology(grids)
    content["broker"] = {"step_timeout_s": 30.0, "ready_timeout_s": 30.0}
    return content


def alone(content: dict[str, Any], *devices: str) -> dict[str, Any]:
    """These devices of ``mg_1`` are processes, its others are with the env: fewer to start."""
    for name, device in content["grids"]["mg_1"]["devices"].items():
        if name not in devices:
            device["run"] = "inline"
    return content


def session_of(env: zgrid.NetworkedGridEnv) -> Session:
    """The processes of an env."""
    session = env._execution._session  # type: ignore[union-attr]
    assert session is not None
    return session


def pid_of(env: zgrid.NetworkedGridEnv, node: str) -> int:
    """The process of a node."""
    return session_of(env).processes[node].popen.pid


class Cable:
    """Two TCP ports that lead to a proxy's, until it is cut: then nothing comes through, and no side is told.

    ``cut_at`` cuts it right after so many messages with these bytes have passed.
    """

    def __init__(self, address: Address) -> None:
        self._servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self._targets = (address.publish_port, address.subscribe_port)
        self.address = Address("127.0.0.1", *(server.getsockname()[1] for server in self._servers))
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._wake, self._woken = socket.socketpair()
        self._needle, self._left = b"", 0
        self.is_cut = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Let nothing through any more."""
        self.is_cut.set()

    def mend(self) -> None:
        """Let all through again; what was on the way meanwhile arrives."""
        self.is_cut.clear()
        self._wake.send(b"x")

    def cut_at(self, needle: bytes, count: int = 1) -> None:
        """Cut it after ``count`` pieces that hold the bytes."""
        self._needle, self._left = needle, count

    def close(self) -> None:
        """End both directions."""
        self._over = True
        self._wake.send(b"x")
        self._thread.join()
        for one in (*self._servers, *self._pairs, self._wake, self._woken):
            one.close()

    def _run(self) -> None:
        while not self._over:
            ends = [] if self.is_cut.is_set() else [*self._servers, *self._pairs]
            ready, _, _ = select.select([self._woken, *ends], [], [], 0.02)
            for one in ready:
                if one is self._woken:
                    one.recv(100)
                elif one in self._servers:
                    self._connect(one)
                elif one in self._pairs:
                    self._pass(one)

    def _connect(self, server: socket.socket) -> None:
        near, _ = server.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._targets[self._servers.index(server)]))
        except OSError:
            near.close()
            return
        self._pairs |= {near: far, far: near}

    def _pass(self, one: socket.socket) -> None:
        if self.is_cut.is_set():
            return
        other = self._pairs[one]
        try:
            data = one.recv(1 << 16)
            other.sendall(data)
        except OSError:
            data = b""
        if not data:
            for end in (one, other):
                self._pairs.pop(end, None)
                end.close()
        if self._needle and self._needle in data:
            self._left -= 1
            if self._left <= 0:
                self._needle = b""
                self.cut()


@contextmanager
def cable(address: Address) -> Iterator[Cable]:
    """A cable to a proxy."""
    made = Cable(address)
    try:
        yield made
    finally:
        made.close()


class Babbler:
    """A peer that says what is no message, on channels that others hear."""

    KINDS = 6

    def __init__(self, address: Address, channels: list[str]) -> None:
        self._context = zmq.Context()
        self._pub, self._sub = self._context.socket(zmq.PUB), self._context.socket(zmq.SUB)
        self._pub.connect(f"tcp://{address.host}:{address.publish_port}")
        self._sub.connect(f"tcp://{address.host}:{address.subscribe_port}")
        self._sub.setsockopt(zmq.SUBSCRIBE, b"babble/")
        self._channels = channels
        while not self._sub.poll(20):
            self._pub.send(b"babble/" + END)

    def say(self, rng: np.random.Generator) -> int:
        """Say nonsense of every sort on every channel, and return when all of it is through: how many per channel."""
        for name in self._channels:
            head = name.encode() + END
            for body in (b"", b"\xc1", rng.bytes(40), b"\x9a" + b"\x03" * 9, b"\x90", b"\xdd\xff\xff\xff\xff"):
                self._pub.send(head + body)
        mark = rng.bytes(8).hex().encode()
        self._pub.send(b"babble/" + END + mark)
        while self._sub.recv().partition(END)[2] != mark:
            continue
        return self.KINDS

    def close(self) -> None:
        """Fall silent."""
        self._context.destroy(linger=0)


@contextmanager
def babbler(address: Address, *channels: str) -> Iterator[Babbler]:
    """A babbling peer on these channels."""
    made = Babbler(address, list(channels))
    try:
        yield made
    finally:
        made.close()
