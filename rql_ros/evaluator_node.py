"""The evaluator: episodes in the bridge, over ROS, with whatever controller is running, and what came of them.

For each episode: pause the bridge, give it the seed and reset it, give the controller the same seed and the time from
which observations count, and let go. The bridge judges. Controller and world get the episode's seed, so the same
checkpoint gives the same successes as `rql evaluate` does in process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import SetBool, Trigger

from rql_core.contract import TickAssembler
from rql_core.errors import RqlError
from rql_core.evaluation.results import EpisodeRecord, Evaluation, write_evaluation
from rql_core.progress import progress_bar
from rql_ros.controller import subscribe_observations
from rql_ros.parameters import declare, require, require_contract
from rql_ros.running import StopSignal, make_executor, spin_until

LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


# Far longer than a service takes on a busy machine, so that only a lost answer is asked for again.
RESEND_S = 2.0


class EvaluationError(RqlError):
    """The evaluation cannot go on: a node or an answer is missing."""


class EvaluatorNode(Node):
    """Asks the bridge and the controller, and keeps what they answer. Single-threaded."""

    def __init__(self) -> None:
        super().__init__("evaluator")
        contract = require_contract(self)
        self.output = Path(require(self, "output", "path of the JSON file that results are written to"))
        self.controller = declare(self, "controller", "policy_node", "node that drives the robot")
        self.episodes = declare(self, "episodes", 50, "number of episodes", bounds=(1, 10**6))
        self.first_seed = declare(
            self, "first_seed", 0, "seed of the first episode; then counted up", bounds=(0, 10**9)
        )
        self.timeout = declare(self, "timeout", 60.0, "s; longest wait for an answer or an episode", bounds=(0.1, 1e5))
        feature = declare(
            self, "record_feature", "", "feature whose path is kept; empty: the one that the reward is about"
        )
        bridge = declare(self, "bridge", "mujoco_bridge", "node of the simulated robot")
        self._pause = self.create_client(SetBool, f"{bridge}/pause")
        self._reset_bridge = self.create_client(Trigger, f"{bridge}/reset")
        self._set_bridge = self.create_client(SetParameters, f"{bridge}/set_parameters")
        self._reset_controller = self.create_client(Trigger, f"{self.controller}/reset")
        self._set_controller = self.create_client(SetParameters, f"{self.controller}/set_parameters")
        self.create_subscription(DiagnosticArray, f"{bridge}/result", self._receive, LATCHED)
        self._result: dict[str, Any] = {}
        self._path: list[list[float]] = []
        self._assembler = TickAssembler(contract)
        self._slice = contract.present_slice(feature or contract.reward_feature)
        self._observing = subscribe_observations(self, contract, self._observe)

    def run_episode(self, executor: Executor, stop: StopSignal, seed: int) -> EpisodeRecord:
        """One episode with `seed`; raises EvaluationError when an answer does not come in time."""
        self._call(executor, stop, self._pause, SetBool.Request(data=True))
        self._call(executor, stop, self._set_bridge, _integers(seed=seed))
        answer = json.loads(self._call(executor, stop, self._reset_bridge, Trigger.Request()).message)
        self._call(executor, stop, self._set_controller, _integers(seed=seed, episode_start_ns=answer["stamp_ns"]))
        self._reset_when_active(executor, stop)
        self._assembler.reset(answer["stamp_ns"])
        self._path = []
        self._call(executor, stop, self._pause, SetBool.Request(data=False))
        deadline = monotonic() + self.timeout
        spin_until(
            executor,
            lambda: self._result.get("episode") == answer["episode"] or stop.received or monotonic() > deadline,
        )
        if stop.received:
            raise EvaluationError(f"stopped in the episode with seed {seed}; nothing was written")
        if self._result.get("episode") != answer["episode"]:
            raise EvaluationError(
                f"episode with seed {seed} did not end within {self.timeout:g} s; is controller {self.controller!r} "
                "active, and does it publish on the contract's action topic?"
            )
        # The result may overtake the last observations on their way here.
        spin_until(executor, lambda: len(self._path) > self._result["steps"] or stop.received or monotonic() > deadline)
        if len(self._path) != self._result["steps"] + 1:
            raise EvaluationError(
                f"episode with seed {seed} has {self._result['steps']} steps, but {len(self._path)} observations were "
                "heard; is there a second publisher, or is the machine too busy?"
            )
        return EpisodeRecord(
            seed=seed,
            steps=self._result["steps"],
            total_reward=self._result["return"],
            success=self._result["success"],
            path=self._path,
        )

    def _reset_when_active(self, executor: Executor, stop: StopSignal) -> None:
        """Reset the controller, waiting for one that is still starting."""
        deadline = monotonic() + self.timeout
        while True:
            answer = self._call(executor, stop, self._reset_controller, Trigger.Request())
            if answer.success:
                return
            if stop.received or monotonic() > deadline:
                raise EvaluationError(f"controller {self.controller!r} is not ready: {answer.message}")
            executor.spin_once(timeout_sec=0.05)

    def first_contact(self, executor: Executor, stop: StopSignal) -> None:
        """Ask every service once, with requests that may be repeated.

        The answer to a first request is lost where the server has not discovered this node yet; then it is sent again.
        """
        for client, request in (
            (self._pause, SetBool.Request(data=True)),
            (self._set_bridge, SetParameters.Request()),
            (self._reset_bridge, Trigger.Request()),
            (self._set_controller, SetParameters.Request()),
            (self._reset_controller, Trigger.Request()),
        ):
            self._call(executor, stop, client, request, resend=True)

    def _call(self, executor: Executor, stop: StopSignal, client: Any, request: Any, *, resend: bool = False) -> Any:
        deadline = monotonic() + self.timeout
        while not client.service_is_ready():
            executor.spin_once(timeout_sec=0.02)
            if stop.received or monotonic() > deadline:
                raise EvaluationError(f"service {client.srv_name} is not there; is its node running?")
        futures = [client.call_async(request)]
        asked = monotonic()
        while not any(future.done() for future in futures):
            executor.spin_once(timeout_sec=0.05)
            if stop.received or monotonic() > deadline:
                raise EvaluationError(f"service {client.srv_name} did not answer within {self.timeout:g} s")
            if resend and monotonic() - asked > RESEND_S:
                futures.append(client.call_async(request))
                asked = monotonic()
        result = next(future for future in futures if future.done()).result()
        for refused in (item for item in getattr(result, "results", []) if not item.successful):
            raise EvaluationError(f"{client.srv_name}: {refused.reason}")
        return result

    def _receive(self, message: DiagnosticArray) -> None:
        self._result = {value.key: json.loads(value.value) for value in message.status[0].values}

    def _observe(self, topic: str, message: Any) -> None:
        self._assembler.push(topic, message, self.get_clock().now().nanoseconds)
        for tick in self._assembler.take(None):
            if tick.observation is not None:
                self._path.append([round(float(value), 4) for value in tick.observation[self._slice]])


def _integers(**values: int) -> SetParameters.Request:
    return SetParameters.Request(
        parameters=[
            Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value))
            for name, value in values.items()
        ]
    )


def main() -> int:
    """Entry point of `ros2 run rql_ros evaluator_node`."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stop = StopSignal()
    executor = make_executor()
    node = None
    try:
        node = EvaluatorNode()
        executor.add_node(node)
        node.first_contact(executor, stop)
        records = []
        seeds = range(node.first_seed, node.first_seed + node.episodes)
        for seed in progress_bar(seeds, desc=f"evaluating {node.controller}", unit="episode", file=sys.stdout):
            if stop.received:
                raise EvaluationError(f"stopped after {len(records)} of {node.episodes} episodes; nothing was written")
            records.append(node.run_episode(executor, stop, seed))
        evaluation = Evaluation(controller=node.controller, over="ros", records=records)
        write_evaluation(evaluation, node.output)
        print(evaluation.summary(), flush=True)
        return 0
    except RqlError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        if node is not None:
            executor.remove_node(node)
            node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
