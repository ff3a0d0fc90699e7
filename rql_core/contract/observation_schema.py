"""The part of a contract that says what is observed: topics, their fields, and how each is brought to the ticks."""

from __future__ import annotations

import math
import re
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rql_core.contract.fields import MAX_NUMBERS, check_field, expand, split_joint
from rql_core.contract.strict_model import (
    IMAGE_TYPES,
    JOINT_STATE,
    Clock,
    MessageType,
    Name,
    Number,
    Qos,
    Strict,
    Topic,
    finite,
)
from rql_core.contract.time import NANOSECONDS

ROTATION_NUMBERS = {
    "6d": ("r00", "r10", "r20", "r01", "r11", "r21"),
    "rotation_vector": ("rx", "ry", "rz"),
    "yaw": ("yaw",),
}
_QUATERNION = ("x", "y", "z", "w")
# What looks like a part of a quaternion: orientation.x of a pose, rotation.w of a transform.
_PART_OF_QUATERNION = re.compile(r"(^|\.)(orientation|rotation)\.[xyzw]$")


class Hold(Strict):
    """Alignment: a tick takes the newest message at or before it."""

    method: Literal["hold"]
    max_age: float = Field(gt=0, le=60, allow_inf_nan=False, description="s; older than this counts as missing")

    @property
    def max_age_ns(self) -> int:
        return round(self.max_age * NANOSECONDS)

    @property
    def look_ahead_ns(self) -> int:
        """How long after a tick a message may be stamped that decides what the tick takes."""
        return 0

    @property
    def reaches_back_ns(self) -> int:
        """How long before a message the tick may be for which this message alone is enough."""
        return 0


class Nearest(Strict):
    """Alignment: a tick takes the message nearest to it, before or after; of two equally near the earlier."""

    method: Literal["nearest"]
    tolerance: float = Field(gt=0, le=60, allow_inf_nan=False, description="s; further away than this is missing")

    @property
    def tolerance_ns(self) -> int:
        return round(self.tolerance * NANOSECONDS)

    @property
    def look_ahead_ns(self) -> int:
        """How long after a tick a message may be stamped that decides what the tick takes."""
        return self.tolerance_ns

    @property
    def reaches_back_ns(self) -> int:
        """How long before a message the tick may be for which this message alone is enough."""
        return self.tolerance_ns


class Linear(Strict):
    """Alignment: a tick lies on the line between the messages before and after it; rotations by slerp.

    A message exactly on the tick is taken as it is.
    """

    method: Literal["linear"]
    tolerance: float = Field(
        gt=0, le=60, allow_inf_nan=False, description="s; between two messages further apart than this all is missing"
    )

    @property
    def tolerance_ns(self) -> int:
        return round(self.tolerance * NANOSECONDS)

    @property
    def look_ahead_ns(self) -> int:
        """How long after a tick a message may be stamped that decides what the tick takes."""
        return self.tolerance_ns

    @property
    def reaches_back_ns(self) -> int:
        """How long before a message the tick may be for which this message alone is enough."""
        return 0


Align = Annotated[Hold | Nearest | Linear, Field(discriminator="method")]

# Which key says how far from a tick messages may be, and how many of a topic's periods that has to be for every tick to
# have one: the nearest is at most half a period away.
_REACH = {"hold": ("max_age", 1.0), "nearest": ("tolerance", 0.5), "linear": ("tolerance", 1.0)}


def reach_needed(align: Hold | Nearest | Linear, rate_hz: float) -> tuple[str, float]:
    """The key of an alignment that lets messages of this rate serve every tick, and its least value in s.

    The value has three figures, rounded upward.
    """
    key, periods = _REACH[align.method]
    step = 10.0 ** (2 - math.floor(math.log10(periods / rate_hz)))
    return key, math.ceil(periods / rate_hz * step - 1e-9) / step


