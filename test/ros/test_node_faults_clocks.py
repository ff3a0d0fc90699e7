"""A clock that is missing, set back or jumps ahead, under use_sim_time: the test is the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from arm import Arm
from console import Console
from rosgraph_msgs.msg import Clock

from rql_core.contract import Contract
from rql_core.contract.time import NANOSECONDS, ns_to_stamp

BEGIN = 1_000 * NANOSECONDS


class ClockedArm(Arm):
    """An arm in a simulation that runs as fast as this process serves, 10 ms of its time a step."""

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        self.ticking = False
        self.clock = self.node.create_publisher(Clock, "/clock", 10)

    def step(self, send: Callable[[int], None] | None = None) -> None:
        if self.ticking and self.sim_ns is not None:
            self.sim_ns += 10_000_000
            message = Clock()
            message.clock.sec, message.clock.nanosec = ns_to_stamp(self.sim_ns)
            self.clock.publish(message)
        super().step(send)
        self.executor.spin_once(timeout_sec=0.005)

    def set_clock(self, time_ns: int) -> None:
        """The simulation is somewhere else in time; what was executed before is checked, and another record begins."""
        self.executed.assert_safe()
        self.sim_ns = time_ns
        self._last_tick = 0
        self.executed.clear()


@pytest.fixture(scope="module")
def node(contract: Contract, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    log = tmp_path_factory.mktemp("node") / "log"
    with ClockedArm(contract) as arm:
        arm.sim_ns = BEGIN
        with Console(arm, log, checkpoint=checkpoint, use_sim_time=True) as node:
            yield node


@pytest.fixture
def arm(node: Console) -> Iterator[ClockedArm]:
    arm = node.arm
    assert isinstance(arm, ClockedArm)
    yield arm
    arm.executed.assert_safe()


def test_without_a_clock_it_moves_nothing_and_says_so(node: Console, arm: ClockedArm) -> None:
    node.wait_for_state("active")
    arm.go_on(lambda: arm.said("nothing is heard on /clock"), "words on /clock")
    assert not arm.executed.moved
    arm.ticking = True
    arm.start_moving()


def test_set_back_it_stops_from_where_it_was_and_begins_anew(node: Console, arm: ClockedArm) -> None:
    most = np.array([each.acceleration for each in arm.contract.safety_in_force.limits]) / arm.contract.rate
    for seconds in (1, 10, 100):
        arm.start_moving()
        was = arm.executed.at(arm.now_ns())
        arm.set_clock(arm.now_ns() - seconds * NANOSECONDS)
        count = len(arm.chunks)
        arm.silent = True
        arm.go_on(lambda count=count: len(arm.chunks) > count, "the stop in the new time")
        stop = arm.chunks[count]
        assert arm.now_ns() - NANOSECONDS < stop.stamp_ns < arm.now_ns() + NANOSECONDS
        # It follows what the node commanded last, a tick before or after what the arm was at.
        assert (np.abs(stop.actions[0] - was) <= 2 * most).all()
        assert (np.abs(np.diff(stop.actions, axis=0)) <= 1.000001 * most).all()
        assert (stop.actions[-1] == 0).all()
        arm.come_to_rest()
        arm.executed.clear()
    arm.start_moving()
    assert "clock went back by" in node.logged()


def test_set_ahead_it_stops_until_it_is_rearmed(node: Console, arm: ClockedArm) -> None:
    arm.start_moving()
    arm.set_clock(arm.now_ns() + 3600 * NANOSECONDS)
    arm.tick_for(10)
    node.call("rearm")
    arm.start_moving()


def test_a_clock_that_stands_moves_nothing_on_and_goes_on_where_it_was(node: Console, arm: ClockedArm) -> None:
    arm.start_moving()
    arm.ticking = False
    arm.tick_for(0)
    count = len(arm.chunks)
    arm.listen_anew()
    arm.go_on(lambda: arm.said("/clock has stood still for"), "words about the clock")
    assert len(arm.diagnostics) >= 2
    assert len(arm.chunks) <= count + 1
    arm.ticking = True
    arm.start_moving()
    arm.listen_anew()
    arm.go_on(lambda: len(arm.diagnostics) >= 2, "reports when it goes on")
    assert not arm.said("stood still")
