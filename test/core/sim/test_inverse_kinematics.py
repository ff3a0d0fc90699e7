"""Inverse kinematics: what it returns moves the tool as asked, and what is out of reach is refused."""

from __future__ import annotations

import numpy as np
import pytest

from rql_core.errors import SimulationError
from rql_core.sim import WORLD_NAMES, world
from rql_core.sim.inverse_kinematics import InverseKinematics


@pytest.mark.parametrize("name", WORLD_NAMES)
def test_poses_bring_the_tool_to_every_way_point(name: str) -> None:
    kinematics = InverseKinematics(world(name))
    for point in world(name).ring.waypoints():
        np.testing.assert_allclose(kinematics.tool_position(kinematics.pose(point)), point, atol=2e-5)


@pytest.mark.parametrize("name", WORLD_NAMES)
def test_joint_velocities_move_the_tool_as_asked_all_round_the_ring(name: str) -> None:
    kinematics = InverseKinematics(world(name))
    step = 1e-4
    for index, point in enumerate(world(name).ring.waypoints()):
        position = kinematics.pose(point)
        wanted = 0.1 * np.array([np.cos(index), np.sin(index), 0.0])
        moved = kinematics.tool_position(position + step * kinematics.joint_velocity(position, wanted))
        # Damping bends the motion a little, most where the arm is folded: 5 mm/s of 100.
        np.testing.assert_allclose((moved - kinematics.tool_position(position)) / step, wanted, atol=5e-3)


def test_a_point_out_of_reach_is_refused() -> None:
    with pytest.raises(SimulationError, match="within the arm's reach"):
        InverseKinematics(world("planar_arm")).pose(np.array([2.0, 0.0, 0.06]))
