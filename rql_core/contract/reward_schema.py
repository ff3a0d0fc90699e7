"""What a contract may say about reward and success: by a feature, by an expression over features, or by a topic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rql_core.contract.expression import MAX_CHARACTERS, Expression, present_columns
from rql_core.contract.strict_model import MessageType, Name, Number, Qos, Strict, Topic, finite
from rql_core.errors import ContractError

FieldPath = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9_]*(\[\d+\])?(\.[a-z][a-z0-9_]*(\[\d+\])?)*$",
        max_length=255,
        description="number or boolean in the message, by its path, such as data, status.value or data[3]",
    ),
]
ExpressionText = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]


class Within(Strict):
    """Solved when the feature lies within `tolerance` of `target` (Euclidean distance, in the feature's unit)."""

    rule: Literal["within"] = Field(description="the feature is near a target")
    feature: Name = Field(description="the feature that is compared with the target")
    target: list[Number] = Field(min_length=1, description="where it should be; a number for each of the feature's")
    tolerance: float = Field(gt=0, allow_inf_nan=False, description="largest distance that counts as solved")

    @field_validator("target")
    @classmethod
    def _target_finite(cls, target: list[float]) -> list[float]:
        return [finite(value, "target") for value in target]


class SolvedWhen(Strict):
    """Solved when an expression over features holds, such as `hypot(tip.x - 0.4, tip.y - 0.22) < 0.04`."""

    rule: Literal["expression"] = Field(description="an expression holds")
    expression: ExpressionText = Field(
        description="a condition over features at the step's end, such as tip.z > 0.2 and gripper < 0.01"
    )


class NeverSolved(Strict):
    """No step solves the task: no mask is 0 and no episode is terminal."""

    rule: Literal["never"] = Field(description="there is no success, only reward")


class _FromTopic(Strict):
    """What says which messages belong to a step: those stamped after its first tick and not after its last."""

    rule: Literal["topic"] = Field(description="messages of a topic say it")
    topic: Topic = Field(description="the topic, as recorded in the bags")
    type: MessageType = Field(description="its message type")
    field: FieldPath
    clock: Literal["header", "receive"] = Field(
        description="which time puts a message into a step: its header's stamp, or when it was received (types such as "
        "std_msgs/msg/Bool have no header; the recorder's clock must then agree with the contract's)"
    )
    qos: Qos = Field(default=Qos(), description="how a recorder subscribes to the topic")

    @model_validator(mode="after")
    def _has_a_stamp(self) -> _FromTopic:
        if self.clock == "header" and self.type.startswith("std_msgs/") and self.type != "std_msgs/msg/Header":
            raise ValueError(f"{self.topic}: {self.type} has no header, which clock 'header' needs; use 'receive'")
        return self


class SolvedByTopic(_FromTopic):
    """Solved when a message within the step says so."""

    at_least: Number | None = Field(
        default=None, description="a number from here on counts as solved; left out, the field must be a boolean"
    )
    in_step: Literal["any", "last"] = Field(
        description="with several messages in a step: one of them suffices, or the last one decides"
    )
    missing: Literal["cut", "unsolved"] = Field(
        description="a step without a message: the episode breaks there, or it counts as not solved"
    )

    @field_validator("at_least")
    @classmethod
    def _bound_finite(cls, at_least: float | None) -> float | None:
        return None if at_least is None else finite(at_least, "at_least")


class RewardExpression(Strict):
    """The reward is an expression over features, such as `-1 + (hypot(tip.x - 0.4, tip.y - 0.22) < 0.04)`."""

    rule: Literal["expression"] = Field(description="an expression gives the reward")
    expression: ExpressionText = Field(
        description="a formula over features at the step's end; a condition in it counts as 1 or 0"
    )


class RewardTopic(_FromTopic):
    """The reward is a number in the messages within the step."""

    in_step: Literal["sum", "last"] = Field(
        description="with several messages in a step: their sum, or the last one alone"
    )
    missing: Literal["cut", "zero"] = Field(
        description="a step without a message: the episode breaks there, or its sum is 0"
    )

    @model_validator(mode="after")
    def _zero_is_a_sum(self) -> RewardTopic:
        if self.missing == "zero" and self.in_step == "last":
            raise ValueError(
                f"{self.topic}: missing is 'zero' with in_step 'last'; only a sum of nothing is 0, use 'cut'"
            )
        return self


Success = Annotated[Within | SolvedWhen | SolvedByTopic | NeverSolved, Field(discriminator="rule")]
Value = Annotated[RewardExpression | RewardTopic, Field(discriminator="rule")]


class Reward(Strict):
    """Reward of the transition o_i, a_i -> o_{i+1}, and whether o_{i+1} solves the task.

    Either two numbers, `at_success` where o_{i+1} solves the task and `otherwise`, or `value`, a rule for any number.
    """

    success: Success = Field(description="when the task counts as solved: the step's mask is then 0")
    at_success: float | None = Field(default=None, allow_inf_nan=False, description="reward of a step that solves")
    otherwise: float | None = Field(default=None, allow_inf_nan=False, description="reward of every other step")
    value: Value | None = Field(default=None, description="rule for the reward, instead of at_success and otherwise")

    @model_validator(mode="after")
    def _one_way(self) -> Reward:
        given = [name for name in ("at_success", "otherwise") if getattr(self, name) is not None]
        if self.value is not None and given:
            raise ValueError(f"has both 'value' and {given[0]!r}; a reward comes from one of them")
        if self.value is None and len(given) < 2:
            missing = next(name for name in ("at_success", "otherwise") if name not in given)
            raise ValueError(f"{missing!r} is missing; give at_success and otherwise, or value")
        return self

    @property
    def topics(self) -> tuple[SolvedByTopic | RewardTopic, ...]:
        """The rules that read a topic."""
        return tuple(rule for rule in (self.success, self.value) if isinstance(rule, SolvedByTopic | RewardTopic))

    def check(self, features: Sequence[str], names: Sequence[str]) -> None:
        """Raise ValueError where the reward does not fit the contract's features and names of numbers."""
        success = self.success
        if isinstance(success, Within):
            if success.feature not in features:
                raise ValueError(
                    f"reward.success.feature {success.feature!r} is no feature; there are {', '.join(features)}"
                )
            size = len(present_columns(names, success.feature))
            if len(success.target) != size:
                raise ValueError(
                    f"reward.success.target has {len(success.target)} values, expected {size} "
                    f"(feature {success.feature!r})"
                )
        try:
            if isinstance(success, SolvedWhen) and not Expression(success.expression, names).is_condition:
                raise ValueError(f"reward.success.expression {success.expression!r} is a number; expected a comparison")
            if isinstance(self.value, RewardExpression):
                Expression(self.value.expression, names)
        except ContractError as error:
            raise ValueError(f"reward: {error}") from None
        kinds = {rule.topic: rule.type for rule in self.topics}
        for rule in self.topics:
            if kinds[rule.topic] != rule.type:
                raise ValueError(f"reward: topic {rule.topic} has two types, {rule.type} and {kinds[rule.topic]}")

    def feature(self, features: Sequence[str], names: Sequence[str]) -> str:
        """The feature that the task is about: the first one that says when it is solved, else the contract's first."""
        if isinstance(self.success, Within):
            return self.success.feature
        if isinstance(self.success, SolvedWhen):
            columns = Expression(self.success.expression, names).columns
            if columns:
                return names[columns[0]].split(".", 1)[0]
        return features[0]
