"""Percentiles of any number of whole numbers in bounded memory; the same whatever the pieces in which they come."""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

# So many numbers are kept as they are, half a megabyte: two minutes at 500 a second.
EXACT = 2**16
# Buckets a doubling of the distance: what one is wide is 1/256 of how far it is away, so no percentile is off by more.
_PARTS = 256


class Distribution:
    """Numbers such as periods and ages in ns, of which the first 65,536 are kept as they are.

    After that they are counted in buckets whose width grows with the distance to the median of those first ones: a
    percentile is then off by at most 1/256 (0.4 %) of its own distance to that median, which for numbers that hardly
    differ is nothing. `count`, `lowest` and `highest` (0 without numbers) are always exact.
    """

    def __init__(self) -> None:
        self.count = 0
        self.lowest = 0
        self.highest = 0
        self._kept = array("q")
        self._origin: int | None = None
        # By key: how many there are in a bucket, and the least and greatest of them.
        self._keys = self._counts = self._low = self._high = np.empty(0, dtype=np.int64)

    def add(self, values: Int64) -> None:
        """Count numbers (n,)."""
        if not len(values):
            return
        low, high = int(values.min()), int(values.max())
        self.lowest = min(self.lowest, low) if self.count else low
        self.highest = max(self.highest, high) if self.count else high
        self.count += len(values)
        if self._origin is None:
            room = EXACT - len(self._kept)
            self._kept.frombytes(np.ascontiguousarray(values[:room], dtype=np.int64).tobytes())
            values = values[room:]
            if not len(values):
                return
            first = np.array(self._kept, dtype=np.int64)
            self._origin = int(np.median(first))
            self._kept = array("q")
            self._count_in_buckets(first, self._origin)
        self._count_in_buckets(values, self._origin)

    def percentiles(self, *which: float) -> tuple[float | None, ...]:
        """These percentiles (0 to 100), None each without numbers; as of `numpy.percentile`, between two on a line."""
        if not self.count:
            return tuple(None for _ in which)
        if self._origin is None:
            return tuple(float(value) for value in np.percentile(np.array(self._kept, dtype=np.int64), which))
        ends = np.cumsum(self._counts)

        def at(rank: int) -> float:
            """The number of this rank, on a line from its bucket's least to its greatest."""
            bucket = int(np.searchsorted(ends, rank, side="right"))
            low, count = int(self._low[bucket]), int(self._counts[bucket])
            place = rank - (int(ends[bucket]) - count)
            return low + (int(self._high[bucket]) - low) * place / max(count - 1, 1)

        found = []
        for each in which:
            rank, share = divmod(each / 100 * (self.count - 1), 1.0)
            below = at(int(rank))
            found.append(below + (at(int(rank) + 1) - below) * share if share else below)
        return tuple(found)

    def weighted(self) -> tuple[Float64, Int64]:
        """Numbers (n,) and how often each is there: all of them, or the buckets' middles."""
        if self._origin is None:
            values, counts = np.unique(np.array(self._kept, dtype=np.int64), return_counts=True)
            return values.astype(np.float64), counts.astype(np.int64)
        return (self._low + self._high) / 2, self._counts

    def _count_in_buckets(self, values: Int64, origin: int) -> None:
        values = np.sort(values)
        distance = values - origin
        mantissa, exponent = np.frexp(np.abs(distance).astype(np.float64))
        part = np.floor((2 * mantissa - 1) * _PARTS).astype(np.int64)
        keys = np.concatenate([self._keys, np.sign(distance) * (exponent.astype(np.int64) * _PARTS + part + 1)])
        counts = np.concatenate([self._counts, np.ones(len(values), dtype=np.int64)])
        # Both were in order, so that a stable sort has only to merge them.
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
        self._keys, self._counts = keys[first], np.add.reduceat(counts[order], first)
        self._low = np.minimum.reduceat(np.concatenate([self._low, values])[order], first)
        self._high = np.maximum.reduceat(np.concatenate([self._high, values])[order], first)
