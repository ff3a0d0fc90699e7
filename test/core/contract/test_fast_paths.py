"""What is done quickly for each message gives what the plain way gives, message for message, error for error."""

from __future__ import annotations

import warnings
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rql_core.contract import ActionChunk, CommandSchedule, TickAssembler, decode_chunk, messages, parse_contract
from rql_core.contract.fields import FieldReader
from rql_core.contract.schema import Contract
from rql_core.contract.strict_model import JOINT_STATE
from rql_core.contract.time import NANOSECONDS, tick_at_or_after, tick_time
from rql_core.errors import ContractError

MS = 1_000_000
START = 1_793_534_400_000 * MS
# Ordinary numbers, those about the ends of float32 and of what a square of float64 can be, and what is no number.
EDGES = [1e40, 3.4028234663852886e38, 3.402823466385289e38, 1e30, 1e29, 1e154, 1e155, 1e308, 5e-324, 0.0]
numbers = st.one_of(
    st.floats(-10, 10),
    st.sampled_from([sign * edge for edge in EDGES for sign in (1.0, -1.0)]),
    st.floats(),
)

FIELDS = [f"{group}.{joint}" for group in ("position", "velocity") for joint in "abcde"]

CONTRACT = """
schema: 1
name: two_topics
description: Two topics and commands as arrays, for tests.
rate: 20
clock: header
observation:
  max_wait: 0.02
  topics:
    - topic: /point
      type: geometry_msgs/msg/PointStamped
      align: {method: hold, max_age: 0.1}
      features: [{name: point, unit: m, fields: [point.x]}]
    - topic: /joints
      type: sensor_msgs/msg/JointState
      joints: partial
      align: {method: hold, max_age: 0.1}
      features: [{name: q, unit: rad, fields: [position.elbow, position.wrist]}]
action:
  topic: /command
  type: std_msgs/msg/Float64MultiArray
  command: velocities
  unit: rad/s
  hold: zero
  features: [{name: elbow, lower: -2.0, upper: 2.0}, {name: wrist, lower: -2.0, upper: 2.0}]
reward:
  success: {rule: within, feature: q, target: [0.0, 0.0], tolerance: 0.1}
  at_success: 0.0
  otherwise: -1.0
episodes: {boundary: {by: bag}, min_steps: 1, at_success: continue}
"""


@pytest.fixture(scope="module")
def contract() -> Contract:
    return parse_contract(CONTRACT)


@given(st.lists(numbers, min_size=1, max_size=20))
def test_numbers_are_finite_by_their_squares_exactly_where_each_is(values: list[float]) -> None:
    array = np.array(values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = messages._all_finite(array)
    assert found == all(abs(value) <= float(np.finfo(np.float32).max) for value in values)


def array_message(table: np.ndarray[Any, Any], labels: tuple[str, str] = ("step", "time,elbow,wrist")) -> Any:
    dims = [SimpleNamespace(label=labels[0], size=len(table)), SimpleNamespace(label=labels[1], size=3)]
    return SimpleNamespace(layout=SimpleNamespace(dim=dims), data=table.reshape(-1))


def decoded_plainly(contract: Contract, table: np.ndarray[Any, Any]) -> tuple[int, list[int], list[list[float]]]:
    """What the docstring of `chunk` and the contract's grid say of an array message, step by step."""
    rate, slack = contract.rate_fraction, 1_000
    starts = []
    for seconds in table[:, 0]:
        if not 0 <= seconds <= 9.2e9:
            raise ContractError("column 'time'")
        at = round(float(seconds) * NANOSECONDS)
        near = [
            tick for k in (-1, 0, 1) if abs((tick := tick_time(tick_at_or_after(at, rate) + k, rate)) - at) <= slack
        ]
        starts.append(near[0] if near else at)
    ends = starts[1:]
    k = tick_at_or_after(starts[-1], rate)
    ends.append(tick_time(k + 1, rate) if tick_time(k, rate) == starts[-1] else starts[-1] + contract.period_ns)
    for start, end in zip(starts, ends, strict=True):
        if end <= start:
            raise ContractError("strictly increasing")
    if not np.isfinite(table[:, 1:]).all():
        raise ContractError("expected a finite number")
    return starts[0], ends, table[:, 1:].tolist()


@given(
    st.lists(st.tuples(st.integers(1, 90), numbers, numbers), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.0, 1e-7, 0.003]),
    st.sampled_from([None, None, 0.0, -1.0, np.nan, 9.3e9]),
)
def test_an_array_of_actions_is_decoded_as_step_by_step(
    contract: Contract, steps: list[tuple[int, float, float]], off: float, bad: float | None
) -> None:
    times = START / NANOSECONDS + off + np.cumsum([step[0] for step in steps]) / 40
    table = np.column_stack([times, [step[1:] for step in steps]])
    if bad is not None:
        table[-1, 0] = bad
    message = array_message(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            stamp, ends, actions = decoded_plainly(contract, table)
        except ContractError as expected:
            with pytest.raises(ContractError, match=str(expected)):
                decode_chunk(contract, message, 0)
            return
        chunk = decode_chunk(contract, message, 0)
    assert (chunk.stamp_ns, chunk.ends_ns.tolist(), chunk.actions.tolist()) == (stamp, ends, actions)
    table[:] = 0
    assert chunk.actions.tolist() == actions, "a chunk does not change with the message"


@given(st.integers(-5, 5), st.lists(st.integers(-10, 40), min_size=1, max_size=5))
def test_a_chunk_is_refused_exactly_where_its_times_do_not_increase(stamp: int, ends: list[int]) -> None:
    actions = np.zeros((len(ends), 1))
    wrong = np.flatnonzero(np.diff([stamp, *ends]) <= 0)
    if not len(wrong):
        assert ActionChunk(stamp, np.array(ends), actions).horizon == len(ends)
        return
    words = f"chunk step {wrong[0]} ends {ends[wrong[0]] - stamp} ns after the stamp"
    with pytest.raises(ContractError, match=words):
        ActionChunk(stamp, np.array(ends), actions)


@given(st.lists(st.integers(0, 30), max_size=8), st.integers(-2, 35), st.lists(st.integers(0, 40), max_size=5))
def test_chunks_that_are_forgotten_are_those_that_no_later_question_needs(
    stamps: list[int], forgotten: int, later: list[int]
) -> None:
    whole, short = CommandSchedule(7), CommandSchedule(7)
    for number, stamp in enumerate(stamps):
        for schedule in (whole, short):
            schedule.add(ActionChunk(stamp, np.array([stamp + 2, stamp + 5]), np.array([[number], [number + 0.5]])))
    short.forget_before(forgotten)
    for time in [forgotten, *(forgotten + more for more in later)]:
        one, other = whole.action_at(time), short.action_at(time)
        assert (one is None and other is None) or (one is not None and np.array_equal(one, other))
    assert len(short._chunks) == len({stamp for stamp in stamps if stamp > forgotten}) + any(
        stamp <= forgotten for stamp in stamps
    )


@given(st.permutations(["a", "b", "c", "d", "e"]), st.data())
def test_joints_are_read_by_slices_and_by_places_alike(order: list[str], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.sampled_from(FIELDS), min_size=1, unique=True))
    reader = FieldReader("/joints", JOINT_STATE, wanted)
    for names in (order, ["a", "b", "c", "d", "e"], order):
        position, velocity = np.arange(5) + 1.0, np.arange(5) + 11.0
        read = reader.read(SimpleNamespace(name=names, position=position, velocity=velocity.tolist()))
        arrays = {"position": position, "velocity": velocity}
        assert read.tolist() == [arrays[field[:8]][names.index(field[9:])] for field in wanted]
        position[:] = 0
        assert 0 not in read, "numbers do not change with the message"


