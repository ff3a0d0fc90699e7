"""The results of an evaluation: what is kept of each episode, and what is said of all of them together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from statistics import mean, median
from typing import Any, TypeVar

from rql_core.errors import ConfigError, DatasetError
from rql_core.whole_files import write_whole

ReadT = TypeVar("ReadT")


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
    """Episodes of one controller; `over` says how they were run: "ros" or "in_process".

    What follows `records` says of what, where and how, as far as it is known: None where it is not.
    """

    controller: str
    over: str
    records: list[EpisodeRecord]
    # Simulated world, or environment by its OGBench name or Gymnasium id.
    world: str | None = None
    environment: str | None = None
    # The checkpoint's directory, and the updates and the seed that it was trained with.
    checkpoint: str | None = None
    step: int | None = None
    training_seed: int | None = None
    # "rql", "bc_flow", ..., and "corrected" or "paper".
    algorithm: str | None = None
    form: str | None = None
    # Seed of the first episode, and steps between plans (0: the whole chunk).
    first_seed: int | None = None
    replan_every: int | None = None
    # Best of so many samples, ranked by mean - rho * std over the critics, each made in so many flow steps.
    samples: int | None = None
    rho: float | None = None
    flow_steps: int | None = None

    @property
    def task(self) -> str:
        """Where the episodes were run: the environment's or the world's name."""
        return self.environment or self.world or "unknown"

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


def training_scores(records: list[EpisodeRecord]) -> dict[str, float]:
    """What metrics.jsonl keeps, under `evaluation/`, of an evaluation during training."""
    statistics = Evaluation("", "in_process", records).statistics()
    return {
        "success_rate": statistics["success"],
        "success_low": statistics["low"],
        "success_high": statistics["high"],
        "mean_steps": statistics["mean_steps"],
        "episodes": statistics["episodes"],
    }


def check_episodes(episodes: int, first_seed: int = 0) -> None:
    """Raise ConfigError unless there is an episode to run and seeds are what Gymnasium takes."""
    if episodes < 1:
        raise ConfigError(f"episodes is {episodes}, expected at least 1")
    if first_seed < 0:
        raise ConfigError(f"first_seed is {first_seed}, expected 0 or more")


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write as JSON, beside and then renamed; raises DatasetError that names the file."""
    write_whole(path, json.dumps(_content(evaluation)))


def write_evaluations(evaluations: Sequence[Evaluation], path: Path) -> None:
    """Write several as JSON, `{"evaluations": [...]}`; raises DatasetError that names the file."""
    write_whole(path, json.dumps({"evaluations": [_content(evaluation) for evaluation in evaluations]}))


def read_evaluation(path: Path) -> Evaluation:
    """Read what `write_evaluation` wrote; raises DatasetError that names the file."""
    return _read(path, _evaluation)


def read_evaluations(path: Path) -> list[Evaluation]:
    """Read what `write_evaluations` or `write_evaluation` wrote; raises DatasetError that names the file."""
    return _read(
        path,
        lambda content: (
            [_evaluation(each) for each in content["evaluations"]]
            if "evaluations" in content
            else [_evaluation(content)]
        ),
    )


# Fields that files of before do not have.
_OPTIONAL = tuple(each.name for each in fields(Evaluation) if each.default is not MISSING)


def _content(evaluation: Evaluation) -> dict[str, Any]:
    return {**asdict(evaluation), "statistics": evaluation.statistics()}


def _evaluation(content: Any) -> Evaluation:
    records = [EpisodeRecord(**record) for record in content["records"]]
    known = {name: content[name] for name in _OPTIONAL if name in content}
    return Evaluation(content["controller"], content["over"], records, **known)


def _read(path: Path, parse: Callable[[Any], ReadT]) -> ReadT:
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: no readable evaluation: {error}") from None
