"""The checkpoint directory: everything that acting needs and everything that training goes on from, checked on the way
in.

    model.safetensors     the averaged actor and the critics          config.json    algorithm, sizes, schema version
    stats.safetensors     observation statistics                      contract.yaml  what the numbers mean on the robot
    training_state/       tensors.safetensors and state.json          MODEL_CARD.md  what this is, for a person
    manifest.json         sha256 of every other file, versions, step

It is written beside its place and renamed, so a directory under its final name is whole.  Nothing in it can run code:
no pickle.  The hashes find damage, not malice; who can write a file here can also write its hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

import rql_core
from rql_core.algorithms import AnyAlgorithmConfig, RewardRange, make_algorithm
from rql_core.checkpoint_files import (
    CARD,
    CONFIG,
    CONTRACT,
    MANIFEST,
    MODEL,
    STATISTICS,
    TRAINING_JSON,
    TRAINING_TENSORS,
    ConfigFields,
    Manifest,
    read,
    read_config,
    read_contract_text,
    read_statistics,
    verify_files,
)
from rql_core.data import Statistics
from rql_core.errors import CheckpointError, ConfigError
from rql_core.training.policy import Policy


class CheckpointConfig(ConfigFields[AnyAlgorithmConfig]):
    """config.json with all of its algorithm's settings."""

    @property
    def reward_range(self) -> RewardRange:
        """The training data's rewards."""
        return RewardRange(self.reward_minimum, self.reward_maximum, self.can_end)


@dataclass(frozen=True)
class TrainingState:
    """What training goes on from: tensors by name, and plain values."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found whole."""

    directory: Path
    config: CheckpointConfig
    manifest: Manifest
    policy: Policy
    contract_text: str | None


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint is written from, later and elsewhere, while its policy learns on."""

    config: CheckpointConfig
    policy_state: dict[str, Tensor]
    statistics: Statistics
    step: int
    contract_text: str | None = None
    metrics: Mapping[str, float] | None = None
    seed: int | None = None
    training_state: TrainingState | None = None

    @classmethod
    def of(
        cls, policy: Policy, reward_range: RewardRange, contract_text: str | None, environment: str | None, **rest: Any
    ) -> Snapshot:
        """Copy a policy; ``rest`` are the other fields."""
        algorithm = policy.algorithm
        config = CheckpointConfig(
            algorithm=algorithm.config,
            observation_dim=algorithm.observation_dim,
            action_dim=algorithm.action_dim,
            horizon=policy.horizon,
            reward_minimum=reward_range.minimum,
            reward_maximum=reward_range.maximum,
            can_end=reward_range.can_end,
            has_contract=contract_text is not None,
            environment=environment,
        )
        return cls(config, algorithm.policy_state(), policy.statistics, contract_text=contract_text, **rest)


def save_checkpoint(
    directory: Path,
    policy: Policy,
    *,
    step: int,
    reward_range: RewardRange,
    contract_text: str | None = None,
    metrics: Mapping[str, float] | None = None,
    environment: str | None = None,
    seed: int | None = None,
    training_state: TrainingState | None = None,
) -> None:
    """Write a checkpoint directory, whole or not at all.  Raises CheckpointError where the place is taken."""
    rest = {"step": step, "metrics": metrics, "seed": seed, "training_state": training_state}
    write_checkpoint(directory, Snapshot.of(policy, reward_range, contract_text, environment, **rest))


def write_checkpoint(directory: Path, snapshot: Snapshot) -> None:
    """Write a snapshot as a checkpoint directory, whole or not at all.

    Raises CheckpointError where the place is taken.
    """
    if directory.exists():
        raise CheckpointError(f"{directory}: exists already; choose another place or remove it")
    config, metrics = snapshot.config, snapshot.metrics or {}
    numbers = {name: float(value) if np.isfinite(value) else None for name, value in metrics.items()}
    files: dict[str, bytes] = {
        MODEL: safetensors.torch.save(snapshot.policy_state),
        STATISTICS: safetensors.numpy.save(snapshot.statistics.to_tensors()),
        CONFIG: config.model_dump_json(indent=2).encode(),
        CARD: model_card(config, snapshot.statistics, snapshot.step, numbers).encode(),
    }
    if snapshot.contract_text is not None:
        files[CONTRACT] = snapshot.contract_text.encode()
    if snapshot.training_state is not None:
        files[TRAINING_TENSORS] = safetensors.torch.save(snapshot.training_state.tensors)
        files[TRAINING_JSON] = json.dumps(snapshot.training_state.values, indent=2).encode()
    manifest = Manifest(
        step=snapshot.step,
        seed=snapshot.seed,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "rql": rql_core.__version__,
        },
        metrics=numbers,
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    )
    files[MANIFEST] = manifest.model_dump_json(indent=2).encode()
    partial = directory.with_name(f".{directory.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    for name, content in files.items():
        _write(partial / name, content)
    os.rename(partial, directory)
    _sync_directory(directory.parent)


def load_checkpoint(directory: Path, *, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a checkpoint for acting; verifies every file of it and that its parts fit together.

    Raises CheckpointError, naming the file and the field, where anything is missing, damaged or does not fit.
    """
    manifest = verify_files(directory)
    config = read_config(directory, CheckpointConfig, manifest)
    statistics = read_statistics(directory / STATISTICS, config.observation_dim)
    algorithm = make_algorithm(
        config.algorithm, config.observation_dim, config.action_dim, config.reward_range, device=device
    )
    tensors = _tensors(directory / MODEL)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{directory / MODEL}: the tensor '{name}' holds a number that is not finite")
    try:
        algorithm.load_policy_state(tensors)
    except ConfigError as error:
        raise CheckpointError(f"{directory / MODEL}: {error}") from error
    text = read_contract_text(directory) if config.has_contract else None
    return Checkpoint(directory, config, manifest, Policy(algorithm, statistics), text)


