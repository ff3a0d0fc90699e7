"""Plots as SVG that a page can hold: colours come from the page's style, so that they suit light and dark.

A series has a style, a number that stands for a colour (`--c` of the class `s0`, `s1`, ...), a shape of its marks and,
from the eighth on, dashes; a page must define the classes with `style_sheet`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

# Okabe and Ito's colours, which people with every kind of colour vision tell apart; black is the text's colour, which
# suits dark pages too, and yellow is left out, as it is invisible on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "currentColor")
# Lighter tints of the first three, which are too dark on a dark page.
_ON_DARK = ("#3d9bdc", "#ee7733", "#1fbf93", *COLOURS[3:])
DASHES = ("none", "7 3", "2 2.5")
# Marks of each colour, so that a plot can be read without colours; within a circle of radius 1.
_MARKS = (
    "M-1,0a1,1 0 1,0 2,0a1,1 0 1,0 -2,0",
    "M-.9,-.9h1.8v1.8h-1.8z",
    "M0,-1.3L1.1,.8H-1.1z",
    "M0,-1.3L1.1,0L0,1.3L-1.1,0z",
    "M0,1.3L1.1,-.8H-1.1z",
    "M-.4,-1.2h.8v.8h.8v.8h-.8v.8h-.8v-.8h-.8v-.8h.8z",
    "M-1.2,-.5h2.4v1h-2.4z",
)
# Room for the numbers of the axes, in units of the picture; text is 12 of them high.
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 34
# About so many numbers on an axis: more would touch where a plot is as wide as a phone.
_TICKS = 4
# Beyond this ratio a linear axis shows only the largest values.
_LOG_FROM = 100.0
# With more marks than this on a line they touch.
_MOST_MARKS = 40


@dataclass(frozen=True)
class Curve:
    """A line with a band round it and thin lines beside it, all in one style. `band`: (x, low, high)."""

    name: str
    style: int
    line: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()
    thin: Sequence[Sequence[Point]] = ()


@dataclass(frozen=True)
class Bar:
    """An interval with its middle, and the single values that it is of."""

    name: str
    style: int
    middle: float
    interval: tuple[float, float] | None
    values: Sequence[float]


def style_sheet(styles: int) -> str:
    """The classes s0, s1, ... with a colour and dashes each, and how lines, bands and marks are drawn."""

    def classes(colours: Sequence[str]) -> str:
        return "".join(f".s{style}{{--c:{colours[style % len(colours)]}}}" for style in range(styles))

    dashes = "".join(f".s{style}{{--d:{DASHES[style // len(COLOURS) % len(DASHES)]}}}" for style in range(styles))
    return (
        f"{classes(COLOURS)}{dashes}@media (prefers-color-scheme:dark){{{classes(_ON_DARK)}}}"
        ".plot{display:block;width:100%;height:auto}.plot text{font-size:12px;fill:currentColor}"
        ".plot .axis{stroke:currentColor;opacity:.6}"
        ".plot .grid{stroke:currentColor;opacity:.13}.plot .label{opacity:.75}"
        ".line,.thin{fill:none;stroke:var(--c);stroke-dasharray:var(--d);stroke-linejoin:round}"
        ".line{stroke-width:2.2}.thin{stroke-width:1;opacity:.38}.band{fill:var(--c);opacity:.16}"
        ".mark{fill:var(--c)}.value{fill:var(--c);fill-opacity:.2;stroke:var(--c);stroke-opacity:.6}.bar{stroke:var(--c);stroke-width:3}"
    )


def swatch(style: int) -> str:
    """A small picture of a style, for legends and tables."""
    return (
        f'<svg class="swatch s{style}" viewBox="0 0 30 12" width="30" height="12" aria-hidden="true">'
        f'<path class="line" d="M1,6H29"/>{_mark(style, 15, 6, 4)}</svg>'
    )


def line_plot(
    curves: Sequence[Curve],
    title: str,
    *,
    limits: tuple[float, float] | None = None,
    size: tuple[int, int] = (360, 230),
    may_be_log: bool = False,
    show: Callable[[float], str] = lambda value: f"{value:.3g}",
) -> str:
    """Curves over the number of updates; `title` is for those who cannot see them.

    The vertical axis goes over `limits`, or over what there is to show. `may_be_log` allows a logarithmic one where
    values are positive and range over more than two decades.
    """
    ys = [y for curve in curves for y in _heights(curve)]
    xs = [x for curve in curves for line in (curve.line, *curve.thin) for x, _ in line]
    last = max(xs, default=0) or 1
    log = may_be_log and limits is None and bool(ys) and min(ys) > 0 and max(ys) / min(ys) > _LOG_FROM
    low, high = limits or _limits(ys, log)
    scale = math.log10 if log else float
    width, height = size

    def right(x: float) -> float:
        return _LEFT + x / last * (width - _LEFT - _RIGHT)

    def up(y: float) -> float:
        share = (scale(y) - scale(low)) / (scale(high) - scale(low))
        return height - _BOTTOM - share * (height - _TOP - _BOTTOM)

    parts = []
    for tick in _decades(low, high) if log else ticks(low, high, _TICKS):
        parts.append(_grid(_LEFT, width - _RIGHT, up(tick)))
        parts.append(f'<text text-anchor="end" x="{_LEFT - 6}" y="{up(tick) + 4:.1f}">{tick:g}</text>')
    parts += _foot(0, last, right, height, short_number)
    parts.append(f'<text class="label" text-anchor="end" x="{width - _RIGHT}" y="{height - 3}">updates</text>')
    if log:
        parts.append(f'<text class="label" x="{_LEFT}" y="{height - 3}">logarithmic</text>')
    for curve in curves:
        drawn = [f'<path class="thin" d="{_path(line, right, up)}"/>' for line in curve.thin if len(line) > 1]
        if len(curve.band) > 1:
            upper = _path([(x, top) for x, _, top in curve.band], right, up)
            lower = _path([(x, bottom) for x, bottom, _ in reversed(curve.band)], right, up)
            drawn.insert(0, f'<path class="band" d="{upper}L{lower[1:]}z"/>')
        if len(curve.line) > 1:
            drawn.append(f'<path class="line" d="{_path(curve.line, right, up)}"/>')
        if len(curve.line) <= _MOST_MARKS:
            drawn += [
                f"<g>{_mark(curve.style, right(x), up(y), 3.4)}"
                f"<title>{escape(curve.name)}: {show(y)} after {x:,.0f} updates</title></g>"
                for x, y in curve.line
            ]
        parts.append(f'<g class="s{curve.style}">{"".join(drawn)}</g>')
    return _svg(width, height, f"{title} over updates", parts)


def bar_plot(bars: Sequence[Bar], title: str, limits: tuple[float, float] = (0.0, 1.0), width: int = 360) -> str:
    """Intervals below one another, each under its name, with the single values as dots."""
    row, left = 46, 10
    height = _TOP + row * len(bars) + _BOTTOM
    low, high = limits

    def right(x: float) -> float:
        return left + (x - low) / (high - low) * (width - left - _RIGHT)

    parts = [
        f'<line class="grid" x1="{right(x):.1f}" x2="{right(x):.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>'
        for x in ticks(low, high, _TICKS)
    ]
    parts += _foot(low, high, right, height, lambda value: f"{value:g}")
    for index, bar in enumerate(bars):
        middle = _TOP + row * index + 32
        drawn = [f'<text x="{left}" y="{middle - 16}">{escape(bar.name)}</text>']
        if bar.interval is not None:
            first, last = (right(end) for end in bar.interval)
            drawn.append(f'<line class="bar" x1="{first:.1f}" x2="{last:.1f}" y1="{middle}" y2="{middle}"/>')
        drawn += [
            f'<circle class="value" cx="{right(value):.1f}" cy="{middle + offset:.1f}" r="2.6"/>'
            for value, offset in _spread(bar.values)
        ]
        drawn.append(_mark(bar.style, right(bar.middle), middle, 5))
        parts.append(f'<g class="s{bar.style}">{"".join(drawn)}</g>')
    return _svg(width, height, title, parts)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from `low` to `high`: multiples of 1, 2, 2.5 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min((m for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999), default=10)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) + 0.0 for index in range(first, math.floor(high / step + 1e-9) + 1)]


def short_number(value: float) -> str:
    """1500 as 1.5k and 2000000 as 2M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _heights(curve: Curve) -> list[float]:
    """Every height that a curve reaches."""
    band = [end for _, low, high in curve.band for end in (low, high)]
    return [y for line in (curve.line, *curve.thin) for _, y in line] + band


