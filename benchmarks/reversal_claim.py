"""What reversal is for, in one picture: the error of a learned value over the number of flow steps, with and without.

The problem and the two learners are those of solved_mdp.py.  Both make the same number of updates, on as many rows,
with the same networks, optimiser and target average.  `docs/solved_problem.md` explains the result.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.solved_mdp import Learning, Reversal, SingleStep, SolvedMDP, learn, value_spread
from rql_core.progress import progress_bar

# Published results have 10; 1 is no refinement at all.
FLOW_STEPS = (1, 2, 5, 10, 20, 40)
# Those whose curves are drawn: all six would cover each other.
DRAWN = (2, 10, 40)
LEARNERS: dict[str, type[Reversal]] = {"reversal": Reversal, "single-step TD": SingleStep}
# From light to dark: one shade for each of those.
SHADES = {"reversal": ("#7fb2dd", "#1f77b4", "#0b3c61"), "single-step TD": ("#f5a95c", "#e06c00", "#8f4100")}
# An error is called small where it is below so much of the value's spread: twice what is left at the end.
SMALL = 0.2
# Points of a learning curve up to the fixed number of updates; half as many follow.
CURVE_POINTS = 10
IMAGE = Path(__file__).resolve().parents[1] / "docs" / "images" / "reversal_claim.png"

#: RMS error over the value's spread (marks, runs), by learner and number of flow steps.
Errors = dict[tuple[str, int], np.ndarray[Any, Any]]


def marks_of(updates: int, more: int) -> list[int]:
    """Return the numbers of updates at which errors are measured, even in the logarithm; both given are among them."""
    before = np.geomspace(max(1, updates // 20), updates, CURVE_POINTS)
    after = np.geomspace(updates, more, CURVE_POINTS // 2)
    return sorted({round(mark) for mark in (*before, *after)})


def updates_to(small: float, marks: Sequence[int], error: np.ndarray[Any, Any]) -> float | None:
    """Return after how many updates the error (marks,) first is ``small``, interpolated in the logarithms, or None."""
    below = np.flatnonzero(error <= small)
    if len(below) == 0:
        return None
    at = int(below[0])
    if at == 0:
        return float(marks[0])
    share = np.log(error[at - 1] / small) / np.log(error[at - 1] / error[at])
    return float(marks[at - 1] * (marks[at] / marks[at - 1]) ** share)


def table(errors: Errors, marks: Sequence[int], updates: int) -> str:
    """Return the figures as a Markdown table: errors in percent of the spread, and how long they took to be small."""
    at, more = marks.index(updates), marks[-1]
    lines = [
        f"| flow steps F | reversal, {updates:,} updates | {more:,} | to {SMALL:.0%} "
        f"| single-step TD, {updates:,} updates | {more:,} | to {SMALL:.0%} |",
        "|---:|" + "---:|" * 6,
    ]
    for steps in sorted({steps for _, steps in errors}):
        cells = []
        for name in LEARNERS:
            error = errors[name, steps]
            cells += [
                f"{100 * row.mean():.0f} ({100 * row.min():.0f} to {100 * row.max():.0f})" for row in error[[at, -1]]
            ]
            reached = updates_to(SMALL, marks, error.mean(axis=1))
            cells.append(f"more than {more:,}" if reached is None else f"{float(f'{reached:.2g}'):,.0f}")
        lines.append(f"| {steps} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(errors: Errors, marks: Sequence[int], updates: int) -> Any:
    """Draw the error over F at both numbers of updates, and over updates for some F."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

    picture = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = picture.subplots(1, 2)
    flow_steps = sorted({steps for _, steps in errors})
    for name in LEARNERS:
        for mark, style, fill, shift in ((updates, "-", None, 0.97), (marks[-1], "--", "white", 1.03)):
            error = np.stack([errors[name, steps][marks.index(mark)] for steps in flow_steps])
            mean, color = error.mean(axis=1), SHADES[name][1]
            # The two are moved apart a little, so that their bars can be told apart.
            left.errorbar(
                np.array(flow_steps) * shift,
                mean,
                (mean - error.min(axis=1), error.max(axis=1) - mean),
                label=f"{name}, {mark:,} updates",
                color=color,
                ls=style,
                marker="o",
                mfc=fill,
                ms=5,
                lw=1.6,
                elinewidth=0.9,
            )
        for steps, shade in zip(DRAWN, SHADES[name], strict=True):
            # A curve of one mark is a point, which a line does not show.
            mark_style = "o" if len(marks) == 1 else ""
            right.plot(marks, errors[name, steps].mean(axis=1), color=shade, lw=1.8, marker=mark_style)
            if name != "reversal":
                at = len(marks) // 3
                height = errors[name, steps].mean(axis=1)[at]
                label = f"single-step TD, F = {steps}" if steps == max(DRAWN) else f"F = {steps}"
                right.text(marks[at], 1.06 * height, label, color=shade)
    reversal = [errors["reversal", steps].mean(axis=1) for steps in DRAWN]
    listed = ", ".join(str(steps) for steps in DRAWN)
    # Below the curves where the text ends, at about the second mark; a run of one update has one mark only.
    below = 0.45 * min(curve[:2][-1] for curve in reversal)
    right.text(marks[0], below, f"reversal,\nF = {listed}", color=SHADES["reversal"][1])
    left.legend(frameon=False, fontsize=9, loc="upper left")
    left.set(xscale="log", xlabel="flow steps F", ylim=(0, None), title="Error over flow steps")
    left.set_ylabel("RMS error of V, in % of its spread")
    left.xaxis.set_major_locator(FixedLocator(flow_steps))
    left.xaxis.set_minor_locator(NullLocator())
    right.set(xscale="log", yscale="log", xlabel="updates", title="Error over updates")
    # A logarithmic axis has no place for 0, which a quarter of a few updates is.
    right.xaxis.set_major_locator(FixedLocator([marks[0], max(1, updates // 4), updates, marks[-1]]))
    right.xaxis.set_minor_locator(NullLocator())
    right.yaxis.set_major_locator(FixedLocator([0.05, 0.1, 0.2, 0.5, 1.0, 2.0]))
    right.yaxis.set_minor_locator(NullLocator())
    # After few updates the curves are far above the text.
    right.set_ylim(bottom=min(right.get_ylim()[0], 0.8 * below))
    for axis in (left, right):
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.set_axisbelow(True)
        axis.grid(color="0.92", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    return picture


def measure(mdp: SolvedMDP, marks: Sequence[int], learning: Learning) -> Errors:
    """Train every learner with every number of flow steps."""
    spread, errors = value_spread(mdp), {}
    with progress_bar(total=len(LEARNERS) * len(FLOW_STEPS) * marks[-1], unit="update") as bar:
        for steps in FLOW_STEPS:
            for name, learner in LEARNERS.items():
                bar.set_description(f"F = {steps}, {name}")
                rms: Tensor = learn(learner, mdp, steps, marks, learning, on_update=bar.update)
                errors[name, steps] = rms.numpy() / spread
    return errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the picture."""
    parser = argparse.ArgumentParser(
        description="Error of the learned value over the number of flow steps, with reversal and with single-step TD, "
        "on an MDP whose value is known.",
        epilog="Example: python -m benchmarks.reversal_claim --updates 500 --more 1000 --out build/claim.png",
    )
    parser.add_argument("--seeds", type=int, default=5, help="independent runs of each (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=2_000, help="the fixed number (default: %(default)s)")
    parser.add_argument("--more", type=int, default=8_000, help="where each run ends (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=IMAGE, help="the PNG to write (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not 1 <= options.updates <= options.more or options.seeds < 1:
        parser.error("expected 1 <= --updates <= --more and --seeds of at least 1")
    # The networks are too small for a second thread to be of use.
    torch.set_num_threads(1)
    marks = marks_of(options.updates, options.more)
    mdp = SolvedMDP()
    errors = measure(mdp, marks, Learning(runs=options.seeds))
    print(f"RMS error of V, in % of its spread of {value_spread(mdp):.3f}: mean (range) of {options.seeds} runs.\n")
    print(table(errors, marks, options.updates))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure(errors, marks, options.updates).savefig(options.out, dpi=150)


if __name__ == "__main__":
    main()
