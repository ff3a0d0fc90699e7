"""The safety section: limits that are not what they seem are refused when the contract is loaded."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import yaml

from rql_core.contract import Contract, load_contract, parse_contract
from rql_core.contract.safety_schema import units_of
from rql_core.errors import ContractError
from rql_core.resources import config_file
from rql_core.runtime.limits import Limits
from rql_core.runtime.policy import check_contract

JOINTS = ("shoulder", "elbow")
BASE: dict[str, Any] = {
    "schema": 1,
    "name": "two_joints",
    "description": "Two joints, for tests.",
    "rate": 20,
    "clock": "receive",
    "observation": {
        "max_wait": 0.02,
        "topics": [
            {
                "topic": "/joints",
                "type": "sensor_msgs/msg/JointState",
                "align": {"method": "hold", "max_age": 0.1},
                "features": [
                    {"name": "v", "unit": "rad/s", "fields": [f"velocity.{name}" for name in JOINTS]},
                    {"name": "q", "unit": "rad", "history": 2, "fields": [f"position.{name}" for name in JOINTS]},
                ],
            }
        ],
    },
    "action": {
        "topic": "/command",
        "type": "trajectory_msgs/msg/JointTrajectory",
        "command": "positions",
        "unit": "rad",
        "hold": "last",
        "features": [{"name": name, "lower": -2, "upper": 3} for name in JOINTS],
    },
    "reward": {
        "success": {"rule": "within", "feature": "v", "target": [0.0, 0.0], "tolerance": 0.1},
        "at_success": 0.0,
        "otherwise": -1.0,
    },
    "episodes": {"boundary": {"by": "bag"}, "min_steps": 1, "at_success": "continue"},
}
LIMITS: dict[str, Any] = {"velocity": 1, "acceleration": 5, "jerk": 50, "deviation": 0.25}
UNITS = {"position": "rad", "velocity": "rad/s", "acceleration": "rad/s^2", "jerk": "rad/s^3"}


def section(**changes: Any) -> dict[str, Any]:
    """A sound section, the elbow's limits changed."""
    elbow = {key: value for key, value in {"name": "elbow", **LIMITS, **changes}.items() if value != "left out"}
    return {"units": UNITS, "measured": {"position": "q"}, "limits": [elbow, {"name": "shoulder", **LIMITS}]}


def contract(safety: dict[str, Any] | None, command: str = "positions", **changes: Any) -> Contract:
    data = copy.deepcopy(BASE) | changes
    if command != "positions":
        unit = {"velocities": "rad/s", "effort": "Nm", "accelerations": "rad/s^2"}[command]
        data["action"] |= {"command": command, "unit": unit, "hold": "zero"}
    if safety is not None:
        data["safety"] = safety
    return parse_contract(yaml.safe_dump(data))


def test_whole_numbers_are_limits_as_good_as_any_and_become_floats() -> None:
    (shoulder, elbow) = Limits(contract(section(position=[-1, 2]))).joints
    assert (shoulder.name, elbow.name) == JOINTS  # in the order of the action, not of the section
    assert (elbow.lower, elbow.upper, shoulder.lower, shoulder.upper) == (-1.0, 2.0, -2.0, 3.0)
    for value in (elbow.lower, elbow.upper, elbow.fastest, elbow.acceleration, elbow.jerk, elbow.deviation):
        assert type(value) is float
    assert elbow.fastest == pytest.approx(1 / 20)
    assert elbow.acceleration == pytest.approx(5 / 20**2)
    assert elbow.jerk == pytest.approx(50 / 20**3)


@pytest.mark.parametrize("kind", sorted(LIMITS))
@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), 0, 0.0, -1, -0.5, True, False, "1.0", "fast", [1.0], 1e10, 10**400],
    ids=lambda value: str(value)[:9],
)
def test_a_limit_that_is_no_positive_number_is_refused(kind: str, value: Any) -> None:
    with pytest.raises(ContractError, match=rf"limits\.0\.{kind}"):
        contract(section(**{kind: value}))


