"""The files of a checkpoint directory, and reading those that need no torch: what a robot reads before it acts.

``rql_core.training.checkpoint`` writes them, and reads the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import safetensors
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import rql_core
from rql_core.acting import Acting
from rql_core.data import Statistics
from rql_core.errors import CheckpointError, DatasetError
from rql_core.whole_files import write_whole

# Raised whenever a reader of the old form could misread the new one.
SCHEMA_VERSION = 1

MODEL, CONFIG, CONTRACT, STATISTICS = "model.safetensors", "config.json", "contract.yaml", "stats.safetensors"
MANIFEST, CARD = "manifest.json", "MODEL_CARD.md"
TRAINING_TENSORS, TRAINING_JSON = "training_state/tensors.safetensors", "training_state/state.json"
POLICY_FILES = (MODEL, CONFIG, STATISTICS)

# What `rql export` adds: the sampler, the sampler for any number of steps and held to a chunk of before (two ways), the
# critics; and what they must give.
SAMPLER, PREFIX, JACOBIAN, CRITICS = "policy.onnx", "policy_prefix.onnx", "policy_jacobian.onnx", "critics.onnx"
TEST_VECTORS = "policy_check.safetensors"
EXPORTED = (SAMPLER, PREFIX, JACOBIAN, CRITICS, TEST_VECTORS)
# What the graphs are made of: an export is of no use where one of these has changed.
SOURCES = (MODEL, STATISTICS, CONFIG)

# The critics' values over the training data.
VALUES = "values.json"

ModelT = TypeVar("ModelT", bound=BaseModel)
LoadedT = TypeVar("LoadedT")
AlgorithmT = TypeVar("AlgorithmT")


class ConfigFields(BaseModel, Generic[AlgorithmT]):
    """config.json: what is needed to build the algorithm again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The form of this directory.
    schema_version: int = SCHEMA_VERSION
    # The algorithm and its settings.
    algorithm: AlgorithmT
    # Numbers in an observation.
    observation_dim: int = Field(ge=1)
    # Numbers in an action.
    action_dim: int = Field(ge=1)
    # Steps in a chunk, as in the algorithm's settings.
    horizon: int = Field(ge=1)
    # The training data's rewards.
    reward_minimum: float
    reward_maximum: float
    # Whether the training data holds a terminal.
    can_end: bool
    # Whether contract.yaml is part of this; without one no robot can be driven.
    has_contract: bool
    # The environment that this is for, where no contract says it (an OGBench name).
    environment: str | None = None


class ActingSettings(BaseModel):
    """Those of an algorithm's settings that acting needs; all of them are known where there is torch."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # Which algorithm it is.
    algorithm: Literal["rql", "bc_flow", "ifql", "fql", "qc"]
    # Steps in a chunk.
    horizon: int = Field(ge=1)
    # Flow steps in training.
    flow_steps: int = Field(ge=1)
    # How acting integrates the flow.
    act_integrator: Literal["euler", "midpoint", "dopri5"] = "euler"
    # Critics; 0 of an algorithm without.
    critics: int = 0
    # Best of N, and its pessimism.
    act_samples: int = 1
    act_rho: float = 0.0

    @property
    def default_acting(self) -> Acting:
        """How the algorithm acts unless it is told otherwise."""
        return Acting(self.act_samples, self.act_rho)

    @property
    def is_flow(self) -> bool:
        """Whether chunks are made in flow steps; of the others in one."""
        return self.algorithm != "fql"


ConfigT = TypeVar("ConfigT", bound=ConfigFields[Any])


class PolicyConfig(ConfigFields[ActingSettings]):
    """config.json as a robot reads it."""


class Manifest(BaseModel):
    """manifest.json: which files belong here, and where they come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The form of this directory.
    schema_version: int = SCHEMA_VERSION
    # Updates made.
    step: int = Field(ge=0)
    # The training run's seed.
    seed: int | None = None
    # When it was written (UTC, ISO 8601).
    created: str
    # Versions of python, torch, numpy and rql that wrote it.
    versions: dict[str, str]
    # The evaluation at this step, if there was one.
    metrics: dict[str, float | None]
    # sha256 of every other file, by its path in the directory.
    files: dict[str, str]


