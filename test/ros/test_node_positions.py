"""A running node whose commands are positions: what befalls it, and that nothing of it makes the joints jump.

Its policy wants to be at 0.9 rad or at -0.9, by turns, unless `fault` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from arm import Arm
from console import Console

from rql_core.contract import Contract, parse_contract

SCRIPT = Path(__file__).with_name("faulty_policy.py")
SAFETY = """safety:
  units: {position: rad, velocity: rad/s, acceleration: rad/s^2, jerk: rad/s^3}
  measured: {position: joint_position, velocity: joint_velocity}
  ramp: 0.5
  limits:
    - {name: shoulder_joint, deviation: 0.5, velocity: 1.5, acceleration: 10.0, jerk: 200.0}
    - {name: elbow_joint, deviation: 0.5, velocity: 1.5, acceleration: 10.0, jerk: 200.0}
  latch: {not_finite: 3, violations: null, window: 2.0}
  stale: {hold_after: 0.1, stop_after: 1.0, recover_after: 0.25, after_stop: rearm}
"""


@pytest.fixture(scope="module")
def text(contract_text: str) -> str:
    for was, now in (
        ("command: velocities", "command: positions"),
        ("  unit: rad/s\n  hold: zero", "  unit: rad\n  hold: last"),
        ("name: shoulder_joint, lower: -1.0, upper: 1.0", "name: shoulder_joint, lower: -2.25, upper: 1.85"),
        ("name: elbow_joint, lower: -1.0, upper: 1.0", "name: elbow_joint, lower: -1.05, upper: 3.15"),
    ):
        assert contract_text.count(was) == 1, was
        contract_text = contract_text.replace(was, now)
    return contract_text + SAFETY


@pytest.fixture(scope="module")
def node(
    text: str,
    fault: Path,
    untrained_checkpoint: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Console]:
    contract: Contract = parse_contract(text)
    checkpoint = untrained_checkpoint("bc_flow", text)
    environment = {"RQL_TEST_FAULT": str(fault)}
    log = tmp_path_factory.mktemp("node") / "log"
    with (
        Arm(contract) as arm,
        Console(
            arm, log, script=SCRIPT, environment=environment, checkpoint=checkpoint, mode="receding", backend="torch"
        ) as node,
    ):
        node.wait_for_state("active")
        arm.start_moving()
        yield node


@pytest.fixture
def arm(node: Console, fault: Path) -> Iterator[Arm]:
    """In motion; afterwards all that it was commanded since the node first started is checked."""
    fault.write_text("healthy")
    node.arm.start_moving()
    yield node.arm
    assert node.process.poll() is None
    node.arm.executed.assert_safe()


def test_it_moves_by_positions_that_come_up_within_all_limits(arm: Arm) -> None:
    arm.tick_for(40)
    assert arm.executed.moved
    lowest, highest = arm.executed.commands().min(axis=0), arm.executed.commands().max(axis=0)
    assert (highest - lowest > 0.5).all()


def test_silence_brings_it_to_rest_where_it_is_and_it_goes_on_from_there(arm: Arm) -> None:
    arm.silent = True
    arm.tick_for(8)
    assert not arm.moving
    rested = arm.executed.at(arm.now_ns())
    arm.silent = False
    arm.tick_for(4)
    assert (arm.executed.at(arm.now_ns()) == rested).all()  # it recovers by rule, and not at once
    arm.start_moving()


@pytest.mark.parametrize("kind", ["out of limits", "jumps between chunks", "jumps within chunks", "slow"])
def test_what_no_joint_could_follow_is_made_to_fit(arm: Arm, fault: Path, kind: str) -> None:
    fault.write_text(kind)
    arm.tick_for(40)


def test_what_is_not_finite_is_braked_for_and_latches(node: Console, arm: Arm, fault: Path) -> None:
    arm.listen_anew()
    fault.write_text("nan")
    arm.go_on(lambda: arm.said("latched: "), "the latch")
    arm.come_to_rest()
    fault.write_text("healthy")
    before = len(arm.chunks)
    arm.tick_for(10)
    assert len(arm.chunks) == before
    assert node.call("rearm").success


def test_an_emergency_stop_and_deactivation_end_in_rest(node: Console, arm: Arm) -> None:
    assert node.call("estop").success
    arm.come_to_rest()
    assert node.call("rearm").success
    arm.start_moving()
    assert node.change("deactivate")
    arm.come_to_rest()
    assert node.change("activate")


def test_killed_in_motion_it_comes_to_rest_by_the_last_chunk_and_a_new_process_begins_there(
    node: Console, arm: Arm
) -> None:
    node.process.kill()
    node.process.wait()
    arm.executed.assert_safe()  # what is to come of the last chunk included
    arm.come_to_rest()
    node.start()
    node.wait_for_state("active")
