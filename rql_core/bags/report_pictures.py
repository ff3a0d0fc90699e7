"""The pictures of a conversion's report as inline SVG, in colours that the page's style sheet names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# A bar narrower than this many units of the 1000 that a picture is wide cannot be seen; episodes are then grouped.
_NARROWEST = 1.6
_WIDTH, _LEFT, _ROW, _GAP, _TOP = 1000.0, 150.0, 58.0, 22.0, 20.0


@dataclass(frozen=True)
class Row:
    """A number of every episode: `bad` marks those to be seen at once, `bound` is drawn as a line.

    `worse`: which one stands for a group of episodes, the highest or the lowest.
    """

    name: str
    unit: str
    values: Sequence[float | None]
    bad: Sequence[bool]
    bound: float | None = None
    worse: str = "high"


def group_size(episodes: int) -> int:
    """How many neighbouring episodes share a bar of the picture."""
    return max(1, math.ceil(episodes * _NARROWEST / (_WIDTH - _LEFT)))


def episode_rows(rows: Sequence[Row], bag_starts: Sequence[tuple[int, str]], titles: Sequence[str]) -> str:
    """Rows of bars over the same episodes, one below the other; each episode says its `titles` and leads to its row.

    `bag_starts`: the first episode of each bag, and the bag's name.
    """
    count = len(titles)
    group = group_size(count)
    bars = math.ceil(count / group)
    width = (_WIDTH - _LEFT) / bars
    height = _TOP + len(rows) * (_ROW + _GAP)
    parts = [_bag_lines(bag_starts, group, width, height)]
    for number, row in enumerate(rows):
        parts.append(_bars(row, group, width, _TOP + number * (_ROW + _GAP)))
    for bar in range(bars):
        first, last = bar * group, min((bar + 1) * group, count) - 1
        text = titles[first] if first == last else f"episodes {first} to {last}: {titles[first]}; …"
        parts.append(
            f'<a href="#e{first}"><rect class="touch" x="{_LEFT + bar * width:.2f}" y="0" width="{width:.2f}" '
            f'height="{height:.0f}"><title>{escape(text)}</title></rect></a>'
        )
    return (
        f'<svg class="wide-picture" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" '
        f'aria-label="Numbers of every episode">{"".join(parts)}</svg>'
    )


def _bag_lines(bag_starts: Sequence[tuple[int, str]], group: int, width: float, height: float) -> str:
    """Where bags begin, and the names of those that have room for one."""
    parts = []
    free_from = 0.0
    for first, name in bag_starts:
        x = _LEFT + first / group * width
        parts.append(f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height:.0f}"/>')
        shown = name if len(name) <= 28 else f"…{name[-27:]}"
        if x >= free_from and x + 6.2 * len(shown) < _WIDTH:
            parts.append(f'<text class="small soft" x="{x + 3:.1f}" y="10">{escape(shown)}</text>')
            free_from = x + 6.2 * len(shown) + 12
    return "".join(parts)


def _bars(row: Row, group: int, width: float, top: float) -> str:
    known = [value for value in row.values if value is not None]
    high = max([0.0, *known, row.bound or 0.0])
    low = min([0.0, *known])
    # Where all are 0 the line is at the bottom, below a place of any height, and one number says it.
    flat = high == low
    span = 1.0 if flat else high - low
    zero = top + _ROW * (1.0 if flat else high / span)
    shapes = {"bar": "", "bad": ""}
    for bar, first in enumerate(range(0, len(row.values), group)):
        members = [i for i in range(first, min(first + group, len(row.values))) if row.values[i] is not None]
        if not members:
            continue
        pick = max if row.worse == "high" else min
        value = pick(row.values[i] or 0.0 for i in members)
        end = zero - _ROW * value / span
        # A bar of no height is a thin one: nothing at all would look as if there were no episode.
        if abs(end - zero) < 1.0:
            end = zero - 1.0
        x, wide = _LEFT + bar * width + 0.08 * width, 0.84 * width
        kind = "bad" if any(row.bad[i] for i in members) else "bar"
        shapes[kind] += f"M{x:.2f} {zero:.1f}H{x + wide:.2f}V{end:.1f}H{x:.2f}Z"
    unit = f" {row.unit}" if row.unit else ""
    bound = ""
    if row.bound is not None:
        y = zero - _ROW * row.bound / span
        bound = (
            f'<line class="bound" x1="{_LEFT:.0f}" x2="{_WIDTH:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="small boundtext" x="{_LEFT - 4:.0f}" y="{y + 3:.1f}" text-anchor="end">{row.bound:g}</text>'
        )
    low_text = f'<text class="small soft" x="{_LEFT - 4:.0f}" y="{top + _ROW:.1f}" text-anchor="end">{low:.3g}</text>'
    # The bound's own number needs the place of a neighbour that is close to it.
    crowded = row.bound is not None and high - row.bound < 0.2 * span
    high_text = (
        ""
        if crowded or flat
        else f'<text class="small soft" x="{_LEFT - 4:.0f}" y="{top + 9:.1f}" text-anchor="end">{high:.3g}</text>'
    )
    return (
        f'<text class="name" x="0" y="{top + _ROW / 2:.1f}">{escape(row.name)}</text>'
        f'<text class="small soft" x="0" y="{top + _ROW / 2 + 14:.1f}">{escape(unit.strip())}</text>'
        f'{high_text}{low_text}<path class="bar" d="{shapes["bar"]}"/><path class="bad" d="{shapes["bad"]}"/>{bound}'
        f'<line class="rule" x1="{_LEFT:.0f}" x2="{_WIDTH:.0f}" y1="{zero:.1f}" y2="{zero:.1f}"/>'
    )


def histogram(counts: Sequence[int], label: str, *, limits: bool = False) -> str:
    """A small histogram for a table's cell; with `limits` its ends are an action's limits, and marked as such."""
    width, height = 168.0, 30.0
    most = max([1, *counts])
    step = width / max(len(counts), 1)
    shape = ""
    for i, count in enumerate(counts):
        # The root of the count: one value in a thousand must still be seen, and the order of the bars stays.
        tall = height * math.sqrt(count / most) if count else 0.0
        if tall:
            shape += f"M{i * step:.1f} {height:.0f}V{height - max(tall, 1.0):.1f}H{(i + 0.9) * step:.1f}V{height:.0f}Z"
    ends = "".join(f'<line class="bound" x1="{x}" x2="{x}" y1="0" y2="{height:.0f}"/>' for x in (0.5, width - 0.5))
    return (
        f'<svg class="histogram" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">'
        f'<title>{escape(label)}</title><path class="bar" d="{shape}"/>'
        f'<line class="rule" x1="0" x2="{width:.0f}" y1="{height:.0f}" y2="{height:.0f}"/>'
        f"{ends if limits else ''}</svg>"
    )


def bar_chart(values: Sequence[tuple[str, float]], label: str) -> str:
    """Bars with their names below and their numbers above, for a few values."""
    width, height = 420.0, 120.0
    most = max([value for _, value in values] or [1.0]) or 1.0
    step = width / max(len(values), 1)
    parts = []
    for i, (name, value) in enumerate(values):
        tall = (height - 34) * value / most
        x = i * step
        wide = min(step * 0.8, 60)
        parts.append(
            f'<rect class="bar" x="{x + (step - wide) / 2:.1f}" y="{height - 18 - tall:.1f}" width="{wide:.1f}" '
            f'height="{max(tall, 1):.1f}"/>'
            f'<text class="small" x="{x + step / 2:.1f}" y="{height - 5:.0f}" text-anchor="middle">'
            f"{escape(name)}</text>"
            f'<text class="small soft" x="{x + step / 2:.1f}" y="{height - 22 - tall:.1f}" text-anchor="middle">'
            f"{value:g}</text>"
        )
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
