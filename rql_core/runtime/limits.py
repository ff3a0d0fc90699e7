"""The limits of a contract as the safety filter needs them: floats per control step, one set a joint."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
import numpy.typing as npt

from rql_core.contract import Contract
from rql_core.contract.safety_schema import JointLimits, Safety, numbers_of, units_of
from rql_core.runtime.braking import reach, run_on

# A command may be beyond a limit by this share of the smallest step that the limits allow: what computed it rounds.
TOLERANCE = 1e-11
_EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class JointSteps:
    """The limits of one joint per control step of T seconds.

    `order` 3: the command is a position p; slowest and fastest bound its difference, acceleration the difference of
    that, jerk the difference of that. `order` 2: the command is a velocity, bounded by slowest and fastest itself, and
    low and high bound the predicted position divided by T. `order` 1: an effort or acceleration between slowest and
    fastest; acceleration bounds its difference. `room`: the speed that the largest change adds up to until jerk has
    brought it to zero. Between clear_low and clear_high a stop from any speed and change within the limits keeps the
    position limits.
    """

    name: str
    order: int
    lower: float
    upper: float
    low: float
    high: float
    slowest: float
    fastest: float
    acceleration: float
    jerk: float
    deviation: float
    tolerance: float
    room: float
    clear_low: float = inf
    clear_high: float = -inf

    @classmethod
    def of(cls, command: str, limits: JointLimits, lower: float, upper: float, period: float) -> JointSteps:
        """For an action between `lower` and `upper`; `period` in s."""
        low, high = limits.range or (-inf, inf)
        deviation = limits.deviation or inf
        if command == "positions":
            order, scale = 3, period
            low, high = max(lower, low), min(upper, high)
            lower, upper = low, high
            fastest = (limits.velocity or inf) * period
            slowest = -fastest
        elif command == "velocities":
            order, scale = 2, 1.0
            low, high = low / period, high / period
            most = limits.velocity or inf
            slowest = lower = max(lower, -most)
            fastest = upper = min(upper, most)
        else:
            order, scale = 1, 1.0
            slowest, fastest = lower, upper
        # Beyond these a limit is none: within one step there is no further to go. Capped, because tolerances are shares
        # of the smallest limit, and the largest must not be much larger.
        acceleration = min((limits.acceleration or limits.rate or inf) * period * scale, fastest - slowest)
        jerk = min((limits.jerk or inf) * period**2 * scale, 2.0 * acceleration)
        rounding = 4.0 * _EPSILON * max(abs(lower), abs(upper))
        tolerance = max(TOLERANCE * min(jerk, acceleration, fastest - slowest), rounding)
        clear_low, clear_high = inf, -inf  # no such place
        if order > 1 and isfinite(fastest - slowest):
            clear_low = low + reach(-slowest, acceleration, acceleration, jerk)
            clear_high = high - reach(fastest, acceleration, acceleration, jerk)
        return cls(
            limits.name,
            order,
            lower,
            upper,
            low,
            high,
            slowest,
            fastest,
            acceleration,
            jerk,
            deviation,
            tolerance,
            acceleration + (run_on(acceleration, jerk) if order > 1 else 0.0),
            clear_low,
            clear_high,
        )


class Limits:
    """All limits of a contract, in the order of its action.

    `joints`: one JointSteps an action; `position_from`: where the measured positions stand in the observation vector,
    None where the contract does not say; `velocity_from` the same of measured velocities.
    """

    def __init__(self, contract: Contract) -> None:
        action, safety = contract.action, contract.safety_in_force
        self.command = action.command
        self.unit = action.unit
        self.units = units_of(action.command, action.unit)
        self.names = action.names
        self.period = 1.0 / float(contract.rate_fraction)
        self.safety: Safety = safety
        by_name = {limits.name: limits for limits in safety.limits}
        self.joints = tuple(
            JointSteps.of(action.command, by_name[each.name], float(each.lower), float(each.upper), self.period)
            for each in action.features
        )
        self.order = self.joints[0].order
        measured = safety.measured
        self.position_from, self.velocity_from = (
            None if given is None else np.array(numbers_of(given, contract.features)[0])
            for given in ((None, None) if measured is None else (measured.position, measured.velocity))
        )

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """One limit of all joints, (action_dim,)."""
        return np.array([getattr(joint, name) for joint in self.joints], dtype=np.float64)
