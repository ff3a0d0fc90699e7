"""Rewards and masks come out as the contract's rule says, and a rule that cannot say anything is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rql_core.contract import Contract, RewardRule, parse_contract
from rql_core.contract.reward_signals import RewardSignals
from rql_core.errors import ContractError

TEXT = """
schema: 1
name: arm
description: One joint, for tests.
rate: 20
clock: header
observation:
  max_wait: 0.02
  topics:
    - topic: /joint_states
      type: sensor_msgs/msg/JointState
      align: {method: hold, max_age: 0.1}
      features:
        - {name: q, unit: rad, fields: [position.elbow, velocity.elbow]}
action:
  topic: /command
  type: trajectory_msgs/msg/JointTrajectory
  command: velocities
  unit: rad/s
  hold: zero
  features:
    - {name: elbow, lower: -2.0, upper: 2.0}
reward:
  REWARD
episodes:
  boundary: {by: bag}
  min_steps: 2
  at_success: continue
"""
WITHIN = """success: {rule: within, feature: q, target: [0.0, 0.0], tolerance: 0.1}
  at_success: 0.0
  otherwise: -1.0"""
SUM = (
    "{rule: topic, topic: /reward, type: std_msgs/msg/Float64, field: data, clock: receive, "
    "in_step: sum, missing: zero}"
)
SUCCESS = (
    "{rule: topic, topic: /success, type: std_msgs/msg/Bool, field: data, clock: receive, "
    "in_step: any, missing: unsolved}"
)


def contract_with(reward: str) -> Contract:
    return parse_contract(TEXT.replace("REWARD", reward))


def number(value: Any, stamp_ns: int | None = None) -> SimpleNamespace:
    message = SimpleNamespace(data=value)
    if stamp_ns is not None:
        message.header = SimpleNamespace(stamp=SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9))
    return message


OBSERVATIONS = np.array([[9, 9], [0.05, 0.05], [0.3, 0.0], [0.0, 0.09]], dtype=np.float32)


def test_the_same_rule_as_feature_and_as_expression_labels_alike() -> None:
    near = "hypot(q.position.elbow, q.velocity.elbow)"
    rules = [
        WITHIN,
        f"success: {{rule: expression, expression: '{near} <= 0.1'}}\n  at_success: 0.0\n  otherwise: -1.0",
        f"success: {{rule: expression, expression: '{near} <= 0.1'}}\n"
        f"  value: {{rule: expression, expression: '-1 + ({near} <= 0.1)'}}",
    ]
    for rule in rules:
        rewards, masks = RewardRule(contract_with(rule)).label(OBSERVATIONS)
        assert rewards.dtype == masks.dtype == np.float32
        assert rewards.tolist() == [0.0, -1.0, 0.0]
        assert masks.tolist() == [0.0, 1.0, 0.0]


def test_a_reward_without_success_has_masks_of_one() -> None:
    rule = RewardRule(contract_with("success: {rule: never}\n  value: {rule: expression, expression: '-abs(q[0])'}"))
    rewards, masks = rule.label(OBSERVATIONS)
    np.testing.assert_array_equal(rewards, -OBSERVATIONS[1:, 0])
    assert masks.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("sqrt(0.2 - q[0])", r"^step 1: expression .* is nan \(where q\.position\.elbow = 0\.3\)"),
        ("1 / q[0]", r"^step 2: expression .* is inf"),
        ("exp(700 * (q[0] > 0.2))", r"^step 1: reward is 1\.01423e\+304, expected a number that fits a float32"),
    ],
)
def test_a_reward_that_is_not_finite_is_an_error_with_its_step(expression: str, words: str) -> None:
    rule = RewardRule(
        contract_with(f"success: {{rule: never}}\n  value: {{rule: expression, expression: '{expression}'}}")
    )
    with pytest.raises(ContractError, match=words):
        rule.label(OBSERVATIONS)


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ("success: {rule: never}", "'at_success' is missing; give at_success and otherwise, or value"),
        ("success: {rule: never}\n  otherwise: 1.0", "'at_success' is missing"),
        ("success: {rule: never}\n  otherwise: 1.0\n  value: {rule: expression, expression: '1'}", "has both"),
        ("success: {rule: expression, expression: 'q[0]'}\n  at_success: 0\n  otherwise: 1", "expected a comparison"),
        ("success: {rule: expression, expression: p > 1}\n  at_success: 0\n  otherwise: 1", "there is no 'p'"),
        ("success: {rule: never}\n  value: {rule: expression, expression: 'open(1)'}", "is no function here"),
        (f"success: {{rule: never}}\n  value: {SUM.replace('sum', 'last')}", "only a sum of nothing is 0"),
        (f"success: {{rule: never}}\n  value: {SUM.replace('receive', 'header')}", "has no header"),
        (f"success: {{rule: never}}\n  value: {SUM.replace('in_step: sum, ', '')}", "in_step' is missing"),
        (f"success: {{rule: never}}\n  value: {SUM.replace(', missing: zero', '')}", "missing' is missing"),
        (f"success: {SUCCESS.replace('/success', '/reward')}\n  value: {SUM}", "topic /reward has two types"),
        ("success: {rule: guess}\n  at_success: 0\n  otherwise: 1", "guess"),
        ("success: {rule: within, feature: q, target: [0, 0], tolerance: 0}", "tolerance"),
    ],
)
def test_a_reward_that_says_nothing_definite_is_refused(reward: str, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        contract_with(reward)


def test_messages_belong_to_the_step_that_ends_at_or_after_them() -> None:
    contract = contract_with(f"success: {SUCCESS}\n  value: {SUM}")
    signals = RewardSignals(contract)
    assert signals.types == {"/success": "std_msgs/msg/Bool", "/reward": "std_msgs/msg/Float64"}
    # Ticks at 10, 20, 30, 40: a message at 10 is before the first step, one at 20 ends it, one at 41 is past the last.
    for stamp, value in [(10, 100.0), (15, 1.0), (41, 100.0), (20, 2.0), (40, 7.0), (31, 5.0)]:
        signals.push("/reward", number(value), stamp)
    for stamp, value in [(12, True), (13, False), (33, False)]:
        signals.push("/success", number(value), stamp)
    steps = signals.steps([10, 20, 30, 40])
    assert steps.rewards is not None
    assert steps.solved is not None
    assert steps.rewards.tolist() == [3.0, 0.0, 12.0]
    assert steps.solved.tolist() == [True, False, False]
    rewards, masks = RewardRule(contract).label(OBSERVATIONS, steps)
    assert rewards.tolist() == [3.0, 0.0, 12.0]
    assert masks.tolist() == [0.0, 1.0, 1.0]


def test_the_last_message_in_a_step_decides_where_the_contract_says_last() -> None:
    reward = SUM.replace("sum", "last").replace("zero", "cut")
    signals = RewardSignals(contract_with(f"success: {SUCCESS.replace('any', 'last')}\n  value: {reward}"))
    for stamp, value in [(11, 1.0), (19, 3.0), (14, 2.0), (25, 4.0)]:
        signals.push("/reward", number(value), stamp)
    for stamp, value in [(12, True), (13, False), (25, False), (26, True)]:
        signals.push("/success", number(value), stamp)
    steps = signals.steps([10, 20, 30])
    assert steps.rewards is not None
    assert steps.solved is not None
    assert steps.rewards.tolist() == [3.0, 4.0]
    assert steps.solved.tolist() == [False, True]
    assert signals.missing(10, 20) == []
    assert signals.missing(30, 40) == ["/reward"]


def test_a_threshold_makes_a_number_a_success() -> None:
    rule = SUCCESS.replace("Bool", "Float64").replace("in_step", "at_least: 0.5, in_step")
    signals = RewardSignals(contract_with(f"success: {rule}\n  at_success: 1\n  otherwise: 0"))
    for stamp, value in [(15, 0.4999), (25, 0.5)]:
        signals.push("/success", number(value), stamp)
    solved = signals.steps([10, 20, 30]).solved
    assert solved is not None
    assert solved.tolist() == [False, True]


def test_a_header_clock_reads_the_header() -> None:
    reward = SUM.replace("std_msgs/msg/Float64", "my_msgs/msg/Reward").replace("receive", "header")
    signals = RewardSignals(contract_with(f"success: {{rule: never}}\n  value: {reward}"))
    signals.push("/reward", number(4.0, stamp_ns=15), 999)
    rewards = signals.steps([10, 20]).rewards
    assert rewards is not None
    assert rewards.tolist() == [4.0]
    with pytest.raises(ContractError, match=r"/reward: header\.stamp is 0 ns"):
        signals.push("/reward", number(4.0, stamp_ns=0), 999)
    with pytest.raises(ContractError, match="has no header"):
        signals.push("/reward", number(4.0), 999)


@pytest.mark.parametrize(
    ("topic", "message", "words"),
    [
        ("/reward", number(float("nan")), "/reward: field 'data' is nan, expected a finite number"),
        ("/reward", number(float("inf")), "is inf"),
        ("/reward", number("high"), "is 'high', expected a number"),
        ("/reward", SimpleNamespace(value=1.0), "field 'data' cannot be read from std_msgs/msg/Float64"),
        ("/success", number(1.0), "field 'data' is 1.0, expected true or false; for a number say 'at_least'"),
    ],
)
def test_a_message_that_says_no_number_is_refused(topic: str, message: Any, words: str) -> None:
    signals = RewardSignals(contract_with(f"success: {SUCCESS}\n  value: {SUM}"))
    with pytest.raises(ContractError, match=words):
        signals.push(topic, message, 15)


def test_a_clock_that_was_set_back_cannot_tell_steps_apart() -> None:
    signals = RewardSignals(contract_with(f"success: {{rule: never}}\n  value: {SUM}"))
    signals.push("/reward", number(1.0), 5 * 10**9)
    signals.push("/reward", number(1.0), 5 * 10**9 - 1000)
    with pytest.raises(ContractError, match=r"/reward: its clock goes back by 2\.500 s"):
        signals.push("/reward", number(1.0), 2_500_000_000)


def test_without_its_topics_a_rule_says_so() -> None:
    rule = RewardRule(contract_with(f"success: {SUCCESS}\n  at_success: 0\n  otherwise: -1"))
    with pytest.raises(ContractError, match="success comes from topic /success, which is not at hand"):
        rule.label(OBSERVATIONS)


@pytest.mark.parametrize(
    ("success", "feature"),
    [("{rule: within, feature: q, target: [0, 0], tolerance: 1}", "q"), ("{rule: never}", "q")],
)
def test_the_feature_that_the_reward_is_about_is_always_one_of_the_contract(success: str, feature: str) -> None:
    assert contract_with(f"success: {success}\n  at_success: 0\n  otherwise: -1").reward_feature == feature
