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
    that time. With nothing in force the robot is at rest: velocities are zero, positions stay. `start`: the positions
    before anything was commanded.
    """

    def __init__(self, contract: Contract, start: tuple[float, ...]) -> None:
        self._contract = contract
        self._positions = contract.action.hold == "last"
        self._start = np.array(start) if self._positions else np.zeros(contract.action_dim)
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
        rest = self._start
        for chunk, _ in self._chunks:
            schedule.add(chunk)
            if self._positions and chunk.ends_ns[-1] <= time_ns:
                rest = chunk.actions[-1]
        action = schedule.action_at(time_ns)
        return rest if action is None else action

    def moving(self, time_ns: int) -> bool:
        """Whether a command that is not rest is in force at a time."""
        before = self.at(time_ns - self._contract.period_ns) if self._positions else 0.0
        return bool((self.at(time_ns) != before).any())

    def rested(self, from_ns: int, to_ns: int) -> bool:
        """Whether the arm was at rest at any tick of a time in which it should have moved on."""
        period = self._contract.period_ns
        return any(not self.moving(time) for time in range(from_ns, to_ns, period))

    def commands(self, *, causal: bool = True) -> npt.NDArray[np.float64]:
        """Of each tick from before the first chunk until after the last, (ticks, action_dim).

        `causal` False: as if each chunk had been there at its stamp.
        """
        if not self._chunks:
            return np.tile(self._start, (2 * MARGIN, 1))
        first = tick_at_or_after(self._chunks[0][0].stamp_ns, self._rate) - MARGIN
        last = tick_at_or_after(self.ends_ns, self._rate) + MARGIN
        schedule = CommandSchedule(self._contract.action.max_age_ns)
        waiting = list(self._chunks)
        rows: list[npt.NDArray[np.float64]] = []
        for tick in range(first, last + 1):
            time = tick_time(tick, self._rate)
            while waiting and (not causal or waiting[0][1] <= time):
                schedule.add(waiting.pop(0)[0])
            action = schedule.action_at(time)
            rest = rows[-1] if rows and self._positions else self._start
            rows.append(rest if action is None else action)
            schedule.forget_before(time)
        return np.stack(rows)

    @property
    def moved(self) -> bool:
        """Whether anything but rest was commanded."""
        rest = self._start if self._positions else 0.0
        return any((chunk.actions != rest).any() for chunk, _ in self._chunks)

    def assert_safe(self) -> None:
        """From rest to rest, finite, inside the limits of value and differences; no chunk is from before."""
        stamps = [chunk.stamp_ns for chunk, _ in self._chunks]
        assert stamps == sorted(stamps), (
            "a chunk is stamped before the one that left before it, and would not replace it"
        )
        for chunk, _ in self._chunks:
            assert np.isfinite(chunk.actions).all()
            rest = chunk.actions[-2] if self._positions else 0.0
            assert (chunk.actions[-1] == rest).all(), f"the chunk of {chunk.stamp_ns} would leave the robot moving"
        for causal in (False, True):
            self._assert_within_limits(self.commands(causal=causal), f"{causal=}")

    def _assert_within_limits(self, commands: npt.NDArray[np.float64], how: str) -> None:
        features = self._contract.action.features
        by_name = {each.name: each for each in self._contract.safety_in_force.limits}
        period = 1.0 / self._contract.rate
        lower = np.array([feature.lower for feature in features])
        upper = np.array([feature.upper for feature in features])
        assert (commands[:MARGIN] == self._start).all(), f"{how}: moves before it was told to"
        rest = commands[-1] if self._positions else 0.0
        assert (commands[-MARGIN:] == rest).all(), f"{how}: is left moving"
        # Where positions begin is known to float32.
        unknown = 1e-7 if self._positions else 0.0
        ranges = [("command", commands, lower, upper)]
        names = ("velocity", "acceleration", "jerk") if self._positions else ("acceleration", "jerk")
        for order, name in enumerate(names, 1):
            limit = np.array([getattr(by_name[feature.name], name) for feature in features], dtype=np.float64)
            room = (unknown * 2**order) / period**order
            ranges.append((name, np.diff(commands, n=order, axis=0) / period**order, -limit - room, limit + room))
        for name, found, low, high in ranges:
            room = ROUNDING * (high - low)
            bad = (found < low - room) | (found > high + room)
            at = int(np.flatnonzero(bad.any(axis=1))[0]) if bad.any() else 0
            assert not bad.any(), (
                f"{how}: {name} is {found[at].tolist()} at step {at} of {len(commands)}, limits {low.tolist()} to "
                f"{high.tolist()}; commands around it:\n{commands[max(0, at - 4) : at + 5]}"
            )
