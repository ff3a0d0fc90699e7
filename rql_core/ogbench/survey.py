"""What reading all files of a data set gave, kept beside them as JSON: a 100M set takes minutes to read.

The file says of which contents it speaks. One of other contents, or that cannot be read, counts as none.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rql_core.data.normalisation import Statistics
from rql_core.errors import DatasetError

FILE_NAME = "rql_statistics.json"


@dataclass(frozen=True)
class Survey:
    """Statistics of all observations, and by task the least and greatest reward and whether any row is at the goal."""

    contents: str
    """Checksum of the files."""
    statistics: Statistics
    rewards: dict[str, tuple[float, float, bool]]


def read_survey(directory: Path, contents: str) -> Survey | None:
    """The survey in a directory, if there is one of these contents."""
    try:
        data = json.loads((directory / FILE_NAME).read_text(encoding="utf-8"))
        if data["contents"] != contents:
            return None
        arrays = {
            name: np.array(values, dtype=np.int64 if name == "count" else np.float32)
            for name, values in data["statistics"].items()
        }
        rewards = {key: (float(low), float(high), bool(end)) for key, (low, high, end) in data["rewards"].items()}
        return Survey(contents, Statistics.from_tensors(arrays), rewards)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DatasetError):
        return None


def write_survey(directory: Path, survey: Survey) -> None:
    """Keep a survey; a directory that cannot be written to does without, and its files are read again next time."""
    statistics = {name: array.tolist() for name, array in survey.statistics.to_tensors().items()}
    content = {"contents": survey.contents, "statistics": statistics, "rewards": survey.rewards}
    partial = directory / f".{FILE_NAME}.{os.getpid()}.partial"
    with suppress(OSError):
        try:
            partial.write_text(json.dumps(content), encoding="utf-8")
            os.replace(partial, directory / FILE_NAME)
        finally:
            partial.unlink(missing_ok=True)
