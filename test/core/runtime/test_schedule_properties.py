"""What is executed follows from clock and chunks alone: whatever arrives, and however often somebody asks."""

from __future__ import annotations

from dataclasses import dataclass
from math import e, exp
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st
from schedule_oracle import Oracle, contract_of

from rql_core.contract import ActionChunk, CommandSchedule, decode_chunk, encode_chunk
from rql_core.contract.time import tick_at_or_after, tick_time
from rql_core.runtime.delay import DelayEstimate
from rql_core.runtime.schedule import ChunkSchedule, guide_weights

MODES = ("open_loop", "receding", "ensemble", "rtc")
FIRST_TICK = 10**9
# A tenth of a second is 2 steps at 20 Hz; 30 Hz has ticks that are no whole nanoseconds.
CONTRACTS = {(rate, age): contract_of(rate, age) for rate in (20, 30) for age in (0.0, 0.1)}


@dataclass(frozen=True)
class Arrival:
    chunk: ActionChunk
    arrived_ns: int


@st.composite
def stories(draw: Any, on_grid: bool = False, horizon: int | None = None) -> tuple[Any, list[Arrival]]:
    """A contract, and chunks of it in the order of their arrival: late, early, out of order, twice."""
    contract = CONTRACTS[draw(st.sampled_from(sorted(CONTRACTS)))]
    rate, arrivals = contract.rate_fraction, []
    for number in range(draw(st.integers(1, 8))):
        tick = FIRST_TICK + draw(st.integers(0, 14))
        steps = horizon or draw(st.integers(1, 6))
        actions = np.random.default_rng(100 * tick + number).uniform(-1, 1, (steps, 2))
        chunk = ActionChunk.regular(contract, tick_time(tick, rate), actions)
        delay = draw(st.integers(-1, 8))
        late = 0 if on_grid else draw(st.integers(0, contract.period_ns))
        arrivals.append(Arrival(chunk, tick_time(tick + delay, rate) + late))
    return contract, sorted(arrivals, key=lambda each: each.arrived_ns)


def times_after(contract: Any, start_ns: int) -> st.SearchStrategy[list[int]]:
    grid = [
        tick_time(tick_at_or_after(start_ns, contract.rate_fraction) + i, contract.rate_fraction) for i in range(20)
    ]
    near = [time + shift for time in grid for shift in (-1, 0, 1) if time + shift >= start_ns]
    anywhere = st.integers(start_ns, grid[-1])
    return st.lists(st.one_of(st.sampled_from(near), anywhere), min_size=1, max_size=15)


def same(found: Any, expected: Any) -> bool:
    if found is None or expected is None:
        return found is None and expected is None
    return bool(np.allclose(found, expected, rtol=0, atol=1e-12))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_it_equals_a_schedule_that_looks_at_every_chunk_at_every_question(data: Any) -> None:
    contract, arrivals = data.draw(stories())
    mode = data.draw(st.sampled_from(MODES))
    decay = data.draw(st.sampled_from((0.01, 0.0, 2.0, -2.0)))
    schedule = ChunkSchedule(contract, 6, mode, ensemble_decay=decay)
    oracle = Oracle(mode, contract.action.max_age_ns, contract.period_ns, decay)
    for arrival in arrivals:
        now = arrival.arrived_ns
        assert schedule.add(arrival.chunk, now) == oracle.add(arrival.chunk, now)
        for time in data.draw(times_after(contract, now)):
            expected = oracle.action_at(time)
            assert same(schedule.action_at(time), expected)
            begun = any(begins <= time for _, begins in oracle.taken)
            state = "waiting" if not begun else "starved" if expected is None else "running"
            if state == "running" and oracle.running(time) is None:
                state = "holding"
            assert schedule.state_at(time) == state
    if oracle.taken:
        end = oracle.covered_until()
        figures = schedule.figures(end)
        assert figures["starvations"] == len(oracle.gaps)
        assert figures["starved_s"] == pytest.approx(sum(oracle.gaps) / 1e9)
        later = schedule.figures(end + 1_000_000)
        assert (later["starvations"], later["starved_s"]) == (
            len(oracle.gaps) + 1,
            pytest.approx(sum(oracle.gaps) / 1e9 + 0.001),
        )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_how_often_and_in_which_order_it_is_asked_changes_nothing(data: Any) -> None:
    contract, arrivals = data.draw(stories())
    mode = data.draw(st.sampled_from(MODES))
    asked, silent = (ChunkSchedule(contract, 6, mode) for _ in range(2))
    for arrival in arrivals:
        asked.add(arrival.chunk, arrival.arrived_ns)
        silent.add(arrival.chunk, arrival.arrived_ns)
        for time in data.draw(times_after(contract, arrival.arrived_ns)):
            asked.action_at(time)
            asked.ahead(time)
            asked.figures(time)
            tick = tick_at_or_after(time, contract.rate_fraction)
            asked.due(tick)
            asked.guide(tick)
    last = arrivals[-1].arrived_ns
    times = data.draw(times_after(contract, last))
    answers = {time: silent.action_at(time) for time in times}
    for time in [*times, *reversed(times)]:
        assert same(asked.action_at(time), answers[time])
        assert asked.figures(time) == silent.figures(time)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_guide_says_what_is_going_to_be_executed_at_the_time_of_each_step(data: Any) -> None:
    contract, arrivals = data.draw(stories())
    horizon, delay = data.draw(st.integers(1, 8)), data.draw(st.integers(0, 9))
    schedule = ChunkSchedule(contract, horizon, "rtc")
    oracle = Oracle("rtc", contract.action.max_age_ns, contract.period_ns)
    for arrival in arrivals:
        schedule.add(arrival.chunk, arrival.arrived_ns)
        oracle.add(arrival.chunk, arrival.arrived_ns)
    tick = tick_at_or_after(arrivals[-1].arrived_ns, contract.rate_fraction) + data.draw(st.integers(0, 3))
    says = []
    for step in range(horizon):
        action = oracle.running(tick_time(tick + step, contract.rate_fraction))
        if action is None:
            break
        says.append(action)
    guide = schedule.guide(tick, delay)
    if not says:
        assert guide is None
        return
    assert guide is not None
    assert same(guide.previous, says + [says[-1]] * (horizon - len(says)))
    frozen = min(delay, len(says))
    for step, weight in enumerate(guide.weights):
        c = (len(says) - step) / (len(says) - frozen + 1)
        by_paper = 1.0 if step < frozen else c * (exp(c) - 1) / (e - 1) if step < len(says) else 0.0
        assert weight == pytest.approx(by_paper, abs=1e-6)


