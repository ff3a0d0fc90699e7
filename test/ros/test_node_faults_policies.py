"""Faulty policies in a running node: whatever a policy answers, or does not, no unsafe command leaves."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from arm import Arm
from console import Console

from rql_core.contract import Contract

SCRIPT = Path(__file__).with_name("faulty_policy.py")


@pytest.fixture(scope="module")
def node(
    contract: Contract, checkpoint: Path, fault: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Console]:
    log = tmp_path_factory.mktemp("node") / "log"
    environment = {"RQL_TEST_FAULT": str(fault)}
    with (
        Arm(contract) as arm,
        Console(arm, log, script=SCRIPT, environment=environment, checkpoint=checkpoint, mode="receding") as node,
    ):
        node.wait_for_state("active")
        arm.start_moving()
        yield node


@pytest.fixture
def arm(node: Console, fault: Path) -> Iterator[Arm]:
    """At full speed, by a healthy policy; afterwards what the arm was commanded is checked."""
    arm = node.arm
    fault.write_text("healthy")
    assert node.call("estop").success
    arm.come_to_rest()
    arm.forget()  # now, while it is at rest: the first chunk may come before the call is answered
    assert node.call("rearm").success
    arm.go_on(lambda: bool((abs(arm.executed.at(arm.now_ns())) > 0.8).all()), "full speed")
    yield arm
    assert node.process.poll() is None
    arm.executed.assert_safe()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("nan", "not finite"),
        ("inf", "not finite"),
        ("raises", "the policy failed: RuntimeError: the device was lost and more"),
        ("out of memory", "the policy failed: MemoryError"),
        ("exits", "the policy failed: RuntimeError: SystemExit was raised"),
        ("short", "the policy answered (1, 2), expected (4, 2)"),
        ("narrow", "the policy answered (4, 1), expected (4, 2)"),
        ("flat", "the policy answered (8,), expected (4, 2)"),
        ("empty", "the policy answered (0, 2), expected (4, 2)"),
        ("text", "expected a plan of numbers"),
        ("complex", "expected a plan of numbers"),
        ("list", "expected a plan of numbers"),
        ("none", "it answered None, expected a plan of numbers"),
    ],
)
def test_an_answer_that_is_no_chunk_is_braked_for_and_latches(
    node: Console, arm: Arm, fault: Path, kind: str, said: str
) -> None:
    arm.listen_anew()
    fault.write_text(kind)
    arm.go_on(lambda: arm.said("latched: "), "the latch")
    assert arm.said(said), arm.last_words()
    arm.come_to_rest()
    before = len(arm.chunks)
    arm.tick_for(6)
    assert len(arm.chunks) == before
    fault.write_text("healthy")
    arm.tick_for(6)
    assert len(arm.chunks) == before  # only a person opens the latch
    assert node.call("rearm").success
    arm.start_moving()


@pytest.mark.parametrize("kind", ["out of limits", "huge", "jumps between chunks", "jumps within chunks", "nan values"])
def test_an_answer_beyond_limits_is_made_to_fit_and_counted(arm: Arm, fault: Path, kind: str) -> None:
    arm.listen_anew()
    fault.write_text(kind)
    before = len(arm.chunks)
    arm.go_on(lambda: len(arm.chunks) > before + 8, "chunks")
    arm.go_on(lambda: arm.said("filter "), "counts of the filter")


def test_unusual_values_warn_and_hold_where_told_to_until_they_are_usual(node: Console, arm: Arm, fault: Path) -> None:
    arm.listen_anew()
    fault.write_text("unusual")
    arm.go_on(lambda: arm.said("running, but value "), "the warning")
    assert arm.moving
    assert node.set(monitor="hold") == {}
    arm.go_on(lambda: arm.said("holding: the critics' values are unusual"), "the hold")
    arm.come_to_rest()
    arm.tick_for(10)
    assert not arm.moving
    fault.write_text("usual")  # it has planned on, and sees that it is over
    arm.start_moving()
    assert node.set(monitor="warn") == {}


@pytest.mark.parametrize("kind", ["rehearsal raises", "rehearsal is none", "rehearsal is nan"])
def test_a_rehearsal_that_fails_changes_nothing_of_what_leaves(arm: Arm, fault: Path, kind: str) -> None:
    arm.listen_anew()
    fault.write_text(kind)
    before = len(arm.chunks)
    arm.go_on(lambda: len(arm.chunks) > before + 8, "chunks")
    if kind != "rehearsal is nan":
        arm.go_on(lambda: arm.figure("last rehearsal that failed") != "", "words on the rehearsal")
    assert not arm.said("latched")
    assert arm.moving


def test_a_rehearsal_that_never_ends_leaves_it_at_rest_and_is_said(arm: Arm, fault: Path) -> None:
    fault.write_text("rehearsal never ends")
    arm.come_to_rest()
    arm.listen_anew()
    arm.go_on(lambda: arm.said("inference: has taken "), "words on an inference that does not end")
    fault.write_text("healthy")
    arm.start_moving()


@pytest.mark.parametrize("kind", ["slow", "slower by and by"])
def test_a_policy_that_takes_longer_than_a_chunk_leaves_the_arm_at_rest_in_between(
    arm: Arm, fault: Path, kind: str
) -> None:
    arm.listen_anew()
    fault.write_text(kind)
    arm.tick_for(40)
    arm.go_on(lambda: int(arm.figure("plans refused while planning") or 0) > 0, "refused plans")


def test_a_policy_that_never_answers_leaves_it_at_rest_and_everything_else_at_work(
    node: Console, arm: Arm, fault: Path
) -> None:
    fault.write_text("never")
    arm.come_to_rest()
    arm.listen_anew()
    arm.go_on(lambda: arm.said("inference: has taken "), "words on an inference that does not end")
    assert node.call("estop").success
    assert node.call("rearm").success
    assert node.set(mode="ensemble") == {}
    assert node.set(mode="receding") == {}
    assert node.change("deactivate")
    assert node.change("activate")
    fault.write_text("healthy")
    arm.start_moving()


def test_cleanup_while_a_policy_never_answers_leaves_it_behind_and_starts_anew(
    node: Console, arm: Arm, fault: Path
) -> None:
    fault.write_text("never")
    arm.come_to_rest()
    for change in ("deactivate", "cleanup", "configure", "activate"):
        assert node.change(change)
    assert "an inference did not end within 2 s" in node.logged()
    fault.write_text("healthy")
    arm.start_moving()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_policy_never_answers_ends_it_with_status_0(
    node: Console, arm: Arm, fault: Path, number: signal.Signals
) -> None:
    fault.write_text("never")
    arm.tick_for(2)
    assert node.end(number) == 0
    assert "Traceback" not in node.logged()
    node.start()
    node.wait_for_state("active")
    fault.write_text("healthy")
    arm.start_moving()
