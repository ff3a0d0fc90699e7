"""A robot that no contract was written for: a mobile base, an arm of seven joints in any order, three rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import synthetic

from rql_core.bags import BagWriter

JOINTS = tuple(f"arm_{number}_joint" for number in range(1, 8))
JOINT_HZ, ODOMETRY_HZ, COMMAND_HZ = 100, 50, 20
TYPES = {
    "/arm/joint_states": "sensor_msgs/msg/JointState",
    "/odom": "nav_msgs/msg/Odometry",
    "/cmd_vel": "geometry_msgs/msg/Twist",
    "/battery": "std_msgs/msg/Float32",
    "/camera/image": "sensor_msgs/msg/Image",
    "/scan": "sensor_msgs/msg/LaserScan",
    "/rosout": "rcl_interfaces/msg/Log",
}


def message(kind: str, **fields: Any) -> bytes:
    return bytes(synthetic.TYPES.serialize_cdr(synthetic.TYPES.types[kind](**fields), kind))


def vector(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Any:
    return synthetic.TYPES.types["geometry_msgs/msg/Vector3"](x, y, z)


def twist(linear: float, angular: float) -> Any:
    return synthetic.TYPES.types["geometry_msgs/msg/Twist"](vector(linear), vector(z=angular))


def odometry(stamp: int, x: float, y: float, yaw: float, speed: tuple[float, float]) -> bytes:
    types = synthetic.TYPES.types
    pose = types["geometry_msgs/msg/Pose"](
        types["geometry_msgs/msg/Point"](x, y, 0.0),
        types["geometry_msgs/msg/Quaternion"](0.0, 0.0, float(np.sin(yaw / 2)), float(np.cos(yaw / 2))),
    )
    return message(
        "nav_msgs/msg/Odometry",
        header=synthetic.header(stamp),
        child_frame_id="base_link",
        pose=types["geometry_msgs/msg/PoseWithCovariance"](pose, np.zeros(36)),
        twist=types["geometry_msgs/msg/TwistWithCovariance"](twist(*speed), np.zeros(36)),
    )


def record(path: Path, storage: str = "mcap", seconds: int = 10, seed: int = 0) -> Path:
    """A drive on a curve, the arm waving, with the joints of each message in another order."""
    rng = np.random.default_rng(seed)
    items: list[tuple[int, str, bytes]] = []
    for tick in range(seconds * JOINT_HZ):
        at = tick / JOINT_HZ
        stamp = synthetic.START_NS + round(at * 1e9)
        order = rng.permutation(len(JOINTS))
        position, velocity = np.sin(at + np.arange(7)), np.cos(at + np.arange(7))
        state = synthetic.joint_state(stamp, [JOINTS[i] for i in order], position[order], velocity[order])
        raw = bytes(synthetic.TYPES.serialize_cdr(state, TYPES["/arm/joint_states"]))
        items.append((stamp + 2_000_000, "/arm/joint_states", raw))
    for tick in range(seconds * ODOMETRY_HZ):
        at = tick / ODOMETRY_HZ
        stamp = synthetic.START_NS + round(at * 1e9)
        items.append((stamp + 5_000_000, "/odom", odometry(stamp, np.sin(at), 1 - np.cos(at), at, (0.5, 0.5))))
    for tick in range(seconds * COMMAND_HZ):
        at = tick / COMMAND_HZ
        stamp = synthetic.START_NS + round(at * 1e9)
        command = twist(0.5 + 0.1 * np.sin(at), 0.3 * np.cos(at))
        items.append((stamp + 1_000_000, "/cmd_vel", bytes(synthetic.TYPES.serialize_cdr(command, TYPES["/cmd_vel"]))))
    for second in range(seconds):
        stamp = synthetic.START_NS + second * 10**9
        items.append((stamp, "/battery", message(TYPES["/battery"], data=12.0 - 0.01 * second)))
    with BagWriter(path, storage) as writer:
        for topic, kind in TYPES.items():
            writer.add_topic(topic, kind)
        for stamp, topic, raw in sorted(items):
            writer.write(topic, stamp, raw)
    return path
