"""Small pieces of HTML that the parts of a conversion's report are made of."""

from __future__ import annotations

from collections.abc import Sequence

# Rows past which a list is folded: what a screen holds.
FOLDED = 12


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    top = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(name: str, content: str, rows: int) -> str:
    """Content under a line that opens it; open from the start where it has few rows."""
    opened = " open" if rows <= FOLDED else ""
    return f"<details{opened}><summary>{name}</summary>{content}</details>"


def extent(values: Sequence[float], form: str) -> str:
    """The least and the most of the values, or the one value there is."""
    if not values:
        return "-"
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def counted(number: int, word: str) -> str:
    """A number of things, in words."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")
