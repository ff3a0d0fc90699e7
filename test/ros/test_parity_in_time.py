"""One meaning while time passes: late, jittery, slow and lost messages are to the live node what the converter makes.

A made-up bag is played under simulated time, each message when the bag says that it was received, into the policy node
that waits no longer than `max_wait`. test/core/contract/test_alignment_parity.py draws such faults at random, no ROS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from robot import PATIENCE_S, RESEND_S
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from test_parity import as_ros, watch_observations

from rql_core.algorithms import make_algorithm
from rql_core.algorithms.batch import RewardRange
from rql_core.bags import BagReader, BagWriter
from rql_core.bags.convert import convert
from rql_core.contract import Contract, parse_contract
from rql_core.data import Statistics
from rql_core.data.minari_io import load_dataset
from rql_core.export.checkpoint import export_checkpoint
from rql_core.training import Policy, TrainConfig
from rql_core.training.checkpoint import save_checkpoint
from rql_ros.messages import message_class, qos_profile
from rql_ros.policy_node import PolicyNode

STORE = get_typestore(Stores.ROS2_HUMBLE)
MS = 1_000_000
# 2026-11-01 12:00 UTC, a whole number of control periods.
START = 1_793_534_400_000 * MS
SECONDS = 4
# Nothing of the pose is recorded for so long: the episode breaks there.
LOST = (1900, 2400)

CONTRACT = """
schema: 1
name: in_time
description: Joints and a turning tool at 20 Hz, for tests.
rate: 20
clock: header
observation:
  max_wait: 0.2
  topics:
    - topic: /joint_states
      type: sensor_msgs/msg/JointState
      align: JOINTS
      features:
        - {name: joint_position, unit: rad, fields: [position.shoulder_joint, position.elbow_joint]}
        - {name: joint_velocity, unit: rad/s, fields: [position.elbow_joint], difference: true, history: 2}
    - topic: /tool_pose
      type: geometry_msgs/msg/PoseStamped
      align: POSE
      features:
        - {name: tool_position, unit: mm, scale: 1000.0, fields: [pose.position.x, pose.position.y]}
        - {name: tool_turn, unit: "1", fields: [pose.orientation], rotation: 6d}
action:
  topic: /command
  type: trajectory_msgs/msg/JointTrajectory
  command: velocities
  unit: rad/s
  hold: zero
  features:
    - {name: shoulder_joint, lower: -1.0, upper: 1.0}
    - {name: elbow_joint, lower: -1.0, upper: 1.0}
reward:
  success: {rule: within, feature: tool_position, target: [0.0, 0.0], tolerance: 0.1}
  at_success: 0.0
  otherwise: -1.0