@pytest.mark.parametrize("key", ["ramp", "latch.window", "stale.hold_after", "stale.stop_after", "stale.recover_after"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, -1, True, "1"])
def test_a_time_that_is_no_positive_number_is_refused(key: str, value: Any) -> None:
    data = section() | {"latch": {}, "stale": {"hold_after": 0.1, "stop_after": 1}}
    *parents, last = key.split(".")
    part = data
    for parent in parents:
        part = part[parent]
    part[last] = value
    with pytest.raises(ContractError, match=key.replace(".", r"\.")):
        contract(data)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"position": [2, -1]}, "expected lowest < highest"),
        ({"position": [1, 1]}, "expected lowest < highest"),
        ({"position": [float("nan"), 1]}, "elbow.position is nan"),
        ({"position": [-1, float("inf")]}, "elbow.position is beyond"),
        ({"position": [-1]}, "at least 2"),
        ({"position": [-1, True]}, "position"),
        ({"position": [-2.5, 1]}, r"beyond the action's \[-2.0, 3.0\]"),
        ({"velocity": "left out"}, "'elbow' has no velocity, which positions need"),
        ({"jerk": "left out"}, "'elbow' has no jerk"),
        ({"deviation": "left out"}, "'elbow' has no deviation"),
        ({"rate": 2.0}, "'elbow' has rate, which means nothing for positions"),
        ({"speed": 2.0}, "unknown key 'safety.limits.0.speed'"),
        ({"name": "wrist"}, "'wrist', which is no action; they are shoulder, elbow"),
        ({"name": "shoulder"}, "'shoulder' 2 times"),
        ({"acceleration": 0.01}, "a stop from 1.0 takes .* s, expected at most 10 s"),
        ({"velocity": 2.5, "acceleration": 0.5, "position": [0, 1]}, "cannot stop within its position range"),
        ({"velocity": 1e-9, "acceleration": 1e-9, "jerk": 1e-9}, "lost in rounding"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        contract(section(**changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"units": {}}, "safety.units has no position"),
        ({"units": UNITS | {"velocity": None}}, "safety.units has no velocity, but safety.limits has"),
        ({"units": UNITS | {"velocity": "deg/s"}}, "'deg/s', but the action is in 'rad'; expected 'rad/s'"),
        ({"units": UNITS | {"jerk": "rad/s^2"}}, "expected 'rad/s.3'"),
        ({"units": UNITS | {"rate": "rad/s"}}, "have no such limit"),
        ({"limits": [{"name": "elbow", **LIMITS}]}, "no entry for action 'shoulder'"),
        ({"limits": []}, "limits"),
        ({"measured": None}, "safety.measured.position is missing"),
        ({"measured": {"position": "v"}}, "is in 'rad/s', expected 'rad'"),
        ({"measured": {"position": "w"}}, "'w', which is no feature; they are v, q"),
        ({"measured": {"position": ["q.position.elbow"]}}, "has 1 numbers, expected 2"),
        ({"measured": {"position": ["q.position.elbow"] * 2}}, "2 times"),
        ({"measured": {"position": ["q.position.elbow", "q.position.hip"]}}, "no observation"),
        ({"stale": {"hold_after": 1.0, "stop_after": 0.5}}, "expected hold before stop"),
        ({"stale": {"hold_after": 1.0}}, "stop_after' is missing"),
        ({"latch": {"not_finite": 0}}, "latch.not_finite"),
        ({"latch": {"violations": 0}}, "latch.violations"),
        ({"enabled": False}, "unknown key 'safety.enabled'"),
    ],
)
def test_a_section_that_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        contract(section() | changes)


def test_a_section_needs_units() -> None:
    with pytest.raises(ContractError, match=r"'safety\.units' is missing"):
        contract({key: value for key, value in section().items() if key != "units"})


