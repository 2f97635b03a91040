"""Areas that agree on the angles at their borders find the optimum of the whole network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from zgrid.protocols import Heard, Local, Table, Unit, horizontal_class
from zgrid.protocols.area import Area, areas_of, box_qp
from zgrid.protocols.consensus_admm import ConsensusAdmm, ConsensusAdmmConfig
from zgrid.protocols.run import Run

CASE14_DC = 7642.5918
"""Units 1 and 2 at the price p give (p - 20) (1 / 0.0860585 + 1 / 0.5) = 259 MW: p = 39.0163 $/MWh, below the 40 of the
others. An interior-point solver stops at 7642.5937."""
TWO = {str(bus): "west" if bus <= 5 else "east" for bus in range(1, 15)}
THREE = TWO | dict.fromkeys(("9", "10", "14"), "south")
# IEEE 14 buses: from, to, reactance in pu of 100 MVA, that of a transformer times its ratio.
LINES = [
    *(("1", "2", 0.05917), ("1", "5", 0.22304), ("2", "3", 0.19797), ("2", "4", 0.17632), ("2", "5", 0.17388)),
    *(("3", "4", 0.17103), ("4", "5", 0.04211), ("4", "7", 0.20912 * 0.978), ("4", "9", 0.55618 * 0.969)),
    *(("5", "6", 0.25202 * 0.932), ("6", "11", 0.1989), ("6", "12", 0.25581), ("6", "13", 0.13027)),
    *(("7", "8", 0.17615), ("7", "9", 0.11001), ("9", "10", 0.0845), ("9", "14", 0.27038), ("10", "11", 0.19207)),
    *(("12", "13", 0.19988), ("13", "14", 0.34802)),
]
LOADS = {"2": 21.7, "3": 94.2, "4": 47.8, "5": 7.6, "6": 11.2, "9": 29.5, "10": 9.0, "11": 3.5, "12": 6.1}
LOADS |= {"13": 13.5, "14": 14.9}
UNITS = {
    "1": Unit("g1", 0.0, 332.4, 0.0430292599, 20.0),
    "2": Unit("g2", 0.0, 140.0, 0.25, 20.0),
    "3": Unit("g3", 0.0, 100.0, 0.01, 40.0),
    "6": Unit("g6", 0.0, 100.0, 0.01, 40.0),
    "8": Unit("g8", 0.0, 100.0, 0.01, 40.0),
}
GRAPHS: dict[int, Mapping[str, tuple[str, ...]]] = {
    2: {"west": ("east",), "east": ("west",)},
    3: {"west": ("east", "south"), "east": ("west", "south"), "south": ("west", "east")},
}


def areas(area_of: Mapping[str, str]) -> dict[str, Area]:
    return areas_of(area_of, LINES, LOADS, {unit.id: bus for bus, unit in UNITS.items()})


def locals_of(parts: Mapping[str, Area], units: Mapping[str, Unit] = UNITS) -> dict[str, Local]:
    found = {unit.id: unit for unit in units.values()}
    return {
        name: Local(units=tuple(found[unit] for unit in part.units), demand_mw=sum(part.loads.values()))
        for name, part in parts.items()
    }


def table(
    area_of: Mapping[str, str] = TWO, protocol: type[ConsensusAdmm] = ConsensusAdmm, carries: Any = None, **config: Any
) -> Table:
    graph = GRAPHS[len(set(area_of.values()))]
    return Table(protocol, {"areas": areas(area_of), "stop": "flooded", **config}, graph, carries=carries)


def powers(run: Run) -> dict[str, float]:
    return {unit: p for result in run.results.values() for unit, p in result.dispatch_mw.items()}


def cost(run: Run) -> float:
    found = {unit.id: unit for unit in UNITS.values()}
    return sum(found[unit].cost_per_h(p) for unit, p in powers(run).items())


class PrimalOnly(ConsensusAdmm):
    """Stops as soon as the areas agree."""

    def residual(self) -> float:
        return self.primal


@cache
def optimum(name: str, flow: str) -> float:
    """The centralised optimum of one of pandapower's cases, $/h: independent of everything here."""
    pandapower = pytest.importorskip("pandapower")
    net = getattr(pandapower.networks, name)()
    (pandapower.rundcopp if flow == "dc" else pandapower.runopp)(net)
    return float(net.res_cost)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "flow", "expected"),
    [
        ("case14", "ac", 8081.53),
        ("case14", "dc", 7642.59),
        pytest.param("case9", "dc", 5216.03, marks=pytest.mark.slow),
        pytest.param("case30", "dc", 565.21, marks=pytest.mark.slow),
    ],
)
def test_the_centralised_optimum_is_the_published_one(name: str, flow: str, expected: float) -> None:
    assert optimum(name, flow) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("area_of", [TWO, THREE])
