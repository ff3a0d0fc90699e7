"""Whether the observations are fresh enough to be acted on: run, hold, stop, and back again by a stated rule.

The contract says per topic how old a message may be; a tick without a complete observation is the first sign of
trouble. What follows is decided here: the chunk in force may go on for `hold_after`, then the robot is brought to rest
and held, and after `stop_after` nothing is commanded any more. Owned by one thread; time comes in as an argument.
"""

from __future__ import annotations

from enum import Enum

from rql_core.contract.alignment import Tick
from rql_core.errors import ConfigError


class Freshness(Enum):
    """What the observations allow; the values are what /diagnostics says."""

    WAITING = "waiting for observations"
    FRESH = "running"
    LATE = "late observations"
    HOLDING = "holding"
    STOPPED = "stopped"


class ObservationWatch:
    """Follows the ticks of a TickAssembler.

    `hold_after_ns`: how long after the last complete observation was due to be followed by another the chunk in force
    goes on; 0 holds at the first tick that misses something. `stop_after_ns`: how long a hold lasts before the watch
    stops. `recovers`: whether a stop ends by itself with the next complete observation, as a hold always does;
    otherwise `rearm` has to be called.
    """

    def __init__(self, hold_after_ns: int, stop_after_ns: int, *, recovers: bool) -> None:
        if not 0 <= hold_after_ns <= stop_after_ns:
            raise ConfigError(
                f"hold_after is {hold_after_ns / 1e9} s and stop_after {stop_after_ns / 1e9} s, "
                "expected 0 <= hold_after <= stop_after"
            )
        self.state = Freshness.WAITING
        self.missing: tuple[str, ...] = ()
        self._hold_after_ns = hold_after_ns
        self._stop_after_ns = stop_after_ns
        self._recovers = recovers
        self._lacking_since_ns: int | None = None

    def reset(self) -> None:
        """Forget the past: an episode starts, or the clock was set back. A stop that waits for `rearm` stays."""
        self._lacking_since_ns = None
        self.missing = ()
        if self.state is not Freshness.STOPPED or self._recovers:
            self.state = Freshness.WAITING

    def rearm(self) -> None:
        """End a stop: wait for observations anew."""
        self.state = Freshness.WAITING
        self._lacking_since_ns = None
        self.missing = ()

    def take(self, tick: Tick) -> None:
        """Take the next tick in order, complete or not."""
        if tick.observation is None:
            self.missing = tick.missing
            if self._lacking_since_ns is None and self.state is not Freshness.WAITING:
                self._lacking_since_ns = tick.stamp_ns
            self.look(tick.stamp_ns)
        elif self.state is not Freshness.STOPPED or self._recovers:
            self.state = Freshness.FRESH
            self._lacking_since_ns = None
            self.missing = ()

    def look(self, now_ns: int) -> Freshness:
        """The state at `now_ns`, which is not before the last tick: a silent robot makes no ticks, but time goes on."""
        if self._lacking_since_ns is None or self.state is Freshness.STOPPED:
            return self.state
        lacking = now_ns - self._lacking_since_ns
        if lacking >= self._stop_after_ns:
            self.state = Freshness.STOPPED
        elif lacking >= self._hold_after_ns:
            self.state = Freshness.HOLDING
        else:
            self.state = Freshness.LATE
        return self.state

    @property
    def may_act(self) -> bool:
        """Whether what was planned may go on being executed."""
        return self.state in (Freshness.FRESH, Freshness.LATE)
