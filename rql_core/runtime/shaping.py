"""The next command of one joint: the wanted one where the limits admit it, else one on the way there.

Admissible is what keeps the differences within the limits and leaves a stop within all of them (see braking). Among the
admissible commands the nearest to the wanted one is not always taken: the nearest may arrive at it so fast that the
joint must swing past it, and back, for ever. So a command that cannot be had at once is approached as fast as the
limits allow without swinging past.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt

from rql_core.runtime.braking import excursion, largest_change, reach, stopping_change
from rql_core.runtime.limits import JointSteps

# The approach of a position plans with this share of the acceleration, so that the limits leave it room to correct.
_APPROACH = 0.8
# A position limit is met by regula falsi on a function that is piecewise linear: four to six evaluations in practice.
_SEARCH = 24
# It may end short of the limit by this share of what jerk does in a step: with 100 rad/s^3 at 20 Hz a microradian.
_FINE = 1e-4


def next_position(
    joint: JointSteps, first: float, second: float, last: float, wanted: float, before: float | None
) -> tuple[float, str]:
    """The command after the positions first, second, last, and the cause ("" where it is the wanted one).

    `before`: what was wanted a step ago, None where nothing was.
    """
    speed = last - second
    change = speed - (second - first)
    ideal = (wanted - last) - speed
    bounds = _bounds(joint, speed)
    if joint.lower <= wanted <= joint.upper:
        cause = _what_forbids(joint, speed, change, last, ideal, bounds)
        if not cause:
            return wanted, ""
    else:
        cause = "position"
    drift = 0.0 if before is None else wanted - before
    if not joint.slowest <= drift <= joint.fastest:
        drift = 0.0  # a jump, and no motion that could be followed
    gap = (wanted - drift) - last
    pace = drift + (_approach_speed(gap, joint) if gap >= 0.0 else -_approach_speed(-gap, joint))
    pace = min(max(pace, joint.slowest), joint.fastest)
    result = last + (speed + _keep(joint, speed, change, last, _towards(pace - speed, joint), bounds))
    return _within(result, last, joint), cause


def next_velocity(
    joint: JointSteps, second: float, last: float, at: float | None, wanted: float, before: float | None
) -> tuple[float, str]:
    """The command after the velocities second, last, and the cause ("" where it is the wanted one).

    `at`: the joint's position divided by the period, None where it is not known. `before`: what was wanted a step ago.

    This is `_bounds`, `_what_forbids`, `_towards`, `_keep` and `_within` written out, to the last bit: on the way of
    nearly every chunk of a policy at its limits it is asked for each step and joint.
    """
    acceleration, jerk, slack, room = joint.acceleration, joint.jerk, joint.tolerance, joint.room
    change = last - second
    ideal = wanted - last
    down, up = last - joint.slowest, joint.fastest - last
    least = -down if down >= room else -largest_change(down, jerk)
    most = up if up >= room else largest_change(up, jerk)
    if not least - slack <= ideal <= most + slack:
        cause = "velocity"
    elif not -acceleration - slack <= ideal <= acceleration + slack:
        cause = "acceleration"
    elif not -jerk - slack <= ideal - change <= jerk + slack:
        cause = "jerk"
    elif at is None or _keep_position(joint, last, change, at, ideal) == ideal:
        return wanted, ""
    else:
        cause = "position"
    drift = 0.0 if before is None else wanted - before
    if not -acceleration <= drift <= acceleration:
        drift = 0.0  # a jump, and no slope that could be followed
    difference = ideal - drift
    if difference >= 0.0:
        wish = drift + (difference if difference >= room else largest_change(difference, jerk))
    else:
        wish = drift + (difference if -difference >= room else -largest_change(-difference, jerk))
    for low, high in ((least, most), (-acceleration, acceleration), (change - jerk, change + jerk)):
        if wish < low:
            wish = low
        if wish > high:
            wish = high
    if at is not None:
        wish = _keep_position(joint, last, change, at, wish)
    result = last + wish
    lower, upper = joint.lower, joint.upper
    if result < lower:
        result = max(result, min(lower, last))
    if result > upper:
        result = min(result, max(upper, last))
    return result, cause


def next_value(joint: JointSteps, last: float, wanted: float) -> tuple[float, str]:
    """The command after an effort or acceleration, and the cause ("" where it is the wanted one)."""
    low, high = last - joint.acceleration, last + joint.acceleration
    if low - joint.tolerance <= wanted <= high + joint.tolerance:
        return wanted, ""
    return _within(min(max(wanted, low), high), last, joint), "rate"


def stop_position(joint: JointSteps, first: float, second: float, last: float) -> float:
    """The next command of the stop after the positions first, second, last."""
    speed = last - second
    change = stopping_change(speed, speed - (second - first), joint.acceleration, joint.jerk)
    return _within(last + (speed + change), last, joint)


def stop_velocity(joint: JointSteps, second: float, last: float, steps: int | None) -> list[float]:
    """The stop after the velocities second, last: what `stopping_change` gives one by one, to rounding.

    For so many `steps`, or None: until the joint rests, but at least one.
    """
    lower, upper = joint.lower, joint.upper
    still = joint.jerk + joint.tolerance
    column: list[float] = []
    while steps is None or len(column) < steps:
        if lower <= last <= upper and lower <= 0.0 <= upper:
            rest = _straight_stop(joint, last, last - second)
            if rest:
                column += rest
                return column if steps is None else (column + [0.0] * (steps - len(column)))[:steps]
        following = last + stopping_change(last, last - second, joint.acceleration, joint.jerk)
        following = _within(following, last, joint)
        column.append(following)
        before, second, last = last, last, following
        # Speed zero is rest only if it may stay zero: a joint that turns round passes through it.
        if steps is None and following == 0.0 and abs(before) <= still:
            break
    return column


def _straight_stop(joint: JointSteps, speed: float, change: float) -> list[float]:
    """The speeds of the stop until rest, from within the limits: the change has but to fall and to rise again.

    Empty where something else has to be done before. A chunk at 200 Hz ends in some forty steps for every joint, and to
    ask `stopping_change` for each takes longer than a small network.
    """
    acceleration, jerk, slack, fastest = joint.acceleration, joint.jerk, joint.tolerance, joint.upper
    half = 0.5 * jerk
    run = int(abs(change) / jerk)
    added = run * (abs(change) - half * (run + 1))  # `run_on`
    # All comparisons with slack, because who is on the way of a stop is beside it by rounding.
    end = speed + (added if change >= 0.0 else -added)
    downward = end < -slack or (end <= slack and speed < 0.0)
    if downward:  # the same thing upside down
        speed, change, fastest = -speed, -change, -joint.lower
    if change < -acceleration - slack or (change > 0.0 and speed + added > fastest + slack):
        return []
    if speed < _stopped_by(-change - jerk, jerk) - slack:
        return []  # it slows down so much that it would turn round
    column: list[float] = []
    # As much more in each step as jerk allows, as long as that is less than what brings the joint to rest.
    slowing = jerk - change
    while slowing < acceleration:
        run = int(slowing / jerk)
        if slowing > 0.0 and speed <= (run + 1) * (slowing - half * run):  # `_stopped_by`
            break
        speed -= slowing
        column.append(speed if speed < fastest else fastest)
        slowing += jerk
    else:
        most = _stopped_by(acceleration, jerk)
        while speed > most:
            speed -= acceleration
            column.append(speed)
    # Then `largest_change`, which is speed / (run + 1) + run * half, and jerk less each time.
    run = int((sqrt(1.0 + 8.0 * speed / jerk) - 1.0) * 0.5) if speed > jerk else 0
    for left in range(run, 0, -1):
        speed -= speed / (left + 1) + half * left
        column.append(speed)
    if column and speed <= slack:
        column.pop()  # at rest already, but for rounding
    column.append(0.0)
    return [0.0 - speed for speed in column] if downward else column


def _stopped_by(slowing: float, jerk: float) -> float:
    """The speed that is brought to rest by slowing down by so much in a step, and by jerk less in each that follows."""
    run = int(slowing / jerk)
    return (run + 1) * (slowing - 0.5 * jerk * run) if slowing > 0.0 else 0.0


def stop_value(joint: JointSteps, last: float) -> float:
    """The next command on the way of an effort or acceleration to zero."""
    return last - min(max(last, -joint.acceleration), joint.acceleration)


def _bounds(joint: JointSteps, speed: float) -> tuple[float, float]:
    """The changes that keep the speed within its limits, now and while jerk brings them to zero.

    Where that is more than the acceleration limit, just more: the acceleration limit is asked as well.
    """
    down, up = speed - joint.slowest, joint.fastest - speed
    return (
        -down if down >= joint.room else -largest_change(down, joint.jerk),
        up if up >= joint.room else largest_change(up, joint.jerk),
    )


def _what_forbids(
    joint: JointSteps, speed: float, change: float, at: float | None, ideal: float, bounds: tuple[float, float]
) -> str:
    """Why the change `ideal` is not admissible: the first in the order velocity, acceleration, jerk, position."""
    slack = joint.tolerance
    if not bounds[0] - slack <= ideal <= bounds[1] + slack:
        # Beyond the limit, or so fast towards it that the change could not be brought to zero in time.
        return "velocity"
    if not -joint.acceleration - slack <= ideal <= joint.acceleration + slack:
        return "acceleration"
    if not -joint.jerk - slack <= ideal - change <= joint.jerk + slack:
        return "jerk"
    return "" if at is None or _keep_position(joint, speed, change, at, ideal) == ideal else "position"


def _keep(
    joint: JointSteps, speed: float, change: float, at: float | None, ideal: float, bounds: tuple[float, float]
) -> float:
    """The change nearest to `ideal` that is admissible.

    Where the state before is none that this filter lets happen, no change is admissible; then the jerk limit comes
    first, and within it the way back.
    """
    ideal = min(max(ideal, bounds[0]), bounds[1])
    ideal = min(max(ideal, -joint.acceleration), joint.acceleration)
    ideal = min(max(ideal, change - joint.jerk), change + joint.jerk)
    return ideal if at is None else _keep_position(joint, speed, change, at, ideal)


def _keep_position(joint: JointSteps, speed: float, change: float, at: float, ideal: float) -> float:
    """The change nearest to `ideal` after which a stop stays within the position limits.

    Where no stop does, because the joint was measured beyond a limit, it must not get further out than a stop does.
    """
    low, high = joint.low, joint.high
    if low == -inf and high == inf:
        return ideal
    acceleration, jerk = joint.acceleration, joint.jerk
    there = at + (speed + ideal)
    if (
        joint.clear_low <= there <= joint.clear_high
        and joint.slowest <= speed + ideal <= joint.fastest
        and -acceleration <= ideal <= acceleration
    ):
        return ideal  # whatever is admitted comes to rest from there
    if (
        there + reach(speed + ideal, ideal, acceleration, jerk) <= high
        and there - reach(-speed - ideal, -ideal, acceleration, jerk) >= low
    ):
        return ideal

    def over(change: float) -> float:
        """By how much a stop after this change is beyond the limits."""
        up, down = excursion(speed + change, change, acceleration, jerk)
        return max(at + (speed + change) + up - high, low - (at + (speed + change)) - down)

    excess = over(ideal)
    if excess <= joint.tolerance:
        return ideal
    good = stopping_change(speed, change, acceleration, jerk)
    least = over(good)
    if least > 0.0:
        up, down = excursion(speed + good, good, acceleration, jerk)
        high, low = max(high, at + (speed + good) + up), min(low, at + (speed + good) + down)
        least, excess = over(good), over(ideal)
        if excess <= 0.0:
            return ideal
    return _last_admissible(over, good, least, ideal, excess, _FINE * jerk)


def _last_admissible(
    over: Callable[[float], float], good: float, least: float, bad: float, excess: float, fine: float
) -> float:
    """The argument nearest to `bad` where over(.) <= 0, to where it is above -fine: regula falsi (Illinois).

    `least` is over(good) <= 0 and `excess` is over(bad) > 0.
    """
    weight_good, weight_bad = least, excess
    kept = 0
    for _ in range(_SEARCH):
        if least >= -fine or weight_good == weight_bad:
            break
        tried = good + (bad - good) * weight_good / (weight_good - weight_bad)
        found = over(tried)
        if found <= 0.0:
            good, least, weight_good = tried, found, found
            weight_bad *= 0.5 if kept > 0 else 1.0
            kept = 1
        else:
            bad, weight_bad = tried, found
            weight_good *= 0.5 if kept < 0 else 1.0
            kept = -1
    return good


def _approach_speed(gap: float, joint: JointSteps) -> float:
    """A speed from which the joint can come to rest within `gap`: half of gap a step when it is all but there."""
    acceleration = _APPROACH * joint.acceleration
    slack = 1.0 + 0.5 * acceleration / joint.jerk
    return acceleration * (sqrt(slack * slack + 2.0 * gap / acceleration) - slack)


def _towards(difference: float, joint: JointSteps) -> float:
    """The change that makes up for a difference of speeds and then is brought to zero, without swinging past.

    No larger than what is asked of it: one beyond the acceleration limit is as good as another.
    """
    if difference >= 0.0:
        return difference if difference >= joint.room else largest_change(difference, joint.jerk)
    return difference if -difference >= joint.room else -largest_change(-difference, joint.jerk)


def _within(command: float, last: float, joint: JointSteps) -> float:
    """A command that rounding has put beyond a limit, put back; where the one before was beyond, no further out."""
    return min(max(command, min(joint.lower, last)), max(joint.upper, last))
