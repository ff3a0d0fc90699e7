"""What must not leave, or must: interruptions of a runner at awkward moments. Times are ms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from runner_bench import PERIOD, Bench, Planner, strict
from runner_script import MS, START, joints, observe, tool

from rql_core.contract import ActionChunk
from rql_core.errors import ConfigError
from rql_core.runtime.critic_monitor import CriticMonitor, ValueRange
from rql_core.runtime.options import Options
from rql_core.runtime.runner import PolicyRunner

USUAL, UNUSUAL = np.array([-5.0, -5.0], np.float32), np.array([-50.0, -50.0], np.float32)


def held_by_its_critics(**options: Any) -> Bench:
    """A bench that holds because values were unusual; what is planned from now on is usual again."""
    bench = Bench(
        Options("receding", 1, lockstep=False, monitor="hold", **options),
        monitor=CriticMonitor(ValueRange(-10.0, -1.0, 1.0), window=2),
    )
    bench.actor.values = USUAL
    bench.run(6)
    bench.actor.values = UNUSUAL
    bench.run(6)
    assert bench.runner.reason(bench.now()) == "holding: the critics' values are unusual"
    bench.actor.values = USUAL
    return bench


def test_after_an_emergency_stop_usual_values_do_not_begin_again() -> None:
    bench = held_by_its_critics()
    bench.publish(bench.runner.estop(bench.now(), "test"))
    published = len(bench.published)
    bench.run(10)
    assert len(bench.published) == published
    assert "emergency stop" in str(bench.runner.reason(bench.now()))


def test_after_an_emergency_stop_in_lockstep_usual_values_do_not_begin_again() -> None:
    monitor = CriticMonitor(ValueRange(-10.0, -1.0, 1.0), window=2)
    actor = Planner(4)
    runner = PolicyRunner(strict(), actor, Options("receding", 1, monitor="hold"), monitor=monitor)
    actor.values = UNUSUAL
    observe(runner, 0, 50, 100, 150, value=0.5)
    runner.estop(None, "test")
    actor.values = USUAL
    assert observe(runner, 200, 250, 300, value=0.5) == []


def test_a_plan_for_an_observation_that_grew_old_meanwhile_does_not_leave() -> None:
    """Nothing was commanded yet, so that there was nothing to stop when the observations stayed away."""
    bench = Bench(horizon=20)
    bench.observe()
    bench.ask(400)
    bench.pass_time(PERIOD * 12)
    assert "holding" in str(bench.runner.reason(bench.now()))
    assert bench.published == []
    assert bench.runner.counts["dropped_plans"] == 1


def test_rearming_what_runs_leaves_it_such_that_it_can_be_stopped() -> None:
    bench = Bench(horizon=20)
    bench.run(8)
    bench.runner.rearm(bench.now())
    assert bench.runner.commanding
    stop = bench.runner.estop(bench.now(), "test")
    assert stop is not None
    bench.publish(stop)
    bench.pass_time(bench.at + 1000)
    assert bench.executed[-16:] == [0.0] * 16
    bench.assert_safe()


def test_a_run_that_was_refused_does_not_begin_when_the_runner_is_rearmed() -> None:
    bench = Bench(Options(lockstep=False, on_trigger=True))
    bench.run(4)
    bench.runner.estop(bench.now(), "test")
    bench.runner.run(bench.now(), 10_000_000_000)
    bench.runner.rearm(bench.now())
    bench.run(10)
    assert bench.published == []
    assert bench.runner.reason(bench.now()) == "waiting for run"
    assert bench.runner.run(bench.now(), 10_000_000_000) is None


def test_in_lockstep_a_run_ends_by_the_time_of_the_observations() -> None:
    runner = PolicyRunner(strict(), Planner(4), Options("receding", 1, on_trigger=True))
    assert observe(runner, 0, 50) == []
    runner.run(START + 50 * MS, 200 * MS)
    times = range(100, 600, 50)
    chunks = [(at, chunk) for at in times for chunk in observe(runner, at, value=0.5)]
    assert [at for at, _ in chunks] == [100, 150, 200, 250]
    assert chunks[-1][1].actions[-1] == 0.0


@pytest.mark.parametrize("horizon", [2, 5])
def test_instead_of_a_refused_chunk_the_whole_stop_leaves_whatever_the_horizon(horizon: int) -> None:
    bench = Bench(horizon=horizon)
    bench.run(30, value=2.0)
    assert bench.executed[-1] > 1.0
    bench.actor.says = np.full((horizon, 1), np.nan)
    bench.run(1)
    bench.pass_time(bench.at + 2000)
    assert bench.executed[-1] == 0.0
    bench.assert_safe()


def test_a_plan_of_the_policy_before_is_taken_though_two_others_were_loaded_meanwhile() -> None:
    bench = Bench(Options("receding", 1, lockstep=False))
    bench.run(8)
    bench.observe()
    request = bench.runner.take_request()
    assert request is not None
    bench.runner.set_actor(Planner(6), None)
    bench.runner.set_actor(Planner(7), None)
    bench.publish(bench.runner.answer(request, bench.actor.plan(request.observation), bench.now(), 1))
    assert bench.runner.commanding
    assert bench.runner.filter.counts["not_finite"] == 0


@pytest.mark.parametrize("ahead", [20, 60, 1000, 1400])
def test_a_stop_replaces_what_was_planned_for_an_observation_of_a_clock_ahead(ahead: int) -> None:
    bench = Bench()
    bench.run(8)
    for _ in range(4):
        for topic, message in (("/joints", joints(bench.at + ahead, 0.5)), ("/tool", tool(bench.at + ahead))):
            bench.runner.push(topic, message, bench.now(), check_future=True)
        bench.publish(bench.runner.poll(bench.now()))
        bench.ask(10)
        bench.pass_time(bench.at + PERIOD)
    assert bench.runner.commanding
    bench.publish(bench.runner.estop(bench.now(), "test"))
    bench.pass_time(bench.at + 400)
    begun = len(bench.executed)
    bench.pass_time(bench.at + 3000)
    assert set(bench.executed[begun:]) == {0.0}
    bench.assert_safe()


def set_back(bench: Bench, by: float) -> None:
    """The clock is set back: of what left before, the robot finishes the period that it is in."""
    present = bench.command(bench.now())
    bench.at -= by
    bench.schedule.clear()
    bench.schedule.add(ActionChunk.regular(bench.contract, bench.now(), np.array([[present]])))
    bench.waiting.clear()
    bench.taken = None


def test_commands_begin_again_when_the_clock_was_set_back_while_nothing_was_commanded() -> None:
    bench = Bench()
    bench.at = 100_000.0
    bench.run(8)
    bench.publish(bench.runner.stop(bench.now()))
    set_back(bench, 90_000)
    bench.runner.start(1, bench.now())
    begun = len(bench.executed)
    bench.run(40)
    assert bench.executed[-1] > 0
    bench.executed = bench.executed[begun:]
    bench.assert_safe()


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("rested", [50, 100, 200, 600, 1000])
def test_a_stop_goes_on_from_what_was_in_force_when_the_clock_was_set_back(said: bool, rested: int) -> None:
    """By a second, to where the robot was moving by the runner's own memory of that time."""
    bench = Bench(horizon=20)
    bench.run(20, value=2.0)
    bench.publish(bench.runner.stop(bench.now()))
    bench.pass_time(bench.at + rested)
    set_back(bench, 1000)
    if said:
        bench.publish(bench.runner.stop(bench.now(), clock_jumped=True, was_ns=bench.now() + 1000 * 1_000_000))
        bench.runner.reset(1)
    else:
        bench.publish(bench.runner.poll(bench.now()))
    bench.run(12, value=2.0)
    bench.assert_safe()


