"""The least that a node in Python can do: hear both topics, and answer each complete observation with one message.

The message is made once, and only its stamp is new: what the policy node takes beyond this is its own. With a
checkpoint it goes through the policy's network first, so that what the network takes can be told from the rest.
"""

from __future__ import annotations

import sys
from array import array
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, sleep
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from benchmarks.node_subjects import ECHO_READY, contract_at
from rql_core.checkpoint_files import PolicyConfig, read_config, verify_files
from rql_core.contract import Contract
from rql_core.runtime.onnx_policy import OnnxPolicy
from rql_ros.messages import qos_profile
from rql_ros.running import run_node


class Echo(Node):
    """Answers an observation when both of its messages have come, whose stamps are equal."""

    def __init__(self, contract: Contract, points: int) -> None:
        super().__init__("echo")
        action = contract.action
        self._publisher = self.create_publisher(JointTrajectory, action.topic, qos_profile(action.qos))
        self._message = JointTrajectory(joint_names=list(action.names))
        for step in range(1, points + 1):
            sec, nanosec = divmod(step * contract.period_ns, 10**9)
            point = JointTrajectoryPoint(time_from_start=Duration(sec=sec, nanosec=nanosec))
            point.velocities = array("d", [0.0] * contract.action_dim)
            self._message.points.append(point)
        self._stamp = (0, 0)
        for spec, kind in zip(contract.observation.topics, (JointState, PoseStamped), strict=True):
            self.create_subscription(kind, spec.topic, self._hear, qos_profile(spec.qos))
        self.get_logger().info(ECHO_READY)

    def _hear(self, message: Any) -> None:
        stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
        if stamp == self._stamp:
            self._message.header.stamp = message.header.stamp
            self._publisher.publish(self._message)
        self._stamp = stamp


# As the policy node rehearses: twice, over a ms before the next observation.
IN_VAIN, MARGIN_S = 2, 0.001


class NetworkEcho(Echo):
    """Goes through a checkpoint's network before each answer, and in vain before each observation."""

    def __init__(self, contract: Contract, points: int, checkpoint: Path) -> None:
        manifest = verify_files(checkpoint)
        config = read_config(checkpoint, PolicyConfig, manifest)
        self._policy = OnnxPolicy.load(checkpoint, config, manifest)
        self._observation = np.zeros((1, config.observation_dim), dtype=np.float32)
        self._noise = np.zeros((1, config.horizon * config.action_dim), dtype=np.float32)
        self._period_s = contract.period_ns / 1e9
        self._expected, self._answered = 0.0, Event()
        super().__init__(contract, points)
        Thread(target=self._go_in_vain, daemon=True).start()

    def _hear(self, message: Any) -> None:
        stamp = message.header.stamp
        if (stamp.sec, stamp.nanosec) == self._stamp:
            self._expected = perf_counter() + self._period_s
            self._policy.act(self._observation, self._noise)
        super()._hear(message)
        self._answered.set()

    def _go_in_vain(self) -> None:
        takes = 0.0
        while self._answered.wait():
            self._answered.clear()
            left = self._expected - perf_counter() - MARGIN_S - IN_VAIN * takes
            if left <= 0:
                takes *= 0.9  # what was slow once is tried again
                continue
            sleep(left)
            began = perf_counter()
            for _ in range(IN_VAIN):
                self._policy.act(self._observation, self._noise)
            takes = (perf_counter() - began) / IN_VAIN


def main() -> int:
    """`node_echo RATE POINTS [CHECKPOINT]`."""
    contract, points = contract_at(int(sys.argv[1])), int(sys.argv[2])
    if len(sys.argv) > 3:
        return run_node(lambda: NetworkEcho(contract, points, Path(sys.argv[3])), arguments=[])
    return run_node(lambda: Echo(contract, points), arguments=[])


if __name__ == "__main__":
    sys.exit(main())