def load_training_state(checkpoint: Checkpoint) -> TrainingState:
    """Read what training goes on from; its tensors are loaded into the checkpoint's algorithm by whoever goes on."""
    for name in (TRAINING_TENSORS, TRAINING_JSON):
        if name not in checkpoint.manifest.files:
            raise CheckpointError(f"{checkpoint.directory / name}: is missing; this checkpoint can act, not train on")
    values = read(checkpoint.directory / TRAINING_JSON, lambda path: json.loads(path.read_text(encoding="utf-8")))
    return TrainingState(_tensors(checkpoint.directory / TRAINING_TENSORS), values)


def model_card(config: CheckpointConfig, statistics: Statistics, step: int, metrics: Mapping[str, float | None]) -> str:
    """Return the text of MODEL_CARD.md."""
    contract = (
        "contract.yaml says which topics these are." if config.has_contract else "none: the numbers have no names."
    ) + (f" It is for the environment {config.environment}." if config.environment else "")
    rows = "\n".join(
        f"| {name} | {'not finite' if value is None else f'{value:.6g}'} |" for name, value in metrics.items()
    )
    settings = json.dumps(config.algorithm.model_dump(), sort_keys=True)
    return f"""# Policy trained with {config.algorithm.algorithm} ({config.algorithm.form})

- **What it is:** a flow policy that maps {config.observation_dim} observed numbers to a chunk of {config.horizon}
  actions of {config.action_dim} numbers, trained offline from logs for {step} updates.
- **Data:** {int(statistics.count)} observations; rewards from {config.reward_minimum:g} to {config.reward_maximum:g};
  {"with" if config.can_end else "without"} terminals.
- **Contract:** {contract}
- **Settings:** `{settings}`

## Evaluation at this step
{"| metric | value |" + chr(10) + "|---|---|" + chr(10) + rows if rows else "None was made."}

## Intended use
The robot, the topics and the range of observations that it was trained on, behind a safety filter and with a person
near. It is not a certified safety function.
"""


def _tensors(path: Path) -> dict[str, Tensor]:
    return read(path, lambda path: safetensors.torch.load(path.read_bytes()))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
