"""The results of an evaluation: what is kept of each episode, and what is said of all of them together."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

from rql_core.errors import DatasetError


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode. `path` (steps + 1, n): a feature of the observation at each step, for pictures; may be empty."""

    seed: int
    steps: int
    total_reward: float
    success: bool
    path: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluation:
    """Episodes of one controller; `over` says how they were run: "ros" or "in_process"."""

    controller: str
    over: str
    records: list[EpisodeRecord]

    @property
    def successes(self) -> int:
        return sum(record.success for record in self.records)

    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the success rate."""
        return wilson_interval(self.successes, len(self.records))

    def statistics(self) -> dict[str, Any]:
        """Success rate with its interval, and the lengths of episodes in steps."""
        low, high = self.interval()
        solved = [record.steps for record in self.records if record.success]
        return {
            "success": self.successes / len(self.records),
            "low": low,
            "high": high,
            "episodes": len(self.records),
            "mean_steps": mean(record.steps for record in self.records),
            "median_steps_of_successes": median(solved) if solved else None,
            "mean_return": mean(record.total_reward for record in self.records),
        }

    def summary(self) -> str:
        """One line for a person."""
        low, high = self.interval()
        rate = self.successes / len(self.records)
        return (
            f"{self.controller}: success {rate:.2f} (95 % {low:.2f} to {high:.2f}), "
            f"{self.successes} of {len(self.records)} episodes, "
            f"{mean(record.steps for record in self.records):.0f} steps on average"
        )


def wilson_interval(successes: int, episodes: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (Wilson 1927), by SciPy."""
    from scipy.stats import binomtest

    interval = binomtest(successes, episodes).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write as JSON, beside and then renamed; raises DatasetError that names the file."""
    content = {**asdict(evaluation), "statistics": evaluation.statistics()}
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written: {error.strerror}") from None


def read_evaluation(path: Path) -> Evaluation:
    """Read what `write_evaluation` wrote; raises DatasetError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        records = [EpisodeRecord(**record) for record in content["records"]]
        return Evaluation(content["controller"], content["over"], records)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: no readable evaluation: {error}") from None
