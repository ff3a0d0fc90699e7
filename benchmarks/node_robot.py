"""The robot of `make bench-node`: publishes observations on time, and measures how long their chunks take.

Chunks are taken as bytes, of which only the stamp is read, so that measuring costs the same whatever their size, and
little: it shares the machine with what it measures.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from math import inf
from struct import unpack_from
from time import monotonic, perf_counter_ns, time_ns
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.context import Context
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from rql_core.contract import Contract
from rql_core.contract.time import NANOSECONDS
from rql_ros.messages import qos_profile

PATIENCE_S = 30.0
ASK_AGAIN_S = 2.0
# In the middle of what the contract allows each joint.
POSITIONS = (-1.85, -1.45, 1.85, -1.9, -1.57, -0.25)
# Until when an answer to the last observation of a turn is waited for.
LAST_ANSWER_S = 0.25


class BenchRobot:
    """In a ROS domain of its own, which it shares with one node under test."""

    def __init__(self, contract: Contract, domain: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node(f"bench_robot_{domain}", context=self._context)
        self._executor = _executor(self._context)
        self._executor.add_node(self._node)
        self._period_ns = contract.period_ns
        joints, pose = contract.observation.topics
        self._joints = self._node.create_publisher(JointState, joints.topic, qos_profile(joints.qos))
        self._pose = self._node.create_publisher(PoseStamped, pose.topic, qos_profile(pose.qos))
        self._node.create_subscription(
            JointTrajectory, contract.action.topic, self._receive, qos_profile(contract.action.qos), raw=True
        )
        self._rearm = self._node.create_client(Trigger, "/policy_node/rearm")
        self._change = self._node.create_client(ChangeState, "/policy_node/change_state")
        self._at_rest = False
        names = [field.partition(".")[2] for field in joints.features[0].fields]
        zeros = [0.0] * len(names)
        self._joint_message = JointState(name=names, position=list(POSITIONS), velocity=zeros, effort=zeros)
        self._pose_message = PoseStamped()
        self._pose_message.pose.position.x = 0.5
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnose, 10)
        # What the node last said of itself on /diagnostics; and by how many ms each observation came after its tick,
        # which is the machine's doing and not the node's.
        self.said: dict[str, str] = {}
        self.late_ms: list[float] = []
        self._sent_ns: dict[int, int] = {}
        self._received_ns: dict[int, int] = {}
        self._newest = self.chunk = b""

    def close(self) -> None:
        """Leave the domain."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def wait_for_node(self) -> None:
        """Wait until both sides have found each other."""
        topic = self._joints.topic_name
        self._wait(
            lambda: (
                min(self._joints.get_subscription_count(), self._pose.get_subscription_count()) > 0
                and self._node.count_publishers("/arm_controller/joint_trajectory") > 0
            ),
            f"a reader of {topic}",
        )

    def begin(self) -> None:
        """Let a policy node command, which `rest` has deactivated, or which has stopped for lack of observations."""
        if self._at_rest:
            self._ask(self._change, ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE)))
        self._at_rest = False
        self._ask(self._rearm, Trigger.Request())

    def rest(self) -> None:
        """Deactivate a policy node: its timers would wake up on the core of the one that is measured next."""
        self._ask(self._change, ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE)))
        self._at_rest = True

    def _ask(self, client: Any, request: Any) -> None:
        self._wait(client.service_is_ready, f"the node's service {client.srv_name}")
        answers: list[Any] = []
        asked = 0.0

        def answered() -> bool:
            # The first one is lost where the node has not discovered this side yet.
            nonlocal asked
            if monotonic() - asked > ASK_AGAIN_S:
                asked = monotonic()
                answers.append(client.call_async(request))
            return any(answer.done() for answer in answers)

        self._wait(answered, f"an answer of the node's service {client.srv_name}")

    def points(self) -> int:
        """How many points the last chunk has."""
        return len(deserialize_message(self.chunk, JointTrajectory).points)

    def stream(self, seconds: float, warm_up: float = 0.0, begin: Callable[[], None] | None = None) -> list[float]:
        """Publish an observation at every tick; ms from each to its chunk, infinite where none came.

        Those of the first `warm_up` s are left out; after them `begin` is called. There is no pause between, which the
        node under test would answer with a stop.
        """
        self._sent_ns, self._received_ns = {}, {}
        gc.disable()
        try:
            stamp = (time_ns() // self._period_ns + 2) * self._period_ns
            stamp = self._stream(stamp, warm_up)
            self._sent_ns.clear()
            self.late_ms.clear()
            if begin is not None:
                begin()
            self._stream(stamp, seconds)
            self.chunk = self._newest  # what comes when observations have ended is the stop
            self._serve_until(time_ns() + round(LAST_ANSWER_S * NANOSECONDS))
        finally:
            gc.enable()
        received = self._received_ns
        return [(received[stamp] - sent) / 1e6 if stamp in received else inf for stamp, sent in self._sent_ns.items()]

    def _stream(self, stamp: int, seconds: float) -> int:
        """Publish from the tick on; returns the next."""
        period = self._period_ns
        for _ in range(round(seconds * NANOSECONDS / period)):
            self._serve_until(stamp)
            self.late_ms.append((time_ns() - stamp) / 1e6)
            self._publish(stamp)
            # A robot that has overslept goes on with the present: late observations are not made up for.
            stamp = max(stamp + period, time_ns() // period * period)
        return stamp

    def _publish(self, stamp_ns: int) -> None:
        sec, nanosec = divmod(stamp_ns, NANOSECONDS)
        for message in (self._joint_message, self._pose_message):
            message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
        self._joints.publish(self._joint_message)
        self._sent_ns[stamp_ns] = perf_counter_ns()
        self._pose.publish(self._pose_message)

    def _serve_until(self, when_ns: int) -> None:
        while (left := when_ns - time_ns()) > 0:
            self._executor.spin_once(timeout_sec=left / NANOSECONDS)

    def _receive(self, data: bytes) -> None:
        now = perf_counter_ns()
        # CDR: four bytes that say the byte order (1: little endian), then the header's stamp.
        sec, nanosec = unpack_from("<iI" if data[1] == 1 else ">iI", data, 4)
        self._received_ns.setdefault(sec * NANOSECONDS + nanosec, now)
        self._newest = data

    def _diagnose(self, message: DiagnosticArray) -> None:
        self.said = {value.key: value.value for status in message.status for value in status.values}

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = monotonic() + PATIENCE_S
        while not done():
            if monotonic() > deadline:
                sys.exit(f"waited {PATIENCE_S:g} s for {what}")
            self._executor.spin_once(timeout_sec=0.02)


def _executor(context: Context) -> Any:
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        from rclpy.executors import SingleThreadedExecutor

        return SingleThreadedExecutor(context=context)
    return EventsExecutor(context=context)
