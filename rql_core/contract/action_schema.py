"""The part of a contract that says what is commanded: the action vector, its limits, its messages."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import Field, model_validator

from rql_core.contract.fields import check_field, expand
from rql_core.contract.strict_model import (
    IMAGE_TYPES,
    JOINT_TRAJECTORY,
    MULTI_ARRAY,
    Clock,
    MessageType,
    Number,
    Qos,
    Strict,
    Topic,
    finite,
)
from rql_core.contract.time import NANOSECONDS

# The messages that a chunk of actions can be published as. All others can only be read from recordings.
CHUNK_TYPES = (JOINT_TRAJECTORY, MULTI_ARRAY)

# Types without a header, of which commands are made: the header clock has nothing to read there.
_UNSTAMPED_COMMANDS = tuple(
    f"geometry_msgs/msg/{name}" for name in ("Twist", "Wrench", "Accel", "Pose", "Point", "Vector3", "Quaternion")
)


class ActionFeature(Strict):
    """One number of the action vector with its physical limits; [lower, upper] is what normalises it to [-1, 1]."""

    name: str = Field(min_length=1, max_length=128)
    lower: Number
    upper: Number
    field: str | None = Field(
        default=None, max_length=255, description="path into a message that is a single command, such as twist.linear.x"
    )

    @model_validator(mode="after")
    def _limits_are_sound(self) -> ActionFeature:
        lower, upper = finite(self.lower, f"{self.name}.lower"), finite(self.upper, f"{self.name}.upper")
        if not lower < upper:
            raise ValueError(f"action {self.name!r} has limits [{lower}, {upper}], expected lower < upper")
        return self


class Action(Strict):
    """The action vector and its messages.

    `resolve: chunk`: a message is a chunk, stamped with the time of the observation it answers. Step j is in force
    until `stamp + (j + 1) * period`; in a JointTrajectory that is the point's time_from_start, and in a
    Float64MultiArray column "time" holds the time at which the row's step begins.

    `resolve: hold`: a message is a single command, in force from its time until the next, at most `max_age` long. One
    point or row of the two chunk types is such a command; a message of several is still a chunk. With a `field` a
    feature, messages of other types are commands: they can be recorded and learnt from, but a policy cannot send them.
    """

    topic: Topic
    type: MessageType
    command: Literal["positions", "velocities", "accelerations", "effort"]
    unit: str = Field(min_length=1, max_length=32)
    features: list[ActionFeature] = Field(min_length=1, max_length=128)
    hold: Literal["zero", "last"] = Field(description="the safe command: last for positions, zero for everything else")
    resolve: Literal["chunk", "hold"] = Field(default="chunk", description="what a message means over time")
    max_age: float = Field(
        default=0.0,
        ge=0,
        le=60,
        allow_inf_nan=False,
        description="s; a chunk's last step stays in force this much longer, a held command this long",
    )
    clock: Clock | None = Field(default=None, description="which time of its messages counts; default: the contract's")
    qos: Qos = Qos()

    @model_validator(mode="after")
    def _names_once(self) -> Action:
        names = [feature.name for feature in self.features]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"action {name!r} is listed {names.count(name)} times, expected once")
        safe = "last" if self.command == "positions" else "zero"
        if self.hold != safe:
            raise ValueError(
                f"hold is {self.hold!r} with command {self.command!r}, which would go on moving; expected {safe!r}"
            )
        if self.hold == "zero":
            for feature in self.features:
                if not feature.lower <= 0 <= feature.upper:
                    raise ValueError(
                        f"hold is 'zero' but action {feature.name!r} has limits "
                        f"[{feature.lower}, {feature.upper}], which leave zero out"
                    )
        return self

    @model_validator(mode="after")
    def _message_fits(self) -> Action:
        if self.type in IMAGE_TYPES:
            raise ValueError(f"{self.topic}: {self.type} is no command")
        given = [feature.field for feature in self.features if feature.field is not None]
        if given and len(given) < len(self.features):
            missing = next(feature.name for feature in self.features if feature.field is None)
            raise ValueError(f"{self.topic}: action {missing!r} has no field, but others have; give one to each")
        if not given and self.type not in CHUNK_TYPES:
            raise ValueError(
                f"{self.topic}: {self.type} needs a field a feature, such as twist.linear.x; without fields the type "
                f"is {' or '.join(CHUNK_TYPES)}"
            )
        if given and self.type == JOINT_TRAJECTORY:
            raise ValueError(f"{self.topic}: {self.type} has its joints by name; leave field out")
        if given and self.resolve != "hold":
            raise ValueError(f"{self.topic}: a {self.type} read by fields is a single command; write resolve: hold")
        if self.resolve == "hold" and self.max_age == 0:
            raise ValueError(f"{self.topic}: resolve: hold needs max_age, the seconds that a command stays in force")
        for field in given:
            wrong = check_field(self.type, field)
            if wrong is None and len(expand(field)) > 1:
                wrong = "which is several numbers; expected one a feature"
            if wrong is None and given.count(field) > 1:
                wrong = f"which is listed {given.count(field)} times; expected once"
            if wrong is not None:
                raise ValueError(f"{self.topic}: an action has field {field!r}, {wrong}")
        return self

    def check_clock(self, clock: Clock) -> None:
        """Raise ValueError where `clock` reads a header that the message does not have."""
        if clock != "header" or (not self.fields and self.type in CHUNK_TYPES):
            return
        if self.type in _UNSTAMPED_COMMANDS or self.type.split("/")[0] == "std_msgs":
            raise ValueError(
                f"{self.topic}: {self.type} has no header, which clock 'header' needs; "
                "give the action clock: receive, or use the stamped form of the type"
            )

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The paths of a message that is read by fields, one a feature; empty for the chunk types."""
        return tuple(feature.field for feature in self.features if feature.field is not None)

    @property
    def publishable(self) -> bool:
        """Whether a policy can send these messages, and not only learn from recorded ones."""
        return self.type in CHUNK_TYPES and not self.fields

    @property
    def max_age_ns(self) -> int:
        return round(self.max_age * NANOSECONDS)
