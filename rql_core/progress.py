"""One look for all progress bars: rate and time left on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from threading import RLock
from typing import Any, TextIO

from tqdm import tqdm

# Seconds between lines where the output is a file: a log of minutes stays readable.
_LOG_INTERVAL = 10.0


class _Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
    """With a lock of this process: tqdm's own is shared with forked processes, and one that is killed keeps it."""


_Bar.set_lock(RLock())


def progress_bar(
    iterable: Iterable[Any] | None = None, *, file: TextIO | None = None, disable: bool = False, **options: Any
) -> Any:
    """A tqdm bar on `file` (standard error by default)."""
    file = file or sys.stderr
    interactive = file.isatty()
    return _Bar(
        iterable,
        file=file,
        disable=disable,
        dynamic_ncols=interactive,
        mininterval=0.2 if interactive else _LOG_INTERVAL,
        maxinterval=10.0,
        **options,
    )


def print_above(text: str, file: TextIO) -> None:
    """Print a line above the bars that are shown."""
    _Bar.write(text, file=file)
