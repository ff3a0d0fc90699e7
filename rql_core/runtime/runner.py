"""What decides in a node that drives a robot: when to plan, what may leave, when to stop.

The node hands in messages, answers and the time, and publishes what comes back; everything else happens here and is
tested without ROS. Two ways of running:

- in lockstep a simulation waits for us: planning happens in `poll`, no time passes, nothing is late; one that shows
  the same tick once more has not heard the answer, and gets it again;
- otherwise `poll` leaves a `Request`, which is planned for elsewhere (InferenceThread), and `answer` takes the plan.

What leaves is made by a Commander. Owned by one thread, or guarded by its owner's lock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.acting import NO_FLOW_TO_GUIDE
from rql_core.contract import ActionChunk, Contract, Tick, TickAssembler
from rql_core.contract.rates import RateWatch
from rql_core.contract.time import NANOSECONDS
from rql_core.errors import ConfigError, ContractError
from rql_core.runtime.commander import Commander, Request
from rql_core.runtime.comparison import ShadowComparison
from rql_core.runtime.critic_monitor import CriticMonitor
from rql_core.runtime.latency import Latencies
from rql_core.runtime.options import Options
from rql_core.runtime.permission import Permission
from rql_core.runtime.plan import Actor, Plan
from rql_core.runtime.safety import SafetyFilter
from rql_core.runtime.schedule import ChunkSchedule
from rql_core.runtime.watch import ObservationWatch

# Clocks that are kept in step differ by milliseconds, and simulated time may lag behind its messages by the time
# between two episodes; a stamp further ahead comes from another clock.
FUTURE_NS = 3 * NANOSECONDS // 2


class PolicyRunner:
    """Runs an actor under a contract.

    `reason()` says why nothing is commanded, None while it is. `counts` are what happened, `last_error` what went
    wrong last. Whoever interrupts (deactivation, a clock set back) publishes what `stop` gives, so that nothing of
    before goes on being executed.
    """

    def __init__(
        self,
        contract: Contract,
        actor: Actor,
        options: Options | None = None,
        *,
        monitor: CriticMonitor | None = None,
    ) -> None:
        """Raises ConfigError for options that do not fit the actor, ContractError for a contract without limits."""
        self.contract = contract
        self.options = options or Options()
        self.actor = actor
        self.assembler = TickAssembler(contract)
        stale = contract.stale
        self.watch = ObservationWatch(
            round(stale.hold_after * NANOSECONDS),
            round(stale.stop_after * NANOSECONDS),
            0 if self.options.lockstep else round(stale.recover_after * NANOSECONDS),
            recovers=stale.after_stop == "recover",
        )
        self.rates = RateWatch(contract)
        self.monitor = monitor
        self.latencies = Latencies()
        self.counts: Counter[str] = Counter()
        self.last_error = ""
        # Why the last plan could not leave from where the joints are; empty where it left.
        self.cannot_begin = ""
        _check_mode(actor, self.options)
        self._commander = Commander(contract, actor.horizon, self.options, self.counts)
        self._permission = Permission(self.watch, self.filter, on_trigger=self.options.on_trigger)
        self._generation = 0
        # Of the plans that may come: more than one while one of a policy before is under way.
        self._horizons = {actor.horizon}
        self._request: Request | None = None
        self._previous: int | None = None
        self._measured: tuple[int, npt.NDArray[np.float64] | None] | None = None
        # The node's time when it was last said; in lockstep that of the topics counts alone.
        self._latest_ns: int | None = None
        # In lockstep: what answered the newest tick, and the topics that have come again since.
        self._last_answer: list[ActionChunk] = []
        self._repeated: set[str] = set()

    @property
    def filter(self) -> SafetyFilter:
        """What every command passes."""
        return self._commander.filter

    @property
    def schedule(self) -> ChunkSchedule:
        """What was planned, and when to plan."""
        return self._commander.schedule

    @property
    def comparison(self) -> ShadowComparison | None:
        """In shadow, with what the present controller commands."""
        return self._commander.comparison

    # What may be changed while it runs

    def set_options(self, options: Options) -> None:
        """Plan and watch like that from the next chunk on; lockstep and shadow stay. Raises ConfigError."""
        _check_mode(self.actor, options)
        self._commander.change(self.actor.horizon, options)
        self.options = options
        self._permission.on_trigger = options.on_trigger

    def set_actor(self, actor: Actor, monitor: CriticMonitor | None) -> None:
        """Plan with another policy from the next chunk on; what is in force stays. Raises ConfigError.

        A plan that is under way is still taken: it was asked for because what is in force is about to end.
        """
        _check_mode(actor, self.options)
        self._commander.change(actor.horizon, self.options)
        self._commander.renew_schedule()
        self.actor = actor
        self.monitor = monitor
        self._permission.unusual = False
        if self._request is not None:
            self._request = replace(self._request, guide=None)
        self._horizons.add(actor.horizon)
        self.latencies.reset()

    # What comes in

    def start(self, seed: int | None, now_ns: int | None) -> None:
        """Begin after a time in which others may have commanded; only from a stop that still goes on it goes on."""
        if now_ns is None or not self._commander.in_force(self._commander.tick_from(now_ns)):
            self._commander.clear()
        self._latest_ns = now_ns
        self.reset(seed)

    def reset(self, seed: int | None = None, start_ns: int | None = None) -> None:
        """Forget the past and start an episode; observations stamped before `start_ns` are ignored.

        A latch, an emergency stop and a stop that waits for `rearm` stay.
        """
        self.actor.reset(seed)
        self._forget_past(start_ns)
        if self.monitor is not None:
            self.monitor.reset()

    def _forget_past(self, start_ns: int | None) -> None:
        self.assembler.reset(start_ns)
        self._repeated.clear()
        self.rates.forget()
        self.watch.reset()
        self._commander.reset()
        self._forget_plans()
        self._permission.unusual = False
        self.cannot_begin = ""
        self._previous = None
        self._measured = None

    def push(self, topic: str, message: Any, receive_ns: int, *, check_future: bool = False) -> None:
        """Take a message of an observation topic; one that breaks the contract is counted and not used.

        `check_future`: refuse one that is stamped more than FUTURE_NS after `receive_ns`, the node's own time.
        """
        duplicates = self.assembler.counts["duplicate"]
        try:
            stamp = self.assembler.push(
                topic, message, receive_ns, not_after_ns=receive_ns + FUTURE_NS if check_future else None
            )
        except ContractError as error:
            self.counts["refused_messages"] += 1
            self.last_error = str(error)
            return
        if stamp is not None:
            self.rates.add(topic, stamp)
        elif self.assembler.counts["duplicate"] > duplicates:
            self._repeated.add(topic)

    def poll(self, now_ns: int | None) -> list[ActionChunk]:
        """The chunks to publish now. `now_ns` None: wait for complete observations however long it takes."""
        chunks = [] if now_ns is None else self._notice_jump(now_ns)
        for tick in self.assembler.take(now_ns):
            chunks += self._take(tick, now_ns)
        if now_ns is not None:
            self.watch.look(now_ns)
            chunks += self._settle(now_ns)
        elif len(self._repeated) == len(self.contract.observation.topics):
            # Where two nodes have just discovered each other, what one of them hears first comes a while before what
            # the other does.
            self._repeated.clear()
            self.counts["answered_again"] += bool(self._last_answer)
            chunks += self._last_answer
        return chunks

    def take_request(self) -> Request | None:
        """The newest observation that a plan is wanted for; None where none is, or it was taken."""
        request, self._request = self._request, None
        return request

    def renewed(self, request: Request) -> Request | None:
        """The request as it would be made now, when the answer to another has come; None where it would not be."""
        forgotten = request.generation != self._generation or request.tick < self._commander.held_from
        if forgotten or not self.schedule.due(request.tick):
            return None
        return replace(request, guide=self.schedule.guide(request.tick))

    def answer(self, request: Request, answer: Plan | Exception, now_ns: int, duration_ns: int) -> list[ActionChunk]:
        """The chunks to publish when a plan has come, or the policy has failed."""
        self.latencies.add(duration_ns)
        if not (isinstance(answer, Exception) or _is_numbers(getattr(answer, "actions", None))):
            answer = TypeError(f"it answered {answer!r:.80}, expected a plan of numbers")
        jumped = self._notice_jump(now_ns)
        if request.generation != self._generation:
            self.counts["dropped_plans"] += 1
            return jumped
        self.watch.look(now_ns)
        if self._permission.refusal(now_ns) is not None:
            self.counts["dropped_plans"] += 1
            return self._settle(now_ns)
        return self._answer(request, answer, max(now_ns, request.stamp_ns), now_ns)

    def wants_values(self) -> bool:
        """Whether the critics' values of plans are of use."""
        return self.monitor is not None and self.options.monitor != "off"

    def judge(self, request: Request, values: npt.NDArray[np.float32]) -> None:
        """What the critics say, in values (critics,), of a plan that has left already; unusual ones can only warn."""
        if request.generation == self._generation:
            self._judge(values)

    def commanded(self, chunk: ActionChunk) -> None:
        """In shadow: what the present controller commands."""
        self._commander.heard(chunk)

    def late(self, now_ns: int) -> bool:
        """Whether the newest chunk would leave too late now: `again` makes one that does not."""
        return self._commander.late(now_ns)

    def again(self, now_ns: int) -> list[ActionChunk]:
        """The chunks to publish, to leave at `now_ns`, instead of the newest one, which is forgotten."""
        self.counts["made_again"] += 1
        try:
            return self._commander.again(now_ns)
        except ContractError as error:
            self._cannot_begin(error)
            return []

    def withdraw(self) -> bool:
        """Forget the newest chunk, which was made anew and would be late again; False where that has to leave: a stop.

        What left before it ends at rest.
        """
        withdrawn = self._commander.withdraw()
        self.counts["withdrawn"] += withdrawn
        return withdrawn

    # What a person asks for

    def run(self, now_ns: int, limit_ns: int) -> str | None:
        """Command for so long, where that waits for being triggered; None, or what stands against it.

        What was refused is not made up for.
        """
        reason, anew = self._permission.run(now_ns, limit_ns)
        if reason is None:
            self._commander.anew = self._commander.anew or anew
        return reason

    def estop(self, now_ns: int | None, why: str) -> ActionChunk | None:
        """End commanding until `rearm`, whatever else happens; the stop within the limits is the last that leaves."""
        self._permission.estopped = self.estopped or why
        return self.stop(now_ns)

    def rearm(self, now_ns: int) -> None:
        """Let commands pass again after a latch, an emergency stop or a stop for lack of observations.

        Raises ContractError, and changes nothing, where commands cannot begin from where the joints are.
        """
        if self._measured is None and self.filter.limits.position_from is not None:
            raise ContractError(
                "nothing was observed yet, and commands begin where the joints are; wait, and ask again"
            )
        measured = None if self._measured is None else self._measured[1]
        self.filter.rearm(now_ns, measured)
        self._permission.rearm()
        self._commander.anew = True
        if self.monitor is not None:
            self.monitor.reset()

    def stop(self, now_ns: int | None, *, clock_jumped: bool = False, was_ns: int | None = None) -> ActionChunk | None:
        """The stop as a chunk, if anything was commanded since the last one or a reset; plans on their way are dropped.

        It follows the last observation, or begins at the tick of `now_ns` where that is known. After a clock jump the
        times of before mean nothing, and what was in force at `was_ns`, or when anything was last asked, is taken over
        to `now_ns`.
        """
        self._forget_plans()
        self._permission.end_run()
        following = 1 + (self._previous or 0)
        runs_on = False
        if clock_jumped and now_ns is not None:
            was_ns = self._latest_ns if was_ns is None else was_ns
            from_tick = following if was_ns is None else self._commander.tick_from(was_ns)
            runs_on = self._commander.take_over(now_ns, from_tick)
            self._latest_ns = now_ns
        if not self.commanding and not runs_on:
            return None
        return self._commander.hold(following if now_ns is None else self._commander.tick_from(now_ns))

    def _notice_jump(self, now_ns: int) -> list[ActionChunk]:
        """Where the clock was set back, and nobody said so: the stop at the new time; all begins anew."""
        latest = self._latest_ns
        if self.options.lockstep or latest is None or now_ns > latest - self.contract.period_ns:
            self._latest_ns = now_ns
            return []
        chunk = self.stop(now_ns, clock_jumped=True)
        self._forget_past(None)
        return [] if chunk is None else [chunk]

    # What leaves, and why not

    @property
    def commanding(self) -> bool:
        """Whether what was planned is being executed, as far as this side knows."""
        return self._commander.commanding

    def reason(self, now_ns: int | None = None) -> str | None:
        """Why nothing is commanded; None where nothing stands against it."""
        return self._permission.reason(now_ns)

    @property
    def estopped(self) -> str | None:
        """Why commanding was ended until `rearm`; None where it was not."""
        return self._permission.estopped

    @property
    def needs_rearm(self) -> bool:
        """Whether commanding has ended until a person calls for it."""
        return self._permission.needs_rearm

    def command_at(self, time_ns: int) -> npt.NDArray[np.float64] | None:
        """The single command (action_dim,) for a time, from what has left; None where nothing is in force."""
        return self._commander.command_at(time_ns)

    @property
    def tick(self) -> int | None:
        """The newest tick that was observed, or known to be missing; None before there was any since a reset."""
        return self._previous

    def command_of(self, tick: int) -> npt.NDArray[np.float64] | None:
        """The single command (action_dim,) for a whole tick, for a simulation that waits; None: nothing is in force."""
        return self._commander.command_of(tick)

    # How

    def _forget_plans(self) -> None:
        self._generation += 1
        self._request = None
        self._last_answer = []

    def _take(self, tick: Tick, now_ns: int | None) -> list[ActionChunk]:
        if self._previous is not None and tick.index <= self._previous:
            self.schedule.clear()  # the clock was set back: plans of the time before mean nothing now
            self._forget_plans()
            if self.options.lockstep:
                self._commander.clear()
                self._commander.commanding = False
        self._previous = tick.index
        self._last_answer = []
        self._repeated.clear()
        self.watch.take(tick)
        # In lockstep it is the tick's time: the simulation stands until it is answered.
        time_ns = tick.stamp_ns if now_ns is None else now_ns
        chunks = self._settle(time_ns)
        if tick.observation is None:
            self.counts["missing_observations"] += 1
            return chunks
        self.counts["observations"] += 1
        self._measured = (tick.stamp_ns, self.filter.measured_position(tick.observation))
        self._commander.compare(tick.index)
        may = self._permission.refusal(time_ns) is None and tick.index >= self._commander.held_from
        if may and self.schedule.due(tick.index):
            guide = self.schedule.guide(tick.index)
            request = Request(self._generation, tick.index, tick.stamp_ns, tick.observation, guide)
            if self.options.lockstep:
                chunks += self._plan(request)
            else:
                self._request = request
        return chunks

    def _plan(self, request: Request) -> list[ActionChunk]:
        started = perf_counter_ns()
        answer: Plan | Exception
        try:
            answer = self.actor.plan(request.observation, request.guide)
        except Exception as error:  # as on the inference thread: a failure becomes the stop, and latches
            answer = error
        self.latencies.add(perf_counter_ns() - started)
        self._last_answer = self._answer(request, answer, request.stamp_ns, request.stamp_ns)
        return self._last_answer

    def _settle(self, now_ns: int) -> list[ActionChunk]:
        """The stop, where something stands against commanding on."""
        if not self.commanding or self.reason(now_ns) is None:
            return []
        self._forget_plans()
        chunk = self._commander.hold(self._commander.tick_from(now_ns))
        return [] if chunk is None else [chunk]

    def _judge(self, values: npt.NDArray[np.float32] | None) -> bool:
        """Whether the critics find so many plans unusual that nothing may leave."""
        if self.wants_values() and self.monitor is not None and values is not None and len(values):
            self.monitor.judge(values)
            self._permission.unusual = self.monitor.alarm and self.options.monitor == "hold"
        elif not self.wants_values():
            self._permission.unusual = False
        return self._permission.unusual

    def _answer(self, request: Request, answer: Plan | Exception, arrived_ns: int, now_ns: int) -> list[ActionChunk]:
        if isinstance(answer, Exception):
            self.counts["policy_errors"] += 1
            self.last_error = f"the policy failed: {type(answer).__name__}: {' '.join(str(answer).split())}"
            actions = np.full((self.actor.horizon, self.contract.action_dim), np.nan)
        else:
            actions = answer.actions
            if self._judge(answer.values):
                return self._settle(arrived_ns)
        width = self.contract.action_dim
        expected = {(horizon, width) for horizon in self._horizons}
        self._horizons = {self.actor.horizon}
        if actions.shape not in expected:
            self.counts["policy_errors"] += 1
            self.last_error = f"the policy answered {actions.shape}, expected {(self.actor.horizon, width)}"
            actions = np.full((self.actor.horizon, width), np.nan)
        try:
            left = self._commander.leave(request, actions, arrived_ns, now_ns)
        except ContractError as error:
            self._cannot_begin(error)
            return []
        self.cannot_begin = ""
        return left

    def _cannot_begin(self, error: ContractError) -> None:
        self.counts["cannot_begin"] += 1
        self.cannot_begin = self.last_error = str(error)


def _is_numbers(found: object) -> bool:
    return isinstance(found, np.ndarray) and found.dtype.kind in "fiu"


def _check_mode(actor: Actor, options: Options) -> None:
    """Raise ConfigError for real-time chunking with an actor that cannot be held to a chunk."""
    if options.mode == "rtc" and not getattr(actor, "takes_guide", True):
        raise ConfigError(f"mode is 'rtc', but {NO_FLOW_TO_GUIDE.format('this policy')}")
