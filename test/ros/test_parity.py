"""One meaning: what the live node sees of a bag is what the converter made training data of, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from robot import Robot

from rql_core.bags.convert import convert
from rql_core.bags.reader import BagReader, find_bags
from rql_core.contract import ActionScale, Contract
from rql_core.data.minari_io import load_dataset
from rql_core.data.trajectories import Trajectories
from rql_core.demo.processes import ProcessGroup, node_command
from rql_ros.messages import message_class, qos_profile
from rql_ros.policy_node import PolicyNode

EPISODES, STEPS = 2, 150


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory, contract_path: Path, checkpoint: Path) -> Path:
    """A run of the policy itself, recorded over ROS: its own chunks of four are the actions."""
    folder = tmp_path_factory.mktemp("parity")
    with ProcessGroup(folder / "logs") as group:
        group.start("recorder", node_command("recorder_node", contract=contract_path, output=folder / "bags"))
        group.start("policy", node_command("policy_node", checkpoint=checkpoint, lockstep=True, seed=4))
        group.start(
            "bridge",
            node_command(
                "mujoco_bridge_node",
                contract=contract_path,
                world="planar_arm",
                mode="lockstep",
                start="anywhere",
                seed=2,
                auto_reset=True,
                max_episodes=EPISODES,
                max_episode_steps=STEPS,
                terminate_on_success=False,
                min_subscribers=2,
            ),
        )
        group.wait("bridge")
        group.stop("policy")
        group.stop("recorder")
    return folder / "bags" / "run_0001"


@pytest.fixture(scope="module")
def dataset(bag: Path, contract_path: Path) -> Trajectories:
    """The bag as training data."""
    path = bag.parent.parent / "parity-v0"
    convert([bag], contract_path, path, progress=False)
    return load_dataset(path)[0]


class Watching:
    """Stands before the policy and keeps what it is shown and what it answers, normalised."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.seen: list[np.ndarray] = []
        self.horizon = actor.horizon

    def reset(self, seed: int | None) -> None:
        self.actor.reset(seed)

    def act(self, observation: np.ndarray) -> np.ndarray:
        self.seen.append(observation.copy())
        return self.actor.act(observation)


@pytest.fixture
def live(contract: Contract, checkpoint: Path) -> Iterator[tuple[PolicyNode, SingleThreadedExecutor]]:
    """The policy node itself in this process, on real topics, planning at every tick."""
    rclpy.init()
    overrides = [
        Parameter("checkpoint", value=str(checkpoint)),
        Parameter("autostart", value=False),
        Parameter("replan_every", value=1),
        Parameter("lockstep", value=True),
    ]
    node = PolicyNode(parameter_overrides=overrides)
    node.trigger_configure()
    node.trigger_activate()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    yield node, executor
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()


def test_the_live_node_sees_the_training_observations_to_the_last_bit(
    bag: Path,
    dataset: Trajectories,
    contract: Contract,
    live: tuple[PolicyNode, SingleThreadedExecutor],
) -> None:
    node, executor = live
    watching = Watching(node._runner._actor)
    node._runner._actor = watching
    with Robot(contract) as robot, BagReader(bag) as reader:
        publishers = {
            spec.topic: robot.node.create_publisher(message_class(spec.type), spec.topic, qos_profile(spec.qos))
            for spec in contract.observation.topics
        }
        robot.wait(
            lambda: (
                executor.spin_once(timeout_sec=0.0) is None
                and all(publisher.get_subscription_count() >= 1 for publisher in publishers.values())
                and all(node.count_publishers(topic) >= 2 for topic in publishers)
            ),
            "the node to subscribe",
        )
        for topic, _, message in reader.messages({topic: reader.topics[topic].type for topic in publishers}):
            publishers[topic].publish(as_ros(reader.topics[topic].type, message))
            executor.spin_once(timeout_sec=0.0)
        expected = len(dataset.observations)
        robot.wait(
            lambda: executor.spin_once(timeout_sec=0.0) is None and len(watching.seen) >= expected, "all observations"
        )
    assert len(watching.seen) == EPISODES * (STEPS + 1)
    np.testing.assert_array_equal(np.stack(watching.seen), dataset.observations)


def as_ros(type_name: str, message: Any) -> Any:
    """A message of rosbags as one of rclpy, number by number."""
    from rql_ros.messages import fill

    return fill(message_class(type_name)(), _plain(message))


def _plain(message: Any) -> Any:
    if hasattr(message, "__dataclass_fields__"):
        return {name: _plain(getattr(message, name)) for name in message.__dataclass_fields__ if name != "__msgtype__"}
    return message.tolist() if isinstance(message, np.ndarray) else message


def test_the_policys_own_chunks_come_back_from_the_bag_as_the_numbers_it_computed(
    bag: Path, dataset: Trajectories, contract: Contract, checkpoint: Path
) -> None:
    from rql_core.contract.scale import ACTION_CLIP
    from rql_core.runtime.policy import DeployedPolicy

    policy = DeployedPolicy.load(checkpoint, threads=1)
    # The node was started with seed 4 and never reset: its random numbers run on through both episodes. It also planned
    # at each episode's last observation when that was due, which leaves no action in the data.
    policy.reset(4)
    for episode in range(EPISODES):
        observations, actions, _, _ = dataset.episode(episode)
        for step in range(0, STEPS + 1, 4):
            noise_chunk = policy._policy.sample(observations[step][None], policy._generator)[0]
            rows = actions[step : step + 4]
            np.testing.assert_array_equal(rows, np.clip(noise_chunk[: len(rows)], -ACTION_CLIP, ACTION_CLIP))


def test_the_dataset_is_the_bag(bag: Path, dataset: Trajectories, contract: Contract) -> None:
    assert find_bags([bag]) == [bag]
    assert dataset.lengths.tolist() == [STEPS] * EPISODES
    assert np.abs(dataset.actions).max() <= 1.0
    assert ActionScale(contract).physical(dataset.actions).shape == dataset.actions.shape
