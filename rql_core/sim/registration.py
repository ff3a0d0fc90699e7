"""The worlds by name: `make_world` for configuration files and command lines, `rql_ros/PlanarArm-v0` for Gymnasium."""

from __future__ import annotations

from typing import Any

import gymnasium

from rql_core.errors import SimulationError
from rql_core.sim.arm_env import ArmEnv
from rql_core.sim.planar_arm import PLANAR_ARM, PlanarArm
from rql_core.sim.ur5e_ring import UR5E_RING, UR5eRing
from rql_core.sim.world import ArmWorld

_ENVIRONMENTS: dict[str, type[PlanarArm] | type[UR5eRing]] = {"planar_arm": PlanarArm, "ur5e_ring": UR5eRing}
_WORLDS: dict[str, ArmWorld] = {"planar_arm": PLANAR_ARM, "ur5e_ring": UR5E_RING}
WORLD_NAMES = tuple(_WORLDS)
ENVIRONMENT_IDS = {"planar_arm": "rql_ros/PlanarArm-v0", "ur5e_ring": "rql_ros/UR5eRing-v0"}


def world(name: str) -> ArmWorld:
    """Description of a world, without simulating it. Raises SimulationError for an unknown name."""
    if name not in _WORLDS:
        raise SimulationError(f"world is {name!r}; expected one of {', '.join(WORLD_NAMES)}")
    return _WORLDS[name]


def make_world(name: str, **kwargs: Any) -> ArmEnv:
    """Environment of a world by name, `planar_arm` or `ur5e_ring`, without Gymnasium's wrappers.

    The keyword arguments are those of ArmEnv but for `world`. Raises SimulationError for an unknown name, or when what
    the world needs is not installed.
    """
    return _ENVIRONMENTS[world(name).name](**kwargs)


def register_environments() -> None:
    """Make the worlds known to `gymnasium.make`; calling it again changes nothing.

    No time limit is registered: the environments keep their own.
    """
    for name, environment_id in ENVIRONMENT_IDS.items():
        if environment_id not in gymnasium.registry:
            entry = _ENVIRONMENTS[name]
            gymnasium.register(id=environment_id, entry_point=f"{entry.__module__}:{entry.__name__}")
