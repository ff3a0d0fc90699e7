"""What is in force is a function of the clock and the chunks, and a chunk survives its message."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from rql_core.contract import ActionChunk, CommandSchedule, Contract, decode_chunk, encode_chunk, parse_contract
from rql_core.contract.time import tick_at_or_after, tick_time
from rql_core.errors import ContractError

TYPES = get_typestore(Stores.ROS2_KILTED)
NOW = 1_793_534_400_123_456_789
JOINT_TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
MULTI_ARRAY = "std_msgs/msg/Float64MultiArray"
CONTRACT = """
schema: 1
name: two_joints
description: Two joints, for tests.
rate: {rate}
clock: {clock}
observation:
  max_wait: 0.02
  topics:
    - topic: /joint_states
      type: sensor_msgs/msg/JointState
      align: {{method: hold, max_age: 0.1}}
      features: [{{name: q, unit: rad, fields: [position.elbow]}}]
action:
  topic: /command
  type: {kind}
  command: velocities
  unit: rad/s
  hold: zero
  features: [{{name: elbow, lower: -2.0, upper: 2.0}}, {{name: wrist, lower: -2.0, upper: 2.0}}]
reward:
  success: {{rule: within, feature: q, target: [0.0], tolerance: 0.1}}
  at_success: 0.0
  otherwise: -1.0
