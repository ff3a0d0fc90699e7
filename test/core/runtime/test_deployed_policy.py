"""A checkpoint acts the same for the same seed, and only for the contract that it was trained under."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rql_core.contract import ActionScale, parse_contract
from rql_core.errors import CheckpointError
from rql_core.runtime.policy import DeployedPolicy, check_contract
from rql_core.training.checkpoint import load_checkpoint

MakeCheckpoint = Callable[..., Path]
OBSERVATIONS = np.random.default_rng(1).normal(size=(3, 7)).astype(np.float32)


def episode(policy: DeployedPolicy, seed: int) -> bytes:
    policy.reset(seed)
    return np.stack([policy.act(observation) for observation in OBSERVATIONS]).tobytes()


def test_the_same_seed_gives_the_same_chunks_and_another_seed_others(make_checkpoint: MakeCheckpoint) -> None:
    directory = make_checkpoint()
    policy = DeployedPolicy.load(directory)
    first = episode(policy, 5)
    assert episode(policy, 6) != first
    assert episode(policy, 5) == first
    assert episode(DeployedPolicy.load(directory), 5) == first


def test_without_a_seed_no_two_episodes_are_the_same(make_checkpoint: MakeCheckpoint) -> None:
    policy = DeployedPolicy.load(make_checkpoint())
    chunks = []
    for _ in range(2):
        policy.reset(None)
        chunks.append(policy.act(OBSERVATIONS[0]))
    assert not np.array_equal(*chunks)


def test_warming_up_does_not_change_what_an_episode_with_a_seed_gives(make_checkpoint: MakeCheckpoint) -> None:
    directory = make_checkpoint()
    cold, warm = DeployedPolicy.load(directory), DeployedPolicy.load(directory)
    warm.warm_up()
    assert episode(warm, 5) == episode(cold, 5)
    cold.reset(8)
    warm.reset(8)
    warm.warm_up()  # whenever it happens
    np.testing.assert_array_equal(warm.act(OBSERVATIONS[0]), cold.act(OBSERVATIONS[0]))


def test_rehearsals_between_plans_change_nothing_of_them(make_checkpoint: MakeCheckpoint) -> None:
    directory = make_checkpoint()
    rehearsing, plain = DeployedPolicy.load(directory), DeployedPolicy.load(directory)
    for policy in (rehearsing, plain):
        policy.reset(3)
    for observation in OBSERVATIONS:
        in_vain = rehearsing.rehearse(observation).actions
        assert in_vain.shape == rehearsing.plan(observation).actions.shape
        plain.plan(observation)
        rehearsing.rehearse(observation)
    np.testing.assert_array_equal(rehearsing.act(OBSERVATIONS[0]), plain.act(OBSERVATIONS[0]))


def test_a_chunk_is_the_policys_in_physical_units_by_the_contract(
    make_checkpoint: MakeCheckpoint, contract_text: str
) -> None:
    text = contract_text.replace("elbow_joint, lower: -1.0, upper: 1.0", "elbow_joint, lower: -0.5, upper: 3.0")
    directory = make_checkpoint(text)
    policy = DeployedPolicy.load(directory)
    assert (policy.algorithm, policy.horizon, policy.contract) == ("bc_flow", 4, parse_contract(text))
    policy.reset(2)
    chunk = policy.act(OBSERVATIONS[0])
    assert chunk.dtype == np.float64
    assert chunk.shape == (4, 2)
    trained = load_checkpoint(directory).policy
    normalised = trained.sample(OBSERVATIONS[:1], np.random.default_rng(2))[0]
    np.testing.assert_array_equal(chunk, ActionScale(parse_contract(text)).physical(normalised))
    np.testing.assert_allclose(chunk[:, 1], -0.5 + (normalised[:, 1] + 1) * 1.75, rtol=1e-6)


def test_a_checkpoint_without_a_contract_is_refused(make_checkpoint: MakeCheckpoint) -> None:
    directory = make_checkpoint(None)
    with pytest.raises(CheckpointError, match=r"contract\.yaml: is missing.* train from a converted dataset") as error:
        DeployedPolicy.load(directory)
    assert str(directory) in str(error.value)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"observation_dim": 6}, r"observation_dim is 6, but the contract in it makes it 7"),
        ({"action_dim": 3}, r"action_dim is 3, but the contract in it makes it 2"),
    ],
)
def test_a_network_of_another_size_than_its_contract_is_refused(
    make_checkpoint: MakeCheckpoint, sizes: dict[str, int], said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        DeployedPolicy.load(make_checkpoint(**sizes))


def test_a_checkpoint_of_commands_that_can_only_be_recorded_is_refused(
    make_checkpoint: MakeCheckpoint, contract_text: str
) -> None:
    text = contract_text.replace("trajectory_msgs/msg/JointTrajectory", "geometry_msgs/msg/TwistStamped")
    text = text.replace("hold: zero", "hold: zero\n  resolve: hold\n  max_age: 0.1")
    for joint, field in (("shoulder", "twist.linear.x"), ("elbow", "twist.angular.z")):
        text = text.replace(f"{{name: {joint}_joint,", f"{{name: {joint}_joint, field: {field},")
    directory = make_checkpoint(text)
    with pytest.raises(CheckpointError, match="TwistStamped can be recorded and learnt from, but not be sent") as error:
        DeployedPolicy.load(directory)
    assert str(directory / "contract.yaml") in str(error.value)


@pytest.mark.parametrize("device", ["toaster", "cuda:99"])
def test_a_device_that_is_not_there_is_said_in_one_line(make_checkpoint: MakeCheckpoint, device: str) -> None:
    with pytest.raises(CheckpointError, match=f"cannot be loaded on device '{device}'") as error:
        DeployedPolicy.load(make_checkpoint(), device=device)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["rate: 20\n", "schema: 1\nfoo: [\n"])
def test_a_checkpoint_whose_contract_cannot_be_read_is_refused(make_checkpoint: MakeCheckpoint, text: str) -> None:
    directory = make_checkpoint(text)
    with pytest.raises(CheckpointError, match=r"contract\.yaml") as error:
        DeployedPolicy.load(directory)
    assert "\n" not in str(error.value)


DIFFERENCES = [
    ("rate: 20", "rate: 10", "rate is 10"),
    ("clock: header", "clock: receive", "clock is 'receive'"),
    ("topic: /joint_states", "topic: /other/joint_states", "observation.topics[0].topic is '/other/joint_states'"),
    ("max_age: 0.04", "max_age: 0.03", "observation.topics[0].align.max_age is 0.03"),
    ("unit: m,", "unit: mm,", "observation.topics[1].features[0].unit is 'mm'"),
    ("upper: 1.0", "upper: 0.5", "action.features[0].upper is 0.5"),
    ("lower: -1.0", "lower: -2", "action.features[0].lower is -2"),
    ("topic: /arm_controller/joint_trajectory", "topic: /elsewhere", "action.topic is '/elsewhere'"),
    ("command: velocities", "command: effort", "action.command is 'effort'"),
    ("trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64MultiArray", "action.type is 'std_msgs"),
    ("hold: zero", "hold: zero\n  max_age: 0.1", "action.max_age is 0.1"),
    ("name: elbow_joint,", "name: wrist_joint,", "action_order[1] is 'wrist_joint'"),
    ("name: joint_velocity,", "name: joint_speed,", "observation_order[2][0] is 'joint_speed.velocity.shoulder_joint'"),
    (
        "[position.shoulder_joint, position.elbow_joint]",
        "[position.elbow_joint, position.shoulder_joint]",
        "observation.topics[0].features[0].fields[0] is 'position.elbow_joint'",
    ),
    (
        "pose.position.y, pose.position.z]",
        "pose.position.y]",
        "observation.topics[1].features[0].fields is ['pose.position.x', 'pose.position.y']",
    ),
    ("[pose.position.x, pose", "[pose.orientation.x, pose", "fields[0] is 'pose.orientation.x'"),
    ("max_age: 0.04}", "max_age: 0.04}\n      clock: receive", "observation.topics[0].clock is 'receive'"),
    ("name: joint_position, unit: rad,", "name: joint_position, unit: rad, scale: 2.0,", "scale is 2.0"),
    ("hold: zero", "hold: zero\n  resolve: hold\n  max_age: 0.1", "action.resolve is 'hold'"),
]


@pytest.mark.parametrize(("was", "now", "said"), DIFFERENCES)
def test_a_contract_that_means_something_else_is_refused_and_the_field_is_named(
    contract_text: str, was: str, now: str, said: str
) -> None:
    assert was in contract_text
    text = contract_text.replace(was, now, 1)
    if now == "pose.position.y]":
        text = text.replace("target: [0.56, 0.0, 0.06]", "target: [0.56, 0.0]")
    trained, given = parse_contract(contract_text), parse_contract(text)
    with pytest.raises(CheckpointError) as error:
        check_contract(Path("run/checkpoint"), trained, given, "robot.yaml")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("run/checkpoint: does not fit contract robot.yaml: ")
    assert said in message
    with pytest.raises(CheckpointError):  # and the other way round
        check_contract(Path("run/checkpoint"), given, trained, "robot.yaml")


def swapped(text: str, one: str, other: str) -> str:
    assert one in text
    assert other in text
    return text.replace(one, "SWAP").replace(other, one).replace("SWAP", other)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("{name: shoulder_joint, lower", "{name: elbow_joint, lower", "action_order[0] is 'elbow_joint'"),
        (
            "{name: joint_position, unit: rad, fields: [position.shoulder_joint, position.elbow_joint]}",
            "{name: joint_velocity, unit: rad/s, fields: [velocity.shoulder_joint, velocity.elbow_joint]}",
            "observation.topics[0].features[0].fields[0] is 'velocity.shoulder_joint'",
        ),
        ("{name: joint_position,", "{name: joint_velocity,", "observation_order[0][0] is 'joint_velocity.position."),
    ],
)
def test_the_order_of_joints_and_features_counts(contract_text: str, one: str, other: str, said: str) -> None:
    given = parse_contract(swapped(contract_text, one, other))
    with pytest.raises(CheckpointError) as error:
        check_contract(Path("c"), parse_contract(contract_text), given, "robot.yaml")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("name: planar_arm", "name: my_arm"),
        ("description: Two-link", "description: The lab's two-link"),
        ("max_wait: 0.02", "max_wait: 0.5"),
        ("type: geometry_msgs/msg/PoseStamped", "type: geometry_msgs/msg/PoseStamped\n      min_rate: 50"),
        ("schema: 1", "schema: 1\nquality: {max_gap: 0.1}\nmessage_definitions: [msgs]"),
        ("type: sensor_msgs/msg/JointState", "type: sensor_msgs/msg/JointState\n      qos: {reliability: best_effort}"),
        ("hold: zero", "hold: zero\n  qos: {depth: 7}"),
        ("tolerance: 0.04", "tolerance: 0.01"),
        ("target: [0.56,", "target: [0.11,"),
        ("otherwise: -1.0", "otherwise: 0.0"),
        ("at_success: continue", "at_success: end"),
        ("min_steps: 8", "min_steps: 100"),
        ("boundary: {by: marker, topic: /episode, type: std_msgs/msg/Header}", "boundary: {by: bag}"),
        ("lower: -1.0", "lower: -1"),
        ("max_age: 0.04}", "max_age: 0.04}\n      clock: header"),
        ("hold: zero", "hold: zero\n  clock: header\n  resolve: chunk"),
        ("rate: 20", "quality: {max_gap: 0.1, min_episodes: 3}\nrate: 20"),
        ("rate: 20", "message_definitions: [msgs]\nrate: 20"),
    ],
)
def test_what_says_nothing_about_the_numbers_may_differ(contract_text: str, was: str, now: str) -> None:
    assert was in contract_text
    given = parse_contract(contract_text.replace(was, now, 1))
    check_contract(Path("c"), parse_contract(contract_text), given, "robot.yaml")
