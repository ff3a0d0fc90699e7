"""From plans to what leaves: chunks joined by the schedule, made safe by the filter, ended by a stop.

A chunk that leaves says three things: what was in force until now, what is planned, made safe by the filter, and, but
in lockstep, how the robot comes to rest after that. So whoever executes it by its times is never left moving, whatever
becomes of this process. When to plan and whether anything may leave is PolicyRunner's to say. Owned by one thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.contract import ActionChunk, Contract
from rql_core.contract.time import NANOSECONDS, tick_at_or_after, tick_time
from rql_core.runtime.comparison import ShadowComparison
from rql_core.runtime.delay import DelayEstimate
from rql_core.runtime.options import Options
from rql_core.runtime.plan import Guide
from rql_core.runtime.safety import SafetyFilter, State
from rql_core.runtime.schedule import ChunkSchedule
from rql_core.runtime.sent import Outgoing, SentCommands

# A safe command covers its own tick and the next, so that it is still in force when it arrives.
SAFE_STEPS = 2
# On its way to the robot's controller a message takes less than this on one machine or a wired network. At most a
# quarter of a period: at higher rates more would cost whole steps.
ON_THE_WAY_NS = 2_000_000


@dataclass(frozen=True)
class Request:
    """An observation (observation_dim,) that a plan is wanted for, and what the plan is to be held to."""

    generation: int
    tick: int
    stamp_ns: int
    observation: npt.NDArray[np.float32]
    guide: Guide | None


@dataclass(frozen=True)
class _Departure:
    """The newest chunk: the tick from which on it counts, what was known before it was made, and what makes it anew.

    `planned`: whether it is what was planned, and not a stop.
    """

    tick: int
    before: tuple[Any, ...]
    again: Callable[[int], list[ActionChunk]]
    planned: bool


class Commander:
    """Commands a robot by chunks under a contract.

    `commanding`: whether what was planned is being executed, as far as this side knows. `held_from`: the tick of the
    last stop; a chunk that is stamped before it would not replace it. `anew`: whether others may have moved the robot
    since the last command.
    """

    def __init__(self, contract: Contract, horizon: int, options: Options, counts: Counter[str]) -> None:
        """`horizon`: steps of a plan. Raises ConfigError for options that do not fit, ContractError without limits."""
        self.filter = SafetyFilter(contract)
        self.comparison = ShadowComparison(contract) if options.shadow else None
        self.commanding = False
        self.held_from = 0
        self.anew = True
        self._contract = contract
        self._rate = contract.rate_fraction
        self._options = options
        self._counts = counts
        self._horizon = horizon
        self.schedule = self._make_schedule(horizon, options, None)
        self._out = Outgoing(contract, horizon, options.interpolation)
        self._proposed = SentCommands(contract.action_dim, positions=False, keep=2 * horizon)
        self._way_ns = min(ON_THE_WAY_NS, contract.period_ns // 4)
        self._departure: _Departure | None = None

    def _make_schedule(self, horizon: int, options: Options, delay: DelayEstimate | None) -> ChunkSchedule:
        # A plan counts from the tick after the one that it came in: beside a clock it takes a step at least.
        delay = delay or DelayEstimate(first_steps=0 if options.lockstep else 1)
        return ChunkSchedule(self._contract, horizon, options.mode, replan_every=options.replan_every, delay=delay)

    def change(self, horizon: int, options: Options) -> None:
        """Join chunks like that from the next one on; what is in force stays. Raises ConfigError; nothing changes."""
        schedule = self._make_schedule(horizon, options, self.schedule.delay)
        self._out.interpolate(options.interpolation)
        was, self._options = self._options, options
        if (was.mode, was.replan_every, self._horizon) != (options.mode, options.replan_every, horizon):
            self.schedule = schedule
        self._horizon = horizon

    def renew_schedule(self) -> None:
        """Forget what was planned: another policy plans from now on. What is in force stays."""
        self.schedule = self._make_schedule(self._horizon, self._options, self.schedule.delay)

    def clear(self) -> None:
        """Forget everything: nothing was ever commanded."""
        self._out.clear()
        self.held_from = 0

    def reset(self) -> None:
        """An episode begins: nothing is planned.

        In lockstep the simulated robot was put elsewhere. A real one may still come to rest, and goes on from there.
        """
        self.schedule.clear()
        if self._options.lockstep:
            self.clear()
        if self.comparison is not None:
            self.comparison.reset()
            self._proposed.clear()
        self.commanding = False
        self.anew = True

    def tick_from(self, time_ns: int) -> int:
        """The tick from which on something that leaves at a time counts: the first that begins when it has arrived.

        Within a tick nothing changes: who executes it may have taken its command already, and the next one has to
        follow that one. In lockstep the present tick has not begun, because the simulation waits.
        """
        if self._options.lockstep:
            return tick_at_or_after(time_ns + 1, self._rate) - 1
        return tick_at_or_after(time_ns + self._way_ns, self._rate)

    def in_force(self, tick: int) -> bool:
        """Whether something was commanded for the tick."""
        return self._out.sent.in_force(tick)

    def command_at(self, time_ns: int) -> npt.NDArray[np.float64] | None:
        """The single command (action_dim,) for a time, from what has left; None where nothing is in force."""
        return self._out.command_at(time_ns)

    def command_of(self, tick: int) -> npt.NDArray[np.float64] | None:
        """What was commanded for a tick; None where nothing is in force."""
        return self._out.sent.command(tick) if self.in_force(tick) else None

    # In shadow

    def heard(self, chunk: ActionChunk) -> None:
        """What the present controller commands."""
        if self.comparison is not None:
            self.comparison.commanded(chunk)
            self._out.sent.record(tick_at_or_after(chunk.stamp_ns, self._rate), chunk.actions)

    def compare(self, tick: int) -> None:
        """Compare what would be in force at a tick with what the present controller commands then."""
        if self.comparison is not None and self._proposed.in_force(tick):
            proposed = self._proposed.command(tick)
            assert proposed is not None
            self.comparison.propose(tick_time(tick, self._rate), proposed)

    # What took long to make

    def late(self, now_ns: int) -> bool:
        """Whether the newest chunk, if it left only now, might arrive after it should have been in force.

        Whoever executes the chunks would then follow the one before for a tick, and the change to this one there is
        none that the filter has seen.
        """
        departure = self._departure
        if departure is None or self._options.lockstep:
            return False
        return now_ns + self._way_ns // 2 > tick_time(departure.tick, self._rate)

    def again(self, now_ns: int) -> list[ActionChunk]:
        """Make the newest chunk anew, as if it had never been made, to leave at `now_ns`; raises as `leave` does."""
        departure = self._departure
        if departure is None:
            return []
        self._restore(departure.before)
        return departure.again(now_ns)

    def withdraw(self) -> bool:
        """Forget the newest chunk, as if its plan had never come; False where that is a stop, which has to leave.

        What left before it goes on being executed, and ends at rest.
        """
        departure = self._departure
        if departure is None or not departure.planned:
            return False
        self._restore(departure.before)
        self.schedule.withdraw()
        self._departure = None
        return True

    def _snapshot(self) -> tuple[Any, ...]:
        counts = self._counts["chunks"], self._counts["stops"]
        return self.commanding, self.held_from, self.anew, counts, self._out.snapshot(), self.filter.snapshot()

    def _restore(self, before: tuple[Any, ...]) -> None:
        self.commanding, self.held_from, self.anew, counts, out, filtered = before
        self._counts["chunks"], self._counts["stops"] = counts
        self._out.restore(out)
        self.filter.restore(filtered)

    # Stops

    def take_over(self, now_ns: int, following: int) -> bool:
        """What was in force just before the tick `following` comes before `now_ns`; whether something went on there."""
        sent = self._out.sent
        runs_on = sent.in_force(following)
        state = sent.state_before(following)
        self.clear()
        if state is not None:
            sent.begin(self.tick_from(now_ns), state)
        return runs_on

    def hold(self, tick: int) -> ActionChunk | None:
        """The stop within the limits from a tick on, and then rest; None in shadow, and where there is no position."""
        before = self._snapshot()
        self.commanding = False
        self.schedule.clear(tick_time(tick, self._rate))
        state = self._out.sent.state_before(tick)
        if state is None or self.comparison is not None:
            return None
        self._counts["stops"] += 1
        self._departure = _Departure(tick, before, lambda now_ns: self._held(self.tick_from(now_ns)), planned=False)
        return self._leave_stop(tick, state)

    def _held(self, tick: int) -> list[ActionChunk]:
        chunk = self.hold(tick)
        return [] if chunk is None else [chunk]

    def _leave_stop(self, tick: int, state: State) -> ActionChunk:
        """The whole stop as a chunk, however few steps the policy's chunks have."""
        actions = self.filter.brake(state).actions
        rest = np.repeat(actions[-1:], max(0, SAFE_STEPS - len(actions)), axis=0)
        self.commanding = False  # whatever follows begins anew
        self.held_from = tick
        return self._out.leave(tick, tick_time(tick, self._rate), np.concatenate([actions, rest]))

    # Chunks

    def leave(
        self,
        request: Request,
        actions: npt.NDArray[np.float64],
        arrived_ns: int,
        now_ns: int,
        *,
        scheduled: bool = False,
    ) -> list[ActionChunk]:
        """What leaves of a plan (steps, action_dim), the stop where it is not finite.

        `arrived_ns`: from when on it may be executed; later than `now_ns` where the observation's clock is ahead.
        `scheduled`: the schedule has it already. Raises ContractError where commands cannot begin from where the joints
        are.
        """
        before = self._snapshot()
        refused = not np.isfinite(actions).all()
        # A stop does not wait for the time of an observation that is ahead.
        tick = self.tick_from(now_ns if refused else arrived_ns)
        stamp = tick_time(tick, self._rate)
        measured = self.filter.measured_position(request.observation)
        state = self._state(tick, measured, request.tick)
        age = (stamp - request.stamp_ns) / NANOSECONDS
        if refused:
            self.schedule.clear(stamp)
            self.filter.apply(actions, state, stamp, measured, age)
            if self.comparison is not None:
                return []
            if not self.commanding:
                self._out.sent.begin(tick, state)
            self._departure = self._departs(tick, before, request, actions, planned=False)
            return [self._leave_stop(tick, state)]
        if scheduled:
            self.schedule.postpone(stamp)
        elif not self.schedule.add(ActionChunk.regular(self._contract, request.stamp_ns, actions), stamp):
            return []
        ahead = self.schedule.ahead(stamp)
        if ahead is None:
            return []
        filtered = self.filter.apply(ahead, state, stamp, measured, age)
        self._counts["chunks"] += 1
        if not self.commanding and self.comparison is None:
            self._out.sent.begin(tick, state)
        self.commanding, self.anew = True, False
        if self.comparison is not None:
            self._proposed.record(tick, filtered.actions)
            return []
        leaves = filtered.actions
        if not self._options.lockstep:
            leaves = np.concatenate([leaves, self.filter.brake(filtered.state(len(leaves))).actions])
        # Where the observation is of a clock ahead, the chunk says what comes until then: were it stamped so far ahead,
        # a stop would not replace it.
        first = request.tick if request.stamp_ns <= now_ns else min(request.tick, self.tick_from(now_ns))
        stamp = min(request.stamp_ns, tick_time(first, self._rate))
        self._departure = self._departs(tick, before, request, actions, planned=True)
        return [self._out.leave(tick, stamp, leaves, tick - first, filtered.wanted)]

    def _departs(
        self, tick: int, before: tuple[Any, ...], request: Request, actions: npt.NDArray[np.float64], *, planned: bool
    ) -> _Departure:
        def again(now_ns: int) -> list[ActionChunk]:
            return self.leave(request, actions, max(now_ns, request.stamp_ns), now_ns, scheduled=True)

        return _Departure(tick, before, again, planned)

    def _state(self, tick: int, measured: npt.NDArray[np.float64] | None, observed: int) -> State:
        """What the next command follows; after an interruption commands begin anew, and but in lockstep by the ramp."""
        sent = self._out.sent
        known = sent.state_before(tick)
        if self.commanding and known is not None:
            return known
        without_ramp = self._options.lockstep or self._options.shadow
        over = round(self.filter.limits.safety.ramp * NANOSECONDS) if without_ramp else 0
        # After a hold the robot's controller still has the last position; after a person was asked maybe not.
        # Nor does a position count that was measured before the stop was over.
        goes_on = sent.in_force(tick - 1) or sent.in_force(observed - 1) or not self.anew
        return self.filter.activate(tick_time(tick, self._rate) - over, measured, known if goes_on else None)
