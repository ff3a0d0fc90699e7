"""What the safety filter does to a command, when it latches, where it begins, and what it says of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from safety_robots import assert_within_limits
from safety_robots import robot as arm

from rql_core.errors import ContractError
from rql_core.runtime.fast_check import FastCheck
from rql_core.runtime.safety import Filtered, SafetyFilter, State

NAN = float("nan")
AFTER_RAMP = 10**10
ZEROS = np.zeros(2)


def drive(
    filter_: SafetyFilter, state: State, target: float | list[float], steps: int, time: int = AFTER_RAMP
) -> Filtered:
    """Hand in the same command again and again, one by one."""
    actions, wanted = [], []
    before = state
    for step in range(steps):
        result = filter_.apply(
            np.broadcast_to(np.asarray(target, dtype=float), (1, 2)), state, time + step * 50_000_000
        )
        actions.append(result.actions[0])
        wanted.append(result.wanted[0])
        state = result.state(1)
    return Filtered(np.array(actions), True, False, before, np.array(wanted), 0.05)


# What passes


@pytest.mark.parametrize("command", ["positions", "velocities", "effort", "accelerations"])
def test_what_keeps_the_limits_passes_to_the_last_bit_by_the_fast_check(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filter_ = SafetyFilter(arm(command).contract())
    state = filter_.activate(0, ZEROS)
    chunk = 0.4 / 3 * (1 - np.cos(np.arange(1, 11) / 5))[:, None] * np.array([1.0, -1.0])
    fast = filter_.apply(chunk, state, AFTER_RAMP, ZEROS)
    assert fast.actions.tobytes() == chunk.tobytes()
    assert not fast.changed
    assert filter_._fast.passes(chunk, state, None, None)
    monkeypatch.setattr(FastCheck, "passes", lambda *arguments: False)
    slow = filter_.apply(chunk, state, AFTER_RAMP, ZEROS)
    assert slow.actions.tobytes() == chunk.tobytes()
    assert not slow.changed
    assert not filter_.counts
    assert filter_.last_change is None


def test_after_a_chunk_that_did_not_keep_the_limits_the_next_is_not_tried_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filter_ = SafetyFilter(arm("velocities").contract())
    tried: list[bool] = []
    passes = FastCheck.passes

    def counted(*arguments: Any) -> bool:
        tried.append(passes(*arguments))
        return tried[-1]

    monkeypatch.setattr(FastCheck, "passes", counted)
    state = filter_.activate(0, ZEROS)
    jump, rest = np.full((4, 2), 0.3), np.zeros((4, 2))
    for chunk, found in ((jump, [False]), (jump, []), (rest, []), (rest, [True]), (rest, [True])):
        tried.clear()
        filtered = filter_.apply(chunk, state, AFTER_RAMP, ZEROS)
        assert tried == found
        assert filtered.changed == (chunk is jump)


@pytest.mark.parametrize("command", ["positions", "velocities"])
def test_what_the_filter_gave_passes_unchanged_when_it_is_wanted_again(command: str) -> None:
    filter_ = SafetyFilter(arm(command).contract())
    state = filter_.activate(0, ZEROS)
    shaped = filter_.apply(np.full((40, 2), [1.4, -1.9]), state, AFTER_RAMP)
    assert shaped.changed
    again = filter_.apply(shaped.actions, state, AFTER_RAMP)
    assert again.actions.tobytes() == shaped.actions.tobytes()


@pytest.mark.parametrize("command", ["positions", "velocities"])
def test_a_jump_is_followed_as_fast_as_the_limits_allow_and_without_swinging_past(command: str) -> None:
    robot = arm(command, low=-9, high=9)
    filter_ = SafetyFilter(robot.contract())
    actions = drive(filter_, filter_.activate(0, ZEROS), 1.2, 60).actions[:, 0]
    assert actions.max() <= 1.2 + 1e-9
    assert actions[-1] == 1.2
    # A position needs 1.2 s at 1 rad/s and 0.25 + 0.067 s to get there and stop; a velocity 0.3 s at 4 rad/s^2.
    assert int(np.argmax(actions >= 1.2 * 0.99)) <= (36 if command == "positions" else 8)


def test_a_steady_motion_is_caught_up_with_after_a_jump() -> None:
    filter_ = SafetyFilter(arm("positions").contract())
    state = filter_.activate(0, ZEROS)
    behind = []
    for step in range(40):
        wanted = 0.02 * step + (0.1 if step >= 10 else 0.0)
        state = filter_.apply(np.full((1, 2), wanted), state, AFTER_RAMP).state(1)
        behind.append(wanted - state.commands[-1, 0])
    assert max(behind) > 0.05
    np.testing.assert_allclose(behind[-10:], 0.0, atol=1e-12)


# Stops


@pytest.mark.parametrize("command", ["positions", "velocities", "effort"])
def test_the_safe_command_is_a_stop_within_the_limits_and_then_rest(command: str) -> None:
    robot = arm(command)
    filter_ = SafetyFilter(robot.contract())
    state = drive(filter_, filter_.activate(0, ZEROS), [1.4, -1.9], 12).state(12)
    stop = filter_.brake(state)
    assert stop.braking
    assert 3 <= len(stop.actions) <= 20
    end = stop.state(len(stop.actions))
    assert_within_limits(robot, np.concatenate([state.commands, stop.actions, np.tile(stop.actions[-1], (3, 1))]))
    if command != "positions":
        np.testing.assert_array_equal(stop.actions[-1], 0.0)
    np.testing.assert_array_equal(filter_.brake(end).actions, stop.actions[-1:])
    np.testing.assert_array_equal(filter_.brake(state, 2).actions, stop.actions[:2])
    longer = filter_.brake(state, len(stop.actions) + 5).actions
    np.testing.assert_allclose(longer[-5:], np.tile(stop.actions[-1], (5, 1)), atol=1e-12)


def test_a_stop_that_passes_through_zero_with_a_change_goes_on() -> None:
    """Decelerating too hard to stop in time, a joint has to turn round; zero on its way is no rest."""
    filter_ = SafetyFilter(arm("velocities").contract())
    step = 60 / 20**2
    state = State(np.array([[9 * step], [5 * step], [2 * step]]) * np.ones(2) / 10, None, ZEROS)
    stop = filter_.brake(state).actions
    whole = np.concatenate([state.commands, stop, np.zeros((3, 2))])
    assert (np.abs(np.diff(whole, n=2, axis=0)[1:]) <= step * (1 + 1e-9)).all()


# The measured state


def test_a_position_command_is_drawn_back_to_the_measured_position_within_the_limits() -> None:
    robot = arm("positions", deviation=0.1)
    filter_ = SafetyFilter(robot.contract())
    state = drive(filter_, filter_.activate(0, ZEROS), 1.0, 20).state(20)
    assert state.commands[-1, 0] > 0.5
    stream = [*state.commands]
    stuck = state.commands[-1] - 0.5
    for _ in range(60):
        result = filter_.apply(np.full((1, 2), 1.4), state, AFTER_RAMP, stuck)
        stream.append(result.actions[0])
        state = result.state(1)
    assert_within_limits(robot, np.array(stream))
    np.testing.assert_allclose(stream[-1], stuck + 0.1)
    assert filter_.counts["deviation"] > 0
    assert "deviation" in str(filter_.last_change)


def test_an_older_measurement_gives_more_room() -> None:
    filter_ = SafetyFilter(arm("positions", deviation=0.1).contract())
    state = filter_.activate(0, ZEROS)
    targets = filter_.apply(np.full((4, 2), 1.0), state, AFTER_RAMP, ZEROS, 0.2).wanted[:, 0]
    np.testing.assert_allclose(targets, [0.3, 0.35, 0.4, 0.45])  # 0.1 and 1 rad/s times the age


def test_a_joint_measured_outside_its_positions_may_only_come_back() -> None:
    robot = arm("velocities", low=-1.0, high=1.0)
    filter_ = SafetyFilter(robot.contract())
    state = filter_.activate(0, np.array([1.2, -1.2]))
    out = drive(filter_, state, [0.5, -0.5], 5)
    np.testing.assert_array_equal(out.actions, 0.0)
    back = drive(filter_, state, [-0.5, 0.5], 5)
    assert (back.actions[:, 0] < 0).all()
    assert (back.actions[:, 1] > 0).all()


def test_commands_before_a_measurement_came_count_in_what_is_predicted() -> None:
    filter_ = SafetyFilter(arm("velocities").contract())
    state = State(np.array([[0.1, 0.0], [0.2, 0.0], [0.4, 1.0]]), None, ZEROS)
    for age, expected in ((0.0, 0.0), (0.05, 0.4), (0.075, 0.5), (0.1, 0.6), (0.15, 0.7), (0.25, 0.9)):
        np.testing.assert_allclose(filter_.predicted(ZEROS, state, age)[0], expected / 20, err_msg=str(age))


# Activation


@pytest.mark.parametrize("command", ["positions", "velocities"])
def test_after_activation_commands_begin_at_rest_and_the_policys_share_grows(command: str) -> None:
    robot = arm(command, ramp=1.0)
    filter_ = SafetyFilter(robot.contract())
    start = np.array([-0.5, 0.25])
    state = filter_.activate(5 * 10**9, start)
    first = start if command == "positions" else ZEROS
    np.testing.assert_array_equal(state.commands, np.tile(first, (3, 1)))
    targets = drive(filter_, state, 1.0, 25, 5 * 10**9).wanted
    share = (targets - first) / (1.0 - first)
    assert share[0, 0] == pytest.approx(0.05**2 * 3 - 0.05**3 * 2)
    assert (np.diff(share, axis=0) >= -1e-12).all()
    assert np.abs(np.diff(share, axis=0)).max() < 0.08
    np.testing.assert_allclose(share[19:], 1.0)
    assert filter_.counts["ramp"] > 0


def test_positions_go_on_from_what_is_in_force_unless_the_joints_are_elsewhere() -> None:
    filter_ = SafetyFilter(arm("positions", deviation=0.3).contract())
    moving = drive(filter_, filter_.activate(0, ZEROS), 1.0, 10).state(10)
    near, far = moving.commands[-1] - 0.25, moving.commands[-1] - 0.35
    np.testing.assert_array_equal(filter_.activate(0, near, moving).commands, moving.commands)
    np.testing.assert_array_equal(filter_.activate(0, far, moving).commands, np.tile(far, (3, 1)))


def test_joints_that_are_outside_their_limits_or_not_measured_cannot_begin() -> None:
    filter_ = SafetyFilter(arm("positions", deviation=0.3).contract())
    np.testing.assert_array_equal(filter_.activate(0, np.array([1.6, 0.0])).commands[-1], [1.5, 0.0])
    with pytest.raises(ContractError, match=r"joint_0 is at 1\.9 rad, outside its limits \[-2, 1\.5\]"):
        filter_.activate(0, np.array([1.9, 0.0]))
    with pytest.raises(ContractError, match=r"not measured.*add safety\.measured\.position"):
        filter_.activate(0, None)
    with pytest.raises(ContractError, match="expected 2 finite numbers for joint_0, joint_1"):
        filter_.activate(0, np.array([NAN, 0.0]))
    assert SafetyFilter(arm("effort").contract()).activate(0, None).position is None


def test_before_activation_nothing_of_the_policy_passes() -> None:
    filter_ = SafetyFilter(arm("velocities").contract())
    state = State(np.zeros((3, 2)), None, ZEROS)
    np.testing.assert_array_equal(filter_.apply(np.ones((4, 2)), state, AFTER_RAMP).actions, 0.0)


# The latch


def test_not_finite_chunks_become_the_stop_and_latch_only_within_the_window() -> None:
    filter_ = SafetyFilter(arm("velocities", latch={"not_finite": 3, "window": 1.0}).contract())
    state = drive(filter_, filter_.activate(0, ZEROS), 0.9, 10).state(10)
    stop = filter_.brake(state, 4).actions
    for shape in ((4, 2), (4, 1), (8,), ()):
        result = filter_.apply(np.full(shape, NAN), state, AFTER_RAMP + 10**12 * (len(shape) + shape.count(1)))
        np.testing.assert_array_equal(result.actions[:4], stop)
        assert result.braking
    assert filter_.latched is None
    assert filter_.counts["not_finite"] == 4
    for ms in (0, 500, 900):
        assert filter_.latched is None
        filter_.apply(np.full((4, 2), NAN), state, 9 * AFTER_RAMP * 1000 + ms * 1_000_000)
    assert "3 chunks were not finite numbers within 1 s" in str(filter_.latched)
    # Only rearm opens it.
    filter_.activate(0, ZEROS)
    np.testing.assert_array_equal(filter_.apply(np.ones((4, 2)), state, 9 * AFTER_RAMP * 1000).actions, stop)
    assert filter_.counts["latched"] == 1
    state = filter_.rearm(0, ZEROS)
    assert filter_.latched is None
    assert filter_.apply(np.full((1, 2), 0.1), state, AFTER_RAMP).actions[0, 0] == 0.1


def test_repeated_violations_latch_with_the_reason_and_the_ramp_is_none() -> None:
    filter_ = SafetyFilter(arm("velocities", latch={"violations": 3, "window": 1.0}, ramp=1.0).contract())
    state = filter_.activate(0, ZEROS)
    drive(filter_, state, [9.0, 0.0], 10, 0)
    assert filter_.latched is None
    for _ in range(3):
        assert filter_.latched is None
        filter_.apply(np.array([[9.0, 0.0]]), state, AFTER_RAMP)
    assert "3 chunks broke limits" in str(filter_.latched)
    assert "joint_0: 9 rad/s was wanted" in str(filter_.latched)
    with pytest.raises(ContractError):
        filter_.rearm(0, None)
    assert filter_.latched is not None


def test_violations_never_latch_where_the_contract_does_not_say_so() -> None:
    filter_ = SafetyFilter(arm("velocities").contract())
    drive(filter_, filter_.activate(0, ZEROS), 1e300, 200)
    assert filter_.latched is None


@pytest.mark.parametrize("measured", [[NAN, 0.0], [0.0], [0.0, float("inf")]])
def test_a_measurement_that_is_no_numbers_is_a_fault(measured: list[float]) -> None:
    filter_ = SafetyFilter(arm("velocities").contract())
    result = filter_.apply(np.ones((2, 2)), filter_.activate(0, ZEROS), AFTER_RAMP, np.array(measured))
    assert result.braking
    assert filter_.counts["not_finite"] == 1


# What it says


@pytest.mark.parametrize(
    ("command", "wanted", "said"),
    [
        ("velocities", [0.0, 0.3], "joint_1: 0.3 rad/s was wanted, 0.15 rad/s left (acceleration, limit 4.0 rad/s^2)"),
        ("velocities", [-0.18, 0.0], "joint_0: -0.18 rad/s was wanted, -0.15 rad/s left (jerk, limit 60.0 rad/s^3)"),
        ("effort", [0.0, 0.3], "joint_1: 0.3 Nm was wanted, 0.2 Nm left (rate, limit 4.0 Nm/s)"),
        ("positions", [0.02, 0.0], "joint_0: 0.02 rad was wanted, 0.0075 rad left (acceleration, limit 4.0 rad/s^2)"),
    ],
)
def test_the_last_change_says_joint_value_and_limit(command: str, wanted: list[float], said: str) -> None:
    filter_ = SafetyFilter(arm(command).contract())
    filter_.apply(np.array([wanted]), filter_.activate(0, ZEROS), AFTER_RAMP)
    assert str(filter_.last_change) == said
    assert sum(filter_.counts.values()) == 1


def test_a_state_of_more_steps_than_there_are_is_refused() -> None:
    filter_ = SafetyFilter(arm("velocities").contract())
    result = filter_.apply(np.zeros((4, 2)), filter_.activate(0, ZEROS), AFTER_RAMP)
    with pytest.raises(ValueError, match="5 steps executed, expected 0 to the chunk's 4"):
        result.state(5)