@given(st.integers(1, 40), st.data())
def test_guide_weights_are_between_0_and_1_and_never_rise(horizon: int, data: Any) -> None:
    overlap = data.draw(st.integers(0, horizon))
    delay = data.draw(st.integers(0, overlap))
    weights = guide_weights(horizon, delay, overlap)
    assert weights.shape == (horizon,)
    assert weights.dtype == np.float32
    assert (weights >= 0).all()
    assert (weights <= 1).all()
    assert (np.diff(weights) <= 0).all()
    assert (weights[:delay] == 1).all()
    assert (weights[delay:] < 1).all()
    assert ((weights > 0) == (np.arange(horizon) < overlap)).all()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_with_a_delay_that_is_known_there_is_never_a_gap(data: Any) -> None:
    contract = CONTRACTS[data.draw(st.sampled_from([(20, 0.0), (30, 0.0)]))]
    mode = data.draw(st.sampled_from(MODES))
    horizon = data.draw(st.integers(2, 12))
    delay = data.draw(st.integers(0, horizon // 2))
    every = 0 if mode == "open_loop" else data.draw(st.integers(0, horizon))
    schedule = ChunkSchedule(contract, horizon, mode, replan_every=every, delay=DelayEstimate(first_steps=delay))
    rate, waiting, executed = contract.rate_fraction, None, []
    for tick in range(FIRST_TICK, FIRST_TICK + 60):
        asked = False
        for _ in range(2):  # what comes of the question at this tick comes at once where there is no delay
            if waiting is not None and tick == waiting + delay:
                # Each action says which chunk and which step it is.
                actions = np.stack([[waiting - FIRST_TICK, step] for step in range(horizon)]).astype(float)
                chunk = ActionChunk.regular(contract, tick_time(waiting, rate), actions)
                assert schedule.add(chunk, tick_time(tick, rate))
                waiting = None
            if waiting is None and schedule.due(tick):
                assert not asked
                waiting, asked = tick, True
        action = schedule.action_at(tick_time(tick, rate))
        assert (action is None) == (tick < FIRST_TICK + delay)
        if action is not None:
            executed.append((tick - FIRST_TICK, action.tolist()))
    assert schedule.figures(tick_time(FIRST_TICK + 59, rate))["starvations"] == 0
    if mode != "ensemble":
        # Whatever the chunk, it is the step of this tick that is executed.
        assert all(chunk + step == tick for tick, (chunk, step) in executed)
    if mode == "open_loop":
        ends = {chunk + horizon for _, (chunk, _) in executed}
        changes = {
            tick
            for (tick, (chunk, _)), (_, (before, _)) in zip(executed[1:], executed, strict=False)
            if chunk != before
        }
        assert changes <= ends


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_who_reads_the_chunks_that_were_sent_reads_what_was_executed(data: Any) -> None:
    contract, arrivals = data.draw(stories(on_grid=True, horizon=data.draw(st.integers(1, 6))))
    schedule = ChunkSchedule(contract, 6, data.draw(st.sampled_from(MODES)))
    recorded = CommandSchedule(contract.action.max_age_ns)
    rate = contract.rate_fraction
    ticks = range(FIRST_TICK - 2, FIRST_TICK + 25)
    executed = {}
    for tick in ticks:
        now = tick_time(tick, rate)
        for arrival in arrivals:
            if arrival.arrived_ns == now:
                schedule.add(arrival.chunk, now)
        executed[tick] = schedule.action_at(now)
        ahead = schedule.ahead(now)
        assert (ahead is None) == (schedule.state_at(now) != "running")
        if ahead is not None:
            for step, row in enumerate(ahead):
                assert same(schedule.action_at(tick_time(tick + step, rate)), row)
            message = encode_chunk(contract, ActionChunk.regular(contract, now, ahead))
            recorded.add(decode_chunk(contract, _plain(message), now))
        assert same(recorded.action_at(now), executed[tick])
    for tick in ticks:
        assert same(recorded.action_at(tick_time(tick, rate)), executed[tick])


def _plain(value: Any) -> Any:
    """Dicts as objects with attributes, as messages are."""
    if isinstance(value, dict):
        return type("Message", (), {key: _plain(item) for key, item in value.items()})()
    return (
        [_plain(item) for item in value] if isinstance(value, list) and value and isinstance(value[0], dict) else value
    )
