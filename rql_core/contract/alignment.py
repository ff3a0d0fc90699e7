"""From messages that arrive one by one to one observation a tick: the same object live and offline.

A tick is complete when every topic has a message at or after it, because then nothing that still may come can change
what belongs to it, whichever alignment the contract gives the topic (`streams`). Offline that is always awaited. A
running node waits at most `max_wait`. In lockstep simulation all messages are stamped with the tick itself, so a tick
is complete at once. Live and offline therefore agree as long as each topic's messages come in the same order and none
later than `max_wait` after the tick that it belongs to; test/core/contract/test_alignment_parity.py pins that.
Not thread-safe: push and take belong to one thread.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rql_core.contract.features import ObservationBuilder
from rql_core.contract.messages import FloatArray, TopicReader, topic_readers
from rql_core.contract.schema import Contract, Hold
from rql_core.contract.streams import Stream, make_stream
from rql_core.contract.time import NANOSECONDS, tick_at_or_after, tick_time
from rql_core.errors import ContractError

# Networks reorder messages by milliseconds; a stamp that is a whole second older means that the clock was set back.
CLOCK_JUMP_NS = NANOSECONDS


@dataclass(frozen=True)
class Tick:
    """A point of the control grid: its observation (observation_dim,) float32, or the topics that were missing.

    `ages_ns`: how old the oldest message is that each topic has in the tick, in the order of the contract, negative for
    one from after it; empty where one is missing.
    """

    index: int
    stamp_ns: int
    observation: FloatArray | None
    missing: tuple[str, ...] = ()
    ages_ns: tuple[int, ...] = ()


class _Inlet:
    """A topic: its reader, and the streams that its numbers are divided among."""

    def __init__(self, reader: TopicReader) -> None:
        self.reader = reader
        self.topic = reader.spec.topic
        self.newest_ns: int | None = None
        self.streams: list[Stream] = []
        self.labels: list[str] = []
        self.clear()

    def clear(self) -> None:
        reader = self.reader
        self.newest_ns = None
        self.streams = [make_stream(reader.spec.align, reader.rotations) for _ in reader.parts]
        self.labels = [self.topic if not reader.partial else f"{self.topic} ({name})" for name in reader.names]


@dataclass(frozen=True)
class _Forgotten:
    """What was let go: the ticks after `begin_ns` and before `end_ns` cannot be had any more.

    It was supposed that `silent` streams would say nothing stamped at or before `until_ns`.
    """

    begin_ns: int
    end_ns: int
    until_ns: int
    silent: tuple[int, ...]


class TickAssembler:
    """Turns messages of a contract's observation topics into observations on its grid of ticks.

    `starts`: times in ns at which the robot was put somewhere else, those of a whole recording: no message is
    held across one, and no difference, history or interpolation reaches across, just as a running node knows nothing of
    what was before its reset.

    `counts` says what was not used and why: messages that were "duplicate", "out_of_order", "before_start",
    "clock_jump", "of_other_joints", or "late" (used, but after the tick that they belong to was given out, or what else
    belongs to it was let go), and "ticks_without_past", whose differences or histories had nothing to look back on.
    """

    def __init__(self, contract: Contract, starts: Iterable[int] = ()) -> None:
        self._contract = contract
        self._inlets = {topic: _Inlet(reader) for topic, reader in topic_readers(contract).items()}
        self._max_wait_ns = contract.observation.max_wait_ns
        self._starts = sorted(set(starts))
        self._builder = ObservationBuilder(contract)
        self.counts: Counter[str] = Counter()
        self._start_ns: int | None = None
        self._streams: list[Stream] = []
        self._labels: list[str] = []
        self._lagging: Stream | None = None
        self._next: int | None = None
        self._next_ns = 0
        self._next_is_fixed = False
        self._given_out_ns: int | None = None
        self._segment = 0
        self._forgotten: _Forgotten | None = None
        aligns = [spec.align for spec in contract.observation.topics]
        self._look_ahead_ns = max(align.look_ahead_ns for align in aligns)
        self._reach_ns = max(align.max_age_ns if isinstance(align, Hold) else align.tolerance_ns for align in aligns)
        self.reset()

    def reset(self, start_ns: int | None = None) -> None:
        """Forget all messages; from now on ignore those stamped before `start_ns`."""
        self._start_ns = start_ns
        for inlet in self._inlets.values():
            inlet.clear()
        self._streams = [stream for inlet in self._inlets.values() for stream in inlet.streams]
        self._labels = [label for inlet in self._inlets.values() for label in inlet.labels[: len(inlet.streams)]]
        self._lagging = None
        self._builder.reset()
        self._next = None
        if start_ns is not None:
            self._set_next(tick_at_or_after(start_ns, self._contract.rate_fraction))
        self._next_is_fixed = start_ns is not None
        self._given_out_ns = None
        self._forgotten = None

    def push(self, topic: str, message: Any, receive_ns: int, *, not_after_ns: int | None = None) -> int | None:
        """Take one message, and return its stamp in ns if it is used; one stamped after `not_after_ns` is refused.

        Raises ContractError when it does not keep to the contract; then nothing has changed. So does one with the stamp
        of the message before it and other numbers: two publishers, or two recordings, have been mixed.
        """
        inlet = self._inlets[topic]
        stamp = inlet.reader.stamp(message, receive_ns)
        if not_after_ns is not None and stamp > not_after_ns:
            raise ContractError(
                f"{topic}: header.stamp is {(stamp - receive_ns) / NANOSECONDS:.3f} s ahead of this node's clock; "
                "synchronise the clocks, or set use_sim_time on both sides"
            )
        if self._start_ns is not None and stamp < self._start_ns:
            self.counts["before_start"] += 1
            return None
        newest = inlet.newest_ns
        if newest is not None and newest - stamp >= CLOCK_JUMP_NS:
            inlet.reader.read_parts(message)  # one that breaks the contract must not make us forget
            self.counts["clock_jump"] += 1
            self.reset()
            newest = None
        if inlet.reader.partial or (newest is not None and stamp <= newest):
            if not self._add_newer(inlet, stamp, message):
                return None
        else:
            inlet.streams[0].add(stamp, inlet.reader.read(message))
        if newest is None and not self._next_is_fixed:
            # The earliest tick that a first message can be in starts the grid, whichever topic arrived first.
            first = tick_at_or_after(stamp - inlet.reader.spec.align.reaches_back_ns, self._contract.rate_fraction)
            self._set_next(first if self._next is None else min(first, self._next))
        inlet.newest_ns = stamp if newest is None else max(stamp, newest)
        forgotten = self._forgotten
        if (self._given_out_ns is not None and stamp <= self._given_out_ns) or (
            forgotten is not None and forgotten.begin_ns < stamp <= forgotten.until_ns
        ):
            self.counts["late"] += 1
        return stamp

    def _add_newer(self, inlet: _Inlet, stamp: int, message: Any) -> bool:
        """Take what is newer than what its stream has; where nothing is, say why in `counts` and return False."""
        newest = inlet.newest_ns
        if not inlet.reader.partial and newest is not None and stamp < newest:
            self.counts["out_of_order"] += 1
            return False
        new = []
        reason = "of_other_joints"
        for part, values in inlet.reader.read_parts(message):
            stream = inlet.streams[part]
            if stream.newest_ns is None or stamp > stream.newest_ns:
                new.append((stream, values))
            elif stamp < stream.newest_ns:
                reason = "out_of_order"
            elif np.array_equal(values.astype(np.float32), stream.samples[-1][1].astype(np.float32)):
                reason = "duplicate"
            else:
                raise ContractError(
                    f"{inlet.topic}: two messages are stamped {stamp / NANOSECONDS:.6f} s and differ; is there a "
                    "second publisher, or are two recordings in one bag?"
                )
        for stream, values in new:
            stream.add(stamp, values)
        if not new:
            self.counts[reason] += 1
        return bool(new)

    def newest_stamps(self) -> dict[str, int | None]:
        """Newest stamp in ns of each topic, None where nothing came yet."""
        return {topic: inlet.newest_ns for topic, inlet in self._inlets.items()}

    def newest_stamp(self, topic: str) -> int | None:
        """Newest stamp in ns of one topic, None where nothing came yet."""
        return self._inlets[topic].newest_ns

    def silent(self, until_ns: int) -> tuple[str, ...]:
        """The topics that nothing came from for longer than their alignment allows, up to `until_ns`, the last of them
        all; empty when no tick waits for them. At the end of a recording: what kept the ticks before it back."""
        until_ns = max([until_ns, *(inlet.newest_ns for inlet in self._inlets.values() if inlet.newest_ns is not None)])
        if self._next is None or self._next_ns > until_ns:
            return ()
        labels = []
        for inlet in self._inlets.values():
            align = inlet.reader.spec.align
            allowed = align.max_age_ns if isinstance(align, Hold) else align.tolerance_ns
            for stream, label in zip(inlet.streams, inlet.labels, strict=False):
                if stream.newest_ns is None or until_ns - stream.newest_ns > allowed:
                    labels.append(label)
        return tuple(labels)

    def take(self, now_ns: int | None = None) -> list[Tick]:
        """The ticks that are due, in order.

        With `now_ns` (the contract's clock) a tick is also due `max_wait` after its time. Of a stretch without
        observation only the first tick is returned, with the topics that were missing. Ticks whose differences or
        histories have no past yet are left out.
        """
        ticks: list[Tick] = []
        if self._next is None:
            return ticks
        streams = self._streams
        while self._reached(self._next_ns) or (now_ns is not None and now_ns >= self._next_ns + self._max_wait_ns):
            stamp = self._next_ns
            self._next_is_fixed = True
            self._given_out_ns = stamp
            forgotten = self._forgotten
            if forgotten is not None and forgotten.begin_ns < stamp < forgotten.end_ns:
                ticks.append(self._lost(self._next, stamp, forgotten))
                continue
            begin, end = self._segment_at(stamp)
            found = [stream.at(stamp, begin, end) for stream in streams]
            samples = [sample for sample in found if sample is not None]
            if len(samples) == len(found):
                observation = self._builder.add(np.concatenate([sample[1] for sample in samples]))
                if observation is None:
                    self.counts["ticks_without_past"] += 1
                else:
                    ages = self._ages([stamp - sample[0] for sample in samples])
                    ticks.append(Tick(self._next, stamp, observation, (), ages))
                self._set_next(self._next + 1)
            else:
                self._builder.reset()
                absent = [at for at, sample in enumerate(found) if sample is None]
                ticks.append(Tick(self._next, stamp, None, tuple(self._labels[at] for at in absent)))
                self._set_next(self._skip(self._next, [streams[at] for at in absent], now_ns))
        return ticks

    def waiting(self) -> tuple[int, int]:
        """How many samples are kept, and the stamp in the middle of the longest stream, 0 where there are none."""
        longest = max((stream.samples for stream in self._streams), key=len)
        middle = longest[len(longest) // 2][0] if longest else 0
        return sum(len(stream.samples) for stream in self._streams), middle

    def forget_waiting(self, until_ns: int) -> tuple[int, int] | None:
        """Let go of what waits for a silent topic, supposing that its next message is stamped after `until_ns`.

        For a conversion, where it bounds the memory. The ticks that the topic's last message still reaches are kept, as
        is all that the ticks from its next one on need: where it was right nothing is changed, and where it was not
        the message is counted "late", and its ticks are missing. Returns after and before which times there are
        no ticks any more, in ns; None where nothing can be let go.
        """
        end = until_ns - self._look_ahead_ns
        forgotten = self._forgotten
        if self._next is None:
            begin = 0
        elif forgotten is not None and forgotten.end_ns > self._next_ns:
            begin = forgotten.begin_ns
        else:
            begin = self._next_ns + self._reach_ns + self._look_ahead_ns + 2 * self._contract.period_ns
        if end <= begin:
            return None
        silent = [at for at, s in enumerate(self._streams) if s.newest_ns is None or s.newest_ns < until_ns]
        self._forgotten = _Forgotten(begin, end, until_ns, tuple(silent))
        for stream in self._streams:
            stream.forget_between(begin, end)
        return begin, end

    def _lost(self, index: int, stamp_ns: int, forgotten: _Forgotten) -> Tick:
        """A tick of which too much was let go; the next is the first at which those that were silent can be there."""
        self._builder.reset()
        after = self._skip(index, [self._streams[at] for at in forgotten.silent], None)
        self._set_next(max(after, tick_at_or_after(forgotten.end_ns, self._contract.rate_fraction)))
        self._given_out_ns = forgotten.end_ns - 1
        return Tick(index, stamp_ns, None, tuple(self._labels[at] for at in forgotten.silent))

    def _reached(self, stamp_ns: int) -> bool:
        """Whether every stream has a message at or after the time."""
        # Most messages are not the one that a tick waits for, and then the stream that was behind still is.
        lagging = self._lagging
        if lagging is not None and (lagging.newest_ns is None or lagging.newest_ns < stamp_ns):
            return False
        for stream in self._streams:
            if stream.newest_ns is None or stream.newest_ns < stamp_ns:
                self._lagging = stream
                return False
        return True

    def _set_next(self, index: int) -> None:
        self._next = index
        self._next_ns = tick_time(index, self._contract.rate_fraction)

    def _segment_at(self, stamp_ns: int) -> tuple[int | None, int | None]:
        """The starts around a tick; what was before the last one is forgotten by the features."""
        starts = self._starts
        if not starts:
            return None, None
        segment = bisect_right(starts, stamp_ns)
        if segment != self._segment:
            self._segment = segment
            self._builder.reset()
        return (starts[segment - 1] if segment else None), (starts[segment] if segment < len(starts) else None)

    def _ages(self, ages: list[int]) -> tuple[int, ...]:
        """One age a topic from those of the streams: that of its oldest message."""
        if len(ages) == len(self._inlets):
            return tuple(ages)
        left = iter(ages)
        return tuple(max(next(left) for _ in inlet.streams) for inlet in self._inlets.values())

    def _skip(self, index: int, missing: list[Stream], now_ns: int | None) -> int:
        """The first later tick at which the missing streams can be there."""
        rate = self._contract.rate_fraction
        chances = [stream.chance_after(tick_time(index, rate)) for stream in missing]
        known = [stamp for stamp in chances if stamp is not None]
        if len(known) == len(missing):
            return max(index + 1, tick_at_or_after(max(known), rate))
        # Only a running node gets here: it goes on with the ticks it can still serve, however far its clock went.
        return index + 1 if now_ns is None else max(index + 1, tick_at_or_after(now_ns - self._max_wait_ns, rate))
