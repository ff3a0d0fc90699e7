"""Metrics of a run: kept on the device between rows, checked for numbers that are not finite, written as JSON lines."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rql_core.errors import TrainingError

#: Marks a run's last row where it covers fewer updates than a row does.
PARTIAL = "partial"
#: Time that all updates so far have taken, in this run and those that it goes on from, without evaluations.
SECONDS = "seconds"

_logger = logging.getLogger(__name__)


class Stopwatch:
    """Adds up the time of what is done `with` it."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._begun = 0.0

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._begun


class NotFinite(TrainingError):
    """A metric that is not finite, and the update that gave it."""

    def __init__(self, update: int, name: str, value: float) -> None:
        super().__init__(
            f"update {update}: {name} is {value}: expected a finite number; training stopped: "
            "lower the learning rate, or look for extreme values"
        )
        self.update = update


class PendingMetrics:
    """The metrics of the updates since the last row, left on the device so that an update need not wait for it."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._rows: list[Tensor] = []
        self._first_update = 0
        self._count = 0
        self._checked = 0

    def add(self, update: int, names: tuple[str, ...], rows: Tensor) -> None:
        """Keep the scalars (updates, metrics) of some updates, the first of which is ``update``."""
        if not self._rows:
            self.names, self._first_update = names, update
        self._rows.append(rows)
        self._count += len(rows)

    def check(self) -> None:
        """Raise NotFinite for the first update whose metrics are not all finite."""
        if self._checked == self._count:
            return
        fresh = torch.cat(self._rows)[self._checked :]
        bad = (~torch.isfinite(fresh)).nonzero()
        if len(bad):
            row, column = (int(index) for index in bad[0])
            update = self._first_update + self._checked + row
            raise NotFinite(update, self.names[column], fresh[row, column].item())
        self._checked = self._count

    def means(self) -> dict[str, float]:
        """Return the mean of each metric since the last row."""
        self.check()
        means = torch.cat(self._rows).double().mean(dim=0).tolist()
        return dict(zip(self.names, means, strict=True))

    def clear(self) -> None:
        """Start the next row."""
        self._rows, self._count, self._checked = [], 0, 0

    def state(self) -> Tensor:
        """Return what is pending, (updates, metrics), on the CPU."""
        return torch.cat(self._rows).cpu() if self._rows else torch.zeros(0, len(self.names))

    def load(self, update: int, names: tuple[str, ...], rows: Tensor) -> None:
        """Go on from what ``state`` gave after ``update`` updates."""
        self.names, self._rows, self._first_update = names, [rows] if len(rows) else [], update - len(rows) + 1
        self._count = self._checked = len(rows)


class MetricsFile:
    """``metrics.jsonl``: one JSON object a row, each with its ``step``; rows are whole or cut off at the file's end."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep_up_to(self, step: int) -> None:
        """Drop rows past a step, partial rows and a row that was cut off, by replacing the file."""
        rows = [row for row in read_metrics(self._path) if row["step"] <= step and PARTIAL not in row]
        partial = self._path.with_name(self._path.name + ".partial")
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(_line(row) for row in rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._path)

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a row in one write."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line({"step": step, **metrics}))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics file; a last row that a kill cut off is left out, and no file is no rows."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines()]


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"


class TensorBoard:
    """Writes the same numbers for TensorBoard; where that is not installed, it says so once and does nothing."""

    def __init__(self, directory: Path, enabled: bool, first_step: int) -> None:
        self._writer: Any = None
        if not enabled:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            _logger.warning("TensorBoard is not installed: metrics go to metrics.jsonl only (pip install tensorboard)")
            return
        # Rows past the step that a run goes on from were dropped; purging hides TensorBoard's copies of them.
        self._writer = SummaryWriter(str(directory), purge_step=first_step)

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the numbers of one row."""
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
