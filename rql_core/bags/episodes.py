"""Cuts the messages of one bag into episodes: T + 1 consecutive observations with the T actions in force between them.

The observation of a tick comes from the TickAssembler that the live node uses. The action of a tick is what was in
force at its time; because it answers the observation it may arrive after it, so a tick is decided once the action
topic has a message stamped after it, or the bag ends. A cut falls where two observations do not belong together: at a
marker or reset, at a gap, where no action was in force, at a time limit, at success if the contract ends episodes
there. A superfluous cut costs a step, a missing one would invent a transition that never happened; in doubt there is a
cut. An end is terminal only where the contract says so of that kind of end, and nothing was missing before it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.bags.rows import Rows
from rql_core.bags.timing import BagTiming
from rql_core.contract.alignment import CLOCK_JUMP_NS, Tick, TickAssembler
from rql_core.contract.chunk import CommandSchedule, decode_chunk
from rql_core.contract.episode_schema import BagBoundary, End, MarkerBoundary
from rql_core.contract.messages import FloatArray
from rql_core.contract.reward import RewardRule
from rql_core.contract.reward_signals import RewardSignals, StepSignals
from rql_core.contract.schema import Contract
from rql_core.contract.time import NANOSECONDS, tick_time
from rql_core.errors import ContractError

# The cut that is no end of what was recorded: the next episode begins with the last observation.
TIME_LIMIT = "time limit"
# What waits for a topic that is silent is bounded. Looked after so often that it costs nothing, a few MB at most.
_TIDY_MESSAGES = 2**14
# Of observations with 50 numbers 10 MB; 200 s at 100 Hz in which no action came.
_MOST_TICKS = 20_000
# With a dozen numbers each 60 MB; 200 s of a robot's 1,000 messages a second, 10 s of 20,000.
_MOST_SAMPLES = 200_000
# Of 50 steps and 7 joints 70 MB; 200 s at 100 Hz.
_MOST_CHUNKS = 20_000


@dataclass(frozen=True, eq=False)
class Episode:
    """An episode of T steps in physical units.

    `observations` (T + 1, observation_dim), `rewards` and `masks` (T,) are float32, `actions` (T, action_dim) float64.
    `terminal`: nothing comes after its end, because the task was solved or the contract says so of such an end; the
    last mask is 0. `start_ns`, `end_ns`: times of the first and last observation. `cut`: why it ends there.
    `solved_steps`: how many steps solve the task; the end of an episode may be terminal without it.
    """

    observations: FloatArray
    actions: npt.NDArray[np.float64]
    rewards: FloatArray
    masks: FloatArray
    terminal: bool
    start_ns: int
    end_ns: int
    cut: str
    solved_steps: int

    @property
    def steps(self) -> int:
        return len(self.actions)


@dataclass(frozen=True, order=True)
class _Event:
    """A time at which a marker or a reset ends an episode, and what that end means."""

    time_ns: int
    why: str
    terminal: bool


def _events(contract: Contract, markers: Iterable[int], resets: Iterable[tuple[int, End]]) -> list[_Event]:
    """All events by time, one a time: where a reset and a marker fall together the reset is what ended the episode."""
    boundary = contract.episodes.boundary
    terminal = isinstance(boundary, MarkerBoundary) and boundary.end == "terminal"
    events = {time: _Event(time, "marker", terminal) for time in markers}
    for time, end in resets:
        events[time] = _Event(time, "reset", end == "terminal")
    return sorted(events.values())


@dataclass(frozen=True)
class LeftOut:
    """What was cut like an episode and is too short: its first and last observation's times, and why it was cut."""

    start_ns: int
    end_ns: int
    steps: int
    cut: str


