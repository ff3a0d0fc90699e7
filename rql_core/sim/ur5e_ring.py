"""The UR5e at a post: six joints with the names of the real driver, a gripper that has to come round.

The robot's models (UR5e and Robotiq 2F-85, BSD licences beside them) are read from the installed `ogbench` wheel; this
project ships only the table, assets/ur5e_ring.xml. The gripper's fingers are held open: this task does not grasp, and
their linkage would cost more than the arm.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from rql_core.errors import SimulationError
from rql_core.sim.arm_env import ArmEnv
from rql_core.sim.ring import Ring
from rql_core.sim.world import TOOL, ArmWorld

_TABLE = Path(__file__).parent / "assets" / "ur5e_ring.xml"
_JOINTS = (
    "shoulder_pan_joint",
    "shoulder_lift_joint",
    "elbow_joint",
    "wrist_1_joint",
    "wrist_2_joint",
    "wrist_3_joint",
)
# Gains in Nm s/rad and torque limits in Nm: the big joints turn some 3 kg m2 and the wrist some 0.2, so that with these
# each has its commanded speed within one control period; the torque limits are those of the model's own actuators.
_GAINS = (400.0, 400.0, 400.0, 60.0, 60.0, 60.0)
_TORQUE_LIMITS = (150.0, 150.0, 150.0, 28.0, 28.0, 28.0)


def _models() -> Path:
    """Folder with the robots' MJCF; found without importing ogbench, which would pull in all its environments."""
    found = importlib.util.find_spec("ogbench")
    if found is None or not found.submodule_search_locations:
        raise SimulationError(
            "world ur5e_ring: the UR5e model comes with the pip package 'ogbench', which is not installed; "
            "run `pip install --no-deps ogbench`, or use the world planar_arm"
        )
    folder = Path(found.submodule_search_locations[0]) / "manipspace" / "descriptions"
    if not (folder / "universal_robots_ur5e" / "ur5e.xml").is_file():
        raise SimulationError(
            f"world ur5e_ring: {folder} has no universal_robots_ur5e/ur5e.xml; install ogbench 1.1 or later"
        )
    return folder


def _gripper(folder: Path) -> mujoco.MjSpec:
    """The 2F-85 as one rigid piece with open fingers."""
    gripper = mujoco.MjSpec.from_file(str(folder / "robotiq_2f85" / "2f85.xml"))
    movable = (gripper.equalities, gripper.actuators, gripper.tendons, gripper.excludes, gripper.joints)
    for element in [element for group in movable for element in group]:
        gripper.delete(element)
    base = gripper.body("base")
    # A box round hand and fingers (their meshes reach 3.8 x 7.4 cm from the axis) instead of a dozen meshes.
    base.add_geom(
        name=TOOL,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0, 0, 0.075],
        size=[0.038, 0.074, 0.075],
        rgba=[0, 0, 0, 0],
        mass=0,
        group=4,
    )
    gripper.site("pinch").name = TOOL
    return gripper


def _build() -> mujoco.MjSpec:
    folder = _models()
    robot = mujoco.MjSpec.from_file(str(folder / "universal_robots_ur5e" / "ur5e.xml"))
    for element in [*robot.actuators, *robot.keys, *robot.lights]:
        robot.delete(element)
    gripper = _gripper(folder)
    table = mujoco.MjSpec.from_file(str(_TABLE))
    for part in (robot, gripper):  # one simulation has one solver: what a part asks for would be reported as a conflict
        part.option.impratio, part.option.cone = table.option.impratio, table.option.cone
        part.option.integrator = table.option.integrator
    # MuJoCo wants a prefix for all that is attached (robot and gripper both name a material "black").
    robot.attach(gripper, site="attachment_site", prefix="gripper_")
    table.attach(robot, frame=table.worldbody.add_frame(), prefix="ur5e_")
    table.geom(f"ur5e_gripper_{TOOL}").name = TOOL
    table.site(f"ur5e_gripper_{TOOL}").name = TOOL

    for geom in table.geoms:
        touchable = int(geom.name == TOOL)
        geom.contype, geom.conaffinity = touchable, touchable
    for body in table.bodies[1:]:
        body.gravcomp = 1.0
    for name, gain, torque in zip(_JOINTS, _GAINS, _TORQUE_LIMITS, strict=True):
        joint = table.joint(f"ur5e_{name}")
        joint.name = name
        joint.actgravcomp = True  # the motors carry the weight, so the effort that is reported contains it
        actuator = table.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_velocity(kv=gain)
        actuator.forcelimited = True
        actuator.forcerange = [-torque, torque]
    return table


UR5E_RING = ArmWorld(
    name="ur5e_ring",
    joint_names=_JOINTS,
    # rad/s, twice the root mean square of what the walk along the ring needs, far below the robot's 3.1 rad/s. With the
    # tool pointing down the wrist's second joint only corrects, so its limit is what the correction and its noise need.
    velocity_limits=(0.6, 0.6, 0.6, 0.25, 0.1, 0.6),
    # The usual ready pose, tool pointing down in front of the robot (x forward).
    home=(-np.pi / 2, -np.pi / 2, np.pi / 2, -np.pi / 2, -np.pi / 2, 0.0),
    ring=Ring(
        center=(0.52, 0.0, 0.18),
        radius=0.15,
        # With the gripper's box this leaves 3 to 7 cm inside the circle: no short cut worth hugging the post for.
        obstacle_radius=0.045,
        obstacle_height=0.30,
        start_angle=np.pi,
    ),
    physics_steps=25,  # 2 ms, the step that the robot's and the gripper's models were tuned for
    # The demonstrator needs 53 steps on the direct way; twice that forgives a policy one late start or wrong turn, and
    # a walker that tosses coins gets there in about a quarter of the cases.
    max_episode_steps=105,
    tool_speed=0.17,  # half the ring in less than three seconds
    holds_orientation=True,
    build=_build,
)


class UR5eRing(ArmEnv):
    """UR5e and 2F-85 at a table with a post, `rql_ros/UR5eRing-v0`; see ArmEnv for actions, observations, options.

    Only the gripper touches the post. Gravity acts and is compensated by the motors.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Make the world; the arguments are those of ArmEnv but for `world`. Raises SimulationError without ogbench."""
        super().__init__(UR5E_RING, **kwargs)
