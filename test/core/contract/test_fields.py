"""Numbers of messages by path, of every kind of message that a robot speaks, after a journey through a bag's bytes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from rql_core.contract.fields import FieldReader, check_field, expand
from rql_core.contract.strict_model import JOINT_STATE, JOINT_TRAJECTORY
from rql_core.errors import ContractError

TYPES = get_typestore(Stores.ROS2_KILTED)


def message(kind: str) -> Any:
    """A message of `kind` whose numbers are 1, 2, 3, ... in the order of its definition; arrays have three."""
    counter = iter(range(1, 10_000))

    def build(name: str) -> Any:
        return TYPES.types[name](**{field: member(node) for field, node in TYPES.fielddefs[name][1]})

    def member(node: Any) -> Any:
        what, detail = int(node[0]), node[1]
        if what == 1:
            basic = detail[0]
            return "text" if basic == "string" else next(counter) % 2 == 1 if basic == "bool" else next(counter)
        if what == 2:
            return build(detail)
        (inner, inner_detail), length = detail
        if int(inner) == 2:
            return [build(inner_detail) for _ in range(2)]
        if inner_detail[0] == "string":
            return ["a", "b", "c"]
        return np.array([next(counter) for _ in range(length or 3)], dtype=inner_detail[0])

    built = build(kind)
    return TYPES.deserialize_cdr(TYPES.serialize_cdr(built, kind), kind)


@pytest.mark.parametrize(
    ("kind", "fields", "numbers"),
    [
        ("geometry_msgs/msg/Pose", ["position.y", "orientation.w"], [2, 7]),
        ("geometry_msgs/msg/Twist", ["linear.x", "angular.z"], [1, 6]),
        ("geometry_msgs/msg/TwistStamped", ["twist.angular.z", "twist.linear.x"], [8, 3]),
        ("geometry_msgs/msg/WrenchStamped", ["wrench.force.z", "wrench.torque.x"], [5, 6]),
        (
            "nav_msgs/msg/Odometry",
            ["pose.pose.position.x", "pose.covariance[35]", "twist.twist.angular.z"],
            [3, 45, 51],
        ),
        ("sensor_msgs/msg/Imu", ["linear_acceleration.z", "angular_velocity_covariance[0]"], [30, 19]),
        ("trajectory_msgs/msg/JointTrajectory", ["points[1].time_from_start.sec"], [29]),
        ("std_msgs/msg/Float64MultiArray", ["data[0:2]", "data[2]"], [6, 7, 8]),
        ("std_msgs/msg/UInt8MultiArray", ["data[1:3]"], [7, 8]),
        ("std_msgs/msg/Bool", ["data"], [1]),
        ("std_msgs/msg/Float32", ["data"], [1]),
        ("std_msgs/msg/Int8", ["data"], [1]),
        ("std_msgs/msg/UInt64", ["data"], [1]),
        ("std_msgs/msg/Byte", ["data"], [1]),
        ("geometry_msgs/msg/PoseArray", ["poses[0:2].position.x"], [3, 10]),
    ],
)
def test_numbers_are_read_by_path(kind: str, fields: list[str], numbers: list[float]) -> None:
    single = [number for field in fields for number in expand(field)]
    assert [check_field(kind, field) for field in fields] == [None] * len(fields)
    read = FieldReader("/topic", kind, single).read(message(kind))
    assert (read.dtype, read.tolist()) == (np.float64, numbers)


def test_a_byte_is_a_number_whether_it_comes_as_bytes_or_as_one() -> None:
    reader = FieldReader("/topic", "std_msgs/msg/Byte", ["data"])
    assert reader.read(SimpleNamespace(data=b"\x07")).tolist() == reader.read(SimpleNamespace(data=7)).tolist() == [7]
    array = FieldReader("/topic", "std_msgs/msg/ByteMultiArray", ["data[0]", "data[1]"])
    for data in ([b"\x01", b"\x02"], np.array([1, 2], np.uint8), bytes([1, 2]), [1, 2]):
        assert array.read(SimpleNamespace(data=data)).tolist() == [1, 2]


@pytest.mark.parametrize("text", ["1.5", b"15"])
def test_text_is_no_number_even_where_it_looks_like_one(text: object) -> None:
    for fields, data in ((["data"], text), (["data[0]"], [text])):
        with pytest.raises(ContractError, match=r"/topic: cannot read what from std_msgs/msg/String: .* is text"):
            FieldReader("/topic", "std_msgs/msg/String", fields, ["what"]).read(SimpleNamespace(data=data))


def test_an_array_that_is_too_short_or_absent_is_named() -> None:
    reader = FieldReader("/topic", "std_msgs/msg/Float64MultiArray", ["data[3]"], ["tip.data[3]"])
    with pytest.raises(ContractError, match=r"/topic: cannot read tip\.data\[3\] .*: data has 3 values, \[3\] was"):
        reader.read(SimpleNamespace(data=[1.0, 2.0, 3.0]))
    with pytest.raises(ContractError, match=r"cannot read tip\.data\[3\]"):
        reader.read(SimpleNamespace(dat=[1.0]))


def test_joints_are_found_by_name_in_any_order_that_changes_from_message_to_message() -> None:
    reader = FieldReader("/joints", JOINT_STATE, ["position.wrist", "velocity.elbow", "position.elbow"])
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 1, 2]):
        names = np.array(["elbow", "other", "wrist"])[order].tolist()
        position, velocity = np.array([1.0, 2.0, 3.0])[order], np.array([4.0, 5.0, 6.0])[order]
        assert reader.read(SimpleNamespace(name=names, position=position, velocity=velocity)).tolist() == [3, 4, 1]


def test_joints_of_a_trajectory_are_found_by_name_beside_other_fields() -> None:
    fields = ["points[0].time_from_start.sec", "points[1].velocities.wrist", "points[0].velocities.elbow"]
    point = [SimpleNamespace(velocities=[i + 1.0, i + 2.0], time_from_start=SimpleNamespace(sec=7)) for i in (0, 10)]
    read = FieldReader("/goal", JOINT_TRAJECTORY, fields).read(
        SimpleNamespace(joint_names=["wrist", "elbow"], points=point)
    )
    assert read.tolist() == [7, 11, 2]
    with pytest.raises(ContractError, match=r"/goal: cannot read .*: list index out of range"):
        FieldReader("/goal", JOINT_TRAJECTORY, fields).read(
            SimpleNamespace(joint_names=["wrist", "elbow"], points=point[:1])
        )


@pytest.mark.parametrize(
    ("names", "position", "words"),
    [
        (["elbow"], [1.0], "joint 'wrist' is there 0 times"),
        (["elbow", "wrist", "wrist"], [1.0, 2.0, 3.0], "joint 'wrist' is there 2 times"),
        (["elbow", "wrist"], [1.0], "position has 1 values for 2 joint names"),
        ([], [], "the message names no joint"),
    ],
)
def test_joints_that_are_missing_doubled_or_without_a_number_are_named(
    names: list[str], position: list[float], words: str
) -> None:
    reader = FieldReader("/joints", JOINT_STATE, ["position.elbow", "position.wrist"])
    with pytest.raises(ContractError, match=words):
        reader.read(SimpleNamespace(name=names, position=position))


def test_of_joints_in_several_messages_each_gives_what_it_has() -> None:
    reader = FieldReader("/joints", JOINT_STATE, ["position.elbow", "velocity.elbow", "position.wrist"])
    wrist = SimpleNamespace(name=["x", "wrist"], position=[0.0, 3.0], velocity=[0.0, 9.0])
    elbow = SimpleNamespace(name=["elbow"], position=[1.0], velocity=[])
    assert reader.read_present(wrist) == [(2, 3.0)]
    assert reader.read_present(elbow) == [(0, 1.0)]
    assert reader.read_present(SimpleNamespace(name=["x"], position=[1.0], velocity=[1.0])) == []
    with pytest.raises(ContractError, match="joint 'elbow' is there 2 times"):
        reader.read_present(SimpleNamespace(name=["elbow", "elbow"], position=[1.0, 2.0], velocity=[]))
    with pytest.raises(ContractError, match="position has 2 values for 1 joint names"):
        reader.read_present(SimpleNamespace(name=["elbow"], position=[1.0, 2.0], velocity=[]))


def test_a_slice_is_its_numbers_one_by_one() -> None:
    assert expand("data[2:5]") == ["data[2]", "data[3]", "data[4]"]
    assert expand("poses[0:2].position.x") == ["poses[0].position.x", "poses[1].position.x"]
    assert expand("a[0:2].b[1:3]") == ["a[0].b[1]", "a[0].b[2]", "a[1].b[1]", "a[1].b[2]"]
    with pytest.raises(ValueError, match="is 1000000 numbers, expected at most"):
        expand("a[0:1000].b[0:1000]")


@pytest.mark.parametrize(
    ("kind", "field", "words"),
    [
        (JOINT_STATE, "elbow", "expected a path into sensor_msgs/msg/JointState such as 'position.elbow_joint'"),
        (JOINT_STATE, "position[0]", "expected a path"),
        (JOINT_STATE, "position[0:2]", "expected a path"),
        (JOINT_STATE, "position.elbow[0:2]", "takes joints by index"),
        ("geometry_msgs/msg/Pose", "position.__class__", "expected a path"),
        ("geometry_msgs/msg/Pose", "position..x", "expected a path"),
        ("geometry_msgs/msg/Pose", "position.x()", "expected a path"),
        ("std_msgs/msg/Float64MultiArray", "data[-1]", "expected a path"),
        ("std_msgs/msg/Float64MultiArray", "data[1:]", "expected a path"),
        ("std_msgs/msg/Float64MultiArray", "data[3:3]", "is empty"),
    ],
)
def test_what_is_no_path_is_refused(kind: str, field: str, words: str) -> None:
    assert words in (check_field(kind, field) or "")
