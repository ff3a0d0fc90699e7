"""`rql demo`: the whole path on a simulated robot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg


@dataclass(frozen=True)
class Demo:
    """The whole path on a simulated UR5e: record over ROS, convert, train, evaluate over ROS, report.

    Needs rclpy (the requirements install it). Stages that are done are skipped, and a killed demo goes on where it was.
    """

    out: Path = Path("build/demo")
    """Where everything goes."""
    start: Annotated[Literal["record", "convert", "train", "evaluate", "report"] | None, arg(name="from")] = None
    """Do this stage and those after it again."""
    fresh: bool = False
    """Start from nothing."""
    robot: Literal["ur5e", "planar_arm"] = "ur5e"
    """Which simulated robot; planar_arm is the small one of the tests."""

    def run(self) -> None:
        """Run the stages that are not done."""
        from rql_core.demo.stages import run_demo

        run_demo(self.out, self.robot, start=self.start, fresh=self.fresh)
