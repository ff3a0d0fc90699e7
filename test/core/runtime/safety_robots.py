"""Contracts of robots with given limits, and a check of recorded commands that shares no code with the filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from rql_core.contract import Contract, parse_contract

UNITS = {"positions": "rad", "velocities": "rad/s", "effort": "Nm", "accelerations": "rad/s^2"}


@dataclass(frozen=True)
class Robot:
    """Limits as arrays (joints,), in the units of the contract."""

    command: str
    rate: float
    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    deviation: np.ndarray
    low: np.ndarray
    high: np.ndarray
    ramp: float = 0.3
    latch: dict[str, Any] | None = None

    @property
    def joints(self) -> int:
        return len(self.lower)

    def contract(self) -> Contract:
        names = [f"joint_{index}" for index in range(self.joints)]
        data: dict[str, Any] = {
            "schema": 1,
            "name": "robot",
            "description": "Joints with limits, for tests.",
            "rate": self.rate,
            "clock": "receive",
            "observation": {
                "max_wait": 0.02,
                "topics": [
                    {
                        "topic": "/joints",
                        "type": "sensor_msgs/msg/JointState",
                        "align": {"method": "hold", "max_age": 0.1},
                        "features": [{"name": "q", "unit": "rad", "fields": [f"position.{name}" for name in names]}],
                    }
                ],
            },
            "action": {
                "topic": "/command",
                "type": "trajectory_msgs/msg/JointTrajectory",
                "command": self.command,
                "unit": UNITS[self.command],
                "hold": "last" if self.command == "positions" else "zero",
                "features": [
                    {"name": name, "lower": float(low), "upper": float(high)}
                    for name, low, high in zip(names, self.lower, self.upper, strict=True)
                ],
            },
            "reward": {
                "success": {"rule": "within", "feature": "q", "target": [0.0] * self.joints, "tolerance": 0.1},
                "at_success": 0.0,
                "otherwise": -1.0,
            },
            "episodes": {"boundary": {"by": "bag"}, "min_steps": 1, "at_success": "continue"},
            "safety": {
                "units": self._units(),
                "limits": [{"name": name, **self._limits(index)} for index, name in enumerate(names)],
                "measured": {"position": "q"} if self.command in ("positions", "velocities") else None,
                "ramp": self.ramp,
                "latch": self.latch or {"not_finite": 1000, "window": 1000.0},
            },
        }
        return parse_contract(yaml.safe_dump(data))

    def _units(self) -> dict[str, str]:
        if self.command in ("effort", "accelerations"):
            return {"rate": {"effort": "Nm/s", "accelerations": "rad/s^3"}[self.command]}
        return {"position": "rad", "velocity": "rad/s", "acceleration": "rad/s^2", "jerk": "rad/s^3"}

    def _limits(self, index: int) -> dict[str, Any]:
        if self.command in ("effort", "accelerations"):
            return {"rate": float(self.acceleration[index])}
        limits: dict[str, Any] = {"acceleration": float(self.acceleration[index]), "jerk": float(self.jerk[index])}
        if self.command == "positions":
            return limits | {"velocity": float(self.velocity[index]), "deviation": float(self.deviation[index])}
        if np.isfinite(self.low[index]):
            limits["position"] = [float(self.low[index]), float(self.high[index])]
        return limits


def robot(
    command: str,
    joints: int = 2,
    *,
    rate: float = 20.0,
    lower: float = -2.0,
    upper: float = 1.5,
    velocity: float = 1.0,
    acceleration: float = 4.0,
    jerk: float = 60.0,
    deviation: float = 0.3,
    low: float = -2.0,
    high: float = 2.0,
    **options: Any,
) -> Robot:
    """One with the same limits for all joints."""
    numbers = (lower, upper, velocity, acceleration, jerk, deviation, low, high)
    return Robot(command, rate, *(np.full(joints, number) for number in numbers), **options)


def random_robot(command: str, joints: int, random: np.random.Generator) -> Robot:
    """One whose joints have very different limits, all of which admit a stop."""
    rate = float(random.choice([10.0, 20.0, 29.97, 50.0, 125.0]))

    def between(least: float, most: float) -> np.ndarray:
        return np.exp(random.uniform(np.log(least), np.log(most), joints))

    lower, upper = -between(0.5, 6.0), between(0.5, 6.0)
    velocity = between(0.1, 1.0) if command == "positions" else np.maximum(-lower, upper)
    seconds = between(0.1, 0.5)  # to full velocity, and then to full acceleration
    acceleration = velocity / seconds
    jerk = acceleration / (seconds * between(0.1, 0.8))
    low, high = -velocity - between(1.0, 3.0), velocity + between(1.0, 3.0)
    bounded = random.random(joints) < 0.7
    low, high = np.where(bounded, low, -np.inf), np.where(bounded, high, np.inf)
    return Robot(command, rate, lower, upper, velocity, acceleration, jerk, between(0.05, 1.0), low, high)


def assert_within_limits(robot: Robot, stream: np.ndarray, start: np.ndarray | None = None) -> None:
    """Every command (steps, joints) and every difference is within the limits, to 1e-9 of each and to rounding.

    What rounding of a command by an ulp does to a difference over a period T is that of 8 ulp, divided by T as often.
    `start` (joints,): where velocity-commanded joints were before the first command, if they go where they are told.
    """
    assert np.isfinite(stream).all()
    ulp = 8.0 * np.finfo(np.float64).eps * np.maximum(-robot.lower, robot.upper)

    def check(what: str, values: np.ndarray, least: np.ndarray, most: np.ndarray, times: int) -> None:
        slack = 1e-9 * np.where(np.isfinite(most), np.maximum(-least, most), 0.0) + ulp * robot.rate**times
        beyond = np.maximum(values - most, least - values) - slack
        if (beyond > 0).any():
            step, joint = np.unravel_index(int(np.argmax(beyond)), beyond.shape)
            raise AssertionError(
                f"{what} of joint {joint} is {values[step, joint]!r} at step {step}, "
                f"limits [{least[joint]!r}, {most[joint]!r}]"
            )

    check("command", stream, robot.lower, robot.upper, 0)
    first = np.diff(stream, axis=0) * robot.rate
    second = np.diff(first, axis=0) * robot.rate
    if robot.command == "positions":
        check("velocity", first, -robot.velocity, robot.velocity, 1)
        check("acceleration", second, -robot.acceleration, robot.acceleration, 2)
        check("jerk", np.diff(second, axis=0) * robot.rate, -robot.jerk, robot.jerk, 3)
        return
    check("acceleration", first, -robot.acceleration, robot.acceleration, 1)
    if robot.command == "velocities":
        check("jerk", second, -robot.jerk, robot.jerk, 2)
        if start is not None:
            check("position", start + np.cumsum(stream, axis=0) / robot.rate, robot.low, robot.high, 0)
