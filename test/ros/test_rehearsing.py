"""When rehearsals are made, by a clock that stands until it is moved, and what their failures do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from rql_core.contract import ActionChunk, Contract
from rql_core.contract.time import NANOSECONDS, tick_time
from rql_core.runtime.options import Options
from rql_core.runtime.plan import Plan
from rql_core.runtime.runner import PolicyRunner, Request
from rql_ros.controller import chunk_message
from rql_ros.rehearsing import Rehearsing

MS = 1_000_000
FIRST = 1000


class Rehearsed:
    """Plans nothing but rest; a rehearsal takes `takes_ms` of the clock, or fails."""

    horizon = 4

    def __init__(self, contract: Contract, clock: list[int]) -> None:
        self.rest = np.zeros((self.horizon, contract.action_dim))
        self.clock = clock
        self.takes_ms = 1.0
        self.fails = False
        self.asked = 0

    def reset(self, seed: int | None) -> None:
        """Nothing to forget."""

    def rehearse(self, observation: Any, guide: Any = None) -> Plan:
        self.asked += 1
        if self.fails:
            raise RuntimeError("the device was lost\nand more")
        self.clock[0] += round(self.takes_ms * MS)
        return Plan(self.rest)


class Bench:
    """Observations come 0.4 ms after their ticks and are answered 2 ms later; times are ms after the first tick."""

    def __init__(self, contract: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rate = contract.rate_fraction
        self.period = contract.period_ns / MS
        self.clock = [tick_time(FIRST, self.rate)]
        monkeypatch.setattr("rql_ros.rehearsing.perf_counter_ns", lambda: self.clock[0])
        self.actor = Rehearsed(contract, self.clock)
        self.runner = PolicyRunner(contract, self.actor, Options("receding", 1, lockstep=False))  # type: ignore[arg-type]
        self.rehearsing = Rehearsing(self.runner, 1)
        self.contract = contract

    def move_to(self, tick: int, ms: float) -> None:
        self.clock[0] = tick_time(FIRST + tick, self.rate) + round(ms * MS)

    def observe_and_answer(self, tick: int, generation: int = 0) -> None:
        stamp = tick_time(FIRST + tick, self.rate)
        joints = JointState(name=list(self.contract.action.names), position=[-0.9, 1.9], velocity=[0.0, 0.0])
        pose = PoseStamped()
        self.move_to(tick, 0.4)
        for topic, message in (("/joint_states", joints), ("/tool_pose", pose)):
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, NANOSECONDS)
            self.rehearsing.heard(topic, message, self.clock[0])
        observation = np.zeros(self.contract.observation_dim, dtype=np.float32)
        observation[:2] = -0.9, 1.9
        request = Request(generation, FIRST + tick, stamp, observation, None)
        self.rehearsing.asked(request)
        self.move_to(tick, 2.4)
        self.rehearsing.answered(request, Plan(self.actor.rest), self.clock[0], FIRST + tick + 1)


@pytest.fixture
def bench(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(contract, monkeypatch)


def test_it_waits_until_shortly_before_the_next_observation_and_then_rehearses_once(bench: Bench) -> None:
    assert bench.rehearsing.idle() is None
    bench.observe_and_answer(0)
    assert bench.rehearsing.idle() is None  # from one observation nobody can tell when the next one comes
    bench.observe_and_answer(1)
    wait_s = bench.rehearsing.idle()
    # It may take the 2 ms of an answer, and 1 ms is to be left.
    assert wait_s == pytest.approx((bench.period + 0.4 - 1 - 2 - 2.4) / 1000)
    bench.move_to(1, bench.period - 3)  # woken too early
    assert bench.rehearsing.idle() == pytest.approx(0.4 / 1000)
    bench.move_to(1, bench.period - 2.5)
    assert bench.rehearsing.idle() is None
    assert bench.rehearsing.made == 1
    assert bench.rehearsing.idle() is None
    assert bench.rehearsing.made == 1
    assert bench.rehearsing.failure == ""


def test_several_rehearsals_are_made_one_after_another(bench: Bench) -> None:
    bench.rehearsing = Rehearsing(bench.runner, 3)
    for tick in range(2):
        bench.observe_and_answer(tick)
    assert bench.rehearsing.idle() == pytest.approx((bench.period + 0.4 - 1 - 6 - 2.4) / 1000)
    bench.move_to(1, bench.period - 6.6)
    # Each a call of its own, so that a question that came meanwhile goes first; each begins when it should.
    assert bench.rehearsing.idle() == 0.0
    assert bench.rehearsing.idle() == pytest.approx(1 / 1000)
    bench.move_to(1, bench.period - 4.6)
    assert bench.rehearsing.idle() == 0.0
    bench.move_to(1, bench.period - 2.6)
    assert bench.rehearsing.idle() is None
    assert bench.rehearsing.made == 3
    assert bench.rehearsing.left_out == 0


def test_who_is_too_late_for_one_makes_the_next(bench: Bench) -> None:
    bench.rehearsing = Rehearsing(bench.runner, 3)
    for tick in range(2):
        bench.observe_and_answer(tick)
    assert bench.rehearsing.idle() == pytest.approx((bench.period + 0.4 - 1 - 6 - 2.4) / 1000)
    bench.move_to(1, bench.period - 6.0)  # by 0.6 ms, where 0.5 are allowed
    assert bench.rehearsing.idle() == pytest.approx(1.4 / 1000)
    bench.move_to(1, bench.period - 4.6)
    assert bench.rehearsing.idle() == 0.0
    assert bench.rehearsing.made == 1
    bench.move_to(1, bench.period - 2.0)
    assert bench.rehearsing.idle() is None
    assert bench.rehearsing.figures() == {"rehearsals": "1", "rehearsals left out": "0"}


def test_where_there_is_no_time_for_the_network_all_else_is_rehearsed(bench: Bench) -> None:
    for tick in range(2):
        bench.observe_and_answer(tick)
    bench.move_to(1, bench.period - 2.5)  # 1.9 ms to the margin, and an answer takes 2
    assert bench.rehearsing.idle() == pytest.approx(0.9 / 1000)
    bench.move_to(1, bench.period - 1.6)
    assert bench.rehearsing.idle() is None
    assert bench.rehearsing.figures() == {"rehearsals": "1", "rehearsals left out": "0"}
    assert bench.actor.asked == 0


def test_every_rehearsal_goes_through_to_the_message(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def chunk_message_counted(contract: Contract) -> Callable[[ActionChunk], Any]:
        write = chunk_message(contract)
        return lambda chunk: written.append(chunk.stamp_ns) or write(chunk)

    monkeypatch.setattr("rql_ros.rehearsing.chunk_message", chunk_message_counted)
    bench.rehearsing = Rehearsing(bench.runner, 3)
    bench.actor.takes_ms = 2.0
    for tick in range(4):
        bench.observe_and_answer(tick)
        for ms in (6.6, 4.6, 2.6):
            bench.rehearsing.idle()
            bench.move_to(tick, bench.period - ms)
            bench.rehearsing.idle()
    assert bench.rehearsing.figures() == {"rehearsals": "9", "rehearsals left out": "1"}  # after the first
    assert bench.rehearsing.failure == ""
    assert written == [tick_time(FIRST + tick, bench.rate) for tick in (1, 2, 3) for _ in range(3)]


def test_who_is_woken_too_late_leaves_it_out(bench: Bench) -> None:
    for tick in range(2):
        bench.observe_and_answer(tick)
    assert bench.rehearsing.idle() is not None
    bench.move_to(1, bench.period - 1)
    assert bench.rehearsing.idle() is None
    assert bench.rehearsing.figures() == {"rehearsals": "0", "rehearsals left out": "1"}


def test_a_policy_that_leaves_no_time_is_left_out_of_rehearsals(bench: Bench) -> None:
    bench.actor.takes_ms = bench.period
    for tick in range(2):
        bench.observe_and_answer(tick)
    bench.rehearsing.idle()
    bench.move_to(1, bench.period - 2.5)
    bench.rehearsing.idle()
    assert bench.actor.asked == 1
    bench.observe_and_answer(3)
    assert bench.rehearsing.idle() == pytest.approx((bench.period + 0.4 - 1 - 1 - 2.4) / 1000)
    bench.move_to(3, bench.period - 1.6)
    assert bench.rehearsing.idle() is None
    assert bench.rehearsing.made == 2
    assert bench.actor.asked == 1


def test_a_failure_is_kept_for_diagnostics_and_the_next_one_is_tried(bench: Bench) -> None:
    bench.actor.fails = True
    bench.observe_and_answer(0)
    for tick in range(1, 3):
        bench.observe_and_answer(tick)
        bench.rehearsing.idle()
        bench.move_to(tick, bench.period - 2.5)
        bench.rehearsing.idle()
    assert bench.rehearsing.made == 2
    assert bench.rehearsing.figures()["last rehearsal that failed"] == "RuntimeError: the device was lost and more"


def test_after_a_failure_no_other_is_tried_for_the_same_observation(bench: Bench) -> None:
    bench.rehearsing = Rehearsing(bench.runner, 3)
    bench.actor.fails = True
    for tick in range(2):
        bench.observe_and_answer(tick)
    assert bench.rehearsing.idle() is not None
    bench.move_to(1, bench.period - 6.6)
    assert bench.rehearsing.idle() is None
    assert bench.rehearsing.idle() is None
    assert bench.rehearsing.made == 1


def test_nothing_is_rehearsed_where_no_plan_is_due(bench: Bench) -> None:
    for tick in range(3):
        bench.observe_and_answer(tick)
    request = Request(0, FIRST + 3, tick_time(FIRST + 3, bench.rate), np.zeros(5, dtype=np.float32), None)
    bench.rehearsing.asked(request)
    bench.rehearsing.answered(request, Plan(bench.actor.rest), bench.clock[0], None)
    assert bench.rehearsing.idle() is None
    assert bench.rehearsing.made == 0


def test_nothing_is_rehearsed_after_a_policy_that_failed(bench: Bench) -> None:
    for tick in range(2):
        bench.observe_and_answer(tick)
    request = Request(0, FIRST + 2, tick_time(FIRST + 2, bench.rate), np.zeros(5, dtype=np.float32), None)
    bench.rehearsing.asked(request)
    bench.rehearsing.answered(request, RuntimeError("no"), bench.clock[0], FIRST + 3)
    assert bench.rehearsing.idle() is None
