"""The ring's geometry."""

from __future__ import annotations

import numpy as np
import pytest

from rql_core.sim import Ring

RING = Ring(
    center=(1.0, 2.0, 0.5), radius=0.2, obstacle_radius=0.1, obstacle_height=0.3, start_angle=np.pi / 2, count=4
)


def test_way_points_go_counter_clockwise_from_the_start_and_the_goal_lies_opposite() -> None:
    expected = [[1.0, 2.2, 0.5], [0.8, 2.0, 0.5], [1.0, 1.8, 0.5], [1.2, 2.0, 0.5]]
    np.testing.assert_allclose(RING.waypoints(), expected, atol=1e-12)
    assert RING.goal_index == 2


def test_polar_and_point_are_inverse() -> None:
    for angle in (-3.0, -1.0, 0.0, 2.5):
        found, distance = RING.polar(RING.point(angle, 0.05))
        assert found == pytest.approx(angle)
        assert distance == pytest.approx(0.25)


def test_every_way_point_is_nearest_to_itself_and_to_what_lies_beside_it() -> None:
    for index in range(RING.count):
        for shift in (-0.7, 0.0, 0.7):  # way-points are 1.57 rad apart
            assert RING.nearest(RING.point(RING.angle(index) + shift)) == index


@pytest.mark.parametrize("count", [2, 5])
def test_a_count_without_an_opposite_way_point_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="even number"):
        Ring((0, 0, 0), 0.2, 0.1, 0.3, 0.0, count)
