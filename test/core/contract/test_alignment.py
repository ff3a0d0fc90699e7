"""One observation a tick, the same however the messages of different topics were interleaved."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rql_core.contract import Contract, Tick, TickAssembler, parse_contract
from rql_core.contract.time import tick_at_or_after, tick_time
from rql_core.errors import ContractError

MS = 1_000_000
# 2026-11-01 12:00 UTC, a whole number of control periods.
START = 1_793_534_400_000 * MS
CONTRACT = """
schema: 1
name: two_topics
description: Two poses at 20 Hz, for tests.
rate: 20
clock: header
observation:
  max_wait: 0.02
  topics:
    - topic: /a
      type: geometry_msgs/msg/PointStamped
      align: {method: hold, max_age: 0.1}
      features: [{name: a, unit: m, fields: [point.x]}]
    - topic: /b
      type: geometry_msgs/msg/PointStamped
      align: {method: hold, max_age: 0.06}
      features: [{name: b, unit: m, fields: [point.x]}]
action:
  topic: /command
  type: trajectory_msgs/msg/JointTrajectory
  command: velocities
  unit: rad/s
  hold: zero
  features: [{name: elbow, lower: -2.0, upper: 2.0}]
reward:
  success: {rule: within, feature: a, target: [0.0], tolerance: 0.1}
  at_success: 0.0
  otherwise: -1.0
