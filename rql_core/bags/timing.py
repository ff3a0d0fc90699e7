"""When the messages of a bag's topics were stamped: rates, pauses, ages and clocks, in the bag and in each episode.

Nothing here grows with the number of messages: what an episode needs is let go when it is closed, or counted in
`Distribution`s while it goes on. test/core/bags/test_timing.py compares the figures with numpy's of all stamps at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from rql_core.bags.distribution import Distribution, Float64, Int64
from rql_core.bags.timing_window import Window
from rql_core.contract.time import NANOSECONDS

# A pause of one and a half periods is midway between none and one message missing.
_DROP_PERIODS = 1.5
# Periods of an episode up to so many of its own median ones are remembered as one number. Below 1.5, so that pauses are
# known exactly as long as the topic is no more than a fifth slower in the episode than in the whole bag.
_REMEMBERED_PERIODS = 1.2
# An episode with more different pauses than this has them put together by neighbours: 16 kB an episode and topic.
_MOST_PAUSES = 1000


@dataclass(frozen=True)
class TopicReport:
    """A topic of one bag; rate and ages by the contract's clock. Ages are those at the ticks, of observations only.

    `drops`: messages that the topic's own rate says are missing. `offset`: when messages were received minus their
    stamps, median and range between the 5th and 95th percentile; None where the time of receipt is the stamp.
    Medians, percentiles and drops of more than 65,536 messages are approximate (see Distribution).
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
    """Takes the stamps of a bag's topics as they come, and sums up the bag and each episode.

    Whoever has the messages appends, in ns, to `stamps[topic]` and `delays[topic]` (receipt minus stamp) for each one
    used, and to `ticks` and the `ages` of the topics in `observed` for each tick, and calls `gather` every some
    thousand messages. `has_offsets`: whether the delays mean anything. Not thread-safe.
    """

    def __init__(self, topics: Iterable[str], observed: Iterable[str], *, has_offsets: bool = True) -> None:
        self._topics = {topic: _Topic(topic) for topic in topics}
        self._observed = {topic: column for column, topic in enumerate(observed)}
        self._has_offsets = has_offsets
        self.stamps = {topic: array("q") for topic in self._topics}
        self.delays = {topic: array("q") for topic in self._topics}
        self.ages = {topic: array("q") for topic in self._observed}
        self.ticks = array("q")
        self.tick_count = 0
        self._ages = {topic: Distribution() for topic in self._observed}
        self._episode_ages = {topic: Distribution() for topic in self._observed}
        self._tick_window = Window(len(self._observed), back=False)
        self._closed: list[list[_Closed]] = []

    @property
    def start_ns(self) -> int:
        """The earliest stamp, 0 without any."""
        return min((topic.earliest for topic in self._topics.values() if topic.earliest is not None), default=0)

    def gather(self, span: tuple[int, int] | None = None, decided_ns: int | None = None) -> None:
        """Sum up what was appended. `span`: first and last observation so far of the episode that goes on, if one does.

        `decided_ns`: no tick at or before this one is still to come.
        """
        self._collect()
        if span is not None:
            self._count(*span)
        if decided_ns is not None:
            for window in self._windows():
                window.forget_before(decided_ns)

    def close(self, span: tuple[int, int] | None) -> None:
        """The episode has ended: from its first observation to its last, or None for one that is not kept."""
        if span is not None:
            self._collect()
            self._count(*span)
            self._closed.append(
                [topic.closed(self._episode_ages.get(name), self._has_offsets) for name, topic in self._topics.items()]
            )
        for topic in self._topics.values():
            topic.begin()
        for window in self._windows():
            window.release()
        if any(ages.count for ages in self._episode_ages.values()):
            self._episode_ages = {topic: Distribution() for topic in self._observed}

    def start_over(self) -> None:
        """The clock was set to another time: nothing that came belongs to an episode yet to come."""
        self._collect()
        for window in self._windows():
            window.clear()

    def forget_between(self, begin_ns: int, end_ns: int) -> None:
        """No episode has a tick after `begin_ns` and before `end_ns`."""
        self._collect()
        for window in self._windows():
            window.forget_between(begin_ns, end_ns)

    def topics(self) -> list[TopicReport]:
        """Each topic over the whole bag, in the order given."""
        self._collect()
        return [topic.report(self._ages.get(name), self._has_offsets) for name, topic in self._topics.items()]

    def episodes(self) -> list[list[EpisodeTopic]]:
        """For each closed episode that was kept each topic, in the order given."""
        self._collect()
        usual = [topic.usual for topic in self._topics.values()]
        return [
            [closed.topic(period) for closed, period in zip(episode, usual, strict=True)] for episode in self._closed
        ]

    def _windows(self) -> list[Window]:
        return [self._tick_window, *(topic.window for topic in self._topics.values())]

    def _collect(self) -> None:
        for name, topic in self._topics.items():
            if self.stamps[name]:
                topic.add(_emptied(self.stamps[name]), _emptied(self.delays[name]))
        if self.ticks:
            ages = [_emptied(column) for column in self.ages.values()]
            for topic_ages, column in zip(self._ages.values(), ages, strict=True):
                topic_ages.add(column)
            self.tick_count += len(self.ticks)
            self._tick_window.add(_emptied(self.ticks), np.stack(ages, axis=1))

    def _count(self, start_ns: int, end_ns: int) -> None:
        """Count what lies in the episode so far."""
        for topic in self._topics.values():
            topic.count(start_ns, end_ns)
        _, ages, _ = self._tick_window.take(start_ns, end_ns)
        for name, column in self._observed.items():
            self._episode_ages[name].add(ages[:, column])


