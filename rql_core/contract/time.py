"""Time as whole nanoseconds, and the grid of control steps.

Tick k of a contract lies at k / rate seconds of its clock, counted from that clock's zero and not from when somebody
started listening: a recording and a node that run at different moments therefore agree on where every step is.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

NANOSECONDS = 1_000_000_000


def tick_time(index: int, rate: Fraction) -> int:
    """Time in ns of tick `index` of a grid with `rate` Hz; exact to the nanosecond, without drift."""
    numerator, denominator = rate.as_integer_ratio()
    return index * NANOSECONDS * denominator // numerator


def tick_times(first: int, count: int, rate: Fraction) -> Sequence[int]:
    """Times in ns of `count` ticks from the index `first` on."""
    numerator, denominator = rate.as_integer_ratio()
    scale = NANOSECONDS * denominator
    period, rest = divmod(scale, numerator)
    if rest == 0:
        return range(first * period, (first + count) * period, period)
    return [index * scale // numerator for index in range(first, first + count)]


def tick_at_or_after(stamp_ns: int, rate: Fraction) -> int:
    """Index of the first tick that is not before `stamp_ns`."""
    # Stamps are whole, so that a tick rounded down is before one exactly when the tick itself is.
    numerator, denominator = rate.as_integer_ratio()
    return -(-stamp_ns * numerator // (NANOSECONDS * denominator))


def stamp_to_ns(stamp: Any) -> int:
    """builtin_interfaces/Time or Duration (of rclpy, rosbags or a look-alike) as nanoseconds."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def ns_to_stamp(stamp_ns: int) -> tuple[int, int]:
    """Nanoseconds as (sec, nanosec) of builtin_interfaces/Time; nanosec is never negative."""
    return divmod(stamp_ns, NANOSECONDS)
