"""One file's episodes in use, the next file's being read by a thread, and never a third file in memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from threading import Condition, Thread
from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.data.trajectories import Trajectories
from rql_core.errors import DatasetError


class ReadAhead:
    """Gives out items by index, and begins to read the one after as soon as there is room for it.

    There is room while at most one item that was given out is still referred to. Owned by one thread.
    """

    def __init__(self, read: Callable[[int], Trajectories], count: int) -> None:
        """`read` makes item 0 to count - 1; it is called in the owner's thread or another, never in two at once."""
        self._read = read
        self._count = count
        self._room = Condition()
        self._in_use = 0
        self._reading: _Reading | None = None

    def load(self, index: int) -> Trajectories:
        """Item `index`. Raises what reading it raises, and DatasetError where there is no such item."""
        if not 0 <= index < self._count:
            raise DatasetError(f"there is no file {index}: expected 0 to {self._count - 1}")
        reading, self._reading = self._reading, None
        if reading is not None and reading.index == index:
            trajectories = reading.result()
        else:
            if reading is not None:
                reading.give_up()
            trajectories = self._read(index)
        del reading
        with self._room:
            self._in_use += 1
        weakref.finalize(_owner(trajectories.observations), self._let_go).atexit = False
        if self._count > 1:
            self._reading = _Reading(self._read, (index + 1) % self._count, self._room, self._has_room)
        return trajectories

    def close(self) -> None:
        """End the reading; may be called twice."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.give_up()

    def _has_room(self) -> bool:
        return self._in_use <= 1

    def _let_go(self) -> None:
        with self._room:
            self._in_use -= 1
            self._room.notify_all()


def _owner(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array whose memory this one is a view of, or itself: what every view of it keeps alive."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class _Reading:
    """One item being read by a thread of its own, once there is room or somebody waits for it."""

    def __init__(
        self, read: Callable[[int], Trajectories], index: int, room: Condition, has_room: Callable[[], bool]
    ) -> None:
        self.index = index
        self._read = read
        self._room = room
        self._has_room = has_room
        self._wanted = False
        self._given_up = False
        self._trajectories: Trajectories | None = None
        self._error: Exception | None = None
        # A daemon: a program that ends need not wait for a file that nobody will use.
        self._thread = Thread(target=self._run, name=f"read file {index}", daemon=True)
        self._thread.start()

    def result(self) -> Trajectories:
        """Wait for the item, or raise what reading it raised; to be called once."""
        with self._room:
            self._wanted = True
            self._room.notify_all()
        self._thread.join()
        if self._error is not None:
            raise self._error
        trajectories, self._trajectories = self._trajectories, None
        assert trajectories is not None
        return trajectories

    def give_up(self) -> None:
        """Do not begin; what has begun is waited for, so that it is not in memory beside something else."""
        with self._room:
            self._given_up = True
            self._room.notify_all()
        self._thread.join()
        self._trajectories = None

    def _run(self) -> None:
        with self._room:
            self._room.wait_for(lambda: self._wanted or self._given_up or self._has_room())
            if self._given_up:
                return
        try:
            self._trajectories = self._read(self.index)
        except Exception as error:
            self._error = error
