"""How far a reversed flow is from the noise it came from: Euler, midpoint and dopri5 on a flow with a closed form.

The flow makes a one-dimensional mixture of two normals from a standard normal.  Its velocity is known exactly, so that
whatever a round trip changes is the integrator's doing.  `docs/reversal.md` explains the result.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rql_core.flow import Integrator, integrate, reverse

# Two modes inside the action limits of [-1, 1], each narrower than the noise, with hardly any mass between them.
MEANS, SPREADS = (-0.6, 0.6), (0.2, 0.2)
FLOW_STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64)
# Those that the table shows, to fit a page.
TABLE_STEPS = (1, 2, 5, 10, 20, 40, 64)
# Where the published results were made.
PUBLISHED_STEPS = 10
IMAGE = Path(__file__).resolve().parents[1] / "docs" / "images" / "reversal_round_trip.png"
COLORS = {"euler": "tab:blue", "midpoint": "tab:orange", "dopri5": "tab:green"}


class MixtureFlow:
    """The flow along straight paths x_t = (1 - t) x_0 + t a, for a from an equal mixture of normals; counts its calls.

    Given its mode, x_t is normal with mean t m and variance (1 - t)^2 + t^2 s^2, and a - x_0 is linear in it; the
    velocity E[a - x_0 | x_t] is the mean over modes, weighted by their probability given x_t (Lipman et al.,
    arXiv 2210.02747).
    """

    def __init__(self) -> None:
        self.calls = 0
        self._means = torch.tensor(MEANS, dtype=torch.float64)
        self._variances = torch.tensor(SPREADS, dtype=torch.float64).square()

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        """Return velocities (batch, 1) at x (batch, 1) and time (batch, 1)."""
        self.calls += 1
        variance = (1 - time).square() + time.square() * self._variances
        gap = x - time * self._means
        modes = torch.softmax(-0.5 * (gap.square() / variance + variance.log()), dim=1)
        slope = (time * self._variances - (1 - time)) / variance
        return (modes * (self._means + slope * gap)).sum(dim=1, keepdim=True)


def mixture(rows: int) -> Tensor:
    """Return actions (rows, 1) at even quantiles of each mode: the distribution itself, without sampling noise."""
    each = rows // len(MEANS)
    quantiles = torch.special.ndtri((torch.arange(each, dtype=torch.float64) + 0.5) / each)
    return torch.cat([mean + spread * quantiles for mean, spread in zip(MEANS, SPREADS, strict=True)]).unsqueeze(1)


@dataclass(frozen=True)
class RoundTrip:
    """What came of reversing actions to noise and integrating that noise again."""

    error: float
    """Root mean square of action - action again."""
    noise_spread: float
    """Standard deviation of the noise; 1 if the reversal is right."""
    evaluations: int
    """Evaluations of the velocity that one reversal took."""


def round_trip(actions: Tensor, steps: int, back: Integrator, forth: Integrator | None = None) -> RoundTrip:
    """Go back from actions (rows, 1) at t = 1 to t = 0 and forth again, in ``steps`` steps each.

    ``forth`` None: by the same method.
    """
    flow = MixtureFlow()
    noise = reverse(flow, actions, torch.ones_like(actions), steps, back)
    evaluations = flow.calls
    again = integrate(flow, noise, steps, forth or back)
    error = (again - actions).square().mean().sqrt()
    return RoundTrip(float(error), float(noise.std(correction=0)), evaluations)


def table(euler: dict[int, RoundTrip], midpoint: dict[int, RoundTrip], adaptive: RoundTrip) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| flow steps F | Euler: error | noise std | midpoint: error | noise std |",
        "|---:|---:|---:|---:|---:|",
    ]
    for steps in TABLE_STEPS:
        a, b = euler[steps], midpoint[steps]
        lines.append(f"| {steps} | {a.error:.4f} | {a.noise_spread:.3f} | {b.error:.5f} | {b.noise_spread:.3f} |")
    lines += [
        "",
        f"dopri5 chooses its own steps: error {adaptive.error:.5f}, noise std {adaptive.noise_spread:.3f}, "
        f"{adaptive.evaluations} velocity evaluations a reversal (Euler takes F, midpoint 2 F).",
    ]
    return "\n".join(lines)


def figure(euler: dict[int, RoundTrip], midpoint: dict[int, RoundTrip], adaptive: RoundTrip) -> Any:
    """Draw error and noise spread over F."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    picture = Figure(figsize=(8, 3.8), layout="constrained")
    left, right = picture.subplots(1, 2)
    for axis, quantity in ((left, "error"), (right, "noise_spread")):
        for method, curve in (("euler", euler), ("midpoint", midpoint)):
            values = [getattr(trip, quantity) for trip in curve.values()]
            axis.plot(list(curve), values, color=COLORS[method], marker="o", ms=4, lw=1.6)
        axis.axhline(getattr(adaptive, quantity), color=COLORS["dopri5"], lw=1.6, zorder=1)
        axis.axvline(PUBLISHED_STEPS, color="0.6", lw=1, ls="--", zorder=0)
        axis.set(xscale="log", xlabel="flow steps F")
        axis.xaxis.set_major_locator(FixedLocator([1, 2, 4, 10, 20, 40, 64]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.set_axisbelow(True)
        axis.grid(color="0.92", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    for curve, power in ((euler, 1), (midpoint, 3)):
        # Drawn a little below the curve, so that the slopes can be compared.
        guide = [0.6 * curve[24].error * (24 / steps) ** power for steps in (16, 64)]
        left.plot((16, 64), guide, color="0.45", lw=1, ls=":")
        label = "∝ 1/F" if power == 1 else f"∝ 1/F$^{power}$"
        left.text(64, 0.8 * guide[1], label, color="0.3", fontsize=9, ha="right", va="top")
    left.set(
        yscale="log",
        ylabel="RMS error (actions: -1 to 1)",
        title="Round trip: action → noise → action",
        ylim=(7e-7, 1.4),
    )
    left.text(24, 0.075, "Euler", color=COLORS["euler"])
    left.text(1.1, 0.03, "midpoint", color=COLORS["midpoint"])
    left.text(1, 1.25 * adaptive.error, "dopri5 (steps of its own)", color=COLORS["dopri5"], fontsize=9)
    right.set(ylabel="standard deviation", title="Spread of reversed noise: 1 is right", ylim=(-0.04, 1.09))
    right.text(10.6, 0.03, "published\nresults: F = 10", color="0.4", fontsize=9)
    right.text(16, 0.81, "Euler", color=COLORS["euler"])
    right.text(3.5, 0.89, "midpoint", color=COLORS["midpoint"])
    right.text(1, 1.02, "dopri5", color=COLORS["dopri5"], fontsize=9)
    return picture


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the picture."""
    parser = argparse.ArgumentParser(
        description="Round-trip error of flow reversal over the number of flow steps, on a flow with a closed form.",
        epilog="Example: python -m benchmarks.reversal_error --out build/reversal.png",
    )
    parser.add_argument("--rows", type=int, default=4_000, help="actions to reverse (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=IMAGE, help="the PNG to write (default: %(default)s)")
    options = parser.parse_args(arguments)
    actions = mixture(options.rows)
    euler = {steps: round_trip(actions, steps, "euler") for steps in FLOW_STEPS}
    midpoint = {steps: round_trip(actions, steps, "midpoint") for steps in FLOW_STEPS}
    adaptive = round_trip(actions, PUBLISHED_STEPS, "dopri5")
    print(table(euler, midpoint, adaptive))
    one_way = round_trip(actions, PUBLISHED_STEPS, "dopri5", "euler")
    print(f"Back by dopri5 and forth by Euler with F = {PUBLISHED_STEPS}: error {one_way.error:.4f}.")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure(euler, midpoint, adaptive).savefig(options.out, dpi=150)


if __name__ == "__main__":
    main()
