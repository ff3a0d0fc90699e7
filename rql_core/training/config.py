"""The settings of a training run."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from rql_core.algorithms import AnyAlgorithmConfig
from rql_core.errors import ConfigError


class TrainConfig(BaseModel):
    """What to train, for how long, and what to keep of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The algorithm and its settings.
    algorithm: AnyAlgorithmConfig
    # The environment that the data comes from and the policy is for, where no contract says it: an OGBench name such as
    # puzzle-3x3-play-singletask-task1-v0. `{task}` in it stands for the task's number.
    environment: str | None = None
    # The name of the data, where it is not the environment's own without its task, such as puzzle-4x4-play-100m-v0.
    dataset: str | None = None
    # `sparse`: every reward other than 0 becomes -1.
    rewards: Literal["as_given", "sparse"] = "as_given"
    # Divide observations by their standard deviation, after taking off the mean; null is true in the corrected form and
    # false in `paper`, whose published inputs are raw.
    normalise_observations: bool | None = None
    # Updates before the next file of a data set in many files takes its turn.
    shard_updates: int = Field(default=1_000, ge=1)
    # Updates to make in all.
    updates: int = Field(default=1_000_000, ge=1)
    # Chunks in a batch.
    batch_size: int = Field(default=256, ge=1)
    # Determines the first weights, every batch and every draw.
    seed: int = Field(default=0, ge=0, lt=2**63)
    # Where to train; `auto` takes a GPU if there is one.
    device: str = "auto"
    # How matrix products are computed: `tf32` on a GPU that has it; `bf16` on a GPU, or on a CPU with AMX or AVX-512
    # bf16. Both keep weights, sums and losses in float32.
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    # Let torch.compile make one program of an update's losses; it takes a minute, and a C++ compiler or a GPU's Triton.
    compile: bool = False
    # Capture whole updates on a GPU, sampling included, and launch several at a time.
    cuda_graphs: bool = False
    # Updates between rows of metrics.
    log_every: int = Field(default=1_000, ge=1)
    # Updates between checkpoints.
    checkpoint_every: int = Field(default=10_000, ge=1)
    # Updates between evaluations; each is followed by a checkpoint.  0 is never.
    evaluate_every: int = Field(default=0, ge=0)
    # Newest checkpoints to keep.
    keep_last: int = Field(default=2, ge=1)
    # Best evaluated checkpoints to keep besides.
    keep_best: int = Field(default=1, ge=0)
    # The evaluation's number that says what is best.
    best_metric: str = "success_rate"
    # Whether more of it is better.
    best_is: Literal["highest", "lowest"] = "highest"
    # Also write metrics for TensorBoard, where it is installed.
    tensorboard: bool = True

    @property
    def normalises(self) -> bool:
        """Whether observations are normalised."""
        by_form = self.algorithm.form == "corrected"
        return by_form if self.normalise_observations is None else self.normalise_observations

    def resolve_device(self) -> torch.device:
        """Return the device to train on; raises ConfigError where it is not there."""
        cuda = torch.cuda.is_available()
        try:
            device = torch.device(("cuda" if cuda else "cpu") if self.device == "auto" else self.device)
        except RuntimeError as error:
            raise ConfigError(f"device is '{self.device}': expected 'auto', 'cpu' or 'cuda'") from error
        if device.type == "cuda" and not cuda:
            raise ConfigError(f"device is '{self.device}', but torch sees no GPU: choose 'cpu' or 'auto'")
        return device


# What may change between a run and its continuation: how long, where, and what is kept, but not what is computed.
CHANGEABLE_ON_RESUME = frozenset(
    {
        "updates",
        "device",
        "compile",
        "cuda_graphs",
        "log_every",
        "checkpoint_every",
        "evaluate_every",
        "keep_last",
        "keep_best",
        "best_metric",
        "best_is",
        "tensorboard",
    }
)
