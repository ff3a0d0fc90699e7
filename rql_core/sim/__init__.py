"""MuJoCo worlds as Gymnasium environments, and a scripted demonstrator for them. No ROS, no learning.

Importing this package registers `rql_ros/PlanarArm-v0` and `rql_ros/UR5eRing-v0` with Gymnasium.
"""

from __future__ import annotations

from rql_core.sim.arm_env import ArmEnv, ArmSample
from rql_core.sim.demonstrator import RingDemonstrator
from rql_core.sim.planar_arm import PlanarArm
from rql_core.sim.registration import WORLD_NAMES, make_world, register_environments, world
from rql_core.sim.ring import Ring
from rql_core.sim.ur5e_ring import UR5eRing
from rql_core.sim.world import ArmWorld

__all__ = [
    "WORLD_NAMES",
    "ArmEnv",
    "ArmSample",
    "ArmWorld",
    "PlanarArm",
    "Ring",
    "RingDemonstrator",
    "UR5eRing",
    "make_world",
    "register_environments",
    "world",
]

register_environments()
