"""Chunks that take so long from being made until they leave that the robot has gone on meanwhile. Times are ms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from runner_bench import MODES, PERIOD, Bench
from runner_script import MS, START, observe
from test_runner_positions import Arm

from rql_core.contract import ActionChunk
from rql_core.runtime.options import Options
from rql_core.runtime.plan import Plan


def in_motion(mode: Any = "receding", **more: Any) -> Bench:
    """A joint that is told to turn round at every plan."""
    bench = Bench(Options(mode, 1 if mode != "open_loop" else 0, lockstep=False), horizon=5, **more)
    bench.run(15, value=1.9)
    bench.actor.says = np.resize([[2.0], [-2.0], [-2.0], [2.0]], (5, 1))
    return bench


def stalled(bench: Bench, *, asks_again: bool) -> Bench:
    bench.asks_again = asks_again
    for turn in range(12):
        bench.actor.says = np.full((5, 1), 2.0 if turn % 2 else -2.0)
        bench.observe()
        bench.ask(30 + turn)
        bench.stall = 15.0 if turn % 3 == 1 else 0.0
        bench.pass_time(bench.at - bench.at % PERIOD + PERIOD)
    bench.pass_time(bench.at + 2000)
    return bench


def test_the_robot_that_goes_on_meanwhile_keeps_to_the_limits_only_where_the_chunk_is_made_anew() -> None:
    bench = stalled(in_motion(), asks_again=True)
    assert bench.runner.counts["made_again"] >= 2
    bench.assert_safe()
    with pytest.raises(AssertionError, match="the command changed"):
        stalled(in_motion(), asks_again=False)


def stopped(*, asks_again: bool) -> Bench:
    bench = in_motion()
    bench.asks_again = asks_again
    bench.actor.says = np.full((5, 1), 1.9)
    bench.observe()
    bench.ask(20)
    bench.pass_time(bench.at + 46)
    bench.stall = 15.0
    bench.publish(bench.runner.estop(bench.now(), "test"))
    assert bench.runner.counts["made_again"] == asks_again
    assert bench.runner.counts["stops"] == 1
    bench.pass_time(bench.at + 2000)
    return bench


def test_so_does_a_stop() -> None:
    bench = stopped(asks_again=True)
    assert bench.executed[-1] == 0.0
    bench.assert_safe()
    with pytest.raises(AssertionError, match="the command changed"):
        stopped(asks_again=False)


@pytest.mark.parametrize("says", ["turns", "nan"])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_made_anew_is_what_a_plan_that_came_then_would_have_made(mode: Any, says: str) -> None:
    """And what was made at first has left no trace."""
    found = []
    for late in (True, False):
        bench = in_motion(mode)
        while True:
            bench.observe()
            request = bench.runner.take_request()
            if request is not None:
                break
            bench.pass_time(bench.at + PERIOD)
        if says == "nan":
            bench.actor.says = np.full((5, 1), np.nan)
        answer = bench.actor.plan(request.observation)
        began = bench.now()
        chunks: list[ActionChunk]
        if late:
            assert bench.runner.answer(request, answer, began + 40 * MS, MS)
            assert not bench.runner.late(began + 48 * MS)
            assert bench.runner.late(began + 52 * MS)
            chunks = bench.runner.again(began + 70 * MS)
            assert not bench.runner.late(began + 70 * MS)
        else:
            chunks = bench.runner.answer(request, answer, began + 70 * MS, MS)
        bench.idle(bench.at + 70)
        bench.publish(chunks)
        bench.actor.says = np.resize([[-1.0], [1.5]], (5, 1))
        bench.pass_time(bench.at - bench.at % PERIOD + PERIOD)
        bench.run(8)
        runner = bench.runner
        left = [(at, chunk.stamp_ns, chunk.actions.tolist()) for at, chunk in bench.published]
        counts = {name: count for name, count in runner.counts.items() if name != "made_again" and count}
        found.append((left, counts, dict(runner.filter.counts), str(runner.filter.last_change), runner.filter.latched))
    assert found[0] == found[1]


@pytest.mark.parametrize("mode", MODES)
def test_a_plan_that_is_given_up_has_left_no_trace(mode: Any) -> None:
    """But for the delay that was learnt from it; what left before it ends at rest, and the next plan is taken."""
    found = []
    for came in (True, False):
        bench = in_motion(mode)
        while (request := bench.runner.take_request()) is None:
            bench.pass_time(bench.at + PERIOD)
            bench.observe()
        runner, schedule = bench.runner, bench.runner.schedule
        counts = dict(runner.counts), dict(schedule.counts), dict(runner.filter.counts)
        if came:
            began = bench.now()
            plan = bench.actor.plan(request.observation)
            assert runner.answer(request, plan, began + 40 * MS, MS)
            assert runner.again(began + 70 * MS)
            assert runner.late(began + 130 * MS)
            assert runner.withdraw()
            assert not runner.late(began + 130 * MS)
            assert not runner.withdraw()
        bench.pass_time(bench.at + 130)
        commands = [bench.command(bench.now() + tick * PERIOD * MS) for tick in range(12)]
        figures = {name: count for name, count in schedule.counts.items() if name not in ("starvations", "late")}
        found.append((commands, counts, dict(runner.filter.counts), schedule.next_due(), runner.commanding, figures))
        assert runner.counts["withdrawn"] == came
        assert commands[-1] == 0.0
        bench.run(8, value=1.5)
        assert runner.commanding
        bench.pass_time(bench.at + 2000)
        bench.assert_safe()
    assert found[0] == found[1]


def test_the_first_plan_of_all_may_be_given_up() -> None:
    bench = Bench(Options("receding", 1, lockstep=False))
    bench.observe()
    request = bench.runner.take_request()
    assert request is not None
    assert bench.runner.answer(request, bench.actor.plan(request.observation), bench.now() + 40 * MS, MS)
    assert bench.runner.withdraw()
    assert not bench.runner.commanding
    bench.pass_time(PERIOD)
    assert bench.runner.command_at(bench.now()) is None
    bench.run(5)
    bench.pass_time(bench.at + 2000)
    bench.assert_safe()


@pytest.mark.parametrize("why", ["estop", "nan"])
def test_a_stop_is_not_given_up(why: str) -> None:
    bench = in_motion()
    bench.observe()
    if why == "estop":
        assert bench.runner.estop(bench.now(), "test") is not None
    else:
        request = bench.runner.take_request()
        assert request is not None
        assert bench.runner.answer(request, Plan(np.full((5, 1), np.nan)), bench.now() + 40 * MS, MS)
    left = bench.runner.command_at(bench.now() + 2 * PERIOD * MS)
    assert not bench.runner.withdraw()
    assert bench.runner.again(bench.now() + 2 * PERIOD * MS)
    assert not bench.runner.withdraw()
    assert left is not None
    assert not bench.runner.commanding
    assert bench.runner.counts["withdrawn"] == 0


def test_a_chunk_that_is_over_by_then_does_not_leave_and_the_one_before_ends_at_rest() -> None:
    bench = in_motion()
    bench.observe()
    request = bench.runner.take_request()
    assert request is not None
    chunks = bench.runner.counts["chunks"]
    assert bench.runner.answer(request, bench.actor.plan(request.observation), bench.now() + 40 * MS, MS)
    assert bench.runner.again(bench.now() + 400 * MS) == []
    assert bench.runner.counts["chunks"] == chunks
    bench.pass_time(bench.at + 2000)
    assert bench.executed[-1] == 0.0
    bench.assert_safe()


def test_where_commands_could_not_begin_any_more_nothing_leaves_and_it_is_said() -> None:
    arm = Arm(Options("receding", 1, lockstep=False))
    arm.observe()
    request = arm.runner.take_request()
    assert request is not None
    assert arm.runner.answer(request, arm.actor.plan(request.observation), arm.now() + 40 * MS, MS)
    # The joint's own limits do not change while a node runs; here they stand for whatever cannot begin.
    arm.runner.filter.limits.position_from = None
    assert arm.runner.again(arm.now() + 70 * MS) == []
    assert "not measured" in arm.runner.cannot_begin
    assert arm.runner.counts["cannot_begin"] == 1
    assert not arm.runner.commanding


def test_a_simulation_that_waits_is_never_late() -> None:
    bench = Bench(Options(lockstep=True))
    assert observe(bench.runner, 0.0)
    assert not bench.runner.late(START + 10_000 * MS)


def test_before_anything_was_made_nothing_is_late() -> None:
    bench = Bench()
    assert not bench.runner.late(START)
    assert bench.runner.again(START) == []
