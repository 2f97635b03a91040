"""Draws are hashes: evenly spread, without order, and the same in every process."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from typing import Any

import pytest

from zgrid.links import Links
from zgrid.links.config import LinkConfig
from zgrid.links.draws import DELAY, LOSS, Draws

RULE = {
    "delay": {"kind": "exponential", "mean": 1.0},
    "jitter": 0.5,
    "loss": 0.2,
    "duplicate": 0.1,
    "gilbert_elliott": {"p_gb": 0.1, "p_bg": 0.4},
}
NAMES = [f"mg_{k}" for k in range(1, 6)]


def fates(me: str) -> list[Any]:
    """What comes out of the links into one of five grids in 4 steps of 10 rounds: (sender, values, age)."""
    ears = Links([LinkConfig.model_validate(RULE)], seed=7).into(me)
    assert ears is not None
    out: list[Any] = []
    for _ in range(4):
        ears.begin()
        for round, sender in product(range(1, 11), (name for name in NAMES if name != me)):
            out += [[sender, *heard.values, heard.age] for heard in ears.carry(sender, round, (float(round),))]
    return out


def test_they_are_evenly_spread() -> None:
    # chi-square over 100 bins of 20 000 draws: 99 degrees of freedom, 1e-6 of all samples lie above 180
    draws = Draws(1, "mg_1", "mg_2", "peer")
    bins = [0] * 100
    for step, round in product(range(200), range(100)):
        bins[int(100.0 * draws.uniform(step, round, 0, LOSS))] += 1
    assert sum((count - 200.0) ** 2 / 200.0 for count in bins) < 180.0


def test_neighbouring_draws_are_independent() -> None:
    # the correlation of 20 000 pairs has the standard deviation 0.0071; five of them
    draws = Draws(1, "mg_1", "mg_2", "peer")
    values = [draws.uniform(step, 0, 0, LOSS) - 0.5 for step in range(20_001)]
    for others in (values[1:], [draws.uniform(step, 0, 0, DELAY) - 0.5 for step in range(20_000)]):
        correlation = sum(a * b for a, b in zip(values, others, strict=False)) / 20_000 * 12.0
        assert abs(correlation) < 0.0354


@pytest.mark.parametrize(
    "other",
    [
        Draws(2, "mg_1", "mg_2", "peer"),
        Draws(1, "mg_2", "mg_1", "peer"),
        Draws(1, "mg_1", "mg_3", "peer"),
        Draws(1, "mg_1", "mg_2", "state"),
    ],
    ids=["seed", "ends swapped", "destination", "kind"],
)
def test_every_link_has_its_own(other: Draws) -> None:
    one = Draws(1, "mg_1", "mg_2", "peer")
    values = {draws.uniform(step, 1, 0, LOSS) for draws in (one, other) for step in range(100)}
    assert len(values) == 200


def test_a_draw_depends_on_nothing_drawn_before() -> None:
    places = list(product(range(20), range(5), range(2), range(4)))
    one, other = (Draws(3, "mg_1", "mg_2", "peer") for _ in range(2))
    forward = {place: one.uniform(*place) for place in places}
    assert {place: other.uniform(*place) for place in reversed(places)} == forward


def test_a_draw_has_the_value_it_always_had() -> None:
    # a change of the hash would change every published study
    assert Draws(0, "mg_1", "mg_2", "peer").uniform(1, 1, 0, LOSS) == 0.02935241343394257


@pytest.mark.slow
def test_five_processes_and_one_see_the_same_fates() -> None:
    together = {name: fates(name) for name in NAMES}
    code = "import json, sys; from test_link_draws import fates; print(json.dumps(fates(sys.argv[1])))"
    folder = __file__.rpartition("/")[0]
    path = [folder, *sys.path]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}", name],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in reversed(NAMES)
    ]
    apart = {
        name: json.loads(one.communicate(timeout=60)[0]) for name, one in zip(reversed(NAMES), processes, strict=True)
    }
    assert apart == together
    assert 100 < sum(map(len, together.values())) < 5 * 4 * 10 * 4
