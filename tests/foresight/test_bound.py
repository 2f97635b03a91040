"""The bound that no plan can beat, against one worked out by hand, and where there is none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from conftest import small_topology

from zgrid.foresight import Rehearsal
from zgrid.foresight.bound import upper_bound
from zgrid.topology import load
from zgrid.world import World

DAY = 83


def rehearsal_of(content: dict[str, Any], **overrides: Any) -> Rehearsal:
    topology = load(content, {"centralized": True, **overrides})
    return Rehearsal(topology, World(topology), DAY)


def one_generator(price: float) -> dict[str, Any]:
    """One hour of one generator, 200 p^2 + 51.6 p + 0.5 $/h, and a load of constant power beside the network's own."""
    content = small_topology() | {"episode_steps": 1}
    grid = content["grids"]["mg_1"]
    grid["price"] = price
    load_1 = {"kind": "load", "bus": "675", "demand": 1.0, "p_mw": 0.1}
    grid["devices"] = {"dg_1": grid["devices"]["dg_1"] | {"cost_a": 200.0}, "load_1": load_1}
    return content


def test_is_that_of_a_network_without_losses() -> None:
    """At 90 $/MWh the generator runs at (90 - 51.6) / 400 = 0.096 MW and earns 38.4^2 / 800 = 1.8432 $ less 0.5 $.

    Its tangents lie 0.6 / 8 MW apart, so that they are at most 200 x (0.6 / 16)^2 = 0.28125 $ below its cost.
    """
    rehearsal = rehearsal_of(one_generator(90.0))
    network, row = rehearsal.world.network, int(rehearsal.rows[0])
    demand = float((network.load_p_mw * rehearsal.world.load_scale(row)[network.load_part]).sum()) + 0.1
    exact = -90.0 * demand + 1.8432 - 0.5
    assert exact <= upper_bound(rehearsal) <= exact + 0.28125


def test_losses_are_never_negative() -> None:
    """What the bound rests on: an import is at least the demand minus what devices inject."""
    rehearsal = rehearsal_of(small_topology(2))
    asked = np.random.default_rng(1).uniform(-1.0, 1.0, (4, rehearsal.n_steps, len(rehearsal.controls)))
    bound = upper_bound(rehearsal)
    for played in rehearsal.play(asked):
        assert played.value <= bound
        injected = np.stack([played.p_mw[:, devices].sum(axis=1) for devices in rehearsal.devices], axis=1)
        scale = np.array([rehearsal.world.load_scale(int(row)) for row in rehearsal.rows])
        network = rehearsal.world.network
        taken = network.load_p_mw * scale[:, network.load_part]
        demand = np.stack([taken[:, network.load_part == k].sum(axis=1) for k in range(2)], axis=1)
        assert (rehearsal.import_mw(played) >= demand - injected - 1e-9).all()


@pytest.mark.parametrize(("price", "changes"), [(-5.0, {}), (90.0, {"const_z_p_percent": 50.0}), (90.0, {"gen": True})])
def test_there_is_none_where_losses_could_pay(price: float, changes: dict[str, Any]) -> None:
    rehearsal = rehearsal_of(one_generator(price))
    net = rehearsal.world.network.net
    if "gen" in changes:
        net["gen"].loc[0, "bus"] = 0
    elif changes:
        for name, value in changes.items():
            net["load"][name] = value
    assert math.isnan(upper_bound(rehearsal))


@pytest.mark.parametrize("p_min_mw", [0.0, 0.5, 0.6])
def test_a_generator_that_never_stops_can_still_give_all_it_has(p_min_mw: float) -> None:
    """At 90 $/MWh and 1 $/MWh of cost it is best at its full 0.6 MW, wherever its least power is."""
    content = one_generator(90.0)
    content["reward"]["sell_discount"] = 1.0
    content["grids"]["mg_1"]["devices"]["dg_1"] |= {"cost_a": 0.0, "cost_b": 1.0, "p_min_mw": p_min_mw}
    rehearsal = rehearsal_of(content)
    network, row = rehearsal.world.network, int(rehearsal.rows[0])
    demand = float((network.load_p_mw * rehearsal.world.load_scale(row)[network.load_part]).sum()) + 0.1
    assert upper_bound(rehearsal) == pytest.approx(-90.0 * (demand - 0.6) - 0.6 - 0.5)
