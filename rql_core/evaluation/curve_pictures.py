"""The pictures of a comparison: success at the end and during training, and the metrics of training, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rql_core.evaluation.comparison import Comparison
from rql_core.evaluation.comparison_table import ALL_TASKS
from rql_core.evaluation.plots import Bar, Curve, bar_plot, line_plot
from rql_core.evaluation.runs import Run
from rql_core.evaluation.statistics import SeedScore, mean_interval

# A point a curve needs; more cannot be told apart at the width of a small plot, and make the page large.
_POINTS = 120
# A band is drawn, not read off to three digits; its ends move by some hundredths of its width.
_BAND_RESAMPLES = 999
# Above so many groups times seeds thin lines only hide the thick ones.
_MOST_THIN_LINES = 60

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Picture:
    """A plot as SVG, and what it is of."""

    title: str
    svg: str


def final_success(comparison: Comparison) -> list[Picture]:
    """Each group's success with interval and seeds, for all tasks together and for each that was evaluated."""
    styles = _styles(comparison)
    pictures = []
    for section in comparison.sections:
        bars = [
            Bar(
                row.group,
                styles[row.group],
                row.mean,
                None if row.interval is None else (row.interval.low, row.interval.high),
                row.rates,
            )
            for row in comparison.of_task(section)
            if row.mean is not None
        ]
        if bars:
            title = section or ALL_TASKS
            pictures.append(Picture(title, bar_plot(bars, f"Success on {title}")))
    return pictures


def success_curves(comparison: Comparison) -> list[Picture]:
    """Success over updates on each task: mean and interval where every seed has an evaluation, and each seed."""
    pictures = []
    for task in comparison.tasks:
        curves = []
        for name, runs, style in _groups(comparison, task):
            evaluated = [run for run in runs if run.curve]
            if evaluated:
                line, band = mean_curve(evaluated)
                seeds = [_points(run) for run in evaluated] if len(evaluated) > 1 else []
                curves.append(Curve(name, style, line, band, seeds))
        if curves:
            svg = line_plot(
                _without_thin_lines(curves), f"Success on {task}", limits=(0.0, 1.0), show=lambda rate: f"{rate:.2f}"
            )
            pictures.append(Picture(task, svg))
    return pictures


def metric_curves(comparison: Comparison, task: str) -> list[Picture]:
    """A small plot for each metric of the training rows: mean over seeds, and the range from least to most."""
    groups = _groups(comparison, task)
    names = dict.fromkeys(name for _, runs, _ in groups for run in runs for name in run.curves)
    # Losses first, then values, each in the order of the file; the rest, such as steps of an episode, after them.
    order = sorted(names, key=lambda name: ("loss" not in name, "value" not in name and "target" not in name))
    pictures = []
    for metric in order:
        curves = []
        for name, runs, style in groups:
            line, band = _range_curve([run.curves[metric] for run in runs if metric in run.curves])
            if line:
                curves.append(Curve(name, style, line, band if len(runs) > 1 else ()))
        title = metric.removeprefix("evaluation/").replace("_", " ")
        pictures.append(Picture(title, line_plot(curves, title, size=(330, 210), may_be_log=True)))
    return pictures


def _groups(comparison: Comparison, task: str) -> list[tuple[str, list[Run], int]]:
    styles = _styles(comparison)
    return [(group.name, group.on(task), styles[group.name]) for group in comparison.groups if group.on(task)]


def _styles(comparison: Comparison) -> dict[str, int]:
    return {group.name: style for style, group in enumerate(comparison.groups)}


def _points(run: Run) -> Points:
    return [(float(point.step or 0), point.rate) for point in run.curve]


def mean_curve(runs: Sequence[Run]) -> tuple[Points, list[tuple[float, float, float]]]:
    """Mean and interval over seeds at the updates after which every run was evaluated.

    Where a run ends the mean ends: without it, the mean would jump for a reason that is not learning.
    """
    by_step: dict[int, list[SeedScore]] = {}
    for run in runs:
        for point in run.curve:
            by_step.setdefault(point.step or 0, []).append(SeedScore(point.rate, point.episodes))
    line, band = [], []
    for step, scores in sorted(by_step.items()):
        if len(scores) == len(runs):
            line.append((float(step), float(np.mean([score.rate for score in scores]))))
            interval = mean_interval({"": scores}, _BAND_RESAMPLES)
            if interval is not None:
                band.append((float(step), interval.low, interval.high))
    return line, band


def _range_curve(
    curves: Sequence[tuple[Sequence[int], Sequence[float]]],
) -> tuple[Points, list[tuple[float, float, float]]]:
    """Mean over the runs that have a row there, and least and most of them, in intervals of updates."""
    last = max((steps[-1] for steps, _ in curves if steps), default=0)
    width = max(last / _POINTS, 1)
    by_bin: dict[int, list[tuple[float, float]]] = {}
    for steps, values in curves:
        own: dict[int, list[tuple[int, float]]] = {}
        for step, value in zip(steps, values, strict=True):
            own.setdefault(math.ceil(step / width), []).append((step, value))
        for index, rows in own.items():
            by_bin.setdefault(index, []).append((float(rows[-1][0]), float(np.mean([value for _, value in rows]))))
    line, band = [], []
    for _, points in sorted(by_bin.items()):
        means = [mean for _, mean in points]
        end = max(step for step, _ in points)
        line.append((end, float(np.mean(means))))
        band.append((end, min(means), max(means)))
    return line, band


def _without_thin_lines(curves: Sequence[Curve]) -> list[Curve]:
    """The same, without seeds where they are too many; a group without a mean keeps them."""
    if sum(len(curve.thin) for curve in curves) <= _MOST_THIN_LINES:
        return list(curves)
    return [replace(curve, thin=()) if curve.line else curve for curve in curves]
