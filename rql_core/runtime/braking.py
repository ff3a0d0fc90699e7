"""How a joint comes to rest within its limits, in discrete time: what the safety filter's promise rests on.

All quantities are per control step: `speed` is the difference of two commands, `change` the difference of two speeds,
`jerk` the most that a change may differ from the change before it. With a period T these are velocity * T,
acceleration * T^2 and jerk * T^3 of a commanded position, or velocity, acceleration * T and jerk * T^2 of a commanded
velocity. The joint moves by `speed` after `change` was added to it: p' = p + s', s' = s + c', |c' - c| <= jerk.

The stop is one function of (speed, change) and of nothing else, so that whoever is on its path stays on it: a state
from which it keeps within the limits is followed by another such state. That is the filter's invariant. It is the
shortest stop that does not turn round: it arrives with speed and change zero. (A stop that may turn round can be
shorter; a policy that pushes against a limit would then be thrown back from it again and again.)
"""

from __future__ import annotations

from math import inf, sqrt

# Contracts bound a stop to ten seconds, which at 1000 Hz are 10,000 steps; states that the filter did not lead to may
# need more, and then the joint is taken to come to no rest at all.
MAX_STEPS = 20_000


def run_on(change: float, jerk: float) -> float:
    """How much speed is still added while a change >= 0 is brought to zero as fast as jerk allows."""
    steps = int(change / jerk)
    return steps * change - 0.5 * jerk * steps * (steps + 1)


def largest_change(speed: float, jerk: float) -> float:
    """The largest change c with c + run_on(c) = speed: applied now, and then brought to zero, it adds up to `speed`."""
    if speed <= jerk:
        return speed  # also for negative ones: who is beyond may come back at once
    steps = int((sqrt(1.0 + 8.0 * speed / jerk) - 1.0) * 0.5)
    return speed / (steps + 1) + 0.5 * jerk * steps


def stopping_change(speed: float, change: float, acceleration: float, jerk: float) -> float:
    """The next change on the way to rest."""
    up = speed + run_on(change, jerk) if change >= 0.0 else speed - run_on(-change, jerk)
    if up < 0.0:  # it is, or will be, on its way down: the same thing upside down
        return -_stopping_upward(-speed, -change, acceleration, jerk)
    return _stopping_upward(speed, change, acceleration, jerk)


def _stopping_upward(speed: float, change: float, acceleration: float, jerk: float) -> float:
    slowing = largest_change(speed, jerk) if speed > 0.0 else 0.0
    slowing = min(slowing, acceleration, jerk - change)
    return -max(slowing, -change - jerk)


def excursion(speed: float, change: float, acceleration: float, jerk: float) -> tuple[float, float]:
    """How far up (>= 0) and down (<= 0) the stop goes from here, in the joint's own units.

    The sums over the stretch of constant change and over the last one, where change falls by jerk a step, are written
    out: this is where the filter spends its time when a joint is near its limit.
    """
    downward = (speed + run_on(change, jerk) if change >= 0.0 else speed - run_on(-change, jerk)) < 0.0
    if downward:
        speed, change = -speed, -change
    at = lowest = 0.0
    for _ in range(MAX_STEPS):
        if speed > 0.0:
            slowing = largest_change(speed, jerk)
            if slowing <= acceleration and slowing <= jerk - change:
                steps = int(slowing / jerk)
                at += steps * (steps + 1) * (0.5 * slowing - jerk * (2 * steps + 1) / 6.0)
                break
            if change == -acceleration:
                steps = int((speed - acceleration - run_on(acceleration, jerk)) / acceleration)
                if steps > 1:
                    at += steps * (speed - 0.5 * acceleration * (steps + 1))
                    speed -= steps * acceleration
                    continue
            slowing = max(min(acceleration, jerk - change), -change - jerk)
        elif change <= jerk:
            break  # at rest: what is left of speed is rounding
        else:
            slowing = jerk - change
        change = -slowing
        speed += change
        at += speed
        if at < lowest:
            lowest = at
    else:
        return inf, -inf
    highest = max(at, 0.0)
    return (-lowest, -highest) if downward else (highest, lowest)


def reach(speed: float, change: float, acceleration: float, jerk: float) -> float:
    """A bound on how far the stop goes upward (downward: negate both), never less than `excursion`, at little cost.

    A stop from speed s without a change takes at most s / acceleration + acceleration / jerk steps at half of s in the
    mean; before it the change has to be brought to zero, at no more than the speed that this leads to.
    """
    if change > 0.0:
        speed += run_on(change, jerk)
    if speed <= 0.0:
        return 0.0
    steps = max(change, 0.0) / jerk + 2.0 + 0.5 * (speed / acceleration + acceleration / jerk)
    return speed * steps
