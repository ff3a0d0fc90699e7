"""Action chunks: a list of actions with times, what is in force when, and how a chunk is written as a message.

The convention, once and for all: a chunk answers the observation of time `stamp`, and its step j is in force from the
end of step j - 1 (from `stamp` for the first) until its own end. With a steady rate that end is
`stamp + (j + 1) * period`. In a JointTrajectory (trajectory_msgs) the end is the point's time_from_start, which is
what joint_trajectory_controller takes: a point says what is reached at its time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.contract.action_schema import CHUNK_TYPES
from rql_core.contract.fields import FieldReader
from rql_core.contract.messages import message_stamp
from rql_core.contract.schema import JOINT_TRAJECTORY, Contract
from rql_core.contract.time import NANOSECONDS, ns_to_stamp, stamp_to_ns, tick_at_or_after, tick_time, tick_times
from rql_core.errors import ContractError

# A Float64MultiArray carries time as float64 seconds, which near the year 2026 resolve 0.24 microseconds.
_FLOAT_SECONDS_SLACK_NS = 1_000

# int64 nanoseconds end in the year 2262 (9.22e9 s); before that there is room for a step's length.
_LAST_SECOND = 9.2e9


@dataclass(frozen=True, eq=False)
class ActionChunk:
    """A chunk of h actions in physical units.

    `stamp_ns`: time of the observation it answers. `ends_ns` (h,): absolute end of each step, strictly increasing and
    after the stamp. `actions` (h, action_dim) float64.
    """

    stamp_ns: int
    ends_ns: npt.NDArray[np.int64]
    actions: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.actions.ndim != 2 or len(self.actions) == 0 or self.ends_ns.shape != (len(self.actions),):
            raise ContractError(
                f"chunk has actions {self.actions.shape} and ends {self.ends_ns.shape}, "
                "expected (horizon, action_dim) and (horizon,)"
            )
        # Chunks are short: going over plain numbers takes less time than the calls of NumPy do.
        start = self.stamp_ns
        for step, end in enumerate(self.ends_ns.tolist()):
            if end <= start:
                raise ContractError(
                    f"chunk step {step} ends {end - self.stamp_ns} ns after the stamp, "
                    "expected strictly increasing times after it"
                )
            start = end

    @property
    def horizon(self) -> int:
        return len(self.actions)

    @classmethod
    def regular(cls, contract: Contract, stamp_ns: int, actions: npt.NDArray[np.float64]) -> ActionChunk:
        """A chunk with one step a control period of the contract, from the observation at tick `stamp_ns`."""
        rate = contract.rate_fraction
        ends = tick_times(tick_at_or_after(stamp_ns, rate) + 1, len(actions), rate)
        return cls(stamp_ns, np.array(ends, dtype=np.int64), np.asarray(actions, dtype=np.float64))

    def step_at(self, time_ns: int) -> int | None:
        """Index of the step in force at `time_ns`; None before the stamp, `horizon` after the last end."""
        if time_ns < self.stamp_ns:
            return None
        return int(self.ends_ns.searchsorted(time_ns, side="right"))


class CommandSchedule:
    """What is in force at a time, given the chunks so far: of the newest chunk that has begun, the step of that time.

    A function of the clock and the chunks alone, never of how often anybody asked. `max_age_ns`: how much longer than
    its end the last step stays in force. Chunks may be added ahead of time; those that a newer one has replaced by
    `forget_before` are dropped.
    """

    def __init__(self, max_age_ns: int = 0) -> None:
        self._max_age_ns = max_age_ns
        self._chunks: list[ActionChunk] = []

    def add(self, chunk: ActionChunk) -> None:
        """Take a chunk; one with the same stamp replaces the older, one out of order is sorted in."""
        at = len(self._chunks)
        while at > 0 and self._chunks[at - 1].stamp_ns > chunk.stamp_ns:
            at -= 1
        if at > 0 and self._chunks[at - 1].stamp_ns == chunk.stamp_ns:
            self._chunks[at - 1] = chunk
        else:
            self._chunks.insert(at, chunk)

    def clear(self) -> None:
        self._chunks.clear()

    @property
    def newest_stamp_ns(self) -> int | None:
        return self._chunks[-1].stamp_ns if self._chunks else None

    def chunk_at(self, time_ns: int) -> ActionChunk | None:
        """The newest chunk whose stamp is not after `time_ns`."""
        for chunk in reversed(self._chunks):
            if chunk.stamp_ns <= time_ns:
                return chunk
        return None

    def action_at(self, time_ns: int) -> npt.NDArray[np.float64] | None:
        """The action (action_dim,) in force at `time_ns`, or None when there is none."""
        chunk = self.chunk_at(time_ns)
        if chunk is None:
            return None
        step = chunk.step_at(time_ns)
        if step is None:
            return None
        if step >= chunk.horizon:
            if time_ns >= int(chunk.ends_ns[-1]) + self._max_age_ns:
                return None
            step = chunk.horizon - 1
        action: npt.NDArray[np.float64] = chunk.actions[step]
        return action

    def forget_before(self, time_ns: int) -> None:
        """Drop the chunks that no question about `time_ns` or later can need."""
        chunks, over = self._chunks, 0
        while over + 1 < len(chunks) and chunks[over + 1].stamp_ns <= time_ns:
            over += 1
        del chunks[:over]

    def waiting(self) -> tuple[int, int]:
        """How many chunks are kept, and the stamp in their middle, 0 of none."""
        chunks = self._chunks
        return len(chunks), chunks[len(chunks) // 2].stamp_ns if chunks else 0

    def forget_between(self, begin_ns: int, end_ns: int) -> None:
        """Drop the chunks that only a question about a time after `begin_ns` and before `end_ns` can need."""
        stamps = [chunk.stamp_ns for chunk in self._chunks]
        first, last = bisect_right(stamps, begin_ns), bisect_right(stamps, end_ns) - 1
        if last > first:
            del self._chunks[first:last]


def check_publishable(contract: Contract) -> None:
    """Raise ContractError unless a policy can send the contract's action messages."""
    action = contract.action
    if not action.publishable:
        read = " read by fields" if action.fields and action.type in CHUNK_TYPES else ""
        raise ContractError(
            f"{action.topic}: {action.type}{read} can be recorded and learnt from, but not be sent by a policy, which "
            f"gives out chunks; let the robot take {' or '.join(CHUNK_TYPES)}, record that, and train again"
        )


