"""Topics slower than the control rate: said in the contract with reaches that fit, or refused with what to write."""

from __future__ import annotations

import pytest
import yaml

from rql_core.contract import Contract, parse_contract
from rql_core.contract.rates import FEWEST_PERIODS, RateWatch, too_slow
from rql_core.errors import ContractError

TEXT = """
schema: 1
name: base
description: A tag that a detector sees, for tests.
rate: 20
clock: header
observation:
  max_wait: 6.0
  topics:
    - topic: /tag
      type: geometry_msgs/msg/PointStamped
      align: ALIGN
      features: [{name: tag, unit: m, fields: [point.x]}]
action:
  topic: /command
  type: trajectory_msgs/msg/JointTrajectory
  command: velocities
  unit: rad/s
  hold: zero
  features: [{name: elbow, lower: -2.0, upper: 2.0}]
reward:
  success: {rule: within, feature: tag, target: [0.0], tolerance: 0.1}
  at_success: 0.0
  otherwise: -1.0
episodes: {boundary: {by: bag}, min_steps: 1, at_success: continue}
"""
HOLD = "{method: hold, max_age: 0.5}"


def contract(align: str = HOLD, min_rate: float | None = None) -> Contract:
    stated = "" if min_rate is None else f"\n      min_rate: {min_rate}"
    return parse_contract(TEXT.replace("ALIGN", align + stated))


def complaint(rate_hz: float, of: Contract) -> str | None:
    return too_slow(of, of.observation.topics[0], rate_hz)


@pytest.mark.parametrize(
    ("method", "key", "least"),
    [("hold", "max_age", 0.125), ("nearest", "tolerance", 0.0625), ("linear", "tolerance", 0.125)],
)
def test_a_stated_rate_needs_an_alignment_that_reaches_from_message_to_message(
    method: str, key: str, least: float
) -> None:
    assert contract(f"{{method: {method}, {key}: {least}}}", 8).observation.topics[0].min_rate == 8
    with pytest.raises(ContractError, match=rf"/tag: min_rate 8 Hz .* 0\.125 s apart.*make {key} at least {least:.3g}"):
        contract(f"{{method: {method}, {key}: {least - 0.001}}}", 8)


@pytest.mark.parametrize("rate", [0.3, 3, 7, 8, 29.97, 30, 700])
def test_the_reach_that_the_error_advises_is_enough(rate: float) -> None:
    with pytest.raises(ContractError, match="make max_age at least") as raised:
        contract("{method: hold, max_age: 0.001}", rate)
    advised = str(raised.value).partition("make max_age at least ")[2].partition(",")[0]
    assert contract(f"{{method: hold, max_age: {advised}}}", rate).observation.topics[0].align.max_age < 1.02 / rate
    assert contract(f"{{method: hold, max_age: {1 / rate:.9f}}}", rate)


@pytest.mark.parametrize("rate", ["0", "-1", ".inf", ".nan", "10001", "often"])
def test_a_rate_that_is_none_is_refused_by_its_key(rate: str) -> None:
    with pytest.raises(ContractError, match="min_rate"):
        parse_contract(TEXT.replace("ALIGN", f"{HOLD}\n      min_rate: {rate}"))


def test_without_a_stated_rate_the_control_rate_is_demanded() -> None:
    assert complaint(20, contract()) is None
    assert complaint(13.4, contract()) is None  # the median of a topic that loses some messages
    said = complaint(13.2, contract())
    assert said is not None
    assert said.startswith("/tag has 13.2 Hz (median), expected at least the contract's rate of 20 Hz")


@pytest.mark.parametrize("align", [HOLD, "{method: nearest, tolerance: 0.3}"])
@pytest.mark.parametrize("rate_hz", [12.34, 10, 4.999, 1, 0.15])
def test_what_the_complaint_advises_is_accepted_and_ends_it(align: str, rate_hz: float) -> None:
    said = complaint(rate_hz, contract(align))
    assert said is not None
    stated, _, rest = said.partition("min_rate: ")[2].partition(" and in align ")
    data = yaml.safe_load(TEXT.replace("ALIGN", align))
    key, _, least = rest.removesuffix(" or more").partition(": ")
    topic = data["observation"]["topics"][0]
    topic["align"][key], topic["min_rate"] = float(least), float(stated)
    assert complaint(rate_hz, parse_contract(yaml.safe_dump(data))) is None


def test_a_stated_rate_is_demanded_and_no_other() -> None:
    slow = contract(HOLD, 4)
    assert complaint(4, slow) is None
    assert complaint(3.9, slow) is None  # 4 Hz with a timer that jitters
    assert "has 3.5 Hz (median), expected at least its min_rate of 4 Hz" in (complaint(3.5, slow) or "")
    fast = contract(HOLD, 40)
    assert "expected at least its min_rate of 40 Hz" in (complaint(20, fast) or "")


def test_an_interpolated_topic_is_as_fast_as_its_tolerance_says_unless_a_rate_is_stated() -> None:
    align = "{method: linear, tolerance: 0.5}"
    assert complaint(2, contract(align)) is None
    assert complaint(2, contract(align, 4)) is not None


def test_a_running_node_is_warned_of_the_latest_messages() -> None:
    watch = RateWatch(contract())
    period = 100_000_000
    for message in range(FEWEST_PERIODS):
        watch.add("/tag", message * period)
        assert watch.complaints() == []  # too few to say
    watch.add("/tag", FEWEST_PERIODS * period)
    (said,) = watch.complaints()
    assert said.startswith("/tag has 10 Hz")
    for message in range(20):
        watch.add("/tag", 10**12 + message * period // 2)
    assert watch.complaints() == []
    watch.add("/tag", 0)  # the clock was set back, which is no period
    assert watch.complaints() == []
    watch.forget()
    for message in range(FEWEST_PERIODS + 1):
        watch.add("/tag", message * period)
    assert len(watch.complaints()) == 1
