"""``zgrid study`` and ``zgrid plot``: what they print and write, and how they end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from zgrid import study_plots
from zgrid.cli import main
from zgrid.errors import StudyError
from zgrid.study_labels import key_text, metric_text
from zgrid.study_plots import Axes, draw_curves, draw_map, draw_metric

Result = tuple[int, str, str]
needs_matplotlib = pytest.mark.skipif(
    find_spec("matplotlib") is None, reason="needs matplotlib: pip install -e '.[plot]'"
)
STUDY: dict[str, Any] = {
    "name": "short",
    "protocol": {"kind": "ratio_consensus", "graph": {"kind": "ring", "size": 4}, "config": {"rounds": 12}},
    "set": {"links": [{"kind": "peer", "delay": {"kind": "constant", "value": 0}}]},
    "knobs": {
        "what": {"key": "config.value", "values": ["share", "p_pcc_mw"]},
        "delay": {"key": "links.0.delay.value", "values": [0, 1], "unit": "rounds"},
        "loss": {"key": "links.0.loss", "values": [0, 0.2]},
    },
    "seeds": 2,
    "tolerance": 0.1,
    "curves": True,
}


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands put the current directory on the import path; take it off again."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command; its exit code and what it printed to standard output and error."""

    def command(*arguments: object) -> Result:
        capsys.readouterr()
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as exit:
            code = int(exit.code or 0)
        return (code, *capsys.readouterr())

    return command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was run."""
    place = tmp_path_factory.mktemp("study")
    (place / "short.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False), encoding="utf-8")
    assert main(["study", str(place / "short.yaml"), "--out", str(place / "out"), "--processes", "1"]) == 0
    return place / "out"


@pytest.mark.parametrize(("command", "example"), [("study", "zgrid study delay_sensitivity"), ("plot", "zgrid plot ")])
def test_help_has_an_example(command: str, example: str, run: Callable[..., Result]) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"example: {example}" in out


class TestStudy:
    def test_says_what_it_wrote_and_what_comes_next(self, folder: Path, run: Callable[..., Result]) -> None:
        code, out, _ = run("study", folder.parent / "short.yaml", "--out", folder)
        assert code == 0
        assert out.startswith("short: 16 runs, 0 failed\n")
        assert f"next: zgrid plot {folder}\n" in out

    def test_can_only_be_checked(self, tmp_path: Path, run: Callable[..., Result]) -> None:
        assert run("study", "protocols", "--check")[:2] == (0, "protocols: no findings; 15 combinations, 75 runs\n")

    def test_findings_are_bad_input(self, tmp_path: Path, run: Callable[..., Result]) -> None:
        file = tmp_path / "bad.yaml"
        file.write_text(yaml.safe_dump({**STUDY, "tolerance": -1}), encoding="utf-8")
        code, _, error = run("study", file)
        assert code == 2
        assert "1 finding\n  tolerance: Input should be greater than 0, got -1\n" in error

    def test_a_failed_run_is_told_and_is_the_exit_code(
        self, tmp_path: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise ArithmeticError("on purpose")

        monkeypatch.setattr("zgrid.studies.runner.play_protocol", fail)
        file = tmp_path / "short.yaml"
        file.write_text(yaml.safe_dump(STUDY, sort_keys=False), encoding="utf-8")
        code, out, error = run("study", file, "--out", tmp_path / "out", "--processes", 1)
        assert code == 1
        assert out.startswith("short: 16 runs, 16 failed\n")
        assert "  run 0 (what=share, delay=0, loss=0, seed=0): ArithmeticError: on purpose\n" in error
        assert error.endswith("  ... and 4 more\n")

    def test_another_study_in_the_folder_fails(self, folder: Path, tmp_path: Path, run: Callable[..., Result]) -> None:
        file = tmp_path / "other.yaml"
        file.write_text(yaml.safe_dump({**STUDY, "seeds": 1}, sort_keys=False), encoding="utf-8")
        code, _, error = run("study", file, "--out", folder)
        assert code == 1
        assert "another study, or another version of it; expected another --out, or --fresh" in error


@needs_matplotlib
class TestPlot:
    def test_draws_all_there_is(self, folder: Path, tmp_path: Path, run: Callable[..., Result]) -> None:
        code, out, error = run("plot", folder, "--out", tmp_path)
        assert (code, error) == (0, "")
        names = {"settled_round_delay.png", "settled_round_delay_loss.png", "curves.png"}
        assert names <= {path.name for path in tmp_path.iterdir()}
        for path in tmp_path.iterdir():
            assert str(path) in out
            assert path.read_bytes().startswith(b"\x89PNG")
            assert path.stat().st_size > 10_000

    def test_draws_what_is_asked_for(self, folder: Path, tmp_path: Path, run: Callable[..., Result]) -> None:
        rows = folder / "rows.csv"
        chosen = ("--where", "what=share", "--out", tmp_path)
        assert run("plot", rows, "--metric", "gap_per_h", "--x", "loss", "--log", *chosen)[0] == 0
        assert run("plot", rows, "--metric", "bytes", "--x", "what", "--y", "loss", "--out", tmp_path)[0] == 0
        assert {path.name for path in tmp_path.iterdir()} == {"gap_per_h_loss.png", "bytes_what_loss.png"}

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("--metric", "speed"), "speed: no metric with values; there are rounds, "),
            (("--x", "speed"), "speed: no knob with several values; there are what, delay, loss"),
            (("--where", "speed=1"), "--where speed=1: expected KNOB=VALUE, knobs are what, delay, loss"),
            (("--where", "loss=7"), "no finished run fits"),
        ],
    )
    def test_what_is_not_there_is_said(
        self, arguments: tuple[str, ...], text: str, folder: Path, run: Callable[..., Result]
    ) -> None:
        code, _, error = run("plot", folder, *arguments)
        assert code == 2
        assert text in error

    def test_a_table_of_something_else_is_refused(self, tmp_path: Path, run: Callable[..., Result]) -> None:
        (tmp_path / "steps.csv").write_text("step,price\n1,30\n", encoding="utf-8")
        code, _, error = run("plot", tmp_path / "steps.csv")
        assert code == 2
        assert "no rows of a study; expected what zgrid study writes" in error
        assert run("plot", tmp_path / "none.csv")[0] == 2

    def test_a_metric_that_nobody_has_is_refused(self, tmp_path: Path) -> None:
        rows = [{"delay": "0", "gap_per_h": ""}, {"delay": "1", "gap_per_h": ""}]
        axes = Axes("gap_per_h", "delay", ["delay"])
        for draw in (draw_metric, lambda *given: draw_map(given[0], given[1], "delay", given[2])):
            with pytest.raises(StudyError, match="no run has a value of gap_per_h"):
                draw(rows, axes, tmp_path / "a.png")

    def test_too_many_lines_are_refused(self, tmp_path: Path) -> None:
        rows = [{"x": "0", "line": str(k), "round": "1", "residual": "1"} for k in range(25)]
        with pytest.raises(StudyError, match="25 lines are too many"):
            draw_metric(rows, Axes("residual", "x", ["x", "line"]), tmp_path / "a.png")
        with pytest.raises(StudyError, match="1 times 25 curves"):
            draw_curves(rows, Axes("residual", "round", ["line"]), tmp_path / "a.png")


def test_points_are_means_with_their_intervals() -> None:
    rows = [{"delay": "2", "m": "1"}, {"delay": "2", "m": "3"}, {"delay": "0", "m": "5"}, {"delay": "0", "m": ""}]
    points = study_plots._points(rows, Axes("m", "delay", ["delay"]), {"0": 0.0, "2": 2.0})
    assert [(point[0], point[1], point[4]) for point in points] == [(0.0, 5.0, False), (2.0, 2.0, True)]
    assert points[1][3] - points[1][1] == pytest.approx(12.7062)  # t(0.975, 1) x sqrt(2) / sqrt(2)


def test_without_matplotlib_it_says_what_it_needs(
    folder: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, error = run("plot", folder)
    assert code == 2
    assert "pip install 'zgrid[plot]'" in error


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("import_mwh", "import, MWh"), ("return.mg_1", "return, mg 1, $"), ("imbalance_mw", "imbalance, MW"),
        ("messages.peer", "messages, peer"), ("gap_per_h", "gap to the optimum, $/h"), ("import_cost", "import, $"),
        ("mean_rounds", "rounds per step"), ("age_max_steps", "largest age of information, steps"),
    ],
)  # fmt: skip
def test_axes_have_units(metric: str, text: str) -> None:
    assert metric_text(metric) == text


def test_lines_are_called_by_words_or_by_knob_and_number() -> None:
    assert key_text(["protocol", "loss", "own_loss"], ["admm", "0.1", "2"]) == "admm, loss 0.1, own loss 2"
