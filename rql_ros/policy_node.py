"""The policy node: a checkpoint, run on a robot's topics.

configure: verify, load and warm up the checkpoint, check that it fits the contract. activate: observe and publish
action chunks. deactivate: the safe command goes out last. When to plan and what may leave is decided in
rql_core.runtime.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.timer import Timer
from std_srvs.srv import Trigger

from rql_core.contract import load_contract
from rql_core.errors import RqlError
from rql_core.runtime.policy import DeployedPolicy, check_contract
from rql_core.runtime.runner import PolicyRunner
from rql_ros.controller import ChunkPublisher, EpisodeControl, subscribe_observations
from rql_ros.parameters import declare, require
from rql_ros.running import run_node

LEVELS = {"ok": DiagnosticStatus.OK, "warn": DiagnosticStatus.WARN, "error": DiagnosticStatus.ERROR}


class PolicyNode(LifecycleNode):
    """A lifecycle node with `autostart`. Single-threaded: inference runs in the callback of the completing message."""

    def __init__(self, **options: Any) -> None:
        """`options` go to rclpy's Node, such as `parameter_overrides`."""
        super().__init__("policy_node", **options)
        require(self, "checkpoint", "path of a checkpoint directory")
        declare(self, "contract", "", "contract file of this robot, which the checkpoint must fit; empty: its own")
        declare(self, "replan_every", 0, "steps between plans; 0: the whole chunk", bounds=(0, 10_000))
        declare(self, "samples", 0, "chunks to choose the best of by the critics; 0: as trained for", bounds=(0, 1024))
        declare(
            self, "rho", -1.0, "pessimism of that choice, in standard deviations over the critics; -1: as trained for"
        )
        declare(self, "flow_steps", 0, "flow steps from noise to action; 0: as many as in training", bounds=(0, 1000))
        declare(self, "device", "cpu", "torch device of the policy")
        declare(self, "threads", 1, "threads for inference; one is fastest for small networks", bounds=(1, 256))
        self._lockstep = declare(
            self, "lockstep", False, "wait for complete observations however long: for simulation that waits for us"
        )
        autostart = declare(self, "autostart", True, "configure and activate at start")
        self.exit_code: int | None = None
        self._runner: PolicyRunner | None = None
        self._chunks: ChunkPublisher | None = None
        self._observing: list[Any] = []
        self._active = False
        self._control = EpisodeControl(self, lambda: self._runner if self._active else None, self._interrupt)
        self._rearm_service = self.create_service(Trigger, "~/rearm", self._rearm)
        self._diagnostics: Publisher[Any] = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._report_timer = self.create_timer(1.0, self._report, clock=steady)
        self._poll_timer: Timer | None = None
        self._jumps = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True),
            post_callback=self._clock_jumped,
        )
        if autostart:
            self._autostart_timer = self.create_timer(0.0, self._autostart, clock=steady)

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        for transition in (self.trigger_configure, self.trigger_activate):
            if transition() != TransitionCallbackReturn.SUCCESS:
                self.exit_code = 1
                return

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and verify; on failure say why in one line and stay unconfigured."""
        try:
            return self._configure()
        except Exception as error:  # rclpy would swallow it without a word, and say only that configuring failed
            expected = isinstance(error, RqlError)
            detail = str(error) if expected else f"{type(error).__name__}: {' '.join(str(error).split())}"
            self.get_logger().fatal(f"not configured: {detail}")
            self._release()
            return TransitionCallbackReturn.FAILURE

    def _configure(self) -> TransitionCallbackReturn:
        checkpoint = Path(str(self.get_parameter("checkpoint").value))
        contract_path = str(self.get_parameter("contract").value)
        policy = DeployedPolicy.load(
            checkpoint,
            device=str(self.get_parameter("device").value),
            threads=int(self.get_parameter("threads").value),
        )
        samples, rho = int(self.get_parameter("samples").value), float(self.get_parameter("rho").value)
        flow_steps = int(self.get_parameter("flow_steps").value)
        policy.set_acting(
            policy.acting.changed(
                samples=samples or None, rho=None if rho == -1.0 else rho, flow_steps=flow_steps or None
            )
        )
        contract = policy.contract
        if contract_path:
            # From here on this robot's: it means the same, but its quality of service and waiting time may differ.
            contract = load_contract(contract_path)
            check_contract(checkpoint, policy.contract, contract, contract_path)
        runner = PolicyRunner(contract, policy, int(self.get_parameter("replan_every").value))
        policy.warm_up()
        self._chunks = ChunkPublisher(self, contract)
        self._observing = subscribe_observations(self, contract, self._observe)
        self._runner = runner
        self.get_logger().info(
            f"configured: {policy.algorithm} checkpoint {checkpoint}, contract {contract.name!r}, "
            f"{policy.horizon} steps a chunk at {contract.rate:g} Hz"
        )
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start with what is observed from now on."""
        assert self._runner is not None
        self._runner.reset(self._seed())
        if not self._lockstep:
            # By the ROS clock: under use_sim_time nothing grows old while the simulation stands.
            self._poll_timer = self.create_timer(self._runner.contract.observation.max_wait_ns / 1e9, self._poll)
        result = super().on_activate(state)
        self._active = result == TransitionCallbackReturn.SUCCESS
        return result

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition broke: the safe command goes out, and the node is as if never configured."""
        self._stop()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The safe command goes out last."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the checkpoint and its topics."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As deactivate and cleanup, from any state."""
        self._stop()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """The end of the process: the safe command goes out last."""
        self._stop()

    def _seed(self) -> int | None:
        seed = int(self.get_parameter("seed").value)
        return None if seed < 0 else seed

    def _observe(self, topic: str, message: Any) -> None:
        if self._active and self._runner is not None:
            now = self.get_clock().now().nanoseconds
            self._runner.push(topic, message, now, check_future=not self._lockstep)
            self._poll()

    def _poll(self) -> None:
        if self._active and self._runner is not None and self._chunks is not None:
            # In lockstep /clock may run ahead of the topics in a burst of steps, so it must not decide what is late.
            now = None if self._lockstep else self.get_clock().now().nanoseconds
            for chunk in self._runner.poll(now):
                self._chunks.publish(chunk)

    def _stop(self) -> None:
        was_active, self._active = self._active, False
        if self._poll_timer is not None:
            self.destroy_timer(self._poll_timer)
            self._poll_timer = None
        if was_active:
            self._interrupt()

    def _interrupt(self, *, clock_jumped: bool = False) -> None:
        """The safe command for what was commanded so far."""
        if self._runner is not None and self._chunks is not None:
            now = None if self._lockstep else self.get_clock().now().nanoseconds
            chunk = self._runner.stop(now, clock_jumped=clock_jumped)
            if chunk is not None:
                self._chunks.publish(chunk)

    def _release(self) -> None:
        for subscription in self._observing:
            self.destroy_subscription(subscription)
        self._observing = []
        if self._chunks is not None:
            self._chunks.destroy(self)
            self._chunks = None
        self._runner = None

    def _clock_jumped(self, jump: TimeJump) -> None:
        if self._runner is not None and jump.delta.nanoseconds < 0:
            self._interrupt(clock_jumped=not self._lockstep)
            self._runner.reset(self._seed())
            self.get_logger().warning(f"clock went back by {-jump.delta.nanoseconds / 1e9:.3f} s: started anew")

    def _rearm(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._runner is not None
        if self._runner is not None:
            self._runner.filter.rearm()
        response.message = "armed" if response.success else "not configured"
        return response

    def _report(self) -> None:
        status = DiagnosticStatus(name="policy_node: policy", hardware_id="rql_ros", level=DiagnosticStatus.STALE)
        if self._runner is None:
            status.message = "not configured"
        elif not self._active:
            status.message = "inactive"
        else:
            health = self._runner.health(self.get_clock().now().nanoseconds)
            status.level, status.message = LEVELS[health.level], health.summary
            status.values = [KeyValue(key=key, value=value) for key, value in health.values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main() -> int:
    """Entry point of `ros2 run rql_ros policy_node`."""
    return run_node(PolicyNode)


if __name__ == "__main__":
    sys.exit(main())