def encode_chunk(contract: Contract, chunk: ActionChunk) -> dict[str, Any]:
    """The chunk as the fields of the contract's action message, in plain dicts, lists and numbers.

    A JointTrajectory of positions carries velocities too (see `point_velocities`), so that
    joint_trajectory_controller makes a cubic spline of it and not a line with corners. One of velocities carries
    nothing else: that controller integrates them by itself where its `allow_integration_in_goal_trajectories` is set
    (with `allow_nonzero_velocity_at_trajectory_end`, as a chunk of velocities hardly ever ends at rest), and
    accelerations, which it does not need, would be the differences of what is held during each step.
    `decode_chunk` reads the contract's command alone.

    Raises ContractError where such messages can only be recorded.
    """
    check_publishable(contract)
    action = contract.action
    if chunk.actions.shape[1] != contract.action_dim:
        raise ContractError(
            f"{action.topic}: chunk has {chunk.actions.shape[1]} numbers, expected {contract.action_dim}"
        )
    if action.type == JOINT_TRAJECTORY:
        groups = {
            group: np.zeros((chunk.horizon, 0)) for group in ("positions", "velocities", "accelerations", "effort")
        }
        groups[action.command] = chunk.actions
        if action.command == "positions":
            groups["velocities"] = point_velocities(chunk)
        return {
            "header": {"stamp": _time_fields(chunk.stamp_ns), "frame_id": ""},
            "joint_names": list(action.names),
            "points": [
                {
                    **{group: values[step].tolist() for group, values in groups.items()},
                    "time_from_start": _time_fields(int(end) - chunk.stamp_ns),
                }
                for step, end in enumerate(chunk.ends_ns)
            ],
        }
    starts = [chunk.stamp_ns, *chunk.ends_ns[:-1].tolist()]
    rows = [[start / NANOSECONDS, *row.tolist()] for start, row in zip(starts, chunk.actions, strict=True)]
    width = contract.action_dim + 1
    steps, columns = _array_labels(action.names)
    return {
        "layout": {
            "dim": [
                {"label": steps, "size": chunk.horizon, "stride": chunk.horizon * width},
                {"label": columns, "size": width, "stride": width},
            ],
            "data_offset": 0,
        },
        "data": [value for row in rows for value in row],
    }


