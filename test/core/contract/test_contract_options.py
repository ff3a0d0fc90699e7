"""Options of topics, features and episodes that make no sense are refused, with the key and what to do."""

from __future__ import annotations

import pytest

from rql_core.contract import parse_contract
from rql_core.errors import ContractError

TEXT = """
schema: 1
name: base
description: A pose and a switch, for tests.
rate: 20
clock: header
observation:
  max_wait: 0.1
  topics:
    - topic: /pose
      type: geometry_msgs/msg/PoseStamped
      align: {method: linear, tolerance: 0.08}
      features:
        - {name: tip, unit: mm, fields: [pose.position.x, pose.position.y], scale: 1000.0}
        - {name: turn, unit: rad, fields: [pose.orientation], rotation: rotation_vector, difference: true, history: 2}
    - topic: /switch
      type: std_msgs/msg/Bool
      clock: receive
      align: {method: hold, max_age: 0.5}
      features: [{name: switch, unit: "1", fields: [data]}]
    - topic: /joint_states
      type: sensor_msgs/msg/JointState
      joints: partial
      align: {method: nearest, tolerance: 0.02}
      features: [{name: q, unit: rad, fields: [position.elbow]}]
action:
  topic: /command
  type: trajectory_msgs/msg/JointTrajectory
  command: velocities
  unit: rad/s
  hold: zero
  features: [{name: elbow, lower: -2.0, upper: 2.0}]
reward:
  success: {rule: within, feature: tip, target: [0.0, 0.0], tolerance: 0.1}
  at_success: 0.0
  otherwise: -1.0
episodes:
  boundary: {by: marker, topic: /episode, type: std_msgs/msg/Header, end: truncation}
  cuts:
    - {by: gap, seconds: 0.5, end: truncation}
    - {by: reset, topic: /reset, type: std_msgs/msg/Empty, clock: receive, end: terminal}
    - {by: time_limit, seconds: 0.3, end: truncation}
  min_steps: 6
  at_success: continue
"""


def test_a_contract_may_have_all_options() -> None:
    contract = parse_contract(TEXT)
    assert contract.observation_dim == 2 + 6 + 1 + 1
    assert contract.feature_slice("turn") == slice(2, 8)
    assert contract.present_slice("turn") == slice(5, 8)
    assert contract.past_ticks == 2
    assert contract.time_limit_steps == 6
    assert [event.topic for event in contract.episodes.events] == ["/reset", "/episode"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("align: {method: linear, tolerance: 0.08}", "align: {method: linear}", "tolerance' is missing"),
        ("align: {method: linear, tolerance: 0.08}", "align: {tolerance: 0.08}", "method"),
        ("tolerance: 0.08", "max_age: 0.08", "unknown key"),
        ("tolerance: 0.08", "tolerance: 0.1", r"max_wait is 0\.1 s, but /pose \(linear\) may need .* up to 0\.1 s"),
        ("tolerance: 0.02}", "tolerance: 0.2}", r"max_wait is 0\.1 s, but /joint_states \(nearest\)"),
        ("clock: receive\n      align", "align", "std_msgs/msg/Bool has no header"),
        ("clock: receive\n      align", "clock: mine\n      align", "clock"),
        (
            "{method: hold, max_age: 0.5}",
            "{method: linear, tolerance: 0.05}",
            "between true and false there is nothing",
        ),
        ("rotation: rotation_vector", "rotation: 6d", "the difference of two rotations is no 6d"),
        ("rotation: rotation_vector", "rotation: euler", "rotation"),
        ("[pose.orientation], rotation", "[pose.position.z], scale: 2.0, rotation", "which has no scale"),
        ("[pose.orientation], rotation", "[pose.position.z, pose.position.x], rotation", "and 2 numbers; expected one"),
        (
            "[pose.orientation], rotation: rotation_vector",
            "[pose.orientation.w]",
            r"has pose\.orientation\.w, and the parts of a quaternion do not lie on lines",
        ),
        ("scale: 1000.0", "scale: [1.0]", "has 1 scales for 2 numbers"),
        ("scale: 1000.0", "scale: 0", "tip.scale is 0"),
        ("scale: 1000.0", "scale: .nan", "tip.scale is nan"),
        ("scale: 1000.0", "scale: [1.0, .inf]", "tip.scale is inf"),
        ("history: 2", "history: 0", "history"),
        ("history: 2", "history: 1000", "history"),
        ("[pose.position.x, pose.position.y]", "['a[0:2]', 'a[1]']", r"field 'a\[1\]' is listed 2 times"),
        ("joints: partial", "joints: some", "joints"),
        (
            "type: std_msgs/msg/Bool",
            "type: std_msgs/msg/Bool\n      joints: partial",
            "is for sensor_msgs/msg/JointState",
        ),
        ("geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/CompressedImage", "images .* cannot be features yet"),
        ("geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/PointCloud2", "images .* cannot be features yet"),
        ("feature: tip, target: [0.0, 0.0]", "feature: turn, target: [0.0, 0.0]", r"expected 3 \(feature 'turn'\)"),
        ("seconds: 0.5, end: truncation", "seconds: 0.5", "end' is missing"),
        ("seconds: 0.5, end: truncation", "seconds: 0, end: truncation", "seconds"),
        ("clock: receive, end: terminal", "clock: header, end: terminal", "std_msgs/msg/Empty has no header"),
        ("clock: receive, end: terminal", "end: terminal", "clock' is missing"),
        ("topic: /reset", "topic: /switch", "'/switch' cuts episodes, and is an observation or the action as well"),
        ("topic: /reset", "topic: /episode", "/episode cuts episodes 2 times"),
        ("by: time_limit, seconds: 0.3", "by: gap, seconds: 0.3", "gap cuts episodes 2 times"),
        ("seconds: 0.3", "seconds: 0.25", "the time limit is 5 steps, but min_steps is 6"),
        ("by: time_limit", "by: hand", "cuts"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_in_one_line(old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(ContractError, match=words) as caught:
        parse_contract(TEXT.replace(old, new, 1), "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert "\n" not in str(caught.value)
