"""What a robot would have executed of the chunks that came, and whether any of it was unsafe.

The check is the tests' own: differences of the executed commands beside the contract's numbers, and nothing of the
filter that is being tried.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rql_core.contract import ActionChunk, CommandSchedule, Contract
from rql_core.contract.time import tick_at_or_after, tick_time

# Share of a limit by which rounding may exceed it.
ROUNDING = 1e-6
# Ticks before the first chunk and after the last: what begins or ends with a jump shows there.
MARGIN = 4


class Executed:
    """Chunks, each with the time at which it left the node.

    They are executed by a receiver without delay: at each tick, of the newest chunk that had left by then, the step of
    that time. With nothing in force the robot is at rest. Of velocities only, as the planar arm's are.
    """

    def __init__(self, contract: Contract) -> None:
        assert contract.action.hold == "zero"
        self._contract = contract
        self._rate = contract.rate_fraction
        self._chunks: list[tuple[ActionChunk, int]] = []

    def add(self, chunk: ActionChunk, left_ns: int) -> None:
        """A chunk, in the order in which they left."""
        self._chunks.append((chunk, left_ns))

    def clear(self) -> None:
        """Forget: the test goes on with another fault, or the clock was set back."""
        self._chunks.clear()

    @property
    def ends_ns(self) -> int:
        """When the last that is known to come is over."""
        return max((int(chunk.ends_ns[-1]) for chunk, _ in self._chunks), default=0)

    def at(self, time_ns: int) -> npt.NDArray[np.float64]:
        """The command (action_dim,) in force at a time, by all chunks."""
        schedule = CommandSchedule(self._contract.action.max_age_ns)
        for chunk, _ in self._chunks:
            schedule.add(chunk)
        action = schedule.action_at(time_ns)
        return np.zeros(self._contract.action_dim) if action is None else action

    def rested(self, from_ns: int, to_ns: int) -> bool:
        """Whether the arm was at rest at any tick of a time in which it should have moved on."""
        period = self._contract.period_ns
        return any(not self.at(time).any() for time in range(from_ns, to_ns, period))

    def commands(self, *, causal: bool = True) -> npt.NDArray[np.float64]:
        """Of each tick from before the first chunk until after the last, (ticks, action_dim).

        `causal` False: as if each chunk had been there at its stamp.
        """
        dim = self._contract.action_dim
        if not self._chunks:
            return np.zeros((2 * MARGIN, dim))
        first = tick_at_or_after(self._chunks[0][0].stamp_ns, self._rate) - MARGIN
        last = tick_at_or_after(self.ends_ns, self._rate) + MARGIN
        schedule = CommandSchedule(self._contract.action.max_age_ns)
        waiting = list(self._chunks)
        rows = []
        for tick in range(first, last + 1):
            time = tick_time(tick, self._rate)
            while waiting and (not causal or waiting[0][1] <= time):
                schedule.add(waiting.pop(0)[0])
            action = schedule.action_at(time)
            rows.append(np.zeros(dim) if action is None else action)
            schedule.forget_before(time)
        return np.stack(rows)

    @property
    def moved(self) -> bool:
        """Whether anything but rest was commanded."""
        return any((chunk.actions != 0).any() for chunk, _ in self._chunks)

    def assert_safe(self) -> None:
        """From rest to rest, finite, inside the limits of value, acceleration and jerk; no chunk is from before."""
        stamps = [chunk.stamp_ns for chunk, _ in self._chunks]
        assert stamps == sorted(stamps), (
            "a chunk is stamped before the one that left before it, and would not replace it"
        )
        for chunk, _ in self._chunks:
            assert np.isfinite(chunk.actions).all()
            assert (chunk.actions[-1] == 0).all(), f"the chunk of {chunk.stamp_ns} would leave the robot moving"
        for causal in (False, True):
            self._assert_within_limits(self.commands(causal=causal), f"{causal=}")

    def _assert_within_limits(self, commands: npt.NDArray[np.float64], how: str) -> None:
        features = self._contract.action.features
        by_name = {each.name: each for each in self._contract.safety_in_force.limits}
        period = 1.0 / self._contract.rate
        lower = np.array([feature.lower for feature in features])
        upper = np.array([feature.upper for feature in features])
        acceleration = np.array([by_name[feature.name].acceleration for feature in features], dtype=np.float64)
        jerk = np.array([by_name[feature.name].jerk for feature in features], dtype=np.float64)
        assert (commands[:MARGIN] == 0).all(), f"{how}: moves before it was told to"
        assert (commands[-MARGIN:] == 0).all(), f"{how}: is left moving"
        for name, found, low, high in (
            ("command", commands, lower, upper),
            ("acceleration", np.diff(commands, axis=0) / period, -acceleration, acceleration),
            ("jerk", np.diff(commands, n=2, axis=0) / period**2, -jerk, jerk),
        ):
            room = ROUNDING * (high - low)
            bad = (found < low - room) | (found > high + room)
            at = int(np.flatnonzero(bad.any(axis=1))[0]) if bad.any() else 0
            assert not bad.any(), (
                f"{how}: {name} is {found[at].tolist()} at step {at} of {len(commands)}, limits {low.tolist()} to "
                f"{high.tolist()}; commands around it:\n{commands[max(0, at - 4) : at + 5]}"
            )