episodes: {{boundary: {{by: bag}}, min_steps: 1, at_success: continue}}
"""


def contract_of(kind: str = JOINT_TRAJECTORY, rate: float = 20, clock: str = "header") -> Contract:
    return parse_contract(CONTRACT.format(kind=kind, rate=rate, clock=clock))


def chunk(stamp: int, *ends: int, first: float = 0.0) -> ActionChunk:
    return ActionChunk(stamp, np.array(ends), first + np.arange(float(len(ends)))[:, None])


def in_force(schedule: CommandSchedule, *times: int) -> list[float | None]:
    actions = [schedule.action_at(at) for at in times]
    return [None if action is None else float(action[0]) for action in actions]


def test_a_step_is_in_force_from_the_end_of_the_one_before_until_its_own() -> None:
    schedule = CommandSchedule()
    schedule.add(chunk(100, 110, 120, 130))
    assert in_force(schedule, 99, 100, 109, 110, 129, 130) == [None, 0, 0, 1, 2, None]


def test_the_last_step_stays_in_force_for_max_age_more() -> None:
    schedule = CommandSchedule(max_age_ns=5)
    schedule.add(chunk(100, 110))
    assert in_force(schedule, 110, 114, 115) == [0, 0, None]


def test_the_newest_chunk_that_has_begun_counts_in_whatever_order_they_came() -> None:
    chunks = [chunk(100, 200, first=1), chunk(120, 130, first=2), chunk(150, 250, first=3)]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        schedule = CommandSchedule()
        for i in order:
            schedule.add(chunks[i])
        assert in_force(schedule, 119, 120, 140, 149, 150, 249) == [1, 2, None, None, 3, 3]
        assert schedule.newest_stamp_ns == 150


def test_a_chunk_with_the_same_stamp_replaces_the_older() -> None:
    schedule = CommandSchedule()
    schedule.add(chunk(100, 110, first=1))
    schedule.add(chunk(100, 120, first=2))
    assert in_force(schedule, 105, 115) == [2, 2]


def test_forgetting_the_past_changes_nothing_later() -> None:
    schedule = CommandSchedule()
    for at in range(0, 100, 10):
        schedule.add(chunk(at, at + 10, first=at))
    before = in_force(schedule, *range(55, 110))
    schedule.forget_before(55)
    assert in_force(schedule, *range(55, 110)) == before
    assert in_force(schedule, 45) == [None]


def test_a_chunk_whose_times_do_not_increase_is_refused() -> None:
    for ends in ((100,), (110, 110), (120, 110)):
        with pytest.raises(ContractError, match="strictly increasing"):
            chunk(100, *ends)


def rosbags_message(kind: str, fields: dict[str, Any]) -> Any:
    """Serialise and deserialise, as a bag does."""
    new = TYPES.types
    if kind == JOINT_TRAJECTORY:
        stamp = new["builtin_interfaces/msg/Time"](**fields["header"]["stamp"])
        points = [
            new["trajectory_msgs/msg/JointTrajectoryPoint"](
                **{
                    name: np.array(point[name], float)
                    for name in ("positions", "velocities", "accelerations", "effort")
                },
                time_from_start=new["builtin_interfaces/msg/Duration"](**point["time_from_start"]),
            )
            for point in fields["points"]
        ]
        message = new[kind](new["std_msgs/msg/Header"](stamp, ""), fields["joint_names"], points)
    else:
        dims = [new["std_msgs/msg/MultiArrayDimension"](**dim) for dim in fields["layout"]["dim"]]
        layout = new["std_msgs/msg/MultiArrayLayout"](dims, fields["layout"]["data_offset"])
        message = new[kind](layout, np.array(fields["data"], float))
    return TYPES.deserialize_cdr(TYPES.serialize_cdr(message, kind), kind)


@pytest.mark.parametrize("kind", [JOINT_TRAJECTORY, MULTI_ARRAY])
@pytest.mark.parametrize("rate", [20, 30, 60, 125, 29.97])
@pytest.mark.parametrize("horizon", [1, 5])
def test_a_chunk_survives_its_message_exactly_at_todays_stamps(kind: str, rate: float, horizon: int) -> None:
    contract = contract_of(kind, rate)
    for offset in range(7):
        stamp = tick_time(tick_at_or_after(NOW, contract.rate_fraction) + offset, contract.rate_fraction)
        actions = np.random.default_rng(offset).uniform(-2, 2, (horizon, 2))
        sent = ActionChunk.regular(contract, stamp, actions)
        got = decode_chunk(contract, rosbags_message(kind, encode_chunk(contract, sent)), 0)
        assert got.stamp_ns == stamp
        np.testing.assert_array_equal(got.ends_ns, sent.ends_ns)
        np.testing.assert_array_equal(got.actions, sent.actions)


def trajectory(**changes: Any) -> dict[str, Any]:
    contract = contract_of()
    sent = ActionChunk.regular(contract, 50_000_000, np.array([[0.1, 0.2], [0.3, 0.4]]))
    return {**encode_chunk(contract, sent), **changes}


def test_joints_in_another_order_are_put_in_the_contracts_order() -> None:
    got = decode_chunk(contract_of(), rosbags_message(JOINT_TRAJECTORY, trajectory(joint_names=["wrist", "elbow"])), 0)
    assert got.actions.tolist() == [[0.2, 0.1], [0.4, 0.3]]


def test_a_trajectory_without_a_stamp_begins_when_it_is_received() -> None:
    unstamped = trajectory(header={"stamp": {"sec": 0, "nanosec": 0}})
    got = decode_chunk(contract_of(), rosbags_message(JOINT_TRAJECTORY, unstamped), NOW)
    assert (got.stamp_ns, got.ends_ns.tolist()) == (NOW, [NOW + 50_000_000, NOW + 100_000_000])


@pytest.mark.parametrize("kind", [JOINT_TRAJECTORY, MULTI_ARRAY])
def test_by_the_receive_clock_a_chunk_begins_when_it_is_received(kind: str) -> None:
    contract = contract_of(kind, clock="receive")
    sent = ActionChunk.regular(contract, 50_000_000, np.zeros((2, 2)))
    got = decode_chunk(contract, rosbags_message(kind, encode_chunk(contract, sent)), NOW)
    assert (got.stamp_ns, got.ends_ns.tolist()) == (NOW, [NOW + 50_000_000, NOW + 100_000_000])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"joint_names": ["elbow"]}, "joint_names are elbow, expected elbow, wrist"),
        ({"joint_names": ["elbow", "elbow"]}, "joint_names are elbow, elbow"),
        ({"joint_names": []}, "joint_names are empty"),
        ({"points": []}, "no steps"),
    ],
)
def test_a_trajectory_that_breaks_the_contract_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ContractError, match=f"/command: .*{words}"):
        decode_chunk(contract_of(), rosbags_message(JOINT_TRAJECTORY, trajectory(**changes)), 0)


def test_numbers_that_are_missing_or_not_finite_are_named() -> None:
    short, nan = trajectory(), trajectory()
    short["points"][1]["velocities"] = [1.0]
    nan["points"][1]["velocities"] = [1.0, float("nan")]
    with pytest.raises(ContractError, match=r"points\[1\]\.velocities has 1 values, expected 2"):
        decode_chunk(contract_of(), rosbags_message(JOINT_TRAJECTORY, short), 0)
    with pytest.raises(ContractError, match="step 1, wrist is nan"):
        decode_chunk(contract_of(), rosbags_message(JOINT_TRAJECTORY, nan), 0)


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -1.0, 1e15, 1e300])
def test_an_array_with_an_impossible_time_is_refused(time: float) -> None:
    dims = [SimpleNamespace(label="step", size=1), SimpleNamespace(label="time,elbow,wrist", size=3)]
    message = SimpleNamespace(layout=SimpleNamespace(dim=dims), data=[time, 0.0, 0.0])
    with pytest.raises(ContractError, match="/command: column 'time'"):
        decode_chunk(contract_of(MULTI_ARRAY), message, 0)


def test_an_array_with_other_labels_or_sizes_is_refused() -> None:
    for labels, data, words in (
        (("step", "time,wrist,elbow"), [0.0] * 3, "layout labels"),
        (("step",), [0.0] * 3, "layout labels"),
        (("step", "time,elbow,wrist"), [0.0] * 4, "data has 4 values, expected 1 x 3"),
    ):
        dims = [SimpleNamespace(label=label, size=1) for label in labels]
        message = SimpleNamespace(layout=SimpleNamespace(dim=dims), data=data)
        with pytest.raises(ContractError, match=words):
            decode_chunk(contract_of(MULTI_ARRAY), message, 0)


def positions() -> Contract:
    text = CONTRACT.format(kind=JOINT_TRAJECTORY, rate=20, clock="header")
    for before, after in {"command: velocities": "command: positions", "hold: zero": "hold: last"}.items():
        assert before in text
        text = text.replace(before, after)
    return parse_contract(text)


def test_a_trajectory_of_positions_has_velocities_that_fit_and_ends_at_rest() -> None:
    actions = np.array([[0.0, 1.0], [0.1, 1.0], [0.2, 0.8], [0.6, 0.9]])
    points = encode_chunk(positions(), ActionChunk.regular(positions(), 0, actions))["points"]
    assert [point["positions"] for point in points] == actions.tolist()
    # 0.1 in 50 ms is 2 a second, and 0.4 is 8: the harmonic mean of both is 3.2. The other joint turns at step 2.
    np.testing.assert_allclose(
        [point["velocities"] for point in points], [[2, 0], [2, 0], [3.2, 0], [0, 0]], atol=1e-12
    )
    assert all(point["accelerations"] == [] and point["effort"] == [] for point in points)
    times = [point["time_from_start"]["sec"] * 10**9 + point["time_from_start"]["nanosec"] for point in points]
    assert times == [50_000_000, 100_000_000, 150_000_000, 200_000_000]


def test_a_trajectory_of_one_position_asks_for_rest() -> None:
    points = encode_chunk(positions(), ActionChunk.regular(positions(), 0, np.array([[0.3, -0.3]])))["points"]
    assert [point["velocities"] for point in points] == [[0.0, 0.0]]


def test_a_trajectory_of_velocities_has_nothing_else() -> None:
    points = trajectory()["points"]
    assert all(point["positions"] == point["accelerations"] == point["effort"] == [] for point in points)


def test_velocities_beside_positions_are_not_read() -> None:
    contract = positions()
    sent = ActionChunk.regular(contract, 50_000_000, np.random.default_rng(0).uniform(-2, 2, (5, 2)))
    got = decode_chunk(contract, rosbags_message(JOINT_TRAJECTORY, encode_chunk(contract, sent)), 0)
    np.testing.assert_array_equal(got.actions, sent.actions)
    np.testing.assert_array_equal(got.ends_ns, sent.ends_ns)


def test_the_spline_that_a_controller_makes_of_positions_and_velocities_stays_between_the_points() -> None:
    contract = positions()
    for seed in range(50):
        actions = np.random.default_rng(seed).uniform(-2, 2, (8, 2))
        points = encode_chunk(contract, ActionChunk.regular(contract, 0, actions))["points"]
        for before, after in pairwise(points):
            p, v = (np.array([before[group], after[group]]) for group in ("positions", "velocities"))
            for t in np.linspace(0, 1, 21):  # the cubic Hermite spline over the 50 ms between two points
                h = [2 * t**3 - 3 * t**2 + 1, t**3 - 2 * t**2 + t, 3 * t**2 - 2 * t**3, t**3 - t**2]
                at = h[0] * p[0] + h[1] * 0.05 * v[0] + h[2] * p[1] + h[3] * 0.05 * v[1]
                assert (at >= p.min(axis=0) - 1e-9).all()
                assert (at <= p.max(axis=0) + 1e-9).all()
