"""Inverse kinematics by damped least squares: from tool velocities to joint velocities, from tool positions to poses.

It owns a MjData of its own, so asking it never changes the state of a simulation that shares the model.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from rql_core.errors import SimulationError
from rql_core.sim.world import TOOL, ArmWorld

# Damping in metres (of tool motion per radian): a tenth of the arms' smallest singular value on the ring, so it bends
# the solution by one percent there and still bounds the joint speeds when a noisy arm comes near a singularity.
_DAMPING = 0.02
# Gain in 1/s that turns the tool back to the home pose's orientation: half a second to recover is gentle at 20 Hz.
_ORIENTATION_GAIN = 2.0
_SOLVE_ITERATIONS = 100
_SOLVE_TOLERANCE = 1e-5  # metres: far below the 4 cm that decide a task


class InverseKinematics:
    """Inverse kinematics of one world. Not safe to share between threads."""

    def __init__(self, world: ArmWorld, model: mujoco.MjModel | None = None) -> None:
        self._world = world
        self._model = world.compile() if model is None else model
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site(TOOL).id
        rows = 6 if world.holds_orientation else 3
        self._jacobian = np.zeros((6, self._model.nv))
        self._active = self._jacobian[:rows]
        self._damping = _DAMPING**2 * np.eye(rows)
        self._twist = np.zeros(6)
        self._home: NDArray[np.float64] = np.array(world.home)
        self._place(self._home)
        self._home_axes = self._axes().copy()

    def _place(self, position: NDArray[np.float64]) -> None:
        self._data.qpos[:] = position
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)

    def _axes(self) -> NDArray[np.float64]:
        axes: NDArray[np.float64] = self._data.site_xmat[self._site].reshape(3, 3)
        return axes

    def tool_position(self, position: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tool position `(3,)` in metres for joint positions `(joints,)`."""
        self._place(position)
        tool: NDArray[np.float64] = self._data.site_xpos[self._site].copy()
        return tool

    def joint_velocity(self, position: NDArray[np.float64], tool_velocity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joint velocities `(joints,)` that move the tool at `tool_velocity` `(3,)` m/s.

        `position` `(joints,)` are the joint positions in radians now.
        Where the world holds the orientation, they also turn the tool back towards that of the home pose.
        """
        self._place(position)
        return self._solve_velocity(tool_velocity)

    def _solve_velocity(self, tool_velocity: NDArray[np.float64]) -> NDArray[np.float64]:
        mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
        axes = self._axes()
        self._twist[:3] = tool_velocity
        # Half the sum of cross products of present and wanted axes: the rotation vector, for small angles.
        self._twist[3:] = (0.5 * _ORIENTATION_GAIN) * np.cross(axes, self._home_axes, axis=0).sum(axis=1)
        jacobian = self._active
        weights = np.linalg.solve(jacobian @ jacobian.T + self._damping, self._twist[: len(jacobian)])
        velocity: NDArray[np.float64] = jacobian.T @ weights
        return velocity

    def pose(self, tool_position: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joint positions `(joints,)` with the tool at `tool_position` `(3,)`, on the same branch as the home pose.

        Raises SimulationError when the position is out of reach.
        """
        position: NDArray[np.float64] = self._home.copy()
        error = np.inf
        for _ in range(_SOLVE_ITERATIONS):
            self._place(position)
            offset = tool_position - self._data.site_xpos[self._site]
            error = float(np.sqrt(offset @ offset))
            if error < _SOLVE_TOLERANCE:
                return position
            # Half the remaining way per iteration converges from anywhere on the ring without overshooting the elbow.
            position += self._solve_velocity(0.5 * offset)
        raise SimulationError(
            f"world {self._world.name}: no joint positions found that bring the tool to {tool_position.tolist()} "
            f"({error:.4f} m short); the point must lie within the arm's reach"
        )
