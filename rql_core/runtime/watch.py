"""Whether the observations are fresh enough to be acted on: run, hold, stop, and back again by the contract's rule.

The contract says per topic how old a message may be; a tick without a complete observation is the first sign of
trouble. What follows is decided here: what was planned may go on for `hold_after`, then the robot is brought to rest
and held, and after `stop_after` commanding ends. Owned by one thread; time comes in as an argument.
"""

from __future__ import annotations

from enum import Enum

from rql_core.contract.alignment import Tick
from rql_core.errors import ConfigError


class Freshness(Enum):
    """What the observations allow; the values are what /diagnostics says."""

    WAITING = "waiting for observations"
    FRESH = "fresh"
    LATE = "late"
    HOLDING = "holding"
    STOPPED = "stopped"


class ObservationWatch:
    """Follows the ticks of a TickAssembler; all times in ns, ages are counted from the last complete observation.

    `hold_after_ns`: older, and what was planned must not go on. `stop_after_ns`: older, and commanding ends.
    `recover_after_ns`: observations have to be complete for so long before a hold ends, so that a topic that comes and
    goes does not make the robot start and stop. `recovers`: whether a stop ends in the same way; otherwise it takes
    `rearm`.
    """

    def __init__(self, hold_after_ns: int, stop_after_ns: int, recover_after_ns: int = 0, *, recovers: bool) -> None:
        if not 0 <= hold_after_ns <= stop_after_ns or recover_after_ns < 0:
            raise ConfigError(
                f"hold_after is {hold_after_ns / 1e9} s, stop_after {stop_after_ns / 1e9} s and recover_after "
                f"{recover_after_ns / 1e9} s, expected 0 <= hold_after <= stop_after and 0 <= recover_after"
            )
        self.state = Freshness.WAITING
        self.missing: tuple[str, ...] = ()
        self._hold_after_ns = hold_after_ns
        self._stop_after_ns = stop_after_ns
        self._recover_after_ns = recover_after_ns
        self._recovers = recovers
        self._complete_ns: int | None = None
        self._unbroken_since_ns: int | None = None

    def reset(self) -> None:
        """Forget the past: an episode starts, or the clock was set back. A stop that waits for `rearm` stays."""
        self._complete_ns = self._unbroken_since_ns = None
        self.missing = ()
        if self.state is not Freshness.STOPPED or self._recovers:
            self.state = Freshness.WAITING

    def rearm(self) -> None:
        """End a stop: wait for observations anew."""
        self.state = Freshness.WAITING
        self.reset()

    def take(self, tick: Tick) -> None:
        """Take the next tick in order, complete or not."""
        if tick.observation is None:
            self.missing = tick.missing
            self._unbroken_since_ns = None
            if self.state is Freshness.FRESH:
                self.state = Freshness.LATE
            self.look(tick.stamp_ns)
            return
        self.missing = ()
        if self._unbroken_since_ns is None:
            self._unbroken_since_ns = tick.stamp_ns
        self._complete_ns = tick.stamp_ns
        ends = self.state is Freshness.HOLDING or (self.state is Freshness.STOPPED and self._recovers)
        recovered = ends and tick.stamp_ns - self._unbroken_since_ns >= self._recover_after_ns
        if recovered or self.state in (Freshness.WAITING, Freshness.LATE):
            self.state = Freshness.FRESH

    def look(self, now_ns: int) -> Freshness:
        """The state at `now_ns`: a silent robot makes no ticks, but time goes on."""
        if self._complete_ns is None or self.state in (Freshness.WAITING, Freshness.STOPPED):
            return self.state
        age = now_ns - self._complete_ns
        if age > self._stop_after_ns:
            self.state = Freshness.STOPPED
        elif age > self._hold_after_ns:
            self.state = Freshness.HOLDING
            self._unbroken_since_ns = None
        return self.state

    @property
    def needs_rearm(self) -> bool:
        """Whether a stop waits for `rearm`, observations or not."""
        return self.state is Freshness.STOPPED and not self._recovers

    @property
    def description(self) -> str:
        """The state, what is missing, and what has to be done."""
        said = self.state.value
        if self.missing:
            said += f": no fresh observation on {', '.join(self.missing)}"
        elif self.needs_rearm:
            said += f": there was no complete observation for {self._stop_after_ns / 1e9:g} s"
        return f"{said}; call rearm to go on" if self.needs_rearm else said

    @property
    def may_act(self) -> bool:
        """Whether what was planned may go on being executed."""
        return self.state in (Freshness.FRESH, Freshness.LATE)
