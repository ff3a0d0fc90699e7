"""The policy node as a process: what a robot gets from it, and what it gets when something is wrong."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from robot import RESEND_S, Robot

from rql_core.contract import ActionChunk, Contract
from rql_core.demo.processes import ProcessGroup, node_command
from rql_core.export.checkpoint import export_checkpoint
from rql_core.resources import config_file
from rql_core.runtime.policy import DeployedPolicy
from rql_core.runtime.safety import SafetyFilter

PATIENCE_S = 60.0
# What Robot.publish sends by default, in the order of the contract.
OBSERVATION = np.array([-0.9, 1.9, 0.0, 0.0, 0.25, 0.05, 0.06], dtype=np.float32)


@pytest.fixture
def robot(contract: Contract) -> Iterator[Robot]:
    with Robot(contract) as robot:
        yield robot


def limits(contract: Contract) -> tuple[np.ndarray, np.ndarray]:
    features = contract.action.features
    return np.array([f.lower for f in features]), np.array([f.upper for f in features])


def assert_safe(robot: Robot) -> None:
    lower, upper = limits(robot.contract)
    for chunk in robot.chunks:
        assert np.isfinite(chunk.actions).all()
        assert (chunk.actions >= lower).all()
        assert (chunk.actions <= upper).all()


def test_an_observation_is_answered_with_a_chunk_of_its_time_inside_the_limits(
    robot: Robot, group: ProcessGroup, checkpoint: Path
) -> None:
    group.start("policy", node_command("policy_node", checkpoint=checkpoint, seed=1))
    robot.wait_until_heard()
    stamp = robot.now_tick()
    robot.publish(stamp)
    robot.wait(lambda: bool(robot.chunks), "a chunk")
    chunk = robot.chunks[0]
    assert chunk.stamp_ns == stamp
    assert (np.diff(chunk.ends_ns, prepend=stamp) == robot.contract.period_ns).all()
    assert chunk.horizon > 4  # the policy's four steps, and those in which it comes to rest
    assert (chunk.actions[-1] == 0).all()
    assert_safe(robot)


def test_nothing_is_commanded_until_as_many_read_the_commands_as_were_asked_for(
    robot: Robot, group: ProcessGroup, checkpoint: Path
) -> None:
    group.start("policy", node_command("policy_node", checkpoint=checkpoint, min_subscribers=2))
    robot.stream(lambda: any("1 of 2 readers of the commands" in status.message for status in robot.diagnostics))
    assert not robot.chunks
    with Robot(robot.contract) as recorder:
        robot.stream(lambda: bool(robot.chunks))
        recorder.wait(lambda: bool(recorder.chunks), "the first chunk")
        assert recorder.chunks[0].stamp_ns == robot.chunks[0].stamp_ns
    # Whoever leaves does not stop a robot.
    robot.wait(lambda: robot.commands_have(1), "the second reader to be gone")
    count = len(robot.chunks)
    robot.stream(lambda: len(robot.chunks) > count + 1)


def test_when_a_topic_falls_silent_the_safe_command_goes_out_and_diagnostics_name_the_topic(
    robot: Robot, group: ProcessGroup, checkpoint: Path, tmp_path: Path
) -> None:
    # Longer than diagnostics take to come: after a stop it would not recover by itself.
    patient = tmp_path / "patient.yaml"
    text = config_file("contracts", "planar_arm").read_text()
    assert "stop_after: 1.0" in text
    patient.write_text(text.replace("stop_after: 1.0", "stop_after: 600.0"))
    group.start("policy", node_command("policy_node", checkpoint=checkpoint, contract=patient))
    robot.wait_until_heard()
    robot.publish(robot.now_tick())
    robot.wait(lambda: len(robot.chunks) >= 2, "a chunk and then the safe command")
    assert (robot.chunks[1].actions[-1] == 0).all()
    robot.wait(
        lambda: any("/tool_pose" in s.message and "no fresh observation" in s.message for s in robot.diagnostics),
        "diagnostics that name the silent topics",
    )
    # It recovers by itself when observations come back, and have come for as long as the contract says.
    robot.stream(lambda: len(robot.chunks) >= 3)
    assert_safe(robot)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"velocity": (float("nan"), 0.0)}, "velocity.shoulder_joint"),
        ({"names": ("shoulder_joint", "wrist_joint")}, "elbow_joint"),
        ({"velocity": (0.0,)}, "velocity has 1 values for 2 joint names"),
    ],
    ids=["nan", "missing joint", "short array"],
)
def test_a_message_that_breaks_the_contract_moves_nothing_and_is_reported(
    robot: Robot, group: ProcessGroup, checkpoint: Path, fault: dict, said: str
) -> None:
    group.start("policy", node_command("policy_node", checkpoint=checkpoint))
    robot.wait_until_heard()
    robot.publish(robot.now_tick(), **fault)
    robot.wait(
        lambda: any(said in value.value for status in robot.diagnostics for value in status.values),
        f"diagnostics that say {said!r}",
    )
    assert all((chunk.actions == 0).all() for chunk in robot.chunks)


def plans(robot: Robot) -> list[ActionChunk]:
    """The policy's own chunks: of four steps, where the safe command has two."""
    return [chunk for chunk in robot.chunks if chunk.horizon == 4]


