"""Settings of runs that take a second, for the tests of this folder."""

from __future__ import annotations

from typing import Any

import point_mass

from rql_core.algorithms import RQLConfig
from rql_core.training import TrainConfig

DATA = point_mass.play(episodes=6, steps=20, seed=0)
CONTRACT = "name: point\nrate: 10\n"


def small_config(**settings: Any) -> TrainConfig:
    """Return settings of a run over 20 updates with a row of metrics every 4 and a checkpoint every 5."""
    algorithm = RQLConfig(
        horizon=2,
        flow_steps=3,
        actor_hidden=(8,),
        critic_hidden=(8,),
        critics=2,
        alpha=0.3,
        gamma=0.95,
        learning_rate=3e-3,
    )
    values: dict[str, Any] = {
        "algorithm": algorithm,
        "updates": 20,
        "batch_size": 16,
        "device": "cpu",
        "log_every": 4,
        "checkpoint_every": 5,
        "tensorboard": False,
    }
    return TrainConfig(**(values | settings))
