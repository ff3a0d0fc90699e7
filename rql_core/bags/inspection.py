"""What is in a bag, before anybody has a contract for it: topics, rates, gaps, clocks, and what is peculiar.

Messages are not decoded for it: the stamp of a header stands at a fixed place in their bytes.
"""

from __future__ import annotations

import dataclasses
import struct
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.bags.reader import BagReader
from rql_core.bags.recover import storage_files
from rql_core.contract.time import NANOSECONDS
from rql_core.errors import BagError

MARKER_TYPE = "std_msgs/msg/Header"

# Silence of so many median periods is a gap that somebody should know of; at 3 a single lost message is none.
_GAP_PERIODS = 5
# Below this a gap does not matter to any control rate; without it every jitter of a 1 kHz topic is a note.
_SHORTEST_GAP_S = 0.05
# A stamp so much later than the receive time cannot come from the rounding of clocks on one machine.
_FUTURE_S = 0.001
# Clocks that are set by NTP differ by some ten milliseconds at most, and a message is under way for some more.
_OFFSET_S = 0.5
# Quartz clocks drift apart by up to 100 us a second; more is a stamp that is made by something else than a clock.
_DRIFT = 1e-4
# The drift is the slope between the medians of so many parts of the recording: single late messages do not move it.
_DRIFT_PARTS = 8
# Telling a progress bar of every message would cost as much as a tenth of reading it.
_PROGRESS_MESSAGES = 5000

Samples = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TopicInspection:
    """One topic of a bag.

    `rate_hz`: of the median period between receive times. `largest_gap_s`, `largest_gap_at_s`: the longest silence and
    when it began, from the bag's start. `offset_s`: median of receive time minus header stamp; `drift`: how much it
    grows a second. `stamps_unset`, `stamps_back`, `stamps_ahead`: stamps of zero, before the one before, and later
    than the receive time. None where there is nothing to measure.
    """

    topic: str
    type: str
    messages: int
    rate_hz: float | None = None
    largest_gap_s: float | None = None
    largest_gap_at_s: float | None = None
    offset_s: float | None = None
    drift: float | None = None
    stamps_unset: int = 0
    stamps_back: int = 0
    stamps_ahead: int = 0
    has_header: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BagInspection:
    """One bag: `start_ns` and `duration_s` by receive times; `markers`: topics of headers, as episodes are marked by,
    with how many messages each has."""

    path: str
    storage: str
    size_bytes: int
    start_ns: int
    duration_s: float
    messages: int
    topics: tuple[TopicInspection, ...]
    markers: dict[str, int]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)


def inspect_bag(
    path: Path | str,
    definitions: Iterable[Path | str] = (),
    progress: Callable[[float], None] = lambda share: None,
) -> BagInspection:
    """Read the bag at `path` once and say what is there. `progress` is told which share of it was read, up to 1.

    Raises BagError when the bag cannot be read to its end.
    """
    with BagReader(path, definitions) as bag:
        stamps: dict[str, array[int]] = {}
        received = {topic: array("q") for topic in bag.topics}
        readers: dict[str, tuple[Callable[[bytes], tuple[int, int]], array[int]]] = {}
        for topic in bag.topics:
            offset = bag.stamp_offset(topic)
            if offset is not None:
                stamps[topic] = array("q")
                readers[topic] = (_stamp_reader(offset, bag.ros1), stamps[topic])
        for read_so_far, (topic, receive_ns, raw) in enumerate(bag.raw_messages(), start=1):
            received[topic].append(receive_ns)
            if topic in readers:
                read, into = readers[topic]
                try:
                    seconds, nanoseconds = read(raw)
                except struct.error:
                    raise BagError(
                        f"{path}: topic {topic}, {bag.when(receive_ns)}: {bag.topics[topic].type} of {len(raw)} bytes "
                        "is too short for its header; the file is damaged there"
                    ) from None
                into.append(seconds * NANOSECONDS + nanoseconds)
            if read_so_far % _PROGRESS_MESSAGES == 0:
                progress(min(1.0, read_so_far / max(bag.message_count, 1)))
        progress(1.0)
        start = min((times[0] for times in received.values() if times), default=0)
        end = max((times[-1] for times in received.values() if times), default=0)
        topics = [_topic(bag, topic, start, received[topic], stamps.get(topic)) for topic in sorted(bag.topics)]
        return BagInspection(
            path=str(path),
            storage=_storage(Path(path), bag),
            size_bytes=sum(file.stat().st_size for file in storage_files(Path(path), packed=True)),
            start_ns=start,
            duration_s=(end - start) / NANOSECONDS,
            messages=sum(map(len, received.values())),
            topics=tuple(topics),
            markers={topic.topic: topic.messages for topic in topics if topic.type == MARKER_TYPE and topic.messages},
            notes=tuple(bag.notes),
        )


