"""The picture of a day; needs the extra ``plot``."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from conftest import small_topology

import zgrid
from zgrid.play import Plan, play
from zgrid.view import ConsoleView

pytest.importorskip("matplotlib", reason="needs matplotlib: pip install -e '.[plot]'")


@pytest.mark.parametrize("grids", [1, 3])
def test_a_day_is_drawn_with_a_column_per_grid(grids: int, tmp_path: Path) -> None:
    env = zgrid.parallel_env(small_topology(grids), centralized=True, episode_steps=6)
    view = ConsoleView(env.topology, quiet=True)
    with view:
        play(env, Plan(episodes=1, out=tmp_path), view)
    data = (tmp_path / "day.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    width, _ = struct.unpack(">II", data[16:24])
    assert width == pytest.approx(110 * (1.5 + 3.6 * grids), abs=2)


def test_a_run_that_ends_within_its_first_episode_is_drawn_too(tmp_path: Path) -> None:
    env = zgrid.parallel_env(small_topology(), centralized=True)
    view = ConsoleView(env.topology, quiet=True)
    play(env, Plan(steps=2, out=tmp_path), view)
    assert (tmp_path / "day.png").stat().st_size > 10_000
