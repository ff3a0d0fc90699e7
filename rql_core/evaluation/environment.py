"""Episodes of a policy in a Gymnasium environment, for checkpoints without a contract: OGBench's tasks, or one's own.

The protocol is that of the published numbers: the averaged policy acts on noise that is drawn, a chunk is executed open
loop, and an episode counts as solved where `info["success"]` holds at its last step. An episode follows from its seed
alone, whatever ran in the process before, where the environment draws from the generator of `reset`, its spaces, or the
global generators of numpy and Python; test/core/evaluation/test_environment.py pins that.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding

from rql_core.algorithms import Acting, RewardRange
from rql_core.errors import ConfigError, SimulationError
from rql_core.evaluation.results import EpisodeRecord, check_episodes, training_scores
from rql_core.ogbench.randomness import global_random
from rql_core.training.checkpoint import save_checkpoint
from rql_core.training.policy import Policy

Environment = gymnasium.Env[Any, Any]
# Called with (steps so far, whether the episode has ended, whether it is solved now).
OnStep = Callable[[int, bool, bool], None]

# OGBench's longest episode has 4,000 steps; an environment that goes on for so many has no end.
MAX_STEPS = 100_000


class EnvironmentRollout:
    """Runs a policy in an environment, chunk by chunk, without a new plan for `replan_every` steps (0: a whole chunk).

    The environment's observations are the policy's as they are; actions in [-1, 1] are scaled to the action space.
    `name` is what messages call the environment. Owned by one thread; whoever made the environment closes it.
    """

    def __init__(
        self,
        environment: Environment,
        policy: Policy,
        *,
        name: str,
        acting: Acting | None = None,
        replan_every: int = 0,
        on_step: OnStep | None = None,
    ) -> None:
        """Raise ConfigError where policy and environment do not fit together."""
        if not 0 <= replan_every <= policy.horizon:
            raise ConfigError(
                f"replan_every is {replan_every}, expected 0 (the whole chunk) to {policy.horizon}, "
                "the policy's horizon"
            )
        observations = _box(environment.observation_space, name, "observation")
        actions = _box(environment.action_space, name, "action")
        for kind, space, expected in (
            ("observation", observations, policy.algorithm.observation_dim),
            ("action", actions, policy.algorithm.action_dim),
        ):
            found = int(np.prod(space.shape))
            if found != expected:
                raise ConfigError(
                    f"environment {name}: an {kind} has {found} numbers, but the policy was trained with {expected}; "
                    "use the environment that its data came from"
                )
        if not actions.is_bounded("both"):
            raise ConfigError(
                f"environment {name}: its action space has no limits that [-1, 1] could mean; give it finite ones"
            )
        self._environment = environment
        self._policy = policy
        self._name = name
        self._acting = acting or policy.algorithm.default_acting
        policy.algorithm.check_acting(self._acting)
        self._execute = replan_every or policy.horizon
        self._on_step = on_step
        self._shape, self._dtype = actions.shape, actions.dtype
        # Middle and half of the range, so that the range [-1, 1] leaves an action as it is, to the last bit.
        low, high = actions.low.astype(np.float64), actions.high.astype(np.float64)
        self._middle, self._half = ((high + low) / 2).ravel(), ((high - low) / 2).ravel()

    def run_episode(self, seed: int) -> EpisodeRecord:
        """One episode; environment and policy get the same seed.

        Raises SimulationError where the environment does not say whether it was solved, or has no end.
        """
        with seeded(seed, self._environment):
            return self._run(seed)

    def _run(self, seed: int) -> EpisodeRecord:
        generator = np.random.default_rng(seed)
        observation, _ = self._environment.reset(seed=seed)
        if self._on_step is not None:
            self._on_step(0, False, False)
        steps, total_reward = 0, 0.0
        while steps < MAX_STEPS:
            for action in self._plan(observation, generator):
                observation, reward, terminated, truncated, info = self._environment.step(action)
                steps += 1
                total_reward += float(reward)
                ended = bool(terminated or truncated)
                if self._on_step is not None:
                    self._on_step(steps, ended, bool(info.get("success", False)))
                if ended:
                    return EpisodeRecord(seed, steps, total_reward, self._success(info, steps))
        raise SimulationError(
            f"environment {self._name}, seed {seed}: no end after {steps} steps; register it with max_episode_steps"
        )

    def _plan(self, observation: Any, generator: np.random.Generator) -> list[npt.NDArray[Any]]:
        """The next actions to execute, in the environment's units and shape."""
        flat = np.asarray(observation, dtype=np.float32).reshape(1, -1)
        chunk = self._policy.sample(flat, generator, self._acting)[0]
        actions = chunk[: self._execute] * self._half + self._middle
        return [action.astype(self._dtype).reshape(self._shape) for action in actions]

    def _success(self, info: dict[str, Any], steps: int) -> bool:
        if "success" not in info:
            raise SimulationError(
                f"environment {self._name}: info has no 'success' at the last step ({steps}), it has "
                f"{', '.join(sorted(map(str, info))) or 'nothing'}; let the environment say whether it was solved"
            )
        return bool(info["success"])


