"""When the messages of a bag's topics were stamped: rates, pauses, ages and clocks, in the bag and in each episode."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rql_core.contract.time import NANOSECONDS

Int64 = npt.NDArray[np.int64]

# A pause of one and a half periods is midway between none and one message missing.
_DROP_PERIODS = 1.5


@dataclass(frozen=True)
class TopicReport:
    """A topic of one bag; rate and ages by the contract's clock. Ages are those at the ticks, of observations only.

    `drops`: messages that the topic's own rate says are missing. `offset`: when messages were received minus their
    stamps, median and range between the 5th and 95th percentile; None where the time of receipt is the stamp.
    """

    topic: str
    messages_used: int
    rate_hz: float | None
    longest_period_s: float | None
    median_age_s: float | None = None
    longest_age_s: float | None = None
    p95_age_s: float | None = None
    drops: int | None = None
    offset_s: float | None = None
    offset_spread_s: float | None = None

    @classmethod
    def of(
        cls, topic: str, stamps: array[int], ages: array[int] | None, delays: array[int] | None = None
    ) -> TopicReport:
        """Summarise the stamps of used messages, their ages at the ticks, and receipt minus stamp, all in ns."""
        # Only steps forward in time: after a clock jump the next one begins a new count.
        periods = np.diff(_array(stamps))
        periods = periods[periods > 0]
        rate = longest = drops = None
        if len(periods):
            rate = NANOSECONDS / float(np.median(periods))
            longest = float(periods.max()) / NANOSECONDS
            drops = None if ages is None else _missing(periods, float(np.median(periods)))
        p50, p95, oldest = _percentiles(_array(ages), 50, 95, 100)
        low, middle, high = _percentiles(_array(delays), 5, 50, 95)
        spread = None if low is None or high is None else high - low
        return cls(topic, len(stamps), rate, longest, p50, oldest, p95, drops, middle, spread)


@dataclass(frozen=True)
class EpisodeTopic:
    """A topic within one episode: None where there is too little to say. Pauses begin with the message in force."""

    messages: int
    rate_hz: float | None
    longest_gap_s: float | None
    drops: int | None
    median_age_s: float | None
    p95_age_s: float | None
    offset_s: float | None


class BagTiming:
    """The stamps of a bag's topics, ready to be asked for the span of an episode.

    `stamps` and `delays` (receipt minus stamp) have a number a used message, `ages` one a tick of `ticks`; all in ns.
    """

    def __init__(
        self,
        stamps: Mapping[str, array[int]],
        ages: Mapping[str, array[int]],
        ticks: array[int],
        delays: Mapping[str, array[int]],
    ) -> None:
        # Sorted, because a clock may have been set back between two episodes.
        order = np.argsort(_array(ticks), kind="stable")
        self._ticks = _array(ticks)[order]
        self._ages = {topic: _array(values)[order] for topic, values in ages.items()}
        self._stamps: dict[str, Int64] = {}
        self._delays: dict[str, Int64] = {}
        self._periods: dict[str, float] = {}
        for topic, values in stamps.items():
            order = np.argsort(_array(values), kind="stable")
            self._stamps[topic] = _array(values)[order]
            self._delays[topic] = _array(delays[topic])[order] if topic in delays else np.empty(0, dtype=np.int64)
            periods = np.diff(_array(values))
            periods = periods[periods > 0]
            self._periods[topic] = float(np.median(periods)) if len(periods) else 0.0

    def episode(self, start_ns: int, end_ns: int) -> list[EpisodeTopic]:
        """Each topic, in the order of the stamps given, from an episode's first observation to its last."""
        low, high = np.searchsorted(self._ticks, [start_ns, end_ns + 1])
        return [self._topic(topic, slice(low, high), start_ns, end_ns) for topic in self._stamps]

    def _topic(self, topic: str, ticks: slice, start_ns: int, end_ns: int) -> EpisodeTopic:
        stamps = self._stamps[topic]
        # The message in force at the first tick, and all after it.
        first = max(int(np.searchsorted(stamps, start_ns, side="right")) - 1, 0)
        last = int(np.searchsorted(stamps, end_ns, side="right"))
        periods = np.diff(stamps[first:last])
        periods = periods[periods > 0]
        ages = self._ages.get(topic)
        p50, p95 = _percentiles(None if ages is None else ages[ticks], 50, 95)
        (offset,) = _percentiles(self._delays[topic][first:last], 50)
        return EpisodeTopic(
            messages=max(last - first, 0),
            rate_hz=NANOSECONDS / float(np.median(periods)) if len(periods) else None,
            longest_gap_s=float(periods.max()) / NANOSECONDS if len(periods) else None,
            drops=None if ages is None else _missing(periods, self._periods[topic]),
            median_age_s=p50,
            p95_age_s=p95,
            offset_s=offset,
        )


def _array(values: array[int] | Int64 | None) -> Int64:
    if values is None or not len(values):
        return np.empty(0, dtype=np.int64)
    return np.frombuffer(values, dtype=np.int64)


def _missing(periods: Int64, usual: float) -> int:
    """How many messages lie missing between those that came, if one was due every `usual` ns."""
    long = periods[periods > _DROP_PERIODS * usual] if usual > 0 else periods[:0]
    return int((np.rint(long / usual) - 1).sum()) if len(long) else 0


def _percentiles(values: Int64 | None, *which: float) -> tuple[float | None, ...]:
    if values is None or not len(values):
        return tuple(None for _ in which)
    return tuple(float(value) / NANOSECONDS for value in np.percentile(values, which))
