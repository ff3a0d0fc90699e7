"""The planar arm: two links, a peg for a tool, a pillar in the way. Small and fast, and it needs nothing but MuJoCo.

It is the robot of the tests and of the shortest tutorial. Its MJCF is assets/planar_arm.xml.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from rql_core.sim.arm_env import ArmEnv
from rql_core.sim.ring import Ring
from rql_core.sim.world import ArmWorld

_MJCF = Path(__file__).parent / "assets" / "planar_arm.xml"


def _build() -> mujoco.MjSpec:
    return mujoco.MjSpec.from_file(str(_MJCF))


PLANAR_ARM = ArmWorld(
    name="planar_arm",
    joint_names=("shoulder_joint", "elbow_joint"),
    # rad/s: two and a half times the root mean square of what the walk along the ring needs; it hardly saturates.
    velocity_limits=(1.0, 1.0),
    # Elbow bent, tool at the centre of the ring: inverse kinematics find every point of the ring from here.
    home=(-0.98, 1.96),
    ring=Ring(
        center=(0.40, 0.0, 0.06),
        radius=0.16,
        obstacle_radius=0.08,
        obstacle_height=0.08,
        start_angle=np.pi,
    ),
    # 10 ms: the arm has nothing faster than its 20 ms contact, and five physics steps cost less than the Python round
    # them.
    physics_steps=5,
    # The demonstrator needs 57 steps on the direct way; 1.7 times that leaves no time for a way with two wrong turns.
    max_episode_steps=95,
    tool_speed=0.17,  # half the ring in three seconds
    holds_orientation=False,
    build=_build,
)


class PlanarArm(ArmEnv):
    """Two-link arm over a table, `rql_ros/PlanarArm-v0`; see ArmEnv for actions, observations and options.

    The tool's height is constant. Only the peg's tip touches the pillar, the links pass above it.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Make the world; the arguments are those of ArmEnv but for `world`."""
        super().__init__(PLANAR_ARM, **kwargs)