def test_joints_in_another_order_give_the_same_chunk(robot: Robot, group: ProcessGroup, checkpoint: Path) -> None:
    group.start("policy", node_command("policy_node", checkpoint=checkpoint, lockstep=True, seed=3))
    robot.wait_until_heard()
    for count, (names, position) in enumerate(
        (
            (("shoulder_joint", "elbow_joint"), (-0.8, 1.7)),
            (("elbow_joint", "shoulder_joint"), (1.7, -0.8)),
            (("shoulder_joint", "elbow_joint"), (-0.7, 1.7)),
        ),
        1,
    ):
        robot.wait(lambda: robot.call("/policy_node/reset").success, "an active node")
        robot.publish(robot.now_tick(), position, names=names)
        robot.wait(lambda count=count: len(plans(robot)) >= count, "a chunk")
    first, permuted, other = plans(robot)
    np.testing.assert_array_equal(first.actions, permuted.actions)
    assert (first.actions != other.actions).any()


def test_in_lockstep_a_simulation_that_could_not_hear_yet_is_answered_when_it_shows_the_tick_again(
    robot: Robot, group: ProcessGroup, checkpoint: Path
) -> None:
    group.start("policy", node_command("policy_node", checkpoint=checkpoint, lockstep=True, seed=3))
    robot.wait_until_heard()
    robot.wait(lambda: robot.call("/policy_node/reset").success, "an active node")
    stamp = robot.now_tick()
    robot.turn_a_deaf_ear()
    said = len(robot.diagnostics)
    robot.publish(stamp)
    robot.wait(
        lambda: any(
            value.key == "chunks" and value.value == "1"
            for status in robot.diagnostics[said:]
            for value in status.values
        ),
        "an answer that nobody hears",
    )
    robot.listen()
    for count in (1, 2):
        robot.wait_for_readers()
        shown = monotonic()

        def heard(count: int = count) -> bool:
            nonlocal shown
            if monotonic() - shown > 0.5:  # as the bridge does
                shown = monotonic()
                robot.publish(stamp)
            return len(plans(robot)) >= count

        robot.wait(heard, "the answer")
    assert plans(robot)[0].stamp_ns == stamp
    np.testing.assert_array_equal(plans(robot)[0].actions, plans(robot)[1].actions)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bc_flow", {}),
        ("ifql", {}),
        ("fql", {"samples": 8}),
        ("qc", {"samples": 3, "rho": 0.5, "flow_steps": 2}),
        ("rql", {"samples": 16}),
    ],
)
def test_any_algorithm_runs_and_acts_as_it_does_in_process(
    name: str,
    options: dict[str, Any],
    robot: Robot,
    group: ProcessGroup,
    untrained_checkpoint: Callable[[str], Path],
) -> None:
    checkpoint = untrained_checkpoint(name)
    export_checkpoint(checkpoint)
    group.start("policy", node_command("policy_node", checkpoint=checkpoint, lockstep=True, seed=3, **options))
    robot.wait_until_heard()
    robot.publish(robot.now_tick())
    robot.wait(lambda: bool(plans(robot)), "a chunk")
    policy = DeployedPolicy.load(checkpoint, threads=1)
    policy.set_acting(policy.acting.changed(**options))
    policy.reset(3)
    np.testing.assert_allclose(plans(robot)[0].actions, filtered(robot.contract, policy.act(OBSERVATION)), atol=1e-5)


def filtered(contract: Contract, actions: np.ndarray) -> np.ndarray:
    """What leaves of a first plan, in lockstep: from rest, and without a ramp."""
    safety = SafetyFilter(contract)
    long_ago = -round(contract.safety_in_force.ramp * 1e9)
    measured = safety.measured_position(OBSERVATION)
    return safety.apply(actions, safety.activate(long_ago, measured), 0, measured).actions


