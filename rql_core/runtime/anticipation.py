"""When to rehearse: early enough to be over when the next observation comes, and late enough that caches stay warm.

Between two observations at 50 Hz others fill the processor's caches, and what then has to be done takes up to four
times as long as right after it was done before (docs/speed.md).
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction

from rql_core.contract.time import tick_time
from rql_core.errors import ConfigError

# The earliest of so many observations is expected again, and the longest of so many rehearsals.
WINDOW = 8
# Between the expected end of rehearsals and the observation: what is warm stays so for some ms, and an observation that
# comes during a rehearsal waits for them. At most a share of the period, so that at high rates there is time.
MARGIN_NS = 2_000_000
MARGIN_PERIODS = 0.25


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
        self._took_ns: deque[int] = deque(maxlen=WINDOW)

    def observed(self, tick: int, now_ns: int) -> None:
        """The observation of a tick has come."""
        ahead = now_ns - tick_time(tick, self._rate)
        if self._ahead_ns and abs(ahead - self._ahead_ns[-1]) > self._period_ns:
            self._ahead_ns.clear()  # the ticks' clock was set, or stood still
        self._ahead_ns.append(ahead)

    def took(self, duration_ns: int) -> None:
        """An observation was answered, or a rehearsal made, in so long."""
        self._took_ns.append(duration_ns)

    def begins(self, tick: int, now_ns: int, most: int) -> list[int]:
        """When to begin each rehearsal for the observation of a tick: `most` of them, or as many as there is time for
        from now on; none where nothing is known either.
        """
        if len(self._ahead_ns) < 2 or not self._took_ns:
            return []
        longest = max(1, *self._took_ns)
        end = tick_time(tick, self._rate) + min(self._ahead_ns) - self.margin_ns
        times = min(most, max(0, (end - now_ns) // longest))
        return [end - left * longest for left in range(times, 0, -1)]
