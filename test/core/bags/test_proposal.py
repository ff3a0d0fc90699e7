"""A proposed contract names what the bag has, leaves out what cannot be observed, and is accepted as it is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import synthetic
import unseen_robot
import yaml

from rql_core.bags import BagReader, BagWriter, convert
from rql_core.bags.inspection import inspect_bag
from rql_core.bags.proposal import propose
from rql_core.bags.proposal_action import command_topics, outward, score
from rql_core.bags.proposal_text import contract_text
from rql_core.bags.samples import Range, TopicSample, merge_samples, sample_topics
from rql_core.cli import main
from rql_core.contract import load_contract, parse_contract
from rql_core.contract.schema import Hold
from rql_core.errors import ConfigError


def proposed(bags: Sequence[Path], action: str | None = None, name: str = "robot") -> str:
    samples = []
    for path in bags:
        with BagReader(path) as bag:
            samples.append(sample_topics(bag, bag.topics))
    return contract_text(propose([inspect_bag(bag) for bag in bags], merge_samples(samples), action), name)


def test_the_proposal_for_the_projects_own_recording_is_its_contract_again(tmp_path: Path) -> None:
    recording = synthetic.record(200, markers=(0, 100))
    text = proposed([recording.write(tmp_path / "bag")])
    contract = parse_contract(text)
    theirs = recording.contract
    assert contract.rate == theirs.rate
    assert contract.clock == "header"
    assert contract.observation_dim == theirs.observation_dim
    assert [feature.fields for feature in contract.features] == [feature.fields for feature in theirs.features]
    assert [feature.unit for feature in contract.features] == ["rad", "rad/s", "m"]
    assert (contract.action.topic, contract.action.type) == (theirs.action.topic, theirs.action.type)
    assert (contract.action.command, contract.action.hold) == ("velocities", "zero")
    assert contract.action.names == theirs.action.names
    assert contract.episodes.boundary == theirs.episodes.boundary
    assert contract.reward.success.target == pytest.approx(recording.tool[-1], abs=1e-3)


def test_the_proposal_converts_the_bag_it_was_made_from(tmp_path: Path) -> None:
    bag = synthetic.record(200, markers=(0, 100)).write(tmp_path / "bag")
    (tmp_path / "proposal.yaml").write_text(proposed([bag]))
    report = convert(bag, tmp_path / "proposal.yaml", tmp_path / "data-v0", progress=False)
    assert (report.episodes, report.steps) == (2, 198)
    assert max(number.share_outside_limits or 0.0 for number in report.actions) == 0


def test_limits_hold_all_that_was_commanded(tmp_path: Path) -> None:
    recording = synthetic.record(500)
    recording.actions[:] = 0.01
    recording.actions[321] = (1.234, -0.456)
    recording.messages = [item for item in recording.messages if item[0] != recording.contract.action.topic]
    for tick, action in enumerate(recording.actions):
        stamp = recording.stamp(tick)
        recording.add("/command", stamp, synthetic.action_message(recording.contract, stamp, action))
    contract = parse_contract(proposed([recording.write(tmp_path / "bag")]))
    limits = {feature.name: (feature.lower, feature.upper) for feature in contract.action.features}
    assert limits == {"shoulder_joint": (0.0, 1.3), "elbow_joint": (-0.46, 0.01)}


def test_several_bags_make_one_proposal(tmp_path: Path) -> None:
    bags = []
    for index, size in enumerate((0.5, 1.5)):
        recording = synthetic.record(60, seed=index)
        recording.messages = [item for item in recording.messages if item[0] != "/command"]
        for tick in range(60):
            stamp = recording.stamp(tick)
            action = size * np.sin([tick / 5, tick / 7])
            recording.add("/command", stamp, synthetic.action_message(recording.contract, stamp, action))
        leave_out = ["/tool_pose"] if index else []
        bags.append(recording.write(tmp_path / f"bag_{index}", leave_out=leave_out))
    text = proposed(bags)
    assert "# left out: /tool_pose: not in every bag" in text
    assert max(float(feature.upper) for feature in parse_contract(text).action.features) == 1.5
    assert f"made from {bags[0]}, {bags[1]}." in text.splitlines()[0]


def test_unset_stamps_mean_the_receive_clock(tmp_path: Path) -> None:
    recording = synthetic.record(60)
    bare = []
    for topic, stamp, message in recording.messages:
        if topic in ("/joint_states", "/tool_pose"):
            message.header.stamp.sec = message.header.stamp.nanosec = 0
        bare.append((topic, stamp, message))
    recording.messages = bare
    assert parse_contract(proposed([recording.write(tmp_path / "bag")])).clock == "receive"


def test_the_unseen_robots_proposal_says_what_it_took_and_what_not(tmp_path: Path) -> None:
    text = proposed([unseen_robot.record(tmp_path / "bag")])
    data = yaml.safe_load(text)
    arm, dock, odometry = data["observation"]["topics"]
    assert arm["features"][0]["fields"] == [f"position.{joint}" for joint in unseen_robot.JOINTS]
    assert odometry["features"][0]["fields"] == ["pose.pose.position.x", "pose.pose.position.y"]
    assert (odometry["features"][1]["rotation"], odometry["features"][1]["unit"]) == ("yaw", "rad")
    assert [feature["name"] for feature in odometry["features"][2:]] == ["odom_linear", "odom_angular"]
    assert (data["rate"], data["clock"]) == (20, "header")
    assert dock["align"] == {"method": "hold", "max_age": 0.3}
    assert (dock["min_rate"], dock["clock"]) == (4, "receive")
    assert "check: it comes 60 ms after its stamp, which is more than max_wait" in text
    action = data["action"]
    assert (action["topic"], action["type"]) == ("/cmd_vel", "geometry_msgs/msg/Twist")
    assert (action["resolve"], action["clock"], action["hold"]) == ("hold", "receive", "zero")
    assert action["features"] == [
        {"name": "linear_x", "field": "linear.x", "lower": 0.0, "upper": 0.6},
        {"name": "angular_z", "field": "angular.z", "lower": -0.3, "upper": 0.3},
    ]
    for reason in (
        "/battery: 1 Hz is the rate of a status; as an observation it needs min_rate: 0.8, max_age: 1.5",
        "/camera/image: images cannot be features",
        "/scan: no messages",
        "/cmd_vel: is the action",
    ):
        assert f"# left out: {reason}" in text


def test_the_unseen_robots_proposal_is_accepted(tmp_path: Path) -> None:
    contract = parse_contract(proposed([unseen_robot.record(tmp_path / "bag")]))
    assert (contract.observation_dim, contract.action_dim) == (21, 2)


def point_bag(path: Path, rates: dict[str, float], command: float | None = None, seconds: int = 8) -> Path:
    """Points that move, one topic for each rate, and a Twist so often."""
    kinds = dict.fromkeys(rates, "geometry_msgs/msg/PointStamped")
    kinds |= {"/cmd_vel": "geometry_msgs/msg/Twist"} if command else {}
    items = []
    for topic, rate in (rates | ({"/cmd_vel": command} if command else {})).items():
        for index in range(int(seconds * rate)):
            stamp = synthetic.START_NS + round(index / rate * 1e9)
            if topic == "/cmd_vel":
                items.append((stamp, topic, unseen_robot.message(kinds[topic], **vars_of_twist(index / rate))))
                continue
            point = synthetic.TYPES.types["geometry_msgs/msg/Point"](index / rate, 0.0, 0.0)
            raw = unseen_robot.message(kinds[topic], header=synthetic.header(stamp), point=point)
            items.append((stamp, topic, raw))
    with BagWriter(path) as writer:
        for topic, kind in kinds.items():
            writer.add_topic(topic, kind)
        for stamp, topic, raw in sorted(items):
            writer.write(topic, stamp, raw)
    return path


def vars_of_twist(at: float) -> dict[str, object]:
    return {"linear": unseen_robot.vector(at), "angular": unseen_robot.vector()}


@pytest.mark.parametrize(
    ("rates", "command", "rate", "stated"),
    [
        ([100, 50], 20, 20, {}),  # as often as commands come
        ([500, 30], 500, 30, {}),  # not oftener than what is observed
        ([100, 5], 20, 20, {"/b": 4}),  # a slow topic is observed as such
        ([100, 9.9], None, 100, {"/b": 7.9}),
        ([100, 50], 3, 10, {}),  # a person at a keyboard
        ([5, 4], 20, 5, {"/b": 3.2}),  # nothing is faster
        ([20, 19.6], None, 20, {}),  # the same, but for jitter
    ],
)
def test_the_rate_is_that_of_the_commands_and_slower_topics_are_said_to_be(
    tmp_path: Path, rates: list[float], command: float | None, rate: float, stated: dict[str, float]
) -> None:
    topics = dict(zip(("/a", "/b"), rates, strict=True))
    bag = point_bag(tmp_path / "bag", topics, command)
    (tmp_path / "robot.yaml").write_text(text := proposed([bag]))
    contract = parse_contract(text)
    assert contract.rate == rate
    assert {spec.topic: spec.min_rate for spec in contract.observation.topics if spec.min_rate} == stated
    if command is not None:
        assert convert(bag, tmp_path / "robot.yaml", tmp_path / "data-v0", progress=False).episodes == 1


@pytest.mark.parametrize("publishers", [2, 3])
def test_joints_of_several_publishers_are_all_seen_and_their_own_rate_counts(tmp_path: Path, publishers: int) -> None:
    kind = "sensor_msgs/msg/JointState"
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/joint_states", kind)
        for index in range(publishers * 600):
            stamp = synthetic.START_NS + index * 60_000_000 // publishers
            state = synthetic.joint_state(stamp, [f"joint_{index % publishers}"], [index / 600], [0.0])
            writer.write("/joint_states", stamp, synthetic.TYPES.serialize_cdr(state, kind))
    assert main(["inspect", str(tmp_path / "bag"), "--contract-out", str(tmp_path / "robot.yaml")]) == 0
    (topic,) = load_contract(tmp_path / "robot.yaml").observation.topics
    assert topic.joints == "partial"
    assert topic.features[0].fields == [f"position.joint_{index}" for index in range(publishers)]
    assert isinstance(topic.align, Hold)
    assert topic.align.max_age == pytest.approx(1.5 * 0.06, rel=0.05)


def test_a_yaw_that_passes_half_a_turn_is_to_be_looked_at(tmp_path: Path) -> None:
    remark = "rotation: yaw  # check: it turns past 180 degrees, where yaw jumps; 6d does not"
    for turns, remarked in ((0.4, False), (0.6, True)):
        with BagWriter(tmp_path / f"bag_{remarked}") as writer:
            writer.add_topic("/odom", "nav_msgs/msg/Odometry")
            for tick in range(101):
                stamp = synthetic.START_NS + tick * synthetic.PERIOD_NS
                yaw = turns * 2 * np.pi * tick / 100
                writer.write("/odom", stamp, unseen_robot.odometry(stamp, tick / 100, 0.0, yaw, (0.1, 0.1)))
        assert (remark in proposed([tmp_path / f"bag_{remarked}"])) == remarked


@pytest.mark.parametrize(
    ("topic", "kind", "likely"),
    [
        ("/cmd_vel", "geometry_msgs/msg/Twist", True),
        ("/base/velocity", "geometry_msgs/msg/Twist", False),
        ("/arm_controller/joint_trajectory", "trajectory_msgs/msg/JointTrajectory", True),
        ("/planned_path", "trajectory_msgs/msg/JointTrajectory", True),
        ("/forward_velocity_controller/commands", "std_msgs/msg/Float64MultiArray", True),
        ("/joint_states", "sensor_msgs/msg/JointState", False),
        ("/joint_commands", "sensor_msgs/msg/JointState", True),
        ("/controller_state", "trajectory_msgs/msg/JointTrajectory", False),
        ("/cmd_vel_feedback", "geometry_msgs/msg/Twist", False),
        ("/goal_image", "sensor_msgs/msg/Image", False),
    ],
)
def test_commands_are_told_from_states_by_type_and_name(topic: str, kind: str, likely: bool) -> None:
    sample = TopicSample(kind, 1, {"x": Range(0.0, 1.0, 1.0, 1)})
    assert (command_topics({topic: sample}) == [topic]) == likely


def test_the_likeliest_of_several_command_topics_is_first() -> None:
    samples = {
        topic: TopicSample(kind, messages, {"x": Range(0.0, 1.0, 1.0, messages)})
        for topic, kind, messages in (
            ("/cmd_vel", "geometry_msgs/msg/Twist", 9),
            ("/arm_controller/joint_trajectory", "trajectory_msgs/msg/JointTrajectory", 5),
            ("/cmd_vel_teleop", "geometry_msgs/msg/Twist", 20),
        )
    }
    assert command_topics(samples) == ["/arm_controller/joint_trajectory", "/cmd_vel_teleop", "/cmd_vel"]
    assert score("/cmd_vel", samples["/cmd_vel"]) == score("/cmd_vel_teleop", samples["/cmd_vel_teleop"])


@pytest.mark.parametrize(
    ("low", "high", "with_zero", "limits"),
    [
        (-0.987, 0.951, True, (-1.0, 1.0)),
        (-0.5, 0.5, True, (-0.5, 0.5)),
        (0.1, 0.3, True, (0.0, 0.3)),
        (1.001, 1.099, False, (1.001, 1.099)),
        (1.0012, 1.0988, False, (1.001, 1.099)),
        (-123.4, 877.0, False, (-200.0, 900.0)),
        (0.0, 0.0, True, (-1.0, 1.0)),
        (2.5, 2.5, False, (1.5, 3.5)),
        (-1e-7, 2e-7, True, (-1e-7, 2e-7)),
    ],
)
def test_limits_are_rounded_outward(low: float, high: float, with_zero: bool, limits: tuple[float, float]) -> None:
    found = outward(Range(low, high, high, 2), with_zero)
    assert found == pytest.approx(limits, rel=1e-9, abs=1e-15)
    assert found[0] <= low <= high <= found[1]


def test_without_commands_the_action_is_made_up_and_says_so(tmp_path: Path) -> None:
    bag = synthetic.record(60).write(tmp_path / "bag", leave_out=["/command"])
    text = proposed([bag])
    assert "check: no topic of the bags looks like commands" in text
    assert parse_contract(text).action.topic == "/name_the_command_topic"


def test_what_cannot_be_proposed_is_said(tmp_path: Path) -> None:
    bag = synthetic.record(60).write(tmp_path / "bag")
    with pytest.raises(ConfigError, match=r"action topic /nothing has no messages .*; there are .*/joint_states"):
        proposed([bag], "/nothing")
    only_commands = synthetic.record(60).write(tmp_path / "b", leave_out=["/joint_states", "/tool_pose", "/episode"])
    with pytest.raises(ConfigError, match="no topic has numbers that could be observed: /command: is the action"):
        proposed([only_commands])


@pytest.mark.parametrize("joint", ["yes", "a b", "1", "joint:1", "joint#1", "Gelenk_ä", "[x]", "- y", "null", "it's"])
def test_any_name_of_a_joint_survives_the_text(tmp_path: Path, joint: str) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/joint_states", "sensor_msgs/msg/JointState")
        writer.add_topic("/command", "trajectory_msgs/msg/JointTrajectory")
        contract = parse_contract(synthetic.CONTRACT.replace("shoulder_joint", "other").replace("elbow_joint", "mine"))
        for tick in range(40):
            stamp = synthetic.START_NS + tick * synthetic.PERIOD_NS
            state = synthetic.joint_state(stamp, [joint, "other"], [tick / 40, 0.5], [0.1, tick / 40])
            writer.write("/joint_states", stamp, synthetic.TYPES.serialize_cdr(state, "sensor_msgs/msg/JointState"))
            command = synthetic.action_message(contract, stamp, [[tick / 40, -0.5]])
            command.joint_names = ["other", joint]
            raw = synthetic.TYPES.serialize_cdr(command, "trajectory_msgs/msg/JointTrajectory")
            writer.write("/command", stamp, raw)
    contract = parse_contract(proposed([tmp_path / "bag"]))
    assert contract.action.names == ("other", joint)
    assert contract.features[0].fields == [f"position.{joint}", "position.other"]


def test_a_number_that_is_not_in_every_message_is_no_feature(tmp_path: Path) -> None:
    array = "std_msgs/msg/Float64MultiArray"
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/sensor", array)
        for tick in range(40):
            data = np.arange(2 + tick % 2) + tick / 10
            layout = {"dim": [], "data_offset": 0}
            message = synthetic.build(array, {"layout": layout, "data": data})
            stamp = synthetic.START_NS + tick * synthetic.PERIOD_NS
            writer.write("/sensor", stamp, synthetic.TYPES.serialize_cdr(message, array))
    data = yaml.safe_load(proposed([tmp_path / "bag"]))
    assert data["observation"]["topics"][0]["features"][0]["fields"] == ["data[0]", "data[1]"]
    assert data["clock"] == "receive"


# The command


def test_rql_inspect_prints_tables_and_writes_a_proposal_that_is_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = synthetic.record(200, markers=(0, 100)).write(tmp_path / "with space" / "bäg")
    out = tmp_path / "my robot.yaml"
    assert main(["inspect", str(bag), "--contract-out", str(out)]) == 0
    captured = capsys.readouterr()
    assert f"{bag}\n  MCAP, " in captured.out
    assert "401 messages in 10.0 s" not in captured.out
    assert "602 messages in 10.0 s" in captured.out
    assert f"{out}: a proposal; look at the " in captured.err
    assert "not accepted" not in captured.err
    assert main(["contract", "check", str(out)]) == 0
    assert capsys.readouterr().out.startswith("my_robot: 20 Hz, clock header")
    text = out.read_text()
    assert main(["inspect", str(bag), "--contract-out", str(out)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == text


def test_rql_inspect_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = synthetic.record(40).write(tmp_path / "bag")
    assert main(["inspect", str(bag), "--json"]) == 0
    data = yaml.safe_load(capsys.readouterr().out)
    assert data["unreadable"] == []
    (read,) = data["bags"]
    assert read["messages"] == 121
    topic = next(topic for topic in read["topics"] if topic["topic"] == "/joint_states")
    assert topic["rate_hz"] == pytest.approx(20)


def test_rql_inspect_shows_the_good_bags_and_names_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.record(40).write(tmp_path / "day" / "good")
    damaged = synthetic.record(400).write(tmp_path / "day" / "damaged")
    file = damaged / "damaged.mcap"
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4096] = np.random.default_rng(0).bytes(4096)
    file.write_bytes(data)
    assert main(["inspect", str(tmp_path / "day")]) == 1
    captured = capsys.readouterr()
    assert "good\n  MCAP" in captured.out
    assert f"error: {damaged}: damaged" in captured.err
    assert captured.err.endswith("error: 1 of 2 bags cannot be read to the end; see above\n")


def test_rql_inspect_takes_definitions_and_the_proposal_names_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = synthetic.record(60)
    (tmp_path / "msgs" / "my_robot" / "msg").mkdir(parents=True)
    (tmp_path / "msgs" / "my_robot" / "msg" / "Gripper.msg").write_text("float64 grip\n")
    with BagWriter(tmp_path / "bag") as writer:
        synthetic.fill(writer, recording)
        writer.add_defined_topic("/gripper", "my_robot/msg/Gripper", "", "", [])
        for tick in range(60):
            payload = b"\x00\x01\x00\x00" + np.float64(tick / 60).tobytes()
            writer.write("/gripper", recording.stamp(tick), payload)
    out = tmp_path / "contracts" / "robot.yaml"
    arguments = ["--definitions", str(tmp_path / "msgs"), "--contract-out", str(out)]
    assert main(["inspect", str(tmp_path / "bag"), *arguments]) == 0
    data = yaml.safe_load(out.read_text())
    assert data["message_definitions"] == ["../msgs"]
    gripper = next(topic for topic in data["observation"]["topics"] if topic["topic"] == "/gripper")
    assert gripper["features"][0]["fields"] == ["grip"]
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "bag")]) == 0
    assert "note: /gripper: no definition of my_robot/msg/Gripper" in capsys.readouterr().out