episodes: {boundary: {by: bag}, min_steps: 1, at_success: continue}
"""


@pytest.fixture
def contract() -> Contract:
    return parse_contract(CONTRACT)


def message(at_ms: float, value: float | None = None) -> SimpleNamespace:
    sec, nanosec = divmod(START + round(at_ms * MS), 10**9)
    stamp = SimpleNamespace(sec=sec, nanosec=nanosec)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp), point=SimpleNamespace(x=float(at_ms if value is None else value))
    )


def push(assembler: TickAssembler, topic: str, *times_ms: float) -> None:
    for at in times_ms:
        assembler.push(topic, message(at), 0)


def seen(ticks: Sequence[Tick]) -> list[tuple[float, list[float] | tuple[str, ...]]]:
    """(ms from the start, the observation or the topics that were missing)."""
    return [
        ((tick.stamp_ns - START) / MS, tick.missing if tick.observation is None else tick.observation.tolist())
        for tick in ticks
    ]


def test_a_tick_holds_the_newest_message_at_or_before_it(contract: Contract) -> None:
    assembler = TickAssembler(contract)
    push(assembler, "/a", 0, 49, 51, 100)
    push(assembler, "/b", 0, 50, 100)
    ticks = assembler.take()
    assert seen(ticks) == [(0, [0, 0]), (50, [49, 50]), (100, [100, 100])]
    assert [tick.ages_ns for tick in ticks] == [(0, 0), (MS, 0), (0, 0)]
    assert ticks[0].observation is not None
    assert ticks[0].observation.dtype == np.float32


def test_a_tick_waits_for_a_message_of_every_topic_at_or_after_it(contract: Contract) -> None:
    assembler = TickAssembler(contract)
    push(assembler, "/a", 0, 60)
    push(assembler, "/b", 0, 49)
    assert seen(assembler.take()) == [(0, [0, 0])]
    push(assembler, "/b", 55)
    assert seen(assembler.take()) == [(50, [0, 49])]
    assert assembler.take() == []


def test_a_message_older_than_its_max_age_is_missing_and_the_next_tick_with_all_follows(contract: Contract) -> None:
    assembler = TickAssembler(contract)
    push(assembler, "/a", *range(0, 501, 50))
    push(assembler, "/b", 0, 41, 300, 350)
    assert seen(assembler.take()) == [
        (0, [0, 0]),
        (50, [50, 41]),
        (100, [100, 41]),
        (150, ("/b",)),
        (300, [300, 300]),
        (350, [350, 350]),
    ]


def test_age_is_counted_to_the_nanosecond(contract: Contract) -> None:
    for late_ns, expected in ((0, [100, 40]), (-1, ("/b",))):
        assembler = TickAssembler(contract)
        assembler.push("/a", message(100), 0)
        assembler.push("/b", message(40 + late_ns / MS, 40), 0)  # max_age of /b is 60 ms
        assembler.push("/b", message(101), 0)
        assert (100, expected) in seen(assembler.take())


def test_doubled_and_late_messages_are_counted_and_change_nothing(contract: Contract) -> None:
    assembler = TickAssembler(contract)
    push(assembler, "/a", 0, 40)
    push(assembler, "/a", 40)
    assembler.push("/a", message(20, 7.0), 0)
    push(assembler, "/a", 50)
    push(assembler, "/b", 0, 50)
    assert seen(assembler.take()) == [(0, [0, 0]), (50, [50, 50])]
    assert assembler.counts == {"duplicate": 1, "out_of_order": 1}


def test_two_messages_of_one_time_that_differ_are_refused(contract: Contract) -> None:
    assembler = TickAssembler(contract)
    push(assembler, "/a", 40)
    with pytest.raises(ContractError, match=r"/a: two messages are stamped .* s and differ"):
        assembler.push("/a", message(40, 7.0), 0)
    assert not assembler.counts


def test_a_clock_that_jumps_back_forgets_what_was_before(contract: Contract) -> None:
    assembler = TickAssembler(contract)
    push(assembler, "/a", 5000, 5050)
    push(assembler, "/b", 5000)
    assert seen(assembler.take()) == [(5000, [5000, 5000])]
    push(assembler, "/a", 0, 50)
    assert assembler.counts == {"clock_jump": 1}
    assert assembler.newest_stamps()["/b"] is None
    push(assembler, "/b", 0, 50)
    assert seen(assembler.take()) == [(0, [0, 0]), (50, [50, 50])]
    assert assembler.counts == {"clock_jump": 1}


def test_just_less_than_a_second_back_is_out_of_order_and_no_jump(contract: Contract) -> None:
    assembler = TickAssembler(contract)
    push(assembler, "/a", 1000, 0.001)
    assert assembler.counts == {"out_of_order": 1}
    push(assembler, "/a", 0)
    assert assembler.counts == {"out_of_order": 1, "clock_jump": 1}


def test_a_running_node_waits_max_wait_and_then_takes_what_there_is(contract: Contract) -> None:
    assembler = TickAssembler(contract)
    push(assembler, "/a", 0, 50)
    push(assembler, "/b", 0, 45)
    assert seen(assembler.take(START + 69 * MS)) == [(0, [0, 0])]
    assert seen(assembler.take(START + 70 * MS)) == [(50, [50, 45])]
    assert seen(assembler.take(START + 170 * MS)) == [(100, [50, 45]), (150, ("/b",))]


def test_a_running_node_without_messages_reports_each_stretch_once(contract: Contract) -> None:
    assembler = TickAssembler(contract)
    assert assembler.take(START) == []
    push(assembler, "/a", 0)
    assert seen(assembler.take(START + 20 * MS)) == [(0, ("/b",))]
    later = assembler.take(START + 3_600_000 * MS)
    assert 1 <= len(later) <= 2
    assert all(tick.observation is None for tick in later)


def test_reset_ignores_what_was_stamped_before_the_start(contract: Contract) -> None:
    assembler = TickAssembler(contract)
    push(assembler, "/a", 0)
    assembler.reset(START + 75 * MS)
    push(assembler, "/a", 50, 80, 100)
    push(assembler, "/b", 74, 90, 110)
    assert assembler.counts == {"before_start": 2}
    assert seen(assembler.take()) == [(100, [100, 90])]


def test_a_message_that_breaks_the_contract_changes_nothing(contract: Contract) -> None:
    assembler = TickAssembler(contract)
    push(assembler, "/a", 5000)
    for at in (5050, 0):
        with pytest.raises(ContractError, match=r"/a: a\.point\.x is nan"):
            assembler.push("/a", message(at, float("nan")), 0)
    with pytest.raises(ContractError, match=r"/a: header\.stamp is 0 ns"):
        assembler.push("/a", message(-START / MS), 0)
    assert assembler.newest_stamp("/a") == START + 5000 * MS
    assert not assembler.counts


times = st.lists(st.integers(0, 700), min_size=1, max_size=25)


@given(first=times, second=times, data=st.data())
def test_any_interleaving_of_topics_gives_the_same_ticks(
    first: list[int], second: list[int], data: st.DataObject
) -> None:
    """Order within a topic is kept; all stamps lie within a second, so that none is a clock jump."""
    contract = parse_contract(CONTRACT)
    order = data.draw(st.permutations(["/a"] * len(first) + ["/b"] * len(second)))
    results = []
    for topics in (["/a"] * len(first) + ["/b"] * len(second), order):
        assembler = TickAssembler(contract)
        queues = {"/a": iter(first), "/b": iter(second)}
        ticks = []
        for topic in topics:
            at = next(queues[topic])
            assembler.push(topic, message(at, at), 0)
            ticks += assembler.take()
        results.append((seen(ticks), [tick.index for tick in ticks], dict(assembler.counts)))
    assert results[0] == results[1]


@given(st.integers(0, 2**62), st.sampled_from([20.0, 30.0, 60.0, 29.97, 125.0, 500.0, 0.5]))
def test_the_grid_of_ticks_is_exact(stamp_ns: int, rate: float) -> None:
    fraction = parse_contract(CONTRACT.replace("rate: 20", f"rate: {rate}")).rate_fraction
    index = tick_at_or_after(stamp_ns, fraction)
    assert tick_time(index - 1, fraction) < stamp_ns <= tick_time(index, fraction)
