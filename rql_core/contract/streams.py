"""Messages of one topic by stamp, and what of them belongs to a tick: one class for each alignment of the schema.

A stream gets its messages in the order of their stamps. Once one is stamped at or after a tick, nothing that still may
come can change what belongs to the tick; that holds for every alignment here, and is what TickAssembler waits for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from operator import itemgetter

from rql_core.contract.fields import Numbers
from rql_core.contract.observation_schema import Hold, Linear, Nearest
from rql_core.contract.rotations import slerp

Sample = tuple[int, Numbers]


class Stream(ABC):
    """Keeps what the next tick can still need. Ticks are asked for in their order."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque()
        self.newest_ns: int | None = None

    def add(self, stamp_ns: int, values: Numbers) -> None:
        """Take a sample that is newer than all before it."""
        self.samples.append((stamp_ns, values))
        self.newest_ns = stamp_ns

    @abstractmethod
    def at(self, tick_ns: int, begin_ns: int | None = None, end_ns: int | None = None) -> Sample | None:
        """What belongs to the tick, with the stamp of the oldest message that is in it, or None where that is missing.

        `begin_ns`, `end_ns`: from where on and before where the robot was not reset.
        """

    def chance_after(self, tick_ns: int) -> int | None:
        """A time before which no later tick can have anything, where this one has nothing; None where all may come."""
        return next((stamp for stamp, _ in self.samples if stamp > tick_ns), None)

    def forget_between(self, begin_ns: int, end_ns: int) -> None:
        """Let go of what only a tick after `begin_ns` and before `end_ns` can need."""
        samples = list(self.samples)
        first = bisect_right(samples, begin_ns, key=itemgetter(0)) + 1
        last = bisect_right(samples, end_ns, key=itemgetter(0)) - 1
        if last > first:
            self.samples = deque(samples[:first] + samples[last:])

    def _forget_before(self, tick_ns: int) -> None:
        """Let go of all but the newest sample at or before the tick."""
        samples = self.samples
        while len(samples) > 1 and samples[1][0] <= tick_ns:
            samples.popleft()


class HoldStream(Stream):
    """The newest sample at or before the tick, unless it is too old."""

    def __init__(self, max_age_ns: int) -> None:
        super().__init__()
        self._max_age_ns = max_age_ns

    def at(self, tick_ns: int, begin_ns: int | None = None, end_ns: int | None = None) -> Sample | None:
        self._forget_before(tick_ns)
        samples = self.samples
        if not samples or samples[0][0] > tick_ns or tick_ns - samples[0][0] > self._max_age_ns:
            return None
        return samples[0] if begin_ns is None or samples[0][0] >= begin_ns else None


class NearestStream(Stream):
    """The sample nearest to the tick, unless it is too far away; of two equally near the earlier."""

    def __init__(self, tolerance_ns: int) -> None:
        super().__init__()
        self._tolerance_ns = tolerance_ns

    def at(self, tick_ns: int, begin_ns: int | None = None, end_ns: int | None = None) -> Sample | None:
        self._forget_before(tick_ns)
        best: Sample | None = None
        for sample, _ in zip(self.samples, range(2), strict=False):
            if not _inside(sample, begin_ns, end_ns) or abs(sample[0] - tick_ns) > self._tolerance_ns:
                continue
            if best is None or abs(sample[0] - tick_ns) < abs(best[0] - tick_ns):
                best = sample
        return best

    def chance_after(self, tick_ns: int) -> int | None:
        after = super().chance_after(tick_ns)
        return None if after is None else after - self._tolerance_ns


class LinearStream(Stream):
    """The point between the samples before and after the tick; quaternions, which begin at `rotations`, by slerp."""

    def __init__(self, tolerance_ns: int, rotations: Sequence[int] = ()) -> None:
        super().__init__()
        self._tolerance_ns = tolerance_ns
        self._rotations = rotations

    def at(self, tick_ns: int, begin_ns: int | None = None, end_ns: int | None = None) -> Sample | None:
        self._forget_before(tick_ns)
        samples = self.samples
        if not samples or samples[0][0] > tick_ns or not _inside(samples[0], begin_ns, end_ns):
            return None
        before, values = samples[0]
        if before == tick_ns:
            return samples[0]
        if len(samples) < 2 or not _inside(samples[1], begin_ns, end_ns):
            return None
        after, following = samples[1]
        if after - before > self._tolerance_ns:
            return None
        share = (tick_ns - before) / (after - before)
        between: Numbers = values + (following - values) * share
        for start in self._rotations:
            where = slice(start, start + 4)
            between[where] = slerp(values[where].tolist(), following[where].tolist(), share)
        return before, between


def make_stream(align: Hold | Nearest | Linear, rotations: Sequence[int] = ()) -> Stream:
    """The stream for an alignment of the schema; `rotations`: where the quaternions in its numbers begin."""
    if isinstance(align, Hold):
        return HoldStream(align.max_age_ns)
    if isinstance(align, Nearest):
        return NearestStream(align.tolerance_ns)
    return LinearStream(align.tolerance_ns, rotations)


def _inside(sample: Sample, begin_ns: int | None, end_ns: int | None) -> bool:
    return (begin_ns is None or sample[0] >= begin_ns) and (end_ns is None or sample[0] < end_ns)
