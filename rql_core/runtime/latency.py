"""How long things take and what came too late: quantiles of inference, missed deadlines of the control timer."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

from rql_core.errors import ConfigError

# At 50 Hz and a plan a tick this is the last 20 s: enough for a 99th percentile, little enough to follow a change.
WINDOW = 1000
# The first calls fill caches and start threads; counted in, they would be the 99th percentile for the whole window.
WARM_UP = 3


class Latencies:
    """Durations in ns over a sliding window, without the first ones after each `reset`."""

    def __init__(self, window: int = WINDOW, warm_up: int = WARM_UP) -> None:
        self.total = 0
        self._warm_up = warm_up
        self._skip = warm_up
        self._kept: deque[int] = deque(maxlen=window)

    def reset(self) -> None:
        """Forget everything; the next calls are a warm-up again."""
        self._skip = self._warm_up
        self._kept.clear()

    def add(self, duration_ns: int) -> None:
        """Take one duration."""
        self.total += 1
        if self._skip:
            self._skip -= 1
        else:
            self._kept.append(duration_ns)

    def milliseconds(self, quantiles: Iterable[float] = (0.5, 0.95, 0.99)) -> dict[str, float]:
        """The quantiles in ms by name ("p50"); empty where there is nothing to take them of."""
        if not self._kept:
            return {}
        wanted = list(quantiles)
        values = np.quantile(np.array(self._kept, dtype=np.float64), wanted) / 1e6
        return {f"p{100 * q:g}": float(value) for q, value in zip(wanted, values, strict=True)}


class Deadlines:
    """Calls that are due every `period_ns`: how many came later than `slack_periods` after their time."""

    def __init__(self, period_ns: int, slack_periods: float = 1.0) -> None:
        if period_ns <= 0:
            raise ConfigError(f"period_ns is {period_ns}, expected more than 0")
        self.period_ns = period_ns
        self.missed = 0
        self.worst_ns = 0
        self._slack_ns = round(slack_periods * period_ns)
        self._last_ns: int | None = None

    def reset(self) -> None:
        """Start anew: the next call has no deadline, because nothing says when it was due. Counts stay."""
        self._last_ns = None

    def called(self, now_ns: int) -> int:
        """Take a call; how many ns it came after its time (0 for one that is early), one period after the last."""
        late = 0 if self._last_ns is None else max(0, now_ns - self._last_ns - self.period_ns)
        if late > self._slack_ns:
            self.missed += 1
        self.worst_ns = max(self.worst_ns, late)
        self._last_ns = now_ns
        return late
