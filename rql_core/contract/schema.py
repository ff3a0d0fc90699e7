"""What a topic means: the data model of a contract file.

A contract is the only place that says which topic, field, unit, rate, clock and order make the observation and the
action. Bag converter, simulator bridge, policy node and checkpoint all read it through the functions of this package,
so that training and deployment cannot disagree. Unknown keys are refused: a misspelt limit must not be ignored.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import Literal

from pydantic import Field, field_validator, model_validator

from rql_core.contract.action_schema import Action, ActionFeature
from rql_core.contract.episode_schema import BagBoundary, Episodes, MarkerBoundary, ResetCut
from rql_core.contract.observation_schema import Feature, Hold, Linear, Nearest, Observation, ObservationTopic
from rql_core.contract.quality_schema import Quality
from rql_core.contract.reward_schema import Reward, Within
from rql_core.contract.safety_defaults import default_safety, default_stale
from rql_core.contract.safety_schema import Safety, Stale
from rql_core.contract.strict_model import (
    IMAGE_TYPES,
    JOINT_STATE,
    JOINT_TRAJECTORY,
    UNSTAMPED_PACKAGES,
    Clock,
    Name,
    Qos,
)
from rql_core.contract.strict_model import Strict as _Strict
from rql_core.contract.time import NANOSECONDS
from rql_core.errors import ContractError

__all__ = [
    "IMAGE_TYPES",
    "JOINT_STATE",
    "JOINT_TRAJECTORY",
    "Action",
    "ActionFeature",
    "BagBoundary",
    "Contract",
    "Episodes",
    "Feature",
    "Hold",
    "Linear",
    "MarkerBoundary",
    "Nearest",
    "Observation",
    "ObservationTopic",
    "Qos",
    "ResetCut",
    "Reward",
    "Within",
]


class Contract(_Strict):
    """One robot, one task: what is observed, what is commanded, how well it went."""

    schema_version: Literal[1] = Field(alias="schema")
    name: Name
    description: str = Field(min_length=1, max_length=2000)
    rate: float = Field(gt=0, le=1000, allow_inf_nan=False, description="Hz; control steps a second")
    clock: Clock = Field(description="which time of a message counts, where a topic does not say otherwise")
    observation: Observation
    action: Action
    reward: Reward
    episodes: Episodes
    message_definitions: list[str] = Field(
        default=[],
        max_length=256,
        description=".msg files, or directories of them, for types that bags do not define; relative to the contract",
    )

    quality: Quality | None = Field(
        default=None, description="what becomes of bad bags, and bounds on converted data; without them nothing fails"
    )
    safety: Safety | None = Field(
        default=None, description="limits of what leaves for the robot; default: derived from the action's (safety.md)"
    )

    @field_validator("message_definitions")
    @classmethod
    def _relative(cls, paths: list[str]) -> list[str]:
        for path in paths:
            if not path or path.startswith(("/", "~")) or "\0" in path:
                raise ValueError(f"{path!r} is no path relative to the contract file, such as msgs/my_robot")
        return paths

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
        for spec in self.observation.topics:
            if self.clock_of(spec) == "header" and spec.type.split("/")[0] in UNSTAMPED_PACKAGES:
                raise ValueError(
                    f"{spec.topic}: {spec.type} has no header, which clock 'header' needs; use clock 'receive'"
                )
        self.action.check_clock(self.clock_of(self.action))
        self.reward.check(names, self.observation_names)
        if self.safety is not None:
            self.safety.check(self.action, self.features, 1.0 / float(self.rate_fraction))
        return self

    @model_validator(mode="after")
    def _cuts_fit(self) -> Contract:
        used = [self.action.topic, *(topic.topic for topic in self.observation.topics)]
        for cut in self.episodes.cuts:
            if isinstance(cut, ResetCut) and cut.topic in used:
                raise ValueError(f"topic {cut.topic!r} cuts episodes, and is an observation or the action as well")
        limit = self.time_limit_steps
        if limit is not None and limit < self.episodes.min_steps:
            raise ValueError(
                f"the time limit is {limit} steps, but min_steps is {self.episodes.min_steps}: every episode would be "
                "too short; raise the limit or lower min_steps"
            )
        return self

    def clock_of(self, spec: ObservationTopic | Action) -> Clock:
        """Which time of the messages of a topic counts."""
        return spec.clock or self.clock

    @cached_property
    def safety_in_force(self) -> Safety:
        """The contract's safety section, or the one that follows from the action's limits and the rate.

        Raises ContractError where nothing sensible follows.
        """
        if self.safety is not None:
            return self.safety
        try:
            return default_safety(self.action, self.features, 1.0 / float(self.rate_fraction))
        except ValueError as error:
            reason = str(error).splitlines()[-1].strip()
            raise ContractError(
                f"contract {self.name!r}: no safety limits follow from its action's limits ({reason}); "
                "add a safety section"
            ) from None

    @cached_property
    def stale(self) -> Stale:
        """What a node does when observations stop coming."""
        return self.safety_in_force.stale or default_stale(1.0 / float(self.rate_fraction))

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """All observation features in the order of the observation vector."""
        return tuple(feature for topic in self.observation.topics for feature in topic.features)

    @cached_property
    def observation_dim(self) -> int:
        return sum(feature.dimension for feature in self.features)

    @cached_property
    def observation_names(self) -> tuple[str, ...]:
        """One name a number of the observation vector, `feature.field`."""
        return tuple(name for feature in self.features for name in feature.names)

    @property
    def action_dim(self) -> int:
        return len(self.action.features)

    def feature_slice(self, name: str) -> slice:
        """Where feature `name` lies in the observation vector, all ticks of its history."""
        start = 0
        for feature in self.features:
            if feature.name == name:
                return slice(start, start + feature.dimension)
            start += feature.dimension
        raise KeyError(name)

    def present_slice(self, name: str) -> slice:
        """Where the present tick of feature `name` lies in the observation vector."""
        whole = self.feature_slice(name)
        present = next(len(feature.present) for feature in self.features if feature.name == name)
        return slice(whole.stop - present, whole.stop)

    @cached_property
    def past_ticks(self) -> int:
        """How many ticks before the present one an observation needs: those of differences and histories."""
        return max(feature.past_ticks for feature in self.features)

    @cached_property
    def time_limit_steps(self) -> int | None:
        """Steps after which a time limit ends an episode; None without one."""
        limit = self.episodes.time_limit
        # Decimal seconds times the rate, without what binary fractions add: 0.3 s at 20 Hz are 6 steps.
        return None if limit is None else int(Fraction(str(limit.seconds)) * self.rate_fraction)

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
