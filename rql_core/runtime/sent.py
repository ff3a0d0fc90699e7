"""The commands that left: what the safety filter has to know of the past, and what a new chunk must go on from.

A tick after the last one that was commanded is at rest: velocities, efforts and accelerations are zero there, and
positions stay. That is what the robot does with nothing in force, by the contract's `hold`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rql_core.contract import ActionChunk, Contract
from rql_core.contract.time import tick_at_or_after, tick_time
from rql_core.runtime.options import Interpolation
from rql_core.runtime.safety import State

Array = npt.NDArray[np.float64]

# The safety filter looks back on three commands.
_PAST = 3


class _Stretch(NamedTuple):
    """What one chunk commands: of the ticks from `first` on, and before `end`, which a newer one may have set back."""

    first: int
    end: int
    commands: Array
    wanted: Array | None


class SentCommands:
    """Commands (action_dim,) in physical units by tick. `keep`: how many ticks back anybody can ask for."""

    def __init__(self, action_dim: int, *, positions: bool, keep: int) -> None:
        self._dim = action_dim
        self._positions = positions
        self._keep = keep + _PAST
        # In the order in which they were recorded: where two say something of a tick, the last one counts.
        self._stretches: list[_Stretch] = []

    def clear(self) -> None:
        """Forget everything: nothing was ever commanded."""
        self._stretches.clear()

    def snapshot(self) -> tuple[_Stretch, ...]:
        """What is known now, for `restore`."""
        return tuple(self._stretches)

    def restore(self, snapshot: tuple[_Stretch, ...]) -> None:
        """As if nothing had been told since that snapshot."""
        self._stretches = list(snapshot)

    def begin(self, tick: int, state: State) -> None:
        """Begin with `state` just before `tick`. What is in force until then stays: it may be a stop that goes on."""
        wanted = self._wanted(tick - 1) if state.wanted is None else state.wanted
        rows = None if wanted is None else np.tile(wanted, (_PAST, 1))
        self._stretches.append(_Stretch(tick - _PAST, tick, state.commands, rows))

    def record(self, tick: int, commands: Array, wanted: Array | None = None) -> None:
        """From `tick` on these commands (steps, action_dim) are in force, and none that was to come before."""
        before = [
            each if each.end <= tick else each._replace(end=tick) for each in self._stretches if each.first < tick
        ]
        over = [each.end for each in before if each.end <= tick - self._keep]
        if len(over) > 1:
            # The newest of them stays: it may be where positions rest since.
            before = [each for each in before if each.end >= max(over)]
        self._stretches = [*before, _Stretch(tick, tick + len(commands), commands, wanted)]

    def in_force(self, tick: int) -> bool:
        """Whether there is a command for the tick."""
        return self._stretch_of(tick) is not None

    def command(self, tick: int) -> Array | None:
        """The command of a tick, or what rest is then; None before there was any position to rest at."""
        stretch = self._stretch_of(tick)
        if stretch is None and not self._positions:
            return np.zeros(self._dim)
        if stretch is None:
            before = [each for each in reversed(self._stretches) if each.end <= tick]
            stretch = max(before, key=lambda each: each.end, default=None)
            tick = tick if stretch is None else stretch.end - 1
        return None if stretch is None else stretch.commands[tick - stretch.first]

    def _stretch_of(self, tick: int) -> _Stretch | None:
        for stretch in reversed(self._stretches):
            if stretch.first <= tick < stretch.end:
                return stretch
        return None

    def _wanted(self, tick: int) -> Array | None:
        stretch = self._stretch_of(tick)
        if stretch is None or stretch.wanted is None or tick - stretch.first >= len(stretch.wanted):
            return None
        wanted: Array = stretch.wanted[tick - stretch.first]
        return wanted

    def state_before(self, tick: int) -> State | None:
        """What is in force just before a tick; None where positions were never commanded."""
        newest = self._stretches[-1] if self._stretches else None
        if newest is not None and newest.first <= tick - _PAST and tick <= newest.end:
            # As nearly always: one chunk said all of it.
            at = tick - newest.first
            return State(newest.commands[at - _PAST : at], self._wanted(tick - 1))
        commands = [self.command(tick - back) for back in (3, 2, 1)]
        known = [command for command in commands if command is not None]
        if not known:
            return None
        # A position that was not commanded yet is where the first commands began.
        rows = [known[0] if command is None else command for command in commands]
        return State(np.array(rows), self._wanted(tick - 1))


class Outgoing:
    """Makes the chunks that leave, and remembers what they command; single commands are read from that.

    `held`: a tick's command during the whole tick, which is what was recorded and trained on. `linear`: from the
    command of the tick before, on a straight line, so that the tick's own is reached at its end; that is what the
    points of a JointTrajectory say. Positions are linear by default, because one that is held jumps at every tick;
    everything else is held, because a velocity that comes up by a line is on average half a tick late. Within a tick
    nothing changes, so that a line that is being followed stays where it is.
    """

    def __init__(self, contract: Contract, horizon: int, interpolation: Interpolation | None) -> None:
        """`horizon`: steps of the chunks that come in. `interpolation` None: as suits the contract's command."""
        positions = contract.action.hold == "last"
        self.sent = SentCommands(contract.action_dim, positions=positions, keep=2 * horizon)
        self._contract = contract
        # When a chunk ends, and what with, until that was told: the newest, and one that is over before it begins.
        self._ends: list[tuple[int, Array]] = []
        self.interpolate(interpolation)

    def interpolate(self, method: Interpolation | None) -> None:
        """Read single commands like that from now on."""
        own: Interpolation = "linear" if self._contract.action.command == "positions" else "held"
        self._method = method or own

    def clear(self) -> None:
        """Forget everything: nothing was ever commanded."""
        self.sent.clear()
        self._ends = []

    def snapshot(self) -> tuple[Any, ...]:
        """What is known now, for `restore`."""
        return self.sent.snapshot(), tuple(self._ends)

    def restore(self, snapshot: tuple[Any, ...]) -> None:
        """As if nothing had left since that snapshot."""
        stretches, ends = snapshot
        self._ends = list(ends)
        self.sent.restore(stretches)

    def leave(
        self, tick: int, stamp_ns: int, actions: Array, over: int = 0, wanted: Array | None = None
    ) -> ActionChunk:
        """From `tick` on these actions (steps, action_dim) are in force: the chunk that says so.

        It is stamped `stamp_ns`, and its first `over` steps say what was in force before `tick`.
        """
        past = [self.sent.command(tick - back) for back in range(over, 0, -1)]
        known = [actions[0] if command is None else command for command in past]
        self.sent.record(tick, actions, wanted)
        rows = np.concatenate([known, actions]) if known else actions
        chunk = ActionChunk.regular(self._contract, stamp_ns, rows)
        begins_ns = tick_time(tick, self._contract.rate_fraction)
        self._ends = [each for each in self._ends if each[0] <= begins_ns][-1:]
        self._ends.append((int(chunk.ends_ns[-1]), chunk.actions[-1]))
        return chunk

    def command_at(self, time_ns: int) -> Array | None:
        """The single command (action_dim,) for a time; None where nothing is in force.

        What a chunk ends with is given once more when it is over: whoever asks seldom would else never be told to rest.
        """
        rate = self._contract.rate_fraction
        tick = tick_at_or_after(time_ns + 1, rate) - 1
        if not self.sent.in_force(tick):
            over = [rest for ends_ns, rest in self._ends if ends_ns <= time_ns]
            self._ends = self._ends[len(over) :]
            return over[-1] if over else None
        command = self.sent.command(tick)
        before = self.sent.command(tick - 1)
        if command is None or before is None or self._method == "held":
            return command
        start, end = tick_time(tick, rate), tick_time(tick + 1, rate)
        return before + (command - before) * ((time_ns - start) / (end - start))
