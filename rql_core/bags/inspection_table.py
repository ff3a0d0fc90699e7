"""An inspection as a table for a terminal."""

from __future__ import annotations

from datetime import datetime, timezone

from rql_core.bags.inspection import BagInspection, TopicInspection
from rql_core.contract.time import NANOSECONDS

_HEADS = ("topic", "type", "messages", "rate", "largest gap", "stamp offset", "drift")
# All but the names stand to the right, figure below figure.
_LEFT = 2


def as_text(bag: BagInspection) -> str:
    """The bag in lines: what it is, a row a topic, and notes."""
    lines = [
        bag.path,
        f"  {bag.storage}, {_size(bag.size_bytes)}, {bag.messages:,} messages in {_duration(bag.duration_s)}"
        + (f", from {_moment(bag.start_ns)}" if bag.messages else ""),
        "",
    ]
    rows = [_HEADS, *(_row(topic) for topic in bag.topics)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    for index, row in enumerate(rows):
        cells = [
            cell.ljust(width) if column < _LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"  {'  '.join(cells)}".rstrip())
        if index == 0:
            lines.append(f"  {'  '.join('-' * width for width in widths)}")
    if not bag.topics:
        lines.append("  (no topics)")
    notes = [*bag.notes, *(f"{topic.topic}: {note}" for topic in bag.topics for note in topic.notes)]
    notes += [f"{topic}: may mark the starts of {_count(number, 'episode')}" for topic, number in bag.markers.items()]
    if notes:
        lines += ["", *(f"  note: {note}" for note in notes)]
    return "\n".join(lines)


def _row(topic: TopicInspection) -> tuple[str, ...]:
    return (
        topic.topic,
        topic.type or "(several types)",
        f"{topic.messages:,}",
        "-" if topic.rate_hz is None else _rate(topic.rate_hz),
        "-" if topic.largest_gap_s is None else _seconds(topic.largest_gap_s),
        _offset(topic),
        "-" if topic.drift is None else _drift(topic.drift),
    )


def _rate(rate: float) -> str:
    return f"{rate:.1f} Hz" if rate >= 10 else f"{rate:.3g} Hz"


def _seconds(seconds: float) -> str:
    if abs(seconds) < 0.0000005:
        return "0 ms"
    if abs(seconds) < 1:
        return f"{seconds * 1e3:.3g} ms" if abs(seconds) < 0.1 else f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.1f} s" if abs(seconds) < 1e6 else f"{seconds:.3g} s"


def _offset(topic: TopicInspection) -> str:
    if not topic.has_header:
        return "no header"
    return (
        "unset"
        if topic.offset_s is None and topic.messages
        else ("-" if topic.offset_s is None else _seconds(topic.offset_s))
    )


def _drift(drift: float) -> str:
    per_minute = drift * 60e3
    return "0 ms/min" if abs(per_minute) < 0.05 else f"{per_minute:+.1f} ms/min"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min {rest} s" if hours else f"{minutes} min {rest} s"


def _moment(stamp_ns: int) -> str:
    try:
        moment = datetime.fromtimestamp(stamp_ns // NANOSECONDS, tz=timezone.utc)
    except (OverflowError, ValueError, OSError):
        return f"{stamp_ns} ns"
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
