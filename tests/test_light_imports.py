"""What has to be light is: the package's import, and a device node in time and in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, small_topology, wait_until

from zgrid.messages import ENV, Envelope, Ready, RollCall, Stop, channel
from zgrid.messaging import ZmqBroker
from zgrid.node import CONTROL
from zgrid.session import Session
from zgrid.topology import load

HEAVY = {"pandapower", "pandas", "scipy", "numba", "pettingzoo", "gymnasium", "matplotlib", "rich"}
RUN = "light"
PATIENCE_S = 30.0
IMPORT_CPU_S, NODE_CPU_S, NODE_MB = 0.5, 1.0, 60.0
MEASURE = """
import importlib, json, sys, time
told = []
for module in sys.argv[1:]:
    begin = time.process_time()
    importlib.import_module(module)
    told.append([time.process_time() - begin, sorted({name.partition(".")[0] for name in sys.modules})])
print(json.dumps(told))
"""
NODES = (
    *("nodes.device", "nodes.grid", "nodes.broker", "zgrid.node", "zgrid.topology", "zgrid.messaging"),
    *("zgrid.cli", "zgrid.cli_join"),
)
DECIDING = ("zgrid.devices", "zgrid.agents", "zgrid.protocols", "zgrid.policies")


@cache
def costs_of(*modules: str) -> dict[str, tuple[float, set[str]]]:
    """Of modules, one after the other in a new process: CPU seconds that the import takes, and the top-level packages
    that are there after it, with those of the modules before it.
    """
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *modules],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    told = zip(modules, json.loads(done.stdout), strict=True)
    return {module: (seconds, set(packages)) for module, (seconds, packages) in told}


class TestImports:
    def test_the_package_itself_costs_almost_nothing(self) -> None:
        measured = [costs_of.__wrapped__("zgrid")["zgrid"] for _ in range(3)]
        assert min(seconds for seconds, _ in measured) < IMPORT_CPU_S
        assert not measured[0][1] & (HEAVY | {"zmq", "numpy", "pydantic", "yaml", "msgpack"})

    @pytest.mark.parametrize("module", NODES)
    def test_what_a_small_node_needs_brings_nothing_heavy(self, module: str) -> None:
        assert not costs_of(*NODES)[module][1] & HEAVY

    @pytest.mark.parametrize("module", DECIDING)
    def test_who_decides_brings_no_broker_and_no_file_format(self, module: str) -> None:
        assert not costs_of(*DECIDING)[module][1] & (HEAVY | {"zmq", "yaml"})

    def test_the_environment_does_bring_pandapower(self) -> None:
        """Else the tests above would prove nothing."""
        assert {"pandapower", "pettingzoo"} <= costs_of("zgrid.environment")["zgrid.environment"][1]


class Node:
    """A running node process, seen from outside."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    def cpu_s(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def rss_mb(self) -> float:
        """Resident memory, 10^6 bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise AssertionError("no VmRSS")

    @property
    def mapped_files(self) -> str:
        return Path(f"/proc/{self.pid}/maps").read_text(encoding="utf-8")


class Run:
    """A proxy, one device node, and the env's voice and ears."""

    def __init__(self, session: Session, broker: ZmqBroker, content: dict[str, Any]) -> None:
        self.session, self.broker = session, broker
        self.hash = load(content).hash()
        self._sequence = 0

    def say(self, body: Any) -> None:
        self.broker.publish(CONTROL, Envelope(ENV, RUN, 0, self._sequence, 0, 0, 0, body))
        self._sequence += 1

    def answered(self) -> bool:
        """Call the roll; whether the node has answered."""
        self.say(RollCall(self.hash, 0))
        delivery = self.broker.poll(0.1)
        return delivery is not None and isinstance(delivery.envelope.body, Ready)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    content = small_topology()
    for device in ("pv_1", "ess_1"):
        content["grids"]["mg_1"]["devices"][device]["run"] = "inline"
    content["grids"]["mg_1"]["run"] = "inline"
    session = Session(load(content))
    try:
        address = session.start_proxy()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("zgrid.session.AVAILABLE", False)  # a program of its own, as on a machine with one device
            session.start_agents(address)
        with closing(ZmqBroker(address, RUN)) as broker:
            broker.subscribe(channel("node", "mg_1.dg_1"))
            broker.prove(PATIENCE_S)
            run = Run(session, broker, content)
            assert wait_until(run.answered, PATIENCE_S), session.reason("mg_1.dg_1")
            yield run
    finally:
        session.stop()


@pytest.fixture(scope="module")
def node(run: Run) -> Node:
    return Node(run.session.processes["mg_1.dg_1"].popen.pid)


class TestDeviceNode:
    def test_only_what_is_placed_in_a_process_has_one(self, run: Run) -> None:
        assert set(run.session.processes) == {"broker", "mg_1.dg_1"}

    def test_is_up_for_little_cpu(self, node: Node) -> None:
        assert 0.0 < node.cpu_s < NODE_CPU_S

    def test_lives_in_little_memory(self, node: Node) -> None:
        assert 5.0 < node.rss_mb < NODE_MB

    def test_has_nothing_heavy_in_its_address_space(self, node: Node) -> None:
        mapped = node.mapped_files
        assert "zmq" in mapped
        assert not [name for name in HEAVY if f"/{name}/" in mapped]

    def test_ends_by_itself_when_told(self, run: Run, node: Node) -> None:
        run.session.let_go()
        run.say(Stop())
        process = run.session.processes["mg_1.dg_1"].popen
        assert wait_until(lambda: process.poll() is not None, PATIENCE_S)
        assert process.returncode == 0
