"""The MuJoCo bridge: a simulated robot behind the topics of a real one.

Publishes /clock, joint_states, tool_pose, episode markers, reward and success; takes the contract's action messages.
In lockstep physics waits for the action of each tick (as fast as the machine goes, and reproducible); in realtime it is
paced by the wall clock. What is decided is in rql_core.sim.session; here it is only wired.
"""

from __future__ import annotations

import json
import sys
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64, Header
from std_srvs.srv import SetBool, Trigger

from rql_core.contract import decode_chunk
from rql_core.contract.time import ns_to_stamp
from rql_core.errors import ContractError
from rql_core.progress import progress_bar
from rql_core.sim import make_world
from rql_core.sim.session import Frame, Session
from rql_ros.messages import message_class, qos_profile
from rql_ros.parameters import declare, require_contract
from rql_ros.running import run_node

# Deep enough that a reader which falls behind a 1000 Hz stream for a second loses nothing.
STREAM = QoSProfile(depth=1000)
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
# Readers that were just discovered may not have discovered us yet; a first tick without answer is published again.
FIRST_TICK_RETRY_S = 0.5


class MujocoBridgeNode(Node):
    """Drives one ArmEnv. Single-threaded: every callback runs in the executor's thread."""

    def __init__(self, **options: Any) -> None:
        """`options` go to rclpy's Node, such as `parameter_overrides`."""
        super().__init__("mujoco_bridge", **options)
        world = declare(self, "world", "ur5e_ring", "simulated world", choices=("planar_arm", "ur5e_ring"))
        contract = require_contract(self)
        self._lockstep = declare(self, "mode", "realtime", "pacing", choices=("realtime", "lockstep")) == "lockstep"
        factor = declare(self, "factor", 1.0, "speed in realtime mode, 1 is real time", bounds=(0.01, 1000.0))
        start = declare(self, "start", "task", "where episodes start", choices=("task", "anywhere"))
        max_steps = declare(
            self, "max_episode_steps", 0, "steps until truncation; 0: the world's own", bounds=(0, 10**9)
        )
        terminate = declare(self, "terminate_on_success", True, "whether an episode ends when the task is solved")
        execute = declare(self, "execute_steps", 0, "lockstep: steps used of a chunk; 0: all", bounds=(0, 10_000))
        self._auto_reset = declare(self, "auto_reset", False, "start the next episode when one ends")
        self._max_episodes = declare(
            self, "max_episodes", 0, "end after this many episodes; 0: never", bounds=(0, 10**9)
        )
        self._min_subscribers = declare(
            self, "min_subscribers", 0, "wait for this many readers of every observation topic", bounds=(0, 100)
        )
        self._progress = declare(self, "progress", False, "show a progress bar; needs max_episodes")
        self._paused = declare(self, "paused", False, "start paused (see ~/pause)")
        declare(self, "seed", -1, "seed of the next episode that ~/reset starts; -1: none", read_only=False)

        self.exit_code: int | None = None
        self._contract = contract
        env = make_world(
            world,
            terminate_on_success=terminate,
            **({"max_episode_steps": max_steps} if max_steps else {}),
        )
        self._bar = progress_bar(
            total=self._max_episodes * env.max_episode_steps,
            desc=world,
            unit="step",
            file=sys.stdout,
            disable=not self._progress or self._max_episodes == 0,
        )
        self._session = Session(env, contract, start=start, execute_steps=execute)
        self._answered = False
        self._published_at = 0.0

        self._time = self.create_publisher(ClockMessage, "/clock", STREAM)
        self._joints = self.create_publisher(JointState, "joint_states", STREAM)
        self._pose = self.create_publisher(PoseStamped, "tool_pose", STREAM)
        self._episode = self.create_publisher(Header, "episode", LATCHED)
        self._reward = self.create_publisher(Float64, "~/reward", STREAM)
        self._success = self.create_publisher(Bool, "~/success", STREAM)
        self._result = self.create_publisher(DiagnosticArray, "~/result", LATCHED)
        self.create_subscription(
            message_class(contract.action.type), contract.action.topic, self._act, qos_profile(contract.action.qos)
        )
        self.create_service(Trigger, "~/reset", self._reset)
        self.create_service(SetBool, "~/pause", self._pause)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._watch = self.create_timer(0.1, self._look_after, clock=steady)
        if not self._lockstep:
            self._pace = self.create_timer(contract.period_ns / 1e9 / factor, self._tick, clock=steady)
        self.get_logger().info(
            f"{world} with contract {contract.name!r}, {'lockstep' if self._lockstep else f'realtime x{factor}'}"
        )

    def _look_after(self) -> None:
        """Ten times a second: start when readers are there; publish a first tick again that nobody answered."""
        if self._paused or self.exit_code is not None:
            return
        if self._session.frame is None:
            if self._readers_present():
                self._begin()
        elif (
            self._lockstep
            and not self._answered
            and self._session.frame.step == 0
            and monotonic() - self._published_at > FIRST_TICK_RETRY_S
        ):
            self._publish(self._session.frame)

    def _readers_present(self) -> bool:
        if self._min_subscribers == 0:
            return True
        topics = [publisher.topic_name for publisher in (self._joints, self._pose)]
        counts = [self.count_subscribers(topic) for topic in topics]
        return min(counts) >= self._min_subscribers and self.count_publishers(self._contract.action.topic) > 0

    def _begin(self, goes_on: bool = False) -> Frame:
        """Start an episode: with the parameter `seed`, or going on with the world's random numbers."""
        seed = int(self.get_parameter("seed").value)
        frame = self._session.begin(None if seed < 0 or goes_on else seed)
        self._answered = False
        marker = Header(frame_id=f"episode {frame.episode}")
        marker.stamp.sec, marker.stamp.nanosec = ns_to_stamp(frame.stamp_ns)
        self._episode.publish(marker)
        if not self._paused:
            self._publish(frame)
        return frame

    def _act(self, message: Any) -> None:
        try:
            chunk = decode_chunk(self._contract, message, self._session.stamp_ns)
        except ContractError as error:
            self.get_logger().error(str(error), throttle_duration_sec=1.0)
            return
        self._session.command(chunk)
        if self._session.frame is not None and chunk.stamp_ns >= self._session.frame.stamp_ns:
            self._answered = True
        if self._lockstep:
            self._advance()

    def _advance(self) -> None:
        """Lockstep: step while the actions are there."""
        while not self._paused and self._session.can_step():
            self._publish(self._session.step())
            self._after_step()

    def _tick(self) -> None:
        """Realtime: one step a period, with whatever action is in force."""
        if self._paused or self._session.frame is None or self._session.frame.ended or self.exit_code is not None:
            return
        self._publish(self._session.step())
        self._after_step()

    def _after_step(self) -> None:
        self._bar.update()
        frame = self._session.frame
        if frame is None or not frame.ended:
            return
        self._publish_result()
        if self._max_episodes and frame.episode >= self._max_episodes:
            self.exit_code = 0
        elif self._auto_reset:
            self._begin(goes_on=True)

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        frame = self._begin()
        response.success = True
        response.message = json.dumps({"episode": frame.episode, "stamp_ns": frame.stamp_ns})
        return response

    def _pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        was, self._paused = self._paused, bool(request.data)
        response.success = True
        response.message = "paused" if self._paused else "running"
        if was and not self._paused and self._session.frame is not None:
            if self._session.frame.step == 0:
                self._publish(self._session.frame)
            if self._lockstep:
                self._advance()
        return response

    def _publish(self, frame: Frame) -> None:
        sec, nanosec = ns_to_stamp(frame.stamp_ns)
        sample = frame.sample
        clock = ClockMessage()
        clock.clock.sec, clock.clock.nanosec = sec, nanosec
        self._time.publish(clock)
        joints = JointState(name=list(sample.joint_names))
        joints.header.stamp.sec, joints.header.stamp.nanosec = sec, nanosec
        joints.position = sample.position.tolist()
        joints.velocity = sample.velocity.tolist()
        joints.effort = sample.effort.tolist()
        self._joints.publish(joints)
        pose = PoseStamped()
        pose.header.stamp.sec, pose.header.stamp.nanosec = sec, nanosec
        pose.header.frame_id = "world"
        position, orientation = pose.pose.position, pose.pose.orientation
        position.x, position.y, position.z = sample.tool_position.tolist()
        orientation.x, orientation.y, orientation.z, orientation.w = sample.tool_quaternion.tolist()
        self._pose.publish(pose)
        if frame.step > 0:
            self._reward.publish(Float64(data=frame.reward))
            self._success.publish(Bool(data=frame.success))
        self._published_at = monotonic()

    def close(self) -> None:
        """Finish the progress bar."""
        self._bar.close()

    def _publish_result(self) -> None:
        result = self._session.result()
        message = DiagnosticArray()
        message.header.stamp.sec, message.header.stamp.nanosec = ns_to_stamp(self._session.stamp_ns)
        values = {
            "episode": result.episode,
            "seed": -1 if result.seed is None else result.seed,
            "steps": result.steps,
            "return": result.total_reward,
            "success": result.success,
            "starved": self._session.counts["starved"],
        }
        status = DiagnosticStatus(level=DiagnosticStatus.OK, name="episode result", hardware_id="mujoco")
        status.values = [KeyValue(key=key, value=json.dumps(value)) for key, value in values.items()]
        message.status = [status]
        self._result.publish(message)


def main() -> int:
    """Entry point of `ros2 run rql_ros mujoco_bridge_node`."""
    return run_node(MujocoBridgeNode)


if __name__ == "__main__":
    sys.exit(main())