@pytest.mark.parametrize("rho", [0.1, 0.5, 2.0, 10.0])
def test_areas_find_the_optimum_of_the_whole(area_of: Mapping[str, str], rho: float) -> None:
    run = table(area_of, rho=rho).play(locals_of(areas(area_of)))
    assert cost(run) == pytest.approx(CASE14_DC, rel=1e-3)
    assert sum(powers(run).values()) == pytest.approx(259.0, abs=0.3)
    for result in run.results.values():  # no line limits: one price everywhere
        assert result.price == pytest.approx(39.016, abs=0.05)


def test_to_a_tight_tolerance_it_is_the_dispatch_of_the_whole() -> None:
    run = table(tolerance=1e-9).play(locals_of(areas(TWO)))
    assert cost(run) == pytest.approx(CASE14_DC, abs=1e-3)
    assert powers(run) == pytest.approx({"g1": 220.9677, "g2": 38.0323, "g3": 0.0, "g6": 0.0, "g8": 0.0}, abs=1e-3)
    assert run.results["east"].values[1] == pytest.approx(87.7, abs=1e-3)  # the east imports all of its load


def test_to_stop_on_the_primal_residual_alone_is_too_early() -> None:
    wrong = table(protocol=PrimalOnly, rho=30.0, tolerance=1e-3).play(locals_of(areas(TWO)))
    assert 0.03 < cost(wrong) / CASE14_DC - 1.0 < 0.18
    right = table(rho=30.0, tolerance=1e-3).play(locals_of(areas(TWO)))
    assert cost(right) == pytest.approx(CASE14_DC, rel=1e-3)


def test_limits_that_bind_are_kept() -> None:
    units = UNITS | {"1": UNITS["1"]._replace(p_max_mw=150.0)}
    run = table(tolerance=1e-8).play(locals_of(areas(TWO), units))
    # Unit 1 at 150; 2 at price 40 + x gives 2 (20 + x); 3, 6 and 8 give 50 x each: 40 + 2 x + 150 x = 109.
    price = 40.0 + 69.0 / 152.0
    expected = {"g1": 150.0, "g2": 2.0 * (price - 20.0), **dict.fromkeys(("g3", "g6", "g8"), 50.0 * (price - 40.0))}
    assert powers(run) == pytest.approx(expected, abs=1e-3)
    assert run.results["east"].price == pytest.approx(price, abs=1e-5)


def test_loss_and_delay_change_when_it_gets_there_and_not_where() -> None:
    def lossy(sender: str, round: int, values: tuple[float, ...] | None) -> list[Heard]:
        return [] if values is None or (5 * round + len(sender)) % 3 == 0 else [Heard(values)]

    held: dict[str, list[Any]] = {}

    def late(sender: str, round: int, values: tuple[float, ...] | None) -> list[Heard]:
        queue = held.setdefault(sender, [])
        queue.append(values)
        return [Heard(queue.pop(0), 3)] if len(queue) > 3 else []

    wanted = table(THREE, tolerance=1e-8).play(locals_of(areas(THREE)))
    for carry in (lossy, late):
        carries = {"west": carry} if carry is late else dict.fromkeys(GRAPHS[3], carry)
        run = table(THREE, carries=carries, tolerance=1e-8, rounds=3000).play(locals_of(areas(THREE)))
        assert run.rounds > wanted.rounds
        assert powers(run) == pytest.approx(powers(wanted), abs=1e-4)


def test_the_next_step_begins_where_the_last_ended() -> None:
    tables, problem = table(), locals_of(areas(TWO))
    first = tables.play(problem, 1)
    again = tables.play(problem, 2)
    assert again.rounds < first.rounds / 4
    assert cost(again) == pytest.approx(CASE14_DC, rel=1e-3)
    more = {name: local._replace(demand_mw=1.1 * local.demand_mw) for name, local in problem.items()}
    assert sum(powers(tables.play(more, 3)).values()) == pytest.approx(1.1 * 259.0, abs=0.1)


