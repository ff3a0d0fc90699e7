"""Whether there is time for what nobody waits for, before the next thing that somebody does wait for."""

from __future__ import annotations

from collections import deque

from rql_core.contract.time import NANOSECONDS
from rql_core.errors import ConfigError

# The longest of so many durations is expected again: one in eight may be slow without being taken by surprise often.
WINDOW = 8
# Where there is never time enough, it is done once in so long nevertheless.
AT_LEAST_EVERY_NS = NANOSECONDS


class SpareTime:
    """Times are ns of one clock, which may be set back. Owned by one thread; reads no clock."""

    def __init__(self, at_least_every_ns: int = AT_LEAST_EVERY_NS) -> None:
        """Raises ConfigError for a time that is not positive."""
        if at_least_every_ns <= 0:
            raise ConfigError(f"at_least_every_ns is {at_least_every_ns}, expected more than 0")
        self._at_least_every_ns = at_least_every_ns
        self._durations: deque[int] = deque(maxlen=WINDOW)
        self._last_ns: int | None = None

    def allows(self, now_ns: int, due_ns: int) -> bool:
        """Whether it will be over by `due_ns` if begun now, or has not been done for too long."""
        if self._last_ns is None or not 0 <= now_ns - self._last_ns < self._at_least_every_ns:
            return True
        return now_ns + max(self._durations, default=0) <= due_ns

    def took(self, now_ns: int, duration_ns: int) -> None:
        """It was done, and ended now."""
        self._last_ns = now_ns
        self._durations.append(duration_ns)
