"""Rows of numbers that come one by one, in as many bytes as they have.

An array object a row costs twice to four times its numbers, which for an episode of an hour is the difference between
a hundred megabytes and several.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class Rows:
    """A list of rows (width,) of one dtype, to be taken as one array."""

    def __init__(self, width: int, dtype: npt.DTypeLike) -> None:
        self._width = width
        self._dtype = np.dtype(dtype)
        self._bytes = bytearray()
        self._count = 0

    def append(self, row: npt.NDArray[Any]) -> None:
        """Add a row (width,) of the dtype."""
        assert row.dtype == self._dtype
        assert row.shape == (self._width,)
        self._bytes += row.tobytes()
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def take(self) -> npt.NDArray[Any]:
        """All rows so far (count, width), without copying them; after that there are none."""
        taken = np.frombuffer(self._bytes, dtype=self._dtype).reshape(self._count, self._width)
        self._bytes, self._count = bytearray(), 0
        return taken
