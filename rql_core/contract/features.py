"""From the aligned numbers of a tick, and of the ticks before it, to the observation vector.

Rotations are written as the contract says, differences and histories taken over ticks that follow each other. Where the
ticks before are not there yet, there is no observation: nothing is filled in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rql_core.contract.fields import Numbers
from rql_core.contract.rotations import between, rotation_vector, six_numbers, wrap, yaw
from rql_core.contract.schema import Contract, Feature


@dataclass(frozen=True)
class _Block:
    """Where a feature's numbers come from (`source`) and go to (`into`)."""

    feature: Feature
    source: slice
    into: slice


class ObservationBuilder:
    """Takes the aligned numbers of consecutive ticks, gives the observations; `reset` where ticks do not follow."""

    def __init__(self, contract: Contract) -> None:
        self._needed = 1 + contract.past_ticks
        self._blocks: list[_Block] = []
        source = into = 0
        for feature in contract.features:
            sizes = len(feature.numbers), len(feature.present)
            self._blocks.append(_Block(feature, slice(source, source + sizes[0]), slice(into, into + sizes[1])))
            source, into = source + sizes[0], into + sizes[1]
        self._present_dim = into
        self._is_plain = all(f.rotation is None and f.past_ticks == 0 for f in contract.features)
        longest = max(feature.history for feature in contract.features)
        self._presents: deque[Numbers] = deque(maxlen=longest)
        self._gather = _gather(self._blocks, longest, into)
        self._before: Numbers | None = None
        self._ticks = 0

    def reset(self) -> None:
        """The next tick does not follow on the last."""
        self._presents.clear()
        self._before = None
        self._ticks = 0

    def add(self, numbers: Numbers) -> npt.NDArray[np.float32] | None:
        """The observation (observation_dim,) float32 of the next tick, or None while it lacks ticks before it."""
        if self._is_plain:
            return numbers.astype(np.float32)
        before, self._before = self._before, numbers
        present = np.empty(self._present_dim)
        for block in self._blocks:
            present[block.into] = _present(
                block.feature, numbers[block.source], None if before is None else before[block.source]
            )
        self._presents.append(present)
        self._ticks += 1
        if self._ticks < self._needed:
            return None
        return np.concatenate(self._presents)[self._gather].astype(np.float32)


def _gather(blocks: list[_Block], longest: int, present_dim: int) -> npt.NDArray[np.intp]:
    """For each number of the observation, where it stands among the `longest` last ticks, the oldest first."""
    return np.concatenate(
        [
            (longest - 1 - ago) * present_dim + np.arange(block.into.start, block.into.stop)
            for block in blocks
            for ago in reversed(range(block.feature.history))
        ]
    ).astype(np.intp)


def _present(feature: Feature, now: Numbers, before: Numbers | None) -> npt.ArrayLike:
    """A feature's numbers at one tick; of a difference NaN where the tick before is not there, which nobody uses."""
    if feature.difference and before is None:
        return np.nan
    if feature.rotation is None:
        return now if before is None or not feature.difference else now - before
    quaternion = now.tolist()
    if feature.rotation == "6d":
        return six_numbers(quaternion)
    if before is None or not feature.difference:
        return rotation_vector(quaternion) if feature.rotation == "rotation_vector" else yaw(quaternion)
    if feature.rotation == "rotation_vector":
        return rotation_vector(between(before.tolist(), quaternion))
    return wrap(yaw(quaternion) - yaw(before.tolist()))
