"""The training loop: sample, update, log, evaluate, keep.

All randomness comes from two generators that the loop owns, so the evaluation cannot disturb it, and a run that stops
and resumes makes, on a CPU, the very tensors that an uninterrupted one makes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rql_core.algorithms import CORRECTIONS, Algorithm, make_algorithm
from rql_core.data.chunks import ChunkSampler
from rql_core.data.trajectories import Trajectories
from rql_core.errors import CheckpointError, ConfigError, TrainingError
from rql_core.progress import progress_bar
from rql_core.training.bad_batch import BadBatch
from rql_core.training.checkpoint import (
    TRAINING_TENSORS,
    Checkpoint,
    TrainingState,
    load_checkpoint,
    load_training_state,
    save_checkpoint,
)
from rql_core.training.config import CHANGEABLE_ON_RESUME, TrainConfig
from rql_core.training.data_source import DataSource, InMemory
from rql_core.training.metrics import (
    PARTIAL,
    SECONDS,
    MetricsFile,
    NotFinite,
    PendingMetrics,
    Stopwatch,
    TensorBoard,
)
from rql_core.training.policy import Policy
from rql_core.training.run_directory import RunDirectory

_logger = logging.getLogger(__name__)

Evaluation = Callable[[Policy], dict[str, float]]


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    step: int
    checkpoint: Path
    """The newest checkpoint's directory."""
    metrics: dict[str, float]
    """The last row of metrics, and the last evaluation under ``evaluation/``."""


def train(
    data: Trajectories | DataSource,
    config: TrainConfig,
    run_directory: Path | str,
    contract_text: str | None = None,
    evaluate: Evaluation | None = None,
    resume: bool = False,
    *,
    progress: bool = True,
) -> TrainResult:
    """Train an algorithm on episodes, in a run directory, from the start or from its newest checkpoint.

    ``evaluate`` is given the policy every ``evaluate_every`` updates and returns numbers by name.  Raises ConfigError,
    DatasetError or CheckpointError before the first update, and TrainingError where a loss is not finite: it names the
    batch, and the last checkpoint before it is kept.
    """
    source = InMemory(data) if isinstance(data, Trajectories) else data
    run = _Run(source, config, RunDirectory(Path(run_directory)), contract_text)
    if resume:
        run.resume()
    else:
        run.start()
    return run.to_the_end(evaluate, progress)