class PlainAssembler(TickAssembler):
    """Asks every stream at every message."""

    def _reached(self, stamp_ns: int) -> bool:
        return all(stream.newest_ns is not None and stream.newest_ns >= stamp_ns for stream in self._streams)


def message_of(topic: str, stamp_ms: int) -> Any:
    sec, nanosec = divmod(START + stamp_ms * MS, NANOSECONDS)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec))
    if topic == "/point":
        return SimpleNamespace(header=header, point=SimpleNamespace(x=float(stamp_ms)))
    return SimpleNamespace(header=header, name=[topic], position=[float(stamp_ms)])


@given(
    seed=st.integers(0, 2**32),
    looks=st.booleans(),
    disorder=st.sampled_from([0.0, 0.1]),
    resets=st.sampled_from([0.0, 0.05]),
    setbacks=st.sampled_from([0.0, 0.02]),
)
def test_ticks_are_due_when_every_stream_is_asked_and_when_only_the_one_behind_is(
    contract: Contract, seed: int, looks: bool, disorder: float, resets: float, setbacks: float
) -> None:
    quick, plain = TickAssembler(contract), PlainAssembler(contract)
    rng = np.random.default_rng(seed)
    clock, given_out = 3000, 0
    for _ in range(150):
        topic = str(rng.choice(["/point", "elbow", "wrist"]))
        clock += int(rng.integers(0, 40)) - (2000 if rng.random() < setbacks else 0)
        stamp = max(clock - (40 if rng.random() < disorder else 0), 0)
        # A conversion waits for every topic; a node's clock goes on, and there it may not hear of one.
        now = START + (clock + int(rng.integers(0, 100))) * MS if looks else None
        start = [None, START + clock * MS][int(rng.integers(2))] if rng.random() < resets else -1
        results = []
        for assembler in (quick, plain):
            if start != -1:
                assembler.reset(start)
            pushed = assembler.push(topic if topic == "/point" else "/joints", message_of(topic, stamp), 0)
            ticks = assembler.take(now)
            seen = [None if tick.observation is None else tick.observation.tolist() for tick in ticks]
            results.append((pushed, [(tick.index, tick.missing, tick.ages_ns) for tick in ticks], seen))
        assert results[0] == results[1]
        given_out += len(results[1][1])
    assert given_out or resets or setbacks
    assert quick.counts == plain.counts


@given(
    st.integers(-(10**12), 4 * 10**18),
    st.sampled_from([Fraction(20), Fraction(30), Fraction(125), Fraction(15, 2), Fraction(1000, 3), Fraction(1, 7)]),
    st.integers(-2, 2),
)
def test_the_first_tick_not_before_a_time_is_found_without_a_search(stamp: int, rate: Fraction, near: int) -> None:
    for time in (stamp, tick_time(tick_at_or_after(stamp, rate), rate) + near):
        found = tick_at_or_after(time, rate)
        assert tick_time(found, rate) >= time > tick_time(found - 1, rate)
