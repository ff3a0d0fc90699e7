"""Train from episodes to a checkpoint directory; needs no simulator, no dataset library and nothing of ROS."""

from __future__ import annotations

from rql_core.training.checkpoint import Checkpoint, load_checkpoint
from rql_core.training.config import TrainConfig
from rql_core.training.loop import TrainResult, train, train_seeds
from rql_core.training.policy import Policy

__all__ = ["Checkpoint", "Policy", "TrainConfig", "TrainResult", "load_checkpoint", "train", "train_seeds"]