class _Run:
    """One run: what is trained, on what, and where it goes."""

    def __init__(
        self, source: DataSource, config: TrainConfig, directory: RunDirectory, contract_text: str | None
    ) -> None:
        self.config = config
        self.directory = directory
        self.contract_text = contract_text
        self.device = config.resolve_device()
        self.source = source
        self.fingerprint = source.fingerprint()
        statistics = source.statistics()
        self.statistics = statistics if config.normalises else statistics.without_scaling()
        self.reward_range = source.reward_range()
        self.shard = -1
        shard = source.load(0)
        self.algorithm: Algorithm[Any, Any] = make_algorithm(
            config.algorithm,
            shard.observation_dim,
            shard.action_dim,
            self.reward_range,
            seed=config.seed,
            device=self.device,
        )
        # Fails now where no episode is long enough for a chunk.
        self._take_shard(0, shard)
        self.policy = Policy(self.algorithm, self.statistics)
        # Two generators, so that an algorithm that draws more or less sees the same batches.
        self.generators = {
            name: torch.Generator(self.device).manual_seed(seed)
            for name, seed in zip(("batches", "draws"), _seeds(config.seed), strict=True)
        }
        self.step = 0
        self._mark()
        self.pending = PendingMetrics()
        self.stopwatch = Stopwatch()
        self.latest: dict[str, float] = {}
        self.metrics_file = MetricsFile(directory.metrics)

    def start(self) -> None:
        self.directory.start(self.config)

    def resume(self) -> None:
        """Take over the newest checkpoint's state; raises where it was made from other settings or data."""
        checkpoint = load_checkpoint(self.directory.resume())
        state = load_training_state(checkpoint)
        self._check_same_run(checkpoint, state)
        try:
            algorithm_tensors = {
                name.removeprefix("algorithm/"): tensor
                for name, tensor in state.tensors.items()
                if name.startswith("algorithm/")
            }
            self.algorithm.load_training_state(algorithm_tensors)
            for name, generator in self.generators.items():
                generator.set_state(state.tensors[f"generator/{name}"])
            self.step = checkpoint.manifest.step
            self.stopwatch = Stopwatch(float(state.values.get("seconds", 0.0)))
            self.pending.load(self.step, tuple(state.values["metric_names"]), state.tensors["pending_metrics"])
        except (ConfigError, KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(
                f"{checkpoint.directory / TRAINING_TENSORS}: does not fit this run on {self.device} ({error})"
            ) from error
        self._mark()
        self.metrics_file.keep_up_to(self.step)
        self.directory.write_config(self.config)
        self.directory.prune(self.config)

    def to_the_end(self, evaluate: Evaluation | None, progress: bool) -> TrainResult:
        config = self.config
        board = TensorBoard(self.directory.tensorboard, config.tensorboard, self.step + 1)
        bar = progress_bar(
            total=config.updates, initial=self.step, unit="update", desc=self.algorithm.name, disable=not progress
        )
        try:
            while self.step < config.updates:
                with self.stopwatch:
                    self._update()
                    last, whole = self.step == config.updates, self.step % config.log_every == 0
                    # Reading them waits for the device: that is time of the updates.
                    means = self.pending.means() if whole or last else {}
                bar.update()
                if means:
                    # A row over fewer updates: a run that goes on from here drops it and counts these into the next.
                    partial = {} if whole else {PARTIAL: 1.0}
                    self._log(board, means | {SECONDS: round(self.stopwatch.seconds, 3)} | partial)
                if whole:
                    self.pending.clear()
                    self._mark()
                    bar.set_postfix({name: f"{value:.3g}" for name, value in self.latest.items() if "loss" in name})
                scores: dict[str, float] = {}
                evaluated = evaluate is not None and config.evaluate_every > 0
                evaluated = evaluated and (self.step % config.evaluate_every == 0 or last)
                if evaluated and evaluate is not None:
                    self.pending.check()
                    scores = evaluate(self.policy)
                    self._log(board, {f"evaluation/{name}": float(value) for name, value in scores.items()})
                if evaluated or last or self.step % config.checkpoint_every == 0:
                    self._checkpoint(scores)
        except NotFinite as error:
            raise TrainingError(self._name_batch(error)) from None
        finally:
            bar.close()
            board.close()
        return TrainResult(self.step, self.directory.newest.resolve(), dict(self.latest))

    def _update(self) -> None:
        wanted = self.step // self.config.shard_updates % len(self.source)
        if wanted != self.shard:
            self.pending.check()
            self._take_shard(wanted, self.source.load(wanted))
            self._mark()
        batch = self.sampler.sample(self.config.batch_size, self.generators["batches"])
        draws = self.algorithm.sample_draws(self.config.batch_size, self.generators["draws"])
        self.step += 1
        self.pending.add(self.step, self.algorithm.update(batch, draws))

    def _take_shard(self, index: int, trajectories: Trajectories) -> None:
        algorithm = self.config.algorithm
        corrections = [name for name in CORRECTIONS if algorithm.corrects(name)]
        self.sampler = ChunkSampler(
            trajectories,
            self.statistics,
            algorithm.horizon,
            algorithm.form,
            corrections=corrections,
            device=self.device,
        )
        self.shard = index

    def _mark(self) -> None:
        """Remember from where on batches can be drawn again, should one have to be named."""
        self.marked = (self.step, self.generators["batches"].get_state())

    def _name_batch(self, error: NotFinite) -> str:
        step, state = self.marked
        generator = torch.Generator(self.device)
        generator.set_state(state)
        for _ in range(error.update - step - 1):
            self.sampler.locate(self.config.batch_size, generator)
        batch = BadBatch.find(self.sampler, self.config.batch_size, generator, error, self.shard)
        path = self.directory.path / "bad_batch.json"
        batch.write(path)
        kept = self.directory.newest.resolve() if self.directory.newest.exists() else "none was made yet"
        return f"{error}; {batch.summary()}, all of it in {path}; the last good checkpoint is kept: {kept}"

    def _log(self, board: TensorBoard, metrics: dict[str, float]) -> None:
        self.latest |= metrics
        self.metrics_file.append(self.step, metrics)
        board.append(self.step, metrics)
        _logger.info("update %d of %d: %s", self.step, self.config.updates, metrics)

    def _checkpoint(self, scores: dict[str, float]) -> None:
        # A checkpoint must not hold what a loss that is not finite has touched.
        self.pending.check()
        tensors = {f"algorithm/{name}": tensor for name, tensor in self.algorithm.training_state().items()}
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise TrainingError(
                    f"update {self.step}: {name.removeprefix('algorithm/')} holds a number that is not finite; "
                    "training stopped and the last checkpoint is kept: lower the learning rate or clean the data"
                )
        tensors |= {f"generator/{name}": generator.get_state() for name, generator in self.generators.items()}
        tensors["pending_metrics"] = self.pending.state()
        place = self.directory.place(self.step)
        save_checkpoint(
            place,
            self.policy,
            step=self.step,
            reward_range=self.reward_range,
            contract_text=self.contract_text,
            metrics=scores,
            environment=self.config.environment,
            seed=self.config.seed,
            training_state=TrainingState(tensors, self._values()),
        )
        self.directory.publish(place, self.config)

    def _values(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "metric_names": list(self.pending.names),
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "data": self.fingerprint,
            "seconds": self.stopwatch.seconds,
        }

    def _check_same_run(self, checkpoint: Checkpoint, state: TrainingState) -> None:
        before, now = state.values.get("config", {}), self.config.model_dump(mode="json")
        for name in now.keys() - CHANGEABLE_ON_RESUME:
            if before.get(name) != now[name]:
                raise ConfigError(
                    f"{name} is {now[name]}, but {checkpoint.directory} was trained with {before.get(name)}: "
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
        stored, given = checkpoint.policy.statistics.to_tensors(), self.statistics.to_tensors()
        different = [name for name, array in given.items() if not np.array_equal(array, stored[name])]
        if different or state.values.get("data") != self.fingerprint:
            what = f"data's {different[0]} differs" if different else "data's actions, rewards or masks differ"
            raise ConfigError(
                f"the {what} from what {checkpoint.directory} was trained on: "
                "resume with the same data, or start a new run"
            )


def _seeds(seed: int) -> list[int]:
    """Return two independent seeds that one seed determines."""
    words = np.random.SeedSequence(seed).generate_state(2, dtype=np.uint64)
    # torch takes seeds below 2^63 everywhere.
    return [int(word >> np.uint64(1)) for word in words]
