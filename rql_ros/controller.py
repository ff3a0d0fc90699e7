"""What a node that commands the robot is wired to: observation topics in, action chunks out, episodes from outside.

Used by the policy node and the demonstrator node, so that whatever drives the robot is evaluated by the same calls:
set the parameters `seed` and `episode_start_ns`, then call `~/reset`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.subscription import Subscription
from std_srvs.srv import Trigger

from rql_core.contract import ActionChunk, Contract, check_publishable, encode_chunk
from rql_core.runtime.runner import PolicyRunner
from rql_ros.messages import fill, message_class, qos_profile
from rql_ros.parameters import declare


class ChunkPublisher:
    """Publishes chunks as the contract's action message; raises ContractError where that can only be recorded."""

    def __init__(self, node: Node, contract: Contract) -> None:
        check_publishable(contract)
        self._contract = contract
        self._class = message_class(contract.action.type)
        self._publisher = node.create_publisher(self._class, contract.action.topic, qos_profile(contract.action.qos))

    def publish(self, chunk: ActionChunk) -> None:
        self._publisher.publish(fill(self._class(), encode_chunk(self._contract, chunk)))

    def destroy(self, node: Node) -> None:
        node.destroy_publisher(self._publisher)


def subscribe_observations(node: Node, contract: Contract, receive: Any) -> list[Subscription[Any]]:
    """Subscribe to every observation topic of the contract; `receive(topic, message)` is called for each message."""
    return [
        node.create_subscription(
            message_class(spec.type), spec.topic, partial(receive, spec.topic), qos_profile(spec.qos)
        )
        for spec in contract.observation.topics
    ]


class EpisodeControl:
    """The parameters and the service by which an evaluator starts an episode on a controller.

    `runner()` gives the runner, or None while the node is not active; `interrupt()` publishes the safe command for what
    was commanded before.
    """

    def __init__(self, node: Node, runner: Callable[[], PolicyRunner | None], interrupt: Callable[[], None]) -> None:
        self._node = node
        self._runner = runner
        self._interrupt = interrupt
        declare(node, "seed", -1, "seed of the next episode's random numbers; -1: not reproducible", read_only=False)
        declare(
            node,
            "episode_start_ns",
            0,
            "ns; after ~/reset, observations stamped before this are ignored; 0: none are",
            read_only=False,
        )
        self._service = node.create_service(Trigger, "~/reset", self._reset)

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        runner = self._runner()
        if runner is None:
            response.success, response.message = False, "not active"
            return response
        self._interrupt()
        seed = int(self._node.get_parameter("seed").value)
        start = int(self._node.get_parameter("episode_start_ns").value)
        runner.reset(None if seed < 0 else seed, start or None)
        response.success, response.message = True, f"seed {seed}, observations from {start} ns on"
        return response
