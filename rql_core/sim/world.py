"""What tells one simulated arm from another, as data: the environment and the demonstrator read the same description.

A world's MJCF must name a site `tool` (the tool frame) and a geom `tool` (what touches the obstacle). The obstacle, the
way-point markers and the start and goal are added here, from the ring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import mujoco
import numpy as np
from numpy.typing import NDArray

from rql_core.errors import SimulationError
from rql_core.sim.ring import Ring

CONTROL_PERIOD_NS = (
    50_000_000  # 20 Hz: slow enough that a chunk of 4 actions spans a visible move, fast enough to steer
)
# In metres; a tool within it has reached the goal: less than half the distance of two way-points, more than the tool
# moves in two control steps, so that it can neither be passed by mistake nor be reached from a neighbour.
GOAL_TOLERANCE = 0.04
TOOL = "tool"
OBSTACLE = "obstacle"
CAMERA = "view"

_MARKER_COLOUR = (0.25, 0.45, 0.85, 1.0)
_START_COLOUR = (0.95, 0.70, 0.05, 0.5)
_GOAL_COLOUR = (0.05, 0.75, 0.20, 0.5)
_OBSTACLE_COLOUR = (0.85, 0.25, 0.20, 1.0)


@dataclass(frozen=True)
class ArmWorld:
    """One arm, its ring and its task.

    Angles are in radians, speeds in rad/s per joint and m/s for the tool. `physics_steps` is the number of physics
    steps in a control period. `max_episode_steps` is the time limit of a task in control steps.
    `holds_orientation` says whether the arm has joints enough to keep the tool's orientation of the `home` pose.
    """

    name: str
    joint_names: tuple[str, ...]
    velocity_limits: tuple[float, ...]
    home: tuple[float, ...]
    ring: Ring
    physics_steps: int
    max_episode_steps: int
    tool_speed: float
    holds_orientation: bool
    build: Callable[[], mujoco.MjSpec]

    @property
    def physics_timestep(self) -> float:
        """Seconds in a physics step."""
        return CONTROL_PERIOD_NS * 1e-9 / self.physics_steps

    def compile(self) -> mujoco.MjModel:
        """The MuJoCo model with obstacle and markers, built once per process and shared: do not change it.

        Raises SimulationError when the joints of the compiled model are not exactly `joint_names`, in that order.
        """
        return _compile(self)


@cache
def _compile(world: ArmWorld) -> mujoco.MjModel:
    spec = world.build()
    spec.option.timestep = world.physics_timestep
    _add_ring(spec, world.ring)
    model = spec.compile()
    found = tuple(model.joint(index).name for index in range(model.njnt))
    if found != world.joint_names or model.nu != len(found):
        raise SimulationError(
            f"world {world.name}: the MJCF has the joints {found} and {model.nu} actuators, expected one velocity "
            f"actuator for each of {world.joint_names}; correct the model or the world's joint_names"
        )
    return model


def _add_ring(spec: mujoco.MjSpec, ring: Ring) -> None:
    """Add the obstacle (a geom that the tool can touch) and the markers (sites, which touch nothing)."""
    x, y, _ = ring.center
    spec.worldbody.add_geom(
        name=OBSTACLE,
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        pos=[x, y, ring.obstacle_height / 2],
        size=[ring.obstacle_radius, ring.obstacle_height / 2, 0],
        rgba=_OBSTACLE_COLOUR,
        contype=1,
        conaffinity=1,
        # A polished post: without friction a tool that touches it slides along instead of sticking to it. The priority
        # makes the post decide for every contact.
        condim=1,
        priority=1,
    )
    for index, point in enumerate(ring.waypoints()):
        _add_marker(spec, f"waypoint_{index}", point, 0.008, _MARKER_COLOUR)
        # The polygon through the way-points shows the circle where the spheres alone would not.
        here, there = ring.angle(index), ring.angle(index + 1)
        next_point = ring.point(there)
        heading = (here + there) / 2 + np.pi / 2
        spec.worldbody.add_site(
            name=f"segment_{index}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=(point + next_point) / 2,
            size=[float(np.linalg.norm(next_point - point)) / 2, 0.0025, 0.0015],
            quat=[np.cos(heading / 2), 0, 0, np.sin(heading / 2)],
            rgba=_MARKER_COLOUR,
        )
    # Balls one can see through, as large as the goal's tolerance: the tool is at the goal when its tip is inside.
    _add_marker(spec, "start", ring.point(ring.angle(0)), GOAL_TOLERANCE, _START_COLOUR)
    _add_marker(spec, "goal", ring.point(ring.angle(ring.goal_index)), GOAL_TOLERANCE, _GOAL_COLOUR)


def _add_marker(
    spec: mujoco.MjSpec,
    name: str,
    point: NDArray[np.float64],
    radius: float,
    colour: tuple[float, float, float, float],
) -> None:
    spec.worldbody.add_site(name=name, type=mujoco.mjtGeom.mjGEOM_SPHERE, pos=point, size=[radius] * 3, rgba=colour)
