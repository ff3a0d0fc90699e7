"""Actions between physical units and [-1, 1]: by the contract's limits, so that 1 means the limit and nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rql_core.contract.schema import Contract

# Training actions are clipped to +-(1 - 1e-5), as in the published implementation of Reversal Q-Learning.
ACTION_CLIP = 1.0 - 1e-5


class ActionScale:
    """Normalises actions (..., action_dim) by the contract's limits, and back."""

    def __init__(self, contract: Contract) -> None:
        self.lower = np.array([feature.lower for feature in contract.action.features], dtype=np.float64)
        self.upper = np.array([feature.upper for feature in contract.action.features], dtype=np.float64)

    def normalise(self, actions: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Physical to normalised float32, clipped to +-ACTION_CLIP."""
        physical = np.asarray(actions, dtype=np.float64)
        scaled = 2.0 * (physical - self.lower) / (self.upper - self.lower) - 1.0
        return np.clip(scaled, -ACTION_CLIP, ACTION_CLIP).astype(np.float32)

    def physical(self, normalised: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Normalised to physical float64; NaN stays NaN, to be caught by the safety filter."""
        scaled = np.asarray(normalised, dtype=np.float64)
        return self.lower + (scaled + 1.0) * 0.5 * (self.upper - self.lower)
