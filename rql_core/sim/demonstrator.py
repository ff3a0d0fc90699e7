"""The demonstrator: play data on the ring, walked by a scripted hand that does not know of any goal.

At each way-point it tosses a coin and goes on or turns back, so the data are multimodal (at one place both ways occur)
and hardly ever show a whole task, yet contain all its parts. What learns from it must put them together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rql_core.errors import SimulationError
from rql_core.sim.inverse_kinematics import InverseKinematics
from rql_core.sim.world import CONTROL_PERIOD_NS, ArmWorld

# Distance in metres at which a way-point counts as reached: two control steps before it, so that a turn happens at it.
_REACHED = 0.02
# Gain in 1/s back to the circle and to its height: strong enough against the noise, weak enough that the data show the
# way back.
_RETURN_GAIN = 3.0
# The return is never faster than this, in m/s: a tool that was pushed away comes back without saturating the joints.
_RETURN_SPEED = 0.15
# The noise forgets itself with this time constant in seconds, longer than a chunk of four steps: within a chunk it is a
# drift that one can imitate, over an episode it shows the surroundings of the circle.
_NOISE_TIME = 0.3
# Standard deviation of the noise as a share of each joint's limit: a third of what the walk itself uses. It spreads the
# tool over some 4 cm either side of the circle, so that data show how to come back, and brings it to the obstacle only
# now and then.
_NOISE = 0.15


class RingDemonstrator:
    """Walks from way-point to way-point of a world's ring.

    Its actions follow from the arguments of `act` and from its own state, which `reset(seed)` sets: where it is going,
    and its noise. `direction` +1 (counter-clockwise seen from above) or -1 makes it persist that way round; None tosses
    a coin at each way-point. `noise` is the noise's standard deviation as a share of each joint's limit. Not safe to
    share between threads.
    """

    def __init__(
        self, world: ArmWorld, *, direction: int | None = None, noise: float = _NOISE, seed: int | None = None
    ) -> None:
        """Prepare the inverse kinematics and reset. Raises SimulationError for a direction not +1, -1 or None."""
        if direction not in (None, -1, 1):
            raise SimulationError(
                f"demonstrator direction is {direction!r}; expected 1, -1 or None (coin at each way-point)"
            )
        self._world = world
        self._ring = world.ring
        self._direction = direction
        self._noise_scale = noise * np.array(world.velocity_limits)
        self._inverse_kinematics = InverseKinematics(world)
        self._limits = np.array(world.velocity_limits)
        self._memory = float(np.exp(-CONTROL_PERIOD_NS * 1e-9 / _NOISE_TIME))
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Forget the way-point and the noise; start the random numbers from `seed` (None: the system's entropy)."""
        self._random = np.random.default_rng(seed)
        self._noise = self._random.normal(0.0, 1.0, len(self._limits)) * self._noise_scale
        self._heading = 0
        self._target: int | None = None

    @property
    def target(self) -> int | None:
        """Index of the way-point it is walking to; None before the first action."""
        return self._target

    @property
    def heading(self) -> int:
        """+1 while it walks counter-clockwise, -1 clockwise, 0 before the first action."""
        return self._heading

    def act(
        self, position: NDArray[np.float64], velocity: NDArray[np.float64], tool_position: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Joint velocities `(joints,)` in rad/s, float64, within the limits.

        `position` rad and `velocity` rad/s are `(joints,)`, `tool_position` is `(3,)` in metres. The velocity does not
        matter to it; it is an argument because a demonstrator sees what a policy sees.
        """
        ring = self._ring
        angle, distance = ring.polar(tool_position)
        self._choose(angle, tool_position)
        outward = np.array([np.cos(angle), np.sin(angle), 0.0])
        along = np.array([-np.sin(angle), np.cos(angle), 0.0]) * self._heading
        back = outward * (ring.radius - distance) + np.array([0.0, 0.0, ring.center[2] - tool_position[2]])
        back *= _RETURN_GAIN
        speed = float(np.linalg.norm(back))
        if speed > _RETURN_SPEED:
            back *= _RETURN_SPEED / speed
        tool_velocity = along * self._world.tool_speed + back
        action = self._inverse_kinematics.joint_velocity(position, tool_velocity)
        fresh = self._random.normal(0.0, 1.0, len(action)) * self._noise_scale
        self._noise = self._memory * self._noise + np.sqrt(1.0 - self._memory**2) * fresh
        clipped: NDArray[np.float64] = np.clip(action + self._noise, -self._limits, self._limits)
        return clipped

    def _choose(self, angle: float, tool_position: NDArray[np.float64]) -> None:
        """Pick the next way-point when there is none yet or the present one is reached."""
        if self._target is None:
            self._heading = self._toss()
            self._target = self._ring.nearest(tool_position)
            while self._ahead(angle) <= _REACHED:  # at it, or past it already
                self._target = (self._target + self._heading) % self._ring.count
        elif self._ahead(angle) <= _REACHED:
            self._heading = self._toss()
            self._target = (self._target + self._heading) % self._ring.count

    def _ahead(self, angle: float) -> float:
        """Metres along the circle from an angle to the target, in the present heading; negative when it was passed."""
        assert self._target is not None
        gap = self._ring.angle(self._target) - angle
        gap = (gap + np.pi) % (2.0 * np.pi) - np.pi
        return float(gap * self._heading * self._ring.radius)

    def _toss(self) -> int:
        # The coin is tossed even when the direction is given, so that the noise that follows is the same either way.
        coin = 1 if self._random.random() < 0.5 else -1
        return coin if self._direction is None else self._direction
