"""A robot that no contract was written for: a mobile base, an arm of seven joints in any order, four rates.

`python unseen_robot.py DIRECTORY` records three of its runs, those of docs/howto_new_robot.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import synthetic

from rql_core.bags import BagWriter

JOINTS = tuple(f"arm_{number}_joint" for number in range(1, 8))
JOINT_HZ, ODOMETRY_HZ, COMMAND_HZ, DOCK_HZ = 100, 50, 20, 5
# What the detector needs from the picture, whose time it stamps, to the position of the dock.
DOCK_DELAY_NS = 60_000_000
# How far before the dock, in m, a run ends.
DOCK_AHEAD = 0.2
TYPES = {
    "/arm/joint_states": "sensor_msgs/msg/JointState",
    "/odom": "nav_msgs/msg/Odometry",
    "/cmd_vel": "geometry_msgs/msg/Twist",
    "/battery": "std_msgs/msg/Float32",
    "/dock": "geometry_msgs/msg/PointStamped",
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


def speeds(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forward in m/s and about the vertical in rad/s, at times in s: what is commanded, and done."""
    return 0.5 + 0.1 * np.sin(at), 0.3 * np.cos(at)


def path(at: np.ndarray, turned: float) -> tuple[np.ndarray, np.ndarray]:
    """Position (n, 2) and yaw (n,) of the base on a winding way to the dock, at the origin, turned about that."""
    step = 1e-3
    yaw = turned + 0.3 * np.sin(np.arange(0, at[-1] + 1, step))
    forward, _ = speeds(np.arange(0, at[-1] + 1, step))
    way = np.cumsum(step * forward[:, None] * np.stack([np.cos(yaw), np.sin(yaw)], axis=1), axis=0)
    index = np.rint(at / step).astype(int)
    end = way[index[-1]] + DOCK_AHEAD * np.array([np.cos(yaw[index[-1]]), np.sin(yaw[index[-1]])])
    return way[index] - end, yaw[index]


def record(folder: Path, storage: str = "mcap", seconds: int = 10, seed: int = 0) -> Path:
    """A drive to the dock, the arm waving, with the joints of each message in another order; one a minute."""
    rng = np.random.default_rng(seed)
    start = synthetic.START_NS + seed * 60 * 10**9
    items: list[tuple[int, str, bytes]] = []
    for tick in range(seconds * JOINT_HZ):
        at = tick / JOINT_HZ
        stamp = start + round(at * 1e9)
        order = rng.permutation(len(JOINTS))
        position, velocity = np.sin(at + np.arange(7)), np.cos(at + np.arange(7))
        state = synthetic.joint_state(stamp, [JOINTS[i] for i in order], position[order], velocity[order])
        raw = bytes(synthetic.TYPES.serialize_cdr(state, TYPES["/arm/joint_states"]))
        items.append((stamp + 2_000_000, "/arm/joint_states", raw))
    times = np.arange(seconds * ODOMETRY_HZ) / ODOMETRY_HZ
    for tick, (at, place, yaw) in enumerate(zip(times, *path(times, 0.4 * seed), strict=True)):
        stamp = start + round(at * 1e9)
        forward, turning = speeds(at)
        raw = odometry(stamp, place[0], place[1], yaw, (float(forward), float(turning)))
        items.append((stamp + 5_000_000, "/odom", raw))
        if tick % (ODOMETRY_HZ // DOCK_HZ) == 0:
            seen = -place @ np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
            dock = synthetic.TYPES.types["geometry_msgs/msg/Point"](float(seen[0]), float(seen[1]), 0.0)
            raw = message(TYPES["/dock"], header=synthetic.header(stamp), point=dock)
            items.append((stamp + DOCK_DELAY_NS, "/dock", raw))
    for tick in range(seconds * COMMAND_HZ):
        at = tick / COMMAND_HZ
        forward, turning = speeds(np.float64(at))
        raw = bytes(synthetic.TYPES.serialize_cdr(twist(float(forward), float(turning)), TYPES["/cmd_vel"]))
        items.append((start + round(at * 1e9) + 1_000_000, "/cmd_vel", raw))
    for second in range(seconds):
        items.append((start + second * 10**9, "/battery", message(TYPES["/battery"], data=12.0 - 0.01 * second)))
    with BagWriter(folder, storage) as writer:
        for topic, kind in TYPES.items():
            writer.add_topic(topic, kind)
        for stamp, topic, raw in sorted(items):
            writer.write(topic, stamp, raw)
    return folder


if __name__ == "__main__":
    for run in range(3):
        record(Path(sys.argv[1]) / f"run_{run + 1}", seconds=10 + run, seed=run)
