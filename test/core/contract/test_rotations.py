"""Rotations as SciPy has them, whatever the sign of the quaternion."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from rql_core.contract.rotations import Quaternion, between, rotation_vector, six_numbers, slerp, unit, wrap, yaw

parts = st.floats(-1, 1)


@st.composite
def quaternions(draw: st.DrawFn) -> Quaternion:
    raw = np.array(draw(st.tuples(parts, parts, parts, parts)))
    norm = float(np.linalg.norm(raw))
    return unit((raw / norm).tolist()) if norm > 1e-3 else (0.0, 0.0, 0.0, 1.0)


def negative(quaternion: Quaternion) -> Quaternion:
    x, y, z, w = quaternion
    return -x, -y, -z, -w


@given(quaternions())
def test_six_numbers_are_the_first_two_columns_of_the_matrix(quaternion: Quaternion) -> None:
    matrix = Rotation.from_quat(quaternion).as_matrix()
    np.testing.assert_allclose(six_numbers(quaternion), [*matrix[:, 0], *matrix[:, 1]], rtol=0, atol=1e-12)
    assert six_numbers(negative(quaternion)) == six_numbers(quaternion)


@given(quaternions())
def test_a_rotation_vector_is_axis_times_angle(quaternion: Quaternion) -> None:
    vector = np.array(rotation_vector(quaternion))
    assert np.linalg.norm(vector) <= math.pi + 1e-12
    back = Rotation.from_rotvec(vector) * Rotation.from_quat(quaternion).inv()
    assert back.magnitude() < 1e-7
    if abs(quaternion[3]) > 1e-9:  # at half a turn the axis may point either way
        np.testing.assert_allclose(vector, Rotation.from_quat(quaternion).as_rotvec(), rtol=0, atol=1e-7)
        assert rotation_vector(negative(quaternion)) == rotation_vector(quaternion)


@given(quaternions())
def test_yaw_is_the_first_angle_of_z_y_x(quaternion: Quaternion) -> None:
    x, y, z, w = quaternion
    if abs(w * y - z * x) < 0.4999999:  # straight up or down there is no yaw
        expected = Rotation.from_quat(quaternion).as_euler("ZYX")[0]
        assert abs(wrap(yaw(quaternion) - expected)) < 1e-7
        assert yaw(negative(quaternion)) == yaw(quaternion)


@given(quaternions(), quaternions())
def test_between_two_rotations_lies_the_one_that_leads_from_one_to_the_other(
    first: Quaternion, second: Quaternion
) -> None:
    expected = Rotation.from_quat(first).inv() * Rotation.from_quat(second)
    assert (Rotation.from_quat(between(first, second)).inv() * expected).magnitude() < 1e-7


@given(quaternions(), quaternions(), st.floats(0, 1))
def test_slerp_goes_the_shortest_way_at_a_constant_rate(first: Quaternion, second: Quaternion, share: float) -> None:
    ends = Rotation.from_quat([first, second])
    if (ends[0].inv() * ends[1]).magnitude() > math.pi - 1e-4:  # half a turn apart: two ways are shortest
        return
    found = slerp(first, second, share)
    assert abs(math.hypot(*found) - 1) < 1e-12
    assert (Rotation.from_quat(found).inv() * Slerp([0, 1], ends)(share)).magnitude() < 1e-7
    assert (
        Rotation.from_quat(slerp(first, negative(second), share)).inv() * Rotation.from_quat(found)
    ).magnitude() < 1e-7


def test_slerp_between_a_rotation_and_itself_stays_there() -> None:
    quaternion = unit((0.5, 0.5, 0.5, 0.5))
    for other in (quaternion, negative(quaternion)):
        np.testing.assert_allclose(slerp(quaternion, other, 0.3), quaternion, rtol=0, atol=1e-15)


@pytest.mark.parametrize("quaternion", [(0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.03), (1.0, 1.0, 0.0, 0.0)])
def test_a_quaternion_that_is_none_is_refused(quaternion: Quaternion) -> None:
    with pytest.raises(ValueError, match=r"has norm .*, expected 1"):
        unit(quaternion)


def test_a_quaternion_that_was_rounded_is_made_a_unit_again() -> None:
    assert math.hypot(*unit((0.71, 0.0, 0.0, 0.71))) == pytest.approx(1, abs=1e-15)


def test_an_angle_is_wrapped_to_half_a_turn() -> None:
    assert wrap(math.pi + 0.1) == pytest.approx(-math.pi + 0.1)
    assert wrap(-3 * math.pi / 2) == pytest.approx(math.pi / 2)
    assert wrap(0.3) == pytest.approx(0.3)
