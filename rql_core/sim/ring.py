"""The way-point ring: the one place that says where the tool may walk, where a task starts and where it ends.

The environments put their start and goal on it, the demonstrator walks along it and the renderer draws it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ring:
    """A horizontal circle of evenly spaced way-points round an upright round obstacle.

    Lengths are in metres in the world frame. Way-point k lies at the angle `2 pi k / count`, counted from `start_angle`
    (radians, 0 along world x, counter-clockwise seen from above). A task starts at way-point 0 and its goal is the
    way-point opposite, so that both ways round are equally long.
    """

    center: tuple[float, float, float]
    radius: float
    obstacle_radius: float
    obstacle_height: float
    start_angle: float
    # Ten, because then the goal is five decisions away: a walker that tosses a coin at each way-point gets there within
    # 1.7 times the direct way in about 0.14 of the cases (with eight it would be 0.25), and one that persists always.
    count: int = 10

    def __post_init__(self) -> None:
        if self.count < 4 or self.count % 2:
            raise ValueError(f"Ring.count is {self.count}; expected an even number of at least 4 (goal opposite start)")

    @property
    def goal_index(self) -> int:
        """Index of the way-point opposite the start."""
        return self.count // 2

    def angle(self, index: int) -> float:
        """Angle of a way-point in radians."""
        return self.start_angle + 2.0 * np.pi * index / self.count

    def point(self, angle: float, radial_offset: float = 0.0) -> NDArray[np.float64]:
        """Position `(3,)` at an angle, `radial_offset` metres outside the circle."""
        radius = self.radius + radial_offset
        x, y, z = self.center
        return np.array([x + radius * np.cos(angle), y + radius * np.sin(angle), z])

    def waypoints(self) -> NDArray[np.float64]:
        """All way-points, `(count, 3)`."""
        return np.stack([self.point(self.angle(index)) for index in range(self.count)])

    def polar(self, position: NDArray[np.float64]) -> tuple[float, float]:
        """Angle in radians and horizontal distance in metres of a position `(3,)` from the ring's centre."""
        x, y = float(position[0]) - self.center[0], float(position[1]) - self.center[1]
        return float(np.arctan2(y, x)), float(np.hypot(x, y))

    def nearest(self, position: NDArray[np.float64]) -> int:
        """Index of the way-point whose angle is nearest to that of a position `(3,)`."""
        angle, _ = self.polar(position)
        return round((angle - self.start_angle) / (2.0 * np.pi / self.count)) % self.count
