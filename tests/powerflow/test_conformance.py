"""One conformance suite for every backend, against pandapower's runpp: whatever is switched, stepped or islanded."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from typing import Any

import numpy as np
import pytest
from powerflow.conformance_cases import CASES, Case, nothing_of

from zgrid.errors import NetworkError
from zgrid.networks import find_network
from zgrid.networks.couple import couple
from zgrid.networks.coupled import Actuation, Attachment, CoupledNetwork, Forming, Part
from zgrid.powerflow import PowerFlow, Solution, kernels
from zgrid.powerflow.fast import FastPowerFlow
from zgrid.powerflow.runpp import RunppPowerFlow

LIMITS = {
    "vm_pu": 1e-7, "va_degree": 1e-5, "line_loading": 1e-4, "trafo_loading": 1e-4,
    "p_pcc_mw": 1e-5, "q_pcc_mvar": 1e-5, "p_forming_mw": 1e-5,
}  # fmt: skip
BACKENDS: dict[str, Callable[[CoupledNetwork], PowerFlow]] = {
    "numpy": lambda network: FastPowerFlow(network, use_numba=False),
    "numba": lambda network: FastPowerFlow(network, use_numba=True),
    "sparse, numpy": lambda network: FastPowerFlow(network, use_numba=False, dense_buses=0),
    "sparse, numba": lambda network: FastPowerFlow(network, use_numba=True, dense_buses=0),
}
DRAWS = 2


SLOW = (
    "sparse, numpy",
    "sparse, numba",
)  # the same on another factorisation; the default suite tries it on one network


QUICK = tuple(name for name in CASES if name not in ("mv_oberrhein", "ten_microgrids"))  # large, and like others


def products(first: int, networks: Collection[str] = QUICK) -> Any:
    """Every network on every backend. The default suite has each of ``networks`` on one of the two that are not slow,
    by turns from the ``first`` on: so each on both of them over two tests, and each test on both.
    """
    found = []
    for k, name in enumerate(CASES):
        for j, backend in enumerate(BACKENDS):
            quick = backend not in SLOW and name in networks and (j + k) % 2 == first
            found.append(pytest.param(name, backend, id=f"{backend}-{name}", marks=[] if quick else pytest.mark.slow))
    return pytest.mark.parametrize(("name", "backend"), found, indirect=["backend"])


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Callable[[CoupledNetwork], PowerFlow]:
    if "numba" in request.param and not kernels.AVAILABLE:
        pytest.skip("numba is not installed (extra fast)")
    return BACKENDS[request.param]


def solve(flow: PowerFlow, case: Case, positions: Any, drawn: Any) -> Solution:
    flow.set_topology(positions)
    flow.set_injections(*drawn)
    return flow.solve()


@cache
def reference(name: str) -> dict[tuple[str, int], tuple[Any, Solution]]:
    """What runpp says of every topology of a case, under random injections."""
    case, rng = CASES[name](), np.random.default_rng(11)
    flow = RunppPowerFlow(case.network)
    found = {}
    for topology, positions in case.topologies.items():
        for k in range(DRAWS):
            drawn = case.draw(rng)
            found[topology, k] = drawn, solve(flow, case, positions, drawn)
    return found


def assert_same(found: Solution, expected: Solution, where: object) -> None:
    assert found.converged == expected.converged, where
    np.testing.assert_array_equal(found.energised, expected.energised, str(where))
    for field, limit in LIMITS.items():
        one, other = getattr(found, field), getattr(expected, field)
        np.testing.assert_allclose(one, other, rtol=0.0, atol=limit, equal_nan=True, err_msg=f"{where} {field}")


@products(0)
def test_agrees_with_runpp_in_every_topology(name: str, backend: Callable[[CoupledNetwork], PowerFlow]) -> None:
    case = CASES[name]()
    flow = backend(case.network)
    known = reference(name)
    for (topology, k), (drawn, expected) in known.items():
        found = solve(flow, case, case.topologies[topology], drawn)
        assert_same(found, expected, (name, topology, k))
    assert flow.rebuilds == len({tuple(positions) for positions in case.topologies.values()})
    assert sum(one.converged for _, one in known.values()) >= 0.8 * len(known)


@products(1)
def test_depends_on_nothing_that_came_before(name: str, backend: Callable[[CoupledNetwork], PowerFlow]) -> None:
    case = CASES[name]()
    one, other = backend(case.network), backend(case.network)
    runs = list(reference(name).items())
    forwards = [solve(one, case, case.topologies[topology], drawn) for (topology, _), (drawn, _) in runs]
    backwards = [solve(other, case, case.topologies[topology], drawn) for (topology, _), (drawn, _) in runs[::-1]][::-1]
    for a, b in zip(forwards, backwards, strict=True):
        assert all(getattr(a, field).tobytes() == getattr(b, field).tobytes() for field in LIMITS)


@products(0)
def test_a_batch_is_its_cases(name: str, backend: Callable[[CoupledNetwork], PowerFlow]) -> None:
    case = CASES[name]()
    flow = backend(case.network)
    for topologies in (["as built"] * 5, list(case.topologies)):
        rng = np.random.default_rng(3)
        draws = [case.draw(rng) for _ in topologies]
        positions = np.stack([case.topologies[topology] for topology in topologies])
        batch = flow.solve_batch(*(np.stack(column) for column in zip(*draws, strict=True)), positions)
        for row, drawn in enumerate(draws):
            alone = solve(flow, case, positions[row], drawn)
            assert bool(batch.converged[row]) == alone.converged
            for field, limit in LIMITS.items():
                np.testing.assert_allclose(
                    getattr(batch, field)[row], getattr(alone, field), rtol=0.0, atol=limit, equal_nan=True
                )


NOSES = {
    "case33bw": 3.6219, "cigre_mv": 2.6484, "mv_oberrhein": 2.6227, "case118": 1.8129, "ieee13": 2.5625,
    "ieee34": 1.2430, "ieee123": 3.8906, "three_microgrids": 0.2600, "ten_microgrids": 0.1178,
}  # fmt: skip
"""The scale of all loads at which runpp stops converging, to 0.1 %; the ramp's flags hold it to that within 1 %."""


