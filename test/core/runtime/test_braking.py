"""Stops against two oracles that share nothing with them: a plain step-by-step simulation, and a linear program."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf

import numpy as np
import pytest
from scipy.optimize import linprog

from rql_core.contract.safety_schema import JointLimits
from rql_core.runtime.braking import excursion, largest_change, reach, run_on, stopping_change
from rql_core.runtime.limits import JointSteps
from rql_core.runtime.shaping import (
    _bounds,
    _keep,
    _straight_stop,
    _towards,
    _what_forbids,
    _within,
    next_position,
    next_velocity,
    stop_velocity,
)


def limits(random: np.random.Generator) -> tuple[float, float, float]:
    """Speed, acceleration, jerk per step: from one step to reach the next one's limit to a dozen."""
    jerk = float(10 ** random.uniform(-4, 0))
    acceleration = jerk * float(10 ** random.uniform(-0.3, 1.1))
    return acceleration * float(10 ** random.uniform(-0.3, 1.1)), acceleration, jerk


def walk(speed: float, change: float, acceleration: float, jerk: float) -> np.ndarray:
    """(steps, 3): position, speed, change after each step of the stop, until it is at rest."""
    rows, at = [], 0.0
    while abs(speed) > 1e-12 * jerk or abs(change) > jerk * (1 + 1e-9):
        change = stopping_change(speed, change, acceleration, jerk)
        speed += change
        at += speed
        rows.append((at, speed, change))
        assert len(rows) < 1000
    return np.array(rows).reshape(-1, 3)


@pytest.mark.parametrize("seed", range(5))
def test_a_stop_ends_at_rest_within_acceleration_and_jerk_and_goes_as_far_as_excursion_says(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(1000):
        fastest, acceleration, jerk = limits(random)
        speed, change = random.uniform(-fastest, fastest), random.uniform(-acceleration, acceleration)
        if random.random() < 0.2:  # where sums of whole numbers of jerk steps end
            change = float(np.clip(jerk * random.integers(-5, 6), -acceleration, acceleration))
        path = walk(speed, change, acceleration, jerk)
        changes = np.concatenate([[change], path[:, 2], [0.0]])
        assert (np.abs(changes) <= acceleration * (1 + 1e-9)).all()
        assert (np.abs(np.diff(changes)) <= jerk * (1 + 1e-9)).all()
        up, down = excursion(speed, change, acceleration, jerk)
        assert up == pytest.approx(max(0.0, *path[:, 0]), rel=1e-9, abs=1e-9 * jerk)
        assert down == pytest.approx(min(0.0, *path[:, 0]), rel=1e-9, abs=1e-9 * jerk)
        assert up <= reach(speed, change, acceleration, jerk) * (1 + 1e-9) + 1e-9 * jerk
        assert -down <= reach(-speed, -change, acceleration, jerk) * (1 + 1e-9) + 1e-9 * jerk
        # It neither turns round nor gets faster than bringing the change to zero makes it.
        end = speed + np.sign(change) * run_on(abs(change), jerk)
        assert (path[:, 1] * np.sign(end) >= min(0.0, speed * np.sign(end)) - 1e-9 * jerk).all()
        assert (path[:, 1] * np.sign(end) <= max(abs(end), speed * np.sign(end)) + 1e-9 * jerk).all()


def test_largest_change_is_the_inverse_of_what_it_adds_up_to() -> None:
    random = np.random.default_rng(0)
    for _ in range(2000):
        jerk, change = 10 ** random.uniform(-3, 0), 10 ** random.uniform(-4, 1)
        plain, left = 0.0, change
        while left > 0:
            plain, left = plain + left, left - jerk
        assert change + run_on(change, jerk) == pytest.approx(plain, rel=1e-9)
        assert largest_change(plain, jerk) == pytest.approx(change, rel=1e-9)


def program(
    speed: float, change: float, acceleration: float, jerk: float, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[float, float]]]:
    """Changes c_1..c_n as variables: matrices that give speeds and positions, and limits on jerk as A_ub c <= b_ub."""
    speeds = np.tril(np.ones((steps, steps)))
    difference = np.eye(steps) - np.eye(steps, k=-1)
    start = np.zeros(steps)
    start[0] = change
    rows = np.concatenate([difference, -difference])
    bounds = np.concatenate([jerk + start, jerk - start])
    return speeds, rows, bounds, [(-acceleration, acceleration)] * steps