def point_velocities(chunk: ActionChunk) -> npt.NDArray[np.float64]:
    """Velocities (horizon, action_dim) in units a second at the ends of a chunk's steps, whose actions are positions.

    The first is that towards the second; between, the harmonic mean of those before and after, or 0 where they differ
    in sign (Fritsch and Butland 1984): a cubic spline through such points stays between them, so that what is inside
    the limits at the points is inside them all the way, and a constant velocity is itself. The last is 0: a chunk that
    no other replaces ends at rest, and joint_trajectory_controller takes no other by default.
    """
    velocities = np.zeros_like(chunk.actions)
    if chunk.horizon > 1:
        slopes = np.diff(chunk.actions, axis=0) / (np.diff(chunk.ends_ns)[:, None] / NANOSECONDS)
        before, after = slopes[:-1], slopes[1:]
        velocities[0] = slopes[0]
        same = before * after > 0
        velocities[1:-1][same] = 2.0 / (1.0 / before[same] + 1.0 / after[same])
    return velocities


def decode_chunk(contract: Contract, message: Any, receive_ns: int) -> ActionChunk:
    """The chunk that an action message says; a single command that is held is a chunk of one step.

    Raises ContractError that names the topic and the field when joints are missing, times do not increase, or a number
    is not finite. Limits are not checked here: that is the safety filter's work.
    """
    action = contract.action
    if action.fields:
        decode = _decode_fields
    else:
        decode = _decode_trajectory if action.type == JOINT_TRAJECTORY else _decode_array
    chunk = decode(contract, message, receive_ns)
    # The sum of squares is finite only where all are; where huge numbers make it overflow each is looked at.
    if not np.vdot(chunk.actions, chunk.actions) < np.inf and not np.isfinite(chunk.actions).all():
        step, feature = np.argwhere(~np.isfinite(chunk.actions))[0]
        raise ContractError(
            f"{action.topic}: step {step}, {action.names[feature]} is {chunk.actions[step, feature]}, "
            "expected a finite number"
        )
    return chunk


def _decode_trajectory(contract: Contract, message: Any, receive_ns: int) -> ActionChunk:
    action = contract.action
    names = list(message.joint_names)
    if sorted(names) != sorted(action.names):
        raise ContractError(
            f"{action.topic}: joint_names are {', '.join(names) or 'empty'}, expected {', '.join(action.names)}"
        )
    order = [names.index(name) for name in action.names]
    # A JointTrajectory with stamp 0 means "now" (trajectory_msgs); so does the receive clock.
    stamp = stamp_to_ns(message.header.stamp) if contract.clock_of(action) == "header" else 0
    stamp = stamp or receive_ns
    rows: list[npt.NDArray[np.float64]] = []
    ends: list[int] = []
    for index, point in enumerate(message.points):
        values = np.asarray(getattr(point, action.command), dtype=np.float64)
        if values.shape != (len(names),):
            raise ContractError(
                f"{action.topic}: points[{index}].{action.command} has {values.size} values, expected {len(names)}"
            )
        rows.append(values[order])
        ends.append(stamp + stamp_to_ns(point.time_from_start))
    return _chunk(contract, stamp, ends, np.array(rows))


