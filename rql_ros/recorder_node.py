"""The recorder: the contract's topics, as they are on the wire, into rosbag2.

Messages are never decoded: the serialised bytes go to the bag with the time of their arrival by the node's clock
(simulated time under use_sim_time, as `ros2 bag record --use-sim-time` has it); header stamps stay as they are.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_srvs.srv import SetBool

from rql_core.bags.writer import BagWriter
from rql_core.contract.alignment import CLOCK_JUMP_NS
from rql_core.contract.schema import MarkerBoundary, Qos
from rql_core.errors import BagError
from rql_ros.messages import message_class, qos_profile
from rql_ros.parameters import declare, require, require_contract
from rql_ros.running import run_node


class RecorderNode(Node):
    """Records from the start unless `autostart` is false; `~/record` (SetBool) starts and stops. Single-threaded."""

    def __init__(self, **options: Any) -> None:
        """`options` go to rclpy's Node, such as `parameter_overrides`."""
        super().__init__("recorder", **options)
        contract = require_contract(self)
        self._directory = Path(require(self, "output", "directory that bags are written into"))
        self._prefix = declare(self, "prefix", "run", "bags are called PREFIX_0001, PREFIX_0002, ...")
        self._storage = declare(self, "storage", "mcap", "file format", choices=("mcap", "sqlite3"))
        self._episodes_per_bag = declare(
            self, "episodes_per_bag", 0, "start a new bag after this many episode markers; 0: never", bounds=(0, 10**6)
        )
        autostart = declare(self, "autostart", True, "record from the start")
        boundary = contract.episodes.boundary
        self._marker = boundary.topic if isinstance(boundary, MarkerBoundary) else None
        self._topics: dict[str, tuple[str, Qos]] = {
            spec.topic: (spec.type, spec.qos) for spec in contract.observation.topics
        }
        self._topics[contract.action.topic] = (contract.action.type, contract.action.qos)
        for event in contract.episodes.events:
            self._topics[event.topic] = (event.type, event.qos)
        for rule in contract.reward.topics:
            self._topics.setdefault(rule.topic, (rule.type, rule.qos))
        self._bag: BagWriter | None = None
        self._messages = 0
        self._episodes = 0
        self._newest_ns = 0
        self.exit_code: int | None = None
        if autostart:
            self._start()
        for topic, (type_name, qos) in self._topics.items():
            self.create_subscription(
                message_class(type_name), topic, partial(self._write, topic), qos_profile(qos), raw=True
            )
        self.create_service(SetBool, "~/record", self._record)
        # What was received is on disk within a second even when nothing more comes.
        self.create_timer(1.0, self._flush, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _start(self) -> None:
        number = 1
        while (path := self._directory / f"{self._prefix}_{number:04d}").exists():
            number += 1
        self._bag = BagWriter(path, storage=self._storage)
        for topic, (type_name, qos) in self._topics.items():
            self._bag.add_topic(topic, type_name, qos)
        self._messages = 0
        self._episodes = 0
        self.get_logger().info(f"recording {len(self._topics)} topics into {path}")

    def _stop(self) -> None:
        bag, self._bag = self._bag, None
        if bag is not None:
            bag.close()
            self.get_logger().info(f"closed {bag.path} with {self._messages} messages, {self._episodes} episodes")

    def _write(self, topic: str, data: bytes) -> None:
        if self._bag is None:
            return
        try:
            if topic == self._marker:
                if self._episodes_per_bag and self._episodes >= self._episodes_per_bag:
                    self._stop()
                    self._start()
                self._episodes += 1
            now = self.get_clock().now().nanoseconds
            if now < self._newest_ns - CLOCK_JUMP_NS:
                self.get_logger().warning("the clock was set back: a new bag is started, so that times stay in order")
                self._stop()
                self._start()
            self._newest_ns = now
            self._bag.write(topic, now, data)
        except (BagError, OSError) as error:
            self._fail(error)
            return
        self._messages += 1

    def _flush(self) -> None:
        try:
            if self._bag is not None:
                self._bag.flush()
        except (BagError, OSError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._bag = None  # what was written before stays readable
        self.exit_code = 1
        self.get_logger().fatal(f"recording stopped: {error}")

    def _record(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success = True
        if request.data and self._bag is None:
            self._start()
        elif not request.data:
            self._stop()
        response.message = f"recording into {self._bag.path}" if self._bag else "not recording"
        return response

    def close(self) -> None:
        """Finish the bag."""
        self._stop()


def main() -> int:
    """Entry point of `ros2 run rql_ros recorder_node`."""
    return run_node(RecorderNode)


if __name__ == "__main__":
    sys.exit(main())
