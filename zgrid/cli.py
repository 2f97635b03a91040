"""The command line: ``zgrid run|join|evaluate|validate|topic|record|keys|...``; ``launch.py`` is ``zgrid run``."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zgrid.cli_evaluate import add_evaluate, evaluate
from zgrid.cli_join import add_join, join
from zgrid.cli_keys import add_keys, keys
from zgrid.cli_record import add_record, record, replay
from zgrid.cli_study import add_study, plot, study
from zgrid.cli_watch import add_watch, watch
from zgrid.command import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    OK,
    TERMINATED,
    Terminated,
    count,
    make_folder,
    policy_settings,
    policy_text,
    tell,
)  # fmt: skip
from zgrid.errors import MissingExtraError, NetworkError, TopologyError, ZgridError
from zgrid.topology import Topology, examine, json_schema, load, parse_overrides
from zgrid.topology.generated import dump, generate


def main(argv: Sequence[str] | None = None) -> int:
    """The ``zgrid`` command; its exit code: 0 done, 1 the run failed, 2 bad input, 130 Ctrl-C, 143 SIGTERM."""
    sys.path.insert(0, os.getcwd())  # so that plug-ins beside the user are found
    parser = argparse.ArgumentParser(
        prog="zgrid",
        description="Peer-to-peer control of power grids.",
        epilog="example: zgrid run topologies/3mg.yaml --centralized --episodes 2",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_run(commands.add_parser("run", help="play a topology", **_texts("zgrid run")))
    add_join(commands)
    add_evaluate(commands)
    add_study(commands)
    add_watch(commands)
    add_record(commands)
    validate = commands.add_parser(
        "validate", help="check a topology", epilog="example: zgrid validate topologies/3mg.yaml"
    )
    validate.add_argument("file", metavar="FILE", help="topology file")
    validate.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override a key; repeatable")
    commands.add_parser(
        "schema",
        help="print the JSON schema of a topology, for editors",
        epilog="example: zgrid schema > topology.schema.json",
    )
    _add_generate(commands)
    _add_export(commands)
    add_keys(commands)
    arguments = parser.parse_args(argv)
    command = {
        "run": run, "join": join, "evaluate": evaluate, "validate": _validate, "schema": _schema, "generate": _generate,
        "export": _export, "topic": watch, "node": watch, "top": watch, "record": record, "replay": replay,
        "keys": keys, "study": study, "plot": plot,
    }[arguments.command]  # fmt: skip
    return command(arguments)


def _add_generate(commands: Any) -> None:
    made = commands.add_parser(
        "generate",
        help="write a topology of many microgrids",
        description="Write a topology of many microgrids, and survey its voltages over a month of the data.",
        epilog="example: zgrid generate --microgrids 50 --seed 1 --out 50mg.yaml",
    )
    made.add_argument("--microgrids", metavar="N", type=count, required=True, help="how many, 1 to 1000")
    made.add_argument("--seed", metavar="S", type=int, default=0, help="seed of sizes and prices (default: 0)")
    made.add_argument("--out", metavar="FILE", type=Path, help="file to write (default: standard output, no survey)")
    made.add_argument("--month", metavar="M", type=int, choices=range(1, 13), default=1, help="month (default: 1)")


def _add_export(commands: Any) -> None:
    made = commands.add_parser(
        "export",
        help="write a trained policy as an ONNX file",
        description="Write the policy of a checkpoint as an ONNX file, which grid nodes play without torch. Where "
        "every grid has a policy of its own, {grid} in the file's name stands for the grid.",
        epilog="example: zgrid export runs/mappo policy.onnx && python launch.py topologies/3mg.yaml "
        "--policy onnx:policy.onnx",
    )
    made.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="folder that a trainer wrote")
    made.add_argument("file", metavar="FILE", type=Path, help="file to write")


def launch_main(argv: Sequence[str] | None = None) -> int:
    """``python launch.py``: the same as ``zgrid run``."""
    sys.path.insert(0, os.getcwd())
    parser = argparse.ArgumentParser(prog="python launch.py", **_texts("python launch.py"))
    add_run(parser)
    return run(parser.parse_args(argv))


def _texts(command: str) -> dict[str, Any]:
    return {
        "description": "Play a topology: agents as processes over ZeroMQ, over an in-memory broker, or centralized.",
        "epilog": f"examples:\n"
        f"  {command} topologies/3mg.yaml\n"
        f"  {command} topologies/3mg.yaml --centralized --episodes 30 --policy random\n"
        f"  {command} topologies/3mg.yaml --out runs/first --set reward.penalty=50",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def add_run(parser: argparse.ArgumentParser) -> None:
    """The arguments of a run."""
    parser.add_argument("file", metavar="FILE", help="topology file, or the name of one that ships with zgrid (3mg)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--centralized", action="store_true", default=None, help="direct calls, no broker")
    mode.add_argument("--distributed", dest="centralized", action="store_false", help="over a broker")
    parser.add_argument("--broker", choices=("in_memory", "zmq"), help="which broker (implies --distributed)")
    parser.add_argument("--steps", metavar="N", type=count, help="stop after N steps in all")
    parser.add_argument("--episodes", metavar="N", type=count, help="episodes to play (default: 7)")
    parser.add_argument("--seed", metavar="N", type=int, help="seed of the first episode")
    parser.add_argument(
        "--policy", metavar="NAME", help="what all grids do: idle, random, rule_based, onnx:FILE, or module:Class"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="write summary.json, steps.csv and day.png to DIR")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override a key; repeatable")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(arguments: argparse.Namespace) -> int:
    """Play a topology; the exit code."""
    from zgrid.launcher import launch  # these show tables, and a machine that only joins runs has nothing to show
    from zgrid.play import Plan
    from zgrid.view import ConsoleView

    try:
        topology = load(arguments.file, _overrides(arguments))
        plan = Plan(arguments.episodes, arguments.steps, topology.seed, arguments.out)
        if arguments.out is not None:
            make_folder(arguments.out)
        settings = [*arguments.set]
        if arguments.policy is not None:
            settings += [f"policy={policy_text(arguments.policy)}", "grids.*.policy=null"]
        source = " ".join([arguments.file, *(f"--set {shlex.quote(setting)}" for setting in settings)])
        launch(topology, plan, ConsoleView(topology, quiet=arguments.quiet), source)
    except TopologyError as error:
        return tell(str(error), BAD_INPUT)
    except ZgridError as error:
        return tell(f"error: {error}", FAILED)
    except KeyboardInterrupt:
        return tell("interrupted; everything that was started has ended", INTERRUPTED)
    except Terminated:
        return tell("terminated; everything that was started has ended", TERMINATED)
    return OK


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    overrides = parse_overrides(arguments.set)
    centralized = False if arguments.broker is not None and arguments.centralized is None else arguments.centralized
    named = {"centralized": centralized, "message_broker": arguments.broker, "seed": arguments.seed}
    overrides |= {key: value for key, value in named.items() if value is not None}
    if arguments.policy is not None:
        overrides |= policy_settings(arguments.policy)
    return overrides


def _validate(arguments: argparse.Namespace) -> int:
    try:
        topology, findings = examine(arguments.file, parse_overrides(arguments.set))
    except TopologyError as error:
        return tell(str(error), BAD_INPUT)
    for finding in findings:
        print(finding)
    if findings or topology is None:
        return tell(f"{arguments.file}: {len(findings)} finding{'s' if len(findings) != 1 else ''}", BAD_INPUT)
    try:
        _solve_once(topology)
    except (TopologyError, NetworkError) as error:
        return tell(str(error), BAD_INPUT)
    grids, devices = len(topology.grids), len(topology.device_specs)
    print(f"{arguments.file}: no findings; {grids} grid{'s' if grids != 1 else ''}, {devices} devices, {topology.mode}")
    return OK


def _solve_once(topology: Topology) -> None:
    """Build the network and solve it as it begins, which only an env can.

    Raises:
        TopologyError: it does not solve, a device is on a dead bus, or a policy does not fit.
        NetworkError: it cannot be built.
    """
    from zgrid.environment import NetworkedGridEnv

    NetworkedGridEnv(topology)


def _generate(arguments: argparse.Namespace) -> int:
    try:
        content = generate(arguments.microgrids, arguments.seed)
    except ValueError as error:
        return tell(f"error: {error}", BAD_INPUT)
    command = f"zgrid generate --microgrids {arguments.microgrids} --seed {arguments.seed}"
    text = dump(
        content, f"{arguments.microgrids} microgrids (IEEE 13-bus) on a radial feeder, made by\n\n  {command}\n"
    )
    if arguments.out is None:
        print(text, end="")
        return OK
    try:
        arguments.out.write_text(text, encoding="utf-8")
        return _survey(arguments)
    except OSError as error:
        return tell(f"--out: cannot be written: {error}", BAD_INPUT)
    except ZgridError as error:
        return tell(f"error: {error}", FAILED)


def _survey(arguments: argparse.Namespace) -> int:
    """Tell the voltages over a month; it fails where they are not sane, or where there is no solution."""
    from zgrid.survey import survey

    print(f"wrote {arguments.out}; solving every hour of month {arguments.month} ...", flush=True)
    first = round((arguments.month - 1) * 365 / 12)
    sane = True
    for devices, low, high, diverged, hours in survey(load(str(arguments.out)), range(first, first + 30)):
        print(f"  {devices}: {low:.3f} to {high:.3f} pu over {hours} hours, {diverged} without a solution")
        sane = sane and diverged == 0 and low >= 0.9 and high <= 1.1
    print(f"next: python launch.py {arguments.out}")
    return OK if sane else tell("the voltages are not within 0.9 to 1.1 pu", FAILED)


def _export(arguments: argparse.Namespace) -> int:
    try:
        for name in ("torch", "onnx"):
            if find_spec(name) is None:
                raise MissingExtraError(f"export needs {name}: pip install 'zgrid[torchrl]' (or rllib, or sb3)")
        from zgrid.rl.export import export

        files = export(arguments.checkpoint, arguments.file)
    except (ZgridError, OSError) as error:
        return tell(f"error: {error}", BAD_INPUT)
    size_kb = sum(file.stat().st_size for file in files) / 1000
    print(f"wrote {', '.join(map(str, files))} ({size_kb:.0f} kB)")
    print(f"next: python launch.py topologies/3mg.yaml --policy 'onnx:{arguments.file}'")
    return OK


def _schema(arguments: argparse.Namespace) -> int:
    print(json.dumps(json_schema(), indent=2))
    return OK
