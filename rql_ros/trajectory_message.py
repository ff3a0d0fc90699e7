"""A JointTrajectory that is filled again and again: what `encode_chunk` says, without making fifty messages a chunk.

At 200 Hz a chunk with the stop after it has some fifty points, and to make a message for each takes longer than a small
network to plan. test/ros/test_trajectory_message.py pins that both ways give the same message.
"""

from __future__ import annotations

from array import array

from builtin_interfaces.msg import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from rql_core.contract import ActionChunk, Contract
from rql_core.contract.chunk import point_velocities
from rql_core.contract.time import NANOSECONDS
from rql_core.errors import ContractError


class TrajectoryMessage:
    """The one message that `of` gives out, so that it is to be published before the next. Owned by one thread."""

    def __init__(self, contract: Contract) -> None:
        self._command = contract.action.command
        self._width = contract.action_dim
        self._topic = contract.action.topic
        self._message = JointTrajectory(joint_names=list(contract.action.names))
        self._points: list[JointTrajectoryPoint] = []

    def of(self, chunk: ActionChunk) -> JointTrajectory:
        """The message that says the chunk; raises ContractError for one of another width."""
        if chunk.actions.shape[1] != self._width:
            raise ContractError(f"{self._topic}: chunk has {chunk.actions.shape[1]} numbers, expected {self._width}")
        message, points = self._message, self._points
        while len(points) < chunk.horizon:
            points.append(JointTrajectoryPoint(time_from_start=Duration()))
        used = points[: chunk.horizon]
        for group, rows in (
            (self._command, chunk.actions),
            *([("velocities", point_velocities(chunk))] if self._command == "positions" else []),
        ):
            numbers = array("d", rows.tobytes())
            for start, point in zip(range(0, len(numbers), self._width), used, strict=True):
                setattr(point, group, numbers[start : start + self._width])
        for point, end in zip(used, (chunk.ends_ns - chunk.stamp_ns).tolist(), strict=True):
            time = point.time_from_start
            time.sec, time.nanosec = divmod(end, NANOSECONDS)
        stamp = message.header.stamp
        stamp.sec, stamp.nanosec = divmod(chunk.stamp_ns, NANOSECONDS)
        message.points = used
        return message