episodes: {boundary: {by: bag}, min_steps: 1, at_success: continue}
"""
# Joints come every 20 ms or so, poses every 80 ms: slower than the control steps.
ALIGNMENTS = {
    "hold": ("{method: hold, max_age: 0.04}", "{method: hold, max_age: 0.15}\n      min_rate: 11"),
    "hold by receipt": (
        "{method: hold, max_age: 0.04}",
        "{method: hold, max_age: 0.15}\n      min_rate: 11\n      clock: receive",
    ),
    "nearest": ("{method: nearest, tolerance: 0.02}", "{method: nearest, tolerance: 0.08}\n      min_rate: 11"),
    "linear": ("{method: linear, tolerance: 0.06}", "{method: linear, tolerance: 0.15}"),
}


def make(name: str, *fields: Any) -> Any:
    return STORE.types[name](*fields)


def header(stamp: int) -> Any:
    return make("std_msgs/msg/Header", make("builtin_interfaces/msg/Time", *divmod(stamp, 10**9)), "base")


def joints(stamp: int, rng: np.random.Generator) -> Any:
    names = ["elbow_joint", "gripper", "shoulder_joint"]
    return make("sensor_msgs/msg/JointState", header(stamp), names, rng.normal(size=3), np.empty(0), np.empty(0))


def pose(stamp: int, rng: np.random.Generator) -> Any:
    point = make("geometry_msgs/msg/Point", *rng.normal(size=3).tolist())
    quaternion = rng.normal(size=4)
    turned = make("geometry_msgs/msg/Quaternion", *(quaternion / np.linalg.norm(quaternion)).tolist())
    return make("geometry_msgs/msg/PoseStamped", header(stamp), make("geometry_msgs/msg/Pose", point, turned))


def command(stamp: int, rng: np.random.Generator) -> Any:
    lasts = make("builtin_interfaces/msg/Duration", 0, 50 * MS)
    velocities, none = rng.uniform(-1, 1, size=2), np.empty(0)
    point = make("trajectory_msgs/msg/JointTrajectoryPoint", none, velocities, none, none, lasts)
    return make("trajectory_msgs/msg/JointTrajectory", header(stamp), ["shoulder_joint", "elbow_joint"], [point])


def record(path: Path, contract: Contract) -> Path:
    """Messages with jitter that arrive up to 30 ms late, and now and then not at all; commands at every step."""
    rng = np.random.default_rng(3)
    items: list[tuple[int, str, Any]] = []
    for topic, message, period in (("/joint_states", joints, 20), ("/tool_pose", pose, 80)):
        received = 0
        for at in range(0, SECONDS * 1000, period):
            # Some are stamped exactly on a tick.
            stamp = START + (at * MS if at % 400 == 0 else round((at + rng.uniform(-0.2, 0.2) * period) * MS))
            lost = topic == "/tool_pose" and LOST[0] <= at < LOST[1]
            if not lost and rng.random() > 0.02:
                # On one topic messages do not overtake each other.
                received = max(received + 1, stamp + round(rng.uniform(1, 30) * MS))
                items.append((received, topic, message(stamp, rng)))
    for step in range(-1, SECONDS * 20):
        stamp = START + step * contract.period_ns
        items.append((stamp + MS, "/command", command(stamp, rng)))
    types = {spec.topic: spec.type for spec in (*contract.observation.topics, contract.action)}
    with BagWriter(path) as writer:
        for topic, kind in types.items():
            writer.add_topic(topic, kind)
        for received, topic, message in sorted(items, key=lambda item: item[0]):
            writer.write(topic, received, bytes(STORE.serialize_cdr(message, types[topic])))
    return path


def checkpoint_of(contract: Contract, text: str, directory: Path) -> Path:
    """A policy of this contract that was never trained."""
    settings = {"algorithm": "bc_flow", "horizon": 4, "flow_steps": 2, "actor_hidden": [8]}
    config = TrainConfig.model_validate({"algorithm": settings})
    rewards = RewardRange(-1.0, 0.0, can_end=True)
    algorithm = make_algorithm(config.algorithm, contract.observation_dim, contract.action_dim, rewards)
    seen = np.random.default_rng(0).normal(size=(10, contract.observation_dim)).astype(np.float32)
    policy = Policy(algorithm, Statistics.of(seen))
    save_checkpoint(directory, policy, step=0, reward_range=rewards, contract_text=text)
    export_checkpoint(directory)
    return directory


class Playing:
    """The policy node in this process under simulated time, and a bag played into it."""

    def __init__(self, checkpoint: Path, contract: Contract) -> None:
        overrides = [
            Parameter("checkpoint", value=str(checkpoint)),
            Parameter("autostart", value=False),
            Parameter("use_sim_time", value=True),
        ]
        self.node = PolicyNode(parameter_overrides=overrides)
        self.node.trigger_configure()
        assert self.node._loop is not None
        runner = self.node._loop.runner
        self.seen = watch_observations(self.node)
        self.node.trigger_activate()
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.heard = 0
        push = runner.push

        def count(*arguments: Any, **options: Any) -> None:
            push(*arguments, **options)
            self.heard += 1

        runner.push = count  # type: ignore[method-assign]
        self.player = rclpy.create_node("player")
        self.clock = self.player.create_publisher(Clock, "/clock", 10)
        self.publishers = {
            spec.topic: self.player.create_publisher(message_class(spec.type), spec.topic, qos_profile(spec.qos))
            for spec in contract.observation.topics
        }
        self._until(
            lambda: (
                self.clock.get_subscription_count() >= 1
                and all(publisher.get_subscription_count() >= 1 for publisher in self.publishers.values())
                and all(self.node.count_publishers(topic) >= 1 for topic in self.publishers)
                and self.node.count_publishers("/clock") >= 1
            ),
            "the node to subscribe",
        )

    def close(self) -> None:
        self.player.destroy_node()
        self.executor.shutdown()
        self.node.destroy_node()

    def set_time(self, now: int) -> None:
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(now, 10**9)
        sent = -np.inf

        def arrived() -> bool:
            nonlocal sent
            # Nobody sends a lost time again: it is best effort.
            if monotonic() - sent > RESEND_S:
                self.clock.publish(message)
                sent = monotonic()
            return self.node.get_clock().now().nanoseconds == now

        self._until(arrived, "the node's clock")

    def play(self, bag: Path, contract: Contract) -> None:
        types = {spec.topic: spec.type for spec in contract.observation.topics}
        with BagReader(bag) as reader:
            for count, (topic, receive_ns, message) in enumerate(reader.messages(types), start=1):
                self.set_time(receive_ns)
                self.publishers[topic].publish(as_ros(types[topic], message))
                self._until(lambda count=count: self.heard == count, f"message {count}")  # type: ignore[misc]
        # What still waits for messages waits no longer.
        self.set_time(receive_ns + contract.observation.max_wait_ns)
        self.node._loop._poll(self.node._loop.now())

    def _until(self, done: Callable[[], bool], what: str) -> None:
        deadline = monotonic() + PATIENCE_S
        while not done():
            assert monotonic() < deadline, f"waited {PATIENCE_S:g} s for {what}"
            self.executor.spin_once(timeout_sec=0.02)


@pytest.fixture(scope="module", autouse=True)
def context() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.shutdown()


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_the_live_node_sees_the_training_observations_whatever_the_alignment(tmp_path: Path, alignment: str) -> None:
    of_joints, of_pose = ALIGNMENTS[alignment]
    text = CONTRACT.replace("JOINTS", of_joints).replace("POSE", of_pose)
    (tmp_path / "contract.yaml").write_text(text)
    contract = parse_contract(text)
    bag = record(tmp_path / "bag", contract)
    convert(bag, tmp_path / "contract.yaml", tmp_path / "parity-v0", progress=False)
    expected = load_dataset(tmp_path / "parity-v0")[0]
    playing = Playing(checkpoint_of(contract, text, tmp_path / "checkpoint"), contract)
    try:
        playing.play(bag, contract)
    finally:
        playing.close()
    seen = np.stack(playing.seen)
    assert len(expected.lengths) == 2
    assert len(expected.observations) > 60
    # After the bag's last message the node goes on for as long as the contract calls what it has fresh.
    np.testing.assert_array_equal(seen[: len(expected.observations)], expected.observations)
    assert len(seen) <= len(expected.observations) + 3
