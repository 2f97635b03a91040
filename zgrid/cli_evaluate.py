"""``zgrid evaluate``: play the same days with several policies and compare them."""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zgrid.command import BAD_INPUT, FAILED, INTERRUPTED, OK, count, make_folder, policy_text, tell
from zgrid.errors import CheckpointError, Finding, MissingExtraError, TopologyError, ZgridError
from zgrid.plots import draw_scores
from zgrid.topology import parse_overrides

if TYPE_CHECKING:
    from zgrid.evaluation import Evaluation


def add_evaluate(commands: Any) -> None:
    """The command and its arguments."""
    made = commands.add_parser(
        "evaluate",
        help="compare policies on the same days",
        description="Play the same days with several policies and compare them, beside idle, random, rule_based and "
        "an optimum that knows the day beforehand.",
        epilog="example: zgrid evaluate topologies/3mg.yaml --policy onnx:policy.onnx --episodes 10",
    )
    made.add_argument("file", metavar="TOPOLOGY", help="topology file, or the name of one that ships with zgrid (3mg)")
    made.add_argument(
        "--policy", metavar="SPEC", action="append", default=[],
        help="what all grids do: idle, random, rule_based, onnx:FILE, or module:Class; repeatable",
    )  # fmt: skip
    made.add_argument("--episodes", metavar="N", type=count, help="days to play (default: all of the split)")
    made.add_argument(
        "--split", choices=("train", "test", "all"), default="test", help="days to choose from (default: test)"
    )
    made.add_argument("--seed", metavar="S", type=_seed, default=0, help="seed of days and policies (default: 0)")
    made.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override a key; repeatable")
    made.add_argument("--no-optimum", action="store_true", help="leave out the optimum with foresight")
    made.add_argument("--out", metavar="DIR", type=Path, help="write evaluation.json, days.csv and scores.png to DIR")
    made.add_argument("--json", action="store_true", help="print nothing but the figures, as JSON")


def evaluate(arguments: argparse.Namespace) -> int:
    """Play, print and write; the exit code."""
    try:
        if arguments.out is not None:
            make_folder(arguments.out)
        evaluation = _evaluate(arguments)
        summary = evaluation.summary()
        files, hint = ([], "") if arguments.out is None else write(arguments.out, evaluation, summary)
    except TopologyError as error:
        return tell(str(error), BAD_INPUT)
    except (CheckpointError, MissingExtraError) as error:
        return tell(f"error: {error}", BAD_INPUT)
    except ZgridError as error:
        return tell(f"error: {error}", FAILED)
    except KeyboardInterrupt:
        return tell("interrupted", INTERRUPTED)
    if arguments.json:
        print(json.dumps(summary, indent=2))
        return OK
    _show(summary, files, hint)
    return OK


def names_of(policies: Sequence[str]) -> dict[str, str]:
    """What to call each policy -> what a topology calls it. A file is called by its stem, two of one stem by all of
    their names; what always plays is not named again."""
    from zgrid.evaluation import REFERENCES
    from zgrid.scores import BEST

    stems = [_stem(policy) for policy in policies]
    taken = [*REFERENCES, BEST]
    return {
        stem if (stems + taken).count(stem) == 1 else policy: policy_text(policy)
        for policy, stem in zip(policies, stems, strict=True)
        if policy not in REFERENCES
    }


def write(out: Path, evaluation: Evaluation, summary: Mapping[str, Any]) -> tuple[list[str], str]:
    """Write evaluation.json, days.csv and, where matplotlib is installed, scores.png; the names of what was written,
    and what would be needed for the rest.

    Raises:
        TopologyError: a file cannot be written.
    """
    try:
        (out / "evaluation.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        rows = evaluation.rows()
        names = dict.fromkeys(name for row in rows for name in row)
        with (out / "days.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(names), restval=0.0)
            writer.writeheader()
            writer.writerows(rows)
        files = [str(out / "evaluation.json"), str(out / "days.csv")]
        returns = {name: [day.value for day in days] for name, days in evaluation.played.items()}
        draw_scores(returns, str(summary["topology"]), out / "scores.png")
    except OSError as error:
        raise TopologyError("command line", [Finding("--out", f"cannot be written: {error}")]) from error
    except MissingExtraError as error:
        return files, f"no scores.png: {error}"
    return [*files, str(out / "scores.png")], ""


def _evaluate(arguments: argparse.Namespace) -> Evaluation:
    from zgrid.evaluation import Settings, evaluate
    from zgrid.scoreboard import progress_bar

    settings = Settings(arguments.split, arguments.episodes, arguments.seed, parse_overrides(arguments.set))
    settings = settings._replace(optimum=not arguments.no_optimum, processes=len(os.sched_getaffinity(0)))
    with progress_bar() as show:
        return evaluate(arguments.file, names_of(arguments.policy), settings, show)


def _show(summary: Mapping[str, Any], files: Sequence[str], hint: str) -> None:
    from zgrid.scoreboard import print_tables

    print_tables(summary)
    if files:
        print("written: " + ", ".join(files))
    if hint:
        print(hint)


def _stem(policy: str) -> str:
    kind, colon, file = policy.partition(":")
    return Path(file).stem if kind == "onnx" and colon else policy


def _seed(text: str) -> int:
    seed = int(text)
    if seed < 0:
        raise argparse.ArgumentTypeError("expected at least 0")
    return seed
