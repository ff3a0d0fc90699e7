"""A runner beside a clock: plans that take time, a robot that executes what left by its times. Times are ms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runner_bench import MODES, PERIOD, Bench, Planner, troubles
from runner_script import CONTRACT, MS, START

from rql_core.contract import ActionChunk, parse_contract
from rql_core.errors import ContractError
from rql_core.runtime.critic_monitor import CriticMonitor, ValueRange
from rql_core.runtime.health import health_of
from rql_core.runtime.options import Options
from rql_core.runtime.plan import Guide, Plan
from rql_core.runtime.runner import PolicyRunner, Request


def test_a_chunk_leaves_when_its_plan_has_come_stamped_with_its_observation_and_ends_at_rest() -> None:
    bench = Bench()
    bench.observe()
    assert bench.published == []
    bench.ask(30)
    bench.pass_time(50)
    ((at, chunk),) = bench.published
    assert at == 30
    assert chunk.stamp_ns == START
    assert (np.diff(chunk.ends_ns, prepend=START) == PERIOD * MS).all()
    assert chunk.horizon > 4
    assert chunk.actions[-1] == 0.0
    bench.pass_time(1000)
    bench.assert_safe()


def test_what_was_over_when_a_chunk_came_is_written_as_it_was_executed() -> None:
    bench = Bench(Options("receding", 1, lockstep=False), horizon=10)
    bench.run(12)
    before = list(bench.executed)
    bench.observe(1.5)
    bench.ask(110)
    bench.pass_time(bench.at + 110)
    chunk = bench.published[-1][1]
    assert (chunk.stamp_ns - START) // (PERIOD * MS) == 12
    executed = bench.executed[len(before) :]
    np.testing.assert_array_equal(chunk.actions[:2, 0], executed[:2])
    bench.assert_safe()


def test_without_another_plan_the_robot_comes_to_rest_by_the_chunk_itself() -> None:
    bench = Bench()
    bench.run(8)
    assert bench.executed[-1] > 0.1
    published = len(bench.published)
    # Nothing more from this process: what has left is all that the robot has.
    for _ in range(40):
        bench.at += PERIOD
        action = bench.schedule.action_at(bench.now() - 1)
        bench.executed.append(0.0 if action is None else float(action[0]))
    assert len(bench.published) == published
    assert bench.executed[-1] == 0.0
    bench.assert_safe()


def test_commands_ramp_in_after_the_first_and_after_every_interruption() -> None:
    bench = Bench()
    bench.run(6, value=0.3)
    ramped = bench.executed[:4]
    assert all(np.diff(ramped) > 0)
    assert ramped[0] < 0.1
    bench.publish(bench.runner.estop(bench.now(), "test"))
    bench.pass_time(bench.at + 300)
    assert bench.executed[-1] == 0.0
    bench.runner.rearm(bench.now())
    begun = len(bench.executed)
    bench.run(6, value=0.3)
    again = [value for value in bench.executed[begun:] if value > 0]
    assert again[0] < 0.1
    bench.assert_safe()


def test_silence_holds_then_stops_and_only_rearming_begins_again() -> None:
    bench = Bench()
    bench.run(8)
    bench.pass_time(bench.at + 400)
    assert bench.executed[-1] == 0.0
    assert "holding" in str(bench.runner.reason(bench.now()))
    published = len(bench.published)
    bench.run(2)
    assert "holding" in str(bench.runner.reason(bench.now()))
    bench.run(6)
    assert len(bench.published) > published
    assert bench.runner.commanding
    bench.pass_time(bench.at + 1500)
    assert str(bench.runner.reason(bench.now())).startswith("stopped: no fresh observation on /")
    assert health_of(bench.runner, bench.now()).level == "error"
    published = len(bench.published)
    bench.run(20)
    assert len(bench.published) == published
    said = "stopped: there was no complete observation for 1 s; call rearm to go on"
    assert bench.runner.reason(bench.now()) == said
    bench.runner.rearm(bench.now())
    bench.run(6)
    assert bench.executed[-1] > 0
    bench.assert_safe()


def test_an_answer_that_comes_after_the_stop_is_dropped() -> None:
    bench = Bench()
    bench.run(8)
    bench.observe()
    bench.ask(5000)
    request = bench.waiting.pop()[1] if bench.waiting else Request(0, 0, START, np.zeros(2, np.float32), None)
    bench.publish(bench.runner.estop(bench.now(), "test"))
    assert bench.runner.answer(request, Plan(np.full((4, 1), 1.0)), bench.now(), 1) == []
    assert bench.runner.counts["dropped_plans"] == 1
    published = len(bench.published)
    bench.run(10)
    bench.runner.reset(0)
    bench.run(10)
    assert len(bench.published) == published
    assert health_of(bench.runner, bench.now()).level == "error"
    bench.assert_safe()


def test_a_policy_that_fails_brakes_and_latches() -> None:
    bench = Bench()
    bench.run(8)

    def fail(observation: Any, guide: Guide | None = None) -> Plan:
        raise RuntimeError("device lost")

    bench.actor.plan = fail  # type: ignore[method-assign]
    bench.run(20)
    assert bench.executed[-1] == 0.0
    assert "latched" in str(bench.runner.reason(bench.now()))
    assert bench.runner.last_error == "the policy failed: RuntimeError: device lost"
    bench.assert_safe()


def test_a_plan_that_takes_longer_than_its_chunk_starves_and_is_counted() -> None:
    bench = Bench()
    bench.run(40, delay=450)
    figures = bench.runner.schedule.figures(bench.now())
    assert figures["refused_over"] > 0
    bench.assert_safe()


def test_run_commands_for_its_time_and_no_longer() -> None:
    bench = Bench(Options(lockstep=False, on_trigger=True))
    bench.run(6)
    assert bench.published == []
    assert health_of(bench.runner, bench.now()).level == "ok"
    bench.runner.run(bench.now(), 400 * MS)
    bench.run(30)
    assert max(bench.executed) > 0.3
    assert bench.executed[-10:] == [0.0] * 10
    assert bench.runner.reason(bench.now()) == "waiting for run"
    bench.assert_safe()


@pytest.mark.parametrize(("monitoring", "moves"), [("off", True), ("warn", True), ("hold", False)])
def test_unusual_values_warn_or_hold_until_they_are_usual_again(monitoring: Any, moves: bool) -> None:
    monitor = CriticMonitor(ValueRange(-10.0, -1.0, 1.0), window=2)
    bench = Bench(Options("receding", 1, lockstep=False, monitor=monitoring), monitor=monitor)
    bench.actor.values = np.array([-5.0, -5.0], dtype=np.float32)
    bench.run(8)
    assert health_of(bench.runner, bench.now()).level == "ok"
    bench.actor.values = np.array([-50.0, -50.0], dtype=np.float32)
    bench.run(12)
    assert (bench.executed[-1] > 0) is moves
    health = health_of(bench.runner, bench.now())
    assert health.level == ("ok" if monitoring == "off" else "warn")
    assert ("value" in health.summary) is (monitoring != "off")
    bench.actor.values = np.array([-5.0, -5.0], dtype=np.float32)
    bench.run(8)
    assert bench.executed[-1] > 0
    bench.assert_safe()


@pytest.mark.parametrize(("monitoring", "warns"), [("off", False), ("warn", True)])
def test_values_may_come_when_the_plan_has_left(monitoring: Any, warns: bool) -> None:
    monitor = CriticMonitor(ValueRange(-10.0, -1.0, 1.0), window=2)
    bench = Bench(Options("receding", 1, lockstep=False, monitor=monitoring), monitor=monitor)
    bench.run(8)
    request = Request(bench.runner._generation, 0, START, np.zeros(1, dtype=np.float32), None)
    for _ in range(3):
        bench.runner.judge(request, np.array([-50.0, -50.0], dtype=np.float32))
        bench.runner.judge(request, np.zeros(0, dtype=np.float32))
    assert monitor.judged == (3 if warns else 0)
    bench.run(4)
    assert bench.executed[-1] > 0
    assert health_of(bench.runner, bench.now()).level == ("warn" if warns else "ok")
    bench.runner.reset()
    bench.runner.judge(request, np.array([-50.0, -50.0], dtype=np.float32))
    assert monitor.last is None


def test_only_what_would_be_held_or_a_simulation_waits_for_the_critics() -> None:
    first = [
        (m, lockstep)
        for m in ("off", "warn", "hold")
        for lockstep in (False, True)
        if Options("receding", monitor=m, lockstep=lockstep).values_first
    ]  # type: ignore[arg-type]
    assert first == [("warn", True), ("hold", False), ("hold", True)]


def test_in_the_shadow_nothing_leaves_and_the_difference_is_told() -> None:
    bench = Bench(Options("receding", 1, lockstep=False, shadow=True))
    for _ in range(10):
        bench.runner.commanded(ActionChunk.regular(bench.contract, bench.now(), np.full((1, 1), 0.1)))
        bench.run(1)
    assert bench.published == []
    figures = bench.runner.comparison.figures() if bench.runner.comparison else {}
    assert figures["distance_p50"] == pytest.approx((0.5 + 0.01 - 0.1) / 4, abs=0.01)
    assert figures["agreement"] == 0.0
    assert bench.runner.estop(bench.now(), "test") is None


def test_in_the_shadow_a_controller_that_answers_each_observation_is_compared_at_every_tick() -> None:
    bench = Bench(Options("receding", 1, lockstep=False, shadow=True))
    for _ in range(10):
        stamp = bench.now()
        bench.run(1)
        bench.runner.commanded(ActionChunk.regular(bench.contract, stamp, np.full((1, 1), 0.1)))
    assert bench.runner.comparison is not None
    assert bench.runner.comparison.compared >= 7
    assert bench.runner.comparison.uncommanded == 0


def test_another_policy_takes_over_between_chunks_without_a_gap() -> None:
    bench = Bench()
    bench.run(8, value=0.3)
    other = Planner(6)
    bench.runner.set_actor(other, None)
    bench.actor = other
    begun = len(bench.executed)
    bench.run(10, value=0.3)
    assert min(bench.executed[begun:]) > 0.2
    assert bench.runner.counts["stops"] == 0
    bench.assert_safe()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Plan(np.zeros((3, 1))), "answered (3, 1), expected (4, 1)"),
        (Plan(np.full((4, 1), "1.0")), "expected a plan of numbers"),
        (None, "it answered None, expected a plan of numbers"),
    ],
)
def test_an_answer_that_is_no_plan_brakes_to_rest_however_few_steps_it_has_and_latches(answer: Any, said: str) -> None:
    bench = Bench()
    bench.run(12, value=1.5)
    bench.actor.plan = lambda observation, guide=None: answer  # type: ignore[method-assign]
    bench.run(40, value=1.5)
    assert said in bench.runner.last_error
    assert "latched" in str(bench.runner.reason(bench.now()))
    assert all(chunk.actions[-1] == 0 for _, chunk in bench.published)
    bench.assert_safe()


def test_rearming_needs_to_know_where_the_joints_are() -> None:
    text = CONTRACT.replace("command: velocities", "command: positions").replace("unit: rad/s\n", "unit: rad\n")
    text = text.replace("hold: zero", "hold: last").split("safety:")[0] + (
        "safety:\n  units: {position: rad, velocity: rad/s, acceleration: rad/s^2, jerk: rad/s^3}\n"
        "  measured: {position: joint}\n"
        "  limits: [{name: elbow, deviation: 0.5, velocity: 1.0, acceleration: 8.0, jerk: 160.0}]\n"
    )
    runner = PolicyRunner(parse_contract(text), Planner(4), Options(lockstep=False))
    runner.estop(START, "test")
    with pytest.raises(ContractError, match="nothing was observed yet"):
        runner.rearm(START)
    assert runner.estopped == "test"


@given(troubles(), st.sampled_from(MODES), st.integers(0, 260))
def test_whatever_happens_what_is_executed_keeps_to_the_limits(
    happening: list[tuple[str, float]], mode: Any, delay: int
) -> None:
    bench = Bench(Options(mode, lockstep=False), horizon=5)
    bench.run(3)
    for kind, value in happening:
        bench.befall(kind, value, delay)
    bench.pass_time(bench.at + 2000)
    assert bench.executed[-1] == 0.0
    bench.assert_safe()


def test_a_request_that_had_to_wait_is_made_anew_where_a_plan_is_still_wanted_for_it() -> None:
    bench = Bench(Options("rtc", 2, lockstep=False), horizon=6)
    bench.run(8)

    def waiting() -> Request:
        """What is asked for while another request, for the observation before, is being answered."""
        while True:
            bench.observe()
            request = bench.runner.take_request()
            bench.pass_time(bench.at + PERIOD)
            if request is not None:
                break
        bench.observe()
        second = bench.runner.take_request()
        assert second is not None
        bench.publish(bench.runner.answer(request, bench.actor.plan(request.observation), bench.now(), MS))
        return second

    second = waiting()
    # Every second step is planned for, and the first has just been.
    assert bench.runner.renewed(second) is None
    bench.runner.set_options(Options("rtc", 1, lockstep=False))
    bench.run(4)
    second = waiting()
    renewed = bench.runner.renewed(second)
    assert renewed is not None
    assert renewed.tick == second.tick
    assert renewed.guide is not None
    # It is held to the chunk that has come meanwhile, and not to the one that was there when it was asked for.
    ahead = bench.runner.schedule.guide(second.tick)
    assert ahead is not None
    np.testing.assert_array_equal(renewed.guide.previous, ahead.previous)
    assert second.guide is None or (second.guide.previous != renewed.guide.previous).any()
    bench.publish(bench.runner.stop(bench.now()))
    assert bench.runner.renewed(second) is None
