"""A contract is compared with bags before anything is converted: every fault is named with its bag and topic."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from synthetic import CONTRACT, contract_text, header, record
from test_message_types import gripper_bag
from test_reward_topics import RULE, SUCCESS, written

from rql_core.bags.fitness import check_bag
from rql_core.cli import main
from rql_core.contract import parse_contract

GOOD = parse_contract(CONTRACT)


def faults(bag: Path, *changes: tuple[str, str]) -> str:
    return "\n".join(fault.text for fault in check_bag(bag, parse_contract(contract_text(*changes))))


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(20).write(tmp_path_factory.mktemp("bags") / "run")


def test_a_bag_that_fits_has_no_fault(bag: Path) -> None:
    assert check_bag(bag, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "topic: /tool_pose",
            "topic: /tool",
            "topic /tool (geometry_msgs/msg/PoseStamped) is not in the bag; there are: ",
        ),
        ("topic: /episode", "topic: /start", "topic /start (std_msgs/msg/Header) is not in the bag"),
        (
            "geometry_msgs/msg/PoseStamped",
            "geometry_msgs/msg/PointStamped",
            "topic /tool_pose has type geometry_msgs/msg/PoseStamped, the contract says geometry_msgs/msg/PointStamped",
        ),
        ("position.elbow_joint", "position.elbow", "joint 'elbow' is there 0 times, expected once"),
        ("{name: elbow_joint, lower", "{name: wrist_joint, lower", "/command"),
    ],
)
def test_what_a_bag_lacks_is_named(bag: Path, old: str, new: str, words: str) -> None:
    assert words in faults(bag, (old, new))


def test_a_field_that_the_message_does_not_have_is_named_with_its_time(bag: Path) -> None:
    text = faults(bag, ("pose.position.x, pose.position.y", "pose.position.a, pose.position.y"))
    assert "0.000 s from the bag's start" in text
    assert "/tool_pose: cannot read" in text
    assert "tool_position.pose.position.a" in text


def test_all_faults_of_a_bag_are_named_at_once(bag: Path) -> None:
    text = faults(bag, ("topic: /tool_pose", "topic: /tool"), ("topic: /command", "topic: /commands"))
    assert "topic /tool " in text
    assert "topic /commands " in text


def test_topics_of_the_reward_are_looked_into_too(tmp_path: Path) -> None:
    rule = f"  success: {SUCCESS}\n  at_success: 0\n  otherwise: -1"
    silent = written(tmp_path, record(20), [])
    # A success that is announced once in a while may have no message in a bag.
    assert faults(silent, (RULE, rule)) == ""
    assert "topic /success has no messages, and reward" in faults(silent, (RULE, rule.replace("unsolved", "cut")))
    (tmp_path / "more").mkdir()
    told = written(tmp_path / "more", record(20), [("/success", 3, True)])
    assert faults(told, (RULE, rule)) == ""
    assert "field 'flag' cannot be read" in faults(told, (RULE, rule.replace("field: data", "field: flag")))


def test_topics_that_cut_episodes_are_looked_into_too(bag: Path) -> None:
    boundary = "boundary: {by: marker, topic: /episode, type: std_msgs/msg/Header}"
    reset = "{by: reset, topic: TOPIC, type: std_msgs/msg/Header, clock: header, end: terminal}"
    cuts = f"boundary: {{by: bag}}\n  cuts: [{reset}]"
    assert "topic /reset (std_msgs/msg/Header) is not in the bag" in faults(
        bag, (boundary, cuts.replace("TOPIC", "/reset"))
    )
    assert faults(bag, (boundary, cuts.replace("TOPIC", "/episode"))) == ""
    stamp = "{by: reset, topic: /episode, type: geometry_msgs/msg/PoseStamped, clock: header, end: terminal}"
    assert "/episode has type std_msgs/msg/Header" in faults(bag, (boundary, cuts.replace(reset, stamp)))


def test_a_reset_that_cannot_be_placed_is_named_and_none_at_all_is_no_fault(tmp_path: Path) -> None:
    boundary = "boundary: {by: marker, topic: /episode, type: std_msgs/msg/Header}"
    reset = "{by: reset, topic: /episode, type: std_msgs/msg/Header, clock: header, end: terminal}"
    change = (boundary, f"boundary: {{by: bag}}\n  cuts: [{reset}]")
    assert faults(record(20, markers=()).write(tmp_path / "none"), change) == ""
    recording = record(20, markers=())
    recording.add("/episode", recording.stamp(3), header(0))
    assert "/episode: stamp is 0 ns" in faults(recording.write(tmp_path / "unset"), change)


def test_the_command_takes_the_definitions_that_the_contract_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = gripper_bag(tmp_path / "bag", "float64 grip\n", {"grip": 0.5}, embedded=False)
    (tmp_path / "my_robot" / "msg").mkdir(parents=True)
    (tmp_path / "my_robot" / "msg" / "Gripper.msg").write_text("float64 grip\n")
    pose = "    - topic: /tool_pose"
    gripper = """    - topic: /gripper
      type: my_robot/msg/Gripper
      align: {method: hold, max_age: 0.1}
      clock: receive
      features: [{name: grip, unit: m, fields: [grip]}]
"""
    for more, unknown in (("", True), ("message_definitions: [my_robot]\n", False)):
        (tmp_path / "contract.yaml").write_text(contract_text((pose, gripper + pose)) + more)
        assert main(["contract", "check", str(tmp_path / "contract.yaml"), str(bag)]) == 1
        shown = capsys.readouterr().out
        assert "/joint_states (sensor_msgs/msg/JointState) is not in the bag" in shown
        assert ("cannot be decoded" in shown) == unknown


def test_a_bag_that_cannot_be_opened_is_one_fault(tmp_path: Path) -> None:
    (tmp_path / "broken.mcap").write_bytes(b"no bag at all")
    (fault,) = check_bag(tmp_path / "broken.mcap", GOOD)
    assert fault.bag == str(tmp_path / "broken.mcap")
    assert fault.text


def test_the_command_names_every_fault_and_fails(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, wrong = tmp_path / "good.yaml", tmp_path / "wrong.yaml"
    good.write_text(CONTRACT)
    wrong.write_text(contract_text(("topic: /tool_pose", "topic: /tool")))
    assert main(["contract", "check", str(good)]) == 0
    assert main(["contract", "check", str(good), str(bag)]) == 0
    shown = capsys.readouterr().out
    assert f"{bag}: fits" in shown
    assert "observation[4]  tool_position.pose.position.x" in shown
    assert main(["contract", "check", str(wrong), str(bag)]) == 1
    shown = SimpleNamespace(**capsys.readouterr()._asdict())
    assert f"{bag}: 1 fault\n  topic /tool (geometry_msgs/msg/PoseStamped) is not in the bag" in shown.out
    assert "1 fault in the bags; correct the contract or the bags" in shown.err
    # The short form stays as it was.
    assert main(["contract", "check", str(good)]) == 0
    assert "two_joints: 20 Hz, clock header" in capsys.readouterr().out
