"""Whatever a policy says, what leaves is finite and inside the contract's limits, or nothing."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rql_core.contract import Contract, parse_contract
from rql_core.runtime.clipping import LATCH_AFTER, ClippingFilter

NAN = float("nan")
CONTRACT = """
schema: 1
name: two_joints
description: Two joints with different limits, for tests.
rate: 20
clock: receive
observation:
  max_wait: 0.02
  topics:
    - topic: /a
      type: std_msgs/msg/Float64
      align: {method: hold, max_age: 0.1}
      features: [{name: a, unit: m, fields: [data]}]
action:
  topic: /command
  type: trajectory_msgs/msg/JointTrajectory
  command: velocities
  unit: rad/s
  hold: HOLD
  features:
    - {name: shoulder, lower: -2.0, upper: 0.5}
    - {name: elbow, lower: -0.25, upper: 3}
reward:
  success: {rule: within, feature: a, target: [0.0], tolerance: 0.1}
  at_success: 0.0
  otherwise: -1.0
episodes: {boundary: {by: bag}, min_steps: 1, at_success: continue}
"""
LOWER, UPPER = np.array([-2.0, -0.25]), np.array([0.5, 3.0])
GOOD = np.array([[0.25, 1.0], [-1.5, -0.125]])
BAD = np.full((2, 2), NAN)


def contract(hold: str) -> Contract:
    """Positions are held by the last action, velocities by zero: nothing else is accepted."""
    text = CONTRACT.replace("HOLD", hold)
    return parse_contract(text.replace("velocities", "positions") if hold == "last" else text)


any_number = st.one_of(
    st.floats(),
    st.sampled_from([NAN, float("inf"), -float("inf"), 1e308, -1e308, 5e-324, -0.0, 0.5, -2.0, 3.0]),
)
chunks = st.one_of(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.just(2)), elements=any_number),
    hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.just(2)), elements=st.floats(-10, 10)),
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=any_number),
)
events = st.lists(st.one_of(chunks, st.just("rearm")), max_size=12)


@settings(deadline=None)
@given(hold=st.sampled_from(["zero", "last"]), happened=events, data=st.data())
def test_what_comes_out_is_finite_and_inside_the_limits_whatever_goes_in(
    hold: Literal["zero", "last"], happened: list[Any], data: st.DataObject
) -> None:
    safety = ClippingFilter(contract(hold))
    for event in happened:
        if isinstance(event, str):
            safety.rearm()
            continue
        out = safety.apply(event)
        for leaving in (out, safety.safe_command(), safety.safe_command(3)):
            if leaving is None:
                assert hold == "last"
                continue
            assert leaving.dtype == np.float64
            assert leaving.ndim == 2
            assert len(leaving) >= 1
            assert leaving.shape[1] == 2
            assert np.isfinite(leaving).all()
            assert (leaving >= LOWER).all()
            assert (leaving <= UPPER).all()
        if out is not None:
            safety.sent(out[data.draw(st.integers(0, len(out) - 1))])


@settings(deadline=None)
@given(chunk=hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.just(2)), elements=st.floats(-0.25, 0.5)))
def test_a_chunk_inside_the_limits_passes_unchanged(chunk: np.ndarray) -> None:
    safety = ClippingFilter(contract("zero"))
    out = safety.apply(chunk)
    assert out is not None
    assert out.tobytes() == chunk.tobytes()
    assert +safety.counts == {}


def test_each_number_beyond_a_limit_is_set_to_it_and_counted() -> None:
    safety = ClippingFilter(contract("zero"))
    out = safety.apply(np.array([[1e300, -1e300], [0.1, 0.2], [-2.5, 3.0]]))
    np.testing.assert_array_equal(out, [[0.5, -0.25], [0.1, 0.2], [-2.0, 3.0]])
    assert safety.counts == {"limit": 3}
    safety.apply(np.array([[0.6, 0.0]]))
    assert safety.counts == {"limit": 4}


def test_one_number_that_is_not_finite_replaces_the_whole_chunk_by_the_safe_command() -> None:
    safety = ClippingFilter(contract("zero"))
    for bad in (NAN, float("inf"), -float("inf")):
        chunk = GOOD.copy()
        chunk[1, 0] = bad
        np.testing.assert_array_equal(safety.apply(chunk), np.zeros((2, 2)))
        assert safety.apply(GOOD) is not None
    assert +safety.counts == {"not_finite": 3}
    assert safety.latched is None


@pytest.mark.parametrize("shape", [(), (0,), (2,), (0, 2), (4, 1), (4, 3), (1, 2, 2)])
def test_a_chunk_of_another_shape_is_replaced_by_the_safe_command(shape: tuple[int, ...]) -> None:
    safety = ClippingFilter(contract("zero"))
    out = safety.apply(np.full(shape, 0.25))
    assert out is not None
    assert len(out) >= 1
    np.testing.assert_array_equal(out, np.zeros_like(out))
    assert safety.counts["not_finite"] == 1


def test_it_latches_after_three_bad_chunks_in_a_row_and_only_rearm_opens_it() -> None:
    assert LATCH_AFTER == 3
    safety = ClippingFilter(contract("zero"))
    for expected in (None, None, "3 chunks in a row"):
        np.testing.assert_array_equal(safety.apply(BAD), np.zeros((2, 2)))
        assert (safety.latched is None) if expected is None else (expected in str(safety.latched))
    for _ in range(5):  # good chunks do not open it
        np.testing.assert_array_equal(safety.apply(GOOD), np.zeros((2, 2)))
        assert safety.latched is not None
    assert safety.counts["not_finite"] == 3
    safety.rearm()
    assert safety.latched is None
    np.testing.assert_array_equal(safety.apply(GOOD), GOOD)


def test_a_good_chunk_in_between_starts_the_count_anew() -> None:
    safety = ClippingFilter(contract("zero"))
    for chunk in (BAD, BAD, GOOD, BAD, BAD, GOOD):
        safety.apply(chunk)
    assert safety.latched is None
    safety.apply(BAD)
    safety.rearm()  # and so does rearm
    safety.apply(BAD)
    safety.apply(BAD)
    assert safety.latched is None
    safety.apply(BAD)
    assert safety.latched is not None


def test_clipping_never_latches() -> None:
    safety = ClippingFilter(contract("zero"), latch_after=1)
    for _ in range(10):
        safety.apply(np.full((2, 2), 1e9))
    assert safety.latched is None


def test_hold_zero_is_zeros_and_hold_last_the_last_executed_action() -> None:
    np.testing.assert_array_equal(ClippingFilter(contract("zero")).safe_command(3), np.zeros((3, 2)))
    safety = ClippingFilter(contract("last"))
    assert safety.safe_command() is None
    assert safety.apply(BAD) is None
    assert safety.apply(GOOD) is not None
    assert safety.safe_command() is None  # it has passed, but nobody said that it was executed
    safety.sent(GOOD[0])
    np.testing.assert_array_equal(safety.safe_command(3), GOOD[[0, 0, 0]])
    np.testing.assert_array_equal(safety.apply(BAD), GOOD[[0, 0]])


@pytest.mark.parametrize("action", [[NAN, 0.0], [0.0, float("inf")], [0.0], 0.0, [0.0, 0.0, 0.0]])
def test_what_cannot_have_been_executed_is_not_held(action: Any) -> None:
    safety = ClippingFilter(contract("last"))
    safety.sent(np.array([0.125, 0.25]))
    safety.sent(np.array(action))
    np.testing.assert_array_equal(safety.safe_command(), [[0.125, 0.25]])


def test_the_held_action_is_a_copy_inside_the_limits() -> None:
    safety = ClippingFilter(contract("last"))
    action = np.array([9.0, -9.0])
    safety.sent(action)
    held = safety.safe_command()
    assert held is not None
    held[:] = 7.0
    action[:] = 0.0
    np.testing.assert_array_equal(safety.safe_command(), [[0.5, -0.25]])