def _stamp_reader(offset: int, ros1: bool) -> Callable[[bytes], tuple[int, int]]:
    if ros1:  # always little-endian, and seconds without a sign
        from_ros1 = struct.Struct("<II").unpack_from
        return lambda raw: from_ros1(raw, offset)
    little, big = struct.Struct("<iI").unpack_from, struct.Struct(">iI").unpack_from
    # The second byte of CDR's encapsulation says which end comes first.
    return lambda raw: little(raw, offset) if raw[1:2] == b"\x01" else big(raw, offset)


def _storage(path: Path, bag: BagReader) -> str:
    if bag.ros1:
        return "ROS 1"
    suffixes = {suffix for file in storage_files(path, packed=True) for suffix in file.suffixes}
    kinds = [name for suffix, name in ((".mcap", "MCAP"), (".db3", "sqlite3")) if suffix in suffixes]
    return " and ".join(kinds) + (", compressed" if ".zstd" in suffixes else "")


def _topic(bag: BagReader, topic: str, start: int, received: array[int], stamps: array[int] | None) -> TopicInspection:
    about = bag.topics[topic]
    result = TopicInspection(topic, about.type, len(received), has_header=stamps is not None)
    notes = [] if about.type else ["messages of several types"]
    if len(received) == 0:
        notes.append("no messages")
    elif about.type and not bag.decodable([topic]):
        notes.append(f"no definition of {about.type}; name its .msg file with --definitions")
    times = np.frombuffer(received, np.int64)
    if len(times) >= 2:
        result = _with_rate(result, times, start, notes)
    if stamps is not None and len(stamps):
        result = _with_stamps(result, times, np.frombuffer(stamps, np.int64), start, notes)
    return dataclasses.replace(result, notes=tuple(notes))


def _with_rate(result: TopicInspection, times: Samples, start: int, notes: list[str]) -> TopicInspection:
    periods = np.diff(times) / NANOSECONDS
    median = float(np.median(periods))
    widest = int(np.argmax(periods))
    gap, at = float(periods[widest]), float(times[widest] - start) / NANOSECONDS
    limit = max(_GAP_PERIODS * median, _SHORTEST_GAP_S)
    gaps = int((periods > limit).sum())
    # Messages that come now and then have no rate, and so no gaps.
    if gaps and len(times) > 20 and gaps < len(periods) / 10:
        notes.append(f"{gaps} {'gap' if gaps == 1 else 'gaps'} of more than {limit:.3g} s, the largest at {at:.1f} s")
    rate = 1 / median if median > 0 else None
    return dataclasses.replace(result, rate_hz=rate, largest_gap_s=gap, largest_gap_at_s=at)


def _with_stamps(
    result: TopicInspection, times: Samples, stamps: Samples, start: int, notes: list[str]
) -> TopicInspection:
    unset = int((stamps == 0).sum())
    if unset:
        some = "all" if unset == len(stamps) else f"{unset} of {len(stamps)}"
        notes.append(f"{some} header stamps are unset (0); clock header cannot use them")
    used = stamps != 0
    result = dataclasses.replace(result, stamps_unset=unset)
    if not used.any():
        return result
    times, stamps = times[used], stamps[used]
    offsets = (times - stamps) / NANOSECONDS
    offset = float(np.median(offsets))
    back = np.flatnonzero(np.diff(stamps) < 0)
    ahead = int((offsets < -_FUTURE_S).sum())
    if len(back):
        where = float(times[back[0] + 1] - start) / NANOSECONDS
        notes.append(
            f"header stamps go back {len(back)} {'time' if len(back) == 1 else 'times'}, first at {where:.1f} s"
        )
    if abs(offset) > _OFFSET_S:
        which = "before" if offset > 0 else "after"
        notes.append(f"header stamps are {abs(offset):,.1f} s {which} the receive times: two clocks or a replay")
    elif ahead:
        notes.append(f"{ahead} of {len(stamps)} header stamps are in the future of their receive times")
    drift = _drift(times, offsets)
    if drift is not None and abs(drift) > _DRIFT:
        notes.append(f"the offset of the clocks drifts by {drift * 60e3:+.3g} ms a minute")
    return dataclasses.replace(result, offset_s=offset, drift=drift, stamps_back=len(back), stamps_ahead=ahead)


def _drift(times: Samples, offsets: npt.NDArray[np.float64]) -> float | None:
    """Slope of the offset over time; None for too few messages to tell."""
    if len(times) < 5 * _DRIFT_PARTS:
        return None
    parts = np.array_split(np.arange(len(times)), _DRIFT_PARTS)
    middles = np.array([np.median(times[part] - times[0]) / NANOSECONDS for part in parts])
    heights = np.array([np.median(offsets[part]) for part in parts])
    if middles[-1] <= middles[0]:
        return None
    return float(np.polyfit(middles, heights, 1)[0])