def test_samples_without_critics_are_refused_in_one_line(untrained_checkpoint: Callable[[str], Path]) -> None:
    checkpoint = untrained_checkpoint("bc_flow")
    export_checkpoint(checkpoint)
    command = node_command("policy_node", checkpoint=checkpoint, samples=4)
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert result.returncode == 1
    assert "bc_flow has no critics to choose among 4 samples" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_reset_stops_what_was_commanded_before(robot: Robot, group: ProcessGroup, checkpoint: Path) -> None:
    group.start("policy", node_command("policy_node", checkpoint=checkpoint, lockstep=True))
    robot.wait_until_heard()
    stamp = robot.now_tick()
    robot.publish(stamp)
    robot.wait(lambda: len(robot.chunks) == 1, "a chunk")
    assert robot.call("/policy_node/reset").success
    robot.wait(lambda: len(robot.chunks) == 2, "the safe command")
    assert (robot.chunks[1].actions[-1] == 0).all()
    assert robot.chunks[1].stamp_ns == stamp + robot.contract.period_ns


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_safe_command_last_and_status_0(
    robot: Robot, checkpoint: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(node_command("policy_node", checkpoint=checkpoint, lockstep=True))
    try:
        robot.wait_until_heard()
        stamp = robot.now_tick()
        robot.publish(stamp)
        robot.wait(lambda: bool(robot.chunks), "a chunk")
        process.send_signal(number)
        robot.wait(lambda: process.poll() is not None, "the node to end")
        robot.wait(lambda: len(robot.chunks) == 2, "the safe command")
    finally:
        process.kill()
    assert process.returncode == 0
    assert (robot.chunks[-1].actions[-1] == 0).all()
    assert robot.chunks[-1].stamp_ns > stamp


def run_to_the_end(checkpoint: Path, **parameters: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        node_command("policy_node", checkpoint=checkpoint, **parameters),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def damaged(checkpoint: Path, place: Path, name: str, content: bytes | None) -> Path:
    copy = place / "damaged"
    shutil.copytree(checkpoint.resolve(), copy)
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content)
    return copy


def test_a_checkpoint_that_is_missing_or_damaged_is_refused_in_one_line(checkpoint: Path, tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "nowhere", "nowhere"),
        (damaged(checkpoint, tmp_path, "model.safetensors", b"\x80\x04K\x01."), "model.safetensors"),
    ):
        result = run_to_the_end(path)
        assert result.returncode == 1
        fatal = [line for line in result.stderr.splitlines() if "FATAL" in line]
        assert len(fatal) == 1
        assert said in fatal[0]
        assert "Traceback" not in result.stderr


def test_a_checkpoint_that_does_not_fit_the_robots_contract_is_refused_and_the_field_named(
    checkpoint: Path, tmp_path: Path, contract_text: str
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(contract_text.replace("rate: 20", "rate: 25"))
    result = run_to_the_end(checkpoint, contract=other)
    assert result.returncode == 1
    assert "rate is 25.0 there, but the checkpoint was trained with 20.0" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_checkpoint_it_says_which_parameter_is_missing() -> None:
    result = subprocess.run(
        node_command("policy_node"), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("error: parameter 'checkpoint' is not set")


def test_the_lifecycle_is_followed_when_autostart_is_off(robot: Robot, group: ProcessGroup, checkpoint: Path) -> None:
    group.start("policy", node_command("policy_node", checkpoint=checkpoint, autostart=False, lockstep=True))
    change = robot.node.create_client(ChangeState, "/policy_node/change_state")
    get = robot.node.create_client(GetState, "/policy_node/get_state")

    def state() -> int:
        return robot.ask(get, GetState.Request()).current_state.id

    def transition(number: int) -> bool:
        """Whether it succeeds. Not asked twice: a second time it would be refused."""
        before = state()
        robot.wait(change.service_is_ready, "change_state")
        future = change.call_async(ChangeState.Request(transition=Transition(id=number)))
        deadline = monotonic() + RESEND_S
        robot.wait(lambda: future.done() or monotonic() > deadline, "the transition")
        # An answer may be lost on first contact; then the state tells.
        return future.result().success if future.done() else state() != before

    assert state() == State.PRIMARY_STATE_UNCONFIGURED
    assert transition(Transition.TRANSITION_CONFIGURE)
    assert state() == State.PRIMARY_STATE_INACTIVE
    robot.wait_for_readers()
    robot.publish(robot.now_tick())
    assert transition(Transition.TRANSITION_ACTIVATE)
    assert robot.chunks == []  # an observation from before the activation is not answered
    robot.wait_until_heard()
    assert robot.chunks == []
    robot.publish(robot.now_tick() + robot.contract.period_ns)
    robot.wait(lambda: len(robot.chunks) == 1, "a chunk")
    assert transition(Transition.TRANSITION_DEACTIVATE)
    robot.wait(lambda: len(robot.chunks) == 2, "the safe command")
    assert (robot.chunks[-1].actions[-1] == 0).all()
    assert transition(Transition.TRANSITION_CLEANUP)
    assert state() == State.PRIMARY_STATE_UNCONFIGURED
    assert transition(Transition.TRANSITION_CONFIGURE)
    assert state() == State.PRIMARY_STATE_INACTIVE
