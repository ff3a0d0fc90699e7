"""The least that a node in Python can do: hear both topics, and answer each complete observation with one message.

The message is made once, and only its stamp is new: what the policy node takes beyond this is its own.
"""

from __future__ import annotations

import sys
from array import array
from typing import Any

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from benchmarks.node_subjects import ECHO_READY, contract_at
from rql_core.contract import Contract
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


def main() -> int:
    """`node_echo RATE POINTS`."""
    contract = contract_at(int(sys.argv[1]))
    return run_node(lambda: Echo(contract, int(sys.argv[2])), arguments=[])


if __name__ == "__main__":
    sys.exit(main())
