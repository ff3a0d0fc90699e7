"""The environment that all simulated arms share: a tool, a ring round an obstacle, and a goal on the other side of it.

A bridge drives this object directly and publishes what `sample()` returns, training code drives it through Gymnasium;
both see the same trajectory, because everything follows from the seed and the actions, bit for bit, and all state is
MuJoCo's (the actuators track velocities and remember nothing). test/core/sim/test_arm_env.py pins that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from rql_core.errors import SimulationError
from rql_core.sim.inverse_kinematics import InverseKinematics
from rql_core.sim.rendering import OffscreenRenderer
from rql_core.sim.world import CONTROL_PERIOD_NS, GOAL_TOLERANCE, OBSTACLE, TOOL, ArmWorld

# Starts of a task differ by this much along and across the ring, in metres: small beside a way-point's distance.
_TASK_SPREAD = 0.015
# Play episodes start this far off the circle at most, in metres, across and (where the arm can) up or down, so that
# data also say how to come back to it.
_PLAY_SPREAD = 0.04
# Play starts nearer to the obstacle than this, in metres, are drawn again: no episode begins in a collision.
_START_CLEARANCE = 0.005
_CLEARANCE_SEARCH = 1.0  # metres: longer than any distance on the table, so that a clearance is always found


@dataclass(frozen=True)
class ArmSample:
    """What the arm's sensors say now, in float64.

    `position` rad, `velocity` rad/s and `effort` Nm have shape `(joints,)`, ordered as `joint_names`; effort is that of
    the last physics step. In the world frame, `tool_position` `(3,)` is in metres and `tool_quaternion` `(4,)` is
    (x, y, z, w).
    """

    joint_names: tuple[str, ...]
    position: NDArray[np.float64]
    velocity: NDArray[np.float64]
    effort: NDArray[np.float64]
    tool_position: NDArray[np.float64]
    tool_quaternion: NDArray[np.float64]


class ArmEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float64]]):
    """A velocity-controlled arm that has to bring its tool round an obstacle.

    - Action: joint velocities in rad/s, `(joints,)` float64; clipped to the limits. One step is 50 ms.
    - Observation: joint positions, joint velocities, tool position, `(2 * joints + 3,)` float32, physical units.
    - Reward of a step: 0 if the tool is within 4 cm of the goal after it, else -1.
    - Terminal: at success, if `terminate_on_success`. Truncation: after `max_episode_steps` steps (None: the world's
      limit), by this object and not by a wrapper, so that whoever steps it directly sees it too.
    - `info["success"]`: whether the goal is reached now.

    Not safe to share between threads.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10**9 // CONTROL_PERIOD_NS}  # noqa: RUF012  (Gymnasium's)
    control_period_ns: ClassVar[int] = CONTROL_PERIOD_NS
    goal_tolerance: ClassVar[float] = GOAL_TOLERANCE

    def __init__(
        self,
        world: ArmWorld,
        *,
        render_mode: str | None = None,
        terminate_on_success: bool = True,
        max_episode_steps: int | None = None,
        width: int = 640,
        height: int = 480,
    ) -> None:
        """Compile the world; `width` and `height` are those of pictures, in pixels.

        Raises SimulationError for a value that makes no sense.
        """
        if render_mode not in (None, "rgb_array"):
            raise SimulationError(f"render_mode is {render_mode!r}; expected None or 'rgb_array'")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise SimulationError(f"max_episode_steps is {max_episode_steps}; expected at least 1, or None")
        self.world = world
        self.render_mode = render_mode
        self.terminate_on_success = terminate_on_success
        self.max_episode_steps = world.max_episode_steps if max_episode_steps is None else max_episode_steps
        self.goal: NDArray[np.float64] = world.ring.waypoints()[world.ring.goal_index]
        self.goal.flags.writeable = False
        self._picture_size = (width, height)
        self._renderer: OffscreenRenderer | None = None

        self._model = world.compile()
        self._data = mujoco.MjData(self._model)
        self._inverse_kinematics = InverseKinematics(world, self._model)
        self._tool_site = self._model.site(TOOL).id
        self._tool_geom = self._model.geom(TOOL).id
        self._obstacle_geom = self._model.geom(OBSTACLE).id
        self._joints = len(world.joint_names)
        self._high = np.array(world.velocity_limits)
        self._low = -self._high
        self._steps: int | None = None  # None until the first reset

        self.action_space = gymnasium.spaces.Box(self._low, self._high, dtype=np.float64)
        size = 2 * self._joints + 3
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), dtype=np.float32)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the joints, in the order of actions and observations."""
        return self.world.joint_names

    @property
    def success(self) -> bool:
        """Whether the tool is within 4 cm of the goal now."""
        offset = self._data.site_xpos[self._tool_site] - self.goal
        return float(offset @ offset) <= GOAL_TOLERANCE**2

    @property
    def clearance(self) -> float:
        """Distance in metres between the surfaces of tool and obstacle; negative when they overlap."""
        return float(
            mujoco.mj_geomDistance(
                self._model, self._data, self._tool_geom, self._obstacle_geom, _CLEARANCE_SEARCH, None
            )
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Put the arm at rest on the ring.

        `options={"start": "task"}` (the default) puts it near the start, `{"start": "anywhere"}` is for play data.
        Raises SimulationError for another option.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        start = options.pop("start", "task")
        if options or start not in ("task", "anywhere"):
            raise SimulationError(
                f"reset options are {options | {'start': start}}; expected only 'start', with 'task' or 'anywhere'"
            )
        self._place(self._task_start() if start == "task" else self._play_start())
        while start == "anywhere" and self.clearance < _START_CLEARANCE:
            self._place(self._play_start())
        self._steps = 0
        return self._observe(), {"success": self.success}

    def _task_start(self) -> NDArray[np.float64]:
        ring, spread = self.world.ring, _TASK_SPREAD
        angle = ring.start_angle + self.np_random.uniform(-spread, spread) / ring.radius
        return ring.point(angle, self.np_random.uniform(-spread, spread))

    def _play_start(self) -> NDArray[np.float64]:
        spread = _PLAY_SPREAD
        angle = self.np_random.uniform(-np.pi, np.pi)
        tool_position = self.world.ring.point(angle, self.np_random.uniform(-spread, spread))
        if self.world.holds_orientation:  # the planar arm's tool has one height
            tool_position[2] += self.np_random.uniform(-spread, spread)
        return tool_position

    def _place(self, tool_position: NDArray[np.float64]) -> None:
        """Put the arm at rest with its tool at a position `(3,)` in metres."""
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = self._inverse_kinematics.pose(tool_position)
        mujoco.mj_forward(self._model, self._data)

    def step(self, action: NDArray[np.float64]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Hold joint velocities `(joints,)` in rad/s for one control period.

        Raises SimulationError before the first reset, for an action of a wrong shape or with a number that is not
        finite, and when the physics became unstable.
        """
        if self._steps is None:
            raise SimulationError(f"world {self.world.name}: step before the first reset; call reset first")
        data = self._data
        data.ctrl[:] = self._admissible(action)
        half_way = data.time + 0.5e-9 * CONTROL_PERIOD_NS
        mujoco.mj_step(self._model, data, nstep=self.world.physics_steps)
        if data.time < half_way:  # MuJoCo answers an instability by starting over, clock and all, and goes on
            raise SimulationError(
                f"world {self.world.name}: the physics became unstable after {self._steps} steps and was restarted; "
                "end the episode and reset"
            )
        # The integrator leaves the tool one physics step behind the joints; nothing else is touched by this.
        mujoco.mj_kinematics(self._model, data)
        self._steps += 1
        success = self.success
        terminated = success and self.terminate_on_success
        truncated = not terminated and self._steps >= self.max_episode_steps
        return self._observe(), 0.0 if success else -1.0, terminated, truncated, {"success": success}

    def sample(self) -> ArmSample:
        """What the arm's sensors say now."""
        data = self._data
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, data.site_xmat[self._tool_site])
        return ArmSample(
            joint_names=self.world.joint_names,
            position=data.qpos.copy(),
            velocity=data.qvel.copy(),
            effort=data.qfrc_actuator.copy(),
            tool_position=data.site_xpos[self._tool_site].copy(),
            tool_quaternion=quaternion[[1, 2, 3, 0]],
        )

    def render(self) -> NDArray[np.uint8] | None:
        """Picture `(height, width, 3)` uint8 of the present state, or None without `render_mode="rgb_array"`.

        Raises SimulationError when there is no OpenGL.
        """
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = OffscreenRenderer(self._model, *self._picture_size)
        return self._renderer.draw(self._data)

    def close(self) -> None:
        """Free the renderer; may be called twice."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _observe(self) -> NDArray[np.float32]:
        joints = self._joints
        observation = np.empty(2 * joints + 3, dtype=np.float32)
        observation[:joints] = self._data.qpos
        observation[joints : 2 * joints] = self._data.qvel
        observation[2 * joints :] = self._data.site_xpos[self._tool_site]
        return observation

    def _admissible(self, action: NDArray[np.float64]) -> NDArray[np.float64]:
        """The action as float64, clipped to the limits."""
        command = np.asarray(action, dtype=np.float64)
        if command.shape != (self._joints,):
            raise SimulationError(
                f"world {self.world.name}: the action has shape {command.shape}, expected ({self._joints},): one "
                f"velocity in rad/s for each of {', '.join(self.joint_names)}"
            )
        if not np.isfinite(command).all():
            raise SimulationError(
                f"world {self.world.name}: the action {command.tolist()} is not finite; expected joint velocities in "
                "rad/s; check what computed it"
            )
        clipped: NDArray[np.float64] = np.minimum(np.maximum(command, self._low), self._high)
        return clipped
