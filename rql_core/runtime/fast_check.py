"""Whether a whole chunk keeps the limits as it is, by a few array operations: nearly every chunk does.

It never says yes to what step by step would be changed; where it says no, step by step decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rql_core.runtime.limits import Limits

if TYPE_CHECKING:
    from rql_core.runtime.safety import State

Array = npt.NDArray[np.float64]


class FastCheck:
    """The limits as arrays (action_dim,)."""

    def __init__(self, limits: Limits) -> None:
        self._order, self._period = limits.order, limits.period
        column = limits.column
        self._lower, self._upper = column("lower"), column("upper")
        self._acceleration, self._jerk = column("acceleration"), column("jerk")
        self._slowest, self._fastest = column("slowest"), column("fastest")
        self._low, self._high = column("low"), column("high")
        self._bounded = bool(np.isfinite(self._low).any())
        if self._order >= 2:
            # `reach` as a quadratic form: speed * (change / jerk + speed / 2a + a / 2j + 2).
            self._per_change = 1.0 / self._jerk
            self._per_speed = 0.5 / self._acceleration
            self._steps = 2.0 + 0.5 * self._acceleration / self._jerk
            self._half = 0.5 / self._jerk

    def passes(self, chunk: Array, state: State, low: Array | None, high: Array | None) -> bool:
        """Whether the finite `chunk` (steps, action_dim) may leave unchanged after `state`.

        `low` and `high` (steps, action_dim): limits round the measured state, None where there are none.
        """
        order = self._order
        if not ((chunk >= self._lower) & (chunk <= self._upper)).all():
            return False  # now, so that nothing below can overflow
        keeps = np.ones(chunk.shape, dtype=bool)
        if low is not None and high is not None:
            keeps &= (chunk >= low) & (chunk <= high)
        whole = np.concatenate([state.commands[3 - order :], chunk])
        difference = whole[1:] - whole[:-1]
        if order == 1:
            return bool((keeps & (np.abs(difference) <= self._acceleration)).all())
        speed, change = (difference, difference[1:] - difference[:-1]) if order == 3 else (whole, difference)
        jerk = change[1:] - change[:-1]
        if not (np.abs(jerk) <= self._jerk).all():
            return False  # as nearly every chunk that does not keep the limits
        speed, change = speed[2:], change[1:]
        size = np.abs(change)
        # The speed that a change leads to, before jerk has brought it to zero, is at most change^2 / 2j more.
        reached = speed + change * size * self._half
        keeps &= size <= self._acceleration
        keeps &= reached <= self._fastest
        keeps &= reached >= self._slowest
        if self._bounded and (order == 3 or state.position is not None):
            at = chunk
            if order == 2 and state.position is not None:
                at = np.add.accumulate(chunk) + state.position / self._period
            up = np.maximum(np.maximum(speed, reached), 0.0)
            down = np.minimum(np.minimum(speed, reached), 0.0)
            most = size * self._per_change + self._steps
            keeps &= at + up * (most + up * self._per_speed) <= self._high
            keeps &= at + down * (most - down * self._per_speed) >= self._low
        return bool(keeps.all())
