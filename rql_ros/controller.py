"""What a node that commands the robot is wired to: observation topics in, commands out, episodes from outside.

Used by the policy node and the demonstrator node, so that whatever drives the robot is evaluated by the same calls:
set the parameters `seed` and `episode_start_ns`, then call `~/reset`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.subscription import Subscription
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from rql_core.contract import ActionChunk, Contract, check_publishable, encode_chunk
from rql_core.contract.schema import JOINT_TRAJECTORY
from rql_core.runtime.runner import PolicyRunner
from rql_ros.messages import fill, labelled, message_class, qos_profile
from rql_ros.parameters import declare
from rql_ros.trajectory_bytes import trajectory_writer

Remark = Callable[[str, str], None]


class Commanding(Protocol):
    """What EpisodeControl resets: a runner, and how what it commanded is ended."""

    @property
    def runner(self) -> PolicyRunner:
        """The runner."""

    @property
    def lock(self) -> Any:
        """Held while the runner is touched."""

    def interrupt(self) -> None:
        """Publish the stop for what was commanded so far."""


def chunk_message(contract: Contract) -> Callable[[ActionChunk], Any]:
    """What makes the contract's action message of a chunk, or its bytes; to be published before the next is made."""
    if contract.action.type == JOINT_TRAJECTORY:
        return trajectory_writer(contract)
    kind = message_class(contract.action.type)
    return lambda chunk: fill(kind(), encode_chunk(contract, chunk))


class ChunkPublisher:
    """Publishes chunks as the contract's action message; raises ContractError where that can only be recorded."""

    def __init__(self, node: Node, contract: Contract, remark: Remark | None = None) -> None:
        check_publishable(contract)
        topic = contract.action.topic
        self._message = chunk_message(contract)
        self._publisher = node.create_publisher(
            message_class(contract.action.type),
            topic,
            qos_profile(contract.action.qos),
            event_callbacks=PublisherEventCallbacks(incompatible_qos=_incompatible(topic, "subscriber", remark)),
        )

    def publish(self, chunk: ActionChunk) -> None:
        self._publisher.publish(self._message(chunk))

    def readers(self) -> int:
        """How many will get what is published now."""
        return int(self._publisher.get_subscription_count())

    def destroy(self, node: Node) -> None:
        node.destroy_publisher(self._publisher)


class CommandPublisher:
    """Publishes single commands on ~/command, as ros2_control's forward_command_controller takes them."""

    def __init__(self, node: Node, contract: Contract) -> None:
        self._names = contract.action.names
        self._publisher = node.create_publisher(Float64MultiArray, "~/command", qos_profile(contract.action.qos))

    def publish(self, command: npt.NDArray[np.float64]) -> None:
        self._publisher.publish(labelled(self._names, command.tolist()))

    def readers(self) -> int:
        """How many will get what is published now."""
        return int(self._publisher.get_subscription_count())

    def destroy(self, node: Node) -> None:
        node.destroy_publisher(self._publisher)


def declare_min_subscribers(node: Node) -> int:
    """The parameter of Audience."""
    return int(
        declare(
            node,
            "min_subscribers",
            0,
            "look at no observation until so many read the commands, such as a recorder beside the robot; 0: at once",
            bounds=(0, 100),
        )
    )


class Audience:
    """Whether enough read the commands: two nodes that have just discovered each other may not hear each other yet.

    Once enough have been there, it says so for ever: whoever leaves does not stop a robot.
    """

    def __init__(self, least: int, publishers: Sequence[ChunkPublisher | CommandPublisher]) -> None:
        """`least`: of each of the `publishers`."""
        self._least = least
        self._publishers = publishers

    def there(self) -> bool:
        """Whether they are, or were."""
        if self._least and all(publisher.readers() >= self._least for publisher in self._publishers):
            self._least = 0
        return self._least == 0

    def missing(self) -> str:
        """What is waited for; empty where nothing is."""
        if self.there():
            return ""
        found = min(publisher.readers() for publisher in self._publishers)
        return f"waiting: {found} of {self._least} readers of the commands are there (min_subscribers)"


def subscribe_observations(
    node: Node, contract: Contract, receive: Any, remark: Remark | None = None
) -> list[Subscription[Any]]:
    """Subscribe to every observation topic of the contract; `receive(topic, message)` is called for each message.

    `remark(topic, text)` hears of publishers whose quality of service does not fit the contract's.
    """
    return [
        node.create_subscription(
            message_class(spec.type),
            spec.topic,
            partial(receive, spec.topic),
            qos_profile(spec.qos),
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=_incompatible(spec.topic, "publisher", remark),
                incompatible_type=_incompatible_type(spec.topic, spec.type, remark),
            ),
        )
        for spec in contract.observation.topics
    ]


def _incompatible(topic: str, other: str, remark: Remark | None) -> Callable[[Any], None] | None:
    if remark is None:
        return None
    return lambda event: remark(
        topic,
        f"{topic}: a {other} has an incompatible quality of service ({event.last_policy_kind.name}), and nothing comes "
        "through; change qos in the contract or there",
    )


def _incompatible_type(topic: str, kind: str, remark: Remark | None) -> Callable[[Any], None] | None:
    if remark is None:
        return None
    return lambda event: remark(topic, f"{topic}: a publisher has another type than {kind}, which the contract says")


class EpisodeControl:
    """The parameters and the service by which an evaluator starts an episode on a controller.

    `active()` gives what commands the robot, or None while nothing does.
    """

    def __init__(self, node: Node, active: Callable[[], Commanding | None]) -> None:
        self._node = node
        self._active = active
        declare(
            node,
            "seed",
            -1,
            "seed of the next episode's random numbers; -1: not reproducible",
            bounds=(-1, 2**31 - 1),
            read_only=False,
        )
        declare(
            node,
            "episode_start_ns",
            0,
            "ns; after ~/reset, observations stamped before this are ignored; 0: none are",
            bounds=(0, 2**63 - 1),
            read_only=False,
        )
        self._service = node.create_service(Trigger, "~/reset", self._reset)

    def seed(self) -> int | None:
        """Of the next episode; None where it is not to be reproducible."""
        seed = int(self._node.get_parameter("seed").value)
        return None if seed < 0 else seed

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        active = self._active()
        if active is None:
            response.success, response.message = False, "not active"
            return response
        start = int(self._node.get_parameter("episode_start_ns").value)
        with active.lock:
            active.interrupt()
            active.runner.reset(self.seed(), start or None)
        said = "none" if self.seed() is None else str(self.seed())
        response.success, response.message = True, f"begun anew, seed {said}, observations from {start} ns on"
        return response
