"""The numbers in a bag's messages, by path, with the range that they have: what a contract may be made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from rql_core.bags.reader import BagReader
from rql_core.contract.schema import JOINT_STATE, JOINT_TRAJECTORY
from rql_core.errors import BagError

# Enough to see which numbers change, spread over the whole bag, and few enough to take no time.
_MESSAGES_A_TOPIC = 200
# Multiples of the golden section (here of 2**32) fall evenly everywhere, also those of every second or third number: of
# publishers that take turns on a topic none is missed, as every nth message would.
_GOLDEN, _WORD = 2_654_435_769, 2**32
# A longer array is a scan, a map or a picture, which nobody means as single numbers.
LONGEST_ARRAY = 64

# Parts of messages that are no measurement: times, layouts, and how sure a filter is.
_NO_MEASUREMENT = ("header", "stamp", "layout", "time_from_start", "covariance")
_POINT_GROUPS = ("positions", "velocities", "accelerations", "effort")


@dataclass
class Range:
    """Smallest, largest and last value of one number, and in how many messages it was."""

    low: float = math.inf
    high: float = -math.inf
    last: float = math.nan
    messages: int = 0

    def add(self, value: float) -> None:
        """Count a value; one that is not finite has no place in a range."""
        if not math.isfinite(value):
            return
        self.low, self.high, self.last = min(self.low, value), max(self.high, value), value
        self.messages += 1

    @property
    def constant(self) -> bool:
        return self.low == self.high


@dataclass
class TopicSample:
    """What some messages of a topic hold: a range for each number, and arrays too long to be features.

    Joints are named, `position.elbow_joint` or `velocities.elbow_joint`. `points`: the most points that a
    JointTrajectory had; `at_once`: one of them had a point with time_from_start 0; `labels`: of a MultiArray's layout.
    `shuffled`: the joints did not always come in the same order.
    """

    type: str
    messages: int = 0
    numbers: dict[str, Range] = field(default_factory=dict)
    long_arrays: dict[str, int] = field(default_factory=dict)
    points: int = 0
    at_once: bool = False
    labels: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()
    shuffled: bool = False

    def add(self, message: Any) -> None:
        """Count a message."""
        self.messages += 1
        for path, value in self._numbers(message):
            self.numbers.setdefault(path, Range()).add(value)

    def merge(self, other: TopicSample) -> None:
        """Count what another sample of the same type holds."""
        self.messages += other.messages
        for path, there in other.numbers.items():
            mine = self.numbers.setdefault(path, Range())
            mine.low, mine.high = min(mine.low, there.low), max(mine.high, there.high)
            mine.last, mine.messages = there.last, mine.messages + there.messages
        self.long_arrays |= other.long_arrays
        self.points, self.at_once = max(self.points, other.points), self.at_once or other.at_once
        self.labels = other.labels or self.labels
        self.shuffled |= other.shuffled or (self.joints or other.joints) != other.joints
        self.joints = self.joints or other.joints

    def _numbers(self, message: Any) -> Iterator[tuple[str, float]]:
        if self.type == JOINT_STATE:
            names = tuple(message.name)
            self.joints = self.joints or names
            self.shuffled |= names != self.joints
            return _joints(message.name, message, ("position", "velocity", "effort"))
        if self.type == JOINT_TRAJECTORY:
            return self._trajectory(message)
        if dims := getattr(getattr(message, "layout", None), "dim", None):
            self.labels = tuple(dim.label for dim in dims)
        return _flat(message, "", self.long_arrays)

    def _trajectory(self, message: Any) -> Iterator[tuple[str, float]]:
        self.points = max(self.points, len(message.points))
        for point in message.points:
            self.at_once |= point.time_from_start.sec == 0 and point.time_from_start.nanosec == 0
            yield from _joints(message.joint_names, point, _POINT_GROUPS)


def sample_topics(bag: BagReader, every: Iterable[str] = ()) -> dict[str, TopicSample]:
    """Some messages of each topic that can be decoded, spread over the bag; all of the topics in `every`.

    Raises BagError when the bag cannot be read to its end.
    """
    whole = frozenset(every)
    samples: dict[str, TopicSample] = {}
    decoders: dict[str, Callable[[bytes], Any]] = {}
    below, seen = {}, {}
    for topic, about in bag.topics.items():
        if about.type and about.messages:
            samples[topic] = TopicSample(about.type)
            below[topic] = _WORD if topic in whole else _WORD * _MESSAGES_A_TOPIC // about.messages
            seen[topic] = 0
    for topic in bag.decodable(samples):
        decoders[topic] = bag.decoder(topic)
    for topic, stamp, raw in bag.raw_messages(decoders):
        seen[topic] += 1
        if (seen[topic] - 1) * _GOLDEN % _WORD >= below[topic]:
            continue
        try:
            message = decoders[topic](raw)
        except Exception as error:  # a short or garbled payload raises many kinds
            raise BagError(
                f"{bag.path}: topic {topic}, {bag.when(stamp)}: {bag.topics[topic].type} of {len(raw)} bytes "
                f"does not decode: {' '.join(str(error).split())}; the file is damaged there"
            ) from error
        samples[topic].add(message)
    return {topic: sample for topic, sample in samples.items() if sample.messages}


def merge_samples(of_bags: Iterable[dict[str, TopicSample]]) -> dict[str, TopicSample]:
    """The samples of several bags as one; of a topic whose type changed, those of the type it had first."""
    merged: dict[str, TopicSample] = {}
    for samples in of_bags:
        for topic, sample in samples.items():
            if merged.setdefault(topic, TopicSample(sample.type)).type == sample.type:
                merged[topic].merge(sample)
    return merged


def _joints(names: list[str], holder: Any, groups: Iterable[str]) -> Iterator[tuple[str, float]]:
    for group in groups:
        values = getattr(holder, group)
        if len(values) == len(names):
            for name, value in zip(names, values, strict=True):
                yield f"{group}.{name}", float(value)


def _flat(message: Any, prefix: str, long_arrays: dict[str, int]) -> Iterator[tuple[str, float]]:
    """(path, number) of all numbers of a message that a feature can be; arrays that are too long are noted."""
    for name in (each.name for each in fields(message)):
        if any(name == each or name.endswith(f"_{each}") for each in _NO_MEASUREMENT):
            continue
        value, path = getattr(message, name), f"{prefix}{name}"
        if isinstance(value, bool | int | float | np.number | np.bool_):
            yield path, float(value)
        elif isinstance(value, np.ndarray):
            if len(value) > LONGEST_ARRAY:
                long_arrays[path] = max(len(value), long_arrays.get(path, 0))
                continue
            for index, number in enumerate(value):
                yield f"{path}[{index}]", float(number)
        elif is_dataclass(value) and not getattr(value, "__msgtype__", "").startswith("builtin_interfaces/"):
            yield from _flat(value, f"{path}.", long_arrays)
