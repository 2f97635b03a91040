"""Stable-Baselines3: the grids of a topology as rows of one VecEnv, so that all share one policy, and PPO on it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from zgrid.environment import NetworkedGridEnv
from zgrid.errors import ActionError, CheckpointError, Finding, TopologyError
from zgrid.rl.checkpoint import SHARED, About, check_fits, command_line, policy_map, read_about, replacing, save
from zgrid.rl.networks import HIDDEN, Actor, Scaled, one_thread
from zgrid.rl.scaling import Normal, measure
from zgrid.topology import Topology
from zgrid.vector import NetworkedVectorEnv

MODEL, SETTINGS = "model.zip", "settings.json"


class _OneCopy:
    """A single env as one copy: every array has a leading axis of length 1."""

    num_envs = 1

    def __init__(self, env: NetworkedGridEnv) -> None:
        self.env = env
        self.single_observation_spaces, self.single_action_spaces = env.observation_spaces, env.action_spaces

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # before __init__, when it is copied or unpickled
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, *, seed: Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None) -> Any:
        return map(_lead, self.env.reset(seed=seed[0] if seed else None, options=options))

    def step(self, actions: Mapping[str, Any]) -> Any:
        return map(_lead, self.env.step({grid: action[0] for grid, action in actions.items()}))


def _lead(value: Any) -> Any:
    """Values with a leading axis of length 1."""
    if isinstance(value, dict):
        return {name: _lead(one) for name, one in value.items()}
    return np.asarray(value)[None]


class GridVecEnv(VecEnv):
    """Every grid of every copy is a row: row ``copy * n_grids + grid``. One policy acts for all, by what each sees.

    Observations (rows, n_obs) float32, actions (rows, n_actions) in [-1, 1], rewards (rows,) float32 in $ divided by
    ``reward_std``. All copies begin and end their days together. With the last step of a day comes the first
    observation of the next; what was seen last is ``terminal_observation`` in the infos. The end of a day is a
    termination: it is in the problem, the clock is in the observation. An info has the terms of its grid in $, and at
    the end ``episode``: its return in $ and its steps, which Stable-Baselines3 logs.
    """

    render_mode: str | None = None

    def __init__(self, source: NetworkedVectorEnv | NetworkedGridEnv, reward_std: float = 1.0) -> None:
        """``source`` is many copies, or one env in whatever mode.

        Raises:
            TopologyError: grids of different sizes, or spaces that are no flat Box.
        """
        self.source = source
        self.reward_std = reward_std
        self._copies: Any = _OneCopy(source) if isinstance(source, NetworkedGridEnv) else source
        self.grids = list(source.possible_agents)
        seen, done = self._copies.single_observation_spaces, self._copies.single_action_spaces
        shapes = {(seen[grid].shape, done[grid].shape) for grid in self.grids}
        if any(None in shape for shape in shapes):
            raise TopologyError(source.topology.name, [Finding("spaces", "expected observation: flat, action: flat")])
        if len(shapes) > 1:
            text = f"grids of {len(shapes)} sizes cannot share a policy; spaces.pad: true makes them equal"
            raise TopologyError(source.topology.name, [Finding("spaces.pad", text)])
        super().__init__(self._copies.num_envs * len(self.grids), seen[self.grids[0]], done[self.grids[0]])
        self._actions: NDArray[np.float32] | None = None
        self._earned = np.zeros(self.num_envs)
        self._steps = 0

    def reset(self) -> NDArray[np.float32]:
        """Begin a day in every copy, with the seeds and the options that were given since the last reset."""
        seen = self._begin(self._seeds[:: len(self.grids)], self._options[0])
        self._reset_seeds()
        self._reset_options()
        return seen

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Keep the actions for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """One step of every copy.

        Raises:
            ActionError: before reset, or without actions.
        """
        if self._actions is None:
            raise ActionError("no actions to step with; call step_async() first")
        actions, self._actions = self._by_grid(self._actions), None
        observations, rewards, _terminated, over, infos = self._copies.step(actions)
        seen, earned = self._rows(observations), self._rows(rewards)
        told = self._row_infos(infos)
        self._earned += earned
        self._steps += 1
        done = self._rows(over)
        if done.all():
            for row, info in enumerate(told):
                info["TimeLimit.truncated"] = False
                info["terminal_observation"] = seen[row]
                info["episode"] = {"r": float(self._earned[row]), "l": self._steps}
            seen = self._begin()
        return seen, (earned / self.reward_std).astype(np.float32), done, told

    def close(self) -> None:
        """End what the source started."""
        self.source.close()

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed copy k with seed + k at the next reset; the seed of each row. None: drawn from numpy's generator."""
        first = int(np.random.randint(2**31)) if seed is None else seed  # noqa: NPY002 - what set_random_seed seeds
        self._seeds = [first + row // len(self.grids) for row in range(self.num_envs)]
        return self._seeds

    def set_options(self, options: Any = None) -> None:
        """Options of the next reset, one dict for all rows.

        Raises:
            ValueError: a list, one for each row.
        """
        if isinstance(options, list):
            raise ValueError("options: expected one dict; the rows of a copy share their day")
        super().set_options(options)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the source, once per row."""
        return [getattr(self._owner(attr_name), attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the source.

        Raises:
            ValueError: for some of the rows only; they share the source.
        """
        self._check_all(indices)
        setattr(self.source, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the source once; its result, once per row."""
        result = getattr(self._owner(method_name), method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """No row is inside a wrapper of gymnasium."""
        return [False for _ in self._get_indices(indices)]

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _begin(self, seeds: Sequence[int | None] = (), options: Mapping[str, Any] | None = None) -> NDArray[np.float32]:
        observations, infos = self._copies.reset(seed=seeds or None, options=options or None)
        self.reset_infos = self._row_infos(infos)
        self._earned, self._steps = np.zeros(self.num_envs), 0
        return self._rows(observations)

    def _rows(self, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """What each grid has, (copies, ...), as rows."""
        table = np.stack([values[grid] for grid in self.grids], 1)
        return table.reshape(self.num_envs, *table.shape[2:])

    def _by_grid(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        table = np.asarray(rows).reshape(self._copies.num_envs, len(self.grids), -1)
        return {grid: table[:, k] for k, grid in enumerate(self.grids)}

    def _row_infos(self, infos: Mapping[str, Mapping[str, NDArray[Any]]]) -> list[dict[str, Any]]:
        names = {grid: list(infos[grid]) for grid in self.grids}
        tables = {grid: np.stack([infos[grid][name] for name in names[grid]], 1).tolist() for grid in self.grids}
        return [
            dict(zip(names[grid], tables[grid][copy], strict=True))
            for copy in range(self._copies.num_envs)
            for grid in self.grids
        ]

    def _owner(self, name: str) -> Any:
        return self.source if hasattr(self.source, name) else self

    def _check_all(self, indices: Any) -> None:
        if len(set(self._get_indices(indices))) != self.num_envs:
            raise ValueError("the rows share one env; expected no indices")


class ScaledFeatures(BaseFeaturesExtractor):
    """What a policy sees, with the fixed scaling of ``zgrid.rl.networks``."""

    def __init__(self, observation_space: Any, normal: Normal) -> None:
        super().__init__(observation_space, len(normal.mean))
        self.scaled = Scaled(normal)

    def forward(self, observations: Tensor) -> Tensor:
        scaled: Tensor = self.scaled(observations)
        return scaled


def policy_kwargs(normal: Normal, std: float = 0.4, hidden: Sequence[int] = HIDDEN) -> dict[str, Any]:
    """What makes Stable-Baselines3's ``MlpPolicy`` act as an ``Actor``; ``std`` is that of the actions at first."""
    return {
        "features_extractor_class": ScaledFeatures,
        "features_extractor_kwargs": {"normal": normal},
        "activation_fn": nn.Tanh,
        "net_arch": {"pi": list(hidden), "vf": list(hidden)},
        "log_std_init": math.log(std),
    }


def actor_of(model: Any) -> Actor:
    """The deterministic actions of an on-policy model, as an actor to save and to export.

    Raises:
        CheckpointError: a policy that was not made with ``policy_kwargs``.
    """
    policy = model.policy
    features = getattr(policy, "pi_features_extractor", None)
    if not isinstance(features, ScaledFeatures) or policy.activation_fn is not nn.Tanh or policy.squash_output:
        raise CheckpointError("no actor in this model; expected policy_kwargs=zgrid.rl.sb3.policy_kwargs(...)")
    scaled = features.scaled
    linears = [*_linears(policy.mlp_extractor.policy_net), policy.action_net]
    hidden = [layer.out_features for layer in linears[:-1]]
    actor = Actor(Normal(scaled.mean.tolist(), scaled.std.tolist()), policy.action_net.out_features, hidden)
    for mine, theirs in zip(_linears(actor.body), linears, strict=True):
        mine.load_state_dict(theirs.state_dict())
    return actor


def _linears(body: nn.Module) -> list[Any]:
    return [layer for layer in body.modules() if isinstance(layer, nn.Linear)]


@dataclass(frozen=True)
class Settings:
    """What PPO is run with."""

    days: int = 64
    """Days in an iteration: of as many copies at once, or one after the other of one env."""
    copies: bool = True
    """Whether to train on copies; if not, on one env in the mode of the topology."""
    learning_rate: float = 5e-4
    epochs: int = 8
    minibatch: int = 1536
    """Steps of grids, at most."""
    gamma: float = 0.95
    lmbda: float = 0.9
    clip: float = 0.2
    std: float = 0.4
    hidden: tuple[int, ...] = HIDDEN
    max_grad_norm: float = 0.5


class Trainer:
    """PPO: one policy and one critic that all grids share, each from its own observation.

    Source: Terry et al. 2020, Revisiting parameter sharing in multi-agent deep reinforcement learning.

    What is random in an iteration is drawn from (seed, iteration) alone, so that a run that was saved and resumed
    equals one that was not, to the bit.
    """

    def __init__(self, topology: Topology, settings: Settings, seed: int = 0) -> None:
        """
        Raises:
            TopologyError: grids that cannot share a policy, or a topology that does not run in copies.
        """
        one_thread()
        self.topology, self.settings, self.seed = topology, settings, seed
        copies, days = (settings.days, 1) if settings.copies else (1, settings.days)
        source = NetworkedVectorEnv(topology, copies) if settings.copies else NetworkedGridEnv(topology)
        self.env = GridVecEnv(source)
        scaling = measure(topology)
        self.env.reward_std = scaling.reward_std
        set_random_seed(seed)
        n_steps = topology.episode_steps * days
        self.model = PPO(
            "MlpPolicy",
            self.env,
            learning_rate=settings.learning_rate,
            n_steps=n_steps,
            batch_size=_divisor(n_steps * self.env.num_envs, settings.minibatch),
            n_epochs=settings.epochs,
            gamma=settings.gamma,
            gae_lambda=settings.lmbda,
            clip_range=settings.clip,
            max_grad_norm=settings.max_grad_norm,
            policy_kwargs=policy_kwargs(scaling.observation, settings.std, settings.hidden),
            device="cpu",
        )
        self.model.set_logger(Logger(None, []))  # without one, every iteration makes a folder for logs
        self.iteration, self.mean_return = 0, 0.0

    @property
    def env_steps(self) -> int:
        """Steps of the topology so far, over all copies."""
        return self.iteration * self.settings.days * self.topology.episode_steps

    def train(self) -> float:
        """One iteration: the days, then epochs over them; the mean return of a day, $, over all grids."""
        (draws,) = np.random.SeedSequence([self.seed, self.iteration]).generate_state(1)
        self.model.set_random_seed(int(draws))
        self.model.set_env(self.env, force_reset=True)
        played = self.model.rollout_buffer
        self.model.learn(self.model.n_steps * self.env.num_envs, reset_num_timesteps=False)
        earned = float(played.rewards.sum(dtype=np.float64)) * self.env.reward_std
        self.iteration, self.mean_return = self.iteration + 1, earned / self.settings.days
        return self.mean_return

    def save(self, folder: Path) -> None:
        """Write a checkpoint; one that is there is replaced when the new one is whole."""
        about = About(
            trainer="sb3",
            topology=self.topology.model_dump(mode="json"),
            policy_of=policy_map(self.topology, independent=False),
            command=command_line(),
            seed=self.seed,
            iteration=self.iteration,
            env_steps=self.env_steps,
            mean_return=self.mean_return,
        )
        with replacing(folder) as new:
            save(new, about, {SHARED: actor_of(self.model)})
            self.model.save(new / MODEL)
            (new / SETTINGS).write_text(json.dumps(asdict(self.settings), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def resume(cls, folder: Path, topology: Topology | None = None) -> Self:
        """Go on from a checkpoint, with the topology that it was trained on.

        Raises:
            CheckpointError: no checkpoint of this trainer, or of another topology than the given one.
        """
        about = read_about(folder)
        if about.trainer != "sb3" or not (folder / MODEL).is_file():
            raise CheckpointError(f"{folder}: a checkpoint of {about.trainer}, not of sb3")
        if topology is not None:
            check_fits(folder, about, topology)
        trainer = cls(about.load_topology(), _read_settings(folder / SETTINGS), about.seed)
        try:
            trainer.model.set_parameters(folder / MODEL, device="cpu")  # weights only: nothing of the file is run
        except (OSError, EOFError, ValueError, KeyError, RuntimeError, UnpicklingError) as error:
            raise CheckpointError(f"{folder / MODEL}: no model that can be read: {error}") from error
        trainer.iteration, trainer.mean_return = about.iteration, about.mean_return
        trainer.model.num_timesteps = about.env_steps * len(trainer.env.grids)
        return trainer

    def close(self) -> None:
        """End what the env started."""
        self.env.close()


def _read_settings(file: Path) -> Settings:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        return Settings(**raw | {"hidden": tuple(raw["hidden"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: no settings that can be read: {error}") from error


def _divisor(number: int, largest: int) -> int:
    """The largest divisor that is not above: minibatches of equal size."""
    return next(size for size in range(min(number, largest), 0, -1) if number % size == 0)
