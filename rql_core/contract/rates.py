"""How often the messages of an observation topic have to come, and whether they do: the same live and offline.

An observation is news at every control step, unless the contract says of a topic with `min_rate` that it is slower.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from statistics import median

from rql_core.contract.observation_schema import Linear, ObservationTopic, reach_needed
from rql_core.contract.schema import Contract
from rql_core.contract.time import NANOSECONDS

# A topic at the control rate has a median period of one control period; 1.5 is midway to every second message missing.
_SLOWEST_PERIODS = 1.5
# Who states a rate means it; a timer that jitters, or a crystal, puts the median off by a few percent.
_STATED_PERIODS = 1.05
# The median of fewer periods says nothing about a rate.
FEWEST_PERIODS = 5
# A running node looks at so many: a second of a 20 Hz topic; more would be late to warn of one that is slow already.
_RECENT_PERIODS = 20


def too_slow(contract: Contract, spec: ObservationTopic, rate_hz: float) -> str | None:
    """What is wrong with a topic whose messages come at `rate_hz` (of their median period), and what to do; or None.

    Of an interpolated topic without `min_rate` nothing: how far apart its messages may be is what its tolerance says.
    """
    if spec.min_rate is not None:
        if rate_hz * _STATED_PERIODS >= spec.min_rate:
            return None
        return (
            f"{spec.topic} has {rate_hz:.3g} Hz (median), expected at least its min_rate of {spec.min_rate:g} Hz; "
            "publish it faster, or lower min_rate, with which its features are older when they are used"
        )
    rate = float(contract.rate_fraction)
    if isinstance(spec.align, Linear) or rate_hz * _SLOWEST_PERIODS >= rate:
        return None
    # Rounded downward to a tenth: 0.0 would be no rate, and below that nobody means to observe it.
    slow = max(int(rate_hz * 10) / 10, 0.1)
    key, needed = reach_needed(spec.align, slow)
    return (
        f"{spec.topic} has {rate_hz:.3g} Hz (median), expected at least the contract's rate of {rate:.4g} Hz; publish "
        f"it faster, lower the contract's rate, or, where its features may be as old as that, give the topic "
        f"min_rate: {slow:g} and in align {key}: {needed:g} or more"
    )


class RateWatch:
    """The latest periods of the observation topics of a running node. Owned by one thread."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._stamps: dict[str, deque[int]] = {}
        self.forget()

    def forget(self) -> None:
        """What comes now has nothing to do with what came before."""
        self._stamps = {spec.topic: deque(maxlen=_RECENT_PERIODS + 1) for spec in self._contract.observation.topics}

    def add(self, topic: str, stamp_ns: int) -> None:
        """A message that is used has this stamp."""
        self._stamps[topic].append(stamp_ns)

    def complaints(self) -> list[str]:
        """What is wrong with each topic that is too slow."""
        found = []
        for spec in self._contract.observation.topics:
            rate = _median_rate(self._stamps[spec.topic])
            complaint = None if rate is None else too_slow(self._contract, spec, rate)
            if complaint is not None:
                found.append(complaint)
        return found


def _median_rate(stamps: Iterable[int]) -> float | None:
    """Hz of the median period, of steps forward in time; None where there are too few."""
    periods = [after - before for before, after in pairwise(stamps) if after > before]
    return NANOSECONDS / median(periods) if len(periods) >= FEWEST_PERIODS else None
