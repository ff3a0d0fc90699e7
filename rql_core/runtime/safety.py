"""The filter that every command passes before it leaves for the robot.

It is no certified safety function: it keeps a policy's mistakes inside the limits of the contract, and nothing more.

A chunk goes through: finite? -> the values' limits -> round the measured state -> ramp-in after activation -> velocity,
acceleration, jerk and position together. That the differences come last is what makes the promise hold whatever the
stages before did: after every command that left, a stop exists that keeps within all limits (see braking). What is not
finite, and all after the latch has fallen, becomes that stop. docs/safety.md says how to choose limits.

What a command may be depends on the commands in force before it. Those are in a `State`, which does not change: the
filter keeps only when it was activated, what it counted, and the latch. So a chunk that is superseded half way needs
nothing undone: ask the result for the state after the steps that were executed.

Pinned by test/core/runtime/test_safety_filter.py and test_safety_sequences.py.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.contract import Contract
from rql_core.errors import ContractError
from rql_core.runtime.braking import MAX_STEPS
from rql_core.runtime.fast_check import FastCheck
from rql_core.runtime.limits import Limits
from rql_core.runtime.shaping import next_position, next_value, next_velocity, stop_position, stop_value, stop_velocity

Array = npt.NDArray[np.float64]

# What is measured beyond this is as far out as can be; a difference of greater numbers may be none.
_FURTHEST = 1e300

# The cause that a value outside its limits counts as.
_VALUE = {"positions": "position", "velocities": "velocity", "accelerations": "value", "effort": "value"}
# Causes that say something against the policy, and not that the filter was doing its own work.
_VIOLATIONS = frozenset({"position", "velocity", "acceleration", "jerk", "deviation", "value", "rate"})


@dataclass(frozen=True, eq=False)
class State:
    """What is in force just before a step.

    `commands` (3, action_dim): the last three commands, the newest last. `wanted` (action_dim,): what the policy wanted
    of the last step, None where it is not known. `position` (action_dim,): where the joints will be at the beginning of
    the step, None where nobody measures.
    """

    commands: Array
    wanted: Array | None = None
    position: Array | None = None


@dataclass(frozen=True, eq=False)
class Filtered:
    """What may leave: `actions` (steps, action_dim) float64. `changed`: whether any of it is not what was wanted.

    `braking`: it is the stop, because the chunk was refused or the filter is latched.
    """

    actions: Array
    changed: bool
    braking: bool
    before: State
    wanted: Array
    period: float

    def state(self, executed: int) -> State:
        """The state after the first `executed` steps of `actions`."""
        if not 0 <= executed <= len(self.actions):
            raise ValueError(f"{executed} steps executed, expected 0 to the chunk's {len(self.actions)}")
        if executed == 0:
            return self.before
        done = self.actions[:executed]
        commands = done[-3:] if executed >= 3 else np.concatenate([self.before.commands[executed:], done])
        position = self.before.position
        if position is not None:
            position = position + done.sum(axis=0) * self.period
        return State(commands, self.wanted[executed - 1], position)


@dataclass(frozen=True)
class Change:
    """The last change to a command: which joint, what was wanted and what left instead, and the cause."""

    joint: str
    cause: str
    wanted: float
    sent: float
    limit: str
    unit: str

    def __str__(self) -> str:
        what = f"{self.joint}: {self.wanted:.6g} {self.unit} was wanted, {self.sent:.6g} {self.unit} left"
        return f"{what} ({self.cause}{', ' if self.limit else ''}{self.limit})"


class SafetyFilter:
    """Makes chunks (steps, action_dim) in physical units fit to leave. Owned by one thread; reads no clock.

    `activate` first, and again after every interruption: it says from which state to go on. `counts` are the numbers
    changed by cause: not_finite and latched (chunks), position, velocity, acceleration, jerk, deviation, ramp, value,
    rate. `latched` is the reason why nothing passes until `rearm`; `last_change` the last change, for a log.
    """

    def __init__(self, contract: Contract) -> None:
        """Take the limits of the contract; raises ContractError where it has none and none follow."""
        self.limits = Limits(contract)
        self.counts: Counter[str] = Counter()
        self.latched: str | None = None
        self._last: tuple[int, str, float, float] | None = None
        self._joints = self.limits.joints
        self._order = self.limits.order
        self._period = self.limits.period
        self._lower, self._upper = self.limits.column("lower"), self.limits.column("upper")
        self._deviation = self.limits.column("deviation")
        self._fastest = self.limits.column("fastest")
        self._fast = FastCheck(self.limits)
        # Whether the last chunk kept the limits: one after another that did not is not tried to pass as it is.
        self._hopeful = True
        self._bounded = self._order == 2 and bool(np.isfinite(self.limits.column("low")).any())
        latch = self.limits.safety.latch
        self._bad: deque[int] = deque(maxlen=latch.not_finite)
        self._violations: deque[int] = deque(maxlen=latch.violations or 1)
        self._ramp_ns = round(self.limits.safety.ramp * 1e9)
        self._activated_ns: int | None = None
        self._base = np.zeros(len(self._joints))

    # From which state

    def measured_position(self, observation: npt.NDArray[np.float32]) -> Array | None:
        """The joints' measured positions in an observation vector; None where the contract does not say."""
        where = self.limits.position_from
        return None if where is None else observation[where].astype(np.float64)

    def activate(self, time_ns: int, measured: Array | None, state: State | None = None) -> State:
        """Begin to ramp in at `time_ns`, and return the state that the first command follows.

        `measured` (action_dim,): the joints' positions; None where nobody measures, which is refused for commands that
        are positions and for limits on positions. `state`: what is still in force, None where nothing is. Positions go
        on from it unless it is further from the measured position than `deviation`; else they begin, at rest, where the
        joints are. Other commands go on from it, else from zero.

        Raises ContractError, naming joint and value, where commands cannot begin there. Does not open the latch.
        """
        if measured is None:
            if self._order == 3 or self._bounded:
                raise ContractError(
                    f"the joints of {', '.join(self.limits.names)} are not measured, and their commands begin or have "
                    "limits where they are; add safety.measured.position to the contract"
                )
        else:
            self._check_measured(measured)
            measured = np.array(measured, dtype=np.float64)
        if self._order == 3:
            assert measured is not None
            if state is None or (np.abs(state.commands[-1] - measured) > self._deviation).any():
                start = self._startable(measured)
                state = State(np.tile(start, (3, 1)), start)
            self._base = self._stop(state, None)[-1]
        else:
            commands = np.zeros((3, len(self._joints))) if state is None else state.commands
            state = State(commands, commands[-1], measured)
            self._base = np.zeros(len(self._joints))
        self._activated_ns = time_ns
        return state

    def rearm(self, time_ns: int, measured: Array | None, state: State | None = None) -> State:
        """Open the latch and activate; raises as `activate` does, and then the latch stays."""
        begun = self.activate(time_ns, measured, state)
        self.latched = None
        self._bad.clear()
        self._violations.clear()
        return begun

    def predicted(self, measured: Array, state: State, age: float) -> Array:
        """Where velocity-commanded joints are `age` s after they were measured, by the last three commands.

        Of time before those the oldest counts.
        """
        steps = self._in_steps(age)
        weights = [max(steps - 2.0, 0.0), min(max(steps - 1.0, 0.0), 1.0), min(steps, 1.0)]
        return measured + np.asarray(weights) @ state.commands * self._period

    def snapshot(self) -> tuple[Any, ...]:
        """What is known now, for `restore`."""
        times = tuple(self._bad), tuple(self._violations)
        return dict(self.counts), times, self.latched, self._last, self._activated_ns, self._base

    def restore(self, snapshot: tuple[Any, ...]) -> None:
        """As if nothing had been asked since that snapshot."""
        counts, (bad, violations), self.latched, self._last, self._activated_ns, self._base = snapshot
        self.counts.clear()
        self.counts.update(counts)
        self._bad = deque(bad, self._bad.maxlen)
        self._violations = deque(violations, self._violations.maxlen)

    # What leaves

    def apply(
        self,
        chunk: npt.NDArray[np.float64],
        state: State,
        time_ns: int,
        measured: Array | None = None,
        age: float = 0.0,
    ) -> Filtered:
        """What may leave of a chunk (steps, action_dim), whose first step follows `state` and begins at `time_ns`.

        `measured` (action_dim,): the joints' positions, measured `age` s before `time_ns`; None: nothing new is known.
        Give only steps that are still to be executed. One step is a chunk too, and several give what they would give
        one by one with the same measurement.
        """
        wanted = _numbers(chunk, len(self._joints))
        if measured is not None and not _numbers(measured[None], len(self._joints)).size:
            wanted = wanted[:0]
        steps = len(wanted)
        if self.latched is not None:
            self.counts["latched"] += 1
            return self._refused(chunk, state)
        if not steps:
            self.counts["not_finite"] += 1
            self._last = (0, "not_finite", float("nan"), float("nan"))
            self._note(self._bad, self.limits.safety.latch.not_finite, time_ns, "chunks were not finite numbers")
            return self._refused(chunk, state)
        position = state.position
        if self._order == 2 and measured is not None:
            position = self.predicted(measured, state, age)
            state = State(state.commands, state.wanted, position)
        low, high = self._around(measured, age, steps)
        since = None if self._activated_ns is None else time_ns - self._activated_ns
        ramped = since is not None and since + round(self._period * 1e9) >= self._ramp_ns
        if ramped and self._hopeful and self._fast.passes(wanted, state, low, high):
            return Filtered(wanted, False, False, state, wanted, self._period)
        return self._shape(wanted, state, low, high, since, time_ns)

    def brake(self, state: State, steps: int | None = None) -> Filtered:
        """The safe command: a stop within the limits and then rest, for `steps` or as many steps as it takes (>= 1).

        Positions stay where they come to rest, velocities become zero. Efforts and accelerations become zero at their
        rate, which stops no joint by itself.
        """
        actions = self._stop(state, steps)
        return Filtered(actions, True, True, state, actions, self._period)

    @property
    def last_change(self) -> Change | None:
        """The last change to a command, None before there was one."""
        if self._last is None:
            return None
        index, cause, wanted, sent = self._last
        if cause == "not_finite":
            return Change("chunk", "not finite, or of another shape", wanted, sent, "", self.limits.unit)
        joint, given = self._joints[index], self.limits.safety.limits
        each = next(limits for limits in given if limits.name == joint.name)
        if cause == "ramp":
            limit = f"ramp of {self.limits.safety.ramp:g} s"
        elif cause == _VALUE[self.limits.command] and not (cause == "velocity" and each.velocity):
            limit = f"limits {joint.lower:g} to {joint.upper:g} {self.limits.unit}"
        else:
            bound = each.range if cause == "position" else getattr(each, cause)
            unit = self.limits.units["position" if cause == "deviation" else cause]
            limit = f"limit {bound} {unit}"
        return Change(joint.name, cause, wanted, sent, limit, self.limits.unit)

    # How

    def _check_measured(self, measured: Array) -> None:
        found = np.asarray(measured)
        if found.shape != self._lower.shape or not np.isfinite(found).all():
            raise ContractError(
                f"measured positions are {found.tolist()}, expected {len(self._joints)} finite numbers for "
                f"{', '.join(self.limits.names)}"
            )

    def _startable(self, measured: Array) -> Array:
        """Where position commands begin: at the measured positions, put inside the limits if they are all but there."""
        start: Array = np.clip(measured, self._lower, self._upper)
        for index in np.flatnonzero(np.abs(start - measured) > self._deviation):
            joint = self._joints[index]
            raise ContractError(
                f"{joint.name} is at {measured[index]:g} {self.limits.unit}, outside its limits [{joint.lower:g}, "
                f"{joint.upper:g}] by more than the deviation {joint.deviation:g}; move it back by hand"
            )
        return start

    def _around(self, measured: Array | None, age: float, steps: int) -> tuple[Array, Array] | tuple[None, None]:
        """Lowest and highest command of each step round the measured state, (steps, action_dim).

        Further ahead in time by what the joint can travel until then at its velocity limit.
        """
        if self._order != 3 or measured is None:
            return None, None
        travel = (self._in_steps(age) + np.arange(steps))[:, None] * self._fastest
        room = self._deviation + travel
        return measured - room, measured + room

    def _in_steps(self, age: float) -> float:
        """An age in s as steps, without what the division adds: six periods are six steps, alone or within a chunk."""
        return round(max(age, 0.0) / self._period, 9)

    def _refused(self, chunk: npt.NDArray[np.float64], state: State) -> Filtered:
        """The stop instead of a chunk: of as many steps, where that means anything."""
        shape = np.shape(chunk)
        return self.brake(state, shape[0] or None if shape[1:] == self._lower.shape else None)

    def _stop(self, state: State, steps: int | None) -> Array:
        columns = []
        for joint, (first, second, last) in zip(self._joints, state.commands.T.tolist(), strict=True):
            if self._order == 2:
                columns.append(stop_velocity(joint, second, last, steps))
                continue
            column: list[float] = []
            while len(column) < (steps or MAX_STEPS):
                if self._order == 3:
                    following = stop_position(joint, first, second, last)
                    speed, before = following - last, last - second
                else:
                    following = stop_value(joint, last)
                    speed = before = following
                column.append(following)
                first, second, last = second, last, following
                # Speed zero is rest only if it may stay zero: a joint that turns round passes through it.
                if steps is None and speed == 0.0 and abs(before) <= joint.jerk + joint.tolerance:
                    break
            columns.append(column)
        length = max(len(column) for column in columns)
        return np.array([column + [column[-1]] * (length - len(column)) for column in columns]).T.copy()

    def _shape(
        self, raw: Array, state: State, low: Array | None, high: Array | None, since: int | None, time_ns: int
    ) -> Filtered:
        """Step by step and joint by joint, in floats: for so few numbers arrays cost more."""
        period_ns = self._period * 1e9
        first, second, last = state.commands.tolist()
        before = [None] * len(last) if state.wanted is None else state.wanted.tolist()
        at = None
        if state.position is not None and self._bounded:
            at = [min(max(each, -_FURTHEST), _FURTHEST) / self._period for each in state.position.tolist()]
        order, joints = self._order, self._joints
        actions, targets = [], []
        changes: list[tuple[int, str, float, float]] = []
        whole = True
        for step, row in enumerate(raw.tolist()):
            share = self._share(since, (step + 1) * period_ns)
            whole = whole and share >= 1.0
            action, target = [], []
            for index, joint in enumerate(joints):
                wanted = row[index]
                aim = wanted
                if not joint.lower <= wanted <= joint.upper:
                    aim = joint.lower if wanted < joint.lower else joint.upper
                    changes.append((index, _VALUE[self.limits.command], wanted, aim))
                if low is not None and high is not None:
                    near = min(max(aim, float(low[step, index])), float(high[step, index]))
                    if near != aim:
                        changes.append((index, "deviation", wanted, near))
                        aim = min(max(near, joint.lower), joint.upper)
                if share < 1.0:
                    base = self._base[index]
                    part = float(base + share * (aim - base))
                    if part != aim:
                        changes.append((index, "ramp", wanted, part))
                        aim = part
                if order == 3:
                    out, cause = next_position(joint, first[index], second[index], last[index], aim, before[index])
                elif order == 2:
                    place = None if at is None else at[index]
                    out, cause = next_velocity(joint, second[index], last[index], place, aim, before[index])
                    if at is not None:
                        at[index] += out
                else:
                    out, cause = next_value(joint, last[index], aim)
                if cause:
                    changes.append((index, cause, wanted, out))
                action.append(out)
                target.append(aim)
            actions.append(action)
            targets.append(target)
            first, second, last, before = second, last, action, target
        found = self._count(changes)
        self._hopeful = not found
        if whole and found & _VIOLATIONS:
            causes = ", ".join(sorted(found & _VIOLATIONS))
            self._note(
                self._violations, self.limits.safety.latch.violations, time_ns, f"chunks broke limits ({causes})"
            )
        return Filtered(np.array(actions), bool(found), False, state, np.array(targets), self._period)

    def _share(self, since: int | None, ahead_ns: float) -> float:
        """The policy's share that far ahead: none at activation, all after the ramp, without a corner at either end."""
        if since is None:
            return 0.0
        part = min(max((since + ahead_ns) / self._ramp_ns, 0.0), 1.0)
        return part * part * (3.0 - 2.0 * part)

    def _count(self, changes: list[tuple[int, str, float, float]]) -> set[str]:
        """Count changes (joint, cause, wanted, sent) by cause; the causes that there were."""
        causes = [cause for _, cause, _, _ in changes]
        self.counts.update(causes)
        if changes:
            self._last = changes[-1]
        return set(causes)

    def _note(self, times: deque[int], enough: int | None, time_ns: int, what: str) -> None:
        """Note what happened at `time_ns`; fall into the latch where it happened often enough within the window."""
        if enough is None:
            return
        if times and time_ns < times[-1]:
            times.clear()  # the clock was set back: the times before mean nothing now
        times.append(time_ns)
        window = self.limits.safety.latch.window
        if len(times) == enough and times[-1] - times[0] <= window * 1e9:
            self.latched = f"{enough} {what} within {window:g} s; the last: {self.last_change}"


def _numbers(chunk: npt.NDArray[np.float64], width: int) -> Array:
    """The chunk as a float64 array of its own; without a row where it is no finite numbers of the right shape."""
    nothing = np.empty((0, width))
    given = np.asarray(chunk)
    if given.dtype.kind not in "fiu" or given.ndim != 2 or given.shape[1] != width:
        return nothing
    numbers = np.array(given, dtype=np.float64)
    return numbers if np.isfinite(numbers).all() else nothing
