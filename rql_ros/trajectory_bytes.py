"""A JointTrajectory as the bytes that are published: what is always the same is written once, and numbers put in.

To convert a message of fifty points from Python and to serialise it takes ten times as long as to publish its bytes
(docs/speed.md). They are CDR, which ROS middleware takes: little endian, every number at a multiple of its size, before
a text or a list how long it is (OMG Common Data Representation, XCDR version 1). test/ros/test_trajectory_bytes.py pins
that what is read of them is the message that is published otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message
from trajectory_msgs.msg import JointTrajectory

from rql_core.contract import ActionChunk, Contract
from rql_core.contract.chunk import point_velocities
from rql_core.contract.time import NANOSECONDS
from rql_core.errors import ContractError
from rql_ros.trajectory_message import TrajectoryMessage

# What bytes begin with, and what places are not counted from: plain CDR, little endian.
HEAD = b"\x00\x01\x00\x00"
# The lists of numbers that a point has, in their order.
GROUPS = ("positions", "velocities", "accelerations", "effort")
# Room for so many points to begin with: most chunks, with the stop after them, are shorter. More is made when needed.
POINTS = 64


class TrajectoryBytes:
    """`of` gives what `TrajectoryMessage.of` gives, serialised. Owned by one thread."""

    def __init__(self, contract: Contract) -> None:
        self._width = contract.action_dim
        self._topic = contract.action.topic
        self._command = contract.action.command
        self._names = contract.action.names
        self._lay_out(POINTS)

    def of(self, chunk: ActionChunk) -> bytes:
        """The bytes that say the chunk; raises ContractError for one of another width."""
        points = chunk.horizon
        if chunk.actions.shape[1] != self._width:
            raise ContractError(f"{self._topic}: chunk has {chunk.actions.shape[1]} numbers, expected {self._width}")
        if points > len(self._ends):
            self._lay_out(2 * points)
        self._numbers[self._places[self._command][:points]] = chunk.actions
        if self._command == "positions":
            self._numbers[self._places["velocities"][:points]] = point_velocities(chunk)
        seconds, rest = np.divmod(chunk.ends_ns - chunk.stamp_ns, NANOSECONDS)
        times = self._times[:points]
        self._words[times], self._words[times + 1] = seconds, rest
        self._words[0], self._words[1] = divmod(chunk.stamp_ns, NANOSECONDS)
        self._words[self._count] = points
        return self._data[: self._ends[points - 1]].tobytes()

    def _lay_out(self, points: int) -> None:
        """Write a message of so many points without its numbers. A shorter one is the same, and ends sooner."""
        body = bytearray(8)  # the stamp
        _text(body, "")
        _word(body, len(self._names))
        for name in self._names:
            _text(body, name)
        self._count = _word(body, points) // 4
        given = (self._command, "velocities") if self._command == "positions" else (self._command,)
        places: dict[str, list[int]] = {group: [] for group in given}
        times, self._ends = [], []
        for _ in range(points):
            for group in GROUPS:
                _word(body, self._width if group in given else 0)
                if group in given:
                    body += bytes(-len(body) % 8)
                    places[group].append(len(body) // 8)
                    body += bytes(8 * self._width)
            times.append(_word(body, 0) // 4)
            _word(body, 0)
            self._ends.append(len(HEAD) + len(body))
        # Bytes before the head let numbers lie at multiples of their size in memory as well.
        room = np.zeros(8 + len(body) + -len(body) % 8, dtype=np.uint8)
        self._data = room[8 - len(HEAD) :]
        self._data[: self._ends[-1]] = np.frombuffer(HEAD + body, dtype=np.uint8)
        self._numbers = room[8:].view("<f8")
        self._words = room[8:].view("<u4")
        self._places = {group: np.array(found)[:, None] + np.arange(self._width) for group, found in places.items()}
        self._times = np.array(times)


def trajectory_writer(contract: Contract) -> Callable[[ActionChunk], Any]:
    """What makes of a chunk what is published: its bytes, or a message where the middleware reads bytes otherwise."""
    plain, fast = TrajectoryMessage(contract), TrajectoryBytes(contract)
    return fast.of if _reads_alike(contract, fast, plain) else plain.of


def _reads_alike(contract: Contract, fast: TrajectoryBytes, plain: TrajectoryMessage) -> bool:
    random = np.random.default_rng(0)
    for points in (1, 2, POINTS + 1):
        actions = random.normal(size=(points, contract.action_dim))
        chunk = ActionChunk.regular(contract, 1_700_000_000_123_456_789, actions)
        try:
            if deserialize_message(fast.of(chunk), JointTrajectory) != plain.of(chunk):
                return False
        except RuntimeError:  # what rclpy raises where bytes are no message of this middleware
            return False
    return True


def _word(body: bytearray, number: int) -> int:
    """Add a number of four bytes; returns where it is."""
    body += bytes(-len(body) % 4)
    body += number.to_bytes(4, "little")
    return len(body) - 4


def _text(body: bytearray, text: str) -> None:
    data = text.encode() + b"\0"
    _word(body, len(data))
    body += data
