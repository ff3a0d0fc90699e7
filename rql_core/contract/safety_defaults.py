"""Limits for a contract that gives none: the filter is never off, so they follow from the action's limits and the rate.

They are cautious guesses. Who knows the robot writes a `safety` section; docs/safety.md has the figures side by side.
"""

from __future__ import annotations

from rql_core.contract.action_schema import Action
from rql_core.contract.observation_schema import Feature
from rql_core.contract.safety_schema import JointLimits, Measured, Safety, SafetyUnits, Stale, numbers_of, units_of

# s; a position goes through its whole range in no less: UR5e joints (two turns) then move at half of their maximum.
_RANGE_TIME = 4.0
# s, and at least this many periods; a velocity, or an effort, goes from one limit to the other in no less. A person
# sees a motion that starts in a quarter of a second as smooth, and a recorded one is rarely faster.
_RISE_TIME, _RISE_PERIODS = 0.25, 4
# s, and at least so many periods; an acceleration goes from none to its limit in no less: the rise above is then no
# step but a slope.
_ONSET_TIME, _ONSET_PERIODS = 0.1, 2
# Share of a position's range by which a command may be ahead of the measured position: a controller that follows is
# behind by a few hundredths.
_DEVIATION = 0.1
# s, and at least so many periods without observations before the joints are held; then until commanding ends.
_HOLD_TIME, _HOLD_PERIODS, _STOP_TIME = 0.1, 2, 1.0


def default_stale(period: float) -> Stale:
    """What happens without observations where the contract does not say; `period` in s."""
    hold = max(_HOLD_TIME, _HOLD_PERIODS * period)
    return Stale(hold_after=hold, stop_after=max(_STOP_TIME, 2 * hold))


def default_safety(action: Action, features: tuple[Feature, ...], period: float) -> Safety:
    """The section that a contract without one means; `period` in s.

    Raises ValueError where the action's limits are so wide that nothing sensible follows.
    """
    rise, onset = max(_RISE_TIME, _RISE_PERIODS * period), max(_ONSET_TIME, _ONSET_PERIODS * period)
    limits = []
    for feature in action.features:
        width = float(feature.upper) - float(feature.lower)
        if action.command == "positions":
            velocity = width / _RANGE_TIME
            acceleration = velocity / rise
            each = JointLimits(
                name=feature.name,
                velocity=velocity,
                acceleration=acceleration,
                jerk=acceleration / onset,
                deviation=_DEVIATION * width,
            )
        elif action.command == "velocities":
            acceleration = width / rise
            each = JointLimits(name=feature.name, acceleration=acceleration, jerk=acceleration / onset)
        else:
            each = JointLimits(name=feature.name, rate=width / rise)
        limits.append(each)
    units = units_of(action.command, action.unit)
    return Safety(
        units=SafetyUnits(**{kind: unit for kind, unit in units.items() if unit is not None}),
        limits=limits,
        measured=_measured(action, features),
        stale=default_stale(period),
    )


def _measured(action: Action, features: tuple[Feature, ...]) -> Measured | None:
    """The joints' measured positions, where their names leave no doubt: `position.<joint>` in the right unit."""
    unit = units_of(action.command, action.unit).get("position")
    found = []
    for name in action.names:
        numbers = [
            f"{feature.name}.{number}"
            for feature in features
            if feature.unit == unit and not feature.difference
            for number in feature.present
            if number == f"position.{name}"
        ]
        if len(numbers) != 1:
            return None
        found += numbers
    numbers_of(found, features)
    return Measured(position=found)
