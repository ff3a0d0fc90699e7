"""The pictures of a checkpoint's report: FQE over its updates, values, errors and distances, as SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from rql_core.evaluation.estimates import Estimates, OwnCritics
from rql_core.evaluation.plots import COLOURS

# Colour-blind safe; the same thing has the same colour in every picture.
FITTED, OWN, LOGGED = COLOURS[0], COLOURS[1], COLOURS[2]
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    # Same figure, same bytes.
    "svg.hashsalt": "rql",
}
# Beyond so many steps a line of an episode cannot be told from its neighbours.
_LONGEST = 600
# Of a histogram of errors, so many of either tail are left out, and said so: a single outlier would flatten the rest.
_TAIL = 0.002


def fitted_curve(estimates: Estimates) -> str:
    """FQE's value at the starts over its updates."""
    figure, (axis,) = _figure(1)
    updates, curve = np.array(estimates.curve_updates), estimates.curve
    axis.plot(updates, curve, color=FITTED, lw=0.8, alpha=0.4)
    axis.plot(updates, curve.mean(axis=1), color=FITTED, lw=2.2)
    axis.axvspan(updates[-1] * 0.8, updates[-1], color="0.5", alpha=0.1, lw=0)
    axis.set_xlim(0, updates[-1])
    axis.set_xlabel("updates of the fit")
    axis.set_ylabel("value at episode starts")
    return _svg(figure)


def start_values(estimates: Estimates) -> str:
    """Value at each start: FQE against the checkpoint's own critics, or FQE alone where it has none."""
    figure, (axis,) = _figure(1)
    fitted = estimates.start_values.mean(axis=1)
    if estimates.own is None or not estimates.comparable:
        axis.hist(fitted, bins=30, color=FITTED, alpha=0.75)
        axis.set_xlabel("value, fitted afresh")
        axis.set_ylabel("episode starts")
        return _svg(figure)
    own = estimates.own.start_values.mean(axis=1)
    low, high = min(fitted.min(), own.min()), max(fitted.max(), own.max())
    room = 0.05 * (high - low) or 1.0
    ends = (low - room, high + room)
    axis.plot(ends, ends, color="0.5", lw=1, ls="--")
    quarter = low + 0.25 * (high - low)
    axis.annotate("equal", (quarter, quarter), (8, -10), textcoords="offset points", color="0.4")
    axis.plot(fitted, own, "o", ms=4, color=OWN, alpha=0.5, mew=0)
    axis.set_xlim(ends)
    axis.set_ylim(ends)
    axis.set_aspect("equal")
    axis.set_xlabel("value, fitted afresh")
    axis.set_ylabel("value, own critics")
    return _svg(figure)


def error_histogram(own: OwnCritics) -> str:
    """TD errors of the checkpoint's critics, with zero, mean and the spread of the targets."""
    figure, (axis,) = _figure(1)
    low, high = np.quantile(own.errors, (_TAIL, 1.0 - _TAIL))
    if low == high:
        low, high = low - 0.5, high + 0.5
    axis.hist(own.errors, bins=60, range=(low, high), color=OWN, alpha=0.75)
    axis.margins(y=0.15)
    axis.axvline(0, color="0.3", lw=1)
    mean = own.errors.mean()
    axis.axvline(mean, color="0.3", lw=1, ls="--")
    axis.annotate(
        f"mean {mean:.2g}",
        (mean, 1),
        (4 if mean >= 0 else -4, -4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="left" if mean >= 0 else "right",
        va="top",
    )
    axis.set_xlabel("TD error of a chunk")
    axis.set_ylabel("chunks")
    return _svg(figure)


def episodes(estimates: Estimates, seconds_a_step: float | None = None) -> str:
    """Values along logged episodes, one below the other."""
    traces = estimates.traces
    figure, axes = _figure(len(traces), size=(10, 2.1 * len(traces) + 0.5))
    for axis, trace in zip(axes, traces, strict=True):
        shown = slice(0, _LONGEST)
        time = np.arange(len(trace.fitted[shown])) * (seconds_a_step or 1.0)
        for step in trace.terminals[trace.terminals < _LONGEST]:
            axis.axvline(time[step], color=LOGGED, lw=1, alpha=0.25)
        axis.plot(time, trace.logged[shown], color=LOGGED, lw=1.5, label="what the log then collects, to a terminal")
        axis.plot(time, trace.fitted[shown], color=FITTED, lw=1.5, label="fitted afresh (FQE)")
        if estimates.own is not None:
            own, spread = trace.own[shown], trace.own_spread[shown]
            axis.plot(time, own, color=OWN, lw=1.5, label="own critics, with their spread")
            axis.fill_between(time, own - spread, own + spread, color=OWN, alpha=0.25, lw=0)
        axis.set_title(f"episode {trace.index}", loc="left", fontsize=10)
        axis.set_xlim(0, max(time[-1], 1e-9))
        axis.set_ylabel("value")
    axes[-1].set_xlabel("step" if seconds_a_step is None else "seconds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=9, frameon=False)
    return _svg(figure)


def distances(estimates: Estimates, names: Sequence[str]) -> str:
    """Distance to the logged actions, for each of the action's numbers."""
    found = estimates.distances
    figure, (axis,) = _figure(1, size=(10, 0.62 * len(names) + 1.4))
    place = np.arange(len(names))
    bars = (
        ("mean of the policy's samples", found.mean, OWN, 0.35),
        (f"nearest of {estimates.noises} samples", found.nearest, OWN, 1.0),
        (f"nearest of {estimates.noises} chunks logged elsewhere", found.random, "0.6", 1.0),
    )
    for index, (label, values, colour, alpha) in enumerate(bars):
        axis.barh(place + 0.27 * (index - 1), values, height=0.25, color=colour, alpha=alpha, label=label)
    axis.set_yticks(place, names)
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("mean |policy - logged|; -1 and 1 are the limits")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=9, frameon=False)
    return _svg(figure)


def _figure(rows: int, size: tuple[float, float] = (5, 3.4)) -> tuple[Any, list[Any]]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        return figure, list(figure.subplots(rows, 1, squeeze=False)[:, 0])


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context(_STYLE):
        # Without a date: the same figures give the same page.
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
