"""What a single task says of every row of a file: the rewards and masks that OGBench gives it, by OGBench's own code.

OGBench judges a row by the state in it: reward i and mask i belong to the step that *leaves* observation i, and the
mask is 0 where the task was solved at observation i already. A step that arrives at the goal still has its negative
reward and a mask of 1; what ends at the goal is the value of the step after it. Its environments judge in the same way
(`success_timing="pre"`), so data and evaluation agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rql_core.errors import ConfigError, DatasetError
from rql_core.ogbench.environments import DOMAINS, make_environment, parse_name
from rql_core.ogbench.randomness import global_random

Float32 = npt.NDArray[np.float32]
Rewards = Literal["as_given", "sparse"]


class TaskLabels:
    """Labels rows with a single task's rewards and masks. May be used from several threads at a time."""

    def __init__(self, environment: str, rewards: Rewards = "as_given") -> None:
        """Make the environment once, to know the task's goal. Raises ConfigError, SimulationError."""
        if rewards not in ("as_given", "sparse"):
            raise ConfigError(f"rewards is {rewards!r}; expected 'as_given' or 'sparse'")
        parsed = parse_name(environment)
        if not parsed.single_task:
            raise ConfigError(
                f"environment {environment!r} has no task of its own, so data have no rewards in it; expected a name "
                f"such as {DOMAINS[0]}-singletask-task1-v0"
            )
        self.environment = environment
        self.rewards = rewards
        self._identifier = parsed.gymnasium_id
        made = make_environment(environment)
        with global_random(0):  # mazes draw their start from it; the goal, which is what counts here, is fixed
            made.reset(seed=0)
        self._at_task = _AtTask(made.unwrapped)
        space = made.observation_space.shape
        self.observation_dim = int(np.prod(space)) if space is not None else 0
        self.action_dim = int(np.prod(made.action_space.shape or ()))
        self._widths = _widths(parsed.family, made.unwrapped)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a file that `label` needs."""
        return tuple(self._widths)

    def check(self, where: str, name: str, shape: tuple[int, ...]) -> None:
        """Raise DatasetError that starts with `where` unless a column of this shape is the environment's."""
        width = {"observations": self.observation_dim, "actions": self.action_dim, **self._widths}[name]
        if len(shape) != 2 or shape[1] != width:
            raise DatasetError(
                f"{where}: {name} has shape {shape}, expected (rows, {width}) for {self.environment}; is the file of "
                "another environment?"
            )

    def label(self, columns: Mapping[str, npt.NDArray[Any]]) -> tuple[Float32, Float32]:
        """Columns (rows, ...) -> rewards (rows,) and masks (rows,), float32."""
        from ogbench.relabel_utils import relabel_dataset

        labelled = dict(columns)
        relabel_dataset(self._identifier, self._at_task, labelled)
        rewards: Float32 = labelled["rewards"]
        masks: Float32 = labelled["masks"]
        if self.rewards == "sparse":
            rewards = np.where(rewards == 0, np.float32(0), np.float32(-1))
        return rewards, masks


class _AtTask:
    """An environment that has been reset already: OGBench's labelling resets it, once for each file."""

    def __init__(self, unwrapped: Any) -> None:
        self.unwrapped = unwrapped

    def reset(self) -> None:
        """Leave it as it is: its single task, and so its goal, is set."""


def _widths(family: str, environment: Any) -> dict[str, int]:
    """The columns that OGBench's labelling reads, and how wide they are in this environment."""
    if family.startswith("puzzle"):
        return {"button_states": int(environment._num_buttons)}
    if family.startswith("scene"):
        return {"qpos": int(environment.model.nq), "button_states": int(environment._num_buttons)}
    return {"qpos": int(environment.model.nq)}
