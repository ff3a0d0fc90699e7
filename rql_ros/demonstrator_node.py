"""The demonstrator: plays the robot through its topics, as a person or a script would, so that there is data.

It is a controller like the policy node: same contract, same topics, same reset, and can be evaluated the same way.
"""

from __future__ import annotations

import sys
from threading import RLock
from typing import Any

from rclpy.node import Node

from rql_core.runtime.runner import PolicyRunner
from rql_core.sim.actor import DemonstratorActor
from rql_ros.controller import Audience, ChunkPublisher, EpisodeControl, declare_min_subscribers, subscribe_observations
from rql_ros.parameters import declare, require_contract
from rql_ros.running import run_node


class DemonstratorNode(Node):
    """One command a tick from a scripted demonstrator. Single-threaded."""

    def __init__(self, **options: Any) -> None:
        """`options` go to rclpy's Node, such as `parameter_overrides`."""
        super().__init__("demonstrator", **options)
        world = declare(self, "world", "ur5e_ring", "world to play in", choices=("planar_arm", "ur5e_ring"))
        contract = require_contract(self)
        actor = DemonstratorActor(world, contract)
        self.runner = PolicyRunner(contract, actor)
        self.lock = RLock()
        self._control = EpisodeControl(self, lambda: self)
        self.runner.reset(self._control.seed())
        self._chunks = ChunkPublisher(self, contract)
        self._audience = Audience(declare_min_subscribers(self), [self._chunks])
        self._subscriptions_kept = subscribe_observations(self, contract, self._observe)
        self.get_logger().info(f"playing {world} with contract {contract.name!r}, seed {self._control.seed()}")

    def _observe(self, topic: str, message: Any) -> None:
        if not self._audience.there():
            return
        self.runner.push(topic, message, self.get_clock().now().nanoseconds)
        for chunk in self.runner.poll(None):
            self._chunks.publish(chunk)

    def interrupt(self) -> None:
        """Stand still: the stop for what was commanded so far."""
        chunk = self.runner.stop(None)
        if chunk is not None:
            self._chunks.publish(chunk)

    def close(self) -> None:
        """The end of the process."""
        self.interrupt()


def main() -> int:
    """Entry point of `ros2 run rql_ros demonstrator_node`."""
    return run_node(DemonstratorNode)


if __name__ == "__main__":
    sys.exit(main())