class Feature(Strict):
    """A named block of the observation vector: numbers taken from the messages of one topic, in this order.

    First `scale` or `rotation` is applied, then `difference`, then `history`. A feature with a past (difference or
    history) has no value, and so there is no observation, at the first ticks of a stretch: none is made up.
    """

    name: Name
    fields: list[str] = Field(min_length=1, max_length=512)
    unit: str = Field(min_length=1, max_length=32, description="of the feature, after `scale`")
    scale: Number | list[Number] | None = Field(
        default=None, description="factor from the message's unit to `unit`: one for all numbers, or one each"
    )
    rotation: Literal["6d", "rotation_vector", "yaw"] | None = Field(
        default=None, description="`fields` is a quaternion (its path, or its x, y, z, w): how it is written"
    )
    difference: bool = Field(
        default=False, description="the change since the tick before; of a rotation vector, the rotation since then"
    )
    history: int = Field(default=1, ge=1, le=100, description="this many ticks, the oldest first, the present one last")

    @field_validator("fields")
    @classmethod
    def _no_duplicates(cls, fields: list[str]) -> list[str]:
        numbers = [number for field in fields for number in expand(field)]
        if len(numbers) > MAX_NUMBERS:
            raise ValueError(f"the fields are {len(numbers)} numbers, expected at most {MAX_NUMBERS}")
        for listed in (fields, numbers):
            if len(set(listed)) < len(listed):
                field = next(each for each in listed if listed.count(each) > 1)
                raise ValueError(f"field {field!r} is listed {listed.count(field)} times, expected once")
        return fields

    @model_validator(mode="after")
    def _options_fit(self) -> Feature:
        if self.rotation is not None:
            if len(self.numbers) != 4:
                raise ValueError(
                    f"feature {self.name!r} has rotation {self.rotation!r} and {len(self.numbers)} numbers; "
                    "expected one path to a quaternion, or its x, y, z, w"
                )
            if self.scale is not None:
                raise ValueError(f"feature {self.name!r} has a rotation, which has no scale; leave scale out")
            if self.rotation == "6d" and self.difference:
                raise ValueError(
                    f"feature {self.name!r}: the difference of two rotations is no 6d; use rotation_vector or yaw"
                )
        if isinstance(self.scale, list) and len(self.scale) != len(self.numbers):
            raise ValueError(
                f"feature {self.name!r} has {len(self.scale)} scales for {len(self.numbers)} numbers, expected as many"
            )
        for factor in self.scale if isinstance(self.scale, list) else [1 if self.scale is None else self.scale]:
            if finite(factor, f"{self.name}.scale") == 0:
                raise ValueError(f"{self.name}.scale is 0, which makes every number zero; expected another factor")
        return self

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """The single numbers that are read from a message, as paths without slices."""
        if self.rotation is not None and len(self.fields) == 1 and len(expand(self.fields[0])) == 1:
            return tuple(f"{self.fields[0]}.{part}" for part in _QUATERNION)
        return tuple(number for field in self.fields for number in expand(field))

    @cached_property
    def present(self) -> tuple[str, ...]:
        """One name a number of the feature at one tick."""
        if self.rotation is not None:
            return ROTATION_NUMBERS[self.rotation]
        return self.numbers

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One name a number of the feature in the observation vector; with a history `@t-1` is a tick ago."""
        if self.history == 1:
            return tuple(f"{self.name}.{number}" for number in self.present)
        return tuple(
            f"{self.name}.{number}@t{f'-{ago}' if ago else ''}"
            for ago in reversed(range(self.history))
            for number in self.present
        )

    @property
    def dimension(self) -> int:
        """How many numbers of the observation vector are this feature's."""
        return self.history * len(self.present)

    @property
    def past_ticks(self) -> int:
        """How many ticks before the present one it needs."""
        return self.history - 1 + int(self.difference)


