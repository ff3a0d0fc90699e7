"""A corridor as a Gymnasium environment, and a policy for it that nobody trained: what an evaluation needs, in no time.

Randomness comes from all the places that OGBench uses: the generator of `reset`, numpy's global one, and an action
space that is made anew at every look.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rql_core.algorithms import RewardRange, RQLConfig, make_algorithm
from rql_core.data import Statistics
from rql_core.training.checkpoint import save_checkpoint
from rql_core.training.policy import Policy

STEPS = 12
LOW, HIGH = (-0.5, -3.0), (1.5, 3.0)
NAME = "corridor:rql_test/Corridor-v0"
BAD_SEED = 99
REWARDS = RewardRange(-1.0, 0.0, can_end=False)


class Corridor(gymnasium.Env[NDArray[np.float64], NDArray[np.float32]]):
    """Walks on a plane; solved, for as long as one stays there, where the first coordinate is above 1."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, say_success: bool = True) -> None:
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), dtype=np.float64)
        self.actions: list[NDArray[np.float32]] = []
        self._say_success = say_success

    @property
    def action_space(self) -> gymnasium.spaces.Box:  # type: ignore[override]
        return gymnasium.spaces.Box(np.float32(LOW), np.float32(HIGH), dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        super().reset(seed=seed)
        self._seed = seed
        self._steps = 0
        self.actions.clear()
        parts = self.np_random.normal(), np.random.normal(), self.action_space.sample()[0]  # noqa: NPY002
        self._position = 0.1 * np.array(parts)
        return self._position.copy(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        if self._seed == BAD_SEED:
            raise RuntimeError("the floor is gone")
        self.actions.append(action)
        self._steps += 1
        self._position[:2] += 0.3 * action + 0.01 * np.random.normal(size=2)  # noqa: NPY002
        info = {"success": np.float64(self._position[0] > 1)} if self._say_success else {"other": 1}
        return self._position.copy(), -1.0, False, self._steps >= STEPS, info

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        picture = np.zeros((41, 61, 3), dtype=np.uint8)
        picture[:, : int(np.clip(5 + 10 * self._position[0], 1, 61))] = (200, 30, 30)
        return picture


gymnasium.register("rql_test/Corridor-v0", entry_point=Corridor)


def write_run(directory: Path, seed: int = 0, *, environment: str | None = NAME, observation_dim: int = 3) -> Path:
    """A run directory with the checkpoint of an untrained policy of 2-step chunks, and its settings."""
    save_checkpoint(
        directory / "checkpoints" / "step-00000007",
        small_policy(seed, observation_dim),
        step=7,
        reward_range=REWARDS,
        environment=environment,
        seed=seed,
    )
    (directory / "checkpoint").symlink_to(Path("checkpoints") / "step-00000007")
    (directory / "train.json").write_text('{"seed": 0}')
    return directory


def small_policy(seed: int = 0, observation_dim: int = 3) -> Policy:
    """An untrained RQL policy with 2-step chunks of 2 numbers."""
    config = RQLConfig(horizon=2, flow_steps=3, actor_hidden=(8,), critic_hidden=(8,), critics=2)
    algorithm = make_algorithm(config, observation_dim, 2, REWARDS, seed=seed)
    observations = np.random.default_rng(0).normal(size=(20, observation_dim)).astype(np.float32)
    return Policy(algorithm, Statistics.of(observations))
