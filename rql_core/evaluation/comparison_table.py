"""The table of a comparison: the same cells as text for a terminal, as Markdown for documents, and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rql_core.evaluation.comparison import Comparison, Row
from rql_core.evaluation.statistics import Interval, PairedTest

ALL_TASKS = "all tasks"
NOTHING = "-"
# More values than this are told by their range; a row should fit on a screen.
_LISTED_SEEDS = 8
# A smallest p above this could be taken for a finding, or keep one from being made; below it goes without saying.
_WORTH_SAYING = 0.005


@dataclass(frozen=True)
class Table:
    """The rows of one task, or of all together: cells as text, one list a row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(comparison: Comparison) -> list[Table]:
    """A table for all tasks together, where there are several, and for each task; columns without content left out."""
    made = []
    for section in comparison.sections:
        cells = [_cells(row, comparison.baseline) for row in comparison.of_task(section)]
        columns = [name for name in cells[0] if any(row[name] != NOTHING for row in cells)]
        rows = tuple(tuple(row[name] for name in columns) for row in cells)
        made.append(Table(ALL_TASKS if section is None else section, tuple(columns), rows))
    return made


def as_text(comparison: Comparison) -> str:
    """Columns in line, for a terminal."""
    return "\n\n".join(
        table.title + "\n" + "\n".join(_lines(table.columns, table.rows)) for table in tables(comparison)
    )


def as_markdown(comparison: Comparison) -> str:
    """Tables for a Markdown document, each below its task, and the remarks."""
    parts = []
    for table in tables(comparison):
        head = [_markdown(table.columns), _markdown(["---"] * len(table.columns))]
        parts.append("\n".join([f"**{_escape(table.title)}**", "", *head, *map(_markdown, table.rows)]))
    if comparison.remarks:
        parts.append("\n".join(f"- {_escape(remark)}" for remark in comparison.remarks))
    return "\n\n".join(parts) + "\n"


def show_interval(value: float, interval: Interval | None, sign: str = "") -> str:
    """A number with its interval: 0.84 (0.78 to 0.90)."""
    number = f"{value:{sign}.2f}"
    return number if interval is None else f"{number} ({interval.low:{sign}.2f} to {interval.high:{sign}.2f})"


def show_p(test: PairedTest) -> str:
    """A p-value with the number of pairs, and the smallest that these can reach where that is not small."""
    p = "<0.001" if test.p < 0.001 else _p(test.p)
    pairs = f"{test.pairs} pair" + ("" if test.pairs == 1 else "s")
    least = f", least possible {_p(test.smallest_p)}" if test.smallest_p > _WORTH_SAYING else ""
    return f"{p} ({pairs}{least})"


def show_seconds(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _cells(row: Row, baseline: str | None) -> dict[str, str]:
    """Cells by column; a column of dashes alone is left out by the caller."""
    difference = NOTHING
    if row.group == baseline:
        difference = "baseline"
    elif row.test is not None:
        difference = show_interval(row.test.difference, row.test.interval, "+")
    updates = NOTHING
    if row.updates is not None:
        first, last = row.updates
        updates = f"{last:,}" if first == last else f"{first:,} to {last:,}"
    return {
        "group": row.group,
        "success": "no evaluation" if row.mean is None else show_interval(row.mean, row.interval),
        "IQM": NOTHING if row.iqm is None else f"{row.iqm:.2f}",
        "seeds": _seeds(row),
        "difference": difference,
        "p": NOTHING if row.test is None else show_p(row.test),
        "better": NOTHING if row.improvement is None else f"{row.improvement:.2f}",
        "episodes": NOTHING if row.episodes is None else f"{row.episodes:,}",
        "updates": updates,
        "time": NOTHING if row.seconds is None else show_seconds(row.seconds),
    }


def _seeds(row: Row) -> str:
    rates = row.rates
    if len(rates) <= _LISTED_SEEDS:
        return " ".join(f"{rate:.2f}" for rate in rates) or NOTHING
    return f"{len(rates)} from {min(rates):.2f} to {max(rates):.2f}"


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip_longest(columns, *rows, fillvalue="")]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    ]


def _markdown(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escape, cells))} |"


def _escape(text: str) -> str:
    """A bar would end a cell, and an asterisk or underscore would begin emphasis."""
    return "".join(f"\\{character}" if character in "|*_<" else character for character in text)


def _p(p: float) -> str:
    """Three digits behind the point, and four below a tenth: .0625 is no less than itself."""
    return f"{p:.4f}" if p < 0.1 else f"{p:.3f}"
