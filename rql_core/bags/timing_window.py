"""Times of which it is not yet known to which episode they belong, in their order."""

from __future__ import annotations

import numpy as np

from rql_core.bags.distribution import Int64


class Window:
    """Times (n,) in ns, each with some numbers (n, width), kept until an episode takes them or none can.

    With `back` an episode's first is the newest at or before its start, what was in force there; otherwise the first at
    or after it. The last one of an episode may be the first of the next. What comes out of order, after an episode took
    what was later, counts as of the next one.
    """

    def __init__(self, width: int, *, back: bool) -> None:
        self._width = width
        self._back = back
        self.clear()

    def __len__(self) -> int:
        return len(self._times)

    def clear(self) -> None:
        """Forget all."""
        self._times = np.empty(0, dtype=np.int64)
        self._values = np.empty((0, self._width), dtype=np.int64)
        self._taken: tuple[Int64, Int64] | None = None

    def add(self, times: Int64, values: Int64) -> None:
        """Take times (n,) with their numbers (n, width), in the order of their arrival."""
        self._join((self._times, self._values), (times, values))

    def take(self, start_ns: int, end_ns: int) -> tuple[Int64, Int64, int | None]:
        """What the episode from `start_ns` has up to `end_ns` and was not taken for it yet; last the time before it."""
        first, before = 0, None
        if self._taken is not None:
            before = int(self._taken[0][0])
        elif self._back:
            first = max(int(np.searchsorted(self._times, start_ns, side="right")) - 1, 0)
        else:
            first = int(np.searchsorted(self._times, start_ns))
        last = max(int(np.searchsorted(self._times, end_ns, side="right")), first)
        times, values = self._times[first:last], self._values[first:last]
        if len(times):
            self._taken = times[-1:].copy(), values[-1:].copy()
            self._times, self._values = self._times[last:].copy(), self._values[last:].copy()
        return times, values, before

    def release(self) -> None:
        """The episode has ended: the last that it took may be of the next one too."""
        if self._taken is not None:
            self._join(self._taken, (self._times, self._values))
            self._taken = None

    def forget_before(self, time_ns: int) -> None:
        """Forget all but the newest at or before the time, and what comes after it."""
        newest = int(np.searchsorted(self._times, time_ns, side="right")) - 1
        if newest > 0:
            self._times, self._values = self._times[newest:].copy(), self._values[newest:].copy()

    def forget_between(self, begin_ns: int, end_ns: int) -> None:
        """Forget what is after `begin_ns`, but not the newest at or before `end_ns`, nor what comes after it."""
        first = int(np.searchsorted(self._times, begin_ns, side="right"))
        last = int(np.searchsorted(self._times, end_ns, side="right")) - 1
        if last > first:
            self._times = np.concatenate([self._times[:first], self._times[last:]])
            self._values = np.concatenate([self._values[:first], self._values[last:]])

    def _join(self, *parts: tuple[Int64, Int64]) -> None:
        """Keep these, by time."""
        self._times = np.concatenate([times for times, _ in parts])
        self._values = np.concatenate([values for _, values in parts])
        if (np.diff(self._times) < 0).any():
            order = np.argsort(self._times, kind="stable")
            self._times, self._values = self._times[order], self._values[order]
