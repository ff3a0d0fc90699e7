"""Whatever goes in, in whatever order, what leaves is finite, within all limits, and goes on from what was in force.

The check of what left is in safety_robots, and looks at the whole stream of executed commands from outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safety_robots import Robot, assert_within_limits, random_robot
from safety_robots import robot as arm

from rql_core.errors import ContractError
from rql_core.runtime import fast_check, safety, shaping
from rql_core.runtime.safety import SafetyFilter, State

COMMANDS = ["positions", "velocities", "effort", "accelerations"]
JOINTS = 100
# 4 kinds x 10 robots x 25 runs x 100 joints: joints do not know of each other, so each is a sequence of its own.
ROBOTS, RUNS = 10, 25


def wanted(robot: Robot, last: np.ndarray, steps: int, random: np.random.Generator) -> np.ndarray:
    """What a policy may say: each joint of another kind."""
    middle, half = 0.5 * (robot.lower + robot.upper), 0.5 * (robot.upper - robot.lower)
    shape = (steps, robot.joints)
    step = {"positions": robot.velocity, "velocities": robot.acceleration}.get(robot.command, robot.acceleration)
    kinds = np.array(
        [
            middle + half * random.uniform(-1.5, 1.5, shape),  # noise
            middle + half * random.choice([-1.0, 1.0, 3.0, -1e308 / 1e10], shape),  # from limit to limit
            np.broadcast_to(np.where(random.random(robot.joints) < 0.5, robot.lower, robot.upper), shape),  # to one
            last + np.cumsum(random.normal(0, 0.7, shape) * step / robot.rate, axis=0),  # a walk about the limits
            last + np.cumsum(random.uniform(-1.2, 1.2, robot.joints) * step / robot.rate * np.ones(shape), axis=0),
            last + 0.2 * np.cumsum(np.cumsum(random.normal(0, 1, shape), axis=0), axis=0) * step / robot.rate**2,
        ]
    )
    return np.take_along_axis(kinds, random.integers(len(kinds), size=(1, 1, robot.joints)), axis=0)[0]


def run(robot: Robot, filter_: SafetyFilter, random: np.random.Generator, chunks: int = 6) -> np.ndarray:
    """Execute chunks, each for a random part of it, with faults in between; the executed stream and its start."""
    at = random.uniform(robot.lower, robot.upper)
    if robot.command == "velocities":
        at = random.uniform(np.maximum(robot.low, -2.0), np.minimum(robot.high, 2.0))
    time = int(random.integers(10**9))
    measured = at if filter_.limits.position_from is not None else None
    state = filter_.activate(time, measured)
    first = state.commands[-1]
    np.testing.assert_array_equal(first, at if robot.command == "positions" else np.zeros(robot.joints))
    stream = [np.tile(first, (3, 1))]
    for _ in range(chunks):
        steps = int(random.integers(1, 7))
        chunk = wanted(robot, state.commands[-1], steps, random)
        event = random.random()
        given = None
        if event < 0.1:
            chunk[random.integers(steps), random.integers(robot.joints)] = random.choice([np.nan, np.inf, -np.inf])
        elif event < 0.15:
            chunk = chunk[:, 1:]
        elif event < 0.35 and measured is not None:  # the robot is somewhere else
            given = measured + random.normal(0, 0.3, robot.joints)
        elif event < 0.4:
            filter_.latched = "by a test"
        elif event < 0.5:
            state = filter_.rearm(time, None if measured is None else here(state, at), state)
        elif event < 0.55:
            time += 10**9
        result = filter_.apply(chunk, state, time, given, float(random.uniform(0, 0.2)))
        executed = int(random.integers(0, len(result.actions) + 1))
        stream.append(result.actions[:executed])
        state = result.state(executed)
        time += round(executed * 1e9 / robot.rate)
    filter_.latched = None
    rest = filter_.brake(state)
    stream += [rest.actions, np.tile(rest.actions[-1], (3, 1))]
    return np.concatenate(stream)


def here(state: State, fallback: np.ndarray) -> np.ndarray:
    """Where the joints are by the commands."""
    return state.commands[-1] if state.position is None else state.position


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hundred_thousand_random_sequences(command: str) -> None:
    random = np.random.default_rng(COMMANDS.index(command))
    changed = 0
    for _ in range(ROBOTS):
        robot = random_robot(command, JOINTS, random)
        filter_ = SafetyFilter(robot.contract())
        for _ in range(RUNS):
            assert_within_limits(robot, run(robot, filter_, random))
        changed += sum(filter_.counts.values())
    assert changed > 100_000


@pytest.mark.parametrize("seed", range(3))
def test_velocities_never_lead_a_joint_that_follows_beyond_its_positions(seed: int) -> None:
    random = np.random.default_rng(seed)
    robot = replace(random_robot("velocities", 40, random), rate=20.0)
    filter_ = SafetyFilter(robot.contract())
    reached = 0
    for _ in range(4):
        start = random.uniform(np.maximum(robot.low, -2.0), np.minimum(robot.high, 2.0))
        state = filter_.activate(0, start)
        stream: list[np.ndarray] = []
        for turn in range(80):
            if turn % 20 == 0:
                push = random.choice([-9.0, 9.0], robot.joints)
            chunk = np.tile(push, (int(random.integers(1, 8)), 1))
            executed = int(random.integers(1, len(chunk) + 1))
            # The measurement may be as old as the three commands that the filter predicts with.
            age = min(len(stream), 3) * int(random.integers(2))
            before = state.commands[3 - age :].sum(axis=0) / robot.rate if age else np.zeros(robot.joints)
            assert state.position is not None
            result = filter_.apply(chunk, state, 10**10, state.position - before, age / robot.rate)
            stream += list(result.actions[:executed])
            state = result.state(executed)
        stream += list(filter_.brake(state).actions)
        assert_within_limits(robot, np.array(stream), start)
        bounded = np.isfinite(robot.low)
        at = start + np.cumsum(stream, axis=0) / robot.rate
        near = np.minimum(np.abs(at - robot.high), np.abs(at - robot.low)).min(axis=0)[bounded]
        reached += int((near < 1e-3).sum())
    assert reached > 20


# What a test can see, it must see: a filter that is broken on purpose.


def unlimited(*names: str) -> Callable[[Any], Any]:
    """Joints whose limits `names` are half as tight again as the contract says."""

    def widen(joint: Any) -> Any:
        kept = {field: getattr(joint, field) for field in joint.__slots__}
        return type(joint)(**{**kept, **{name: kept[name] * 1.5 for name in names}})

    return widen


@pytest.mark.parametrize("command", ["positions", "velocities"])
@pytest.mark.parametrize("broken", ["jerk", "acceleration", "fastest", "position", "slack", "state", "fast"])
def test_the_check_finds_a_filter_that_is_broken(command: str, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    robot = arm(command, 12)
    filter_ = SafetyFilter(robot.contract())
    if broken in ("jerk", "acceleration", "fastest"):
        filter_._joints = tuple(map(unlimited(broken, "upper" if command == "velocities" else broken), filter_._joints))
        if broken == "fastest" and command == "velocities":
            filter_._upper = filter_._upper * 1.5
    elif broken == "position":
        monkeypatch.setattr(shaping, "_keep_position", lambda joint, speed, change, at, ideal: ideal)
    elif broken == "slack":  # a stop that is thought to be shorter than it is
        monkeypatch.setattr(shaping, "excursion", lambda *state: tuple(0.8 * way for way in plain(*state)))
        monkeypatch.setattr(shaping, "reach", lambda *state: 0.0)
    elif broken == "state":  # the chunk's state instead of that after the executed steps
        monkeypatch.setattr(safety.Filtered, "state", lambda self, executed: self.before)
    else:
        monkeypatch.setattr(fast_check.FastCheck, "passes", lambda *arguments: True)

    def all_runs() -> None:
        for _ in range(5):
            state = filter_.activate(0, np.zeros(robot.joints))
            start, stream = here(state, robot.lower), [*state.commands]
            push = random.choice([-9.0, 9.0], robot.joints)
            for _ in range(20):
                chunk = wanted(robot, state.commands[-1], 5, random)
                chunk[:, ::2] = push[::2]
                if command == "positions":  # at a steady pace to the limit: only near it is there something to change
                    pace = np.sign(push) * 0.95 * robot.velocity / robot.rate
                    chunk[:, ::4] = (state.commands[-1] + np.arange(1, 6)[:, None] * pace)[:, ::4]
                result = filter_.apply(chunk, state, 10**10)
                stream += list(result.actions[:3])
                state = result.state(3)
            stream += list(filter_.brake(state).actions)
            assert_within_limits(robot, np.array(stream), start)

    with pytest.raises(AssertionError, match=r"of joint \d+ is .* at step"):
        all_runs()
    monkeypatch.undo()
    filter_ = SafetyFilter(robot.contract())
    all_runs()


plain = shaping.excursion


# Anything at all, found by hypothesis

any_number = st.one_of(st.floats(), st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -0.0, 0.5]))
chunks = st.one_of(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.just(2)), elements=any_number),
    hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.just(2)), elements=st.floats(-2.5, 2.5)),
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=any_number),
    hnp.arrays(st.sampled_from([np.int64, np.float32, np.bool_]), st.tuples(st.integers(1, 3), st.just(2))),
    st.just(np.array([["a", "b"]])),
    st.just(np.array([[1j, 2j]])),
)
places = hnp.arrays(np.float64, 2, elements=st.one_of(st.floats(-3, 3), st.floats()))
applied = st.tuples(st.just("apply"), chunks, st.integers(0, 9), st.one_of(st.none(), places), st.floats(0, 1))
events = st.lists(
    st.one_of(
        applied,
        applied,
        st.tuples(st.just("rearm"), places),
        st.tuples(st.just("activate"), places),
        st.tuples(st.just("brake"), st.integers(0, 9)),
        st.tuples(st.just("time"), st.integers(-(10**9), 10**10)),
    ),
    max_size=15,
)


@settings(deadline=None, max_examples=200)
@given(command=st.sampled_from(COMMANDS), happened=events)
@example("velocities", [("apply", np.zeros((1, 2)), 0, np.full(2, 9e306), 0.0)])
def test_whatever_happens_what_leaves_is_within_the_limits(command: str, happened: list[tuple[Any, ...]]) -> None:
    robot = arm(command, latch={"not_finite": 2, "violations": 4, "window": 1.0})
    filter_ = SafetyFilter(robot.contract())
    state = filter_.activate(0, np.zeros(2))
    stream, time = [np.zeros((3, 2))], 0
    for event in happened:
        if event[0] == "time":
            time = max(0, time + event[1])
        elif event[0] in ("rearm", "activate"):
            again = filter_.rearm if event[0] == "rearm" else filter_.activate
            try:
                # Near what is in force, it goes on from there; elsewhere positions begin anew, which is tested apart.
                near = here(state, np.zeros(2)) + np.clip(event[1], -0.2, 0.2)
                state = again(time, near, state)
            except ContractError:
                assert not np.isfinite(event[1]).all()
        else:
            result = filter_.brake(state) if event[0] == "brake" else filter_.apply(event[1], state, time, *event[3:])
            assert result.actions.dtype == np.float64
            assert result.actions.shape[1:] == (2,)
            assert len(result.actions) >= 1
            executed = min(event[1] if event[0] == "brake" else event[2], len(result.actions))
            stream.append(result.actions[:executed])
            state = result.state(executed)
    rest = filter_.brake(state)
    assert_within_limits(robot, np.concatenate([*stream, rest.actions, np.tile(rest.actions[-1], (3, 1))]))


@settings(deadline=None, max_examples=100)
@given(
    command=st.sampled_from(COMMANDS),
    chunk=hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.just(2)), elements=st.floats(-2.5, 2.5)),
    since=st.integers(0, 6 * 10**8),
    measured=hnp.arrays(np.float64, 2, elements=st.floats(-0.5, 0.5)),
)
@example("positions", np.full((7, 2), -1.0), 0, np.full(2, 0.25))
def test_a_chunk_gives_what_its_steps_give_one_by_one(
    command: str, chunk: np.ndarray, since: int, measured: np.ndarray
) -> None:
    contract = arm(command).contract()
    together, single = SafetyFilter(contract), SafetyFilter(contract)
    state = together.activate(0, np.zeros(2))
    assert (single.activate(0, np.zeros(2)).commands == state.commands).all()
    whole = together.apply(chunk, state, since, measured)
    for step, row in enumerate(chunk):
        # One measurement for all steps: of positions it gets older; velocities count on from it.
        given = None if command == "velocities" and step else measured
        result = single.apply(row[None], state, since + step * 50_000_000, given, step / 20)
        np.testing.assert_allclose(result.actions[0], whole.actions[step], rtol=0, atol=1e-12)
        state = result.state(1)
    assert together.counts == single.counts


def test_applying_changes_neither_the_state_nor_the_chunk() -> None:
    filter_ = SafetyFilter(arm("positions").contract())
    state = filter_.activate(0, np.zeros(2))
    chunk = np.full((6, 2), 9.0)
    first = filter_.apply(chunk, state, 0).actions
    np.testing.assert_array_equal(filter_.apply(chunk, state, 0).actions, first)
    assert (chunk == 9.0).all()
