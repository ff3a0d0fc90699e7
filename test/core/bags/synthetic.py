"""Makes bags from plain arrays, so that a test knows every number that a conversion should find again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from rql_core.bags import BagWriter
from rql_core.contract import ActionChunk, Contract, encode_chunk, parse_contract

TYPES = get_typestore(Stores.ROS2_KILTED)
PERIOD_NS = 50_000_000
# 2026-11-01 12:00 UTC: stamps as large as they are today.
START_NS = 1_793_534_400_000_000_000
JOINTS = ("shoulder_joint", "elbow_joint")
CONTRACT = """
schema: 1
name: two_joints
description: Two joints and a tool, for tests.
rate: 20
clock: header
observation:
  max_wait: 0.02
  topics:
    - topic: /joint_states
      type: sensor_msgs/msg/JointState
      align: {method: hold, max_age: 0.1}
      features:
        - {name: joint_position, unit: rad, fields: [position.shoulder_joint, position.elbow_joint]}
        - {name: joint_velocity, unit: rad/s, fields: [velocity.shoulder_joint, velocity.elbow_joint]}
    - topic: /tool_pose
      type: geometry_msgs/msg/PoseStamped
      align: {method: hold, max_age: 0.1}
      features:
        - {name: tool_position, unit: m, fields: [pose.position.x, pose.position.y, pose.position.z]}
action:
  topic: /command
  type: trajectory_msgs/msg/JointTrajectory
  command: velocities
  unit: rad/s
  hold: zero
  features:
    - {name: shoulder_joint, lower: -2.0, upper: 2.0}
    - {name: elbow_joint, lower: -2.0, upper: 4.0}
reward:
  success: {rule: within, feature: tool_position, target: [0.4, 0.2, 0.0], tolerance: 0.04}
  at_success: 0.0
  otherwise: -1.0
episodes:
  boundary: {by: marker, topic: /episode, type: std_msgs/msg/Header}
  min_steps: 2
  at_success: continue
"""
GOAL = (0.4, 0.2, 0.0)

_EMPTY = np.empty(0)


def contract_text(*changes: tuple[str, str]) -> str:
    """The contract above with some of its text replaced."""
    text = CONTRACT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def contract_file(folder: Path, *changes: tuple[str, str]) -> Path:
    path = folder / "contract.yaml"
    path.write_text(contract_text(*changes))
    return path


def time_of(stamp_ns: int) -> Any:
    return TYPES.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))


def header(stamp_ns: int) -> Any:
    return TYPES.types["std_msgs/msg/Header"](time_of(stamp_ns), "")


def joint_state(stamp_ns: int, names: Sequence[str], position: Any, velocity: Any) -> Any:
    message = TYPES.types["sensor_msgs/msg/JointState"]
    return message(header(stamp_ns), list(names), np.array(position, float), np.array(velocity, float), _EMPTY)


def pose(stamp_ns: int, xyz: Any) -> Any:
    point = TYPES.types["geometry_msgs/msg/Point"](*map(float, xyz))
    quaternion = TYPES.types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    return TYPES.types["geometry_msgs/msg/PoseStamped"](
        header(stamp_ns), TYPES.types["geometry_msgs/msg/Pose"](point, quaternion)
    )


def build(kind: str, fields: Any) -> Any:
    """A rosbags message of type `kind` from plain dicts, lists and numbers."""
    members = dict(TYPES.fielddefs[kind][1])
    values = {}
    for name, (node, detail) in members.items():
        values[name] = _build(int(node), detail, fields[name])
    return TYPES.types[kind](**values)


def _build(node: int, detail: Any, value: Any) -> Any:
    if node == 1:  # base type
        return value
    if node == 2:  # message
        return build(detail, value)
    (inner, inner_detail), _ = detail
    if int(inner) == 2:
        return [build(inner_detail, item) for item in value]
    return list(value) if inner_detail[0] == "string" else np.array(value, dtype=inner_detail[0])


def action_message(contract: Contract, stamp_ns: int, actions: Any) -> Any:
    chunk = ActionChunk.regular(contract, stamp_ns, np.atleast_2d(np.asarray(actions, dtype=np.float64)))
    return build(contract.action.type, encode_chunk(contract, chunk))


@dataclass
class Recording:
    """What went into a bag: at tick i (START_NS + i periods) positions, velocities, tool and action i."""

    contract: Contract
    positions: np.ndarray
    velocities: np.ndarray
    tool: np.ndarray
    actions: np.ndarray
    messages: list[tuple[str, int, Any]] = field(default_factory=list)

    @property
    def observations(self) -> np.ndarray:
        return np.concatenate([self.positions, self.velocities, self.tool], axis=1).astype(np.float32)

    def stamp(self, tick: int) -> int:
        return START_NS + tick * self.contract.period_ns

    def add(self, topic: str, stamp_ns: int, message: Any) -> None:
        self.messages.append((topic, stamp_ns, message))

    def drop(self, topic: str, ticks: Sequence[int]) -> None:
        """Leave out the messages of a topic that were received at these ticks."""
        stamps = {self.stamp(tick) for tick in ticks}
        self.messages = [
            m for m in self.messages if not (m[0] == topic and m[1] - m[1] % self.contract.period_ns in stamps)
        ]

    def write(self, path: Path, storage: str = "mcap", leave_out: Sequence[str] = ()) -> Path:
        with BagWriter(path, storage) as writer:
            fill(writer, self, leave_out)
        return path


def topics_of(contract: Contract) -> dict[str, str]:
    topics = {spec.topic: spec.type for spec in contract.observation.topics}
    topics[contract.action.topic] = contract.action.type
    if contract.episodes.boundary.by == "marker":
        topics[contract.episodes.boundary.topic] = contract.episodes.boundary.type
    return topics


def fill(writer: BagWriter, recording: Recording, leave_out: Sequence[str] = ()) -> None:
    types = {topic: kind for topic, kind in topics_of(recording.contract).items() if topic not in leave_out}
    for topic, kind in types.items():
        writer.add_topic(topic, kind)
    for topic, stamp, message in sorted(recording.messages, key=lambda m: m[1]):
        if topic in types:
            writer.write(topic, stamp, TYPES.serialize_cdr(message, types[topic]))


def record(
    ticks: int, markers: Sequence[int] = (0,), contract: Contract | None = None, seed: int = 0, horizon: int = 1
) -> Recording:
    """A recording of two joints and a tool that is far from the goal.

    All messages are stamped with their tick; actions are received 3 ms later. With `horizon` h every h-th tick has a
    chunk of h actions. `markers`: ticks at which an episode starts.
    """
    contract = contract or parse_contract(CONTRACT)
    rng = np.random.default_rng(seed)
    shape = (ticks, contract.action_dim)
    recording = Recording(
        contract,
        rng.uniform(-1, 1, shape),
        rng.uniform(-1, 1, shape),
        rng.uniform(2, 3, (ticks, 3)),
        rng.uniform(-1, 1, shape),
    )
    observed = [spec.topic for spec in contract.observation.topics]
    for i in range(ticks):
        stamp = recording.stamp(i)
        recording.add(
            observed[0],
            stamp,
            joint_state(stamp, contract.action.names, recording.positions[i], recording.velocities[i]),
        )
        recording.add(observed[1], stamp, pose(stamp, recording.tool[i]))
        if i % horizon == 0:
            message = action_message(contract, stamp, recording.actions[i : i + horizon])
            recording.add(contract.action.topic, stamp + 3_000_000, message)
    for tick in markers:
        recording.add("/episode", recording.stamp(tick), header(recording.stamp(tick)))
    return recording
