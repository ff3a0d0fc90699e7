"""What one update is given: a batch of sampled chunks, and the range of the rewards that the data holds."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """A batch of action chunks, each from one start in an episode; all tensors on one device, in one float type.

    A chunk of h steps with d action dimensions is flattened time-major: step 0's d numbers first.
    """

    observations: Tensor
    """(batch, observation_dim), normalised: where the chunk starts."""
    actions: Tensor
    """(batch, h * d), in [-1, 1]: what was done."""
    rewards: Tensor
    """(batch, h): the reward of each step, 0 past the episode's end."""
    masks: Tensor
    """(batch, h): 0 where the step solved the task, else 1."""
    next_observations: Tensor
    """(batch, observation_dim), normalised: where the chunk ends."""
    valid: Tensor
    """(batch,): 1 where all h actions lie inside the episode, else 0."""
    step_mask: Tensor
    """(batch, h): 1 for the steps inside the episode, else 0."""

    def to(self, dtype: torch.dtype) -> Batch:
        """Return the same batch in another float type."""
        return Batch(**{field.name: getattr(self, field.name).to(dtype) for field in fields(self)})


@dataclass(frozen=True)
class RewardRange:
    """The least and the greatest reward of a step, and whether an episode can end (has a mask of 0 anywhere)."""

    minimum: float
    maximum: float
    can_end: bool

    def return_bounds(self, gamma: float) -> tuple[float, float]:
        """Return the least and the greatest discounted return that these rewards allow.

        An endless episode collects between r_min / (1 - gamma) and r_max / (1 - gamma).  One that can end may stop at
        any step, and then 0 is possible too.
        """
        low, high = self.minimum / (1.0 - gamma), self.maximum / (1.0 - gamma)
        return (min(low, 0.0), max(high, 0.0)) if self.can_end else (low, high)
