"""How well chunks join: the jump where one takes over from another, beside the steps that chunks make by themselves."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Hand-overs that are looked back on: half a minute where a chunk lasts a third of a second.
WINDOW = 100


@dataclass(frozen=True, eq=False)
class Seam:
    """A hand-over: the commands (action_dim,) on either side of it, `before` None where nothing was in force, and the
    chunk's `own` actions (steps, action_dim) from there on.
    """

    time_ns: int
    before: npt.NDArray[np.float64] | None
    after: npt.NDArray[np.float64]
    own: npt.NDArray[np.float64]


class Seams:
    """The last hand-overs.  `span` (action_dim,): upper limit minus lower limit of each joint.

    Sizes are the largest over the joints, each as a share of that joint's range of limits.  Owned by one thread.
    """

    def __init__(self, span: npt.NDArray[np.float64], window: int = WINDOW) -> None:
        self._span = span
        self._seams: deque[Seam] = deque(maxlen=window)

    def add(
        self,
        time_ns: int,
        before: npt.NDArray[np.float64] | None,
        after: npt.NDArray[np.float64],
        own: npt.NDArray[np.float64],
    ) -> None:
        """Note a hand-over: the commands (action_dim,) on either side, and the chunk's `own` actions from there on.

        Another one at the same time replaces it: of the chunk between, nothing was executed.
        """
        if self._seams and self._seams[-1].time_ns == time_ns:
            self._seams.pop()
        # What is made of it is for whoever asks: this is on the way of a chunk to the robot.
        self._seams.append(Seam(time_ns, before, after, own))

    def drop_after(self, time_ns: int) -> None:
        """Forget those that were planned for later than this, and never happened."""
        while self._seams and self._seams[-1].time_ns > time_ns:
            self._seams.pop()

    def figures(self, time_ns: int) -> dict[str, float]:
        """Of the hand-overs until now: how many, the jumps, the steps within chunks, and the one beside the other.

        `seam_ratio` is the largest jump by the 95th percentile of the steps within: up to about 1 a hand-over cannot be
        told from any other step.  Without anything to compare there is no such key; it is infinite where chunks stand
        still and jump.
        """
        past = [seam for seam in self._seams if seam.time_ns <= time_ns]
        taken_over = [(seam.before, seam.after) for seam in past if seam.before is not None]
        jumps = self._size(np.array([after - before for before, after in taken_over])) if taken_over else np.zeros(0)
        within = np.zeros(0)
        if past:
            # All chunks as one array: a difference each, but for those across the ends of two.
            steps = np.diff(np.concatenate([seam.own for seam in past]), axis=0)
            ends = np.cumsum([len(seam.own) for seam in past])[:-1] - 1
            within = self._size(np.delete(steps, ends, axis=0))
        figures = {"seams": float(len(jumps))}
        if jumps.size:
            figures |= {"seam_jump_max": float(jumps.max()), "seam_jump_mean": float(jumps.mean())}
        if within.size:
            figures["within_step_p95"] = float(np.percentile(within, 95))
        if jumps.size and within.size:
            largest, usual = figures["seam_jump_max"], figures["within_step_p95"]
            figures["seam_ratio"] = largest / usual if usual > 0 else (0.0 if largest == 0 else float("inf"))
        return figures

    def _size(self, steps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Steps (..., action_dim) -> (...)."""
        size: npt.NDArray[np.float64] = (np.abs(steps) / self._span).max(axis=-1)
        return size
