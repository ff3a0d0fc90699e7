"""The policy node: a checkpoint, run on a robot's topics.

configure: verify, load and warm up the checkpoint, check that it fits the contract. activate: observe and command.
deactivate: the stop goes out last. When to plan, what may leave and when to stop is decided in rql_core.runtime; how it
is wired to topics and timers is in control_loop; here are the lifecycle and what a person asks for.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from threading import Thread
from time import monotonic_ns
from typing import Any

from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.task import Future
from std_srvs.srv import Trigger

from rql_core.contract import Contract, load_contract
from rql_core.errors import ContractError, RqlError
from rql_core.resources import config_file
from rql_core.runtime.health import Health, health_of
from rql_core.runtime.policy import DeployedPolicy, check_contract
from rql_core.runtime.runner import PolicyRunner
from rql_core.runtime.spare_time import Postponed
from rql_ros.control_loop import INFERENCE_PATIENCE_S, ControlLoop
from rql_ros.controller import EpisodeControl
from rql_ros.policy_parameters import ACTING, RUNNING, acting_of, declare_parameters, options_of, refuse_nonsense
from rql_ros.policy_reports import Reports
from rql_ros.running import run_node

# A policy at its limits changes a command at every step: the log says so now and then, /diagnostics counts.
CHANGE_LOG_S = 10.0


# Health is told once a second, when a chunk has left; where none does, at most so much later.
REPORT_NS, REPORT_PATIENCE_NS = 1_000_000_000, 200_000_000
REPORT_CHECK_S = 0.25

# A simulation that leaves out the time between two episodes; steps of /clock and hiccups of a clock are shorter.
FORWARD_JUMP_NS = 250_000_000


# By the wall: a simulation that waits for the policy stands still for less.
CLOCK_STANDS_NS = 3_000_000_000


class PolicyNode(LifecycleNode):
    """A lifecycle node with `autostart`."""

    def __init__(self, **options: Any) -> None:
        """`options` go to rclpy's Node, such as `parameter_overrides`."""
        super().__init__("policy_node", **options)
        declare_parameters(self)
        self.exit_code: int | None = None
        self._loop: ControlLoop | None = None
        self._policy: DeployedPolicy | None = None
        self._checkpoint = Path()
        self._remarks: dict[str, str] = {}
        # Kept here too: a runner is made anew by every configure, and an emergency stop must outlast that.
        self._estopped: str | None = None
        self._last_change: Any = None
        # The node's time when it was last seen to go on, and when that was, by the wall.
        self._clock_read = 0, monotonic_ns()
        self._reports = Reports(self)
        self._control = EpisodeControl(self, self._active_loop)
        for name, serve in (
            ("rearm", self._rearm),
            ("estop", self._estop),
            ("run", self._run),
            ("reload", self._reload),
        ):
            self.create_service(Trigger, f"~/{name}", serve)
        refuse_nonsense(self, self._accept)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._reporting = Postponed(REPORT_NS, REPORT_PATIENCE_NS)
        self._report_timer = self.create_timer(REPORT_CHECK_S, self._report_in_time, clock=steady)
        self._jumps = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=Duration(nanoseconds=FORWARD_JUMP_NS),
                min_backward=Duration(nanoseconds=-1),
                on_clock_change=True,
            ),
            post_callback=self._clock_jumped,
        )
        if self._value("autostart"):
            self._autostart_timer = self.create_timer(0.0, self._autostart, clock=steady)

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _active_loop(self) -> ControlLoop | None:
        return self._loop if self._loop is not None and self._loop.active else None

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        for transition in (self.trigger_configure, self.trigger_activate):
            if transition() != TransitionCallbackReturn.SUCCESS:
                self.exit_code = 1
                return

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and verify; on failure say why in one line and stay unconfigured."""
        try:
            self._configure()
        except Exception as error:  # rclpy would swallow it without a word, and say only that configuring failed
            self.get_logger().fatal(f"not configured: {_in_one_line(error)}")
            self._release()
            return TransitionCallbackReturn.FAILURE
        self._report()
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        checkpoint = Path(str(self._value("checkpoint")))
        policy, contract = self._load(checkpoint)
        runner = PolicyRunner(contract, policy, options_of(self), monitor=policy.make_monitor())
        if self._estopped is not None:
            runner.estop(None, self._estopped)
        self._loop = ControlLoop(
            self,
            runner,
            output=str(self._value("output")),
            command_rate=float(self._value("command_rate")),
            remark=self._remark,
            report=self._reports.news,
            answered=self._chunk_left,
            rehearse=int(self._value("rehearse")),
            min_subscribers=int(self._value("min_subscribers")),
        )
        self._policy, self._checkpoint = policy, checkpoint
        self.get_logger().info(
            f"configured: {policy.algorithm} checkpoint {checkpoint}, contract {contract.name!r}, "
            f"{policy.horizon} steps a chunk at {contract.rate:g} Hz, mode {runner.options.mode}"
        )

    def _load(self, checkpoint: Path) -> tuple[DeployedPolicy, Contract]:
        """The policy, ready, and the contract to run it under; raises RqlError where they do not fit."""
        policy = DeployedPolicy.load(
            checkpoint,
            backend=self._value("backend"),
            device=str(self._value("device")),
            threads=int(self._value("threads")),
        )
        policy.set_acting(acting_of(self, policy.default_acting))
        policy.guide_method = self._value("guidance")
        policy.with_values = options_of(self).values_first and policy.make_monitor() is not None
        contract = policy.contract
        given = str(self._value("contract"))
        if given:
            # From here on this robot's: it means the same, but its quality of service and limits may differ.
            contract = load_contract(config_file("contracts", given))
            check_contract(checkpoint, policy.contract, contract, given)
        policy.warm_up()
        return policy, contract

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start with what is observed from now on."""
        assert self._loop is not None
        result = super().on_activate(state)
        if result == TransitionCallbackReturn.SUCCESS:
            # What is there now stays: the collector need not look through it again, which takes longer than a plan.
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            self._loop.start(self._control.seed())
        self._report()
        return result

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition broke: the stop goes out, and the node is as if never configured."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The stop goes out last."""
        self.close()
        result = super().on_deactivate(state)
        self._report()
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the checkpoint and its topics."""
        self._release()
        self._report()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As deactivate and cleanup, from any state."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """The end of the process: the stop goes out last."""
        if self._loop is not None:
            self._loop.stop()

    def _release(self) -> None:
        loop, self._loop, self._policy = self._loop, None, None
        if loop is not None:
            self._estopped = loop.runner.estopped or loop.runner.filter.latched or self._estopped
        self._remarks.clear()
        if loop is not None and not loop.close():
            self.get_logger().error(
                f"an inference did not end within {INFERENCE_PATIENCE_S:g} s and is left behind; nothing of it will be "
                "published"
            )

    def _clock_jumped(self, jump: TimeJump) -> None:
        if self._loop is not None and jump.delta.nanoseconds > 0:
            self._loop.deadlines.reset()  # nothing was due in a time that was left out
        if self._loop is not None and jump.delta.nanoseconds < 0:
            self._loop.restart_after_clock_jump(self._control.seed(), -jump.delta.nanoseconds)
            self.get_logger().warning(f"clock went back by {-jump.delta.nanoseconds / 1e9:.3f} s: started anew")

    # What a person asks for

    def _accept(self, changes: dict[str, Any]) -> None:
        """Take new values of parameters; raises ConfigError, and changes nothing, where they make no sense."""
        loop, policy = self._loop, self._policy
        if loop is None or policy is None:
            return
        with loop.lock:
            acting = acting_of(self, policy.default_acting, changes) if changes.keys() & set(ACTING) else None
            if acting is not None:
                policy.check_acting(acting)
            if changes.keys() & set(RUNNING):
                known = {name: changes[name] for name in RUNNING if name in changes}
                loop.runner.set_options(options_of(self, known))
                policy.with_values = loop.runner.options.values_first and loop.runner.monitor is not None
            if "guidance" in changes:
                policy.guide_method = changes["guidance"]
            if acting is not None:
                policy.set_acting(acting)

    def _rearm(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._loop is None:
            was, self._estopped = self._estopped, None
            return _answer(response, was is not None, "armed" if was else "not configured, and nothing was stopped")
        try:
            with self._loop.lock:
                self._loop.runner.rearm(self._loop.now())
        except ContractError as error:
            return _answer(response, False, str(error))
        self._estopped = None
        self._report()
        return _answer(response, True, "armed")

    def _estop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._estopped = "asked for by ~/estop"
        if self._loop is not None:
            self._loop.estop(self._estopped)
        self._report()
        return _answer(response, True, "stopped; call rearm to go on")

    def _run(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        loop = self._active_loop()
        if loop is None:
            return _answer(response, False, "not active")
        if not loop.runner.options.on_trigger:
            return _answer(response, False, "on_trigger is false: nothing waits for this call")
        limit = float(self._value("run_limit"))
        with loop.lock:
            reason = loop.runner.run(loop.now(), round(limit * 1e9))
        return _answer(response, reason is None, reason or f"commanding for {limit:g} s")

    async def _reload(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Swap the checkpoint between two chunks, or refuse and keep the old one; nobody waits for the loading."""
        if self._loop is None:
            return _answer(response, False, "not configured: configure loads the checkpoint")
        checkpoint = Path(str(self._value("checkpoint")))
        loaded: Future[Any] = Future(executor=self.executor)

        def load() -> None:
            try:
                loaded.set_result(self._load(checkpoint))
            except Exception as error:
                loaded.set_result(error)

        Thread(target=load, name="reload", daemon=True).start()
        found = await loaded
        try:
            if isinstance(found, Exception):
                raise found
            self._swap(checkpoint, *found)
        except Exception as error:
            refusal = f"kept {self._checkpoint}: {_in_one_line(error)}"
            self.get_logger().error(f"not reloaded: {refusal}")
            return _answer(response, False, refusal)
        self.get_logger().info(f"reloaded: running {checkpoint}")
        self._report()
        return _answer(response, True, f"running {checkpoint}")

    def _swap(self, checkpoint: Path, policy: DeployedPolicy, contract: Contract) -> None:
        if self._loop is None:
            raise RuntimeError("the node was cleaned up meanwhile")
        with self._loop.lock:
            runner = self._loop.runner
            check_contract(checkpoint, contract, runner.contract, "that is running")
            # Parameters may have been set while it was loaded.
            policy.set_acting(acting_of(self, policy.default_acting))
            policy.guide_method = self._value("guidance")
            policy.reset(self._control.seed())
            runner.set_actor(policy, policy.make_monitor())
            self._policy, self._checkpoint = policy, checkpoint

    # What the node says

    def _remark(self, about: str, text: str) -> None:
        """Something is wrong with a topic: into the log where it is new, and onto /diagnostics until cleaned up."""
        if self._remarks.get(about) != text:
            self._remarks[about] = text
            self.get_logger().warning(text)

    def _chunk_left(self) -> None:
        """On the inference thread: a good moment to tell of health, which takes as long as a plan."""
        executor = self.executor
        if executor is not None and self._reporting.now(monotonic_ns(), good=True):
            executor.create_task(self._report)

    def _report_in_time(self) -> None:
        loop = self._active_loop()
        if loop is None:
            due = self._reporting.now(monotonic_ns(), good=True)
        else:
            with loop.lock:
                due = self._reporting.now(monotonic_ns(), good=False)
        if due:
            self._report()

    def _report(self) -> None:
        loop, policy = self._loop, self._policy
        if loop is None or policy is None:
            kept = f", emergency stop: {self._estopped}; call rearm to go on" if self._estopped else ""
            health = Health("stale", f"not configured{kept}", dict(self._remarks))
            facts = {}
        else:
            with loop.lock:
                health = self._health(loop)
            facts = {
                "checkpoint": str(self._checkpoint),
                "sha256": policy.sha256,
                "algorithm": policy.algorithm,
                "backend": policy.backend,
                "contract": loop.runner.contract.name,
                "mode": loop.runner.options.mode,
                "shadow": str(loop.runner.options.shadow).lower(),
            }
        change = None if loop is None else loop.runner.filter.last_change
        if change is not None and change != self._last_change:
            self._last_change = change
            self.get_logger().warning(f"a command was changed: {change}", throttle_duration_sec=CHANGE_LOG_S)
        self._reports.diagnose(health)
        self._reports.status(health.level, health.summary, facts)

    def _health(self, loop: ControlLoop) -> Health:
        runner = loop.runner
        if not loop.active:
            kept = f", {runner.reason()}" if runner.needs_rearm else ""
            return Health("stale", f"inactive{kept}", dict(self._remarks))
        health = health_of(runner, loop.now())
        values = health.values | loop.figures() | self._remarks
        if not runner.needs_rearm and (missing := loop.audience.missing()):
            return Health("warn", missing, values)
        trouble = self._trouble(loop)
        if trouble and health.level == "ok":
            return Health("warn", trouble, values)
        return Health(health.level, health.summary, values | ({"trouble": trouble} if trouble else {}))

    def _clock_trouble(self, now_ns: int) -> str:
        if now_ns == 0:
            return "use_sim_time is set and nothing is heard on /clock"
        if now_ns != self._clock_read[0]:
            self._clock_read = now_ns, monotonic_ns()
        stood_ns = monotonic_ns() - self._clock_read[1]
        if stood_ns <= CLOCK_STANDS_NS:
            return ""
        return f"/clock has stood still for {stood_ns / 1e9:.0f} s: the simulation is paused, or gone"

    def _trouble(self, loop: ControlLoop) -> str:
        """What is wrong around the node, if anything is."""
        if self._value("use_sim_time") and (trouble := self._clock_trouble(loop.now())):
            return trouble
        overdue = loop.overdue_s()
        if overdue > 0:
            return f"inference: has taken {overdue:.1f} s and goes on; nothing is commanded until it ends"
        if wrong := loop.other_types():
            return wrong[0]
        others = loop.other_publishers()
        if others > 0 and not loop.runner.options.shadow:
            topic = loop.runner.contract.action.topic
            return f"{others} other publisher{'s' if others > 1 else ''} on {topic}: only one may command the robot"
        return next(iter(self._remarks.values()), "")


def _answer(response: Trigger.Response, success: bool, message: str) -> Trigger.Response:
    response.success, response.message = success, message
    return response


def _in_one_line(error: Exception) -> str:
    return str(error) if isinstance(error, RqlError) else f"{type(error).__name__}: {' '.join(str(error).split())}"


def main() -> int:
    """Entry point of `ros2 run rql_ros policy_node`."""
    return run_node(PolicyNode)


if __name__ == "__main__":
    sys.exit(main())
