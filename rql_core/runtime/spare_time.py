"""When to do what nobody waits for: where it is in nobody's way, and before it has waited too long."""

from __future__ import annotations

from collections import deque

from rql_core.contract.time import NANOSECONDS
from rql_core.errors import ConfigError

# The longest of so many durations is expected again: one in eight may be slow without being taken by surprise often.
WINDOW = 8
# Where there is never time enough, it is done once in so long nevertheless, but for at most this share of the time:
# whatever it gets in the way of is to stay rare. Ten critics of 4 x 512 then take 8 ms every 4 s.
AT_LEAST_EVERY_NS = NANOSECONDS
MOST_SHARE = 1 / 500


class SpareTime:
    """What has to fit in before something that somebody does wait for, or is left out.

    Times are ns of one clock, which may be set back. Owned by one thread; reads no clock.
    """

    def __init__(self, at_least_every_ns: int = AT_LEAST_EVERY_NS, most_share: float = MOST_SHARE) -> None:
        """Raises ConfigError for a time that is not positive, or a share that is not above 0 and at most 1."""
        if at_least_every_ns <= 0:
            raise ConfigError(f"at_least_every_ns is {at_least_every_ns}, expected more than 0")
        if not 0 < most_share <= 1:
            raise ConfigError(f"most_share is {most_share}, expected more than 0 and at most 1")
        self._at_least_every_ns = at_least_every_ns
        self._most_share = most_share
        self._durations: deque[int] = deque(maxlen=WINDOW)
        self._last_ns: int | None = None

    def allows(self, now_ns: int, due_ns: int) -> bool:
        """Whether it will be over by `due_ns` if begun now, or has not been done for too long."""
        longest = max(self._durations, default=0)
        patience = max(self._at_least_every_ns, longest / self._most_share)
        if self._last_ns is None or not 0 <= now_ns - self._last_ns < patience:
            return True
        return now_ns + longest <= due_ns

    def took(self, now_ns: int, duration_ns: int) -> None:
        """It was done, and ended now."""
        self._last_ns = now_ns
        self._durations.append(duration_ns)


class Postponed:
    """What is due every `period_ns`: at the first good moment, or without one when it has waited for `patience_ns`.

    A good moment is just after a chunk has left: what keeps the interpreter busy for milliseconds would otherwise now
    and then delay one. Times are ns of a clock that is never set back. For any threads of which one at a time asks.
    """

    def __init__(self, period_ns: int, patience_ns: int) -> None:
        """Due for the first time at once. Raises ConfigError for times that are not positive."""
        for name, value in (("period_ns", period_ns), ("patience_ns", patience_ns)):
            if value <= 0:
                raise ConfigError(f"{name} is {value}, expected more than 0")
        self._period_ns, self._patience_ns = period_ns, patience_ns
        self._due_ns: int | None = None

    def now(self, time_ns: int, *, good: bool) -> bool:
        """Whether to do it now; the next is due a period after this was."""
        due = self._due_ns
        if due is not None and time_ns < (due if good else due + self._patience_ns):
            return False
        following = (time_ns if due is None else due) + self._period_ns
        # What was late keeps the mean rate, but what was long past due is not made up for.
        self._due_ns = following if following - time_ns > self._period_ns // 2 else time_ns + self._period_ns
        return True
