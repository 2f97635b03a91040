"""Topologies of many microgrids, made from a seed: IEEE 13-bus microgrids on a radial feeder that is sized for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml

LOADS = ("load_1", "load_2", "load_3")


def generate(microgrids: int, seed: int = 0) -> dict[str, Any]:
    """The content of a topology file with so many microgrids, each with a generator, PV and a battery; the same for the
    same seed.

    Raises:
        ValueError: not 1 to 1000 microgrids.
    """
    if not 1 <= microgrids <= 1000:
        raise ValueError(f"microgrids: expected 1 to 1000, got {microgrids}")
    rng = np.random.default_rng(seed)
    names = [f"mg_{k + 1}" for k in range(microgrids)]
    return {
        "name": f"{microgrids}mg",
        "centralized": True,
        "message_broker": "in_memory",
        "profiles": {"file": ["zgrid:simbench_2016", "zgrid:ercot_2022"], "split": "train"},
        "network": {"kind": f"feeder_{microgrids}"},
        "vertical": "setpoint",
        "policy": "rule_based",
        "reward": {"kind": "economic", "penalty": 300.0},
        "grids": {name: _grid(k, names, rng) for k, name in enumerate(names)},
    }


def _grid(k: int, names: list[str], rng: np.random.Generator) -> dict[str, Any]:
    """One microgrid; sizes in MW, MVA and MWh around those of the three-microgrid case."""
    load, size = str(rng.choice(LOADS)), float(rng.uniform(0.6, 1.0))
    count = len(names)
    others = {names[(k - 1) % count], names[(k + 1) % count]} - {names[k]}
    return {
        "connect_at": str(k + 1),
        "network": {"kind": "ieee13", "load": load, "load_scale": round(0.2 * size, 3)},
        "price": "price",
        "neighbours": sorted(others),
        "devices": {
            "dg_1": {
                "kind": "generator", "bus": "675", **_rated(0.3 * size, 1.25), "cost_a": 100.0,
                "cost_b": round(float(rng.uniform(45.0, 70.0)), 1),
            },
            "pv_1": {
                "kind": "renewable", "bus": "652", "availability": "solar", **_rated(0.35 * size, 1.2),
                "q_control": True, "curtailment_cost": 5.0,
            },
            "ess_1": {
                "kind": "storage", "bus": "645", **_rated(0.12 * size, 1.2), "q_control": True,
                "capacity_mwh": round(0.7 * size, 3), "eta_charge": 0.95, "eta_discharge": 0.95, "wear_cost": 2.0,
            },
        },
    }  # fmt: skip


def _rated(p_max_mw: float, oversize: float) -> dict[str, float]:
    return {"p_max_mw": round(p_max_mw, 3), "s_rated_mva": round(p_max_mw * oversize, 3)}


def dump(content: dict[str, Any], header: str) -> str:
    """The content as YAML, with a header as comment."""
    comment = "".join(f"# {line}\n" if line else "#\n" for line in header.splitlines())
    return comment + str(yaml.safe_dump(content, sort_keys=False, width=120))