@pytest.mark.parametrize("seed", range(4))
def test_no_stop_that_does_not_turn_round_is_shorter(seed: int) -> None:
    """A linear program over all sequences of changes finds the shortest; the last change may differ by one jerk."""
    random = np.random.default_rng(100 + seed)
    for _ in range(25):
        fastest, acceleration, jerk = limits(random)
        change = random.uniform(-acceleration, acceleration)
        speed = random.uniform(0, fastest)
        if change < 0 and speed < run_on(-change, jerk):
            continue  # it has to turn round
        steps = len(walk(speed, change, acceleration, jerk)) + 3
        speeds, rows, bounds, box = program(speed, change, acceleration, jerk, steps)
        # All speeds >= 0, at the end speed zero and a change that jerk brings to zero in one step.
        rows, bounds = np.concatenate([rows, -speeds]), np.concatenate([bounds, np.full(steps, speed)])
        box[-1] = (-min(jerk, acceleration), min(jerk, acceleration))
        found = linprog(
            speeds.sum(axis=0), rows / jerk, bounds / jerk, speeds[-1:] / jerk, [-speed / jerk], box, method="highs"
        )
        assert found.status == 0
        shortest = found.fun + steps * speed
        up, _ = excursion(speed, change, acceleration, jerk)
        assert up == pytest.approx(shortest, rel=1e-6, abs=1e-6 * jerk)


@pytest.mark.parametrize("seed", range(4))
def test_what_the_stop_says_is_feasible_is_feasible_for_a_linear_program_and_rarely_the_other_way(seed: int) -> None:
    """All sequences that stay within all limits and end at rest: those that turn round are the program's alone."""
    random = np.random.default_rng(200 + seed)
    ours = theirs = 0
    for _ in range(60):
        fastest, acceleration, jerk = limits(random)
        speed, change = random.uniform(-fastest, fastest), random.uniform(-acceleration, acceleration)
        up, down = excursion(speed, change, acceleration, jerk)
        end = speed + np.sign(change) * run_on(abs(change), jerk)
        high = random.uniform(0, 2) * up + 0.01 * jerk
        low = -(random.uniform(0, 2) * -down + 0.01 * jerk)
        feasible = up <= high and down >= low and abs(end) <= fastest
        steps = len(walk(speed, change, acceleration, jerk)) + 8
        speeds, rows, bounds, box = program(speed, change, acceleration, jerk, steps)
        positions = speeds @ speeds
        at = speed * np.arange(1, steps + 1)
        rows = np.concatenate([rows, speeds, -speeds, positions, -positions])
        bounds = np.concatenate(
            [bounds, np.full(steps, fastest - speed), np.full(steps, fastest + speed), high - at, at - low]
        )
        box[-1] = (-min(jerk, acceleration), min(jerk, acceleration))
        found = linprog(
            np.zeros(steps), rows / jerk, bounds / jerk + 1e-7, speeds[-1:] / jerk, [-speed / jerk], box, method="highs"
        )
        assert found.status in (0, 2)
        ours, theirs = ours + feasible, theirs + (found.status == 0)
        assert found.status == 0 or not feasible
    assert 0 < ours <= theirs < 60
    assert ours >= 0.8 * theirs


def joint_of(lower: float, upper: float, acceleration: float, jerk: float) -> JointSteps:
    return JointSteps("joint", 2, lower, upper, -inf, inf, lower, upper, acceleration, jerk, inf, 1e-11 * jerk, inf)


