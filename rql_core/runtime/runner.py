"""What decides in the policy node: when an observation is complete, when to plan, what leaves.

The node hands in messages and the time and publishes what comes back; everything else happens here and is tested
without ROS. Owned by one thread.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rql_core.contract import ActionChunk, Contract, Tick, TickAssembler
from rql_core.contract.rates import RateWatch
from rql_core.contract.time import NANOSECONDS, tick_at_or_after, tick_time
from rql_core.errors import ConfigError, ContractError
from rql_core.runtime.clipping import ClippingFilter

# A safe command covers its own tick and the next, so that it is still in force when it arrives.
SAFE_STEPS = 2
# Clocks that are kept in step differ by milliseconds, and simulated time may lag behind its messages by the second
# between two episodes; a stamp further ahead comes from another clock.
FUTURE_NS = 3 * NANOSECONDS // 2


class Actor(Protocol):
    """What can be run: a policy from a checkpoint, or a scripted demonstrator."""

    @property
    def horizon(self) -> int:
        """Steps of a chunk."""

    def reset(self, seed: int | None) -> None:
        """Start an episode; the same seed and observations give the same actions."""

    def act(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Observation (observation_dim,) in physical units -> chunk (horizon, action_dim) in physical units."""


@dataclass(frozen=True)
class Health:
    """What the node says of itself: level is "ok", "warn" or "error"."""

    level: str
    summary: str
    values: dict[str, str]


