"""Single commands out of chunks, at any rate: at the control rate, or at that of a faster controller."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from rql_core.contract import Contract
from rql_core.errors import ConfigError
from rql_core.runtime.schedule import ChunkSchedule

Interpolation = Literal["held", "linear"]


class CommandInterpolation:
    """Reads a schedule between its steps.

    `held`: a step's action during the whole step, which is what was recorded and trained on. `linear`: from the action
    of the step before, on a straight line, so that the step's action is reached at its end; that is what a
    JointTrajectory's points say. Where a chunk takes over amid a step, the line turns there and does not jump. Where
    nothing was in force before, there is no line to begin on, and the first step is held.

    Positions are interpolated linearly by default: a position that is held is a jump at each step. Everything else is
    held by default, because a velocity that comes up by a line is on average half a step late.
    """

    def __init__(self, contract: Contract, method: Interpolation | None = None) -> None:
        """`method` None: as suits the contract's command. Raises ConfigError for one that is not known."""
        own: Interpolation = "linear" if contract.action.command == "positions" else "held"
        self.method: Interpolation = method or own
        if self.method not in get_args(Interpolation):
            raise ConfigError(f"interpolation is {method!r}, expected one of {', '.join(get_args(Interpolation))}")

    def command_at(self, schedule: ChunkSchedule, time_ns: int) -> npt.NDArray[np.float64] | None:
        """The command (action_dim,) at a time, physical; None when nothing is in force."""
        action = schedule.action_at(time_ns)
        bounds = schedule.step_at(time_ns)
        if self.method == "held" or action is None or bounds is None:
            return action
        start, end = bounds
        value = schedule.action_at(start - 1)
        for turn in schedule.hand_overs(start - 1, time_ns):
            target = schedule.action_at(turn - 1)
            if target is None or value is None:
                value = schedule.action_at(turn)
            else:
                value = value + (target - value) * ((turn - start) / (end - start))
            start = turn
        return action if value is None else value + (action - value) * ((time_ns - start) / (end - start))
