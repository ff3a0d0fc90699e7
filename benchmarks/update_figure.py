"""The picture of an update's time over each of its sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLORS = {"plain_eager_ms": "tab:orange", "product_ms": "tab:blue", "floor_ms": "0.45"}
LABELS = {"plain_eager_ms": "plain PyTorch", "product_ms": "this project", "floor_ms": "floor: matrix products alone"}
LABELLED = "flow_steps"
AXES = {
    "batch": "rows of a batch",
    "critics": "critics in the ensemble",
    "flow_steps": "flow steps F",
    "width": "width of a hidden layer",
}


def figure(sweeps: Mapping[str, Sequence[Mapping[str, float]]], published: Mapping[str, int], machine: str) -> Any:
    """Draw one panel for every size that was varied; ``published`` is where all others stay."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

    picture = Figure(figsize=(10.5, 3.9), layout="constrained")
    panels = picture.subplots(1, len(sweeps), sharey=True, squeeze=False)[0]
    for panel, (size, rows) in zip(panels, sweeps.items(), strict=True):
        values = [row["value"] for row in rows]
        for name, color in COLORS.items():
            line = "--" if name == "floor_ms" else "-"
            panel.plot(values, [row[name] for row in rows], line, color=color, marker="o", ms=4, lw=1.6)
        panel.axvline(published[size], color="0.8", lw=1, zorder=0)
        panel.set(xscale="log", yscale="log", xlabel=AXES[size])
        panel.xaxis.set_major_locator(FixedLocator(values))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_axisbelow(True)
        panel.grid(axis="y", color="0.92", lw=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        # Where the curves are flattest there is room beside them for their names.
        if size == (LABELLED if LABELLED in sweeps else next(iter(sweeps))):
            for name, color in COLORS.items():
                above = name == "plain_eager_ms"
                height = (1.1 if above else 0.9) * rows[0][name]
                align = "bottom" if above else "top"
                panel.text(values[0], height, LABELS[name], color=color, fontsize=9, va=align)
    panels[0].set_ylabel("milliseconds an update")
    panels[0].text(
        published[next(iter(sweeps))],
        0.01,
        "published \nsetting ",
        transform=panels[0].get_xaxis_transform(),
        color="0.4",
        fontsize=9,
        ha="right",
    )
    picture.suptitle(f"One training update in float32: {machine}", fontsize=11)
    return picture