def one_by_one(joint: JointSteps, second: float, last: float, steps: int) -> list[float]:
    stop = []
    for _ in range(steps):
        following = last + stopping_change(last, last - second, joint.acceleration, joint.jerk)
        following = min(max(following, min(joint.lower, last)), max(joint.upper, last))
        second, last = last, following
        stop.append(following)
    return stop


@pytest.mark.parametrize("seed", range(4))
def test_the_stop_of_a_velocity_is_what_stopping_change_gives_one_by_one(seed: int) -> None:
    random = np.random.default_rng(300 + seed)
    straight = 0
    for _ in range(300):
        fastest, acceleration, jerk = limits(random)
        lower, upper = -fastest * random.uniform(0.5, 1), fastest * random.uniform(0.5, 1)
        joint = joint_of(lower, upper, acceleration, jerk)
        # Also from states that the limits do not admit, which are put back by the limits.
        last, change = random.uniform(-1.2, 1.2) * fastest, random.uniform(-1.5, 1.5) * acceleration
        # And from a multiple of jerk, where both ways round to one side or the other of the same step.
        if random.uniform() < 0.3:
            last, change = jerk * round(last / jerk), jerk * round(change / jerk)
        second = last - random.choice([change, 0.0, last])
        near = pytest.approx(0.0, abs=1e-9 * jerk)
        steps = int(random.integers(1, 60))
        whole = stop_velocity(joint, second, last, None)
        for stop in (stop_velocity(joint, second, last, steps), whole):
            expected = one_by_one(joint, second, last, len(stop))
            assert [found - other for found, other in zip(stop, expected, strict=True)] == [near] * len(stop)
        assert len(stop_velocity(joint, second, last, steps)) == steps
        # It ends at rest, and nowhere before.
        assert whole[-1] == 0.0
        assert one_by_one(joint, *([second, last, *whole][-2:]), 3) == [near] * 3
        assert not any(0.0 == one == other for one, other in pairwise(whole))
        straight += bool(lower <= last <= upper and _straight_stop(joint, last, last - second))
    assert 100 < straight < 300


@pytest.mark.parametrize("seed", range(4))
def test_the_stop_of_a_velocity_keeps_the_limits_that_are_kept_before(seed: int) -> None:
    random = np.random.default_rng(400 + seed)
    for _ in range(300):
        fastest, acceleration, jerk = limits(random)
        joint = joint_of(-fastest, fastest, acceleration, jerk)
        last = random.uniform(-1, 1) * fastest
        bounds = [largest_change(fastest + sign * last, jerk) for sign in (1, -1)]
        second = last - min(max(random.uniform(-1, 1) * acceleration, -bounds[0]), bounds[1])
        stop = np.array([second, last, *stop_velocity(joint, second, last, None), 0.0, 0.0])
        changes = np.diff(stop)
        rounding = 1e-12 * fastest
        assert (np.abs(stop[1:]) <= fastest).all()
        assert (np.abs(changes) <= acceleration + rounding).all()
        assert (np.abs(np.diff(changes)) <= jerk + 1e-10 * jerk + rounding).all()


def test_a_stop_under_way_is_gone_on_with_at_once() -> None:
    """From every state of a stop, also where it slows down by as much as the limit allows, but for rounding."""
    random = np.random.default_rng(600)
    refused, asked = 0, 0
    for _ in range(500):
        fastest, acceleration, jerk = limits(random)
        joint = JointSteps.of("velocities", given(fastest, acceleration, jerk), -fastest, fastest, 1.0)
        last = random.uniform(-1, 1) * fastest
        stop = [last, last, *stop_velocity(joint, last, last, None)]
        for before, now in pairwise(stop):
            refused += not _straight_stop(joint, now, now - before)
            asked += 1
    assert asked > 2000
    assert refused == 0