def test_one_round_is_within_the_limits_and_an_area_alone_meets_its_demand() -> None:
    run = table(rounds=1).play(locals_of(areas(TWO)))
    for unit in UNITS.values():
        assert unit.p_min_mw <= powers(run)[unit.id] <= unit.p_max_mw
    alone = Table(ConsensusAdmm, {}, {"mg": ()}).play({"mg": Local(units=tuple(UNITS.values()), demand_mw=259.0)})
    assert cost(alone) == pytest.approx(CASE14_DC, abs=1e-3)
    assert alone.statuses["mg"] == "converged"
    flat = (Unit("a", 0.0, 2.0, 0.0, 10.0), Unit("b", 0.0, 2.0, 0.0, 20.0))
    alone = Table(ConsensusAdmm, {}, {"mg": ()}).play({"mg": Local(units=flat, demand_mw=3.0)})
    assert powers(alone) == pytest.approx({"a": 2.0, "b": 1.0})
    alone = Table(ConsensusAdmm, {}, {"mg": ()}).play({"mg": Local(units=flat, demand_mw=9.0)})
    assert powers(alone) == pytest.approx({"a": 2.0, "b": 2.0})


def test_units_without_quadratic_cost_are_filled_in_the_order_of_their_cost() -> None:
    parts = {
        "a": {"buses": ["1"], "ties": [["1", "b", "1", 0.1]]},
        "b": {"buses": ["1"], "ties": [["1", "a", "1", 0.1]]},
    }
    units = {"a": (Unit("cheap", 0.0, 50.0, 0.0, 10.0), Unit("dear", 0.0, 50.0, 0.0, 30.0))}
    problem = {"a": Local(units=units["a"], demand_mw=20.0), "b": Local(demand_mw=50.0)}
    run = Table(ConsensusAdmm, {"areas": parts, "rounds": 3000, "rho": 0.1}, {"a": ["b"], "b": ["a"]}).play(problem)
    assert powers(run) == pytest.approx({"cheap": 50.0, "dear": 20.0}, abs=0.01)


def test_the_bounded_quadratic_problem_meets_its_optimality_conditions() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        n = int(rng.integers(1, 8))
        root = rng.normal(size=(n, n))
        hessian, g = root @ root.T + 1e-3 * np.eye(n), 5.0 * rng.normal(size=n)
        low = -rng.random(n)
        high = low + rng.random(n) * rng.integers(0, 2, n)
        x = box_qp(hessian, g, low, high, rng.normal(size=n))
        assert ((low <= x) & (x <= high)).all()
        assert np.clip(x - (hessian @ x + g), low, high) == pytest.approx(x, abs=1e-9)


def test_areas_that_do_not_fit_are_found() -> None:
    assert ConsensusAdmm.misfits(ConsensusAdmmConfig(areas=areas(THREE)), GRAPHS[3]) == []
    parts: dict[str, Any] = {
        "west": {"buses": [1, 2, 3], "lines": [[1, 9, 0.1]], "ties": [[1, "east", 1, 0.1], [1, "north", 1, 0.1]]},
        "south": {"buses": [1]},
    }
    config = ConsensusAdmmConfig.model_validate({"areas": parts})
    found = " / ".join(ConsensusAdmm.misfits(config, GRAPHS[2]))
    for text in ("no participant 'south'", "no area for 'east'", "no bus '9'", "'north', which is no neighbour"):
        assert text in found
    parts = {
        "west": {"buses": [1, 2], "ties": [[1, "east", 1, 0.1]]},
        "east": {"buses": [1], "ties": [[1, "west", 1, 0.2]]},
    }
    found = " / ".join(ConsensusAdmm.misfits(ConsensusAdmmConfig.model_validate({"areas": parts}), GRAPHS[2]))
    assert "its tie 1 - east.1 is not among the ties of east" in found
    with pytest.raises(ValidationError, match="lines"):
        Area.model_validate({"buses": ["1", "2"], "lines": [["1", "2", 0.0]]})
    alone = ConsensusAdmmConfig.model_validate({"areas": {"a": {"buses": [1, 2], "ties": [[1, "b", 1, 0.1]]}}})
    assert "no way from 2 to a tie" in ConsensusAdmm.misfits(alone, {"a": ["b"], "b": ["a"]})[0]
    assert horizontal_class("consensus_admm") is ConsensusAdmm