def test_measured_numbers_are_those_of_the_present_tick_in_the_actions_order() -> None:
    safety = section() | {"measured": {"position": ["q.position.elbow", "q.position.shoulder"], "velocity": "v"}}
    limits = Limits(contract(safety))
    # v (2), q a tick ago (2), q now (2)
    assert limits.position_from is not None
    assert limits.velocity_from is not None
    assert limits.position_from.tolist() == [5, 4]
    assert limits.velocity_from.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("command", "unit", "expected"),
    [
        ("positions", "m", {"position": "m", "velocity": "m/s", "acceleration": "m/s^2", "jerk": "m/s^3"}),
        ("velocities", "rad/s", {"position": "rad", "velocity": "rad/s", "acceleration": "rad/s^2", "jerk": "rad/s^3"}),
        ("velocities", "rpm", {"position": None, "velocity": "rpm", "acceleration": "rpm/s", "jerk": "rpm/s^2"}),
        ("effort", "Nm", {"rate": "Nm/s"}),
        ("accelerations", "rad/s²", {"rate": "rad/s^3"}),
    ],
)
def test_units_follow_from_the_actions(command: str, unit: str, expected: dict[str, str | None]) -> None:
    assert units_of(command, unit) == expected


def test_velocity_limits_have_a_position_range_only_round_what_is_measured() -> None:
    limits = [{"name": name, "acceleration": 10, "jerk": 100, "position": [-4, 4]} for name in JOINTS]
    data = {"units": {key: UNITS[key] for key in ("position", "acceleration", "jerk")}, "limits": limits}
    with pytest.raises(ContractError, match=r"safety\.measured\.position; add it"):
        contract(data, "velocities")
    measured = {"measured": {"position": "q"}}
    assert contract(data | measured, "velocities").safety is not None
    limits[0]["velocity"] = 1.5
    with pytest.raises(ContractError, match=r"safety.units has no velocity"):
        contract(data | measured, "velocities")
    data["units"]["velocity"] = "rad/s"
    limits[0]["velocity"] = 3.5
    with pytest.raises(ContractError, match=r"velocity is 3.5, but the action ends at 3.0"):
        contract(data | measured, "velocities")


@pytest.mark.parametrize("command", ["positions", "velocities", "effort", "accelerations"])
@pytest.mark.parametrize("rate", [1, 20, 29.97, 1000])
def test_without_a_section_limits_follow_from_the_action_and_would_pass_as_a_section(command: str, rate: float) -> None:
    plain = contract(None, command, rate=rate)
    assert plain.safety is None
    derived = plain.safety_in_force
    again = contract(derived.model_dump(exclude_none=True), command, rate=rate)
    assert again.safety == derived
    width = np.array([5.0, 5.0])
    joints = Limits(plain).joints
    assert all(np.isfinite([joint.acceleration, joint.jerk, joint.fastest]).all() for joint in joints)
    if command == "velocities" and rate == 20:
        assert derived.limits[0].acceleration == pytest.approx(width[0] / 0.25)
        assert derived.limits[0].jerk == pytest.approx(width[0] / 0.25 / 0.1)
    if command == "positions" and rate == 20:
        assert derived.limits[0].velocity == pytest.approx(width[0] / 4)
        assert derived.measured is not None
    assert plain.stale.hold_after < plain.stale.stop_after


def test_limits_from_which_none_follow_load_and_are_refused_when_a_filter_needs_them() -> None:
    data = copy.deepcopy(BASE["action"])
    data["features"][0] |= {"lower": -1e308, "upper": 1e308}
    loaded = contract(None, action=data)
    with pytest.raises(ContractError, match=r"no safety limits follow .*; add a safety section"):
        _ = loaded.safety_in_force


def test_a_robot_may_have_other_safety_limits_than_its_policy_was_trained_with(tmp_path: Any) -> None:
    check_contract(tmp_path, contract(None), contract(section(velocity=0.1)), "robot.yaml")


@pytest.mark.parametrize("name", ["ur5e", "planar_arm"])
def test_the_shipped_contracts_have_a_section_for_their_own_units(name: str) -> None:
    shipped = load_contract(config_file("contracts", name))
    assert shipped.safety is not None
    limits = Limits(shipped)
    assert limits.position_from is not None
    where = shipped.feature_slice("joint_position")
    assert limits.position_from.tolist() == list(range(where.start, where.stop))
    assert all(np.isfinite(joint.low) for joint in limits.joints)
