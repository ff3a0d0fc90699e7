"""Evaluations as tables: a row a run, then means over seeds, and success against the ways of acting that were tried."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rql_core.errors import ConfigError
from rql_core.evaluation.results import Evaluation
from rql_core.evaluation.statistics import Interval, SeedScore, episodes_interval, mean_interval, mean_success


@dataclass(frozen=True)
class SeedMean:
    """Mean success of one method over seeds, on one task, or over several (`task` None)."""

    algorithm: str
    form: str
    task: str | None
    tasks: int
    seeds: int
    success: float
    interval: Interval | None


@dataclass(frozen=True)
class ActingPoint:
    """Mean success of one method under one way of acting, with an interval from its seeds and their episodes."""

    algorithm: str
    form: str
    samples: int
    rho: float
    flow_steps: int
    seeds: int
    episodes: int
    success: float
    low: float
    high: float

    @property
    def method(self) -> str:
        """The algorithm's name, and its form."""
        return f"{self.algorithm} ({self.form})"


def run_table(evaluations: Sequence[Evaluation], names: Sequence[str]) -> str:
    """A row for each evaluation; `names` are what the runs are called."""
    rows = []
    for evaluation, name in zip(evaluations, names, strict=True):
        statistics = evaluation.statistics()
        rows.append(
            (
                name,
                evaluation.algorithm or evaluation.controller,
                evaluation.form or "-",
                evaluation.task,
                _known(evaluation.training_seed),
                _known(evaluation.step),
                f"{statistics['success']:.2f}",
                f"{statistics['low']:.2f} to {statistics['high']:.2f}",
                str(statistics["episodes"]),
                f"{statistics['mean_steps']:.0f}",
                f"{statistics['mean_return']:.1f}",
            )
        )
    header = ("run", "algorithm", "form", "task", "seed", "updates", "success", "95 % (Wilson)", "episodes", "steps")
    return format_table((*header, "return"), rows, left=4)


def means_over_seeds(evaluations: Sequence[Evaluation]) -> list[SeedMean]:
    """For each method its mean on each task, then over its tasks where there are several; each task counts alike."""
    groups: dict[tuple[str, str], dict[str, list[SeedScore]]] = defaultdict(lambda: defaultdict(list))
    for evaluation in evaluations:
        groups[_method(evaluation)][evaluation.task].append(_score(evaluation))
    means = []
    for (algorithm, form), scores in groups.items():
        parts = [{task: seeds} for task, seeds in scores.items()] + ([dict(scores)] if len(scores) > 1 else [])
        means += [
            SeedMean(
                algorithm,
                form,
                next(iter(part)) if len(part) == 1 else None,
                len(part),
                max(len(seeds) for seeds in part.values()),
                mean_success(part),
                mean_interval(part),
            )
            for part in parts
        ]
    return means


def mean_table(means: Sequence[SeedMean]) -> str:
    """A row for each mean, with the interval and what that was made from."""
    rows = [
        (
            each.task or f"mean of {each.tasks} tasks",
            each.algorithm,
            each.form,
            str(each.seeds),
            f"{each.success:.2f}",
            "-" if each.interval is None else f"{each.interval.low:.2f} to {each.interval.high:.2f}",
            "-" if each.interval is None else each.interval.source,
        )
        for each in means
    ]
    header = ("task", "algorithm", "form", "seeds", "success", "95 % (bootstrap)", "drawn anew")
    return format_table(header, rows, left=3)


def acting_points(evaluations: Sequence[Evaluation]) -> list[ActingPoint]:
    """Success by method and way of acting, in the order of the evaluations; those that do not say how are left out."""
    groups: dict[tuple[str, str, int, float, int], dict[str, list[SeedScore]]] = defaultdict(lambda: defaultdict(list))
    for each in evaluations:
        if each.samples is not None and each.flow_steps is not None:
            key = (*_method(each), each.samples, each.rho or 0.0, each.flow_steps)
            groups[key][each.task].append(_score(each))
    points = []
    for key, scores in groups.items():
        seeds = max(len(each) for each in scores.values())
        episodes = sum(score.episodes or 0 for each in scores.values() for score in each)
        # Never None where all numbers of episodes are known.
        interval = mean_interval(scores) or episodes_interval(scores)
        points.append(ActingPoint(*key, seeds, episodes, mean_success(scores), interval.low, interval.high))
    return points


def acting_table(points: Sequence[ActingPoint]) -> str:
    """A row for each way of acting."""
    rows = [
        (
            each.algorithm,
            each.form,
            str(each.samples),
            f"{each.rho:g}",
            str(each.flow_steps),
            f"{each.success:.2f}",
            f"{each.low:.2f} to {each.high:.2f}",
            str(each.seeds),
            str(each.episodes),
        )
        for each in points
    ]
    header = ("algorithm", "form", "samples", "rho", "flow steps", "success", "95 %", "seeds", "episodes")
    return format_table(header, rows, left=2)


def plot_acting(points: Sequence[ActingPoint], path: Path) -> None:
    """Draw success against samples and against flow steps, each where several were tried, as a picture file.

    The file's ending says which kind. Raises ConfigError where it cannot be written.
    """
    from matplotlib.figure import Figure

    axes = [axis for axis in ("samples", "flow_steps") if len({getattr(each, axis) for each in points}) > 1]
    axes = axes or ["samples"]
    figure = Figure(figsize=(6 * len(axes), 4), layout="constrained")
    for panel, axis in zip(figure.subplots(1, len(axes), squeeze=False)[0], axes, strict=True):
        _plot_panel(panel, points, axis)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def _plot_panel(panel: Any, points: Sequence[ActingPoint], axis: str) -> None:
    """One line for each method and each way of acting apart from `axis`."""
    other = "flow_steps" if axis == "samples" else "samples"
    words = {"samples": "samples", "flow_steps": "flow steps"}
    several = {name for name in (other, "rho") if len({getattr(each, name) for each in points}) > 1}
    lines: dict[str, list[ActingPoint]] = defaultdict(list)
    for each in points:
        parts = [f"{words.get(name, name)} {getattr(each, name):g}" for name in (other, "rho") if name in several]
        lines[", ".join([each.method, *parts])].append(each)
    for label, line in lines.items():
        line.sort(key=lambda each: getattr(each, axis))
        places = [getattr(each, axis) for each in line]
        heights = [each.success for each in line]
        # The interval holds the mean, so neither is negative but by rounding.
        below = [max(0.0, each.success - each.low) for each in line]
        above = [max(0.0, each.high - each.success) for each in line]
        panel.errorbar(places, heights, yerr=(below, above), fmt="o-", ms=4, capsize=3, label=label)
    ticks = sorted({getattr(each, axis) for each in points})
    panel.set_xscale("log", base=2)
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.set_ylim(-0.03, 1.03)
    panel.set_xlabel(words[axis] + (" (best of N)" if axis == "samples" else ""))
    panel.set_ylabel("success, 95 % interval")
    panel.legend(fontsize=8)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Columns of equal width, two spaces apart; the first `left` of them are text and start at the left."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _method(evaluation: Evaluation) -> tuple[str, str]:
    return evaluation.algorithm or evaluation.controller, evaluation.form or "-"


def _score(evaluation: Evaluation) -> SeedScore:
    return SeedScore(evaluation.successes / len(evaluation.records), len(evaluation.records))


def _known(value: int | None) -> str:
    return "-" if value is None else str(value)
