"""Trainer: multi-agent PPO on a topology, with checkpoints of zgrid around RLlib's own."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayActorError
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from zgrid.errors import CheckpointError, NodeDiedError
from zgrid.rl.checkpoint import SHARED, About, check_fits, command_line, policy_map, read_about, replacing, save
from zgrid.rl.networks import HIDDEN, Actor, one_thread
from zgrid.rl.rllib import env, module
from zgrid.rl.rllib.algorithm import MEAN_RETURN, DayRunner, ExactPPO, day_return
from zgrid.rl.scaling import Scaling, measure
from zgrid.topology import Topology

STATE, SETTINGS = "rllib", "settings.json"
_OBJECT_STORE = 200 * 2**20
"""Bytes that Ray holds for what goes between processes: some megabytes an iteration."""


@dataclass(frozen=True)
class Settings:
    """What multi-agent PPO is run with; ``minibatch`` counts steps of one grid, ``days`` those of an iteration."""

    days: int = 42
    learning_rate: float = 5e-4
    epochs: int = 8
    minibatch: int = 512
    gamma: float = 0.95
    lmbda: float = 0.9
    clip: float = 0.2
    std: float = 0.4
    hidden: tuple[int, ...] = HIDDEN
    max_grad_norm: float = 0.5


def ppo_config(
    topology: Topology, scalings: Mapping[str, Scaling], settings: Settings, seed: int = 0, num_env_runners: int = 0
) -> PPOConfig:
    """RLlib's config, to build or to change first.

    Args:
        topology: what to train on, in its mode.
        scalings: of each policy: ``SHARED``, whose critic sees the global state too (MAPPO), or each grid's own, whose
            critic sees what it sees (independent PPO).
        settings: of PPO.
        seed: all that is random follows from it.
        num_env_runners: processes that play, each with the agents of its own; 0 plays in this one.
    """
    shared = SHARED in scalings
    policy_of = policy_map(topology, independent=not shared)
    reward_std = {grid: scalings[policy].reward_std for grid, policy in policy_of.items()}
    specs = {
        policy: RLModuleSpec(
            module_class=module.GridModule,
            model_config=module.describe(
                scaling, central=shared, hidden=settings.hidden, std=settings.std, seed=seed + k
            ),
        )
        for k, (policy, scaling) in enumerate(scalings.items())
    }
    steps = settings.days * topology.episode_steps
    return (
        PPOConfig(algo_class=ExactPPO)
        .environment(
            env.GridEnv, env_config=env.describe(topology, reward_std, settings.days), disable_env_checking=True,
            clip_actions=False, normalize_actions=False,
        )
        .env_runners(
            env_runner_cls=DayRunner, num_env_runners=num_env_runners, batch_mode="complete_episodes",
            sample_timeout_s=None,
        )
        .fault_tolerance(restart_failed_env_runners=False, ignore_env_runner_failures=False)
        .multi_agent(policies=set(scalings), policy_mapping_fn=_PolicyOf(policy_of))
        .rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))
        .training(
            lr=settings.learning_rate, gamma=settings.gamma, lambda_=settings.lmbda, clip_param=settings.clip,
            num_epochs=settings.epochs, minibatch_size=min(settings.minibatch, steps),
            train_batch_size_per_learner=steps, entropy_coeff=0.0, use_kl_loss=False, kl_coeff=0.0,
            vf_loss_coeff=0.5, vf_clip_param=float("inf"), grad_clip=settings.max_grad_norm,
            grad_clip_by="global_norm",
        )
        .learners(num_learners=0)
        .debugging(seed=seed, log_level="ERROR")
    )  # fmt: skip


class _PolicyOf:
    """Which policy a grid plays, as RLlib asks for it."""

    def __init__(self, policy_of: Mapping[str, str]) -> None:
        self._policy_of = dict(policy_of)

    def __call__(self, agent: str, *_: Any, **__: Any) -> str:
        return self._policy_of[agent]


class Trainer:
    """Multi-agent PPO with RLlib: one policy that all grids share and a critic that sees the global state, or a policy
    and a critic for each grid alone. Use as a context; it starts Ray where it does not run, and ends what it started.

    Source: Yu et al. 2022, The surprising effectiveness of PPO in cooperative multi-agent games.

    The curve and the weights are the same to the bit in every mode, with any number of env runners, and in a run that
    was saved and resumed.
    """

    def __init__(
        self,
        topology: Topology,
        settings: Settings | None = None,
        seed: int = 0,
        *,
        independent: bool = False,
        num_env_runners: int = 0,
    ) -> None:
        """
        Raises:
            TopologyError: a topology that cannot run.
            ValueError: grids of different sizes that would share a policy.
        """
        one_thread()
        logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # it greets with a warning
        self.topology, self.settings, self.seed = topology, settings or Settings(), seed
        self.is_independent, self.policy_of = independent, policy_map(topology, independent=independent)
        scalings = {grid: measure(topology, [grid]) for grid in topology.grids} if independent else None
        config = ppo_config(topology, scalings or {SHARED: measure(topology)}, self.settings, seed, num_env_runners)
        self._started_ray = _start_ray(num_env_runners)
        try:
            self.algorithm = config.build_algo()
        except BaseException:
            self._end()
            raise
        self._reward_std: dict[str, float] = config.env_config["reward_std"]
        self.iteration, self.env_steps, self.mean_return = 0, 0, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def train(self) -> float:
        """One iteration; the mean return of a day, $, over all grids.

        Raises:
            NodeDiedError: an env runner ended.
        """
        try:
            self.mean_return = float(self.algorithm.train()[MEAN_RETURN])
        except RayActorError as error:
            raise NodeDiedError("of an env runner", 1, str(error)) from error
        self.iteration += 1
        self.env_steps += self.settings.days * self.topology.episode_steps
        return self.mean_return

    def evaluate(self, seeds: Iterable[int]) -> list[float]:
        """The returns of days, $ over all grids, played without exploration; a seed is that of ``reset``."""
        runners = self.algorithm.env_runner_group
        (returns,) = runners.foreach_env_runner(
            _Evaluation(list(seeds), self._reward_std),
            local_env_runner=not runners.num_remote_workers(),
            remote_worker_ids=[1] if runners.num_remote_workers() else None,
        )
        return list(returns)

    def actors(self) -> dict[str, Actor]:
        """The actor of each policy, as the learner has it."""
        return {policy: self._module(policy).actor for policy in dict.fromkeys(self.policy_of.values())}

    def weights(self) -> dict[str, Any]:
        """All that is learnt, by policy and name, as tensors."""
        return {
            f"{policy}.{name}": value
            for policy in dict.fromkeys(self.policy_of.values())
            for name, value in self._module(policy).state_dict().items()
        }

    def save(self, folder: Path) -> None:
        """Write a checkpoint; one that is there is replaced when the new one is whole."""
        about = About(
            trainer="rllib",
            topology=self.topology.model_dump(mode="json"),
            policy_of=self.policy_of,
            command=command_line(),
            seed=self.seed,
            iteration=self.iteration,
            env_steps=self.env_steps,
            mean_return=self.mean_return,
        )
        with replacing(folder) as new:
            save(new, about, self.actors())
            (new / SETTINGS).write_text(json.dumps(asdict(self.settings), indent=1) + "\n", encoding="utf-8")
            self.algorithm.save_to_path(new / STATE)

    @classmethod
    def resume(cls, folder: Path, topology: Topology | None = None, num_env_runners: int = 0) -> Self:
        """Go on from a checkpoint, with the topology that it was trained on; in another mode or with another number of
        env runners it goes on alike.

        Raises:
            CheckpointError: no checkpoint of this trainer, or of another topology than the given one.
        """
        about = read_about(folder)
        if about.trainer != "rllib" or not (folder / STATE).is_dir():
            raise CheckpointError(f"{folder}: a checkpoint of {about.trainer}, not of rllib")
        if topology is not None:
            check_fits(folder, about, topology)
        trainer = cls(
            topology or about.load_topology(),
            _read_settings(folder),
            about.seed,
            independent=SHARED not in about.policies,
            num_env_runners=num_env_runners,
        )
        try:
            trainer.algorithm.restore_from_path(folder.resolve() / STATE)
        except Exception as error:  # what lies there may be anything
            trainer.close()
            raise CheckpointError(f"{folder / STATE}: RLlib cannot read its state: {error}") from error
        except BaseException:
            trainer.close()
            raise
        trainer.iteration, trainer.env_steps = about.iteration, about.env_steps
        trainer.mean_return = about.mean_return
        return trainer

    def close(self) -> None:
        """End env runners, the processes of their nodes, and Ray where this trainer started it."""
        try:
            self.algorithm.stop()
        finally:
            self._end()

    def _module(self, policy: str) -> Any:
        (learner,) = (result.get() for result in self.algorithm.learner_group.foreach_learner(lambda one: one))
        return learner.module[policy].unwrapped()

    def _end(self) -> None:
        if self._started_ray:
            ray.shutdown()


class _Evaluation:
    """Play days without exploration, in the env runner that has an env."""

    def __init__(self, seeds: list[int], reward_std: dict[str, float]) -> None:
        self._seeds, self._reward_std = seeds, reward_std

    def __call__(self, runner: DayRunner) -> list[float]:
        one_thread()
        returns = [day_return(runner.play(seed, explore=False), self._reward_std) for seed in self._seeds]
        runner.get_metrics()  # else they count as training
        return returns


def _read_settings(folder: Path) -> Settings:
    file = folder / SETTINGS
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        return Settings(**raw | {"hidden": tuple(raw["hidden"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{file}: no settings that can be read: {error}") from error


def _start_ray(num_env_runners: int) -> bool:
    """Start Ray on this machine for this process alone, without telemetry, dashboard or chatter, unless it runs."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        address="local", num_cpus=num_env_runners + 1, num_gpus=0, include_dashboard=False,
        object_store_memory=_OBJECT_STORE, log_to_driver=False, logging_level=logging.ERROR,
    )  # fmt: skip
    return True