class _Topic:
    """The stamps and delays of one topic: over the bag, and in the episode that goes on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._messages = 0
        self._newest: int | None = None
        self._periods, self._delays = Distribution(), Distribution()
        self.earliest: int | None = None
        self.window = Window(1, back=True)
        self.begin()

    def begin(self) -> None:
        """The next message that is counted is the first of an episode."""
        self._episode_messages = 0
        self._episode_periods, self._episode_delays = Distribution(), Distribution()

    @property
    def usual(self) -> float:
        """The median period in the bag in ns, 0 where there is none."""
        (median,) = self._periods.percentiles(50)
        return median or 0.0

    def add(self, stamps: Int64, delays: Int64) -> None:
        self._messages += len(stamps)
        earliest = int(stamps.min())
        self.earliest = earliest if self.earliest is None else min(earliest, self.earliest)
        # Only steps forward in time: after a clock jump the next one begins a new count.
        self._periods.add(_periods(self._newest, stamps))
        self._newest = int(stamps[-1])
        self._delays.add(delays)
        self.window.add(stamps, delays[:, None])

    def count(self, start_ns: int, end_ns: int) -> None:
        stamps, delays, before = self.window.take(start_ns, end_ns)
        if len(stamps):
            self._episode_messages += len(stamps)
            self._episode_periods.add(_periods(before, stamps))
            self._episode_delays.add(delays[:, 0])

    def report(self, ages: Distribution | None, has_offsets: bool) -> TopicReport:
        low, middle, high = self._delays.percentiles(5, 50, 95) if has_offsets else (None, None, None)
        p50, p95 = (None, None) if ages is None else ages.percentiles(50, 95)
        return TopicReport(
            topic=self._name,
            messages_used=self._messages,
            rate_hz=NANOSECONDS / self.usual if self._periods.count else None,
            longest_period_s=self._periods.highest / NANOSECONDS if self._periods.count else None,
            median_age_s=_seconds(p50),
            longest_age_s=ages.highest / NANOSECONDS if ages is not None and ages.count else None,
            p95_age_s=_seconds(p95),
            drops=_missing(*self._periods.weighted(), self.usual) if ages is not None and self._periods.count else None,
            offset_s=_seconds(middle),
            offset_spread_s=None if low is None or high is None else _seconds(high - low),
        )

    def closed(self, ages: Distribution | None, has_offsets: bool) -> _Closed:
        (median,) = self._episode_periods.percentiles(50)
        p50, p95 = (None, None) if ages is None else ages.percentiles(50, 95)
        (offset,) = self._episode_delays.percentiles(50) if has_offsets else (None,)
        topic = EpisodeTopic(
            messages=self._episode_messages,
            rate_hz=None if median is None else NANOSECONDS / median,
            longest_gap_s=None if median is None else self._episode_periods.highest / NANOSECONDS,
            drops=None if ages is None else 0,
            median_age_s=_seconds(p50),
            p95_age_s=_seconds(p95),
            offset_s=_seconds(offset),
        )
        if ages is None or median is None:
            return _Closed(topic)
        return _Closed(topic, *_pauses(*self._episode_periods.weighted(), median))


@dataclass(frozen=True, eq=False)
class _Closed:
    """A topic in an episode, without its drops, which are counted once the bag's usual period is known.

    `periods` in ns, and how often each was: the pauses, and first all that are none as one number.
    """

    so_far: EpisodeTopic
    periods: Float64 | None = None
    counts: Int64 | None = None

    def topic(self, usual: float) -> EpisodeTopic:
        if self.periods is None or self.counts is None:
            return self.so_far
        return replace(self.so_far, drops=_missing(self.periods, self.counts, usual))


def _pauses(periods: Float64, counts: Int64, median: float) -> tuple[Float64, Int64]:
    """The long ones of an episode's periods, which are sorted, behind its median for all others."""
    first = int(np.searchsorted(periods, _REMEMBERED_PERIODS * median, side="right"))
    others, periods, counts = counts[:first].sum(), periods[first:], counts[first:]
    if len(periods) > _MOST_PAUSES:
        begins = np.linspace(0, len(periods), _MOST_PAUSES, endpoint=False).astype(np.intp)
        sums = np.add.reduceat(periods * counts, begins)
        counts = np.add.reduceat(counts, begins)
        periods = sums / counts
    return np.concatenate([[median], periods]), np.concatenate([[others], counts])


def _missing(periods: Float64, counts: Int64, usual: float) -> int:
    """How many messages lie missing between those that came, if one was due every `usual` ns."""
    if usual <= 0:
        return 0
    long = periods > _DROP_PERIODS * usual
    return int(((np.rint(periods[long] / usual) - 1) * counts[long]).sum())


def _periods(before: int | None, stamps: Int64) -> Int64:
    """Steps forward in time from one to the next, beginning with one from `before`."""
    steps = np.diff(stamps) if before is None else np.diff(stamps, prepend=before)
    return steps[steps > 0]


def _emptied(values: array[int]) -> Int64:
    """The numbers of an array, which is empty afterwards."""
    taken = np.array(values, dtype=np.int64)
    del values[:]
    return taken


def _seconds(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / NANOSECONDS
