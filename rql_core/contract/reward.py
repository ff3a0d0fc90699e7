"""Rewards and masks of an episode, labelled from its observations by the contract's rule."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rql_core.contract.schema import Contract


class RewardRule:
    """The contract's reward: `at_success` for a step that arrives where the task is solved, else `otherwise`."""

    def __init__(self, contract: Contract) -> None:
        self._reward = contract.reward
        self._slice = contract.present_slice(contract.reward.success.feature)
        self._target = np.array(contract.reward.success.target, dtype=np.float64)

    def success(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """(..., observation_dim) in physical units -> (...) True where the task is solved."""
        offset = observations[..., self._slice].astype(np.float64) - self._target
        solved: npt.NDArray[np.bool_] = np.linalg.norm(offset, axis=-1) <= self._reward.success.tolerance
        return solved

    def label(self, observations: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Observations (T + 1, observation_dim) -> rewards (T,) and masks (T,); step i is judged where it arrives."""
        solved = self.success(observations[1:])
        rewards = np.where(solved, self._reward.at_success, self._reward.otherwise).astype(np.float32)
        return rewards, (~solved).astype(np.float32)