def _limits(ys: Sequence[float], log: bool) -> tuple[float, float]:
    """The range of an axis: what there is to show, and a little more; never empty."""
    low, high = min(ys, default=0.0), max(ys, default=1.0)
    if log:
        return low / 1.2, high * 1.2
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    # Five labels at most: of ten decades every second or third is written.
    return [10.0**power for power in powers[:: max(1, math.ceil(len(powers) / 5))]]


def _foot(
    low: float, high: float, right: Callable[[float], float], height: int, show: Callable[[float], str]
) -> list[str]:
    """The horizontal axis with its numbers."""
    base = height - _BOTTOM
    parts = [f'<line class="axis" x1="{right(low):.1f}" x2="{right(high):.1f}" y1="{base}" y2="{base}"/>']
    for tick in ticks(low, high, _TICKS):
        anchor = "start" if right(tick) < 20 else "middle"
        parts.append(f'<line class="axis" x1="{right(tick):.1f}" x2="{right(tick):.1f}" y1="{base}" y2="{base + 4}"/>')
        parts.append(f'<text text-anchor="{anchor}" x="{right(tick):.1f}" y="{base + 17}">{show(tick)}</text>')
    return parts


def _grid(first: float, last: float, y: float) -> str:
    return f'<line class="grid" x1="{first}" x2="{last}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _path(points: Sequence[Point], right: Callable[[float], float], up: Callable[[float], float]) -> str:
    return "M" + "L".join(f"{right(x):.1f},{up(y):.1f}" for x, y in points)


def _mark(style: int, x: float, y: float, size: float) -> str:
    shape = _MARKS[style % len(_MARKS)]
    return f'<path class="mark" transform="translate({x:.1f},{y:.1f}) scale({size})" d="{shape}"/>'


def _spread(values: Sequence[float]) -> list[tuple[float, float]]:
    """Values with offsets that keep dots of equal ones apart: 0, -4.5, 4.5, -9, 9, and no further."""
    seen: dict[float, int] = {}
    spread = []
    for value in sorted(values):
        rank = seen[round(value, 3)] = seen.get(round(value, 3), -1) + 1
        spread.append((value, min((rank + 1) // 2, 2) * (-4.5 if rank % 2 else 4.5)))
    return spread


def _svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )
