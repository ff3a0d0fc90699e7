"""The part of a contract that says what a command may do: limits with their units, ramp, latch, stale observations.

Every number is checked here, when the contract is loaded: a limit that is not a positive finite number would otherwise
be a limit that is quietly not there. How the limits are kept is in rql_core/runtime/safety.py and docs/safety.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from rql_core.contract.strict_model import Number, Strict, finite

if TYPE_CHECKING:
    from rql_core.contract.action_schema import Action
    from rql_core.contract.observation_schema import Feature

# A limit of a billion limits nothing.
_MOST = 1e9

# s; a stop that takes longer is none that a person would wait for.
_LONGEST_STOP = 10.0

# Which limits a kind of command needs, and which it may have besides.
_NEEDED = {
    "positions": ("velocity", "acceleration", "jerk", "deviation"),
    "velocities": ("acceleration", "jerk"),
    "accelerations": ("rate",),
    "effort": ("rate",),
}
_POSSIBLE = {"positions": ("position",), "velocities": ("position", "velocity"), "accelerations": (), "effort": ()}


def _positive(value: float) -> float:
    if not 0 < value <= _MOST:  # NaN is not either
        raise ValueError(f"is {value}, expected a number greater than 0 and at most {_MOST:g}")
    return float(value)


Positive = Annotated[
    Number,
    AfterValidator(_positive),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": _MOST}),
]


class SafetyUnits(Strict):
    """Units of the limits, one for each kind of limit that is there; they must follow from the action's unit."""

    position: str | None = Field(default=None, description="of position and deviation, such as rad")
    velocity: str | None = Field(default=None, description="such as rad/s")
    acceleration: str | None = Field(default=None, description="such as rad/s^2")
    jerk: str | None = Field(default=None, description="such as rad/s^3")
    rate: str | None = Field(default=None, description="of the rate of an effort or acceleration, such as Nm/s")


class JointLimits(Strict):
    """What the command of one joint may do.

    `command: positions` needs velocity, acceleration, jerk and deviation; `command: velocities` needs acceleration and
    jerk; `effort` and `accelerations` need rate. The value itself is bounded by the action's lower and upper as well.
    """

    name: str = Field(min_length=1, max_length=128, description="of the action it limits")
    position: list[Number] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="lowest and highest position of the joint; of a position command within lower and upper",
    )
    velocity: Positive | None = Field(default=None, description="largest speed, either way")
    acceleration: Positive | None = Field(default=None, description="largest change of velocity a second, either way")
    jerk: Positive | None = Field(default=None, description="largest change of acceleration a second, either way")
    rate: Positive | None = Field(default=None, description="largest change of an effort or acceleration a second")
    deviation: Positive | None = Field(
        default=None, description="how far a position command may be from the measured position"
    )

    @model_validator(mode="after")
    def _range_is_sound(self) -> JointLimits:
        if self.position is not None:
            if max(abs(value) for value in self.position) > _MOST:
                raise ValueError(f"{self.name}.position is beyond {_MOST:g}, which limits nothing")
            low, high = (finite(value, f"{self.name}.position") for value in self.position)
            if not low < high:
                raise ValueError(f"{self.name}.position is [{low}, {high}], expected lowest < highest")
        return self

    @property
    def range(self) -> tuple[float, float] | None:
        """Lowest and highest position, as floats."""
        return None if self.position is None else (float(self.position[0]), float(self.position[1]))


class Measured(Strict):
    """Which observations are the joints' measured state: a feature with one number an action, in the actions' order."""

    position: str | list[str] | None = Field(
        default=None, description="a feature, or names of numbers such as joint_position.position.elbow_joint"
    )
    velocity: str | list[str] | None = Field(default=None, description="the same for the joints' velocities")


class Latch(Strict):
    """When commanding ends until it is re-armed by hand. What is counted is chunks, or commands that come singly."""

    not_finite: int = Field(default=3, ge=1, le=1000, description="this many that are no finite numbers of right shape")
    violations: int | None = Field(
        default=None, ge=1, le=100_000, description="this many that a limit has changed; default: those never latch"
    )
    window: Positive = Field(default=2.0, description="s; within this time")