class PolicyRunner:
    """Plans a chunk whenever one is due: at the first complete observation and every `replan_every` steps.

    `replan_every` 0 means after the whole chunk (open loop). When observations are missing or too old at a tick, one
    chunk with the safe command is given out, and planning starts anew with the next complete observation. Whoever
    interrupts the runner (deactivation, reset, a clock set back) publishes what `stop` gives first, so that no chunk of
    before goes on being executed.
    """

    def __init__(self, contract: Contract, actor: Actor, replan_every: int = 0) -> None:
        if not 0 <= replan_every <= actor.horizon:
            raise ConfigError(
                f"replan_every is {replan_every}, expected 0 (the whole chunk) to {actor.horizon}, the policy's horizon"
            )
        self.contract = contract
        self.assembler = TickAssembler(contract)
        self.filter = ClippingFilter(contract)
        self._rates = RateWatch(contract)
        self.counts: Counter[str] = Counter()
        self.last_error = ""
        self._actor = actor
        self._replan_every = replan_every or actor.horizon
        self._planned: int | None = None
        self._previous: int | None = None
        self._holding: tuple[str, ...] | None = None
        self._sent: ActionChunk | None = None
        self._inference_ms: list[float] = []

    def reset(self, seed: int | None = None, start_ns: int | None = None) -> None:
        """Forget the past and start an episode; observations stamped before `start_ns` are ignored."""
        self.assembler.reset(start_ns)
        self._rates.forget()
        self._actor.reset(seed)
        self.filter.forget()
        self._planned = None
        self._previous = None
        self._holding = None
        self._sent = None

    def push(self, topic: str, message: Any, receive_ns: int, *, check_future: bool = False) -> None:
        """Take a message of an observation topic; one that breaks the contract is counted and not used.

        `check_future`: refuse one that is stamped more than FUTURE_NS after `receive_ns`, the node's own time.
        """
        try:
            stamp = self.assembler.push(
                topic, message, receive_ns, not_after_ns=receive_ns + FUTURE_NS if check_future else None
            )
        except ContractError as error:
            self.counts["refused_messages"] += 1
            self.last_error = str(error)
            return
        if stamp is not None:
            self._rates.add(topic, stamp)

    def poll(self, now_ns: int | None) -> list[ActionChunk]:
        """The chunks to publish now. `now_ns` None: wait for complete observations however long it takes."""
        chunks = [self._decide(tick, now_ns) for tick in self.assembler.take(now_ns)]
        return [chunk for chunk in chunks if chunk is not None]

    def stop(self, now_ns: int | None, *, clock_jumped: bool = False) -> ActionChunk | None:
        """The safe command as a chunk, if anything was commanded since the last stop or reset.

        It follows the last observation, or begins at the tick of `now_ns` where that is later. After a clock jump the
        times of before mean nothing, and it begins at the tick of `now_ns`.
        """
        if self._sent is None:
            return None
        commanded = tick_at_or_after(self._sent.stamp_ns, self.contract.rate_fraction)
        index = 0 if clock_jumped else 1 + max(commanded, self._previous or 0)
        chunk = self._safe_chunk(index, now_ns)
        self._sent = None
        return chunk

    def _safe_chunk(self, index: int, now_ns: int | None) -> ActionChunk | None:
        """The safe command from tick `index` on, or from the tick of `now_ns` where that is later.

        One that is over when it arrives would be dropped and the chunk before it go on: it lasts until the tick after
        the next.
        """
        if now_ns is not None:
            index = max(index, tick_at_or_after(now_ns + 1, self.contract.rate_fraction) - 1)
        stamp = tick_time(index, self.contract.rate_fraction)
        self._note_executed(stamp)
        command = self.filter.safe_command(SAFE_STEPS)
        if command is None:
            return None
        self._sent = ActionChunk.regular(self.contract, stamp, command)
        return self._sent

    def _note_executed(self, stamp_ns: int) -> None:
        """Tell the filter which action was in force just before `stamp_ns`: that is what hold 'last' keeps."""
        if self._sent is None:
            return
        step = self._sent.step_at(stamp_ns - 1)
        if step is not None:
            self.filter.sent(self._sent.actions[min(step, self._sent.horizon - 1)])

    def _decide(self, tick: Tick, now_ns: int | None) -> ActionChunk | None:
        if tick.observation is None:
            self.counts["missing_observations"] += 1
            entered = self._holding is None and self._sent is not None
            self._holding = tick.missing
            self._planned = None
            self._previous = None
            return self._safe_chunk(tick.index, now_ns) if entered else None
        self._holding = None
        if self._previous is not None and tick.index <= self._previous:
            self._planned = None  # the clock was set back: plans of the time before mean nothing now
        self._previous = tick.index
        self.counts["observations"] += 1
        if self._planned is not None and tick.index < self._planned + self._replan_every:
            return None
        self._planned = tick.index
        return self._plan(tick.stamp_ns, tick.observation)

    def _plan(self, stamp_ns: int, observation: npt.NDArray[np.float32]) -> ActionChunk | None:
        started = perf_counter()
        raw = self._actor.act(observation)
        self._inference_ms.append((perf_counter() - started) * 1e3)
        was_latched = self.filter.latched is not None
        self._note_executed(stamp_ns)
        actions = self.filter.apply(raw)
        if was_latched:  # the safe command has gone out; a latched node says nothing more
            return None
        if actions is None:
            return None
        self.counts["chunks"] += 1
        self._sent = ActionChunk.regular(self.contract, stamp_ns, actions)
        return self._sent

    def health(self, now_ns: int) -> Health:
        """State, ages in s, counts, and inference times in ms since the last call."""
        values = {name: str(count) for name, count in sorted({**self.counts, **self.assembler.counts}.items())}
        values |= {f"filter_{name}": str(count) for name, count in sorted(self.filter.counts.items())}
        for topic, stamp in self.assembler.newest_stamps().items():
            values[f"age {topic}"] = "none" if stamp is None else f"{(now_ns - stamp) / 1e9:.3f} s"
        if self._inference_ms:
            middle, high = np.percentile(self._inference_ms, [50, 99])
            values |= {"inference p50": f"{middle:.2f} ms", "inference p99": f"{high:.2f} ms"}
            self._inference_ms.clear()
        if self.last_error:
            values["last refused message"] = self.last_error
        if self.filter.latched is not None:
            return Health("error", f"latched: {self.filter.latched}; call rearm to go on", values)
        if self._holding is not None:
            return Health("warn", f"holding: no fresh observation on {', '.join(self._holding)}", values)
        if self._previous is None:
            return Health("warn", "waiting for observations", values)
        # Nothing is missing, but a recording of such topics would not become training data.
        if slow := self._rates.complaints():
            return Health("warn", f"running on slow topics: {'; '.join(slow)}", values)
        return Health("ok", "running", values)
