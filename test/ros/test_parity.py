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
from rql_core.contract import ActionScale, Contract, Tick
from rql_core.data.minari_io import load_dataset
from rql_core.data.trajectories import Trajectories
from rql_core.demo.processes import ProcessGroup, node_command
from rql_core.runtime.policy import DeployedPolicy
from rql_core.runtime.safety import SafetyFilter, State
from rql_ros.messages import message_class, qos_profile
from rql_ros.policy_node import PolicyNode

EPISODES, STEPS = 2, 150


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory, contract_path: Path, checkpoint: Path) -> Path:
    """A run of the policy itself, recorded over ROS: its own chunks of four are the actions."""
    folder = tmp_path_factory.mktemp("parity")
    with ProcessGroup(folder / "logs") as group:
        group.start("recorder", node_command("recorder_node", contract=contract_path, output=folder / "bags"))
        group.start(
            "policy", node_command("policy_node", checkpoint=checkpoint, lockstep=True, seed=4, min_subscribers=2)
        )
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


def watch_observations(node: PolicyNode) -> list[np.ndarray]:
    """A list that every complete observation of the node's ticks is put into."""
    watch = node._loop.runner.watch
    seen: list[np.ndarray] = []
    take = watch.take

    def see(tick: Tick) -> None:
        if tick.observation is not None:
            seen.append(tick.observation.copy())
        take(tick)

    watch.take = see
    return seen


@pytest.fixture
def live(contract: Contract, checkpoint: Path) -> Iterator[tuple[PolicyNode, SingleThreadedExecutor]]:
    """The policy node itself in this process, on real topics."""
    rclpy.init()
    overrides = [
        Parameter("checkpoint", value=str(checkpoint)),
        Parameter("autostart", value=False),
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
    seen = watch_observations(node)
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
        robot.wait(lambda: executor.spin_once(timeout_sec=0.0) is None and len(seen) >= expected, "all observations")
    assert len(seen) == EPISODES * (STEPS + 1)
    np.testing.assert_array_equal(np.stack(seen), dataset.observations)


def as_ros(type_name: str, message: Any) -> Any:
    """A message of rosbags as one of rclpy, number by number."""
    from rql_ros.messages import fill

    return fill(message_class(type_name)(), _plain(message))


def _plain(message: Any) -> Any:
    if hasattr(message, "__dataclass_fields__"):
        return {name: _plain(getattr(message, name)) for name in message.__dataclass_fields__ if name != "__msgtype__"}
    return message.tolist() if isinstance(message, np.ndarray) else message


def test_the_policys_own_chunks_come_back_from_the_bag_as_the_numbers_that_left(
    bag: Path, dataset: Trajectories, contract: Contract, checkpoint: Path
) -> None:

    policy = DeployedPolicy.load(checkpoint, backend="onnx")
    safety, scale = SafetyFilter(contract), ActionScale(contract)
    # The node was started with seed 4 and never reset: its random numbers run on through both episodes. It also planned
    # at each episode's last observation when that was due, which leaves no action in the data.
    policy.reset(4)
    # As the node in lockstep, without a ramp.
    safety.activate(-round(contract.safety_in_force.ramp * 1e9), np.zeros(contract.action_dim))
    for episode in range(EPISODES):
        observations, actions, _, _ = dataset.episode(episode)
        state = State(np.zeros((3, contract.action_dim)))
        for step in range(0, STEPS + 1, 4):
            measured = safety.measured_position(observations[step])
            at = (episode * (STEPS + 100) + step) * contract.period_ns
            left = safety.apply(policy.act(observations[step]), state, at, measured)
            state = left.state(4)
            rows = actions[step : step + 4]
            np.testing.assert_array_equal(rows, scale.normalise(left.actions)[: len(rows)])


def test_the_dataset_is_the_bag(bag: Path, dataset: Trajectories, contract: Contract) -> None:
    assert find_bags([bag]) == [bag]
    assert dataset.lengths.tolist() == [STEPS] * EPISODES
    assert np.abs(dataset.actions).max() <= 1.0
    assert ActionScale(contract).physical(dataset.actions).shape == dataset.actions.shape
