"""From messages that arrive one by one to one observation a tick: the same object live and offline.

A tick is complete when every topic has a message at or after it, because then nothing that still may come can change
what the newest message at or before the tick is. Offline that is always awaited. A running node waits at most
`max_wait`. In lockstep simulation all messages are stamped with the tick itself, so a tick is complete at once.
Not thread-safe: push and take belong to one thread.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from rql_core.contract.messages import FloatArray, topic_readers
from rql_core.contract.schema import Contract
from rql_core.contract.time import NANOSECONDS, tick_at_or_after, tick_time
from rql_core.errors import ContractError

# Networks reorder messages by milliseconds; a stamp that is a whole second older means that the clock was set back.
CLOCK_JUMP_NS = NANOSECONDS


@dataclass(frozen=True)
class Tick:
    """A point of the control grid: its observation (observation_dim,) float32, or the topics that were missing.

    `ages_ns`: how old each topic's message is at the tick, in the order of the contract; empty where one is missing.
    """

    index: int
    stamp_ns: int
    observation: FloatArray | None
    missing: tuple[str, ...] = ()
    ages_ns: tuple[int, ...] = ()


class _Buffer:
    """Messages of one topic, by stamp; keeps what the next tick can still need."""

    def __init__(self, max_age_ns: int) -> None:
        self.max_age_ns = max_age_ns
        self.samples: deque[tuple[int, FloatArray]] = deque()
        self.newest_ns: int | None = None

    def add(self, stamp_ns: int, values: FloatArray) -> None:
        self.samples.append((stamp_ns, values))
        self.newest_ns = stamp_ns

    def at(self, tick_ns: int) -> tuple[int, FloatArray] | None:
        """Stamp and values of the newest sample at or before the tick, unless too old; older ones are let go."""
        samples = self.samples
        while len(samples) > 1 and samples[1][0] <= tick_ns:
            samples.popleft()
        if not samples or samples[0][0] > tick_ns or tick_ns - samples[0][0] > self.max_age_ns:
            return None
        return samples[0]

    def next_after(self, tick_ns: int) -> int | None:
        """Stamp of the first sample after the tick."""
        return next((stamp for stamp, _ in self.samples if stamp > tick_ns), None)


class TickAssembler:
    """Turns messages of a contract's observation topics into observations on its grid of ticks.

    `counts` says what was not used and why: "duplicate", "out_of_order", "before_start", "clock_jump".
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._readers = topic_readers(contract)
        self._max_wait_ns = contract.observation.max_wait_ns
        self.counts: Counter[str] = Counter()
        self._start_ns: int | None = None
        self._buffers: dict[str, _Buffer] = {}
        self._next: int | None = None
        self._next_is_fixed = False
        # The time of tick `_timed`, kept because it is asked for with every message.
        self._timed: int | None = None
        self._timed_ns = 0
        self.reset()

    def reset(self, start_ns: int | None = None) -> None:
        """Forget all messages; from now on ignore those stamped before `start_ns`."""
        self._start_ns = start_ns
        self._buffers = {spec.topic: _Buffer(spec.align.max_age_ns) for spec in self._contract.observation.topics}
        self._next = None if start_ns is None else tick_at_or_after(start_ns, self._contract.rate_fraction)
        self._next_is_fixed = start_ns is not None

    def push(self, topic: str, message: Any, receive_ns: int, *, not_after_ns: int | None = None) -> None:
        """Take one message; one stamped after `not_after_ns` is refused.

        Raises ContractError when it does not keep to the contract; then nothing has changed. So does one with the stamp
        of the message before it and other numbers: two publishers, or two recordings, have been mixed.
        """
        reader = self._readers[topic]
        stamp = reader.stamp(message, receive_ns)
        if not_after_ns is not None and stamp > not_after_ns:
            raise ContractError(
                f"{topic}: header.stamp is {(stamp - receive_ns) / NANOSECONDS:.3f} s ahead of this node's clock; "
                "synchronise the clocks, or set use_sim_time on both sides"
            )
        if self._start_ns is not None and stamp < self._start_ns:
            self.counts["before_start"] += 1
            return
        newest = self._buffers[topic].newest_ns
        if newest is not None and stamp <= newest:
            if stamp == newest:
                if not np.array_equal(reader.read(message), self._buffers[topic].samples[-1][1]):
                    raise ContractError(
                        f"{topic}: two messages are stamped {stamp / NANOSECONDS:.6f} s and differ; is there a second "
                        "publisher, or are two recordings in one bag?"
                    )
                self.counts["duplicate"] += 1
                return
            if newest - stamp < CLOCK_JUMP_NS:
                self.counts["out_of_order"] += 1
                return
            values = reader.read(message)
            self.counts["clock_jump"] += 1
            self.reset()
        else:
            values = reader.read(message)
        buffer = self._buffers[topic]
        if buffer.newest_ns is None and not self._next_is_fixed:
            # The earliest first message of all topics starts the grid, whichever topic happened to arrive first.
            first = tick_at_or_after(stamp, self._contract.rate_fraction)
            self._next = first if self._next is None else min(first, self._next)
        buffer.add(stamp, values)

    def newest_stamps(self) -> dict[str, int | None]:
        """Newest stamp in ns of each topic, None where nothing came yet."""
        return {topic: buffer.newest_ns for topic, buffer in self._buffers.items()}

    def newest_stamp(self, topic: str) -> int | None:
        """Newest stamp in ns of one topic, None where nothing came yet."""
        return self._buffers[topic].newest_ns

    def take(self, now_ns: int | None = None) -> list[Tick]:
        """The ticks that are due, in order.

        With `now_ns` (the contract's clock) a tick is also due `max_wait` after its time. Of a stretch without
        observation only the first tick is returned, with the topics that were missing.
        """
        ticks: list[Tick] = []
        if self._next is None:
            return ticks
        rate = self._contract.rate_fraction
        buffers = self._buffers
        if self._next != self._timed:
            self._timed, self._timed_ns = self._next, tick_time(self._next, rate)
        stamp = self._timed_ns
        if now_ns is None:
            # Most messages lie between two ticks: the first topic that has not reached the next one says so.
            for buffer in buffers.values():
                if buffer.newest_ns is None or buffer.newest_ns < stamp:
                    return ticks
        # -1: a topic without a message is behind every tick.
        reached = min(-1 if buffer.newest_ns is None else buffer.newest_ns for buffer in buffers.values())
        while stamp <= reached or (now_ns is not None and now_ns >= stamp + self._max_wait_ns):
            self._next_is_fixed = True
            found = [buffer.at(stamp) for buffer in buffers.values()]
            samples = [sample for sample in found if sample is not None]
            if len(samples) == len(found):
                ages = tuple(stamp - sample[0] for sample in samples)
                observation = np.concatenate([sample[1] for sample in samples])
                ticks.append(Tick(self._next, stamp, observation, (), ages))
                self._next += 1
            else:
                missing = tuple(topic for topic, sample in zip(buffers, found, strict=True) if sample is None)
                ticks.append(Tick(self._next, stamp, None, missing))
                self._next = self._skip(self._next, missing, now_ns)
            stamp = tick_time(self._next, rate)
        return ticks

    def _skip(self, index: int, missing: tuple[str, ...], now_ns: int | None) -> int:
        """The first later tick at which the missing topics can be there."""
        rate = self._contract.rate_fraction
        nexts = [self._buffers[topic].next_after(tick_time(index, rate)) for topic in missing]
        known = [stamp for stamp in nexts if stamp is not None]
        if len(known) == len(missing):
            return tick_at_or_after(max(known), rate)
        # Only a running node gets here: it goes on with the ticks it can still serve, however far its clock went.
        return index + 1 if now_ns is None else max(index + 1, tick_at_or_after(now_ns - self._max_wait_ns, rate))
