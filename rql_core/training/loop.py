"""The training loop: sample, update, log, evaluate, keep; of one run, or of several seeds as one batched model.

All randomness comes from generators that each run owns, so the evaluation cannot disturb it, and a run that stops and
resumes makes, on a CPU, the very tensors that an uninterrupted one makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rql_core.algorithms import CORRECTIONS, Algorithm
from rql_core.algorithms.stacking import stack_algorithms, take_member
from rql_core.data.chunks import ChunkSampler
from rql_core.data.trajectories import Trajectories
from rql_core.errors import ConfigError, RqlError, TrainingError
from rql_core.progress import progress_bar
from rql_core.training.checkpoint import Snapshot, write_checkpoint
from rql_core.training.checkpoint_writer import CheckpointWriter
from rql_core.training.config import TrainConfig
from rql_core.training.data_source import DataSource, InMemory
from rql_core.training.finish import finish_checkpoint
from rql_core.training.metrics import PARTIAL, SECONDS, NotFinite, Stopwatch
from rql_core.training.policy import Policy
from rql_core.training.run import Data, Run, check_finite, resume_together
from rql_core.training.updates import Updates

Evaluation = Callable[[Policy], dict[str, float]]

# Updates are made in slices of about this long, so that the bar moves and an interrupt is heard.
SLICE_SECONDS = 0.25
LONGEST_SLICE = 1000


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
    directories = {config.seed: Path(run_directory)}
    return train_seeds(data, config, directories, contract_text, evaluate, resume, progress=progress)[config.seed]


def train_seeds(
    data: Trajectories | DataSource,
    config: TrainConfig,
    directories: Mapping[int, Path],
    contract_text: str | None = None,
    evaluate: Evaluation | None = None,
    resume: bool = False,
    *,
    progress: bool = True,
) -> dict[int, TrainResult]:
    """Train several seeds as one batched model, each with a run directory as if it had been trained alone.

    ``directories`` are the run directories by seed; the rest is as in ``train``.  A seed whose loss is not finite stops
    by itself: the others go on, and its TrainingError is raised at the end.
    """
    if not directories:
        raise ConfigError("there are no seeds to train: expected at least one")
    if len({path.resolve() for path in directories.values()}) < len(directories):
        raise ConfigError("two seeds have the same run directory: expected one for each")
    source = InMemory(data) if isinstance(data, Trajectories) else data
    first_shard = source.load(0)
    common = Data.of(source, first_shard, config)
    runs = [
        Run(config.model_copy(update={"seed": seed}), directory, common, contract_text)
        for seed, directory in directories.items()
    ]
    # Fails here where no episode is long enough for a chunk.
    group = _Group(source, first_shard, config, common, runs)
    if resume:
        resume_together(runs)
    else:
        for run in runs:
            run.start()
    return group.to_the_end(evaluate, progress)


class _Group:
    """Runs that are trained together; often one."""

    def __init__(
        self, source: DataSource, first_shard: Trajectories, config: TrainConfig, data: Data, runs: list[Run]
    ) -> None:
        self.source = source
        self.config = config
        self.data = data
        self.runs = runs
        self.shard = 0
        self.sampler = self._sampler(first_shard)
        self.stopwatch = Stopwatch()
        self.writer = CheckpointWriter()
        self.whole: Algorithm[Any, Any] | None = None

    @property
    def alive(self) -> list[Run]:
        """The runs that have not stopped."""
        return [run for run in self.runs if run.failure is None]

    def to_the_end(self, evaluate: Evaluation | None, progress: bool) -> dict[int, TrainResult]:
        config = self.config
        algorithm = self.runs[0].algorithm
        if len(self.runs) > 1:
            algorithm = self.whole = stack_algorithms([run.algorithm for run in self.runs])
        self.updates = Updates(
            algorithm,
            [run.generators for run in self.runs],
            config.batch_size,
            precision=config.precision,
            compiled=config.compile,
            cuda_graphs=config.cuda_graphs,
        )
        self.updates.use(self.sampler)
        self.step = self.runs[0].step
        seeds = f" x {len(self.runs)} seeds" if len(self.runs) > 1 else ""
        bar = progress_bar(
            total=config.updates,
            initial=self.step,
            unit="update",
            desc=f"{algorithm.name}{seeds}",
            disable=not progress,
        )
        slice_size = 1
        for run in self.runs:
            run.open()
        try:
            while self.step < config.updates and self.alive:
                begun = self.stopwatch.seconds
                with self.stopwatch:
                    count = min(slice_size, self._until_something_is_due(evaluate is not None))
                    self._update(count)
                took = self.stopwatch.seconds - begun
                slice_size = min(2 * slice_size, LONGEST_SLICE) if took < SLICE_SECONDS else max(1, slice_size // 2)
                bar.update(count)
                self._what_is_due(evaluate, bar)
            self.writer.wait()
        except BaseException:
            self.writer.abandon()
            raise
        finally:
            bar.close()
            for run in self.runs:
                run.close()
        self._raise_failures()
        return {
            run.config.seed: TrainResult(run.step, run.directory.newest.resolve(), dict(run.latest))
            for run in self.runs
        }

    def _until_something_is_due(self, evaluates: bool) -> int:
        """Return the updates until the next row, evaluation, checkpoint, change of data, or the end."""
        config = self.config
        every = [config.log_every, config.checkpoint_every]
        if len(self.source) > 1:
            every.append(config.shard_updates)
        if evaluates and config.evaluate_every:
            every.append(config.evaluate_every)
        return min(config.updates - self.step, *(each - self.step % each for each in every))

    def _update(self, count: int) -> None:
        self._take_shard()
        rows = self.updates.make(count)
        first = self.step + 1
        self.step += count
        for index, run in enumerate(self.runs):
            if run.failure is None:
                run.step = self.step
                run.pending.add(first, self.updates.names, rows[..., index] if rows.dim() == 3 else rows)
        if rows.device.type == "cuda":
            # Once a slice: the bar and the time are of updates that were made, not of those that were asked for.
            torch.cuda.synchronize(rows.device)

    def _take_shard(self) -> None:
        wanted = self.step // self.config.shard_updates % len(self.source)
        if wanted == self.shard:
            return
        self._check()
        self.sampler = self._sampler(self.source.load(wanted))
        self.shard = wanted
        self.updates.use(self.sampler)
        for run in self.runs:
            run.mark()

    def _what_is_due(self, evaluate: Evaluation | None, bar: Any) -> None:
        config = self.config
        last, whole = self.step == config.updates, self.step % config.log_every == 0
        if whole or last:
            self._log(whole, bar)
        evaluated = evaluate is not None and config.evaluate_every > 0
        evaluated = evaluated and (self.step % config.evaluate_every == 0 or last)
        if not (evaluated or last or self.step % config.checkpoint_every == 0):
            return
        # Neither an evaluation nor a checkpoint may see what a loss that is not finite has touched.
        self._check()
        scores: dict[Run, dict[str, float]] = {}
        for run in self.alive:
            self._give(run)
            scores[run] = evaluate(run.policy) if evaluated and evaluate is not None else {}
            if evaluated:
                run.log({f"evaluation/{name}": float(value) for name, value in scores[run].items()})
        self._checkpoint(scores)

    def _log(self, whole: bool, bar: Any) -> None:
        self._check()
        for run in self.alive:
            means = run.pending.means()
            # A row over fewer updates: a run that goes on from here drops it and counts these into the next.
            partial = {} if whole else {PARTIAL: 1.0}
            run.log(means | {SECONDS: round(self._seconds(run), 3)} | partial)
            if whole:
                run.pending.clear()
                run.mark()
        if whole and self.alive:
            bar.set_postfix({name: f"{value:.3g}" for name, value in self.alive[0].latest.items() if "loss" in name})

    def _seconds(self, run: Run) -> float:
        return run.seconds + self.stopwatch.seconds

    def _check(self) -> None:
        """Stop the runs with a metric that is not finite; a lone one stops the training."""
        for run in self.alive:
            try:
                run.pending.check()
            except NotFinite as error:
                # The message says which checkpoint is kept. That it could not be written matters less, but that weights
                # were not finite before this metric was is where it began.
                if isinstance(self.writer.settle(), TrainingError):
                    self.writer.wait()
                self._fail(run, run.name_batch(error, self.sampler, self.shard))

    def _fail(self, run: Run, error: RqlError) -> None:
        if len(self.runs) == 1:
            raise error from None
        run.failure = error

    def _give(self, run: Run) -> None:
        """Let a run's own algorithm hold what was learnt."""
        if self.whole is not None:
            take_member(run.algorithm, self.whole, self.runs.index(run))

    def _checkpoint(self, scores: Mapping[Run, dict[str, float]]) -> None:
        snapshots = {run: run.snapshot(scores[run], self._seconds(run)) for run in self.alive}
        self.writer.submit(partial(self._write, snapshots))

    def _write(self, snapshots: Mapping[Run, Snapshot]) -> None:
        """Write every run's checkpoint, and publish them when all are there."""
        written = []
        for run, snapshot in snapshots.items():
            try:
                check_finite(snapshot)
            except TrainingError as error:
                self._fail(run, error)
                continue
            place = run.directory.place(snapshot.step)
            write_checkpoint(place, snapshot)
            written.append((run, place))
        ended = [run for run, _ in written if snapshots[run].step == self.config.updates]
        for run, place in written:
            if run in ended:
                finish_checkpoint(place, run.data.observations)
        for run, place in written:
            run.directory.publish(place, run.config)
        for run in ended:
            run.finish_kept()

    def _sampler(self, trajectories: Trajectories) -> ChunkSampler:
        algorithm = self.config.algorithm
        return ChunkSampler(
            trajectories,
            self.data.statistics,
            algorithm.horizon,
            algorithm.form,
            corrections=[name for name in CORRECTIONS if algorithm.corrects(name)],
            device=self.config.resolve_device(),
        )

    def _raise_failures(self) -> None:
        failures = [(run.config.seed, run.failure) for run in self.runs if run.failure is not None]
        if failures:
            stopped = "; ".join(f"seed {seed} stopped: {error}" for seed, error in failures)
            raise TrainingError(f"{len(failures)} of {len(self.runs)} seeds did not come to the end: {stopped}")
