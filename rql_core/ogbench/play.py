"""One episode of OGBench's play data: an oracle goes from one random sub-task to the next, with noise in its plans.

The procedure and its numbers are those by which OGBench's own data were made (its data_gen_scripts, "play"): the plan
oracles with their own noise, a new random target whenever one is done, and no end but the number of steps. What differs
is the randomness: there the seed was never used, here an episode follows from its seed and its place, and from nothing
that the process did before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.errors import SimulationError
from rql_core.ogbench.environments import make_environment
from rql_core.ogbench.randomness import EpisodeSeeds, global_random

Array = npt.NDArray[Any]

# How likely an episode's cubes are to be stacked: drawn for each episode from this range (OGBench's numbers). Scene and
# puzzles have one number.
_STACKING = {
    "cube-single": (0.0, 0.0),
    "cube-double": (0.0, 0.25),
    "cube-triple": (0.05, 0.35),
    "cube-quadruple": (0.1, 0.5),
}
_STACKING_OTHERWISE = (0.5, 0.5)

# The types of OGBench's files.
_TYPES: Mapping[str, type[np.generic]] = {
    "observations": np.float32,
    "actions": np.float32,
    "terminals": np.bool_,
    "qpos": np.float32,
    "qvel": np.float32,
    "button_states": np.int64,
}

# In scene the cube starts at qpos[14] (eight numbers less than its pose ends); seen from the camera it is hidden beyond
# these places in metres, unless it lies in the drawer, whose floor and edge are the two heights (OGBench's check).
_CUBE = slice(14, 17)
_TOO_FAR_RIGHT = 0.29
_TOO_FAR_LEFT = -0.3
_IN_DRAWER = (0.06, 0.08)
# It happens now and then that an episode has to be played again; so often in a row, the physics are broken.
_ATTEMPTS = 100


class OraclePlayer:
    """Plays episodes in one environment, in any order."""

    def __init__(self, family: str, steps: int) -> None:
        """`family`: cube-double, scene, puzzle-3x3 and so on; `steps`: of an episode. Raises SimulationError."""
        self._family = family
        self._steps = steps
        made = make_environment(f"{family}-v0", mode="data_collection", terminate_at_goal=False)
        self._environment: Any = made.unwrapped
        self._oracles = _oracles(family, self._environment)
        with global_random(0):
            # The first reset of an environment compiles its model, and the others do not: no episode is the first.
            self._environment.reset(seed=0)

    def play(self, seed: int, split: int, index: int) -> dict[str, Array]:
        """The arrays of an episode, each of `steps` + 1 rows, as in OGBench's files.

        Raises SimulationError where a cube cannot be kept in view.
        """
        for attempt in range(_ATTEMPTS):
            columns = self._attempt(EpisodeSeeds.of(seed, split, index, attempt))
            if self._family != "scene" or _cube_in_view(columns["qpos"]):
                return {name: array.astype(_TYPES[name]) for name, array in columns.items()}
        raise SimulationError(
            f"{self._family}: episode {index} lost its cube out of view {_ATTEMPTS} times in a row; expected it to "
            "happen now and then; check the versions of mujoco and ogbench"
        )

    def _attempt(self, seeds: EpisodeSeeds) -> dict[str, Array]:
        stacking = float(np.random.default_rng(seeds.own).uniform(*_STACKING.get(self._family, _STACKING_OTHERWISE)))
        with global_random(seeds.oracle):
            return self._walk(seeds.world, stacking)

    def _walk(self, world_seed: int, stacking: float) -> dict[str, Array]:
        environment = self._environment
        rows: dict[str, list[Any]] = {name: [] for name in ("observations", "actions", "qpos", "qvel")}
        if self._family.startswith(("scene", "puzzle")):
            rows["button_states"] = []
        observation, info = environment.reset(seed=world_seed)
        oracle = self._oracles[info["privileged/target_task"]]
        oracle.reset(observation, info)
        for _ in range(self._steps + 1):  # the last row's action leads to what is not kept
            action = np.clip(oracle.select_action(observation, info), -1.0, 1.0)
            following, _, _, _, info = environment.step(action)
            if oracle.done:
                target_observation, target_info = environment.set_new_target(p_stack=stacking)
                oracle = self._oracles[target_info["privileged/target_task"]]
                oracle.reset(target_observation, target_info)
            rows["observations"].append(observation)
            rows["actions"].append(action)
            for name in list(rows)[2:]:
                rows[name].append(info[f"prev_{name}"])
            observation = following
        columns = {name: np.stack(values) for name, values in rows.items()}
        terminals = np.zeros(self._steps + 1, dtype=np.bool_)
        terminals[-1] = True
        return {
            "observations": columns.pop("observations"),
            "actions": columns.pop("actions"),
            "terminals": terminals,
            **columns,
        }


def _oracles(family: str, environment: Any) -> dict[str, Any]:
    """The plan oracle for each kind of sub-task."""
    from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
    from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
    from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
    from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

    if family.startswith("puzzle"):
        return {"button": ButtonPlanOracle(env=environment, gripper_always_closed=True)}
    oracles = {"cube": CubePlanOracle(env=environment)}
    if family == "scene":
        oracles["button"] = ButtonPlanOracle(env=environment)
        oracles["drawer"] = DrawerPlanOracle(env=environment)
        oracles["window"] = WindowPlanOracle(env=environment)
    return oracles


def _cube_in_view(qpos: Array) -> bool:
    """Whether the cube of scene can be seen all the time, or lies in the drawer; qpos is (rows, numbers)."""
    _, y, z = qpos[:, _CUBE].T
    in_drawer = (z >= _IN_DRAWER[0]) & (z <= _IN_DRAWER[1])
    return not ((y >= _TOO_FAR_RIGHT) | ((y <= _TOO_FAR_LEFT) & ~in_drawer)).any()
