"""Commands as they were in force: single ones held until the next, read by field, and refused where they are sent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rql_core.contract import (
    ActionChunk,
    CommandSchedule,
    Contract,
    check_publishable,
    decode_chunk,
    encode_chunk,
    parse_contract,
)
from rql_core.errors import ContractError

NOW = 1_793_534_400_123_456_789
MS = 1_000_000
CONTRACT = """
schema: 1
name: base
description: A mobile base, for tests.
rate: 20
clock: header
observation:
  max_wait: 0.02
  topics:
    - topic: /odom
      type: nav_msgs/msg/Odometry
      align: {method: hold, max_age: 0.1}
      features: [{name: x, unit: m, fields: [pose.pose.position.x]}]
action:
  topic: /command
  type: geometry_msgs/msg/TwistStamped
  command: velocities
  unit: m/s
  hold: zero
  resolve: hold
  max_age: 0.2
  features:
    - {name: forward, lower: -1.0, upper: 1.0, field: twist.linear.x}
    - {name: turn, lower: -2.0, upper: 2.0, field: twist.angular.z}
reward:
  success: {rule: within, feature: x, target: [0.0], tolerance: 0.1}
  at_success: 0.0
  otherwise: -1.0
episodes: {boundary: {by: bag}, min_steps: 1, at_success: continue}
"""
TRAJECTORY = (
    ("geometry_msgs/msg/TwistStamped", "trajectory_msgs/msg/JointTrajectory"),
    (", field: twist.linear.x", ""),
    (", field: twist.angular.z", ""),
)
ARRAY = (
    ("geometry_msgs/msg/TwistStamped", "std_msgs/msg/Float64MultiArray"),
    ("twist.linear.x", "'data[1]'"),
    ("twist.angular.z", "'data[0]'"),
    ("max_age: 0.2", "max_age: 0.2\n  clock: receive"),
)
LABELLED = (ARRAY[0], *TRAJECTORY[1:])
JOINTS = (
    ("geometry_msgs/msg/TwistStamped", "sensor_msgs/msg/JointState"),
    ("twist.linear.x", "velocity.left"),
    ("twist.angular.z", "velocity.right"),
)


def contract_of(*changes: tuple[str, str]) -> Contract:
    text = CONTRACT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_contract(text)


def header(stamp_ns: int) -> SimpleNamespace:
    sec, nanosec = divmod(stamp_ns, 10**9)
    return SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec))


def twist(forward: float, turn: float) -> SimpleNamespace:
    return SimpleNamespace(linear=SimpleNamespace(x=forward), angular=SimpleNamespace(z=turn))


def trajectory(stamp_ns: int, *rows: list[float], ends_ms: tuple[int, ...] = ()) -> SimpleNamespace:
    points = [
        SimpleNamespace(velocities=row, time_from_start=SimpleNamespace(sec=0, nanosec=end * MS))
        for row, end in zip(rows, ends_ms or [0] * len(rows), strict=True)
    ]
    return SimpleNamespace(header=header(stamp_ns), joint_names=["turn", "forward"], points=points)


def test_a_single_command_is_in_force_until_the_next_and_at_most_max_age_long() -> None:
    contract = contract_of()
    schedule = CommandSchedule(contract.action.max_age_ns)
    for after_ms, forward in ((0, 0.1), (150, 0.2), (500, 0.3)):
        stamp = NOW + after_ms * MS
        schedule.add(decode_chunk(contract, SimpleNamespace(header=header(stamp), twist=twist(forward, -1.0)), 0))
    found = [schedule.action_at(NOW + ms * MS) for ms in (-1, 0, 149, 150, 350, 351, 500, 700)]
    assert [None if action is None else action.tolist() for action in found] == [
        *(None, [0.1, -1.0], [0.1, -1.0], [0.2, -1.0], [0.2, -1.0], None, [0.3, -1.0], [0.3, -1.0])
    ]


@pytest.mark.parametrize(
    ("changes", "message", "stamp"),
    [
        ((), SimpleNamespace(header=header(NOW - 5), twist=twist(0.5, -0.25)), NOW - 5),
        (
            (
                ("geometry_msgs/msg/TwistStamped", "geometry_msgs/msg/Twist"),
                ("twist.linear.x", "linear.x"),
                ("twist.angular.z", "angular.z"),
                ("max_age: 0.2", "max_age: 0.2\n  clock: receive"),
            ),
            twist(0.5, -0.25),
            NOW,
        ),
        (ARRAY, SimpleNamespace(data=[-0.25, 0.5, 9.0]), NOW),
        (
            JOINTS,
            SimpleNamespace(header=header(NOW - 5), name=["right", "left"], velocity=[-0.25, 0.5], position=[]),
            NOW - 5,
        ),
        (TRAJECTORY, trajectory(NOW - 5, [-0.25, 0.5]), NOW - 5),
        (TRAJECTORY, trajectory(0, [-0.25, 0.5]), NOW),
        (
            LABELLED,
            SimpleNamespace(
                layout=SimpleNamespace(
                    dim=[SimpleNamespace(label="step", size=1), SimpleNamespace(label="time,forward,turn", size=3)]
                ),
                data=[NOW / 1e9, 0.5, -0.25],
            ),
            round(NOW / 1e9 * 10**9),
        ),
    ],
    ids=[
        "twist stamped",
        "twist",
        "array by index",
        "joints by name",
        "trajectory",
        "trajectory now",
        "labelled array",
    ],
)
def test_every_kind_of_single_command_is_a_held_step(changes: Any, message: Any, stamp: int) -> None:
    chunk = decode_chunk(contract_of(*changes), message, NOW)
    assert chunk.actions.tolist() == [[0.5, -0.25]]
    assert (chunk.stamp_ns, chunk.ends_ns.tolist()) == (stamp, [stamp + 1])


def test_a_message_of_several_steps_is_a_chunk_also_where_single_commands_are_held() -> None:
    contract = contract_of(*TRAJECTORY)
    chunk = decode_chunk(contract, trajectory(NOW, [1.0, 2.0], [3.0, 4.0], ends_ms=(50, 100)), 0)
    assert chunk.ends_ns.tolist() == [NOW + 50 * MS, NOW + 100 * MS]
    assert chunk.actions.tolist() == [[2, 1], [4, 3]]


@pytest.mark.parametrize("changes", [TRAJECTORY, LABELLED])
def test_what_a_policy_sends_is_read_back_where_single_commands_are_held(changes: Any) -> None:
    contract = contract_of(*changes)
    sent = ActionChunk.regular(contract, 50 * MS, np.array([[0.1, 0.2], [0.3, 0.4]]))
    fields = encode_chunk(contract, sent)

    def namespace(value: Any) -> Any:
        if isinstance(value, dict):
            return SimpleNamespace(**{key: namespace(item) for key, item in value.items()})
        return [namespace(item) for item in value] if isinstance(value, list) else value

    got = decode_chunk(contract, namespace(fields), 0)
    assert (got.stamp_ns, got.ends_ns.tolist()) == (sent.stamp_ns, sent.ends_ns.tolist())
    np.testing.assert_array_equal(got.actions, sent.actions)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (SimpleNamespace(header=header(NOW), twist=twist(float("nan"), 0.0)), "/command: step 0, forward is nan"),
        (SimpleNamespace(header=header(0), twist=twist(0.0, 0.0)), r"/command: header\.stamp is 0 ns"),
        (SimpleNamespace(twist=twist(0.0, 0.0)), "/command: geometry_msgs/msg/TwistStamped has no header"),
        (SimpleNamespace(header=header(NOW)), r"/command: cannot read twist\.linear\.x, twist\.angular\.z"),
    ],
)
def test_a_command_that_breaks_the_contract_is_named(message: Any, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        decode_chunk(contract_of(), message, NOW)


def test_a_field_that_is_no_number_shows_with_the_first_message() -> None:
    contract = contract_of(("twist.angular.z", "twist.angular"))
    message = SimpleNamespace(header=header(NOW), twist=twist(0.0, 0.0))
    with pytest.raises(ContractError, match=r"/command: cannot read twist\.linear\.x, twist\.angular from"):
        decode_chunk(contract, message, NOW)


def test_commands_that_can_only_be_recorded_are_not_sent() -> None:
    for changes, words in (
        ((), "/command: geometry_msgs/msg/TwistStamped can be recorded and learnt from, but not be sent"),
        (ARRAY, "std_msgs/msg/Float64MultiArray read by fields can be recorded"),
        (JOINTS, "sensor_msgs/msg/JointState can be recorded"),
    ):
        contract = contract_of(*changes)
        with pytest.raises(ContractError, match=words):
            check_publishable(contract)
        with pytest.raises(ContractError, match=words):
            encode_chunk(contract, ActionChunk.regular(contract, 50 * MS, np.zeros((1, 2))))
    check_publishable(contract_of(*TRAJECTORY))
    check_publishable(contract_of(*LABELLED))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ((("resolve: hold\n", "resolve: chunk\n"),), "is a single command; write resolve: hold"),
        ((("  resolve: hold\n", ""),), "is a single command; write resolve: hold"),
        ((("  max_age: 0.2\n", ""),), "resolve: hold needs max_age"),
        (((", field: twist.angular.z", ""),), "action 'turn' has no field, but others have"),
        (TRAJECTORY[1:], "geometry_msgs/msg/TwistStamped needs a field a feature"),
        ((TRAJECTORY[0],), "has its joints by name; leave field out"),
        ((("twist.angular.z", "twist.linear.x"),), r"'twist\.linear\.x', which is listed 2 times"),
        ((("twist.angular.z", "'data[0:2]'"),), "which is several numbers; expected one a feature"),
        ((("twist.angular.z", "'twist angular'"),), "expected a path into geometry_msgs/msg/TwistStamped"),
        ((("geometry_msgs/msg/TwistStamped", "sensor_msgs/msg/Image"),), "sensor_msgs/msg/Image is no command"),
        ((("geometry_msgs/msg/TwistStamped", "geometry_msgs/msg/Twist"),), "Twist has no header, .* clock: receive"),
        (ARRAY[:3], "Float64MultiArray has no header, .* clock: receive"),
        ((("resolve: hold", "resolve: guess"),), "resolve"),
    ],
)
def test_what_is_no_command_is_refused(changes: Any, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        contract_of(*changes)
