"""Sample action chunks from episodes, in the corrected and in the published form.

``corrected``: every start with h real actions is equally likely, and the next observation is the one after the last
action. ``paper``: an episode is drawn first, then one of its rows but the last; a window that passes the end repeats
the last row.

Sampling is a pure function of a generator's state, so whoever keeps that state can go on from it exactly.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rql_core.algorithms.batch import Batch, RewardRange
from rql_core.data.normalisation import Statistics
from rql_core.data.trajectories import Trajectories
from rql_core.errors import DatasetError

# The published data keeps actions this far inside their limits.
PAPER_ACTION_LIMIT = 1.0 - 1e-5


class ChunkSampler:
    """Holds normalised data on a device and cuts batches of chunks out of it.  It has no state of its own."""

    def __init__(
        self,
        trajectories: Trajectories,
        statistics: Statistics,
        horizon: int,
        form: Literal["corrected", "paper"] = "corrected",
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.horizon = horizon
        self.form = form
        self._device, self._dtype = torch.device(device), dtype
        self._observations = self._floats(statistics.normalise(trajectories.observations))
        self._actions = self._floats(trajectories.actions)
        self._rewards = self._floats(trajectories.rewards)
        self._masks = self._floats(trajectories.masks)
        self._steps = torch.arange(horizon, device=self._device)
        # A start in an episode's last row has no row after it, which the published sampler never draws.
        needed = horizon if form == "corrected" else 2
        usable = np.flatnonzero(trajectories.lengths >= needed)
        if len(usable) == 0:
            raise DatasetError(
                f"no episode has a start for a chunk of horizon {horizon}: expected one of at least {needed} steps, "
                f"but the {trajectories.episodes} episodes have {trajectories.lengths.min()} to "
                f"{trajectories.lengths.max()}; record longer episodes or lower the horizon"
            )
        lengths, first = trajectories.lengths[usable], trajectories.step_offsets[usable]
        if form == "corrected":
            counts = lengths - horizon + 1
            within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
            starts = np.repeat(first, counts) + within
            # Each earlier episode has one observation more than it has steps.
            self._starts, self._shifts = self._integers(starts), self._integers(np.repeat(usable, counts))
            self._ones = torch.ones((), dtype=dtype, device=self._device)
        else:
            self._actions.clamp_(-PAPER_ACTION_LIMIT, PAPER_ACTION_LIMIT)
            self._first, self._shifts = self._integers(first), self._integers(usable)
            self._lengths = self._integers(lengths)

    @property
    def starts(self) -> int:
        """Number of distinct starts that can be drawn."""
        return len(self._starts) if self.form == "corrected" else int((self._lengths - 1).sum())

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw a batch of chunks; the generator lives on the sampler's device."""
        return (
            self._sample_corrected(batch_size, generator)
            if self.form == "corrected"
            else self._sample_paper(batch_size, generator)
        )

    def _sample_corrected(self, batch_size: int, generator: torch.Generator) -> Batch:
        chosen = torch.randint(len(self._starts), (batch_size,), generator=generator, device=self._device)
        start = self._starts[chosen]
        observation = start + self._shifts[chosen]
        rows = start.unsqueeze(1) + self._steps
        return Batch(
            observations=self._observations[observation],
            actions=self._actions[rows].flatten(1),
            rewards=self._rewards[rows],
            masks=self._masks[rows],
            next_observations=self._observations[observation + self.horizon],
            valid=self._ones.expand(batch_size),
            step_mask=self._ones.expand(batch_size, self.horizon),
        )

    def _sample_paper(self, batch_size: int, generator: torch.Generator) -> Batch:
        episode = torch.randint(len(self._lengths), (batch_size,), generator=generator, device=self._device)
        first, last = self._first[episode], self._lengths[episode] - 1
        # float64 reaches every row of an episode of up to 2^53 steps with equal probability.
        uniform = torch.rand(batch_size, generator=generator, device=self._device, dtype=torch.float64)
        start = (uniform * last).long()
        wanted = start.unsqueeze(1) + self._steps
        inside = (wanted <= last.unsqueeze(1)).to(self._dtype)
        rows = first.unsqueeze(1) + torch.minimum(wanted, last.unsqueeze(1))
        base = first + self._shifts[episode]
        return Batch(
            observations=self._observations[base + start],
            actions=self._actions[rows].flatten(1),
            rewards=self._rewards[rows] * inside,
            masks=self._masks[rows],
            next_observations=self._observations[base + torch.minimum(start + self.horizon, last)],
            valid=inside[:, -1],
            step_mask=inside,
        )

    def _floats(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, dtype=self._dtype, device=self._device)

    def _integers(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, dtype=torch.int64, device=self._device)


def reward_range(trajectories: Trajectories) -> RewardRange:
    """Return the range of the rewards, and whether any step is a terminal."""
    return RewardRange(
        float(trajectories.rewards.min()), float(trajectories.rewards.max()), bool((trajectories.masks == 0).any())
    )
