"""When to rehearse: early enough to be over when the next observation comes, and late enough that caches stay warm.

Between two observations at 50 Hz others fill the processor's caches, and what then has to be done takes up to four
times as long as right after it was done before (docs/speed.md).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

from rql_core.contract.time import NANOSECONDS, tick_time
from rql_core.errors import ConfigError

# The earliest of so many observations is expected again.
WINDOW = 8
# Of so many rehearsals one in ten may take longer than is expected, and where there is less time one in four; the
# margin is for those.
REHEARSALS, EXPECTED, EXPECTED_IN_HASTE = 16, 0.9, 0.75
# How long rehearsals took is forgotten when none was made for so long: where they do not fit, because they were slow
# once, one is tried again, but so seldom that the observations which may wait for it are rare.
FORGET_NS = 2 * NANOSECONDS
# Between the expected end of rehearsals and the observation: what is warm stays so for a ms or two, and an observation
# that comes during a rehearsal waits for it. At most a share of the period, so that at high rates there is time.
MARGIN_NS = 1_000_000
MARGIN_PERIODS = 0.2


@dataclass(frozen=True)
class Begin:
    """When to begin a rehearsal, in ns, and whether it goes through the network, or only through all else."""

    time_ns: int
    whole: bool = True


class _Durations:
    """How long one kind of rehearsal takes."""

    def __init__(self) -> None:
        self._took_ns: deque[int] = deque(maxlen=REHEARSALS)
        self._last_ns = 0

    def add(self, now_ns: int, duration_ns: int) -> None:
        self._took_ns.append(duration_ns)
        self._last_ns = now_ns

    def expected_ns(self, now_ns: int, unknown_ns: int, share: float) -> int:
        if now_ns - self._last_ns > FORGET_NS:
            self._took_ns.clear()
        if not self._took_ns:
            return max(1, unknown_ns)
        return max(1, sorted(self._took_ns)[round(share * (len(self._took_ns) - 1))])

    @property
    def longest_ns(self) -> int:
        return max(self._took_ns, default=0)


class Anticipation:
    """Learns when observations come and how long they take. Times are ns of one clock that is never set back.

    Owned by one thread; reads no clock.
    """

    def __init__(self, rate: Fraction, margin_ns: int | None = None) -> None:
        """`rate`: of the contract, whose ticks the observations have. Raises ConfigError for a negative margin."""
        self._period_ns = round(1e9 / rate)
        self._rate = rate
        own = min(MARGIN_NS, round(MARGIN_PERIODS * self._period_ns))
        self.margin_ns = own if margin_ns is None else margin_ns
        if self.margin_ns < 0:
            raise ConfigError(f"margin_ns is {margin_ns}, expected at least 0")
        # By how much the clock is ahead of the ticks' times when their observations come.
        self._ahead_ns: deque[int] = deque(maxlen=WINDOW)
        self._answers_ns: deque[int] = deque(maxlen=WINDOW)
        # The first is the one that fetches everything from memory.
        self._first, self._later, self._partial = _Durations(), _Durations(), _Durations()

    def observed(self, tick: int, now_ns: int) -> None:
        """The observation of a tick has come."""
        ahead = now_ns - tick_time(tick, self._rate)
        if self._ahead_ns and abs(ahead - self._ahead_ns[-1]) > self._period_ns:
            self._ahead_ns.clear()  # the ticks' clock was set, or stood still
        self._ahead_ns.append(ahead)

    def answered(self, duration_ns: int) -> None:
        """An observation was answered in so long."""
        self._answers_ns.append(duration_ns)

    def rehearsed(self, now_ns: int, duration_ns: int, *, first: bool = True, whole: bool = True) -> None:
        """A rehearsal took so long and ended now: whether it was the first for its observation, and a whole one."""
        durations = self._partial if not whole else self._first if first else self._later
        durations.add(now_ns, duration_ns)

    def begins(self, tick: int, now_ns: int, most: int) -> list[Begin]:
        """When to begin each rehearsal for the observation of a tick.

        `most` of them, or as many as there is time for from now on; where there is not enough for one, a partial one;
        none where nothing is known. The first begins early enough to take as long as the longest of late, if it can:
        otherwise the one after it would be left out then.
        """
        if len(self._ahead_ns) < 2 or not self._answers_ns or most < 1:
            return []
        end = tick_time(tick, self._rate) + min(self._ahead_ns) - self.margin_ns
        # An answer that was made without rehearsals takes longer than what follows it at once.
        fastest = min(self._answers_ns)
        for share, least in ((EXPECTED, most), (EXPECTED_IN_HASTE, 1)):
            first = self._first.expected_ns(now_ns, fastest, share)
            later = self._later.expected_ns(now_ns, first, share)
            number = min(most, 1 + (end - now_ns - first) // later)
            if number >= least:
                lasts = [end - left * later for left in range(number - 1, 0, -1)]
                begin = end - (number - 1) * later - max(first, self._first.longest_ns)
                return [Begin(time) for time in (max(now_ns, begin), *lasts)]
        partial = self._partial.expected_ns(now_ns, fastest // 2, EXPECTED_IN_HASTE)
        return [Begin(end - partial, whole=False)] if end - now_ns >= partial else []
