"""Bags as large as asked for, quickly: each message is a serialised template with its stamp and numbers put in.

A robot with six joints: JointState, PoseStamped, and commands as Float64MultiArray. Numbers are a function of the time
alone, so that the same messages are made again. The files differ a little, because the writer closes a chunk also when
a moment has passed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rql_core.bags.message_types import standard_types
from rql_core.bags.writer import BagWriter, Storage
from rql_core.contract.time import NANOSECONDS

JOINTS = tuple(f"joint_{i}" for i in range(1, 7))
JOINT_STATES, POSE, COMMAND = "/joint_states", "/tool_pose", "/command"
TYPES = {
    JOINT_STATES: "sensor_msgs/msg/JointState",
    POSE: "geometry_msgs/msg/PoseStamped",
    COMMAND: "std_msgs/msg/Float64MultiArray",
}
# 2026-11-01 12:00 UTC: stamps as large as they are today, on a tick of every rate below.
START_NS = 1_793_534_400 * NANOSECONDS

CONTRACT = """
schema: 1
name: synthetic_arm
description: Six joints, a tool, and commands as arrays, for the benchmark.
rate: {control_hz}
clock: header
observation:
  max_wait: 0.02
  topics:
    - topic: /joint_states
      type: sensor_msgs/msg/JointState
      align: {{method: hold, max_age: 0.1}}
      features:
        - {{name: joint_position, unit: rad, fields: [{positions}]}}
        - {{name: joint_velocity, unit: rad/s, fields: [{velocities}]}}
    - topic: /tool_pose
      type: geometry_msgs/msg/PoseStamped
      align: {{method: hold, max_age: 0.1}}
      features:
        - {{name: tool_position, unit: m, fields: [pose.position.x, pose.position.y, pose.position.z]}}
action:
  topic: /command
  type: std_msgs/msg/Float64MultiArray
  command: velocities
  unit: rad/s
  hold: zero
  features:
{features}
reward:
  success: {{rule: within, feature: tool_position, target: [0.4, 0.2, 0.0], tolerance: 0.04}}
  at_success: 0.0
  otherwise: -1.0
episodes:
  boundary: {{by: bag}}
  min_steps: 2
  at_success: continue
"""


@dataclass(frozen=True)
class Rates:
    """Messages a second of each topic; all divide a second into whole nanoseconds."""

    joint_states: int
    pose: int
    control: int

    @property
    def total(self) -> int:
        """All messages of a second."""
        return self.joint_states + self.pose + self.control


# The rates of a UR5e's driver, a tracker and a policy; and the worst case, where every message is of a tick of its own.
FIELD = Rates(joint_states=500, pose=100, control=20)
DENSE = Rates(joint_states=50, pose=50, control=50)


def contract_text(rates: Rates) -> str:
    """The contract by which these bags are converted."""
    return CONTRACT.format(
        control_hz=rates.control,
        positions=", ".join(f"position.{joint}" for joint in JOINTS),
        velocities=", ".join(f"velocity.{joint}" for joint in JOINTS),
        features="\n".join(f"    - {{name: {joint}, lower: -1.0, upper: 1.0}}" for joint in JOINTS),
    )


def write_bag(path: Path, storage: Storage, seconds: int, rates: Rates, *, first_second: int = 0) -> int:
    """Write a bag of so many seconds and return the number of its messages."""
    messages = 0
    with BagWriter(path, storage) as writer:
        for topic, kind in TYPES.items():
            writer.add_topic(topic, kind)
        for second in range(first_second, first_second + seconds):
            for topic, stamp_ns, data in _second(START_NS + second * NANOSECONDS, rates):
                writer.write(topic, stamp_ns, data)
                messages += 1
    return messages


def bytes_of(path: Path) -> int:
    """The size of a bag's files."""
    return sum(file.stat().st_size for file in path.iterdir())


def seconds_for(folder: Path, storage: Storage, size: int, rates: Rates) -> int:
    """How many seconds of these topics are about `size` bytes; `folder` is for a short bag to measure it with."""
    probe = 20
    path = folder / f"probe_{storage}"
    write_bag(path, storage, probe, rates)
    return max(2, round(size / bytes_of(path) * probe))


class _Template:
    """A serialised message whose numbers are written over: float64 `values`, which are found where they were set."""

    def __init__(self, kind: str, message: Any, values: int) -> None:
        self._data = bytearray(standard_types().serialize_cdr(message, kind))
        marks = np.arange(1, values + 1, dtype="<f8") * np.pi
        offsets = [bytes(self._data).index(mark.tobytes()) for mark in marks]
        # (where it begins, its first value, the one after its last, how it is written) of each array.
        self._runs: list[tuple[int, int, int, struct.Struct]] = []
        first = 0
        for last in range(1, values + 1):
            if last == values or offsets[last] != offsets[last - 1] + 8:
                self._runs.append((offsets[first], first, last, struct.Struct(f"<{last - first}d")))
                first = last

    def fill(self, values: Sequence[float], stamp_ns: int | None) -> bytes:
        data = self._data
        if stamp_ns is not None:
            # After the four bytes of encapsulation every header begins with seconds and nanoseconds.
            struct.pack_into("<iI", data, 4, *divmod(stamp_ns, NANOSECONDS))
        for offset, first, last, run in self._runs:
            run.pack_into(data, offset, *values[first:last])
        return bytes(data)


def _marks(first: int, count: int) -> Any:
    return np.arange(first, first + count, dtype=np.float64) * np.pi


def _templates() -> dict[str, _Template]:
    types = standard_types().types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](0, 0), "base_link")
    joints = types[TYPES[JOINT_STATES]](header, list(JOINTS), _marks(1, 6), _marks(7, 6), np.zeros(6))
    point = types["geometry_msgs/msg/Point"](*_marks(1, 3))
    pose = types["geometry_msgs/msg/Pose"](point, types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0))
    dimension, layout = types["std_msgs/msg/MultiArrayDimension"], types["std_msgs/msg/MultiArrayLayout"]
    width = len(JOINTS) + 1
    dims = [dimension("step", 1, width), dimension(",".join(["time", *JOINTS]), width, width)]
    return {
        JOINT_STATES: _Template(TYPES[JOINT_STATES], joints, 12),
        POSE: _Template(TYPES[POSE], types[TYPES[POSE]](header, pose), 3),
        COMMAND: _Template(TYPES[COMMAND], types[TYPES[COMMAND]](layout(dims, 0), _marks(1, width)), width),
    }


_TEMPLATES: dict[str, _Template] = {}


def _second(start_ns: int, rates: Rates) -> Iterator[tuple[str, int, bytes]]:
    """The messages of one second, by time."""
    if not _TEMPLATES:
        _TEMPLATES.update(_templates())
    due: list[tuple[int, int, str]] = []
    for order, (topic, rate) in enumerate(
        zip((JOINT_STATES, POSE, COMMAND), (rates.joint_states, rates.pose, rates.control), strict=True)
    ):
        due += [(start_ns + i * (NANOSECONDS // rate), order, topic) for i in range(rate)]
    for stamp_ns, _, topic in sorted(due):
        phase = (stamp_ns - START_NS) / NANOSECONDS
        wave = np.sin(phase * np.arange(1, 13) * 0.37).tolist()
        if topic == COMMAND:
            # 3 ms later than what it answers, as a policy's commands are.
            yield topic, stamp_ns + 3_000_000, _TEMPLATES[topic].fill([stamp_ns / NANOSECONDS, *wave[:6]], None)
        else:
            yield topic, stamp_ns, _TEMPLATES[topic].fill(wave if topic == JOINT_STATES else wave[:3], stamp_ns)
