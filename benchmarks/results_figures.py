"""Pictures of docs/results.md, from what benchmarks/results.sh has left: learning curves, and ways of acting."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rql_core.errors import DatasetError, RqlError
from rql_core.evaluation.curve_pictures import mean_curve
from rql_core.evaluation.results import read_evaluations
from rql_core.evaluation.runs import read_run
from rql_core.evaluation.tables import acting_points

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
TASKS = {"planar": "planar arm", "stitching": "stitching", "ur5e": "UR5e"}
# Label of the runs: name, colour (of Okabe and Ito), mark.  One look in every picture.
LEARNERS = {
    "rql": ("RQL", "#0072b2", "o"),
    "paper": ("RQL, paper form", "#56b4e9", "D"),
    "paper-raw": ("the same, raw inputs", "#000000", "x"),
    "ifql": ("IFQL", "#009e73", "s"),
    "fql": ("FQL", "#d55e00", "^"),
    "qc": ("QC", "#cc79a7", "v"),
    "bc_flow": ("BC flow", "#8c8c8c", "P"),
}
WAYS = {"samples": ("samples", "samples N, the best by the critics"), "steps": ("flow_steps", "flow steps")}


def curves(results: Path) -> Any:
    """Success over updates: mean over seeds, band: 95 % interval from seeds and episodes.

    Raises DatasetError where there is nothing to draw.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(11, 4.1), layout="constrained")
    axes = figure.subplots(1, len(TASKS), sharey=True)
    for axis, (task, title) in zip(axes, TASKS.items(), strict=True):
        for label, (name, colour, mark) in LEARNERS.items():
            runs = [read_run(path) for path in sorted((results / "runs" / task).glob(f"{label}-seed*"))]
            if not runs:
                continue
            line, band = mean_curve(runs)
            if not line:
                print(
                    f"{task}, {name}: no number of updates at which every run was evaluated, left out", file=sys.stderr
                )
                continue
            axis.plot(*zip(*line, strict=True), color=colour, marker=mark, ms=5, lw=1.7, label=name)
            if band:
                axis.fill_between(*zip(*band, strict=True), color=colour, alpha=0.12, lw=0)
        axis.set(title=title, xlabel="updates", ylim=(-0.03, 1.03))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        _plain(axis)
    axes[0].set_ylabel("success")
    _legend(figure, axes, results / "runs")
    return figure


def acting(results: Path) -> Any:
    """Success of the last checkpoints against samples and against flow steps, with 95 % intervals.

    Raises DatasetError where there is nothing to draw.
    """
    from matplotlib.figure import Figure

    tasks = [task for task in TASKS if any((results / "acting").glob(f"{task}-*.json"))]
    if not tasks:
        raise _nothing(results / "acting")
    figure = Figure(figsize=(10, 3.4 * len(tasks)), layout="constrained")
    axes = figure.subplots(len(tasks), len(WAYS), sharey=True, squeeze=False)
    for row, task in zip(axes, tasks, strict=True):
        for axis, (way, (field, words)) in zip(row, WAYS.items(), strict=True):
            for label, (name, colour, mark) in LEARNERS.items():
                file = results / "acting" / f"{task}-{label}-{way}.json"
                if not file.exists():
                    continue
                points = sorted(acting_points(read_evaluations(file)), key=lambda point: getattr(point, field))
                heights = [point.success for point in points]
                # The interval holds the mean, so neither is negative but by rounding.
                ends = (
                    [max(0.0, point.success - point.low) for point in points],
                    [max(0.0, point.high - point.success) for point in points],
                )
                places = [getattr(point, field) for point in points]
                axis.errorbar(places, heights, ends, color=colour, marker=mark, ms=5, capsize=2, lw=1.5, label=name)
                axis.set_xscale("log", base=2)
                axis.set_xticks(places, [str(place) for place in places])
                axis.minorticks_off()
            axis.set(title=TASKS[task], xlabel=words, ylim=(-0.03, 1.03))
            _plain(axis)
        row[0].set_ylabel("success")
    _legend(figure, axes.flat, results / "acting")
    return figure


def _plain(axis: Any) -> None:
    axis.set_axisbelow(True)
    axis.grid(color="0.92", lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _nothing(place: Path) -> DatasetError:
    return DatasetError(f"{place}: has no evaluations to draw; run benchmarks/results.sh first")


def _legend(figure: Any, axes: Any, place: Path) -> None:
    """One legend above, of everything that any panel shows. Raises DatasetError where that is nothing."""
    known = {}
    for axis in axes:
        known |= dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
    names = [name for name, _, _ in LEARNERS.values() if name in known]
    if not names:
        raise _nothing(place)
    handles = [known[name] for name in names]
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pictures."""
    parser = argparse.ArgumentParser(
        description="Draw the pictures of docs/results.md from the results of benchmarks/results.sh.",
        epilog="Example: python -m benchmarks.results_figures build/results",
    )
    parser.add_argument("results", type=Path, help="directory that benchmarks/results.sh wrote")
    parser.add_argument("--out", type=Path, default=IMAGES, help="directory of the pictures (default: %(default)s)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        for name, picture in (("results_curves", curves), ("results_acting", acting)):
            path = options.out / f"{name}.png"
            picture(options.results).savefig(path, dpi=130)
            print(path)
    except RqlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
