"""What all tests share: topologies made small, and a look at what a test leaves behind."""

from __future__ import annotations

import copy
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def _bytecode(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where this process is not to keep bytecode beside the sources, those that it starts keep theirs in the cache of
    pytest: else each of hundreds compiles zgrid anew.
    """
    cache = getattr(request.config, "cache", None)
    if not sys.dont_write_bytecode or sys.pycache_prefix is not None or cache is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", str(cache.mkdir("bytecode")))
        yield


GENERATOR = {
    "kind": "generator", "bus": "675", "p_max_mw": 0.6, "s_rated_mva": 1.0, "q_control": True,
    "cost_a": 100.0, "cost_b": 51.6, "cost_c": 0.5,
}  # fmt: skip
RENEWABLE = {"kind": "renewable", "bus": "652", "availability": "solar", "p_max_mw": 0.3, "s_rated_mva": 0.33}
STORAGE = {
    "kind": "storage", "bus": "645", "p_max_mw": 0.3, "s_rated_mva": 0.4, "capacity_mwh": 1.0, "soc_min": 0.1,
    "eta_charge": 0.95, "eta_discharge": 0.95, "wear_cost": 5.0,
}  # fmt: skip
GRID = {
    "network": {"kind": "ieee13", "load": "load_1", "load_scale": 0.5},
    "price": "price",
    "devices": {"dg_1": GENERATOR, "pv_1": RENEWABLE, "ess_1": STORAGE},
}
SMALL = {
    "name": "small",
    "profiles": {"file": ["zgrid:simbench_2016", "zgrid:ercot_2022"]},
    "vertical": "setpoint",
    "policy": "rule_based",
    "reward": {"kind": "economic", "penalty": 100.0},
    "grids": {"mg_1": GRID},
}


def small_topology(grids: int = 1) -> dict[str, Any]:
    """Standalone 13-bus microgrids (no feeder), in a ring of neighbours where there are three or more."""
    topology: dict[str, Any] = copy.deepcopy(SMALL)
    names = [f"mg_{k + 1}" for k in range(grids)]
    topology["grids"] = {name: copy.deepcopy(GRID) for name in names}
    for k, name in enumerate(names):
        others = {names[(k - 1) % grids], names[(k + 1) % grids]} - {name}
        topology["grids"][name]["neighbours"] = sorted(others)
    return topology


@pytest.fixture
def topology() -> dict[str, Any]:
    """One small microgrid, as the content of a topology file."""
    return small_topology()


def descendants(pid: int) -> set[int]:
    """All live processes below one, zombies not counted."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            for child in map(int, task.read_text().split()):
                if is_alive(child):
                    found |= {child} | descendants(child)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], bool], patience_s: float) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def free_ports() -> tuple[int, int]:
    """Two ports that nobody uses at the moment."""
    with closing(socket.socket()) as one, closing(socket.socket()) as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def own_runs() -> set[Path]:
    """The files that tell of runs of this process."""
    from zgrid.runfile import living

    return {run.path for run in living() if run.pid == os.getpid()}


@pytest.fixture
def no_leftovers() -> Iterator[None]:
    """The test leaves no process behind, and no file that tells of a run of this process; ports end with processes."""
    before, runs = descendants(os.getpid()), own_runs()  # those of a session that tests share
    yield
    assert own_runs() <= runs
    assert wait_until(lambda: descendants(os.getpid()) <= before, 5.0), descendants(os.getpid()) - before