def given(fastest: float, acceleration: float, jerk: float) -> JointLimits:
    return JointLimits(name="joint", velocity=fastest, acceleration=acceleration, jerk=jerk)


def composed(
    joint: JointSteps, second: float, last: float, at: float | None, wanted: float, before: float | None
) -> tuple[float, str]:
    """`next_velocity` of the functions that it writes out."""
    change, ideal = last - second, wanted - last
    bounds = _bounds(joint, last)
    cause = _what_forbids(joint, last, change, at, ideal, bounds)
    if not cause:
        return wanted, ""
    drift = 0.0 if before is None or abs(wanted - before) > joint.acceleration else wanted - before
    return _within(
        last + _keep(joint, last, change, at, drift + _towards(ideal - drift, joint), bounds), last, joint
    ), cause


@pytest.mark.parametrize("seed", range(4))
def test_the_next_velocity_is_what_its_parts_give_to_the_last_bit(seed: int) -> None:
    random = np.random.default_rng(400 + seed)
    causes = set()
    for _ in range(2500):
        fastest, acceleration, jerk = limits(random)
        slowest = -fastest * random.uniform(0.5, 1)
        room = acceleration + run_on(acceleration, jerk)
        low, high = (-inf, inf) if random.random() < 0.3 else (-random.exponential(), random.exponential())
        joint = JointSteps(
            "joint", 2, slowest, fastest, low, high, slowest, fastest, acceleration, jerk, inf, 1e-11 * jerk, room
        )
        # Also from states that the limits do not admit.
        last, change = random.uniform(-1.2, 1.2) * fastest, random.uniform(-1.5, 1.5) * acceleration
        second = last - random.choice([change, 0.0, last])
        wanted = last + random.choice([random.uniform(-1.5, 1.5) * fastest, change, change + 0.5 * jerk, 0.0])
        wanted = min(max(wanted, slowest), fastest)
        before = random.choice([None, wanted - 0.3 * acceleration, wanted - 2.0 * acceleration])
        at = random.choice([None, random.uniform(-1.2, 1.2)])
        found = next_velocity(joint, second, last, at, wanted, before)
        assert found == composed(joint, second, last, at, wanted, before)
        causes.add(found[1])
    assert causes == {"", "velocity", "acceleration", "jerk", "position"}


@pytest.mark.parametrize("command", ["velocities", "positions"])
def test_where_every_stop_has_room_a_command_is_what_it_is_when_its_own_stop_is_asked_for(command: str) -> None:
    random = np.random.default_rng(500)
    clear, forbidden = 0, 0
    for _ in range(3000):
        fastest, acceleration, jerk = limits(random)
        reaches = reach(fastest, acceleration, acceleration, jerk)
        low, high = -reaches * random.uniform(0.1, 4), reaches * random.uniform(0.1, 4)
        given = JointLimits(
            name="joint", position=[low, high], velocity=fastest, acceleration=acceleration, jerk=jerk, deviation=0.1
        )
        beyond = 2 * max(fastest, -low, high)
        joint = JointSteps.of(command, given, -beyond, beyond, 1.0)
        assert joint.clear_low == pytest.approx(low + reaches)
        other = replace(joint, clear_low=inf, clear_high=-inf)
        # Also from states that the limits do not admit, and beyond the limits.
        at, last = random.uniform(1.1 * low, 1.1 * high), random.uniform(-1.1, 1.1) * fastest
        second = last - random.uniform(-1.1, 1.1) * acceleration
        wanted = last + random.choice([random.uniform(-1.5, 1.5) * fastest, last - second])
        if command == "velocities":
            found, expected = (next_velocity(each, second, last, at, wanted, None) for each in (joint, other))
        else:
            past = (at - last - second, at - last, at)
            found, expected = (next_position(each, *past, at + wanted, None) for each in (joint, other))
        assert found == expected
        clear += joint.clear_low <= at <= joint.clear_high
        forbidden += found[1] == "position"
    assert clear > 500
    assert forbidden > 100