class ValueDistribution(BaseModel):
    """values.json: the critics' values of the policy's own chunks over the training data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # How many observations of the data it is made of, and the seed of the policy's noise.
    observations: int = Field(ge=1)
    seed: int
    # How many critics there are.
    critics: int = Field(ge=1)
    # How the policy acted: samples and rho.
    acting: dict[str, float]
    # Quantiles, by their level ("0.001"), of the mean and of the standard deviation over the critics.
    mean: dict[str, float]
    std: dict[str, float]

    @model_validator(mode="after")
    def _has_its_ends(self) -> ValueDistribution:
        for name, level in (("mean", "0.001"), ("mean", "0.999"), ("std", "0.999")):
            value = getattr(self, name).get(level)
            if value is None or not math.isfinite(value):
                raise ValueError(f"{name} has {value} as its quantile {level}, expected a finite number")
        return self


def verify_files(directory: Path) -> Manifest:
    """Compare every file of a checkpoint with its hash in manifest.json, and return that."""
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: is no directory; expected a checkpoint, such as RUN/checkpoint")
    inside = directory / "checkpoint"
    if not (directory / MANIFEST).exists() and (inside / MANIFEST).exists():
        raise CheckpointError(f"{directory}: is no checkpoint, but has one: give {inside}")
    manifest = read_model(directory / MANIFEST, Manifest)
    for name in POLICY_FILES:
        if name not in manifest.files:
            raise CheckpointError(f"{directory / MANIFEST}: files lacks '{name}', which every checkpoint has")
    for name, expected in manifest.files.items():
        path = directory / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CheckpointError(f"{directory / MANIFEST}: files names '{name}', which lies outside the checkpoint")
        found = read(path, _sha256_of)
        if found != expected:
            raise CheckpointError(
                f"{path}: sha256 is {found[:12]}..., but manifest.json says {expected[:12]}...; "
                "the file was damaged or changed: copy the checkpoint again"
            )
    return manifest


def list_files(directory: Path, manifest: Manifest, names: Collection[str], hashes: Mapping[str, str]) -> Manifest:
    """Write and return a manifest in which, of some names, exactly those with a hash are listed.

    Files are added by listing none of them, writing them, and listing them: a checkpoint is whole at every moment.
    """
    files = {name: digest for name, digest in manifest.files.items() if name not in names} | dict(hashes)
    if files == manifest.files:
        return manifest
    changed = manifest.model_copy(update={"files": files})
    write_whole(directory / MANIFEST, changed.model_dump_json(indent=2))
    return changed


def read_config(directory: Path, kind: type[ConfigT], manifest: Manifest) -> ConfigT:
    """Read config.json; raises CheckpointError where its fields, or it and the other files, contradict each other."""
    config = read_model(directory / CONFIG, kind)
    algorithm = config.algorithm
    if config.horizon != algorithm.horizon:
        raise CheckpointError(
            f"{directory / CONFIG}: horizon is {config.horizon}, but algorithm.horizon is {algorithm.horizon}"
        )
    if config.has_contract != (CONTRACT in manifest.files):
        state = "missing" if config.has_contract else "there"
        raise CheckpointError(
            f"{directory / CONTRACT}: is {state}, but has_contract in config.json is {config.has_contract}"
        )
    return config


def read_contract_text(directory: Path) -> str:
    """Return the text of contract.yaml."""
    return read(directory / CONTRACT, lambda path: path.read_bytes().decode("utf-8"))


def read_model(path: Path, kind: type[ModelT]) -> ModelT:
    """Read a JSON file; raises CheckpointError that names the first field that is wrong."""
    document = read(path, lambda path: json.loads(path.read_text(encoding="utf-8")))
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: schema_version is {version}, but rql {rql_core.__version__} reads up to {SCHEMA_VERSION}: upgrade"
        )
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        raise CheckpointError(f"{path}: {field} is {first['input']!r:.80}: {first['msg']}") from error


def read_statistics(path: Path, observation_dim: int) -> Statistics:
    """Read the observations' statistics, which are of so many features."""
    try:
        statistics = Statistics.from_tensors(read(path, lambda path: safetensors.numpy.load(path.read_bytes())))
    except DatasetError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if statistics.observation_dim != observation_dim:
        raise CheckpointError(
            f"{path}: has {statistics.observation_dim} features, "
            f"but observation_dim in config.json is {observation_dim}"
        )
    return statistics


def read(path: Path, reader: Callable[[Path], LoadedT]) -> LoadedT:
    """Return what a reader makes of a file; raises CheckpointError where it is missing or not what it should be."""
    try:
        return reader(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing; copy the checkpoint again, with all of its files") from error
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as {path.suffix[1:]} ({error}); copy the checkpoint again"
        ) from error


def sha256(content: bytes) -> str:
    """Return the hash of what a file holds, as the manifest has it."""
    return hashlib.sha256(content).hexdigest()


def _sha256_of(path: Path) -> str:
    # In blocks: a training state may be hundreds of megabytes, which a robot need not hold.
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
