"""The commands that left: what the safety filter has to know of the past, and what a new chunk must go on from.

A tick after the last one that was commanded is at rest: velocities, efforts and accelerations are zero there, and
positions stay. That is what the robot does with nothing in force, by the contract's `hold`.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from rql_core.contract import ActionChunk, Contract
from rql_core.contract.time import tick_time
from rql_core.runtime.interpolation import CommandInterpolation, Interpolation
from rql_core.runtime.safety import State
from rql_core.runtime.schedule import ChunkSchedule

Array = npt.NDArray[np.float64]

# The safety filter looks back on three commands.
_PAST = 3
# Single commands are read from the chunks of the last few periods; those that nobody asked about are let go.
_UNREAD = 16


class SentCommands:
    """Commands (action_dim,) in physical units by tick. `keep`: how many ticks back anybody can ask for."""

    def __init__(self, action_dim: int, *, positions: bool, keep: int) -> None:
        self._dim = action_dim
        self._positions = positions
        self._keep = keep + _PAST
        self._commands: dict[int, Array] = {}
        self._wanted: dict[int, Array] = {}

    def clear(self) -> None:
        """Forget everything: nothing was ever commanded."""
        self._commands.clear()
        self._wanted.clear()

    def begin(self, tick: int, state: State) -> None:
        """Begin with `state` just before `tick`, and forget what was."""
        self.clear()
        for back in range(_PAST):
            self._commands[tick - _PAST + back] = state.commands[back]
        if state.wanted is not None:
            self._wanted[tick - 1] = state.wanted

    def record(self, tick: int, commands: Array, wanted: Array | None = None) -> None:
        """From `tick` on these commands (steps, action_dim) are in force, and none that was to come before."""
        for later in [known for known in self._commands if known >= tick]:
            del self._commands[later]
            self._wanted.pop(later, None)
        for step, command in enumerate(commands):
            self._commands[tick + step] = command
        if wanted is not None:
            for step, row in enumerate(wanted):
                self._wanted[tick + step] = row
        for old in [known for known in self._commands if known < tick - self._keep]:
            del self._commands[old]
            self._wanted.pop(old, None)

    def in_force(self, tick: int) -> bool:
        """Whether there is a command for the tick."""
        return tick in self._commands

    def command(self, tick: int) -> Array | None:
        """The command of a tick, or what rest is then; None before there was any position to rest at."""
        known = self._commands.get(tick)
        if known is not None:
            return known
        if not self._positions:
            return np.zeros(self._dim)
        before = [earlier for earlier in self._commands if earlier < tick]
        return self._commands[max(before)] if before else None

    def state_before(self, tick: int) -> State | None:
        """What is in force just before a tick; None where positions were never commanded."""
        commands = [self.command(tick - back) for back in (3, 2, 1)]
        known = [command for command in commands if command is not None]
        if not known:
            return None
        # A position that was not commanded yet is where the first commands began.
        rows = [known[0] if command is None else command for command in commands]
        return State(np.array(rows), self._wanted.get(tick - 1))


class Outgoing:
    """Makes the chunks that leave, and remembers what they command; single commands are read from them."""

    def __init__(self, contract: Contract, horizon: int, interpolation: Interpolation | None) -> None:
        """`horizon`: steps of the chunks that come in. Raises ConfigError for an interpolation that is not known."""
        positions = contract.action.hold == "last"
        self.sent = SentCommands(contract.action_dim, positions=positions, keep=2 * horizon)
        self._contract = contract
        self._chunks = ChunkSchedule(contract, 1, "receding")
        # Chunks, and from when on they are in force, that nobody has asked about yet: with whole chunks as the only
        # output nobody ever does.
        self._unread: deque[tuple[ActionChunk, int]] = deque(maxlen=_UNREAD)
        # The newest stamp that was given to one of them.
        self._newest_ns: int | None = None
        # What the newest chunk ends with, and when; None once it was told.
        self._last: tuple[int, Array] | None = None
        self.interpolate(interpolation)

    def interpolate(self, method: Interpolation | None) -> None:
        """Read single commands like that; raises ConfigError for what is not known."""
        self._interpolation = CommandInterpolation(self._contract, method)

    def clear(self) -> None:
        """Forget everything: nothing was ever commanded."""
        self.sent.clear()
        self.forget_chunks()

    def forget_chunks(self) -> None:
        """There are no single commands until something leaves again; what was commanded by tick stays known."""
        self._chunks.clear()
        self._unread.clear()
        self._newest_ns = None
        self._last = None

    def leave(
        self, tick: int, stamp_ns: int, actions: Array, over: int = 0, wanted: Array | None = None
    ) -> ActionChunk:
        """From `tick` on these actions (steps, action_dim) are in force: the chunk that says so.

        It is stamped `stamp_ns`, and its first `over` steps say what was in force before `tick`.
        """
        past = [self.sent.command(tick - back) for back in range(over, 0, -1)]
        known = [actions[0] if command is None else command for command in past]
        before = self.sent.command(tick - 1)
        self.sent.record(tick, actions, wanted)
        rows = np.concatenate([known, actions]) if known else actions
        chunk = ActionChunk.regular(self._contract, stamp_ns, rows)
        self._read_later(tick, chunk, before)
        self._last = int(chunk.ends_ns[-1]), chunk.actions[-1]
        return chunk

    def _read_later(self, tick: int, chunk: ActionChunk, before: Array | None) -> None:
        """Keep a chunk that is in force from `tick` on for single commands; `before` it that command was."""
        rate = self._contract.rate_fraction
        begins_ns = max(chunk.stamp_ns, tick_time(tick, rate))
        if self._newest_ns is not None and begins_ns < self._newest_ns:
            self.forget_chunks()  # the clock was set back, or what was planned for a clock ahead will not be
        if before is not None and (self._last is None or self._last[0] < begins_ns):
            # Nothing is in force just before, which a line could begin at: say what the robot is at then.
            rest_ns = max(tick_time(tick - 1, rate), (self._newest_ns or 0) + 1)
            if rest_ns < begins_ns:
                self._unread.append((ActionChunk.regular(self._contract, rest_ns, before[None]), rest_ns))
                self._newest_ns = rest_ns
        # After a stop that began at this chunk's observation: what is in force until `tick` must stay known.
        stamp_ns = chunk.stamp_ns if self._newest_ns is None else max(chunk.stamp_ns, self._newest_ns + 1)
        kept = chunk.ends_ns > stamp_ns
        self._unread.append((ActionChunk(stamp_ns, chunk.ends_ns[kept], chunk.actions[kept]), max(begins_ns, stamp_ns)))
        self._newest_ns = stamp_ns

    def command_at(self, time_ns: int) -> Array | None:
        """The single command (action_dim,) for a time; None where nothing is in force.

        What a chunk ends with is given once more when it is over: whoever asks seldom would else never be told to rest.
        """
        while self._unread:
            self._chunks.add(*self._unread.popleft())
        command = self._interpolation.command_at(self._chunks, time_ns)
        if command is None and self._last is not None and time_ns >= self._last[0]:
            command, self._last = self._last[1], None
        return command
