"""The environment that a converted dataset names: its spaces and nothing else, for libraries that ask Minari for one.

Minari's `recover_environment`, and d3rlpy's loader, which calls it, want an environment for every dataset. A robot that
was recorded is none: this one has the dataset's spaces and says so when it is to be stepped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from gymnasium import Env
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box

from rql_core.contract import Contract
from rql_core.errors import SimulationError

# d3rlpy wants a limit; past what any recording has, it says that the contract sets none.
_NO_LIMIT = 10**9


class RecordedEnvironment(Env[Any, Any]):
    """Spaces of a dataset: float32 observations, and actions in physical units between the contract's limits."""

    def __init__(self, name: str, observation_dim: int, lower: Sequence[float], upper: Sequence[float]) -> None:
        self._name = name
        self.observation_space, self.action_space = spaces(observation_dim, lower, upper)
        self.render_mode = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> NoReturn:
        """Raise SimulationError: there is nothing to reset."""
        raise self._no_world("reset")

    def step(self, action: npt.NDArray[np.float64]) -> NoReturn:
        """Raise SimulationError: there is nothing to step."""
        raise self._no_world("stepped")

    def _no_world(self, what: str) -> SimulationError:
        return SimulationError(
            f"{self._name}: a robot was recorded, which cannot be {what} from here; evaluate with rql evaluate "
            "--world, or with an environment of your own"
        )


def spaces(observation_dim: int, lower: Sequence[float], upper: Sequence[float]) -> tuple[Box, Box]:
    """Observation and action space of a dataset."""
    observation = Box(-np.inf, np.inf, (observation_dim,), np.float32)
    return observation, Box(np.array(lower, dtype=np.float64), np.array(upper, dtype=np.float64), dtype=np.float64)


def environment_spec(contract: Contract) -> EnvSpec:
    """What a dataset's metadata says, so that Minari can make the environment of it."""
    features = contract.action.features
    return EnvSpec(
        id=f"rql/{contract.name}-v0",
        entry_point=f"{RecordedEnvironment.__module__}:{RecordedEnvironment.__name__}",
        disable_env_checker=True,
        max_episode_steps=contract.time_limit_steps or _NO_LIMIT,
        kwargs={
            "name": contract.name,
            "observation_dim": contract.observation_dim,
            "lower": [feature.lower for feature in features],
            "upper": [feature.upper for feature in features],
        },
    )
