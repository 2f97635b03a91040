"""Checkpoints: a folder that says what was trained, with the actors that play it, whatever trainer made it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from zgrid.errors import CheckpointError
from zgrid.rl.networks import Actor
from zgrid.rl.scaling import Normal
from zgrid.topology import Topology, load

ABOUT, ACTORS = "zgrid.json", "actors.pt"
SHARED = "shared"
"""The name of a policy that all grids share."""
_FORMAT = 1


@dataclass(frozen=True)
class About:
    """What a checkpoint says of itself.

    ``topology`` is the topology trained on, complete. ``policy_of`` maps each grid to the name of its policy.
    ``mean_return`` is the last mean return of a day, $, over all grids, while training.
    """

    trainer: str
    topology: dict[str, Any]
    policy_of: dict[str, str]
    command: str
    seed: int
    iteration: int
    env_steps: int
    mean_return: float
    format: int = _FORMAT

    @property
    def policies(self) -> list[str]:
        """The names of the policies, in the order of the grids."""
        return list(dict.fromkeys(self.policy_of.values()))

    def load_topology(self) -> Topology:
        """The topology trained on."""
        return load(self.topology, checked=False)


def policy_map(topology: Topology, *, independent: bool) -> dict[str, str]:
    """Which policy each grid plays: its own, or one that all share."""
    return {grid: grid if independent else SHARED for grid in topology.grids}


def command_line() -> str:
    """What this process was started with, without folders."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder beside, that takes this one's place when all is written: a checkpoint is whole, or the old one.

    Other files in the folder are kept.

    Raises:
        CheckpointError: the folder holds something else.
    """
    folder = folder.resolve()
    check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = (folder.with_name(f"{folder.name}.{word}") for word in ("new", "old"))
    if old.exists() and not folder.exists():
        old.rename(folder)  # a run was killed between the two renames below
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir()
    yield new
    if folder.exists():
        for kept in folder.iterdir():
            if kept.is_file() and not (new / kept.name).exists():
                shutil.copy2(kept, new / kept.name)
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def check_free(folder: Path) -> None:
    """See that a checkpoint may be written here.

    Raises:
        CheckpointError: the folder holds something else.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / ABOUT).is_file() or not any(folder.iterdir()))):
        raise CheckpointError(f"{folder}: holds something else than a checkpoint; expected a new or an empty folder")


def save(folder: Path, about: About, actors: Mapping[str, Actor]) -> None:
    """Write what a checkpoint says and the actors of its policies; the trainer writes its own files beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        name: {"hidden": list(actor.hidden), "n_actions": actor.n_actions, "weights": actor.state_dict()}
        for name, actor in actors.items()
    }
    torch.save(content, folder / ACTORS)
    (folder / ABOUT).write_text(json.dumps(asdict(about), indent=1) + "\n", encoding="utf-8")


def read_about(folder: Path) -> About:
    """What a checkpoint says.

    Raises:
        CheckpointError: no checkpoint of zgrid, or of another format.
    """
    file = folder / ABOUT
    if not file.is_file():
        raise CheckpointError(f"{folder}: no checkpoint of zgrid (no {ABOUT} in it)")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw.get("format") != _FORMAT:
            raise CheckpointError(f"{file}: format {raw.get('format')!r}, expected {_FORMAT}")
        return About(**raw)
    except (ValueError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{file}: not what a checkpoint says of itself: {error}") from error


def read_actors(folder: Path) -> dict[str, Actor]:
    """The actors of a checkpoint, by policy.

    Raises:
        CheckpointError: there are none, or they cannot be read.
    """
    file = folder / ACTORS
    try:
        content = torch.load(file, weights_only=True)
        return {name: _actor(one) for name, one in content.items()}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise CheckpointError(f"{file}: no actors that can be read: {error}") from error
    except Exception as error:  # torch reports a foreign file by an error of pickle's own kind
        raise CheckpointError(f"{file}: no actors that can be read: {error}") from error


def _actor(content: Mapping[str, Any]) -> Actor:
    weights = content["weights"]
    normal = Normal(tuple(weights["scaled.mean"].tolist()), tuple(weights["scaled.std"].tolist()))
    actor = Actor(normal, content["n_actions"], content["hidden"])
    actor.load_state_dict(weights)
    return actor


def check_fits(folder: Path, about: About, topology: Topology) -> None:
    """See that a checkpoint can go on with a topology.

    Raises:
        CheckpointError: other grids, or other spaces.
    """
    trained = about.load_topology()
    if _learnt_from(trained) == _learnt_from(topology):
        return
    if list(trained.grids) != list(topology.grids):
        raise CheckpointError(f"{folder}: trained on grids {_names(trained.grids)}, not {_names(topology.grids)}")
    for mine, theirs in zip(topology.grid_specs, trained.grid_specs, strict=True):
        if mine.controls != theirs.controls:
            raise CheckpointError(
                f"{folder}: {mine.id} had {len(theirs.controls)} controls when it was trained, and has "
                f"{len(mine.controls)} or others in this topology"
            )
    raise CheckpointError(
        f"{folder}: trained on another topology ({trained.name}); to go on, give the one it was trained on"
    )


def _learnt_from(topology: Topology) -> dict[str, Any]:
    """All of a topology that a policy learns from: not where and how anything runs, and not what grids do alone."""
    data: dict[str, Any] = topology.model_dump(mode="json")
    for key in ("centralized", "message_broker", "broker", "seed", "policy"):
        del data[key]
    data["spaces"].pop("observation")
    for grid in data["grids"].values():
        del grid["run"], grid["policy"]
        for device in grid["devices"].values():
            del device["run"]
    return data


def _names(grids: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(grids)