def _decode_array(contract: Contract, message: Any, receive_ns: int) -> ActionChunk:
    action = contract.action
    dims = message.layout.dim
    labels = [dim.label for dim in dims]
    expected = _array_labels(action.names)
    if labels != expected:
        raise ContractError(f"{action.topic}: layout labels are {labels}, expected {expected}")
    data = np.asarray(message.data, dtype=np.float64)
    width = contract.action_dim + 1
    if data.size != dims[0].size * width:
        raise ContractError(f"{action.topic}: data has {data.size} values, expected {dims[0].size} x {width}")
    times = data[::width].tolist()
    if not all(0 <= time <= _LAST_SECOND for time in times):
        raise ContractError(f"{action.topic}: column 'time' is not between 0 and {_LAST_SECOND:.0f} s since the epoch")
    starts = [_snap(contract, round(time * NANOSECONDS)) for time in times]
    if contract.clock_of(action) == "receive" and starts:
        starts = [start - starts[0] + receive_ns for start in starts]
    # The last row has no successor to end it: it lasts until the next tick, or one period where it began off the grid.
    ends = [*starts[1:], _one_period_after(contract, starts[-1])] if starts else []
    return _chunk(contract, starts[0] if starts else 0, ends, data.reshape(-1, width)[:, 1:].copy())


def _decode_fields(contract: Contract, message: Any, receive_ns: int) -> ActionChunk:
    action = contract.action
    stamp = message_stamp(action.topic, action.type, contract.clock_of(action), message, receive_ns)
    values = _field_reader(action.topic, action.type, action.fields).read(message)
    return _chunk(contract, stamp, [stamp], values[None])


@lru_cache(maxsize=16)
def _array_labels(names: tuple[str, ...]) -> list[str]:
    """The labels of a MultiArray's two dimensions."""
    return ["step", ",".join(["time", *names])]


@lru_cache(maxsize=16)
def _field_reader(topic: str, kind: str, fields: tuple[str, ...]) -> FieldReader:
    """Kept, because it knows where the joints stood in the message before."""
    return FieldReader(topic, kind, fields)


def _snap(contract: Contract, time_ns: int) -> int:
    """A time that float seconds have moved off its tick, put back on it."""
    index = tick_at_or_after(time_ns - _FLOAT_SECONDS_SLACK_NS, contract.rate_fraction)
    tick = tick_time(index, contract.rate_fraction)
    return tick if abs(tick - time_ns) <= _FLOAT_SECONDS_SLACK_NS else time_ns


def _one_period_after(contract: Contract, time_ns: int) -> int:
    """The next tick from a tick (ticks are whole nanoseconds, so that periods differ by one), else plus a period."""
    index = tick_at_or_after(time_ns, contract.rate_fraction)
    on_grid = tick_time(index, contract.rate_fraction) == time_ns
    return tick_time(index + 1, contract.rate_fraction) if on_grid else time_ns + contract.period_ns


def _chunk(contract: Contract, stamp: int, ends: Sequence[int], actions: npt.NDArray[np.float64]) -> ActionChunk:
    topic = contract.action.topic
    if not len(actions):
        raise ContractError(f"{topic}: the message has no steps, expected at least one")
    if contract.action.resolve == "hold" and len(actions) == 1:
        # Over at once, and then in force for max_age more, which is what CommandSchedule does with a last step.
        ends = [stamp + 1]
    try:
        return ActionChunk(stamp, np.array(ends, dtype=np.int64), actions)
    except ContractError as error:
        raise ContractError(f"{topic}: {error}") from None


def _time_fields(stamp_ns: int) -> dict[str, int]:
    sec, nanosec = ns_to_stamp(stamp_ns)
    return {"sec": sec, "nanosec": nanosec}
