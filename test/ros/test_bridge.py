"""The bridge as a process: in lockstep it is the Gymnasium environment, to the last bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from robot import STREAM, Robot
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64
from std_srvs.srv import SetBool

import rql_core.sim  # noqa: F401  (registers the environments)
from rql_core.contract import ActionChunk, Contract
from rql_core.contract.time import stamp_to_ns
from rql_core.demo.processes import ProcessGroup, node_command
from rql_ros.controller import ChunkPublisher

SEED = 11
STEPS = 40


class Controller(Robot):
    """The other side: hears the bridge and sends chunks."""

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        self.heard: dict[str, list] = {name: [] for name in ("clock", "joints", "pose", "reward", "success")}
        for name, kind, topic in (
            ("clock", Clock, "/clock"),
            ("joints", JointState, "/joint_states"),
            ("pose", PoseStamped, "/tool_pose"),
            ("reward", Float64, "/mujoco_bridge/reward"),
            ("success", Bool, "/mujoco_bridge/success"),
        ):
            self.node.create_subscription(kind, topic, self.heard[name].append, STREAM)
        self.publisher = ChunkPublisher(self.node, contract)

    def wait_for_bridge(self) -> None:
        """Wait until commands would arrive and observations would be heard."""
        topics = ["/clock", "/joint_states", "/tool_pose", "/mujoco_bridge/reward", "/mujoco_bridge/success"]
        # Two publishers on the observation topics: the bridge, and this class's own (unused here).
        self.wait(
            lambda: (
                all(self.node.count_publishers(topic) >= 1 for topic in topics)
                and self.node.count_publishers("/joint_states") >= 2
                and self.node.count_subscribers(self.contract.action.topic) >= 2
            ),
            "the bridge",
        )

    def set_seed(self, seed: int) -> None:
        """Set the bridge's parameter `seed`."""
        client = self.node.create_client(SetParameters, "/mujoco_bridge/set_parameters")
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
        request = SetParameters.Request(parameters=[Parameter(name="seed", value=value)])
        assert self.ask(client, request).results[0].successful


@pytest.fixture
def controller(contract: Contract) -> Iterator[Controller]:
    with Controller(contract) as controller:
        yield controller


@pytest.fixture
def bridge(group: ProcessGroup, contract_path: Path) -> None:
    command = node_command(
        "mujoco_bridge_node", contract=contract_path, world="planar_arm", mode="lockstep", paused=True
    )
    group.start("bridge", command)


@pytest.mark.parametrize("horizon", [1, 4], ids=["single steps", "chunks of 4"])
@pytest.mark.usefixtures("bridge")
def test_in_lockstep_the_same_seed_and_actions_give_the_gymnasium_trajectory_to_the_last_bit(
    controller: Controller, horizon: int
) -> None:
    env = gymnasium.make("rql_ros/PlanarArm-v0").unwrapped
    env.reset(seed=SEED, options={"start": "task"})
    actions = np.random.default_rng(5).uniform(-1, 1, (STEPS, 2))
    expected = [env.sample()]
    rewards = []
    for action in actions:
        rewards.append(env.step(action)[1])
        expected.append(env.sample())

    controller.wait_for_bridge()
    controller.set_seed(SEED)
    start = json.loads(controller.call("/mujoco_bridge/reset").message)["stamp_ns"]
    controller.call("/mujoco_bridge/pause", SetBool.Request(data=False))
    heard = controller.heard
    for step in range(0, STEPS, horizon):
        controller.wait(lambda step=step: len(heard["joints"]) > step, f"joint states of step {step}")
        stamp = start + step * controller.contract.period_ns
        controller.publisher.publish(ActionChunk.regular(controller.contract, stamp, actions[step : step + horizon]))
    for name, count in (("joints", STEPS + 1), ("pose", STEPS + 1), ("clock", STEPS + 1), ("reward", STEPS)):
        controller.wait(lambda name=name, count=count: len(heard[name]) >= count, f"all of {name}")
    for step, sample in enumerate(expected):
        joints, position = heard["joints"][step], heard["pose"][step].pose.position
        assert stamp_to_ns(joints.header.stamp) == start + step * controller.contract.period_ns
        assert stamp_to_ns(heard["clock"][step].clock) == stamp_to_ns(joints.header.stamp)
        assert list(joints.position) == sample.position.tolist()
        assert list(joints.velocity) == sample.velocity.tolist()
        assert list(joints.effort) == sample.effort.tolist()
        assert [position.x, position.y, position.z] == sample.tool_position.tolist()
    assert [message.data for message in heard["reward"]] == rewards
    assert not any(message.data for message in heard["success"])


@pytest.mark.usefixtures("bridge")
def test_lockstep_waits_for_the_action_of_this_tick(controller: Controller) -> None:
    controller.wait_for_bridge()
    controller.set_seed(SEED)
    start = json.loads(controller.call("/mujoco_bridge/reset").message)["stamp_ns"]
    controller.call("/mujoco_bridge/pause", SetBool.Request(data=False))
    controller.wait(lambda: bool(controller.heard["joints"]), "the first observation")
    period = controller.contract.period_ns
    late = ActionChunk.regular(controller.contract, start - 4 * period, np.zeros((2, 2)))
    controller.publisher.publish(late)
    controller.call("/mujoco_bridge/pause", SetBool.Request(data=False))  # answered after the chunk was taken
    stamps = {stamp_to_ns(message.header.stamp) for message in controller.heard["joints"]}
    assert stamps == {start}
    controller.publisher.publish(ActionChunk.regular(controller.contract, start, np.zeros((1, 2))))
    controller.wait(
        lambda: stamp_to_ns(controller.heard["joints"][-1].header.stamp) == start + period, "the next observation"
    )


def test_in_realtime_it_goes_on_without_a_controller_and_holds(
    controller: Controller, group: ProcessGroup, contract_path: Path
) -> None:
    group.start(
        "bridge",
        # Without readers it would not wait, and its one episode could be over before anybody heard of it.
        node_command(
            "mujoco_bridge_node",
            contract=contract_path,
            world="planar_arm",
            factor=5.0,
            seed=SEED,
            min_subscribers=1,
        ),
    )
    controller.wait_for_bridge()
    heard = controller.heard
    controller.wait(
        lambda: len(heard["joints"]) >= 20,
        lambda: f"twenty observations; heard are { ({name: len(messages) for name, messages in heard.items()}) }",
    )
    stamps = [stamp_to_ns(message.header.stamp) for message in controller.heard["joints"]]
    assert (np.diff(stamps) == controller.contract.period_ns).all()
    first, last = controller.heard["joints"][0], controller.heard["joints"][-1]
    np.testing.assert_allclose(list(first.position), list(last.position), atol=1e-3)


def test_a_contract_that_does_not_fit_the_world_is_refused_in_one_line(
    tmp_path: Path, group: ProcessGroup, contract_text: str
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(contract_text.replace("{name: elbow_joint", "{name: wrist_joint"))
    group.start("bridge", node_command("mujoco_bridge_node", contract=wrong, world="planar_arm"))
    with pytest.raises(Exception, match="bridge ended with status 1: error: contract 'planar_arm' commands"):
        group.wait("bridge")


def test_an_unknown_contract_key_is_refused_in_one_line(
    tmp_path: Path, group: ProcessGroup, contract_text: str
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(contract_text + "\nmax_torque: 3\n")
    group.start("bridge", node_command("mujoco_bridge_node", contract=wrong, world="planar_arm"))
    with pytest.raises(Exception, match="unknown key 'max_torque'"):
        group.wait("bridge")
