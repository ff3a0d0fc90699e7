"""The test's own end of the topics: what a robot and its operator would do, in this process."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from rql_core.contract import ActionChunk, Contract, decode_chunk
from rql_core.contract.time import ns_to_stamp

STREAM = QoSProfile(depth=1000)
# Longer than a node needs to start on a busy machine (importing torch takes seconds): only a dead one reaches it.
PATIENCE_S = 60.0
RESEND_S = 3.0


class Robot:
    """Publishes observations as a planar arm would, keeps the chunks and diagnostics that come back."""

    def __init__(self, contract: Contract, *remaps: str) -> None:
        """`remaps`: such as "/joint_states:=/left/joint_states"."""
        self.contract = contract
        self.chunks: list[ActionChunk] = []
        self.diagnostics: list[Any] = []
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        arguments = ["--ros-args", *(word for remap in remaps for word in ("-r", remap))]
        self.node = rclpy.create_node("test_robot", context=self.context, cli_args=arguments)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.joints = self.node.create_publisher(JointState, "/joint_states", STREAM)
        self.pose = self.node.create_publisher(PoseStamped, "/tool_pose", STREAM)
        self.commands: Any = None
        self.listen()
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnose, STREAM)

    def close(self) -> None:
        """Leave the domain."""
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def __enter__(self) -> Robot:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def listen(self) -> None:
        """Take commands."""
        self.commands = self.node.create_subscription(
            JointTrajectory, self.contract.action.topic, self._receive, STREAM
        )

    def commands_have(self, readers: int) -> bool:
        """Whether so many read the commands, as this side sees it."""
        return self.node.count_subscribers(self.contract.action.topic) == readers

    def turn_a_deaf_ear(self) -> None:
        """Take no commands until `listen`."""
        self.node.destroy_subscription(self.commands)

    def _receive(self, message: JointTrajectory) -> None:
        self.chunks.append(decode_chunk(self.contract, message, 1))

    def _diagnose(self, message: DiagnosticArray) -> None:
        self.diagnostics += message.status

    def wait(self, done: Callable[[], bool], what: str | Callable[[], str], patience: float = PATIENCE_S) -> None:
        """Serve callbacks until `done()`; fails with `what`, asked for then, when it does not come."""
        deadline = monotonic() + patience
        while not done():
            if monotonic() > deadline:
                raise AssertionError(f"waited {patience:g} s for {what if isinstance(what, str) else what()}")
            self.executor.spin_once(timeout_sec=0.02)

    def stream(self, done: Callable[[], bool], patience: float = PATIENCE_S, **observation: Any) -> None:
        """Publish observations at every tick until `done()`."""
        deadline = monotonic() + patience
        last = 0
        while not done():
            assert monotonic() < deadline, f"waited {patience:g} s with observations at every tick"
            stamp = self.now_tick()
            if stamp > last:
                self.publish(stamp, **observation)
                last = stamp
            self.executor.spin_once(timeout_sec=0.005)

    def wait_for_readers(self, count: int = 1) -> None:
        """Wait until the node under test reads both topics and we read its commands."""
        self.wait(
            lambda: (
                min(self.joints.get_subscription_count(), self.pose.get_subscription_count()) >= count
                and self.node.count_publishers(self.contract.action.topic) >= 1
            ),
            "the node to subscribe",
        )

    def wait_until_heard(self) -> None:
        """Wait until an active policy node hears both topics, which it may do later than we see it subscribe.

        Messages with stamp 0 are refused and said on /diagnostics, and move nothing.
        """
        self.wait_for_readers()
        for topic, send in (
            ("/joint_states", lambda: self.publish(0, pose=False)),
            ("/tool_pose", lambda: self.pose.publish(PoseStamped())),
        ):
            sent = 0.0
            deadline = monotonic() + PATIENCE_S
            while not self._refused_stamp_of(topic):
                assert monotonic() < deadline, f"waited {PATIENCE_S:g} s for {topic} to be heard"
                if monotonic() - sent > 0.2:
                    send()
                    sent = monotonic()
                self.executor.spin_once(timeout_sec=0.02)

    def _refused_stamp_of(self, topic: str) -> bool:
        values = [value.value for status in self.diagnostics for value in status.values]
        return any(text.startswith(f"{topic}: header.stamp is 0 ns") for text in values)

    def call(self, service: str, request: Any = None) -> Any:
        """Call a service of type Trigger (or SetBool, by the request's type) and return its answer."""
        kind = SetBool if isinstance(request, SetBool.Request) else Trigger
        client = self.node.create_client(kind, service)
        answer = self.ask(client, request or Trigger.Request())
        self.node.destroy_client(client)
        return answer

    def ask(self, client: Any, request: Any) -> Any:
        """Ask until there is an answer: the first one is lost where the server has not discovered us yet.

        For requests that may be repeated.
        """
        self.wait(client.service_is_ready, f"service {client.srv_name}")
        futures = [client.call_async(request)]
        asked = monotonic()

        def answered() -> bool:
            nonlocal asked
            if monotonic() - asked > RESEND_S:
                futures.append(client.call_async(request))
                asked = monotonic()
            return any(future.done() for future in futures)

        self.wait(answered, f"an answer from {client.srv_name}")
        return next(future for future in futures if future.done()).result()

    def publish(
        self,
        stamp_ns: int,
        position: tuple[float, float] = (-0.9, 1.9),
        *,
        names: tuple[str, ...] = ("shoulder_joint", "elbow_joint"),
        velocity: tuple[float, ...] = (0.0, 0.0),
        pose: bool = True,
    ) -> None:
        """One observation: joint states, and with `pose` the tool's pose."""
        sec, nanosec = ns_to_stamp(stamp_ns)
        joints = JointState(
            name=list(names), position=list(position), velocity=list(velocity), effort=[0.0] * len(names)
        )
        joints.header.stamp.sec, joints.header.stamp.nanosec = sec, nanosec
        self.joints.publish(joints)
        if pose:
            message = PoseStamped()
            message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
            message.pose.position.x, message.pose.position.y, message.pose.position.z = 0.25, 0.05, 0.06
            self.pose.publish(message)

    def now_tick(self) -> int:
        """The control tick at or after the wall clock's now, in ns."""
        period = self.contract.period_ns
        return (self.node.get_clock().now().nanoseconds // period + 1) * period