def test_what_runs_is_stopped_where_nobody_says_that_the_clock_was_set_back() -> None:
    bench = Bench(Options(lockstep=False, on_trigger=True))
    bench.at = 100_000.0
    bench.run(2)
    assert bench.runner.run(bench.now(), 3_000 * MS) is None
    bench.run(20)
    assert bench.executed[-1] > 0
    set_back(bench, 90_000)
    bench.run(20)
    assert bench.executed[-1] == 0.0
    assert bench.runner.reason(bench.now()) == "waiting for run"
    bench.assert_safe()


def test_what_a_stop_still_commands_stays_known_though_a_plan_comes_when_it_is_over() -> None:
    bench = Bench(Options("receding", 1, lockstep=False), horizon=2)
    bench.run(30, value=2.0)
    bench.publish(bench.runner.estop(bench.now(), "test"))
    bench.runner.rearm(bench.now())
    bench.pass_time(bench.at + PERIOD)
    bench.run(1, delay=101, value=2.0)
    bench.run(2, delay=1, value=2.0)
    assert bench.runner.schedule.counts["refused_over"] == 1
    assert bench.executed[-1] > 0.5, "the stop is over"
    bench.run(1, delay=2, value=2.0)
    assert bench.runner.commanding
    bench.pass_time(bench.at + 1000)
    bench.assert_safe()


def test_real_time_chunking_is_refused_to_a_policy_that_cannot_be_held_to_a_chunk() -> None:
    """Otherwise each of its plans would fail, and the node latch."""
    bench = Bench(Options("receding", lockstep=False))
    bench.actor.takes_guide = False
    bench.run(4)
    with pytest.raises(ConfigError, match="no flow to guide"):
        bench.runner.set_options(Options("rtc", lockstep=False))
    assert bench.runner.options.mode == "receding"
    with pytest.raises(ConfigError, match="no flow to guide"):
        PolicyRunner(bench.contract, bench.actor, Options("rtc", lockstep=False))