class ObservationTopic(Strict):
    """A topic that observation features come from."""

    topic: Topic
    type: MessageType
    align: Align
    clock: Clock | None = Field(default=None, description="which time of its messages counts; default: the contract's")
    min_rate: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        allow_inf_nan=False,
        description="Hz; its messages come at least this often. Default: the contract's rate, or for linear what its "
        "tolerance says. Say it of a topic that is meant to be slower: its features are then older when they are used",
    )
    joints: Literal["complete", "partial"] = Field(
        default="complete",
        description="'partial': a JointState message may have some of the joints; each is aligned by its own messages",
    )
    qos: Qos = Qos()
    features: list[Feature] = Field(min_length=1)

    @model_validator(mode="after")
    def _fields_fit_type(self) -> ObservationTopic:
        if self.type in IMAGE_TYPES:
            raise ValueError(
                f"{self.topic}: images ({self.type}) cannot be features yet; use numeric fields, such as the poses "
                "that a detector publishes"
            )
        for feature in self.features:
            for field in feature.fields:
                wrong = check_field(self.type, field)
                if wrong is not None:
                    raise ValueError(f"{self.topic}: feature {feature.name!r} has field {field!r}, {wrong}")
            if self.align.method == "linear":
                self._check_linear(feature)
            if feature.rotation is not None and any(split_joint(self.type, field) for field in feature.fields):
                raise ValueError(f"{self.topic}: feature {feature.name!r} makes a rotation of joints; leave it out")
        if self.joints == "partial" and self.type != JOINT_STATE:
            raise ValueError(f"{self.topic}: joints: partial is for {JOINT_STATE}, not for {self.type}")
        return self

    @model_validator(mode="after")
    def _serves_every_tick(self) -> ObservationTopic:
        if self.min_rate is not None:
            key, needed = reach_needed(self.align, self.min_rate)
            given = float(getattr(self.align, key))
            # What is advised is rounded; the exact period, to the nanosecond, is enough.
            if given < needed and given + 1e-9 < _REACH[self.align.method][1] / self.min_rate:
                raise ValueError(
                    f"{self.topic}: min_rate {self.min_rate:g} Hz lets messages be {1 / self.min_rate:.3g} s apart, "
                    f"and with {key} {given:g} s ({self.align.method}) some ticks between two would have none; "
                    f"make {key} at least {needed:g}, or min_rate larger"
                )
        return self

    def _check_linear(self, feature: Feature) -> None:
        if self.type == "std_msgs/msg/Bool":
            raise ValueError(f"{self.topic}: between true and false there is nothing; align with hold or nearest")
        parts = [number for number in feature.numbers if _PART_OF_QUATERNION.search(number)]
        if parts and feature.rotation is None:
            raise ValueError(
                f"{self.topic}: feature {feature.name!r} has {parts[0]}, and the parts of a quaternion do not lie on "
                "lines; use rotation: 6d, rotation_vector or yaw, or align with hold or nearest"
            )

    @property
    def dimension(self) -> int:
        return sum(feature.dimension for feature in self.features)


class Observation(Strict):
    """The observation vector: the features of all topics, in the order of the file."""

    topics: list[ObservationTopic] = Field(min_length=1)
    max_wait: float = Field(
        gt=0,
        le=10,
        allow_inf_nan=False,
        description="s; how long after a tick a running node waits for messages that belong to it",
    )

    @model_validator(mode="after")
    def _waits_long_enough(self) -> Observation:
        for spec in self.topics:
            if self.max_wait_ns <= spec.align.look_ahead_ns:
                raise ValueError(
                    f"max_wait is {self.max_wait} s, but {spec.topic} ({spec.align.method}) may need a message up to "
                    f"{spec.align.look_ahead_ns / NANOSECONDS} s after the tick, which then has to arrive; "
                    "make max_wait larger"
                )
        return self

    @property
    def max_wait_ns(self) -> int:
        return round(self.max_wait * NANOSECONDS)
