"""How many steps a plan takes, told from how many plans took: what decides when to ask and how much to freeze."""

from __future__ import annotations

from collections import deque

from rql_core.errors import ConfigError

# Of so many plans the slowest counts: at five plans a second that is the worst of four seconds, so that a hiccup which
# comes back is expected, and one that does not is forgotten.
WINDOW = 20
# The first plans of a process build caches and wake threads; they are slow once.
WARM_UP = 2


class DelayEstimate:
    """The delay in steps to expect: the greatest of the last measured ones.

    Expecting too much costs a step or two of frozen chunk, expecting too little a gap: hence the greatest and not the
    mean (Black et al., arXiv 2506.07339, do the same).  The first `warm_up` measurements are left out; until there is
    one, `first_steps` is expected.  Owned by one thread.
    """

    def __init__(self, *, window: int = WINDOW, warm_up: int = WARM_UP, first_steps: int = 0) -> None:
        """Know nothing yet; raises ConfigError for a number that makes no sense."""
        for name, value, least in (("window", window, 1), ("warm_up", warm_up, 0), ("first_steps", first_steps, 0)):
            if value < least:
                raise ConfigError(f"delay estimate: {name} is {value}, expected at least {least}")
        self._left_out = warm_up
        self._first_steps = first_steps
        self._measured: deque[int] = deque(maxlen=window)

    def add(self, steps: int) -> None:
        """Take a measurement: whole steps, rounded up, from the observation until its chunk was there."""
        if self._left_out > 0:
            self._left_out -= 1
        else:
            self._measured.append(max(0, steps))

    @property
    def steps(self) -> int:
        """The delay to expect, in whole steps."""
        return max(self._measured, default=self._first_steps)
