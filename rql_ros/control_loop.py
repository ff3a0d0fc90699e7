"""A runner, wired to the topics and timers of a node: observations in, commands out.

Messages and timers are served by the node's thread; inference has another, which asks the critics about a chunk when it
has left and there is time, unless the chunk is to wait for them. `lock` lets one of them at a time decide and publish,
so that nothing leaves after a stop; whoever else touches the runner holds it too.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from time import perf_counter_ns, sleep, time_ns
from typing import Any

from rclpy.clock import ROSClock
from rclpy.node import Node
from rclpy.timer import Timer

from rql_core.contract import ActionChunk, decode_chunk
from rql_core.contract.time import tick_time
from rql_core.errors import ContractError
from rql_core.runtime.inference import InferenceThread
from rql_core.runtime.latency import Deadlines
from rql_core.runtime.plan import Actor, Plan
from rql_core.runtime.runner import PolicyRunner, Request
from rql_core.runtime.spare_time import SpareTime
from rql_ros.controller import Audience, ChunkPublisher, CommandPublisher, subscribe_observations
from rql_ros.messages import message_class, qos_profile
from rql_ros.rehearsing import Rehearsing

# How long the end waits for an inference that is under way; one that takes longer is left behind, and said.
INFERENCE_PATIENCE_S = 2.0
# A timer that comes later than this many periods is a missed deadline: the robot has been without for a whole one.
DEADLINE_PERIODS = 2.0
# Making a chunk anew takes about as long as it took at first, which is allowed for; what is late twice is on a machine
# that cannot keep up.
ATTEMPTS = 2
# An observation that came while another was being planned for is planned for next if it came no longer ago than this
# share of a period: a robot that was held up sends two at once. Where plans take long, the one after it is fresher.
FRESH_PERIODS = 0.5
# Before anything else is done: who receives the chunk wakes up meanwhile, perhaps on the core that would be taken.
GIVE_WAY_S = 0.0004


class ControlLoop:
    """`remark(about, text)` hears what is wrong with a topic, `report(runner)` that there may be news.

    `answered()` is called, with the lock held, when a plan was taken, a little later, unless another is asked for
    already: nobody waits until the next.
    `rehearse`: how often the planning thread goes in vain through what the next observation will ask for, before it
    comes (see Rehearsing); 0: not at all.
    """

    def __init__(
        self,
        node: Node,
        runner: PolicyRunner,
        *,
        output: str,
        command_rate: float,
        remark: Callable[[str, str], None],
        report: Callable[[PolicyRunner], None],
        answered: Callable[[], None] = lambda: None,
        rehearse: int = 0,
        min_subscribers: int = 0,
    ) -> None:
        """Make publishers and subscriptions; raises ContractError for messages that can only be recorded."""
        self.lock = RLock()
        self.runner = runner
        self.active = False
        period_ns = runner.contract.period_ns
        self._wait_ns = min(period_ns, runner.contract.observation.max_wait_ns)
        self.deadlines = Deadlines(self._wait_ns, DEADLINE_PERIODS * period_ns / self._wait_ns)
        self._node = node
        self._clock: ROSClock = node.get_clock()
        self._remark = remark
        self._report = report
        self._answered = answered
        self._lockstep = runner.options.lockstep
        self._command_rate = command_rate or runner.contract.rate
        self._timers: list[Timer] = []
        self._commanded_ns = 0
        self._left_late = self._refused = 0
        # What came while another was being planned for, and when.
        self._next: tuple[Request, int] | None = None
        self._chunks: ChunkPublisher | None = None
        self._commands: CommandPublisher | None = None
        self._observing: list[Any] = []
        contract = runner.contract
        if runner.options.shadow:
            kind, qos = message_class(contract.action.type), qos_profile(contract.action.qos)
            self._observing.append(node.create_subscription(kind, contract.action.topic, self._see_command, qos))
        else:
            if output in ("chunk", "both"):
                self._chunks = ChunkPublisher(node, contract, remark)
            if output in ("command", "both"):
                self._commands = CommandPublisher(node, contract)
        publishers = [publisher for publisher in (self._chunks, self._commands) if publisher is not None]
        self.audience = Audience(min_subscribers, publishers)
        self._observing += subscribe_observations(node, contract, self._observe, remark)
        self._inference: InferenceThread[Request, Plan] | None = None
        self._rehearsing: Rehearsing | None = None
        if not self._lockstep:
            self._rehearsing = Rehearsing(runner, rehearse) if rehearse else None
            idle = self._rehearsing.idle if self._rehearsing is not None else lambda: None
            self._inference = InferenceThread(self._plan, self._planned, idle)
        self._spare = SpareTime()

    def start(self, seed: int | None) -> None:
        """Begin an episode with what is observed from now on."""
        with self.lock:
            self.runner.start(seed, self.time_or_none())
            self._start_timers()
            self.active = True

    def stop(self) -> None:
        """The stop goes out last."""
        with self.lock:
            was_active, self.active = self.active, False
            self._stop_timers()
            if was_active:
                self.interrupt()

    def close(self) -> bool:
        """Stop, and let go of topics and thread; False where an inference would not end and was left behind."""
        self.stop()
        ended = self._inference is None or self._inference.close(INFERENCE_PATIENCE_S)
        for subscription in self._observing:
            self._node.destroy_subscription(subscription)
        for publisher in (self._chunks, self._commands):
            if publisher is not None:
                publisher.destroy(self._node)
        return ended

    def restart_after_clock_jump(self, seed: int | None, back_ns: int) -> None:
        """The clock was set back by `back_ns`: end what was commanded, and begin anew."""
        with self.lock:
            now = self.time_or_none()
            was = None if now is None else now + back_ns
            self._publish_stop(self.runner.stop(now, clock_jumped=now is not None, was_ns=was), now)
            if self.active:
                # Timers of rclpy would sleep until the old time comes again.
                self._stop_timers()
                self._start_timers()
            self.runner.reset(seed)

    def interrupt(self) -> None:
        """The stop for what was commanded so far."""
        with self.lock:
            now = self.time_or_none()
            self._publish_stop(self.runner.stop(now), now)

    def estop(self, why: str) -> None:
        """The stop, and then nothing until the runner is re-armed."""
        with self.lock:
            now = self.time_or_none()
            self._publish_stop(self.runner.estop(now, why), now)

    def now(self) -> int:
        """The node's time in ns."""
        # The system's, where no simulation says otherwise: asked for directly it is there in a third of the time.
        return int(self._clock.now().nanoseconds) if self._clock.ros_time_is_active else time_ns()

    def time_or_none(self) -> int | None:
        """The node's time, or None in lockstep: /clock may run ahead of the topics there, and must not decide."""
        return None if self._lockstep else self.now()

    def figures(self) -> dict[str, str]:
        """How well this loop keeps time."""
        if self._inference is None:
            return {}
        return {
            "deadlines missed": str(self.deadlines.missed),
            "worst delay of the control timer": f"{self.deadlines.worst_ns / 1e6:.1f} ms",
            "plans refused while planning": str(self._refused),
            "chunks that left late": str(self._left_late),
        } | ({} if self._rehearsing is None else self._rehearsing.figures())

    def overdue_s(self) -> float:
        """For how long the policy has been at a plan that should have come within its chunk; 0 where it has not."""
        busy = 0 if self._inference is None else self._inference.busy_ns
        return busy / 1e9 if busy > self.runner.actor.horizon * self.runner.contract.period_ns else 0.0

    def other_types(self) -> list[str]:
        """Publishers of another type on a topic that is observed: DDS keeps them apart, and not every one says so."""
        return [
            f"{spec.topic}: a publisher has another type ({info.topic_type}) than {spec.type}, which the contract says"
            for spec in self.runner.contract.observation.topics
            for info in self._node.get_publishers_info_by_topic(spec.topic)
            if info.topic_type != spec.type
        ]

    def other_publishers(self) -> int:
        """How many others publish on the command topic."""
        return max(0, self._node.count_publishers(self.runner.contract.action.topic) - (self._chunks is not None))

    def _start_timers(self) -> None:
        """Timers by the ROS clock: under use_sim_time nothing grows old while the simulation stands."""
        self.deadlines.reset()
        if self._lockstep:
            return
        self._timers = [self._node.create_timer(self._wait_ns / 1e9, self._watch)]
        if self._commands is not None:
            self._timers.append(self._node.create_timer(1.0 / self._command_rate, self._command))

    def _stop_timers(self) -> None:
        for timer in self._timers:
            self._node.destroy_timer(timer)
        self._timers = []

    def _observe(self, topic: str, message: Any) -> None:
        with self.lock:
            if self.active and self.audience.there():
                now = self.now()
                if self._rehearsing is not None:
                    self._rehearsing.heard(topic, message, now)
                self.runner.push(topic, message, now, check_future=not self._lockstep)
                self._poll(None if self._lockstep else now)

    def _watch(self) -> None:
        """By the timer: what is missing or too old is noticed although nothing comes."""
        self.deadlines.called(self.now())
        with self.lock:
            self._poll(self.now())

    def _poll(self, now: int | None) -> None:
        """With the lock held; `now`: as `time_or_none` says it, since the lock was taken."""
        if not self.active:
            return
        before = self.runner.tick
        self._publish(self.runner.poll(now), now)
        if self._lockstep and self._commands is not None and self.runner.tick not in (None, before):
            self._command_tick(self.runner.tick)
        self._report(self.runner)
        request = self.runner.take_request()
        if request is not None and self._inference is not None:
            self._refused += self._next is not None
            self._next = None if self._inference.ask(request) else (request, perf_counter_ns())

    def _plan(self, request: Request) -> Plan:
        if self._rehearsing is not None:
            self._rehearsing.asked(request)
        return self.runner.actor.plan(request.observation, request.guide)

    def _planned(self, request: Request, answer: Plan | Exception, duration_ns: int) -> None:
        """On the inference thread: a plan has come, or the policy has failed."""
        with self.lock:
            if not self.active:
                return
            now = self.now()
            try:
                self._publish(self.runner.answer(request, answer, now, duration_ns), now)
                self._report(self.runner)
            except Exception as error:  # whatever it is, the robot stops, and the thread goes on
                why = f"a plan could not be taken: {type(error).__name__}: {' '.join(str(error).split())}"
                self._remark("plan", why)
                self.estop(why)
                return
            if self._rehearsing is not None:
                self._rehearsing.answered(request, answer, now, self.runner.schedule.next_due())
            self._ask_next()
            actor, wanted = self.runner.actor, self.runner.wants_values()
        self._give_way(request)
        with self.lock:
            if not self.active:
                return
            if self._inference is None or not self._inference.busy:
                self._answered()
        if wanted and isinstance(answer, Plan) and answer.values is None:
            self._ask_critics(actor, request, answer)

    def _ask_next(self) -> None:
        """With the lock held, when a plan was taken: ask for what came meanwhile, where it is wanted and still new."""
        if self._next is None or self._inference is None:
            return
        (waiting, came_ns), self._next = self._next, None
        request = self.runner.renewed(waiting)
        if request is None:
            return
        fresh = perf_counter_ns() - came_ns <= FRESH_PERIODS * self.runner.contract.period_ns
        self._refused += not (fresh and self._inference.ask(request))

    def _give_way(self, request: Request) -> None:
        """Wait a little, unless the next observation is about to come: it goes before everything."""
        until = tick_time(request.tick + 1, self.runner.contract.rate_fraction)
        if until - self.now() > 2e9 * GIVE_WAY_S and not (self._inference is not None and self._inference.busy):
            sleep(GIVE_WAY_S)

    def _ask_critics(self, actor: Actor, request: Request, plan: Plan) -> None:
        """On the inference thread: what they say of a plan that has left, if there is time before the next tick.

        Ten critics of 4 x 512 take five times as long as the policy.
        """
        if not self._spare.allows(self.now(), tick_time(request.tick + 1, self.runner.contract.rate_fraction)):
            return
        started = perf_counter_ns()
        values, trouble = None, ""
        try:
            values = actor.values(request.observation, plan.actions)
        except Exception as error:  # they only watch: what becomes of them must not end the planning thread
            trouble = f"the critics failed: {type(error).__name__}: {' '.join(str(error).split())}"
        self._spare.took(self.now(), perf_counter_ns() - started)
        with self.lock:
            if not self.active:
                return
            if trouble:
                self._remark("critics", trouble)
            if values is not None:
                self.runner.judge(request, values)
                self._report(self.runner)

    def _publish(self, chunks: list[ActionChunk], now_ns: int | None) -> list[ActionChunk]:
        """Publish what was made at `now_ns`, or what is made instead because that took too long; what left."""
        if chunks and now_ns is not None:
            chunks = self._in_time(chunks, now_ns)
        for chunk in chunks:
            if self._chunks is not None:
                self._chunks.publish(chunk)
        if chunks and now_ns is not None:
            self._left_late += self.runner.late(self.now())
        return chunks

    def _in_time(self, chunks: list[ActionChunk], made_ns: int) -> list[ActionChunk]:
        """Chunks that are not late; a stop leaves however late it is, a plan then does not."""
        for _ in range(ATTEMPTS):
            now = self.now()
            if not self.runner.late(now):
                return chunks
            chunks = self.runner.again(now + max(0, now - made_ns))
            made_ns = now
        return [] if self.runner.late(self.now()) and self.runner.withdraw() else chunks

    def _publish_stop(self, chunk: ActionChunk | None, now_ns: int | None) -> None:
        for left in self._publish([] if chunk is None else [chunk], now_ns):
            if self._commands is not None and not self.active:
                if not self._lockstep:
                    self._play(left)
                self._commands.publish(left.actions[-1])

    def _play(self, stop: ActionChunk) -> None:
        """To whoever takes single commands: the stop one by one at their rate, because no timer will. Takes as long."""
        assert self._commands is not None
        period_ns = round(1e9 / self._command_rate)
        now = self.now()
        # Where the timer would have gone on; it is not asked for the time again, which a simulation may have stopped.
        ago = now - self._commanded_ns  # less than none where the clock was set back since
        time = self._commanded_ns + period_ns if 0 <= ago < period_ns else now
        began, first = perf_counter_ns() + time - now, time
        while time < int(stop.ends_ns[-1]):
            sleep(max(0, began + time - first - perf_counter_ns()) / 1e9)
            command = self.runner.command_at(time)
            if command is not None:
                self._commands.publish(command)
            time += period_ns
        sleep(max(0, began + time - first - perf_counter_ns()) / 1e9)

    def _command_tick(self, tick: int) -> None:
        """A simulation that waits gets one command for each tick that it shows, for the whole of it."""
        command = self.runner.command_of(tick)
        if command is not None and self._commands is not None:
            self._commands.publish(command)

    def _command(self) -> None:
        """A single command, by what has left."""
        with self.lock:
            if self.active and self._commands is not None:
                self._commanded_ns = self.now()
                command = self.runner.command_at(self._commanded_ns)
                if command is not None:
                    self._commands.publish(command)

    def _see_command(self, message: Any) -> None:
        """In shadow: a command of the controller that drives the robot."""
        with self.lock:
            if not self.active:
                return
            try:
                self.runner.commanded(decode_chunk(self.runner.contract, message, self.now()))
            except ContractError as error:
                self._remark("command", str(error))
