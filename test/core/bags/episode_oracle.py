"""Which episodes a recording has, worked out from all of it at once: slow, plain, and apart from the cutter.

Times are in ns. Nothing here waits, forgets or arrives: a question about a time looks through everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from synthetic import PERIOD_NS

Array = npt.NDArray[np.float64]
End = Literal["terminal", "truncation"]
MAX_OBSERVATION_AGE_NS = 100_000_000
# The tool's x, of which the success rule "expression" asks that it is above this; its y, twice, is the reward then.
TOOL_X, TOOL_Y, SOLVED_ABOVE = 4, 5, 2.9


@dataclass(frozen=True)
class Rules:
    """What the contract says; None for what it does not have.

    `held`: single commands stay in force for `max_command_age_ns`, chunks always for as long behind their last step.
    """

    bag_end: End
    marker_end: End | None
    reset_end: End | None
    gap: tuple[int, End] | None
    time_limit: tuple[int, End] | None
    end_at_success: bool
    min_steps: int
    success: Literal["never", "expression", "topic, cut", "topic, unsolved"]
    reward: Literal["numbers", "expression", "sum, cut", "sum, zero", "last, cut"]
    held: bool
    max_command_age_ns: int


@dataclass
class Recorded:
    """Stamps and what was said then, each list by stamp; chunks (h, action_dim) begin at theirs."""

    joints: list[tuple[int, Array]] = field(default_factory=list)
    poses: list[tuple[int, Array]] = field(default_factory=list)
    chunks: list[tuple[int, Array]] = field(default_factory=list)
    markers: list[int] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)
    rewards: list[tuple[int, float]] = field(default_factory=list)
    successes: list[tuple[int, bool]] = field(default_factory=list)


@dataclass(frozen=True)
class Expected:
    """An episode as it should be. `why`: as the cutter calls it, but "missing" wherever it names a silent topic."""

    ticks: list[int]
    observations: Array
    actions: Array
    rewards: list[float]
    solved: list[bool]
    terminal: bool
    why: str


@dataclass(frozen=True)
class _Seen:
    """A tick with its observation and the action in force, if there is one."""

    time: int
    observation: Array
    action: Array | None


class Oracle:
    """Answers any question about a recording by looking through all of it."""

    def __init__(self, rules: Rules, recorded: Recorded) -> None:
        self._rules = rules
        self._recorded = recorded
        # Where a marker and a reset fall together, the reset is what ended the episode.
        self._events = dict.fromkeys(recorded.markers, ("marker", rules.marker_end == "terminal"))
        self._events |= dict.fromkeys(recorded.resets, ("reset", rules.reset_end == "terminal"))
        self._made: list[Expected] = []
        self._open: list[_Seen] = []
        self._solved = False

    def episodes(self) -> list[Expected]:
        """All of them, in their order."""
        rules, joints, poses = self._rules, self._recorded.joints, self._recorded.poses
        last_seen: int | None = None  # of the tick before, if something was seen there
        seen_before_gap: int | None = None  # where a gap began whose length is not known yet
        tick = math.ceil(min(joints[0][0], poses[0][0]) / PERIOD_NS) * PERIOD_NS
        while tick <= min(joints[-1][0], poses[-1][0]):
            observation = self._observation(tick)
            if observation is None:
                if last_seen is not None:
                    event = self._event_between(last_seen, tick)
                    if event is not None and self._open:
                        self._end(*event)
                    elif rules.gap is not None:
                        seen_before_gap = last_seen
                    else:
                        self._end("missing", False)
                last_seen = None
                tick += PERIOD_NS
                continue
            if seen_before_gap is not None:
                self._end_before_gap(tick - seen_before_gap)
                seen_before_gap = None
            if last_seen is not None:
                if (event := self._event_between(last_seen, tick)) is not None:
                    self._end(*event)
                elif self._open and self._lacks_label(last_seen, tick):
                    self._end("missing", False)
            last_seen = tick
            self._see(_Seen(tick, observation, self._action(tick)))
            tick += PERIOD_NS
        self._end_of_bag(last_seen, tick)
        return self._made

    def _see(self, seen: _Seen) -> None:
        """An observation goes to the open episode, or, after a success, to none."""
        rules = self._rules
        if self._solved and seen.action is not None:
            return
        self._open.append(seen)
        if rules.end_at_success and len(self._open) > 1 and self._solves(self._open[-2], seen):
            self._end("success", True)
            self._solved = True
            return
        if rules.time_limit is not None and len(self._open) - 1 == rules.time_limit[0]:
            self._end("time limit", rules.time_limit[1] == "terminal")
            self._open = [seen]
        if seen.action is None:
            self._end("no action in force", False)

    def _end_before_gap(self, seconds_ns: int) -> None:
        assert self._rules.gap is not None
        longest, end = self._rules.gap
        if seconds_ns >= longest:
            self._end("gap", end == "terminal")
        else:
            self._end("missing", False)

    def _end_of_bag(self, last_seen: int | None, next_tick: int) -> None:
        recorded = self._recorded
        if last_seen is None:
            self._end("missing", False)
        elif (event := self._event_between(last_seen, last_seen + PERIOD_NS)) is not None:
            self._end(*event)
        else:
            heard = [recorded.joints[-1][0], recorded.poses[-1][0]]
            newest = max([*heard, *(time for time, _ in recorded.chunks[-1:])])
            if next_tick <= newest and any(newest - time > MAX_OBSERVATION_AGE_NS for time in heard):
                self._end("missing", False)
            else:
                self._end("end of bag", self._rules.marker_end is None and self._rules.bag_end == "terminal")

    def _end(self, why: str, terminal: bool) -> None:
        """The open episode ends with its last observation, whose action led nowhere that was seen."""
        seen, self._open, self._solved = self._open, [], False
        steps = list(pairwise(seen))
        if len(steps) < max(1, self._rules.min_steps):
            return
        self._made.append(
            Expected(
                ticks=[each.time for each in seen],
                observations=np.array([each.observation for each in seen]),
                actions=np.array([each.action for each in seen[:-1]]),
                rewards=[self._reward(*step) for step in steps],
                solved=[self._solves(*step) for step in steps],
                terminal=terminal,
                why=why,
            )
        )

    def _event_between(self, after: int, up_to: int) -> tuple[str, bool] | None:
        """The first marker or reset after one time and not after the other: why, and whether that is a terminal."""
        times = [time for time in self._events if after < time <= up_to]
        return self._events[min(times)] if times else None

    def _observation(self, time: int) -> Array | None:
        """What is held of both topics, neither too old nor from before a marker or reset."""
        start = max([each for each in self._events if each <= time], default=0)
        parts = []
        for said in (self._recorded.joints, self._recorded.poses):
            before = [each for each in said if each[0] <= time]
            if not before or time - before[-1][0] > MAX_OBSERVATION_AGE_NS or before[-1][0] < start:
                return None
            parts.append(before[-1][1])
        return np.concatenate(parts)

    def _action(self, time: int) -> Array | None:
        begun = [chunk for chunk in self._recorded.chunks if chunk[0] <= time]
        if not begun:
            return None
        stamp, actions = begun[-1]
        age = self._rules.max_command_age_ns
        if self._rules.held and len(actions) == 1:
            return np.asarray(actions[0]) if time <= stamp + age else None
        step = (time - stamp) // PERIOD_NS
        if step >= len(actions) and time >= stamp + len(actions) * PERIOD_NS + age:
            return None
        return np.asarray(actions[min(step, len(actions) - 1)])

    def _lacks_label(self, after: int, up_to: int) -> bool:
        recorded, rules = self._recorded, self._rules
        silent = rules.success == "topic, cut" and not _within(recorded.successes, after, up_to)
        return silent or (rules.reward.endswith(", cut") and not _within(recorded.rewards, after, up_to))

    def _solves(self, begin: _Seen, end: _Seen) -> bool:
        if self._rules.success == "never":
            return False
        if self._rules.success == "expression":
            return bool(np.float32(end.observation[TOOL_X]) > SOLVED_ABOVE)
        return any(_within(self._recorded.successes, begin.time, end.time))

    def _reward(self, begin: _Seen, end: _Seen) -> float:
        if self._rules.reward == "numbers":
            return 1.5 if self._solves(begin, end) else -1.0
        if self._rules.reward == "expression":
            return 2 * float(end.observation[TOOL_Y])
        said = _within(self._recorded.rewards, begin.time, end.time)
        return said[-1] if self._rules.reward == "last, cut" else sum(said)


def _within(said: list[tuple[int, float]] | list[tuple[int, bool]], after: int, up_to: int) -> list[float]:
    """What was said after one time and not after the other."""
    return [value for time, value in said if after < time <= up_to]
