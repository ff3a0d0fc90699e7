"""Lifecycle, services, parameters and signals of a running node, in any order and while the arm moves."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from arm import Arm
from console import TRANSITIONS, Console

from rql_core.contract import Contract

# What each transition leads to, from where it is allowed.
LEADS = {
    ("unconfigured", "configure"): "inactive",
    ("inactive", "activate"): "active",
    ("active", "deactivate"): "inactive",
    ("inactive", "cleanup"): "unconfigured",
}
# Up and down this often; the first few may still allocate what stays.
CYCLES, WARM_UP = 50, 10
# MB; one graph of ten that stays behind in so many cycles is more.
GROWTH_MB = 4.0


@pytest.fixture(scope="module")
def node(contract: Contract, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    log = tmp_path_factory.mktemp("node") / "log"
    with Arm(contract) as arm, Console(arm, log, checkpoint=checkpoint, mode="receding") as node:
        node.wait_for_state("active")
        arm.start_moving()
        yield node


@pytest.fixture
def arm(node: Console) -> Iterator[Arm]:
    """A moving arm; afterwards what it was commanded is checked."""
    arm = node.arm
    arm.silent = False
    if node.process.poll() is not None:
        node.start()
        node.wait_for_state("active")
    if node.state() == "unconfigured":
        assert node.change("configure")
    if node.state() == "inactive":
        assert node.change("activate")
    arm.start_moving()
    assert node.call("estop").success
    arm.come_to_rest()
    arm.forget()  # now, while it is at rest: the first chunk may come before the call is answered
    assert node.call("rearm").success
    arm.start_moving()
    yield arm
    arm.executed.assert_safe()


def test_every_transition_from_every_state_twice_while_observations_come(node: Console, arm: Arm) -> None:
    state = node.state()
    for first, second in product(TRANSITIONS, repeat=2):
        for transition in (first, second, second):
            leads = LEADS.get((state, transition))
            assert node.change(transition) == (leads is not None), (state, transition)
            state = leads or state
            assert node.state() == state
    assert "Traceback" not in node.logged()


def test_deactivating_sends_the_stop_last_and_nothing_after(node: Console, arm: Arm) -> None:
    assert node.change("deactivate")
    arm.come_to_rest()
    count = len(arm.chunks)
    arm.tick_for(6)
    assert len(arm.chunks) == count
    assert (arm.chunks[-1].actions[-1] == 0).all()


def test_fifty_times_up_and_down_leaks_no_thread_no_topic_and_no_memory(node: Console, arm: Arm) -> None:
    threads = 0
    topics: list[tuple[str, list[str]]] = []
    memory = 0.0
    for cycle in range(CYCLES):
        for change in ("deactivate", "cleanup", "configure", "activate"):
            assert node.change(change), (cycle, change)
        if cycle == WARM_UP:
            arm.start_moving()
            memory, topics = node.resident_mb(), seen_by(node)
            for _ in range(10):  # the executor's own come and go
                arm.tick_for(1)
                threads = max(threads, len(node.thread_names()))
    arm.start_moving()
    node.wait(lambda: len(node.thread_names()) <= threads, f"{threads} threads, not {node.thread_names()}")
    assert node.resident_mb() - memory < GROWTH_MB
    node.wait(lambda: seen_by(node) == topics, "the topics of before")
    arm.start_moving()


def seen_by(node: Console) -> list[tuple[str, list[str]]]:
    """Topics and services that the node has on the graph."""
    graph = node.arm.node
    space, _, name = node.name.rpartition("/")
    found: list[tuple[str, list[str]]] = []
    for ask in (
        graph.get_publisher_names_and_types_by_node,
        graph.get_subscriber_names_and_types_by_node,
        graph.get_service_names_and_types_by_node,
    ):
        found += ask(name, space or "/")
    return sorted(found)


def test_after_estop_nothing_leaves_whatever_is_done_until_it_is_rearmed(node: Console, arm: Arm) -> None:
    assert node.call("estop").success
    arm.come_to_rest()
    count = len(arm.chunks)
    assert node.call("reset").success
    for change in ("deactivate", "activate"):
        assert node.change(change)
    assert node.call("estop").success
    arm.tick_for(8)
    arm.listen_anew()
    arm.go_on(lambda: arm.said("emergency stop: asked for by ~/estop"), "words on the emergency stop")
    assert len(arm.chunks) == count
    assert node.call("rearm").success
    arm.start_moving()


def test_estop_survives_cleanup_and_configure(node: Console, arm: Arm) -> None:
    assert node.call("estop").success
    arm.come_to_rest()
    count = len(arm.chunks)
    for change in ("deactivate", "cleanup", "configure", "activate"):
        assert node.change(change)
    arm.tick_for(8)
    assert len(arm.chunks) == count
    assert node.call("rearm").success
    arm.start_moving()


def test_estop_while_inactive_or_unconfigured_counts(node: Console, arm: Arm) -> None:
    assert node.change("deactivate")
    arm.come_to_rest()
    count = len(arm.chunks)
    for change in ("activate", "cleanup"):
        assert node.call("estop").success
        if change == "cleanup":
            assert node.change("cleanup")
            assert node.call("estop").success
            assert node.change("configure")
            assert node.change("activate")
        else:
            assert node.change("activate")
        arm.tick_for(6)
        assert len(arm.chunks) == count
        assert node.change("deactivate")
    assert node.change("activate")
    arm.tick_for(4)
    assert node.call("rearm").success
    arm.start_moving()


def test_reset_in_motion_stops_and_begins_anew(node: Console, arm: Arm) -> None:
    for _ in range(5):
        assert node.call("reset").success
        arm.tick_for(3)
    arm.start_moving()


def test_wrong_parameters_are_refused_when_they_are_set_with_the_reason(node: Console, arm: Arm) -> None:
    for name, value, said in (
        ("mode", "sideways", "expected one of open_loop, receding, ensemble, rtc"),
        ("mode", 3, "type"),
        ("replan_every", -1, "range"),
        ("replan_every", 5, "the policy's horizon"),
        ("samples", 0.5, "type"),
        ("samples", 100000, "range"),
        ("rho", float("nan"), ""),
        ("flow_steps", 5000, "range"),
        ("monitor", "perhaps", "expected one of off, warn, hold"),
        ("interpolation", "cubic", "expected one of auto, held, linear"),
        ("run_limit", 0.0, "range"),
        ("run_limit", float("nan"), ""),
        ("seed", -2, "range"),
        ("seed", 2**40, "range"),
        ("episode_start_ns", -1, "range"),
        ("checkpoint", 7, "type"),
        ("output", "command", "read-only"),
        ("lockstep", True, "read-only"),
        ("threads", 2, "read-only"),
        ("on_trigger", True, "read-only"),
        ("nonsense", 1, "declared"),
    ):
        refused = node.set(**{name: value})
        assert said in refused.get(name, "it was accepted"), (name, value, refused)
        assert name in refused, (name, value)
    arm.start_moving()


def test_right_parameters_take_effect_in_motion(node: Console, arm: Arm) -> None:
    for values in (
        {"mode": "ensemble"},
        {"mode": "rtc"},
        {"mode": "open_loop"},
        {"mode": "receding", "replan_every": 1},
        {"samples": 4, "rho": 0.5},
        {"flow_steps": 2},
        {"monitor": "hold"},
        {"monitor": "warn", "samples": 0, "rho": -1.0, "flow_steps": 0, "replan_every": 0},
    ):
        assert node.set(**values) == {}, values
        arm.tick_for(6)
    arm.start_moving()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_motion_sends_the_stop_last_and_ends_with_status_0(
    node: Console, arm: Arm, number: signal.Signals
) -> None:
    assert node.end(number) == 0
    arm.come_to_rest()
    assert "Traceback" not in node.logged()


def test_killed_in_motion_the_arm_comes_to_rest_by_the_last_chunk_and_a_new_process_goes_on(
    node: Console, arm: Arm
) -> None:
    for _ in range(2):
        node.process.kill()
        node.process.wait()
        arm.executed.assert_safe()  # what is to come of the last chunk included
        arm.come_to_rest()
        node.start()
        arm.start_moving()


def test_killed_and_restarted_at_once_nothing_of_both_together_is_unsafe(node: Console, arm: Arm) -> None:
    node.process.kill()
    node.process.wait()
    node.start()
    node.wait_for_state("active")
    arm.start_moving()
