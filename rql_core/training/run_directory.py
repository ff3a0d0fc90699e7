"""The directory of a run: its checkpoints, the link to the newest, and what of them is kept.

    RUN/train.json   RUN/metrics.jsonl   RUN/tensorboard/   RUN/checkpoints/step-00008000/   RUN/checkpoint -> the
    newest

A kill at any moment leaves the link pointing at a whole checkpoint, or no link before the first.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from rql_core.checkpoint_files import MANIFEST
from rql_core.errors import CheckpointError, ConfigError
from rql_core.training.config import TrainConfig
from rql_core.whole_files import write_whole


class RunDirectory:
    """Owns the files of one run; one process at a time writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.newest = path / "checkpoint"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self._config = path / "train.json"

    def start(self, config: TrainConfig) -> None:
        """Begin a new run; raises ConfigError where there is one already."""
        if self.newest.is_symlink():
            raise ConfigError(f"{self.path}: holds a run already; resume it, or choose another directory")
        self._clear_remains()
        # Without a link, what is here was killed before its first checkpoint was published.
        for directory in self._all():
            self._remove(directory)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self.metrics.unlink(missing_ok=True)
        self.write_config(config)

    @property
    def has_checkpoint(self) -> bool:
        """Whether a checkpoint was published."""
        return self.newest.is_symlink()

    def newest_step(self) -> int:
        """Return the step of the newest checkpoint; raises where there is none."""
        if not self.has_checkpoint:
            raise ConfigError(f"{self.newest}: is missing; there is nothing to resume, start a new run")
        # Resolved, so that moving the link later does not move what was read.
        newest = self.newest.resolve()
        if not newest.is_dir():
            raise CheckpointError(f"{self.newest}: points to {newest}, which is missing")
        return _step(newest)

    def steps(self) -> set[int]:
        """Return the steps of all checkpoints, also of one that was written but not yet published."""
        return {_step(directory) for directory in self._all()}

    def resume(self, step: int) -> Path:
        """Return the checkpoint of a step to go on from, and remove what came after it or was left unfinished."""
        newest = self.place(step).resolve()
        self._clear_remains()
        self._link(newest)
        for directory in self._all():
            if _order(directory) > _order(newest):
                self._remove(directory)
        return newest

    def write_config(self, config: TrainConfig) -> None:
        """Write the run's settings."""
        write_whole(self._config, config.model_dump_json(indent=2))

    def place(self, step: int) -> Path:
        """Return where the checkpoint of a step belongs; eight digits keep names in the order of steps."""
        return self.checkpoints / f"step-{step:08d}"

    def publish(self, directory: Path, config: TrainConfig) -> None:
        """Point the link at a whole checkpoint, in one rename, and remove those not kept."""
        self._link(directory)
        self.prune(config)

    def prune(self, config: TrainConfig) -> None:
        """Remove the checkpoints that are not kept; again after a resume, as a kill may have come in between."""
        kept = set(self._all()[-config.keep_last :]) | set(self._best(config))
        for other in self._all():
            if other not in kept:
                self._remove(other)

    def _link(self, directory: Path) -> None:
        partial = self.path / ".checkpoint.partial"
        partial.unlink(missing_ok=True)
        partial.symlink_to(Path(self.checkpoints.name) / directory.name)
        os.replace(partial, self.newest)

    def _best(self, config: TrainConfig) -> list[Path]:
        sign = 1.0 if config.best_is == "highest" else -1.0
        scored: list[tuple[float, Path]] = []
        for directory in self._all():
            metrics = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["metrics"]
            score = metrics.get(config.best_metric)
            if score is not None:
                scored.append((sign * score, directory))
        # Of equals the later one: it has seen more.
        return [directory for _, directory in sorted(scored, reverse=True)[: config.keep_best]]

    def _all(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step-*"), key=_order)

    def _remove(self, directory: Path) -> None:
        # Renamed first: a half-removed directory must not look like a checkpoint.
        doomed = directory.with_name(f".{directory.name}.removed")
        os.rename(directory, doomed)
        shutil.rmtree(doomed)

    def _clear_remains(self) -> None:
        for pattern in (".step-*.partial", ".step-*.removed"):
            for directory in self.checkpoints.glob(pattern):
                shutil.rmtree(directory)


def _step(directory: Path) -> int:
    return int(directory.name.removeprefix("step-"))


def _order(directory: Path) -> tuple[int, str]:
    """Order checkpoints by step, also where a step has more digits than names are padded to."""
    return len(directory.name), directory.name
