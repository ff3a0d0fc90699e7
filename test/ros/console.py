"""A policy node as a process, and what an operator does with it: lifecycle, parameters, services, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from arm import Arm
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from robot import RESEND_S
from std_srvs.srv import Trigger

from rql_core.demo.processes import node_command, prepare_child

TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}
STATES = {
    State.PRIMARY_STATE_UNCONFIGURED: "unconfigured",
    State.PRIMARY_STATE_INACTIVE: "inactive",
    State.PRIMARY_STATE_ACTIVE: "active",
    State.PRIMARY_STATE_FINALIZED: "finalized",
}


class Console:
    """A policy node of its own process, for one arm. `script`: run that file instead of the module's entry point.

    As a context manager: leaving it ends the process.
    """

    def __init__(
        self,
        arm: Arm,
        log: Path,
        *,
        name: str = "/policy_node",
        script: Path | None = None,
        arguments: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        **parameters: object,
    ) -> None:
        self.arm = arm
        self.name = name
        self.log = log
        self._command = [*node_command("policy_node", **parameters), *arguments]
        if script is not None:
            self._command[1:3] = [str(script)]
        assert self._command[0] == sys.executable
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        root = str(Path(__file__).resolve().parents[2])
        self._environment["PYTHONPATH"] = os.pathsep.join([root, self._environment.get("PYTHONPATH", "")])
        self._clients: dict[str, Any] = {}
        self.start()

    def start(self) -> None:
        """Start the process; a second time, after it has ended, too."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment, preexec_fn=prepare_child
            )

    def close(self) -> None:
        """The process is gone after this."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for client in self._clients.values():
            self.arm.node.destroy_client(client)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def end(self, number: signal.Signals = signal.SIGINT, patience: float = 10.0) -> int:
        """Send a signal, serve until the process is gone, and return its status."""
        self.process.send_signal(number)
        self.arm.go_on(lambda: self.process.poll() is not None, f"the node to end on {number.name}", patience=patience)
        return int(self.process.returncode)

    def logged(self) -> str:
        """What the process has printed."""
        return self.log.read_text(errors="replace")

    def thread_names(self) -> list[str]:
        """One name a thread of the process."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        return sorted((task / "comm").read_text().strip() for task in tasks.iterdir())

    def resident_mb(self) -> float:
        """Memory of the process in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    # Services. What the arm sends meanwhile: observations as ever.

    def ask(self, kind: Any, service: str, request: Any, *, again: bool = True) -> Any:
        """The answer, asked for again where one is lost on first contact; None where one is lost and not `again`."""
        key = f"{self.name}/{service}"
        if key not in self._clients:
            self._clients[key] = self.arm.node.create_client(kind, key)
        client = self._clients[key]
        self.arm.go_on(client.service_is_ready, lambda: f"service {key}; the log: {self.logged()[-2000:]}")
        futures = [client.call_async(request)]
        asked = monotonic()

        def answered() -> bool:
            nonlocal asked
            if any(future.done() for future in futures):
                return True
            if monotonic() - asked > RESEND_S:
                if not again:
                    return True
                futures.append(client.call_async(request))
                asked = monotonic()
            return False

        self.arm.go_on(answered, f"an answer from {key}")
        return next((future.result() for future in futures if future.done()), None)

    def call(self, service: str) -> Any:
        """Call one of the node's own services; the answer has `success` and `message`."""
        return self.ask(Trigger, service, Trigger.Request())

    def state(self) -> str:
        """The state of the lifecycle."""
        return STATES[self.ask(GetState, "get_state", GetState.Request()).current_state.id]

    def change(self, transition: str) -> bool:
        """Whether the transition succeeds. Not asked twice: a second time it would be refused."""
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[transition]))
        client_is_new = f"{self.name}/change_state" not in self._clients
        before = self.state() if client_is_new else ""
        answer = self.ask(ChangeState, "change_state", request, again=False)
        if answer is None:
            assert client_is_new, f"no answer to {transition}"
            return self.state() != before
        return bool(answer.success)

    def set(self, **values: Any) -> dict[str, str]:
        """Set parameters one by one; the reasons of those that were refused, by name."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        answer = self.ask(SetParameters, "set_parameters", SetParameters.Request(parameters=parameters))
        results = zip(values, answer.results, strict=True)
        return {name: result.reason for name, result in results if not result.successful}

    def wait_for_state(self, state: str) -> None:
        """Wait for the lifecycle to be there."""
        self.wait(lambda: self.state() == state, f"state {state}")

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Serve the arm until `done()`."""
        self.arm.go_on(done, lambda: f"{what}; the log: {self.logged()[-2000:]}")