class Stale(Strict):
    """What the node does when observations stop coming, and how it goes on."""

    hold_after: Positive = Field(description="s; older than this, and the joints are brought to rest and held")
    stop_after: Positive = Field(description="s; older than this, and commanding ends")
    recover_after: Positive = Field(
        default=0.25, description="s; observations must come unbroken for this long before commands pass again, ramped"
    )
    after_stop: Literal["rearm", "recover"] = Field(
        default="rearm", description="whether commanding that has ended needs the rearm service, or recovers as well"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Stale:
        if not self.hold_after < self.stop_after:
            raise ValueError(
                f"hold_after is {self.hold_after} s and stop_after {self.stop_after} s, expected hold before stop"
            )
        return self


class Safety(Strict):
    """Limits of every command that leaves, on by default: without this section they are derived (docs/safety.md)."""

    units: SafetyUnits = Field(description="of the limits")
    limits: list[JointLimits] = Field(
        min_length=1, max_length=128, description="one entry an action, none left out, in any order"
    )
    measured: Measured | None = Field(default=None, description="which observations are the joints' measured state")
    ramp: Positive = Field(
        default=1.0, le=60, description="s; after activation the policy's share grows from none to all in this time"
    )
    latch: Latch = Field(default=Latch(), description="when commanding ends until it is re-armed by hand")
    stale: Stale | None = Field(
        default=None,
        description="what happens without fresh observations; default: hold after 2 periods and at least 0.1 s, stop "
        "after 1 s",
    )

    def check(self, action: Action, features: tuple[Feature, ...], period: float) -> None:
        """Raise ValueError unless the limits are those of this action; `period` in s."""
        self._check_names(action)
        for limits in self.limits:
            self._check_kinds(limits, action)
            self._check_values(limits, action, period)
        self._check_units(action)
        if self.measured is not None:
            for kind, given in (("position", self.measured.position), ("velocity", self.measured.velocity)):
                if given is not None:
                    self._check_measured(kind, given, action, features)
        has_position = self.measured is not None and self.measured.position is not None
        if action.command == "positions" and not has_position:
            raise ValueError(
                "safety.measured.position is missing: commands that are positions begin where the joints are measured"
            )
        if not has_position and any(limits.position for limits in self.limits):
            raise ValueError("safety.limits has a position, which needs safety.measured.position; add it")

    def _check_names(self, action: Action) -> None:
        names = [limits.name for limits in self.limits]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"safety.limits has {name!r} {names.count(name)} times, expected once")
            if name not in action.names:
                raise ValueError(f"safety.limits has {name!r}, which is no action; they are {', '.join(action.names)}")
        for name in action.names:
            if name not in names:
                raise ValueError(f"safety.limits has no entry for action {name!r}; every action needs its limits")

    def _check_kinds(self, limits: JointLimits, action: Action) -> None:
        needed, possible = _NEEDED[action.command], _POSSIBLE[action.command]
        for kind in needed:
            if getattr(limits, kind) is None:
                raise ValueError(f"safety.limits of {limits.name!r} has no {kind}, which {action.command} need")
        for kind in ("position", "velocity", "acceleration", "jerk", "rate", "deviation"):
            if getattr(limits, kind) is not None and kind not in (*needed, *possible):
                raise ValueError(
                    f"safety.limits of {limits.name!r} has {kind}, which means nothing for {action.command}; "
                    f"expected {', '.join((*needed, *possible))}"
                )

    def _check_values(self, limits: JointLimits, action: Action, period: float) -> None:
        feature = next(feature for feature in action.features if feature.name == limits.name)
        lower, upper = float(feature.lower), float(feature.upper)
        span, speed = limits.range, limits.velocity
        if action.command == "positions":
            if span is not None and not (lower <= span[0] and span[1] <= upper):
                raise ValueError(
                    f"safety.limits: {limits.name}.position is {list(span)}, beyond the action's [{lower}, {upper}]"
                )
            span = span or (lower, upper)
        elif action.command == "velocities":
            most = max(-lower, upper)
            if speed is not None and speed > most:
                raise ValueError(
                    f"safety.limits: {limits.name}.velocity is {speed}, but the action ends at {most}; lower it"
                )
            speed = speed or most
        if speed is None or limits.acceleration is None or limits.jerk is None:
            return
        # Speed v to rest takes v/a + a/j at half of v in the mean, with the acceleration a that jerk j lets it reach.
        reached = min(limits.acceleration, (speed * limits.jerk) ** 0.5)
        seconds = speed / reached + reached / limits.jerk
        if seconds > _LONGEST_STOP:
            raise ValueError(
                f"safety.limits of {limits.name!r}: a stop from {speed} takes {seconds:.3g} s, expected at most "
                f"{_LONGEST_STOP:g} s; raise acceleration and jerk"
            )
        if span is not None and 0.5 * speed * seconds > span[1] - span[0]:
            raise ValueError(
                f"safety.limits of {limits.name!r}: from {speed} the joint cannot stop within its position range "
                f"[{span[0]}, {span[1]}]: that takes {0.5 * speed * seconds:.4g}; lower velocity or raise acceleration "
                "and jerk"
            )
        step = limits.jerk * period ** (3 if action.command == "positions" else 2)
        if step < 1e-10 * max(-lower, upper):
            raise ValueError(
                f"safety.limits: {limits.name}.jerk is {limits.jerk}, which at this rate is {step:.2g} a step and "
                "lost in rounding; raise it"
            )

    def _check_units(self, action: Action) -> None:
        there = {kind for limits in self.limits for kind in SafetyUnits.model_fields if getattr(limits, kind)}
        if any(limits.deviation for limits in self.limits):
            there.add("position")
        expected = units_of(action.command, action.unit)
        for kind in SafetyUnits.model_fields:
            unit = getattr(self.units, kind)
            if unit is None and kind in there:
                raise ValueError(f"safety.units has no {kind}, but safety.limits has; write its unit")
            if unit is None:
                continue
            if expected.get(kind) is None:
                raise ValueError(
                    f"safety.units.{kind} is {unit!r}, but {action.command} in {action.unit!r} have no such limit"
                )
            if _plain(unit) != _plain(str(expected[kind])):
                raise ValueError(
                    f"safety.units.{kind} is {unit!r}, but the action is in {action.unit!r}; "
                    f"expected {expected[kind]!r}, and the limits in it"
                )

    def _check_measured(self, kind: str, given: str | list[str], action: Action, features: tuple[Feature, ...]) -> None:
        indices, units = numbers_of(given, features)
        if len(indices) != len(action.names):
            raise ValueError(
                f"safety.measured.{kind} has {len(indices)} numbers, expected {len(action.names)}: one an action"
            )
        expected = units_of(action.command, action.unit).get(kind)
        for unit in units:
            if expected is not None and _plain(unit) != _plain(expected):
                raise ValueError(f"safety.measured.{kind} is in {unit!r}, expected {expected!r} as the action says")