def make_environment(name: str, **options: Any) -> Environment:
    """An environment by its OGBench name (puzzle-3x3-play-singletask-task1-v0) or Gymnasium id (MODULE:NAME-v0).

    The options are those of the environment. Raises ConfigError where there is none of that name.
    """
    if name.startswith("rql_ros/"):
        import rql_core.sim  # noqa: F401  (registers the project's worlds)
    try:
        if is_gymnasium_id(name):
            # Its checker would print warnings about other people's environments.
            return gymnasium.make(name, disable_env_checker=True, **options)
    except (gymnasium.error.Error, ImportError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"environment {name!r} cannot be made: {reason}; expected an OGBench name, or a Gymnasium id with the "
            "module that registers it, MODULE:NAME-v0"
        ) from None
    from rql_core.ogbench.environments import make_environment as make_ogbench_environment

    # OGBench makes its action space, whose limits are whole numbers, in float64 and casts it, at every look.
    warnings.filterwarnings("ignore", message=".*Box (low|high)'s precision lowered by casting")

    return make_ogbench_environment(name, **options)


def is_gymnasium_id(name: str) -> bool:
    """Whether Gymnasium makes the environment, and not OGBench by a data set's name."""
    return ":" in name or name in gymnasium.registry


def training_evaluation_environment(
    name: str, episodes: int, workers: int = 1, **options: Any
) -> Callable[[Policy], dict[str, float]]:
    """What the trainer calls every now and then: success rate and mean steps of a policy in an environment.

    The episodes have the seeds 0 to `episodes` - 1. With several workers they run in processes, which are started at
    the first call and kept; each call hands them the policy as a checkpoint. Raises ConfigError where there are no
    episodes to run, or no such environment.
    """
    check_episodes(episodes)
    environment = make_environment(name, **options)
    if workers == 1:

        def evaluate_here(policy: Policy) -> dict[str, float]:
            rollout = EnvironmentRollout(environment, policy, name=name)
            return training_scores([rollout.run_episode(seed) for seed in range(episodes)])

        return evaluate_here
    environment.close()  # it exists, which is what had to be known before training starts
    from rql_core.evaluation.episodes import EpisodeSettings, EpisodeTask, episode_pool

    pool = episode_pool(workers)

    def evaluate_in_processes(policy: Policy) -> dict[str, float]:
        with TemporaryDirectory(prefix="rql-evaluation-") as directory:
            checkpoint = Path(directory) / "checkpoint"
            # Rewards bound the targets of training; acting does not look at them.
            save_checkpoint(checkpoint, policy, step=0, reward_range=RewardRange(-1.0, 0.0, can_end=True))
            settings = EpisodeSettings(checkpoint, policy.algorithm.default_acting, environment=name, options=options)
            tasks = [EpisodeTask(settings, seed) for seed in range(episodes)]
            records = [record for _, record in pool.run(tasks)]
        return training_scores(records)

    return evaluate_in_processes


@contextmanager
def seeded(seed: int, environment: Environment | None = None) -> Iterator[None]:
    """What is drawn inside follows from the seed, also where an environment does not use the generator of `reset`.

    OGBench draws its mazes' starts from numpy's global generator, and the actions that settle its worlds from action
    spaces that nobody seeds: a scene makes its space anew each time, a maze keeps it. Afterwards all goes on as if
    nothing had been, but for the generators of the environment's own spaces: they are seeded here and stay where the
    episode leaves them. It is for the whole process: not for use beside another thread that draws.
    """
    if environment is not None:
        _seed_spaces(environment, seed)
    generator = np.random.default_rng(seed)

    def np_random(seed: int | None = None) -> tuple[np.random.Generator, int]:
        return original(int(generator.integers(2**63)) if seed is None else seed)

    original, python_state = seeding.np_random, random.getstate()
    random.seed(seed)
    seeding.np_random = np_random
    try:
        with global_random(seed % 2**32):
            yield
    finally:
        seeding.np_random = original
        random.setstate(python_state)


def _seed_spaces(environment: Environment, seed: int) -> None:
    """Seed the action and observation space of the environment and of all that it wraps.

    A space that is drawn from keeps its generator from episode to episode. Seeds are derived, lest a space repeat what
    `reset` draws from the same seed; a space of one kind gets the same one in every layer, as layers share spaces.
    """
    action_seed, observation_seed = np.random.SeedSequence((seed, 1)).generate_state(2).tolist()
    layer: Environment | None = environment
    while layer is not None:
        for name, space_seed in (("action_space", action_seed), ("observation_space", observation_seed)):
            space = getattr(layer, name, None)
            if isinstance(space, gymnasium.Space):
                space.seed(space_seed)
        layer = layer.env if isinstance(layer, gymnasium.Wrapper) else None


def _box(space: object, name: str, kind: str) -> gymnasium.spaces.Box:
    if not isinstance(space, gymnasium.spaces.Box):
        raise ConfigError(f"environment {name}: its {kind} space is {space}, expected a Box of numbers")
    return space
