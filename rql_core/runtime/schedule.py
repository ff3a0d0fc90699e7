"""What to execute at a time, given the chunks so far, and when to ask for the next.

Inference takes time, so a chunk arrives when some of its steps are over. It is executed from the step of the present
time; what it says of the time before is never made up for. Everything here follows from the chunks, their times of
arrival and the time that is asked about, and from nothing else: not from how often or in which order it is asked
(test/core/runtime/test_schedule_properties.py).

Modes:

- `open_loop`: a chunk is executed to its end; the next is asked for so early that it is there by then.
- `receding`: every `replan_every` steps a new chunk is asked for, which takes over when it arrives.
- `ensemble`: the same, and where chunks overlap their mean is executed, weighted by age (ACT: Zhao et al., arXiv
  2304.13705).
- `rtc`: as `receding`, and each new chunk is held to the one before by a guide (real-time chunking: Black, Galliker and
  Levine, arXiv 2506.07339), which needs a policy that takes one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from rql_core.contract import ActionChunk, Contract
from rql_core.contract.time import NANOSECONDS, tick_at_or_after, tick_time
from rql_core.errors import ConfigError, ContractError
from rql_core.runtime.delay import DelayEstimate
from rql_core.runtime.plan import Guide
from rql_core.runtime.seams import Seams

Mode = Literal["open_loop", "receding", "ensemble", "rtc"]
State = Literal["waiting", "running", "holding", "starved"]

# ACT's weight of a chunk that is i steps younger than the oldest is exp(-0.01 i): nearly a plain mean, and the older
# ones count a little more.
ENSEMBLE_DECAY = 0.01


@dataclass(frozen=True, eq=False)
class _Entry:
    """A chunk, and from when on it is executed."""

    chunk: ActionChunk
    begins_ns: int
    ends_ns: int

    def step_at(self, time_ns: int) -> int | None:
        """The chunk's step at a time; None before it begins and after its end."""
        if not self.begins_ns <= time_ns < self.ends_ns:
            return None
        return self.chunk.step_at(time_ns)


