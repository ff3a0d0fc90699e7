"""Rewards and masks of an episode, labelled by the contract's rule from its observations and, if it says so, topics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rql_core.contract.expression import Expression, NotFiniteError
from rql_core.contract.reward_schema import NeverSolved, Reward, RewardExpression, RewardTopic, SolvedWhen, Within
from rql_core.contract.reward_signals import StepSignals
from rql_core.contract.schema import Contract
from rql_core.errors import ContractError

Float32 = npt.NDArray[np.float32]


class RewardRule:
    """The contract's reward of a step and whether it solves the task, both judged where the step arrives."""

    def __init__(self, contract: Contract) -> None:
        self._reward = contract.reward
        success, value = contract.reward.success, contract.reward.value
        self._target: npt.NDArray[np.float64] | None = None
        self._condition: Expression | None = None
        self._value: Expression | None = None
        if isinstance(success, Within):
            self._slice = contract.present_slice(success.feature)
            self._target = np.array(success.target, dtype=np.float64)
            self._tolerance = success.tolerance
        elif isinstance(success, SolvedWhen):
            self._condition = Expression(success.expression, contract.observation_names)
        if isinstance(value, RewardExpression):
            self._value = Expression(value.expression, contract.observation_names)

    def success(self, observations: Float32, signals: StepSignals | None = None) -> npt.NDArray[np.bool_]:
        """(..., observation_dim) in physical units -> (...) True where the task is solved.

        `signals`: what topics say about as many steps, for a contract whose success comes from a topic. Raises
        NotFiniteError where an expression has no value.
        """
        if self._target is not None:
            offset = observations[..., self._slice].astype(np.float64) - self._target
            solved: npt.NDArray[np.bool_] = np.linalg.norm(offset, axis=-1) <= self._tolerance
            return solved
        shape = observations.shape[:-1]
        if self._condition is not None:
            return np.reshape(self._condition(observations.reshape(-1, observations.shape[-1])), shape)
        if isinstance(self._reward.success, NeverSolved):
            return np.zeros(shape, dtype=np.bool_)
        if signals is None or signals.solved is None:
            raise ContractError(f"success comes from {_topics(self._reward)}, which is not at hand here")
        return np.reshape(signals.solved, shape)

    def label(self, observations: Float32, signals: StepSignals | None = None) -> tuple[Float32, Float32]:
        """Observations (T + 1, observation_dim) -> rewards (T,) and masks (T,); step i is judged where it arrives.

        `signals`: what topics say about the T steps. Raises ContractError that names the step whose reward or success
        has no finite value.
        """
        try:
            solved = self.success(observations[1:], signals)
            rewards = self._rewards(observations[1:], solved, signals)
        except NotFiniteError as error:
            raise ContractError(f"step {error.row}: {error}; correct the expression in the contract") from None
        with np.errstate(over="ignore"):
            labels = rewards.astype(np.float32)
        if not np.isfinite(labels).all():
            step = int(np.flatnonzero(~np.isfinite(labels))[0])
            raise ContractError(f"step {step}: reward is {rewards[step]:.6g}, expected a number that fits a float32")
        return labels, (~solved).astype(np.float32)

    def _rewards(
        self, observations: Float32, solved: npt.NDArray[np.bool_], signals: StepSignals | None
    ) -> npt.NDArray[np.float64]:
        if self._value is not None:
            return self._value(observations).astype(np.float64)
        if isinstance(self._reward.value, RewardTopic):
            if signals is None or signals.rewards is None:
                raise ContractError(f"reward comes from {_topics(self._reward)}, which is not at hand here")
            return signals.rewards
        assert self._reward.at_success is not None
        assert self._reward.otherwise is not None
        return np.where(solved, self._reward.at_success, self._reward.otherwise)


def _topics(reward: Reward) -> str:
    return "topic " + ", ".join(dict.fromkeys(rule.topic for rule in reward.topics))
