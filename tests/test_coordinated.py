"""What protocols agree on changes what happens in the environment, and is not beside it."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pytest

import zgrid

DAYS = 24


def play(topology: str, steps: int = DAYS, day: int = 200, **overrides: Any) -> list[dict[str, float]]:
    """The snapshots of some steps, centralized."""
    rows = []
    with closing(zgrid.parallel_env(topology, centralized=True, **{"profiles.split": "all"}, **overrides)) as env:
        env.reset(seed=0, options={"day": day})
        for _ in range(steps):
            _, _, _, _, infos = env.step(dict.fromkeys(env.agents))
            rows.append(env.snapshot() | {f"{grid}.own_reward": info["own_reward"] for grid, info in infos.items()})
    return rows


def test_units_of_different_grids_run_at_one_incremental_cost() -> None:
    cost_b = {"mg_1": 65.0, "mg_2": 50.0, "mg_3": 55.0}
    p_max_mw = {"mg_1": 0.25, "mg_2": 0.2, "mg_3": 0.2}
    rows = play("3mg_consensus", 8)
    for row in rows:
        p_mw = {grid: row[f"{grid}.dg_1.p_mw"] for grid in cost_b}
        within = [200.0 * p_mw[grid] + b for grid, b in cost_b.items() if 1e-4 < p_mw[grid] < p_max_mw[grid] - 1e-4]
        assert not within or np.ptp(within) < 1e-3
    assert any(0.0 < row["mg_1.dg_1.p_mw"] < 0.25 for row in rows)


def test_units_of_a_grid_share_what_the_action_asks_of_them_at_one_price() -> None:
    rows = play("3mg_price", 12, policy="random")
    inside = 0
    for row in rows:
        first, second = row["mg_1.dg_1.p_mw"], row["mg_1.dg_2.p_mw"]
        if 1e-4 < first < 0.25 - 1e-4 and 1e-4 < second < 0.1 - 1e-4:
            inside += 1
            assert 200.0 * first + 65.0 == pytest.approx(400.0 * second + 60.0, abs=1e-2)
    assert inside >= 3


def test_trades_move_money_between_grids_and_make_none() -> None:
    rows = play("3mg_p2p")
    paid = np.array([[row[f"mg_{k}.trade_cost"] for k in (1, 2, 3)] for row in rows])
    assert (np.abs(paid) > 1e-6).any()
    assert paid.sum(axis=1) == pytest.approx(np.zeros(len(rows)), abs=1e-9)


def test_what_was_traded_limits_what_is_planned_to_be_exchanged_beyond_it() -> None:
    free, limited = (play("3mg_p2p", **{"horizontal.untraded_mw": limit}) for limit in (None, 0.2))
    generated = [sum(row[f"mg_{k}.dg_1.p_mw"] for row in rows for k in (1, 2, 3)) for rows in (free, limited)]
    assert generated[1] > generated[0] + 0.1  # units are raised where a grid would import more


def test_secondary_control_brings_voltages_back_with_reactive_power() -> None:
    plain = play("3mg", day=20)
    controlled = play("3mg", day=20, horizontal={"kind": "secondary_control", "rounds": 30})
    away = [
        np.mean([abs(row[f"mg_{k}.vm_min_pu"] + row[f"mg_{k}.vm_max_pu"] - 2.0) for row in rows[6:] for k in (1, 2, 3)])
        for rows in (plain, controlled)
    ]
    assert away[1] < 0.8 * away[0]
    q_mvar = [sum(abs(row[f"mg_{k}.ess_1.q_mvar"]) for row in rows for k in (1, 2, 3)) for rows in (plain, controlled)]
    assert q_mvar[1] > q_mvar[0]
