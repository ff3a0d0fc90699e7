"""Estimates of a checkpoint from logs: what they are called, what they mean, and what is kept of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# A hundredth of the range: a network that is asked for exactly 0 gives a little more half of the time.
OUTSIDE_ROOM = 0.01


def percent(share: float) -> str:
    """A share as a reader sees it."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


@dataclass(frozen=True)
class Figure:
    """How a figure is called, and what it means in a phrase."""

    label: str
    meaning: str
    """In it, {noises} stands for the number of samples."""
    detail: bool = False
    """Whether it is part of the figure above it."""
    share: bool = False
    """Whether it is shown in percent."""

    def show(self, value: float | None) -> str:
        """The number for a table."""
        if value is None:
            return "-"
        return percent(value) if self.share else f"{value:.3g}"


FIGURES = {
    "fqe_value": Figure("value, fitted afresh", "discounted return from episode starts that the logs predict (FQE)"),
    "fqe_spread": Figure("spread over critics", "how far critics that began with other weights disagree", detail=True),
    "own_value": Figure("value, own critics", "the same by the critics that the policy was trained with"),
    "own_spread": Figure("spread over critics", "how far they disagree", detail=True),
    "promise": Figure("own minus fitted", "above 0: its critics promise more than the logs confirm", detail=True),
    "outside": Figure("out of range", "share of its critics' values that no return can have", detail=True, share=True),
    "td_rms": Figure("TD error, RMS", "how far its critics contradict themselves from one chunk to the next"),
    "td_mean": Figure("mean", "above 0: chunks turn out better than its critics thought", detail=True),
    "td_share": Figure("of targets' spread", "0: exact; 1: no better than a constant", detail=True),
    "distance_mean": Figure("distance to the logs", "mean |policy - logged| of an action number in [-1, 1]"),
    "distance_nearest": Figure("nearest sample", "of {noises} samples of the policy, the nearest one's", detail=True),
    "distance_random": Figure(
        "nearest at random", "of {noises} chunks logged elsewhere, the nearest one's", detail=True
    ),
    "saturation": Figure("actions at a limit", "share of the policy's action numbers at -1 or 1", share=True),
    "logged_saturation": Figure("in the logs", "share of the logged action numbers there", detail=True, share=True),
    "unfamiliar": Figure("unfamiliar inputs", "share of observations beyond what it was trained on", share=True),
}


@dataclass(frozen=True)
class EpisodeTrace:
    """Values along a logged episode, at each of its steps; nan where there is none."""

    index: int
    fitted: Array
    own: Array
    own_spread: Array
    logged: Array
    """Discounted return that the log itself collects until its next terminal; nan where none follows."""
    terminals: NDArray[np.int64]
    """The steps that were terminals."""


@dataclass(frozen=True)
class OwnCritics:
    """What the checkpoint's own critics say; a value is a mean over the ensemble."""

    start_values: Array
    """(starts, critics)."""
    values: Array
    """Every value that was asked for: of observations and of logged chunks."""
    errors: Array
    """(windows,): R + gamma^h m V(s') - Q(s, a), at the gamma that the critics were trained with."""
    targets: Array
    """(windows,)."""
    low: float
    high: float
    """The returns that the rewards allow at that gamma."""

    def outside(self) -> float:
        """Share of the values that no return can have, with room for what a network misses a limit by."""
        slack = OUTSIDE_ROOM * (self.high - self.low)
        return float(((self.values < self.low - slack) | (self.values > self.high + slack)).mean())


@dataclass(frozen=True)
class Distances:
    """Of the policy's samples from the logged chunk at the same observation, a mean over its numbers."""

    mean: Array
    """(action_dim,): of all samples."""
    nearest: Array
    """(action_dim,): of the sample that is nearest as a whole."""
    random: Array
    """(action_dim,): of the nearest of as many logged chunks from other places."""
    saturation: float
    logged_saturation: float


@dataclass(frozen=True)
class Estimates:
    """All that was found; `figures` are its numbers by the names of `FIGURES`."""

    algorithm: str
    gamma: float
    low: float
    high: float
    """The returns that the rewards allow."""
    noises: int
    same_data: bool
    """Whether the data are those that the checkpoint was trained on, as far as their statistics tell."""
    unfamiliar: float
    curve_updates: tuple[int, ...]
    curve: Array
    """(measurements, critics): FQE's value at the starts over updates."""
    start_values: Array
    """(starts, critics): by FQE at the end."""
    state_spread: float
    """Standard deviation of FQE's value over the windows' observations: the scale of what is worth telling apart."""
    own: OwnCritics | None
    distances: Distances
    traces: tuple[EpisodeTrace, ...]
    comparable: bool
    """Whether FQE discounts, and lets the policy act, as the checkpoint's critics take for granted."""
    rewards_differ: bool
    """Whether the logs hold more than one reward."""

    def figures(self) -> dict[str, float | None]:
        """Every number by name; None where the checkpoint has no critics."""
        own, distances = self.own, self.distances
        fqe_value = float(self.start_values.mean())
        figures: dict[str, float | None] = dict.fromkeys(FIGURES)
        figures |= {
            "fqe_value": fqe_value,
            "fqe_spread": float(self.start_values.mean(axis=0).std()),
            "distance_mean": float(distances.mean.mean()),
            "distance_nearest": float(distances.nearest.mean()),
            "distance_random": float(distances.random.mean()),
            "saturation": distances.saturation,
            "logged_saturation": distances.logged_saturation,
            "unfamiliar": self.unfamiliar,
        }
        if own is not None:
            own_value = float(own.start_values.mean())
            rms = float(np.sqrt(np.square(own.errors).mean()))
            spread = float(own.targets.std())
            figures |= {
                "own_value": own_value,
                "own_spread": float(own.start_values.std(axis=1).mean()),
                "promise": own_value - fqe_value if self.comparable else None,
                "td_rms": rms,
                "td_mean": float(own.errors.mean()),
                "td_share": rms / spread if spread > 0 else None,
                "outside": own.outside(),
            }
        return figures
