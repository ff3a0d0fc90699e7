"""From aligned numbers to the observation: factors, rotations, differences, histories, and where they have no past."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rql_core.contract import Contract, RewardRule, TickAssembler, parse_contract
from rql_core.errors import ContractError

MS = 1_000_000
START = 1_793_534_400_000 * MS
HOLD = "{method: hold, max_age: 0.04}"
CONTRACT = """
schema: 1
name: a_pose
description: One pose at 20 Hz, for tests.
rate: 20
clock: header
observation:
  max_wait: 0.2
  topics:
    - topic: /pose
      type: geometry_msgs/msg/PoseStamped
      align: {align}
      features:
{features}
action:
  topic: /command
  type: trajectory_msgs/msg/JointTrajectory
  command: velocities
  unit: rad/s
  hold: zero
  features: [{{name: elbow, lower: -2.0, upper: 2.0}}]
reward:
  success: {{rule: within, feature: x, target: [0.0], tolerance: 0.1}}
  at_success: 0.0
  otherwise: -1.0
episodes: {{boundary: {{by: bag}}, min_steps: 1, at_success: continue}}
"""
X = "{name: x, unit: m, fields: [pose.position.x]}"


def contract_of(*features: str, align: str = HOLD) -> Contract:
    return parse_contract(CONTRACT.format(features="\n".join(f"        - {line}" for line in features), align=align))


def pose(at_ms: float, x: float = 0.0, rotation: Rotation | None = None) -> Any:
    sec, nanosec = divmod(START + round(at_ms * MS), 10**9)
    quaternion = (Rotation.identity() if rotation is None else rotation).as_quat()
    return SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec)),
        pose=SimpleNamespace(
            position=SimpleNamespace(x=x, y=2 * x, z=3 * x),
            orientation=SimpleNamespace(**dict(zip("xyzw", quaternion.tolist(), strict=True))),
        ),
    )


def observed(contract: Contract, *messages: Any, starts: tuple[int, ...] = ()) -> dict[int, list[float]]:
    """Tick -> observation, counted from the first tick, rounded to what float32 keeps."""
    assembler = TickAssembler(contract, starts)
    for message in messages:
        assembler.push("/pose", message, 0)
    first = START // (50 * MS)
    return {
        tick.index - first: np.round(tick.observation.astype(float), 5).tolist()
        for tick in assembler.take()
        if tick.observation is not None
    }


def test_a_factor_is_for_all_numbers_or_for_each() -> None:
    contract = contract_of(
        X,
        "{name: mm, unit: mm, fields: [pose.position.x, pose.position.y], scale: 1000}",
        "{name: own, unit: mixed, fields: [pose.position.x, pose.position.y], scale: [-1.0, 0.5]}",
    )
    assert observed(contract, pose(0, 0.25)) == {0: [0.25, 250, 500, -0.25, 0.25]}


def test_a_rotation_is_written_as_the_feature_says() -> None:
    turn = Rotation.from_euler("ZYX", [0.4, -0.2, 0.3])
    contract = contract_of(
        X,
        "{name: yaw, unit: rad, fields: [pose.orientation], rotation: yaw}",
        "{name: vector, unit: rad, fields: [pose.orientation], rotation: rotation_vector}",
        "{name: six, unit: '1', rotation: 6d,"
        " fields: [pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w]}",
    )
    assert contract.observation_names == (
        *("x.pose.position.x", "yaw.yaw", "vector.rx", "vector.ry", "vector.rz"),
        *("six.r00", "six.r10", "six.r20", "six.r01", "six.r11", "six.r21"),
    )
    matrix = turn.as_matrix()
    expected = [0, 0.4, *turn.as_rotvec(), *matrix[:, 0], *matrix[:, 1]]
    assert observed(contract, pose(0, 0, turn))[0] == pytest.approx(expected, abs=1e-5)


def test_an_orientation_that_nobody_set_is_refused() -> None:
    contract = contract_of(X, "{name: turn, unit: rad, fields: [pose.orientation], rotation: yaw}")
    unset = pose(0)
    unset.pose.orientation.w = 0.0
    with pytest.raises(ContractError, match=r"/pose: turn\.pose\.orientation\.x: quaternion .* has norm 0, expected 1"):
        TickAssembler(contract).push("/pose", unset, 0)


def test_a_difference_is_the_change_since_the_tick_before_and_needs_it() -> None:
    contract = contract_of(X, "{name: dx, unit: m, fields: [pose.position.x], difference: true}")
    messages = [pose(at, x) for at, x in ((0, 1), (50, 3), (100, 4), (300, 7), (350, 5))]
    assert observed(contract, *messages) == {1: [3, 2], 2: [4, 1], 7: [5, -2]}


def test_a_history_has_the_oldest_tick_first_and_begins_anew_after_a_gap() -> None:
    contract = contract_of(X, "{name: past, unit: m, fields: [pose.position.x, pose.position.y], history: 3}")
    assert contract.observation_names[1:] == tuple(
        f"past.pose.position.{axis}@t{ago}" for ago in ("-2", "-1", "") for axis in "xy"
    )
    assert (contract.observation_dim, contract.past_ticks) == (7, 2)
    messages = [pose(at, x) for at, x in ((0, 1), (50, 3), (100, 4), (150, 6), (300, 7), (350, 5), (400, 2))]
    assert observed(contract, *messages) == {
        2: [4, 1, 2, 3, 6, 4, 8],
        3: [6, 3, 6, 4, 8, 6, 12],
        8: [2, 7, 14, 5, 10, 2, 4],
    }


def test_a_history_of_differences_needs_one_tick_more() -> None:
    contract = contract_of(X, "{name: dx, unit: m, fields: [pose.position.x], difference: true, history: 2}")
    messages = [pose(50 * i, x) for i, x in enumerate((1, 3, 4, 8))]
    assert observed(contract, *messages) == {2: [4, 2, 1], 3: [8, 1, 4]}
    assembler = TickAssembler(contract)
    for message in messages:
        assembler.push("/pose", message, 0)
    assembler.take()
    assert assembler.counts == {"ticks_without_past": 2}


def test_the_difference_of_rotations_is_the_rotation_since_then() -> None:
    contract = contract_of(
        X,
        "{name: turned, unit: rad, fields: [pose.orientation], rotation: rotation_vector, difference: true}",
        "{name: yawed, unit: rad, fields: [pose.orientation], rotation: yaw, difference: true}",
    )
    before = Rotation.from_euler("Z", math.pi - 0.1)
    after = Rotation.from_euler("Z", -math.pi + 0.2)
    assert observed(contract, pose(0, 0, before), pose(50, 0, after)) == {1: [0, 0, 0, 0.3, 0.3]}


def test_neither_past_nor_line_reaches_across_a_start() -> None:
    start = START + 75 * MS
    dx = "{name: dx, unit: m, fields: [pose.position.x], difference: true}"
    messages = [pose(25 * i, i) for i in range(9)]
    assert list(observed(contract_of(X, dx), *messages)) == [1, 2, 3, 4]
    assert list(observed(contract_of(X, dx), *messages, starts=(start,))) == [1, 3, 4]
    between = [pose(25 * i + 5, i) for i in range(9)]
    line = "{method: linear, tolerance: 0.1}"
    assert list(observed(contract_of(X, align=line), *between)) == [1, 2, 3, 4]
    for at_ms, left in ((99, [1, 3, 4]), (45, [2, 3, 4]), (75, [1, 2, 3, 4])):
        assert list(observed(contract_of(X, align=line), *between, starts=(START + at_ms * MS,))) == left
    near = "{method: nearest, tolerance: 0.011}"
    sparse = [pose(0, 0), pose(60, 1), pose(110, 2)]
    assert observed(contract_of(X, align=near), *sparse) == {0: [0], 1: [1], 2: [2]}
    assert observed(contract_of(X, align=near), *sparse, starts=(START + 55 * MS,)) == {0: [0], 2: [2]}


def test_the_first_tick_may_lie_before_the_first_message_that_is_near_it() -> None:
    near = "{method: nearest, tolerance: 0.01}"
    for at, expected in ((9, {0: [1], 1: [2]}), (11, {1: [2]})):
        assert observed(contract_of(X, align=near), pose(at, 1), pose(51, 2)) == expected


def test_rewards_are_about_the_present_tick_of_a_feature_with_a_history() -> None:
    contract = contract_of("{name: x, unit: m, fields: [pose.position.x], history: 2}")
    assert contract.feature_slice("x") == slice(0, 2)
    assert contract.present_slice("x") == slice(1, 2)
    success = RewardRule(contract).success(np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32))
    assert success.tolist() == [False, True]


def test_joints_in_several_messages_are_each_held_by_their_own() -> None:
    text = (
        CONTRACT.format(features="        - {name: x, unit: rad, fields: [position.elbow, position.wrist]}", align=HOLD)
        .replace("type: geometry_msgs/msg/PoseStamped", "type: sensor_msgs/msg/JointState\n      joints: partial")
        .replace("target: [0.0]", "target: [0.0, 0.0]")
    )
    assembler = TickAssembler(parse_contract(text))

    def push(at_ms: int, **joints: float) -> int | None:
        header = pose(at_ms).header
        message = SimpleNamespace(header=header, name=list(joints), position=list(joints.values()))
        return assembler.push("/pose", message, 0)

    assert push(0, elbow=1.0) == START
    assert push(0, wrist=2.0) == START
    assert push(30, elbow=3.0, other=9.0) == START + 30 * MS
    assert push(20, wrist=4.0) == START + 20 * MS
    assert push(10, wrist=5.0) is None
    assert push(30, elbow=3.0) is None
    assert push(31, other=1.0) is None
    with pytest.raises(ContractError, match=r"two messages are stamped .* and differ"):
        push(30, elbow=4.0)
    push(60, elbow=6.0, wrist=7.0)
    push(160, elbow=6.0)
    ticks = assembler.take()
    assert [None if tick.observation is None else tick.observation.tolist() for tick in ticks] == [[1, 2], [3, 4]]
    assert [tick.ages_ns for tick in ticks] == [(0,), (30 * MS,)]
    push(170, wrist=8.0)
    assert [tick.missing for tick in assembler.take()] == [(), ("/pose (x.position.elbow)", "/pose (x.position.wrist)")]
    assert assembler.counts == {"out_of_order": 1, "duplicate": 1, "of_other_joints": 1}


def test_the_clock_of_a_topic_may_differ_from_the_contracts() -> None:
    text = CONTRACT.format(features=f"        - {X}", align=f"{HOLD}\n      clock: receive")
    assembler = TickAssembler(parse_contract(text))
    assert assembler.push("/pose", pose(7), START + 3) == START + 3


def test_a_message_after_its_tick_was_given_out_is_counted() -> None:
    contract = contract_of(X)
    assembler = TickAssembler(contract)
    assembler.push("/pose", pose(0, 1), 0)
    assembler.push("/pose", pose(30, 2), 0)
    assert len(assembler.take(START + 250 * MS)) == 2
    assembler.push("/pose", pose(45, 3), 0)
    assert assembler.counts == {"late": 1}
