"""What a topic means: the data model of a contract file.

A contract is the only place that says which topic, field, unit, rate, clock and order make the observation and the
action. Bag converter, simulator bridge, policy node and checkpoint all read it through the functions of this package,
so that training and deployment cannot disagree. Unknown keys are refused: a misspelt limit must not be ignored.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rql_core.contract.quality_schema import Quality
from rql_core.contract.reward_schema import Reward
from rql_core.contract.strict_model import (
    IMAGE_TYPES,
    JOINT_STATE,
    JOINT_TRAJECTORY,
    UNSTAMPED_PACKAGES,
    MessageType,
    Name,
    Number,
    Qos,
    Topic,
)
from rql_core.contract.strict_model import Strict as _Strict
from rql_core.contract.strict_model import finite as _finite
from rql_core.contract.time import NANOSECONDS

__all__ = ["IMAGE_TYPES", "JOINT_STATE", "JOINT_TRAJECTORY", "Contract", "MarkerBoundary", "ObservationTopic", "Qos"]

_ATTRIBUTE = re.compile(r"^[a-z][a-z0-9_]*(\[\d+\])?(\.[a-z][a-z0-9_]*(\[\d+\])?)*$")
_JOINT_FIELD = re.compile(r"^(position|velocity|effort)\.(.+)$")


class Hold(_Strict):
    """Alignment: a tick takes the newest message at or before it."""

    method: Literal["hold"]
    max_age: float = Field(gt=0, le=60, allow_inf_nan=False, description="s; older than this counts as missing")

    @property
    def max_age_ns(self) -> int:
        return round(self.max_age * NANOSECONDS)


class Feature(_Strict):
    """A named block of the observation vector: numbers taken from one message, in this order."""

    name: Name
    fields: list[str] = Field(min_length=1, max_length=512)
    unit: str = Field(min_length=1, max_length=32)

    @field_validator("fields")
    @classmethod
    def _no_duplicates(cls, fields: list[str]) -> list[str]:
        for field in fields:
            if fields.count(field) > 1:
                raise ValueError(f"field {field!r} is listed {fields.count(field)} times, expected once")
        return fields


class ObservationTopic(_Strict):
    """A topic that observation features come from."""

    topic: Topic
    type: MessageType
    align: Hold
    qos: Qos = Qos()
    features: list[Feature] = Field(min_length=1)

    @model_validator(mode="after")
    def _fields_fit_type(self) -> ObservationTopic:
        if self.type in IMAGE_TYPES:
            raise ValueError(f"{self.topic}: images ({self.type}) cannot be features; use numeric fields")
        pattern, example = (
            (_JOINT_FIELD, "position.elbow_joint") if self.type == JOINT_STATE else (_ATTRIBUTE, "pose.position.x")
        )
        for feature in self.features:
            for field in feature.fields:
                if not pattern.match(field):
                    raise ValueError(
                        f"{self.topic}: feature {feature.name!r} has field {field!r}, "
                        f"expected a path into {self.type} such as {example!r}"
                    )
        return self

    @property
    def dimension(self) -> int:
        return sum(len(feature.fields) for feature in self.features)


class Observation(_Strict):
    """The observation vector: the features of all topics, in the order of the file."""

    topics: list[ObservationTopic] = Field(min_length=1)
    max_wait: float = Field(
        gt=0,
        le=10,
        allow_inf_nan=False,
        description="s; how long after a tick a running node waits for messages that belong to it",
    )

    @property
    def max_wait_ns(self) -> int:
        return round(self.max_wait * NANOSECONDS)


class ActionFeature(_Strict):
    """One number of the action vector with its physical limits; [lower, upper] is what normalises it to [-1, 1]."""

    name: str = Field(min_length=1, max_length=128)
    lower: Number
    upper: Number

    @model_validator(mode="after")
    def _limits_are_sound(self) -> ActionFeature:
        lower, upper = _finite(self.lower, f"{self.name}.lower"), _finite(self.upper, f"{self.name}.upper")
        if not lower < upper:
            raise ValueError(f"action {self.name!r} has limits [{lower}, {upper}], expected lower < upper")
        return self


class Action(_Strict):
    """The action vector and how it goes out.

    A chunk is stamped with the time of the observation it answers. Step j is in force until `stamp + (j + 1) * period`;
    in a JointTrajectory that is the point's time_from_start, and in a Float64MultiArray column "time" holds the time
    at which the row's step begins.
    """

    topic: Topic
    type: Literal["trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64MultiArray"]
    command: Literal["positions", "velocities", "accelerations", "effort"]
    unit: str = Field(min_length=1, max_length=32)
    features: list[ActionFeature] = Field(min_length=1, max_length=128)
    hold: Literal["zero", "last"] = Field(description="the safe command: last for positions, zero for everything else")
    max_age: float = Field(
        default=0.0,
        ge=0,
        le=60,
        allow_inf_nan=False,
        description="s; a chunk's last step stays in force this much longer",
    )
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

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def max_age_ns(self) -> int:
        return round(self.max_age * NANOSECONDS)


class MarkerBoundary(_Strict):
    """A message on this topic starts an episode at its stamp."""

    by: Literal["marker"]
    topic: Topic
    type: Literal["std_msgs/msg/Header"]
    qos: Qos = Qos(durability="transient_local", depth=1)


class BagBoundary(_Strict):
    """A bag is one episode."""

    by: Literal["bag"]


class Episodes(_Strict):
    """How recorded time is cut into episodes, and what the end of one means."""

    boundary: Annotated[MarkerBoundary | BagBoundary, Field(discriminator="by")]
    min_steps: int = Field(ge=1, description="shorter episodes are left out and reported")
    at_success: Literal["continue", "end"] = Field(
        description="'continue': recording goes on after the task is solved (mask 0 there); 'end': cut, terminal"
    )


class Contract(_Strict):
    """One robot, one task: what is observed, what is commanded, how well it went."""

    schema_version: Literal[1] = Field(alias="schema")
    name: Name
    description: str = Field(min_length=1, max_length=2000)
    rate: float = Field(gt=0, le=1000, allow_inf_nan=False, description="Hz; control steps a second")
    clock: Literal["header", "receive"] = Field(description="which time of a message counts")
    observation: Observation
    action: Action
    reward: Reward
    episodes: Episodes
    quality: Quality | None = Field(default=None, description="bounds on converted data; without them nothing fails")

    @model_validator(mode="after")
    def _parts_fit(self) -> Contract:
        topics = [topic.topic for topic in self.observation.topics]
        for topic in topics:
            if topics.count(topic) > 1:
                raise ValueError(f"observation topic {topic!r} is listed {topics.count(topic)} times, expected once")
        if self.action.topic in topics:
            raise ValueError(f"topic {self.action.topic!r} is both observation and action")
        names = [feature.name for feature in self.features]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"feature {name!r} is listed {names.count(name)} times, expected once")
        if self.clock == "header":
            for spec in self.observation.topics:
                if spec.type.split("/")[0] in UNSTAMPED_PACKAGES:
                    raise ValueError(
                        f"{spec.topic}: {spec.type} has no header, which clock 'header' needs; use clock 'receive'"
                    )
        self.reward.check(names, self.observation_names)
        return self

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """All observation features in the order of the observation vector."""
        return tuple(feature for topic in self.observation.topics for feature in topic.features)

    @cached_property
    def observation_dim(self) -> int:
        return sum(len(feature.fields) for feature in self.features)

    @cached_property
    def observation_names(self) -> tuple[str, ...]:
        """One name a number of the observation vector, `feature.field`."""
        return tuple(f"{feature.name}.{field}" for feature in self.features for field in feature.fields)

    @property
    def action_dim(self) -> int:
        return len(self.action.features)

    def feature_slice(self, name: str) -> slice:
        """Where feature `name` lies in the observation vector."""
        start = 0
        for feature in self.features:
            if feature.name == name:
                return slice(start, start + len(feature.fields))
            start += len(feature.fields)
        raise KeyError(name)

    @property
    def reward_feature(self) -> str:
        """The feature that the reward is about, whose path a record of an episode keeps."""
        return self.reward.feature([feature.name for feature in self.features], self.observation_names)

    @cached_property
    def rate_fraction(self) -> Fraction:
        """Rate in Hz as a fraction, so that ticks at 30 Hz do not drift."""
        return Fraction(self.rate).limit_denominator(1000)

    @cached_property
    def period_ns(self) -> int:
        """One control period, rounded to a nanosecond."""
        return round(NANOSECONDS / self.rate_fraction)