class ChunkSchedule:
    """What to execute, for a policy with chunks of `horizon` steps under a contract.

    Ticks are indices of the contract's grid, times ns of its clock. A chunk begins to be executed when it has arrived
    and its observation's time has come; in `open_loop` not before the end of the chunk before it. Of several the newest
    counts. Beyond its end its last action stays in force for the contract's `max_age`, and after that nothing is.

    One question at a time may be with the policy: whoever waits for an answer does not ask again, whatever `due` says.
    Questions about a time before the newest chunk's observation are not answered: what they need is forgotten. After
    `clear` it is as new, but for the delay estimate and what it has counted. Owned by one thread.
    """

    def __init__(
        self,
        contract: Contract,
        horizon: int,
        mode: Mode = "receding",
        *,
        replan_every: int = 0,
        ensemble_decay: float = ENSEMBLE_DECAY,
        delay: DelayEstimate | None = None,
    ) -> None:
        """`replan_every` 0: half a chunk, in `ensemble` every step. Raises ConfigError for what makes no sense."""
        if mode not in get_args(Mode):
            raise ConfigError(f"chunk mode is {mode!r}, expected one of {', '.join(get_args(Mode))}")
        if horizon < 1:
            raise ConfigError(f"horizon is {horizon}, expected at least 1")
        if not 0 <= replan_every <= horizon:
            raise ConfigError(
                f"replan_every is {replan_every}, expected 0 (the mode's own) to {horizon}, the policy's horizon"
            )
        if mode == "open_loop" and replan_every not in (0, horizon):
            raise ConfigError(
                f"replan_every is {replan_every}, but mode open_loop executes whole chunks: leave it 0, or take "
                "mode receding"
            )
        if not np.isfinite(ensemble_decay):
            raise ConfigError(f"ensemble_decay is {ensemble_decay}, expected a finite number")
        own = {"open_loop": horizon, "ensemble": 1}.get(mode, max(1, horizon // 2))
        self.mode: Mode = mode
        self.horizon = horizon
        self.replan_every = replan_every or own
        self.delay = delay or DelayEstimate()
        self.counts: Counter[str] = Counter()
        self._decay = ensemble_decay
        self._action_dim = contract.action_dim
        self._rate = contract.rate_fraction
        self._period_ns = contract.period_ns
        self._max_age_ns = contract.action.max_age_ns
        features = contract.action.features
        self._seams = Seams(np.array([feature.upper - feature.lower for feature in features]))
        self._entries: list[_Entry] = []
        self._starved_ns = 0

    # Asking for chunks

    def due(self, tick: int) -> bool:
        """Whether to ask for a chunk that answers the observation of this tick."""
        first = self.next_due()
        return first is None or tick >= first

    def next_due(self) -> int | None:
        """The tick from which on a chunk is asked for; None: any tick, because there is no chunk yet.

        That is after `replan_every` steps, and so early that the expected delay leaves no gap.
        """
        if not self._entries:
            return None
        newest = self._entries[-1]
        answered = tick_at_or_after(newest.chunk.stamp_ns, self._rate)
        ends = tick_at_or_after(newest.ends_ns, self._rate)
        wanted = ends if self.mode == "open_loop" else answered + self.replan_every
        return max(answered + 1, min(wanted, ends - self.delay.steps))

    def guide(self, tick: int, delay_steps: int | None = None) -> Guide | None:
        """What a new chunk for the observation of this tick is held to; None but in mode `rtc`.

        `delay_steps` None: the expected delay. Step j of the new chunk is held to what is going to be executed at its
        time, by weight (equation 5 of arXiv 2506.07339; o steps have something to be held to, d is the delay, or all
        that is left where that is less):

            1                             j < d
            c (e^c - 1) / (e - 1)         d <= j < o, with c = (o - j) / (o - d + 1)
            0                             o <= j

        None also where nothing is going to be executed at that tick, or it is not finite.
        """
        if self.mode != "rtc":
            return None
        previous = np.zeros((self.horizon, self._action_dim))
        overlap = 0
        while overlap < self.horizon:
            action = self._action(tick_time(tick + overlap, self._rate))
            if action is None:
                break
            previous[overlap] = action
            overlap += 1
        if overlap == 0 or not np.isfinite(previous).all():
            return None
        previous[overlap:] = previous[overlap - 1]
        delay = min(max(0, self.delay.steps if delay_steps is None else delay_steps), overlap)
        return Guide(previous, guide_weights(self.horizon, delay, overlap))

    # Taking chunks

    def add(self, chunk: ActionChunk, arrived_ns: int) -> bool:
        """Take a chunk that arrives now; whether it is going to be executed.

        Refused and counted are those that answer an observation not newer than the newest chunk's ("refused_stale"),
        and those of which nothing is left when they could begin ("refused_over"). The delay is learnt from these too.
        Raises ContractError for one of another width than the contract's actions.
        """
        if chunk.actions.shape[1] != self._action_dim:
            raise ContractError(f"chunk has {chunk.actions.shape[1]} numbers a step, expected {self._action_dim}")
        took = tick_at_or_after(arrived_ns, self._rate) - tick_at_or_after(chunk.stamp_ns, self._rate)
        self.counts["late"] += took > self.delay.steps
        self.delay.add(took)
        last = self._entries[-1] if self._entries else None
        if last is not None and chunk.stamp_ns <= last.chunk.stamp_ns:
            self.counts["refused_stale"] += 1
            return False
        begins = max(arrived_ns, chunk.stamp_ns)
        if last is not None:
            begins = max(begins, last.ends_ns if self.mode == "open_loop" else last.begins_ns)
        entry = _Entry(chunk, begins, int(chunk.ends_ns[-1]))
        if entry.ends_ns <= begins:
            self.counts["refused_over"] += 1
            return False
        gap = begins - self._covered_until_ns if last is not None else 0
        if gap > 0:
            self.counts["starvations"] += 1
            self._starved_ns += gap
        before = self.action_at(begins - 1)
        self._entries.append(entry)
        self.counts["chunks"] += 1
        after = self._action(begins)
        assert after is not None
        self._seams.add(begins, before, after, chunk.actions[chunk.step_at(begins) :])
        # Who interpolates asks for the step before the present one, and chunks may come ahead of their time.
        self._forget_before(min(chunk.stamp_ns, arrived_ns) - 2 * self._period_ns)
        return True

    def postpone(self, arrived_ns: int) -> None:
        """The newest chunk, which is going to be executed, is there only now; the delay is learnt from that too."""
        newest = self._entries[-1]
        answered = tick_at_or_after(newest.chunk.stamp_ns, self._rate)
        self.delay.add(tick_at_or_after(arrived_ns, self._rate) - answered)
        self._entries[-1] = replace(newest, begins_ns=max(newest.begins_ns, arrived_ns))

    def withdraw(self) -> None:
        """The newest chunk, which was going to be executed, is not: it would be there too late."""
        newest = self._entries.pop()
        self.counts["chunks"] -= 1
        self._seams.drop_after(newest.begins_ns - 1)

    def clear(self, time_ns: int | None = None) -> None:
        """Forget the chunks: an episode begins, or the clock was set back.

        `time_ns`: now, until when a gap that is open is counted; None: not known, and it is not.
        """
        if time_ns is not None and self._entries:
            starved = time_ns - self._covered_until_ns
            if starved > 0:
                self.counts["starvations"] += 1
                self._starved_ns += starved
            self._seams.drop_after(time_ns)
        self._entries.clear()

    # What is in force

    def action_at(self, time_ns: int) -> npt.NDArray[np.float64] | None:
        """The action (action_dim,) in force, physical; None when there is none."""
        action = self._action(time_ns)
        if action is not None:
            return action
        if self._begun(time_ns) is None:
            return None
        ends = self._begun_end_ns(time_ns)
        return self._action(ends - 1) if time_ns < ends + self._max_age_ns else None

    def state_at(self, time_ns: int) -> State:
        """`waiting`: no chunk has begun yet; `holding`: all are over, the last action of one stays in force;
        `starved`: and not even that.
        """
        if self._begun(time_ns) is None:
            return "waiting"
        if self._action(time_ns) is not None:
            return "running"
        return "starved" if self.action_at(time_ns) is None else "holding"

    def hand_overs(self, after_ns: int, until_ns: int) -> list[int]:
        """The times at which chunks began, later than one time and not later than the other."""
        return [entry.begins_ns for entry in self._entries if after_ns < entry.begins_ns <= until_ns]

    def ahead(self, time_ns: int) -> npt.NDArray[np.float64] | None:
        """What is in force from a time on, (steps, action_dim), until the end of the newest chunk whose observation is
        not later than that; None where no chunk is in force.

        The first row is for what is left of the present step, each following one for a step.
        """
        newest = self._entries[-1] if self._entries else None
        if newest is not None and self.mode != "ensemble" and newest.begins_ns <= time_ns:
            step = newest.step_at(time_ns)
            return None if step is None else newest.chunk.actions[step:]
        if self._action(time_ns) is None:
            return None
        chunk = next(
            entry.chunk for entry in reversed(self._entries) if entry.chunk.stamp_ns <= time_ns < entry.ends_ns
        )
        rows = []
        for start in (time_ns, *chunk.ends_ns[chunk.step_at(time_ns) : -1].tolist()):
            row = self.action_at(start)
            if row is None:
                break  # a newer chunk, which has not begun yet, ends before this one does
            rows.append(row)
        return np.array(rows)

    def figures(self, time_ns: int) -> dict[str, float]:
        """Counts since the beginning, seams of the last hand-overs (see Seams.figures), and the expected delay.

        `starvations`: how often nothing was in force after something had been, `starved_s` for how long altogether,
        both with a gap that is still open. `late`: chunks that took longer than was expected.
        """
        gap = max(0, time_ns - self._covered_until_ns) if self._entries else 0
        names = ("chunks", "late", "refused_stale", "refused_over")
        return {
            **{name: float(self.counts[name]) for name in names},
            "starvations": float(self.counts["starvations"] + (gap > 0)),
            "starved_s": (self._starved_ns + gap) / NANOSECONDS,
            "delay_steps": float(self.delay.steps),
            **self._seams.figures(time_ns),
        }

    def _action(self, time_ns: int) -> npt.NDArray[np.float64] | None:
        """What a chunk that is not over says, or in `ensemble` the mean of all that are not."""
        if self.mode == "ensemble":
            return self._mean(time_ns)
        begun = self._begun(time_ns)
        step = None if begun is None else begun.step_at(time_ns)
        if begun is None or step is None:
            return None
        action: npt.NDArray[np.float64] = begun.chunk.actions[step]
        return action

    def _mean(self, time_ns: int) -> npt.NDArray[np.float64] | None:
        rows, stamps = [], []
        for entry in self._entries:
            step = entry.step_at(time_ns)
            if step is not None:
                rows.append(entry.chunk.actions[step])
                stamps.append(entry.chunk.stamp_ns)
        if not rows:
            return None
        # Entries are ordered by stamp. Ages are counted from whichever weighs most, so that no weight overflows.
        reference = stamps[0] if self._decay >= 0 else stamps[-1]
        ages = (np.array(stamps, dtype=np.int64) - reference) / self._period_ns
        weights = np.exp(-self._decay * ages)
        mean: npt.NDArray[np.float64] = weights @ np.stack(rows) / weights.sum()
        return mean

    def _begun(self, time_ns: int) -> _Entry | None:
        """The newest chunk that has begun."""
        for entry in reversed(self._entries):
            if entry.begins_ns <= time_ns:
                return entry
        return None

    def _begun_end_ns(self, time_ns: int) -> int:
        """When what has begun by a time is over: the newest chunk, or in `ensemble` the last of all."""
        ends = [entry.ends_ns for entry in self._entries if entry.begins_ns <= time_ns]
        return max(ends) if self.mode == "ensemble" else ends[-1]

    @property
    def _covered_until_ns(self) -> int:
        """Until when something is in force, the last action's holding included."""
        return self._begun_end_ns(self._entries[-1].begins_ns) + self._max_age_ns

    def _forget_before(self, time_ns: int) -> None:
        """Drop what no question about this time or later can need."""
        begun = self._begun(time_ns)
        if begun is None:
            return
        at = self._entries.index(begun)
        kept: list[_Entry] = []
        if self.mode == "ensemble":
            kept = [entry for entry in self._entries[:at] if entry.ends_ns + self._max_age_ns > time_ns]
        self._entries = kept + self._entries[at:]


def guide_weights(horizon: int, delay: int, overlap: int) -> npt.NDArray[np.float32]:
    """How firmly each of `horizon` steps is held, when the first `overlap` have something to be held to.

    `delay` steps of these, which must not be more, are frozen: see ChunkSchedule.guide. float32 (horizon,).
    """
    steps = np.arange(horizon)
    share = (overlap - steps) / (overlap - delay + 1)
    soft = share * np.expm1(share) / np.expm1(1.0)
    return np.where(steps < delay, 1.0, np.where(steps < overlap, soft, 0.0)).astype(np.float32)