def uniform(case: Case, scale: float) -> np.ndarray:
    return np.full(len(case.network.parts), scale)


@cache
def ramp(name: str) -> list[tuple[float, Solution]]:
    """What runpp says along a ramp of the load through the nose, and back."""
    case = CASES[name]()
    flow, top = RunppPowerFlow(case.network), NOSES[name]
    scales = [top * share for share in (0.5, 0.8, 0.9, 0.97, 0.99, 1.005, 1.02, 1.1, 1.4, 0.95, 3.0, 0.5)]
    return [(s, solve(flow, case, case.network.positions, (*nothing_of(case), uniform(case, s)))) for s in scales]


@products(1, ("case33bw", "case118", "ieee13", "three_microgrids"))  # runpp takes long to give up
def test_converges_where_runpp_does_and_recovers(name: str, backend: Callable[[CoupledNetwork], PowerFlow]) -> None:
    case = CASES[name]()
    flow = backend(case.network)
    for scale, expected in ramp(name):
        found = solve(flow, case, case.network.positions, (*nothing_of(case), uniform(case, scale)))
        assert_same(found, expected, (name, scale))
    flags = [expected.converged for _, expected in ramp(name)]
    assert flags == [True] * 5 + [False] * 4 + [True, False, True]
    assert flow.rebuilds == 1


@pytest.mark.parametrize(
    "networks", [QUICK, pytest.param(tuple(CASES), marks=pytest.mark.slow)], ids=["those of the default suite", "all"]
)
def test_every_method_is_tried(networks: tuple[str, ...]) -> None:
    said = {name: FastPowerFlow(CASES[name]().network).describe() for name in networks}
    assert said["case118"].startswith("Newton on kept arrays")
    assert all(text.startswith("fixed point on dense") for name, text in said.items() if name not in ("case118",))


@pytest.mark.parametrize(
    "use_numba",
    [
        False,
        pytest.param(
            True,  # takes long to compile
            marks=[pytest.mark.slow, pytest.mark.skipif(not kernels.AVAILABLE, reason="no numba")],
        ),
    ],
)
def test_the_sparse_solver_agrees_too(use_numba: bool) -> None:
    case = CASES["three_microgrids"]()
    flow = FastPowerFlow(case.network, use_numba=use_numba, dense_buses=0)
    assert "sparse LU" in flow.describe()
    for (topology, k), (drawn, expected) in reference("three_microgrids").items():
        found = solve(flow, case, case.topologies[topology], drawn)
        assert_same(found, expected, (topology, k))


