"""Sample action chunks from episodes, in the corrected and in the published form.

``corrected``: every start with h real actions is equally likely, and the next observation is the one after the last
action. ``paper``: an episode is drawn first, then one of its rows but the last; a window that passes the end repeats
the last row.  The two differences are two corrections, which can be made one at a time.

Sampling is a pure function of a generator's state, so whoever keeps that state can go on from it exactly, or say later
which chunks were drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rql_core.algorithms.algorithm import CORRECTIONS
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
        corrections: Collection[str] | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Put the data on the device.

        ``corrections`` are those to make of "chunk_ends" and "uniform_starts", None: all in ``corrected``, none in
        ``paper``.  Raises DatasetError where no episode is long enough for a chunk.
        """
        if corrections is None:
            corrections = CORRECTIONS if form == "corrected" else ()
        self.horizon = horizon
        self._whole = "chunk_ends" in corrections
        self._uniform = "uniform_starts" in corrections
        self._device, self._dtype = torch.device(device), dtype
        self._observations = self._floats(statistics.normalise(trajectories.observations))
        self._actions = self._floats(trajectories.actions)
        if form == "paper":
            self._actions.clamp_(-PAPER_ACTION_LIMIT, PAPER_ACTION_LIMIT)
        self._rewards = self._floats(trajectories.rewards)
        self._masks = self._floats(trajectories.masks)
        self._steps = torch.arange(horizon, device=self._device)
        # A start in an episode's last row has no row after it, which the published sampler never draws.
        needed = horizon if self._whole else 2
        usable = np.flatnonzero(trajectories.lengths >= needed)
        if len(usable) == 0:
            raise DatasetError(
                f"no episode has a start for a chunk of horizon {horizon}: expected one of at least {needed} steps, "
                f"but the {trajectories.episodes} episodes have {trajectories.lengths.min()} to "
                f"{trajectories.lengths.max()}; record longer episodes or lower the horizon"
            )
        lengths = trajectories.lengths[usable]
        counts = lengths - needed + 1
        self.starts = int(counts.sum())
        """Number of distinct starts that can be drawn."""
        self._episodes = usable
        self._first = self._integers(trajectories.step_offsets[usable])
        self._last = self._integers(trajectories.step_offsets[usable] + lengths - 1)
        self._shifts = self._integers(usable)  # each earlier episode has one observation more than it has steps
        self._counts = self._integers(counts)
        # Which of the usable episodes each start belongs to, and how many starts the episodes before it have.
        self._owners = self._integers(np.repeat(np.arange(len(usable)), counts))
        self._before = self._integers(np.cumsum(counts) - counts)
        self._ones = torch.ones((), dtype=dtype, device=self._device)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw a batch of chunks; the generator lives on the sampler's device."""
        return self._cut(*self._draw(batch_size, generator))

    def sample_each(self, batch_size: int, generators: Sequence[torch.Generator]) -> Batch:
        """Draw a batch with each generator, (generators, batch_size, ...): each is what ``sample`` would draw."""
        drawn = [self._draw(batch_size, generator) for generator in generators]
        return self._cut(*(torch.stack(part) for part in zip(*drawn, strict=True)))

    def locate(self, batch_size: int, generator: torch.Generator) -> tuple[list[int], list[int]]:
        """Return the episode and the step in it at which each chunk starts that ``sample`` would draw."""
        owner, start = self._draw(batch_size, generator)
        return self._episodes[owner.cpu().numpy()].tolist(), (start - self._first[owner]).tolist()

    def _draw(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw starts: their episodes among the usable ones, and their rows; both (batch,)."""
        if self._uniform:
            chosen = torch.randint(self.starts, (batch_size,), generator=generator, device=self._device)
            owner = self._owners[chosen]
            return owner, self._first[owner] + chosen - self._before[owner]
        owner = torch.randint(len(self._first), (batch_size,), generator=generator, device=self._device)
        # float64 reaches every row of an episode of up to 2^53 steps with equal probability.
        uniform = torch.rand(batch_size, generator=generator, device=self._device, dtype=torch.float64)
        return owner, self._first[owner] + (uniform * self._counts[owner]).long()

    def _cut(self, owner: Tensor, start: Tensor) -> Batch:
        rows = start.unsqueeze(-1) + self._steps
        end = start + self.horizon
        if self._whole:
            step_mask = self._ones.expand(rows.shape)
            valid = self._ones.expand(start.shape)
            rewards = self._rewards[rows]
        else:
            last = self._last[owner]
            step_mask = (rows <= last.unsqueeze(-1)).to(self._dtype)
            valid = step_mask[..., -1]
            rows = torch.minimum(rows, last.unsqueeze(-1))
            # The observation before the last action, not the one after it: that is what the published code takes.
            end = torch.minimum(end, last)
            rewards = self._rewards[rows] * step_mask
        shift = self._shifts[owner]
        return Batch(
            observations=self._observations[start + shift],
            actions=self._actions[rows].flatten(-2),
            rewards=rewards,
            masks=self._masks[rows],
            next_observations=self._observations[end + shift],
            valid=valid,
            step_mask=step_mask,
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
