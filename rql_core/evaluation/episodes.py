"""Episodes of checkpoints, in this process or in several: what to run, who runs it, and what comes back.

The records of an evaluation follow from checkpoint, settings and seeds alone; how many processes ran them, and in which
order, cannot be seen in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from rql_core.algorithms import Acting
from rql_core.checkpoint_files import CONTRACT
from rql_core.errors import CheckpointError, ConfigError
from rql_core.evaluation.environment import Environment, EnvironmentRollout, OnStep, make_environment
from rql_core.evaluation.results import EpisodeRecord, Evaluation, check_episodes
from rql_core.evaluation.rollout import Rollout, contract_session
from rql_core.progress import progress_bar
from rql_core.runtime.policy import DeployedPolicy
from rql_core.sim import ArmEnv
from rql_core.sim.session import Frame
from rql_core.training.checkpoint import Checkpoint, load_checkpoint
from rql_core.workers import WorkerPool


@dataclass(frozen=True)
class EpisodeSettings:
    """Which checkpoint acts where and how. Exactly one of `world` and `environment` is given."""

    checkpoint: Path
    acting: Acting
    world: str | None = None
    environment: str | None = None
    replan_every: int = 0
    # Of the world or environment.
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EpisodeTask:
    """One episode to run."""

    settings: EpisodeSettings
    seed: int

    def __str__(self) -> str:
        return f"{self.settings.checkpoint}, seed {self.seed}"


class EpisodeRunner:
    """Runs episodes of any settings, one after another; keeps what the last one needed, so that it is loaded once.

    Torch gets one thread in the process: networks this small are slower on more, and workers share the cores.
    """

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._settings: EpisodeSettings | None = None
        self._rollout: Rollout | EnvironmentRollout | None = None
        self._environment: Environment | None = None
        self._made: tuple[str, dict[str, Any]] | None = None

    def __call__(self, task: EpisodeTask) -> EpisodeRecord:
        """Run an episode; raises CheckpointError, ConfigError or SimulationError where something does not fit."""
        if self._rollout is None or task.settings != self._settings:
            self._rollout = self._make_rollout(task.settings)
            self._settings = task.settings
        return self._rollout.run_episode(task.seed)

    def _make_rollout(self, settings: EpisodeSettings) -> Rollout | EnvironmentRollout:
        if settings.environment is None:
            return world_rollout(settings)[0]
        wanted = settings.environment, settings.options
        if self._environment is None or wanted != self._made:
            if self._environment is not None:
                self._environment.close()
            self._environment, self._made = make_environment(settings.environment, **settings.options), wanted
        return environment_rollout(settings, self._environment)


def world_rollout(
    settings: EpisodeSettings, on_frame: Callable[[Frame], None] | None = None, **options: Any
) -> tuple[Rollout, ArmEnv]:
    """A rollout in a simulated world by the checkpoint's contract, and that world; the options are added to its own."""
    assert settings.world is not None
    policy = DeployedPolicy.load(settings.checkpoint, acting=settings.acting)
    session = contract_session(
        policy.contract, settings.world, execute_steps=settings.replan_every, **(settings.options | options)
    )
    feature = policy.contract.reward_feature
    return Rollout(session, policy, settings.replan_every, feature, on_frame), session.env


def environment_rollout(
    settings: EpisodeSettings, environment: Environment, on_step: OnStep | None = None
) -> EnvironmentRollout:
    """A rollout of the checkpoint's policy in an environment that was made already."""
    assert settings.environment is not None
    return EnvironmentRollout(
        environment,
        load_checkpoint(settings.checkpoint).policy,
        name=settings.environment,
        acting=settings.acting,
        replan_every=settings.replan_every,
        on_step=on_step,
    )


def place(checkpoint: Checkpoint, world: str | None, environment: str | None) -> tuple[str | None, str | None]:
    """The (world, environment) that a checkpoint is evaluated in, one of them None; raises where nothing fits.

    A contract is driven in the simulated world; `environment` overrides the one that a checkpoint without a contract
    names.
    """
    has_contract = checkpoint.contract_text is not None
    if has_contract and world is not None:
        return world, None
    named = environment or (None if has_contract else checkpoint.config.environment)
    if named is not None:
        return None, named
    if has_contract:
        raise ConfigError(
            f"{checkpoint.directory}: was trained under a contract, so it needs a simulated robot: "
            "give --world planar_arm or --world ur5e_ring"
        )
    if world is not None:
        raise CheckpointError(
            f"{checkpoint.directory / CONTRACT}: is missing, so nothing says what its numbers mean in world {world!r}; "
            "train from a converted dataset, or give --environment NAME"
        )
    raise ConfigError(
        f"{checkpoint.directory}: has no contract and names no environment, so nothing says where it can act: "
        "give --environment NAME (an OGBench name or a Gymnasium id)"
    )


def describe(checkpoint: Checkpoint, settings: EpisodeSettings, first_seed: int) -> Evaluation:
    """The evaluation of these settings, before there are records."""
    algorithm, acting = checkpoint.config.algorithm, settings.acting
    return Evaluation(
        algorithm.algorithm,
        "in_process",
        [],
        world=settings.world,
        environment=settings.environment,
        checkpoint=str(settings.checkpoint),
        step=checkpoint.manifest.step,
        training_seed=checkpoint.manifest.seed,
        algorithm=algorithm.algorithm,
        form=algorithm.form,
        first_seed=first_seed,
        replan_every=settings.replan_every,
        samples=acting.samples,
        rho=acting.rho,
        flow_steps=acting.flow_steps or algorithm.acting_steps,
    )


def evaluate_all(
    plans: Sequence[tuple[EpisodeSettings, Evaluation]],
    seeds: Sequence[int],
    pool: WorkerPool[EpisodeTask, EpisodeRecord],
    *,
    progress: bool = True,
) -> Iterator[tuple[int, Evaluation]]:
    """Run the same seeds for each of the settings; yield (index of the plan, its evaluation with records by seed).

    One is yielded as soon as its last episode has ended, so that what is done can be kept. With `progress` a bar over
    all episodes on standard error.
    """
    tasks = [EpisodeTask(settings, seed) for settings, _ in plans for seed in seeds]
    records: list[list[EpisodeRecord]] = [[] for _ in plans]
    bar = None
    try:
        for task, record in pool.run(tasks):
            # Only now, and with a rate that leaves loading out: a checkpoint that does not fit is said without a bar.
            first = bar is None
            bar = bar or progress_bar(
                total=len(tasks), initial=1, unit="episode", desc="evaluating", disable=not progress
            )
            plan = task // len(seeds)
            records[plan].append(record)
            done = [each for group in records for each in group]
            bar.set_postfix_str(f"success {sum(each.success for each in done) / len(done):.2f}", refresh=False)
            bar.update(0 if first else 1)
            if len(records[plan]) == len(seeds):
                ordered = sorted(records[plan], key=lambda each: each.seed)
                yield plan, replace(plans[plan][1], records=ordered)
    finally:
        if bar is not None:
            bar.close()


def seed_range(episodes: int, first_seed: int) -> range:
    """The episodes' seeds; raises ConfigError where there are none."""
    check_episodes(episodes, first_seed)
    return range(first_seed, first_seed + episodes)


def episode_pool(workers: int) -> WorkerPool[EpisodeTask, EpisodeRecord]:
    """A pool of EpisodeRunners; raises ConfigError for fewer than one worker."""
    return WorkerPool(EpisodeRunner, workers)