FAST = [False, pytest.param(True, marks=pytest.mark.skipif(not kernels.AVAILABLE, reason="numba is not installed"))]


def corner(*acts: Actuation, forming: str = "", network: str = "cigre_mv") -> CoupledNetwork:
    """A network that stands alone, with one device at its last bus."""
    found = find_network(network)
    former = [Forming("mg_1", forming)] if forming else []
    return couple([Part("mg_1", found)], [Attachment("mg_1.d", "mg_1", found.names().buses[-1])], acts, former)


def solve_at(flow: PowerFlow, positions: Any, case: Any) -> Solution:
    flow.set_topology(positions)
    flow.set_injections(*case)
    return flow.solve()


@pytest.mark.parametrize("use_numba", FAST)
def test_a_network_whose_source_alone_is_alive(use_numba: bool) -> None:
    first = find_network("case33bw").names().lines[0]
    network = corner(Actuation("first", "mg_1", "line", first), network="case33bw")
    expected, found = RunppPowerFlow(network), FastPowerFlow(network, use_numba)
    case = (np.array([0.1]), np.zeros(1), np.ones(1))
    for positions in (np.array([0.0]), np.array([1.0]), np.array([0.0])):
        assert_same(solve_at(found, positions, case), solve_at(expected, positions, case), positions)
    assert found.solve().energised.sum() == 1


@pytest.mark.parametrize("use_numba", FAST)
def test_generation_of_the_network_at_a_forming_bus_counts(use_numba: bool) -> None:
    network = corner(Actuation("pcc", "mg_1", "pcc"), forming="3")  # where cigre_mv has 0.02 MW of PV
    case = (np.zeros(1), np.zeros(1), np.array([0.1]))
    found = solve_at(FastPowerFlow(network, use_numba), np.zeros(1), case)
    assert_same(found, solve_at(RunppPowerFlow(network), np.zeros(1), case), "island")
    assert found.p_forming_mw[0] > 0.1


@pytest.mark.parametrize("use_numba", FAST)
def test_nothing_that_could_be_injected_is_alive(use_numba: bool) -> None:
    parts = [Part("feeder", find_network("feeder_1")), Part("mg_1", find_network("ieee13"), connect_at="1")]
    network = couple(parts, [Attachment("mg_1.d", "mg_1", "675")], [Actuation("pcc", "mg_1", "pcc")])
    case = (np.array([0.1]), np.zeros(1), np.array([1.0, 0.2]))
    found = solve_at(FastPowerFlow(network, use_numba), np.zeros(1), case)
    assert_same(found, solve_at(RunppPowerFlow(network), np.zeros(1), case), "feeder alone")
    assert 0 < found.energised.sum() < 5


@pytest.mark.parametrize("use_numba", FAST)
def test_after_a_batch_the_net_shows_its_last_case(use_numba: bool) -> None:
    flow = FastPowerFlow(corner(network="ieee13"), use_numba)
    p = np.linspace(0.0, 0.3, 40)[:, None]
    batch = flow.solve_batch(p, 0.0 * p, np.full((40, 1), 0.3), np.zeros((40, 0)))
    net = flow.to_pandapower()
    assert net.sgen["p_mw"].iloc[-1] == 0.3
    np.testing.assert_allclose(net.res_bus["vm_pu"], batch.vm_pu[-1], rtol=0.0, atol=1e-7)


def test_a_forming_unit_at_the_pcc_bus_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"mg_1\.forming_unit: at the PCC bus 650"):
        corner(Actuation("pcc", "mg_1", "pcc"), forming="650", network="ieee13")


def test_more_steps_than_a_bank_has_are_refused() -> None:
    with pytest.raises(NetworkError, match=r"shunt\.steps: 5 is above the 4 of SCB 1"):
        corner(Actuation("shunt", "mg_1", "shunt", "SCB 1", max_step=5), network="ieee34")