class EpisodeCutter:
    """Takes the messages of one bag in the order they were received and gives out episodes.

    `markers`: times in ns at which episodes start, all those of the bag: known beforehand, because a marker may arrive
    after the observations it divides. `resets`: so for reset events, each with the end that its topic has in the
    contract. `signals`: what the bag's topics say about reward and success, if the contract asks topics, all of it
    beforehand for the same reason. `counts` says what was left out and why, `cuts` how often each kind of cut was made,
    `longest_run` the most steps between two cuts. `timing` sums up when the used messages were stamped and how old they
    were at the ticks; `too_short` is what was not long enough. Not thread-safe.

    Where a topic is silent, what the others say is kept for it up to a bound. A message that comes even later is
    counted, "late" of an observation and "action_late" of an action; messages in order never are.
    """

    def __init__(
        self,
        contract: Contract,
        markers: Iterable[int] = (),
        resets: Iterable[tuple[int, End]] = (),
        *,
        signals: RewardSignals | None = None,
    ) -> None:
        self._contract = contract
        self._signals = signals
        self._action_topic = contract.action.topic
        self._events = _events(contract, markers, resets)
        self._event_times = [event.time_ns for event in self._events]
        self._assembler = TickAssembler(contract, self._event_times)
        self._schedule = CommandSchedule(contract.action.max_age_ns)
        self._rule = RewardRule(contract)
        self._gap = contract.episodes.gap
        self._time_limit = contract.episodes.time_limit
        self._time_limit_steps = contract.time_limit_steps
        self._end_at_success = contract.episodes.at_success == "end"
        self._pending: deque[Tick] = deque()
        self._newest_action_ns: int | None = None
        self._settled_ns: int | None = None
        self._last: Tick | None = None
        self._last_event = 0
        self._broken: str | None = None
        self._seen_ns = 0
        self._solved = False
        self._observations = Rows(contract.observation_dim, np.float32)
        self._actions = Rows(contract.action_dim, np.float64)
        self._ticks = array("q")
        self._start_ns = 0
        self._end_ns = 0
        self._done: list[Episode] = []
        self._own_counts: Counter[str] = Counter()
        self.cuts: Counter[str] = Counter()
        self.longest_run = 0
        self._made = 0
        self._since_tidied = 0
        self.too_short: list[LeftOut] = []
        topics = [spec.topic for spec in contract.observation.topics]
        # By the clock of receipt a stamp is when a message was received: the two have no offset.
        self.timing = BagTiming([*topics, self._action_topic], topics, has_offsets=contract.clock == "header")
        self._stamps, self._delays, self._seen_ticks = self.timing.stamps, self.timing.delays, self.timing.ticks
        self._age_columns = list(self.timing.ages.values())

    @property
    def counts(self) -> dict[str, int]:
        """What was not used, and why; messages by the assembler's reasons, ticks and steps by the cutter's."""
        return dict(sorted((self._assembler.counts + self._own_counts).items()))

    def push(self, topic: str, message: Any, receive_ns: int) -> None:
        """Take one message. Raises ContractError when it does not keep to the contract."""
        self._since_tidied += 1
        if self._since_tidied >= _TIDY_MESSAGES:
            self._tidy()
        if topic == self._action_topic:
            self._push_action(message, receive_ns)
            return
        assembler = self._assembler
        jumps = assembler.counts.get("clock_jump")
        stamp = assembler.push(topic, message, receive_ns)
        if stamp is None:
            return
        if assembler.counts.get("clock_jump") != jumps:
            self._start_over("clock jump")
        self._stamps[topic].append(stamp)
        self._delays[topic].append(receive_ns - stamp)
        # Without a tick there is nothing new to decide.
        if ticks := assembler.take():
            self._pending.extend(ticks)
            self._settle()

    def finish(self) -> None:
        """The bag has ended: decide what was waiting."""
        self._decide_all()
        if (event := self._event_after_last()) is not None:
            self._start_over(event.why, event.terminal)
        elif silent := self._assembler.silent(self._newest_action_ns or 0):
            self._own_counts["gap"] += 1
            self._start_over(f"no {', '.join(silent)}")
        else:
            boundary = self._contract.episodes.boundary
            self._start_over("end of bag", terminal=isinstance(boundary, BagBoundary) and boundary.end == "terminal")

    def take(self) -> list[Episode]:
        """The episodes completed since the last call."""
        if not self._done:
            return []
        done, self._done = self._done, []
        return done

    def _push_action(self, message: Any, receive_ns: int) -> None:
        chunk = decode_chunk(self._contract, message, receive_ns)
        newest = self._newest_action_ns
        if newest is not None and newest - chunk.stamp_ns >= CLOCK_JUMP_NS:
            self._own_counts["clock_jump"] += 1
            self._assembler.reset()
            self._start_over("clock jump")
            newest = None
        if newest is not None and chunk.stamp_ns <= newest:
            self._own_counts["action_duplicate" if chunk.stamp_ns == newest else "action_out_of_order"] += 1
        if self._settled_ns is not None and chunk.stamp_ns <= self._settled_ns:
            self._own_counts["action_late"] += 1
        self._schedule.add(chunk)
        if newest is None or chunk.stamp_ns > newest:
            self._newest_action_ns = chunk.stamp_ns
        self._stamps[self._action_topic].append(chunk.stamp_ns)
        self._delays[self._action_topic].append(receive_ns - chunk.stamp_ns)
        self._settle()

    def _start_over(self, why: str, terminal: bool = False) -> None:
        """Decide everything with what is known, and forget the clock."""
        self._decide_all()
        if self._broken is None:
            self._cut(why, terminal)
        else:
            self._mend(None)
        self._schedule.clear()
        self._newest_action_ns = None
        self._settled_ns = None
        self._last = None
        self._solved = False
        self.timing.start_over()

    def _tidy(self) -> None:
        """Sum up what is decided, and bound what waits for a message that does not come."""
        self._since_tidied = 0
        if len(self._pending) > _MOST_TICKS:
            self._decide_all(_MOST_TICKS // 2)
        samples, middle_sample = self._assembler.waiting()
        chunks, middle_chunk = self._schedule.waiting()
        if samples > _MOST_SAMPLES or chunks > _MOST_CHUNKS:
            span = self._assembler.forget_waiting(middle_chunk if chunks > _MOST_CHUNKS else middle_sample)
            if span is not None:
                self._schedule.forget_between(*span)
                self.timing.forget_between(*span)
        decided = None if self._last is None else self._last.stamp_ns
        self.timing.gather((self._start_ns, self._end_ns) if self._observations else None, decided)

    def _decide_all(self, but: int = 0) -> None:
        """Decide the ticks that wait for an action with what is known, but not the last so many."""
        while len(self._pending) > but:
            self._settled_ns = self._pending[0].stamp_ns
            self._step(self._pending.popleft())

    def _event_after_last(self) -> _Event | None:
        """The event between the last observation and the next tick, which nobody saw."""
        last = self._last
        if last is None or last.observation is None or self._last_event == len(self._events):
            return None
        event = self._events[self._last_event]
        return event if event.time_ns <= tick_time(last.index + 1, self._contract.rate_fraction) else None

    def _settle(self) -> None:
        """Decide the ticks whose action cannot change any more."""
        newest = self._newest_action_ns
        pending = self._pending
        if newest is None or not pending or pending[0].stamp_ns >= newest:
            return
        while pending and pending[0].stamp_ns < newest:
            self._settled_ns = pending[0].stamp_ns
            self._step(pending.popleft())
        assert self._settled_ns is not None
        self._schedule.forget_before(self._settled_ns)

    def _step(self, tick: Tick) -> None:
        last, self._last = self._last, tick
        if tick.observation is None:
            self._own_counts["gap"] += 1
            self._break(tick)
            return
        if self._broken is not None:
            self._mend(tick)
        self._seen_ns = tick.stamp_ns
        self._seen_ticks.append(tick.stamp_ns)
        for column, age in zip(self._age_columns, tick.ages_ns, strict=True):
            column.append(age)
        event = bisect_right(self._event_times, tick.stamp_ns)
        if last is not None and last.observation is not None:
            if event != self._last_event:
                self._boundary_at(self._events[self._last_event])
            elif tick.index != last.index + 1:
                self._boundary("gap")
            elif self._observations and (missing := self._missing_signals(last.stamp_ns, tick.stamp_ns)):
                self._own_counts["steps_without_reward_message"] += 1
                self._boundary(f"no {', '.join(missing)}")
        self._last_event = event
        action = self._schedule.action_at(tick.stamp_ns)
        if self._solved and action is not None:
            self._own_counts["steps_after_success"] += 1
            return
        if not self._observations:
            self._start_ns = tick.stamp_ns
        self._observations.append(tick.observation)
        self._ticks.append(tick.stamp_ns)
        self._end_ns = tick.stamp_ns
        if self._end_at_success and len(self._observations) > 1 and self._solves(tick.observation):
            self._cut("success", terminal=True)
            self._solved = True
            return
        if self._time_limit is not None and len(self._observations) - 1 == self._time_limit_steps:
            self._boundary(TIME_LIMIT, terminal=self._time_limit.end == "terminal")
            self._observations.append(tick.observation)
            self._ticks.append(tick.stamp_ns)
            self._start_ns = tick.stamp_ns
        if action is None:
            self._own_counts["ticks_without_action"] += 1
            self._boundary("no action in force")
        else:
            self._actions.append(action)

    def _break(self, tick: Tick) -> None:
        """The first tick without an observation: the episode ends, now or once it is known how long the gap is."""
        if self._broken is not None:
            return
        why = f"no {', '.join(tick.missing)}"
        if self._observations and bisect_right(self._event_times, tick.stamp_ns) != self._last_event:
            # The event came before anything was missed: the last observation is the one that it ended.
            self._boundary_at(self._events[self._last_event])
        elif self._gap is None:
            self._boundary(why)
        else:
            self._broken = why

    def _mend(self, tick: Tick | None) -> None:
        """End the episode before a gap, whose length is known with the first observation after it, if there is one."""
        why, self._broken = self._broken, None
        assert self._gap is not None
        assert why is not None
        if tick is not None and tick.stamp_ns - self._seen_ns >= round(self._gap.seconds * NANOSECONDS):
            self._boundary("gap", terminal=self._gap.end == "terminal")
        else:
            self._boundary(why)

    def _boundary_at(self, event: _Event) -> None:
        self._boundary(event.why, event.terminal)

    def _solves(self, observation: FloatArray) -> bool:
        """Whether the last step, which led to this observation, solved the task."""
        try:
            return bool(self._rule.success(observation[None], self._signals_of(self._ticks[-2:])).all())
        except ContractError as error:
            raise ContractError(f"{self._which_episode()}, step {len(self._ticks) - 2}: {error}") from None

    def _missing_signals(self, start_ns: int, end_ns: int) -> list[str]:
        return [] if self._signals is None else self._signals.missing(start_ns, end_ns)

    def _signals_of(self, ticks: array[int]) -> StepSignals | None:
        return None if self._signals is None else self._signals.steps(ticks)

    def _which_episode(self) -> str:
        return f"episode {self._made} of the bag (starts at {self._start_ns / NANOSECONDS:.3f} s)"

    def _boundary(self, why: str, terminal: bool = False) -> None:
        """A cut after which a new episode may begin, also when the last one was solved."""
        self._cut(why, terminal)
        self._solved = False

    def _cut(self, why: str, terminal: bool = False) -> None:
        """End the episode with the last observation; the action that answered it led nowhere that was seen."""
        steps = len(self._observations) - 1
        observations, actions = self._observations.take(), self._actions.take()
        ticks, self._ticks = self._ticks, array("q")
        if steps < self._contract.episodes.min_steps:
            self.timing.close(None)
        if steps < 1:
            return
        self.cuts[why] += 1
        self.longest_run = max(self.longest_run, steps)
        if steps < self._contract.episodes.min_steps:
            self._own_counts["short_episodes"] += 1
            self._own_counts["steps_in_short_episodes"] += steps
            self.too_short.append(LeftOut(ticks[0], ticks[-1], steps, why))
            return
        try:
            rewards, masks = self._rule.label(observations, self._signals_of(ticks))
        except ContractError as error:
            raise ContractError(f"{self._which_episode()}, {error}") from None
        self._made += 1
        if self._signals is not None:
            self._signals.labelled(ticks[0], ticks[-1])
        self.timing.close((self._start_ns, self._end_ns))
        solved_steps = int((masks == 0).sum())
        if terminal:
            masks[-1] = 0.0
        self._done.append(
            Episode(
                observations=observations,
                actions=actions[:steps],
                rewards=rewards,
                masks=masks,
                terminal=terminal,
                start_ns=self._start_ns,
                end_ns=self._end_ns,
                cut=why,
                solved_steps=solved_steps,
            )
        )
