"""One run of training: its policy, its random numbers, its files; whether it is trained alone or in a group."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rql_core.algorithms import Algorithm, RewardRange, make_algorithm
from rql_core.checkpoint_files import TRAINING_TENSORS
from rql_core.data import Statistics
from rql_core.data.chunks import ChunkSampler
from rql_core.data.trajectories import Trajectories
from rql_core.errors import CheckpointError, ConfigError, RqlError, TrainingError
from rql_core.training.bad_batch import BadBatch
from rql_core.training.checkpoint import Checkpoint, Snapshot, TrainingState, load_checkpoint, load_training_state
from rql_core.training.config import CHANGEABLE_ON_RESUME, TrainConfig
from rql_core.training.data_source import DataSource
from rql_core.training.finish import finish_checkpoint, is_finished
from rql_core.training.metrics import SECONDS, MetricsFile, NotFinite, PendingMetrics, TensorBoard
from rql_core.training.policy import Policy
from rql_core.training.run_directory import RunDirectory
from rql_core.training.updates import Generators
from rql_core.training.value_distribution import sample_observations

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """What runs on the same data share."""

    statistics: Statistics
    reward_range: RewardRange
    fingerprint: str
    observation_dim: int
    action_dim: int
    observations: NDArray[np.float32]
    """(rows, observation_dim): a sample of them (where there are many files, of the first), in physical units."""

    @classmethod
    def of(cls, source: DataSource, first_shard: Trajectories, config: TrainConfig) -> Data:
        """Look through a source."""
        fingerprint = source.fingerprint()
        statistics = source.statistics()
        return cls(
            statistics if config.normalises else statistics.without_scaling(),
            source.reward_range(),
            fingerprint,
            first_shard.observation_dim,
            first_shard.action_dim,
            sample_observations(first_shard.observations),
        )


class Run:
    """One seed's run.  Its algorithm learns only where it is trained alone; in a group it is what checkpoints copy."""

    def __init__(self, config: TrainConfig, directory: Path, data: Data, contract_text: str | None) -> None:
        self.config = config
        self.directory = RunDirectory(directory)
        self.data = data
        self.contract_text = contract_text
        self.device = config.resolve_device()
        self.algorithm: Algorithm[Any, Any] = make_algorithm(
            config.algorithm,
            data.observation_dim,
            data.action_dim,
            data.reward_range,
            seed=config.seed,
            device=self.device,
        )
        self.policy = Policy(self.algorithm, data.statistics)
        self.generators = Generators(*(torch.Generator(self.device).manual_seed(seed) for seed in _seeds(config.seed)))
        self.step = 0
        self.pending = PendingMetrics()
        self.latest: dict[str, float] = {}
        self.seconds = 0.0
        """Time that the updates took which this run goes on from."""
        self.failure: RqlError | None = None
        """Why this run has stopped, where others of its group go on."""
        self._metrics_file = MetricsFile(self.directory.metrics)
        self._board: TensorBoard | None = None
        self.mark()

    def start(self) -> None:
        """Begin a new run."""
        self.directory.start(self.config)

    def resume(self, step: int) -> None:
        """Take over a checkpoint's state; raises where it was made from other settings or data."""
        checkpoint = load_checkpoint(self.directory.resume(step))
        state = load_training_state(checkpoint)
        self._check_same_run(checkpoint, state)
        try:
            self.algorithm.load_training_state(
                {
                    name.removeprefix("algorithm/"): tensor
                    for name, tensor in state.tensors.items()
                    if name.startswith("algorithm/")
                }
            )
            for name, generator in self.generators.named().items():
                generator.set_state(state.tensors[f"generator/{name}"])
            self.step = checkpoint.manifest.step
            self.seconds = float(state.values.get("seconds", 0.0))
            pending = state.tensors["pending_metrics"].to(self.device)
            self.pending.load(self.step, tuple(state.values["metric_names"]), pending)
        except (ConfigError, KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(
                f"{checkpoint.directory / TRAINING_TENSORS}: does not fit this run on {self.device} ({error})"
            ) from error
        self.mark()
        self._metrics_file.keep_up_to(self.step)
        self.directory.write_config(self.config)
        self.directory.prune(self.config)

    def mark(self) -> None:
        """Remember from where on batches can be drawn again, should one have to be named."""
        self._marked = (self.step, self.generators.batches.get_state())

    def open(self) -> None:
        """Open what rows of metrics go to."""
        self._board = TensorBoard(self.directory.tensorboard, self.config.tensorboard, self.step + 1)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Write a row of metrics."""
        assert self._board is not None
        self.latest |= metrics
        self._metrics_file.append(self.step, metrics)
        self._board.append(self.step, metrics)
        _logger.info("update %d of %d: %s", self.step, self.config.updates, metrics)

    def close(self) -> None:
        """Flush what is open."""
        if self._board is not None:
            self._board.close()

    def snapshot(self, scores: Mapping[str, float], seconds: float) -> Snapshot:
        """Copy everything that acting and training go on from."""
        tensors = {f"algorithm/{name}": tensor for name, tensor in self.algorithm.training_state().items()}
        tensors |= {f"generator/{name}": each.get_state() for name, each in self.generators.named().items()}
        tensors["pending_metrics"] = self.pending.state()
        values = {
            "config": self.config.model_dump(mode="json"),
            "metric_names": list(self.pending.names),
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "data": self.data.fingerprint,
            SECONDS: seconds,
        }
        return Snapshot.of(
            self.policy,
            self.data.reward_range,
            self.contract_text,
            self.config.environment,
            step=self.step,
            metrics=dict(scores),
            seed=self.config.seed,
            training_state=TrainingState(tensors, values),
        )

    def finish_kept(self) -> None:
        """Add to the other checkpoints that are kept, such as the best, what the last one has."""
        for step in self.directory.steps():
            place = self.directory.place(step)
            if not is_finished(place):
                finish_checkpoint(place, self.data.observations)

    def name_batch(self, error: NotFinite, sampler: ChunkSampler, shard: int) -> TrainingError:
        """Write down the batch at which a metric was not finite, and return the error that names it."""
        step, state = self._marked
        generator = torch.Generator(self.device)
        generator.set_state(state)
        for _ in range(error.update - step - 1):
            sampler.locate(self.config.batch_size, generator)
        batch = BadBatch.find(sampler, self.config.batch_size, generator, error, shard)
        path = self.directory.path / "bad_batch.json"
        batch.write(path)
        kept = self.directory.newest.resolve() if self.directory.newest.exists() else "none was made yet"
        return TrainingError(
            f"{error}; {batch.summary()}, all of it in {path}; the last good checkpoint is kept: {kept}"
        )

    def _check_same_run(self, checkpoint: Checkpoint, state: TrainingState) -> None:
        before, now = state.values.get("config", {}), self.config.model_dump(mode="json")
        for name in now.keys() - CHANGEABLE_ON_RESUME:
            # A setting that is newer than the checkpoint had its default.
            then = before.get(name, TrainConfig.model_fields[name].default)
            if then != now[name]:
                raise ConfigError(
                    f"{name} is {now[name]}, but {checkpoint.directory} was trained with {then}: "
                    "resume with the same settings, or start a new run"
                )
        if state.values.get("device") != self.device.type:
            raise ConfigError(
                f"this run would go on on {self.device.type}, but {checkpoint.directory} was trained on "
                f"{state.values.get('device')}, whose random numbers differ: resume there, or start a new run"
            )
        if checkpoint.manifest.step > self.config.updates:
            raise ConfigError(
                f"updates is {self.config.updates}, but {checkpoint.directory} has made {checkpoint.manifest.step}"
            )
        if checkpoint.contract_text != self.contract_text:
            raise ConfigError(f"the contract differs from {checkpoint.directory / 'contract.yaml'}: start a new run")
        stored, given = checkpoint.policy.statistics.to_tensors(), self.data.statistics.to_tensors()
        different = [name for name, array in given.items() if not np.array_equal(array, stored[name])]
        if different or state.values.get("data") != self.data.fingerprint:
            what = f"data's {different[0]} differs" if different else "data's actions, rewards or masks differ"
            raise ConfigError(
                f"the {what} from what {checkpoint.directory} was trained on: "
                "resume with the same data, or start a new run"
            )


def check_finite(snapshot: Snapshot) -> None:
    """Raise TrainingError where a checkpoint would hold a number that is not finite."""
    assert snapshot.training_state is not None
    for name, tensor in snapshot.training_state.tensors.items():
        if name.startswith("algorithm/") and not torch.isfinite(tensor).all():
            raise TrainingError(
                f"update {snapshot.step}: {name.removeprefix('algorithm/')} holds a number that is not finite; "
                "training stopped and the last checkpoint is kept: lower the learning rate or clean the data"
            )


def resume_together(runs: list[Run]) -> None:
    """Resume runs that are to be trained as one, all from the same step: that of their newest published checkpoint.

    A kill may have come when all had written that, and not all had published it.  Raises ConfigError where one has no
    checkpoint of that step.
    """
    published = [run for run in runs if run.directory.has_checkpoint]
    step = max(run.directory.newest_step() for run in published or runs)
    for run in runs:
        if step in run.directory.steps():
            continue
        own = run.directory.newest_step()
        raise ConfigError(
            f"{run.directory.path} has made {own} updates, and others have made {step}: runs that train as one go on "
            "from the same update; resume those behind with --seed first, or leave one out"
        )
    for run in runs:
        run.resume(step)


def _seeds(seed: int) -> list[int]:
    """Return two independent seeds that one seed determines."""
    words = np.random.SeedSequence(seed).generate_state(2, dtype=np.uint64)
    # torch takes seeds below 2^63 everywhere.
    return [int(word >> np.uint64(1)) for word in words]
