"""``zgrid study`` and ``zgrid plot``: run a study, and draw what came of it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zgrid.command import BAD_INPUT, FAILED, INTERRUPTED, OK, TERMINATED, Terminated, count, sigterm_raises, tell
from zgrid.errors import MissingExtraError, StudyError, TopologyError
from zgrid.study_labels import number_of

_FIRST_METRICS = ("settled_round", "gap_per_h", "mean_error", "return", "violation_steps")
"""What is drawn where nothing is asked for: those that there are."""
_SHOWN = 12


def add_study(commands: Any) -> None:
    """The commands and their arguments."""
    made = commands.add_parser(
        "study",
        help="vary a topology or a protocol, over seeds",
        description="Run every combination of a study's knobs with every seed, and write rows.csv and comparison.csv. "
        "What is there already is not run again.",
        epilog="example: zgrid study delay_sensitivity --processes 2 --out runs/delay",
    )
    made.add_argument("file", metavar="STUDY", help="study file, or the name of one that ships with zgrid")
    made.add_argument("--out", metavar="DIR", type=Path, help="folder of the results (default: runs/NAME)")
    made.add_argument("--processes", metavar="N", type=count, help="at once (default: as many as there are processors)")
    made.add_argument("--fresh", action="store_true", help="forget what is in the folder, and run all of it")
    made.add_argument("--check", action="store_true", help="check the study and count its runs, but run nothing")
    drawn = commands.add_parser(
        "plot",
        help="draw a study",
        description="Draw what zgrid study wrote: a metric over a knob with a line for each value of the others, a map "
        "of two knobs, and residuals round by round. By default all of these that there are.",
        epilog="example: zgrid plot runs/delay --metric settled_round --x delay",
    )
    drawn.add_argument("source", metavar="DIR|CSV", type=Path, help="folder of a study, or its rows")
    drawn.add_argument("--metric", metavar="NAME", help="column of the rows to draw")
    drawn.add_argument("--x", metavar="KNOB", help="knob along the axis (default: the first with numbers)")
    drawn.add_argument("--y", metavar="KNOB", help="draw a map, with this knob upwards")
    drawn.add_argument("--where", metavar="KNOB=VALUE", action="append", default=[], help="only these; repeatable")
    drawn.add_argument("--curves", action="store_true", help="draw only the residuals of history.csv")
    drawn.add_argument("--log", action="store_true", help="logarithmic axis of the metric")
    drawn.add_argument("--out", metavar="DIR", type=Path, help="folder of the pictures (default: that of the rows)")


def study(arguments: argparse.Namespace) -> int:
    """Run a study; the exit code is 1 where a run failed."""
    from zgrid.scoreboard import progress_bar
    from zgrid.studies import load_study, run_study

    try:
        made = load_study(arguments.file)
        out = arguments.out or Path("runs") / made.name
        if arguments.check:
            print(f"{made.name}: no findings; {len(made.combinations())} combinations, {len(made.runs())} runs")
            return OK
        processes = arguments.processes or len(os.sched_getaffinity(0))
        with sigterm_raises(), progress_bar() as show:
            done = run_study(made, out, processes=processes, fresh=arguments.fresh, progress=show)
    except TopologyError as error:
        return tell(str(error), BAD_INPUT)
    except StudyError as error:
        return tell(f"error: {error}", FAILED)
    except KeyboardInterrupt:
        return tell(
            f"interrupted; what is finished is kept in {out}, and the same command goes on from there", INTERRUPTED
        )
    except Terminated:
        return tell(
            f"terminated; what is finished is kept in {out}, and the same command goes on from there", TERMINATED
        )
    print(f"{made.name}: {len(done.rows)} runs, {len(done.failed)} failed")
    print("written: " + ", ".join(map(str, done.files)))
    if done.hint:
        print(done.hint)
    if done.failed:
        more = [f"  ... and {len(done.failed) - _SHOWN} more"] if len(done.failed) > _SHOWN else []
        return tell("\n".join(["failed:", *(f"  {text}" for text in done.failed[:_SHOWN]), *more]), FAILED)
    print(f"next: zgrid plot {out}")
    return OK


def plot(arguments: argparse.Namespace) -> int:
    """Draw a study; the exit code."""
    try:
        files = _draw(arguments)
    except (StudyError, MissingExtraError) as error:
        return tell(f"error: {error}", BAD_INPUT)
    except OSError as error:
        return tell(f"--out: cannot be written: {error}", BAD_INPUT)
    print("written: " + ", ".join(map(str, files)))
    return OK


def _draw(arguments: argparse.Namespace) -> list[Path]:
    from zgrid.studies import knobs_of, read_rows, read_table

    path, every = read_rows(arguments.source)
    knobs = knobs_of(every[0])
    rows = _chosen([row for row in every if row["status"] == "ok"], knobs, arguments.where)
    if not rows:
        raise StudyError(f"{path}: no finished run fits")
    out = arguments.out or path.parent
    out.mkdir(parents=True, exist_ok=True)
    varied = [knob for knob in knobs if len({row[knob] for row in rows}) > 1]
    name, units = _about(path.parent)
    asked = bool(arguments.metric or arguments.x or arguments.y)
    files = [] if arguments.curves else _draw_metrics(rows, varied, arguments, (name, units, out))
    history = path.parent / "history.csv"
    if arguments.curves or (history.exists() and not asked):
        curves = _chosen(read_table(history), knobs, arguments.where)
        files.append(_draw_curves(curves, varied, name, out / "curves.png"))
    return files


def _draw_metrics(
    rows: Sequence[Mapping[str, str]],
    varied: Sequence[str],
    arguments: argparse.Namespace,
    about: tuple[str, Mapping[str, str], Path],
) -> list[Path]:
    """A picture per metric, and a map where two knobs are asked for, or can be had."""
    from zgrid.study_plots import Axes, draw_map, draw_metric

    name, units, out = about
    numeric = [knob for knob in varied if all(_is_number(row[knob]) for row in rows)]
    for knob in (arguments.x, arguments.y):
        if knob is not None and knob not in varied:
            raise StudyError(f"{knob}: no knob with several values; there are {', '.join(varied) or 'none'}")
    first = [knob for knob in (*numeric, *varied) if knob != arguments.y]
    x = arguments.x or (first[0] if first else None)
    if x is None:
        raise StudyError("nothing is varied; expected rows of at least two values of a knob")
    other = [knob for knob in numeric if knob != x]
    y = arguments.y or (other[0] if other and x in numeric and not (arguments.x or arguments.metric) else None)
    files = []
    for metric in _metrics(rows, arguments.metric):
        axes = Axes(metric, x, varied, units, name, arguments.log)
        if arguments.y is None:
            files.append(out / f"{metric}_{x}.png")
            draw_metric(rows, axes, files[-1])
        if y is not None:
            files.append(out / f"{metric}_{x}_{y}.png")
            draw_map(rows, axes, y, files[-1])
    return files


def _draw_curves(rows: Sequence[Mapping[str, str]], varied: Sequence[str], name: str, file: Path) -> Path:
    from zgrid.study_plots import Axes, draw_curves

    if not rows:
        raise StudyError("no curve fits")
    seed = rows[0]["seed"]
    draw_curves(rows, Axes("residual", "round", varied, {}, f"{name}, seed {seed}: largest residual of all"), file)
    return file


def _metrics(rows: Sequence[Mapping[str, str]], asked: str | None) -> list[str]:
    """The metric that is asked for, or the first ones that some run has a value of."""
    names = list(rows[0])
    metrics = [name for name in names[names.index("error") + 1 :] if any(_is_number(row[name]) for row in rows)]
    if asked is not None and asked not in metrics:
        raise StudyError(f"{asked}: no metric with values; there are {', '.join(metrics)}")
    return [asked] if asked is not None else [name for name in _FIRST_METRICS if name in metrics] or metrics[:1]


def _chosen(rows: Sequence[Mapping[str, str]], knobs: Sequence[str], wanted: Sequence[str]) -> list[Mapping[str, str]]:
    """The rows of these values; a knob that is named several times may have any of them."""
    allowed: dict[str, set[str]] = {}
    for text in wanted:
        knob, equals, value = text.partition("=")
        if not equals or knob not in knobs:
            raise StudyError(f"--where {text}: expected KNOB=VALUE, knobs are {', '.join(knobs) or 'none'}")
        allowed.setdefault(knob, set()).add(value)
    return [row for row in rows if all(row[knob] in values for knob, values in allowed.items())]


def _about(folder: Path) -> tuple[str, dict[str, str]]:
    """Name of the study, and the units of its knobs; nothing of rows that stand alone.

    Raises:
        StudyError: its study.json is damaged.
    """
    file = folder / "study.json"
    if not file.is_file():
        return "", {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return str(content["name"]), {knob: str(part.get("unit") or "") for knob, part in content["knobs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(f"{file}: damaged, {error!r}; run the study again with --fresh") from error


def _is_number(text: str) -> bool:
    return number_of(text) is not None