def units_of(command: str, unit: str) -> dict[str, str | None]:
    """The unit that each kind of limit has to be in, for an action in `unit`; None where there cannot be one."""
    if command in ("accelerations", "effort"):
        return {"rate": _per_second(unit)}
    if command == "positions":
        base: str | None = unit
        velocity = _per_second(unit)
    else:
        base, velocity = (unit[:-2] if unit.endswith("/s") else None), unit
    acceleration = _per_second(velocity)
    return {"position": base, "velocity": velocity, "acceleration": acceleration, "jerk": _per_second(acceleration)}


def _per_second(unit: str) -> str:
    """A unit a second: rad, rad/s, rad/s^2, rad/s^3."""
    plain = _plain(unit)
    base, slash, power = plain.rpartition("/s^")
    if slash and power.isdigit():
        return f"{base}/s^{int(power) + 1}"
    return f"{plain[:-2]}/s^2" if plain.endswith("/s") else f"{plain}/s"


def _plain(unit: str) -> str:
    """One spelling of powers of seconds: rad/s² and rad/s**2 are rad/s^2."""
    return unit.replace("²", "^2").replace("³", "^3").replace("**", "^").replace(" ", "")


def numbers_of(given: str | list[str], features: tuple[Feature, ...]) -> tuple[list[int], list[str]]:
    """Where in the observation vector these numbers are now (of a history, the present tick), and their units."""
    there: dict[str, tuple[int, str]] = {}
    blocks: dict[str, list[str]] = {}
    start = 0
    for feature in features:
        past = feature.dimension - len(feature.present)
        blocks[feature.name] = [f"{feature.name}.{number}" for number in feature.present]
        for place, name in enumerate(blocks[feature.name]):
            there[name] = (start + past + place, "difference" if feature.difference else feature.unit)
        start += feature.dimension
    if isinstance(given, str):
        if given not in blocks:
            raise ValueError(f"safety.measured has {given!r}, which is no feature; they are {', '.join(blocks)}")
        given = blocks[given]
    for name in given:
        if name not in there:
            raise ValueError(f"safety.measured has {name!r}, which is no observation; such as {next(iter(there))}")
        if given.count(name) > 1:
            raise ValueError(f"safety.measured has {name!r} {given.count(name)} times, expected once")
    return [there[name][0] for name in given], [there[name][1] for name in given]
