"""Networks for the conformance suite: published ones and coupled ones, each with everything that can be moved on it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandapower as pp
import pandapower.networks as published

from zgrid.networks import PandapowerNetwork, find_network
from zgrid.networks.couple import couple
from zgrid.networks.coupled import Actuation, Attachment, CoupledNetwork, Forming, Part


@dataclass(frozen=True)
class Case:
    """A network, positions to try by name, and how far random injections go (MW, Mvar; scale of the loads)."""

    network: CoupledNetwork
    topologies: dict[str, np.ndarray]
    power: float
    scale: tuple[float, float]

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n = self.network.n_devices
        p, q = rng.uniform(-self.power, self.power, n), rng.uniform(-0.5 * self.power, 0.5 * self.power, n)
        return p, q, rng.uniform(*self.scale, len(self.network.parts))


def of_pandapower(
    net: Any,
    moves: list[tuple[str, int]],
    tries: dict[str, dict[str, float]],
    power: float,
    scale: tuple[float, float],
    forms: bool = False,
) -> Case:
    """A net that stands alone; ``moves`` are (kind, row), ``tries`` positions by ``kind row``."""
    for table in ("bus", "line", "trafo", "switch", "shunt"):
        net[table]["name"] = [f"{table} {k}" for k in range(len(net[table]))]
    for table in ("trafo", "shunt"):  # files of older versions do not say, and pandapower warns
        for column in ("tap_dependency_table", "step_dependency_table"):
            if column not in net[table]:
                net[table][column] = False
    buses = list(net.bus["name"])
    rng = np.random.default_rng(5)
    at = [buses[k] for k in rng.choice(np.flatnonzero(net.bus.index != net.ext_grid.bus.iloc[0]), 6, replace=False)]
    table_of = {"tap": "trafo"}
    acts = [Actuation(f"{kind} {row}", "mg_1", kind, f"{table_of.get(kind, kind)} {row}") for kind, row in moves]
    acts.append(Actuation("pcc", "mg_1", "pcc"))
    acts.append(Actuation("cap", "mg_1", "capacitor", at[0], power / 4, 4))
    network = couple(
        [Part("mg_1", PandapowerNetwork("test", lambda: copy.deepcopy(net)))],
        [Attachment(f"mg_1.d_{k}", "mg_1", bus) for k, bus in enumerate(at)],
        acts,
        [Forming("mg_1", at[1])] if forms else [],
    )
    return finish(network, {**tries, "capacitor": {"cap": 3.0}, "pcc open": {"pcc": 0.0}}, power, scale)


def finish(
    network: CoupledNetwork, tries: dict[str, dict[str, float]], power: float, scale: tuple[float, float]
) -> Case:
    order = [one.id for one in network.actuators]
    topologies = {"as built": network.positions}
    for name, moved in tries.items():
        topologies[name] = network.positions.copy()
        for who, position in moved.items():
            topologies[name][order.index(who)] = position
    return Case(network, topologies, power, scale)


def case33bw() -> Case:
    net = published.case33bw()
    return of_pandapower(
        net,
        [("line", k) for k in (5, 32, 35)],
        {"reconfigured": {"line 5": 0.0, "line 35": 1.0, "line 32": 1.0}, "line out": {"line 5": 0.0}},
        0.2,
        (0.2, 1.2),
        forms=True,
    )


def cigre_mv() -> Case:
    net = published.create_cigre_network_mv(with_der="pv_wind")
    switches = [("switch", k) for k in range(len(net.switch))]
    return of_pandapower(
        net,
        [*switches, ("line", 3)],
        {
            "switches closed": {f"switch {k}": 1.0 for k in range(len(net.switch))},
            "switches open": {f"switch {k}": 0.0 for k in range(1, 4)},
            "line out": {"line 3": 0.0},
        },
        0.8,
        (0.1, 1.0),
    )


def mv_oberrhein() -> Case:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pandapower solves its own old file
        net = published.mv_oberrhein(include_substations=True, separation_by_sub=True)[0]
    for trafo in net.trafo.index:
        net.trafo.loc[trafo, "tap_changer_type"] = "Ratio"
    opened = [int(k) for k in np.flatnonzero((~net.switch["closed"] & (net.switch["et"] == "l")).to_numpy())[:2]]
    line, tap = len(net.line) // 2, int(np.flatnonzero(net.trafo["tap_pos"].notna())[0])
    tries = {
        "taps": {f"tap {tap}": float(net.trafo.tap_pos.iloc[tap]) + 2.0},
        "line out": {f"line {line}": 0.0},
        "switch": {f"switch {k}": 1.0 for k in opened},
    }
    moves = [("tap", tap), ("line", line), *(("switch", k) for k in opened)]
    return of_pandapower(net, moves, tries, 0.5, (0.3, 1.0))


def case118() -> Case:
    net = published.case118()
    return of_pandapower(
        net,
        [("line", 10), ("line", 60), ("shunt", 2), ("tap", 3)],
        {"line out": {"line 10": 0.0}, "two out": {"line 10": 0.0, "line 60": 0.0}, "shunt": {"shunt 2": 2.0}},
        20.0,
        (0.7, 1.05),
    )


def alone(
    kind: str, power: float, scale: tuple[float, float], acts: list[Actuation], tries: Any, **keywords: Any
) -> Case:
    network = find_network(kind)
    buses = network.names().buses
    rng = np.random.default_rng(7)
    at = [buses[k] for k in rng.choice(np.arange(1, len(buses)), 6, replace=False)]
    coupled = couple(
        [Part("mg_1", network, **keywords)],
        [Attachment(f"mg_1.d_{k}", "mg_1", bus) for k, bus in enumerate(at)],
        [*acts, Actuation("pcc", "mg_1", "pcc"), Actuation("cap", "mg_1", "capacitor", at[0], power / 4, 4)],
        [Forming("mg_1", at[1])],
    )
    return finish(coupled, {**tries, "capacitor": {"cap": 2.0}, "islanded": {"pcc": 0.0}}, power, scale)


def ieee13() -> Case:
    acts = [
        Actuation("switch", "mg_1", "switch", "Switch 671-692"),
        Actuation("tap", "mg_1", "tap", "Substation"),
        Actuation("line", "mg_1", "line", "Line 2"),
    ]
    tries = {"switch open": {"switch": 0.0}, "tap": {"tap": 2.0}, "line out": {"line": 0.0}}
    return alone("ieee13", 0.4, (0.1, 0.8), acts, tries)


def ieee34() -> Case:
    acts = [
        Actuation("shunt", "mg_1", "shunt", "SCB 1"),
        Actuation("tap", "mg_1", "tap", "Regulator 1"),
        Actuation("line", "mg_1", "line", "Line 25"),
    ]
    tries = {"shunt": {"shunt": 1.0}, "tap": {"tap": -5.0}, "line out": {"line": 0.0}}
    return alone("ieee34", 0.1, (0.1, 0.6), acts, tries, taps={"Regulator 1": 4, "Regulator 2": 4})


def ieee123() -> Case:
    network = find_network("ieee123")
    names = network.names()
    tap = next(iter(names.taps))
    switch = names.switches[0]
    acts = [
        Actuation("shunt", "mg_1", "shunt", names.shunts[0]),
        Actuation("tap", "mg_1", "tap", tap),
        Actuation("line", "mg_1", "line", names.lines[40]),
        *(Actuation(f"switch {k}", "mg_1", "switch", name) for k, name in enumerate(names.switches)),
    ]
    tries = {
        "shunt": {"shunt": 0.0},
        "tap": {"tap": 3.0},
        "line out": {"line": 0.0},
        f"switch {switch} open": {"switch 0": 0.0},
        "all closed": {f"switch {k}": 1.0 for k in range(len(names.switches))},
    }
    return alone("ieee123", 0.1, (0.2, 1.1), acts, tries)


def coupled(buses: dict[str, str], scale: tuple[float, float]) -> Case:
    """IEEE 13-bus microgrids on the IEEE 34-bus feeder, the first behind a breaker with a forming unit, the second
    behind a breaker without one."""
    names = list(buses)
    parts = [Part("feeder", find_network("ieee34"), {"Regulator 1": 8, "Regulator 2": 4})]
    parts += [Part(name, find_network("ieee13"), connect_at=bus) for name, bus in buses.items()]
    devices = [Attachment(f"{name}.d_{k}", name, bus) for name in names for k, bus in enumerate(("675", "650", "645"))]
    acts = [
        Actuation("pcc 1", names[0], "pcc"),
        Actuation("pcc 2", names[1], "pcc"),
        Actuation("switch", names[2], "switch", "Switch 671-692"),
        Actuation("line", "feeder", "line", "Line 18"),
        Actuation("upstream", "feeder", "line", "Line 4"),
        Actuation("tap", "feeder", "tap", "Regulator 2"),
        Actuation("shunt", "feeder", "shunt", "SCB 2"),
        Actuation("cap", names[2], "capacitor", "652", 0.05, 3),
    ]
    tries = {
        "island with a forming unit": {"pcc 1": 0.0},
        "island without one": {"pcc 2": 0.0},
        "both islands, a switch": {"pcc 1": 0.0, "pcc 2": 0.0, "switch": 0.0},
        "line out": {"line": 0.0},
        "everything cut off but one former": {"upstream": 0.0},
        "tap": {"tap": -3.0},
        "shunt and capacitor": {"shunt": 1.0, "cap": 2.0},
    }
    return finish(couple(parts, devices, acts, [Forming(names[0], "675", 1.01)]), tries, 0.05, scale)


def three_microgrids() -> Case:
    return coupled({"mg_1": "822", "mg_2": "848", "mg_3": "856"}, (0.05, 0.2))


def ten_microgrids() -> Case:
    buses = ("808", "812", "814", "850", "816", "824", "830", "854", "832", "834")
    return coupled({f"mg_{k + 1}": bus for k, bus in enumerate(buses)}, (0.02, 0.05))


CASES: dict[str, Callable[[], Case]] = {
    function.__name__: cache(function)
    for function in (
        case33bw, cigre_mv, mv_oberrhein, case118, ieee13, ieee34, ieee123, three_microgrids, ten_microgrids,
    )
}  # fmt: skip


def nothing_of(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Idle devices."""
    return np.zeros(case.network.n_devices), np.zeros(case.network.n_devices)


__all__ = ["CASES", "Case", "nothing_of", "pp"]
