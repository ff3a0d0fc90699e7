"""When the runner plans in lockstep, what it does without observations, what it says. Times are ms after START."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from runner_script import (
    CONTRACT,
    HOLD_LAST,
    MS,
    NAN,
    SAFE,
    START,
    Script,
    header,
    header_at,
    health,
    joints,
    make,
    observe,
    seen,
    stamps,
    tool,
)

from rql_core.contract import ActionChunk, Contract, parse_contract
from rql_core.contract.time import tick_time
from rql_core.errors import ConfigError
from rql_core.runtime.options import Options
from rql_core.runtime.plan import Plan
from rql_core.runtime.runner import PolicyRunner


@pytest.fixture
def contract() -> Contract:
    return parse_contract(CONTRACT)


# When it plans


def test_it_plans_at_the_first_complete_observation_and_not_before(contract: Contract) -> None:
    actor = Script()
    runner = make(contract, actor)
    assert runner.poll(START) == []
    runner.push("/joints", joints(0, 0.5), START)
    assert runner.poll(START) == []
    assert actor.seen == []
    runner.push("/tool", tool(0, 0.25), START)
    (chunk,) = runner.poll(START)
    assert actor.seen == [[0.5, 0.25]]
    assert chunk.stamp_ns == START
    assert [int(end) - START for end in chunk.ends_ns] == [50 * MS, 100 * MS, 150 * MS, 200 * MS]
    np.testing.assert_array_equal(chunk.actions, [[0.5], [0.51], [0.52], [0.53]])


@pytest.mark.parametrize(("replan_every", "expected"), [(1, 1), (2, 2), (3, 3), (4, 4), (0, 4)])
def test_it_plans_every_replan_every_steps_and_0_means_the_whole_chunk(
    contract: Contract, replan_every: int, expected: int
) -> None:
    actor = Script()
    runner = make(contract, actor, replan_every)
    chunks = observe(runner, *range(0, 13 * 50, 50))
    assert stamps(chunks) == [50.0 * tick for tick in range(0, 13, expected)]
    assert len(actor.seen) == len(chunks)
    assert all(chunk.horizon == 4 for chunk in chunks)
    assert runner.counts["chunks"] == len(chunks)
    assert runner.counts["observations"] == 13


def test_the_actor_sees_the_observation_of_the_tick_it_answers(contract: Contract) -> None:
    actor = Script()
    runner = make(contract, actor, 2)
    for tick in range(6):
        observe(runner, 50 * tick, value=tick / 8)
    assert actor.seen == [[0.0, 0.0], [0.25, 0.25], [0.5, 0.5]]


@pytest.mark.parametrize("replan_every", [-1, 5])
def test_a_replan_every_beyond_the_horizon_is_refused(contract: Contract, replan_every: int) -> None:
    with pytest.raises(ConfigError, match=rf"replan_every is {replan_every}, expected 0 .* to 4"):
        make(contract, Script(), replan_every)


def test_in_lockstep_an_observation_that_comes_again_is_answered_with_the_same_chunk(contract: Contract) -> None:
    """The simulation was heard before it could hear, and would wait for ever."""
    actor = Script()
    runner = make(contract, actor)

    def show(at: float) -> list[ActionChunk]:
        runner.push("/joints", joints(at, 0.5), START)
        before = runner.poll(None)
        runner.push("/tool", tool(at, 0.25), START)
        return before + runner.poll(None)

    (chunk,) = show(0)
    for _ in range(2):
        (again,) = show(0)
        np.testing.assert_array_equal(again.actions, chunk.actions)
        assert again.stamp_ns == chunk.stamp_ns
    assert len(actor.seen) == 1
    assert runner.counts["answered_again"] == 2
    assert show(50) == show(50) == []  # no plan is due there, and its command was heard
    runner.reset()
    assert len(show(50)) == 1
    runner.estop(None, "a test")
    assert show(50) == []  # what was planned before the stop does not come back


def test_beside_a_clock_an_observation_that_comes_again_is_not_answered(contract: Contract) -> None:
    runner = PolicyRunner(contract, Script(), Options("open_loop", lockstep=False))
    for _ in range(3):
        runner.push("/joints", joints(0, 0.5), START)
        runner.push("/tool", tool(0, 0.25), START)
        assert runner.poll(START) == []
        request = runner.take_request()
        if request is not None:
            assert len(runner.answer(request, Plan(np.zeros((4, 1))), START + MS, MS)) == 1
    assert runner.assembler.counts["duplicate"] == 4


def test_commands_leave_inside_the_limits(contract: Contract) -> None:
    runner = make(contract)
    (chunk,) = observe(runner, 0, value=1.995)
    np.testing.assert_allclose(chunk.actions[:, 0], [1.995, 2.0, 2.0, 2.0], atol=1e-6)
    assert chunk.actions.max() == 2.0
    assert health(runner).values["filter velocity"] == "3"


# Missing observations


def test_missing_observations_give_one_safe_chunk_and_planning_starts_anew(contract: Contract) -> None:
    runner = make(contract, Script(horizon=40))  # two seconds: nothing new is due in this test
    chunks = observe(runner, 0, 50)
    runner.push("/joints", joints(100), START)
    assert runner.poll(START + 119 * MS) == []  # still within max_wait
    chunks += runner.poll(START + 121 * MS)
    for late in range(130, 1000, 10):
        chunks += runner.poll(START + late * MS)
    assert seen(chunks)[1:] == [(100.0, SAFE)]
    said = health(runner, 1000)
    assert said.level == "warn"
    assert "/tool" in said.summary
    runner.push("/tool", tool(1000), START)
    runner.push("/joints", joints(1000, 0.5), START)
    (chunk,) = runner.poll(START + 1000 * MS)
    assert seen([chunk])[0][0] == 1000.0
    assert chunk.actions[0] == [0.5]
    assert observe(runner, 1050, 1100, 1150, 1200) == []
    assert health(runner, 1200).level == "ok"


def test_each_gap_gives_its_own_safe_chunk(contract: Contract) -> None:
    runner = make(contract)
    chunks = []
    for begin in (0, 500, 1000):
        chunks += observe(runner, begin, begin + 50)
        chunks += runner.poll(START + (begin + 300) * MS)
    # Found late, it begins where the clock is: a chunk that is over when it arrives would stop nothing.
    assert [at for at, actions in seen(chunks) if actions == SAFE] == [300.0, 800.0, 1300.0]
    assert stamps(chunks) == [0.0, 300.0, 500.0, 800.0, 1000.0, 1300.0]


def test_a_gap_is_found_without_a_clock_too(contract: Contract) -> None:
    """In lockstep nothing is late, but steps without observation that others follow are missing."""
    runner = make(contract, replan_every=1)
    assert seen(observe(runner, 0, 100))[1:] == [(100.0, [[0.0], [0.01], [0.02], [0.03]])]
    runner = make(contract, replan_every=1)
    runner.push("/joints", joints(0), START)
    runner.push("/tool", tool(0), START)
    chunks = runner.poll(None)
    runner.push("/joints", joints(50), START)
    runner.push("/joints", joints(100), START)
    for at in (150, 200):
        chunks += observe(runner, at)
    assert stamps(chunks) == [0.0, 150.0, 200.0]


def test_no_safe_chunk_before_anything_was_commanded(contract: Contract) -> None:
    runner = make(contract)
    runner.push("/joints", joints(0), START)
    assert runner.poll(START + 5000 * MS) == []
    said = health(runner, 5000)
    assert (said.level, runner.counts["missing_observations"]) == ("warn", 1)
    assert "/tool" in said.summary


def hold_last() -> Contract:
    text = CONTRACT
    for was, now in HOLD_LAST:
        text = text.replace(was, now)
    return parse_contract(text)


def test_with_hold_last_the_safe_chunk_is_what_was_in_force_and_no_later_action_of_the_chunk() -> None:
    runner = make(hold_last(), Script(horizon=10))
    observe(runner, 0, 50, value=0.5)
    (safe,) = runner.poll(START + 121 * MS)
    assert seen([safe])[0][0] == 100.0
    np.testing.assert_array_equal(safe.actions, [[0.51], [0.51]])  # step 1 of .50, .51, ... .59


def test_a_stop_right_after_a_plan_holds_its_first_action_and_a_second_stop_says_nothing() -> None:
    runner = make(hold_last(), Script(horizon=10))
    observe(runner, 0, value=0.5)
    stopped = runner.stop(START + 10 * MS)
    assert stopped is not None
    np.testing.assert_array_equal(stopped.actions, [[0.5], [0.5]])
    assert runner.stop(START + 20 * MS) is None


def test_after_a_reset_nothing_of_before_is_held() -> None:
    runner = make(hold_last(), Script())
    observe(runner, 0, value=0.5)
    runner.reset()
    assert runner.stop(START + 100 * MS) is None


def test_a_stop_after_a_clock_jump_begins_at_the_new_time(contract: Contract) -> None:
    runner = make(contract)
    observe(runner, 5000)
    stopped = runner.stop(START + 60 * MS, clock_jumped=True)
    assert stopped is not None
    assert seen([stopped]) == [(50.0, SAFE)]


def test_a_stamp_of_another_clock_is_refused_and_said(contract: Contract) -> None:
    runner = make(contract)
    runner.push("/joints", joints(2000), START, check_future=True)
    runner.push("/tool", tool(1400), START, check_future=True)
    assert runner.counts["refused_messages"] == 1
    assert "/joints: header.stamp is 2.000 s ahead" in health(runner).values["last error"]


# Messages that break the contract


@pytest.mark.parametrize(
    ("topic", "message", "said"),
    [
        ("/joints", joints(50, NAN), "/joints: joint.position.elbow is nan"),
        ("/joints", joints(50, float("inf")), "/joints: joint.position.elbow is inf"),
        ("/joints", joints(50, 0.5, name="wrist"), "'elbow' is there 0 times"),
        ("/tool", tool(50, NAN), "/tool: tool.point.x is nan"),
        ("/tool", SimpleNamespace(header=header(50), point=None), "/tool: cannot read tool.point.x"),
        ("/tool", SimpleNamespace(header=header_at(0), point=SimpleNamespace(x=0.5)), "/tool: header.stamp is 0 ns"),
    ],
)
def test_a_message_that_breaks_the_contract_is_counted_said_and_not_used(
    contract: Contract, topic: str, message: SimpleNamespace, said: str
) -> None:
    actor = Script()
    runner = make(contract, actor, 1)
    observe(runner, 0, value=0.125)
    runner.push(topic, message, START + 50 * MS)
    other = ("/tool", tool(50, 0.25)) if topic == "/joints" else ("/joints", joints(50, 0.25))
    runner.push(*other, START + 50 * MS)
    assert seen(runner.poll(START + 80 * MS)) == [(50.0, SAFE)]
    assert actor.seen == [[0.125, 0.125]]
    assert runner.counts["refused_messages"] == 1
    values = health(runner, 80).values
    assert values["refused_messages"] == "1"
    assert said in values["last error"]
    # A good message in its place is used.
    runner.push("/joints", joints(100, 0.5), START)
    runner.push("/tool", tool(100, 0.5), START)
    assert stamps(runner.poll(START + 100 * MS)) == [100.0]
    assert actor.seen[1:] == [[0.5, 0.5]]


# Episodes and clocks


def test_reset_ignores_observations_of_the_time_before_the_start(contract: Contract) -> None:
    actor = Script()
    runner = make(contract, actor)
    observe(runner, 0, 50)
    runner.reset(7, START + 500 * MS)
    assert actor.seeds == [7]
    assert observe(runner, 450, 499, value=0.25) == []
    assert stamps(observe(runner, 500, value=0.5)) == [500.0]
    assert actor.seen == [[0.0, 0.0], [0.5, 0.5]]
    assert health(runner).values["before_start"] == "4"


def test_reset_in_the_middle_of_a_chunk_plans_at_once(contract: Contract) -> None:
    runner = make(contract)
    assert stamps(observe(runner, 0, 50)) == [0.0]
    runner.reset(0, START + 100 * MS)
    assert stamps(observe(runner, 100, 150, 200, 250, 300)) == [100.0, 300.0]


def test_an_episode_that_starts_without_observations_gives_no_safe_chunk(contract: Contract) -> None:
    runner = make(contract)
    observe(runner, 0)
    runner.reset(0, START + 100 * MS)
    assert runner.poll(START + 900 * MS) == []


def test_a_clock_that_is_set_back_starts_planning_anew(contract: Contract) -> None:
    actor = Script()
    runner = make(contract, actor)
    observe(runner, 5000, 5050)
    assert stamps(observe(runner, 0, 50, 100, 150, 200, value=0.5)) == [0.0, 200.0]
    assert actor.seen[1] == [0.5, 0.5]
    assert health(runner).values["clock_jump"] == "1"


# The filter at work


def test_a_latched_runner_gives_the_safe_command_once_and_then_nothing(contract: Contract) -> None:
    actor = Script(horizon=2)
    runner = make(contract, actor, 1)
    observe(runner, 0)
    actor.says = np.array([[NAN], [0.5]])
    chunks = observe(runner, 50, 100)
    assert health(runner).level == "ok"  # two may be a glitch
    chunks += observe(runner, 150)
    assert [actions for _, actions in seen(chunks)] == [SAFE] * 3
    actor.says = None
    assert observe(runner, 200, 250, 300) == []
    said = health(runner, 300)
    assert said.level == "error"
    assert "latched" in said.summary
    assert "rearm" in said.summary
    assert said.values["filter not_finite"] == "3"
    runner.rearm(START + 300 * MS)
    assert stamps(observe(runner, 350, value=0.5)) == [350.0]
    assert health(runner, 350).level == "ok"


def test_a_reset_does_not_open_the_latch(contract: Contract) -> None:
    actor = Script()
    actor.says = np.full((4, 1), NAN)
    runner = make(contract, actor, 1)
    observe(runner, 0, 50, 100)
    runner.reset(0, START + 1000 * MS)
    actor.says = None
    assert observe(runner, 1000, 1050) == []
    assert health(runner).level == "error"


@pytest.mark.parametrize("shape", [(), (0, 1), (4,), (4, 2)])
def test_a_chunk_of_another_shape_becomes_the_safe_command(contract: Contract, shape: tuple[int, ...]) -> None:
    actor = Script()
    actor.says = np.full(shape, 0.5)
    (chunk,) = observe(make(contract, actor), 0)
    assert not chunk.actions.any()
    assert chunk.actions.shape[1] == 1


# What it says last, and of itself


def test_a_stop_comes_one_period_after_the_last_observation(contract: Contract) -> None:
    runner = make(contract)
    assert runner.stop(None) is None
    observe(runner, 0, 50, 100)
    chunk = runner.stop(None)
    assert chunk is not None
    assert seen([chunk]) == [(150.0, SAFE)]
    assert chunk.ends_ns.tolist() == [START + 200 * MS, START + 250 * MS]


@pytest.mark.parametrize("rate", [20.0, 30.0, 60.0, 29.97, 125.0])
def test_a_stop_is_in_force_at_the_next_tick_at_any_rate(rate: float) -> None:
    """Ticks are whole nanoseconds, so that a period added to a tick may be a nanosecond beside the next one."""
    contract = parse_contract(CONTRACT.replace("rate: 20", f"rate: {rate}"))
    runner = make(contract, Script(), 1)
    first = 53_806_032_000
    for index in range(first, first + 7):
        stamp = header_at(tick_time(index, contract.rate_fraction))
        runner.push("/joints", SimpleNamespace(header=stamp, name=["elbow"], position=[0.0]), 0)
        runner.push("/tool", SimpleNamespace(header=stamp, point=SimpleNamespace(x=0.0)), 0)
        runner.poll(None)
        chunk = runner.stop(None)
        assert chunk is not None
        assert chunk.stamp_ns == tick_time(index + 1, contract.rate_fraction)
        assert chunk.ends_ns.tolist() == [tick_time(index + ahead, contract.rate_fraction) for ahead in (2, 3)]
