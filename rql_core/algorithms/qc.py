"""Q-chunking by the best of N flow samples (Li, Zhou and Levine, arXiv 2507.07969).

The flow imitates chunks; target and action both take, of N samples of it, the one that the critics like best, so the
policy is improved without ever being trained to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rql_core.acting import MAX_SAMPLES
from rql_core.algorithms.algorithm import Metrics
from rql_core.algorithms.batch import Batch
from rql_core.algorithms.critics import CriticAlgorithm, CriticConfig, squared_loss
from rql_core.algorithms.flow_matching import FlowDraws, flow_matching, sample_flow_draws


class QCConfig(CriticConfig):
    """The settings of QC."""

    # Selects this algorithm.
    algorithm: Literal["qc"] = "qc"
    # Pessimism: standard deviations over the ensemble that are taken off the target; the published target is the mean.
    rho: float = Field(default=0.0, ge=0)
    # Chunks to choose from in the target (N); they are most of an update's cost.
    target_samples: int = Field(default=32, ge=1, le=MAX_SAMPLES)
    # Chunks to choose from by the critics when acting (best of N).
    act_samples: int = Field(default=32, ge=1, le=MAX_SAMPLES)


@dataclass(frozen=True)
class QCDraws(FlowDraws):
    """The random draws of one update, arguments of every loss: any implementation can be compared on the same draws."""

    target_noise: Tensor
    """(batch, samples, h * d), normal: of which the next chunks are made."""


class QC(CriticAlgorithm[QCConfig, QCDraws]):
    """A flow that imitates, and critics with their target."""

    def sample_draws(self, batch_size: int, generator: torch.Generator) -> QCDraws:
        """Draw the noises and times of one update."""
        flow = sample_flow_draws(batch_size, self.chunk_dim, generator, self.device, self.dtype)
        shape = (batch_size, self.config.target_samples, self.chunk_dim)
        noise = torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)
        return QCDraws(flow.flow_noise, flow.flow_time, noise)

    def loss(self, batch: Batch, draws: QCDraws) -> tuple[Tensor, Metrics]:
        """Return the sum of the critics' and the flow's loss, which share no parameter."""
        target = self.target(batch, draws)
        values = self.critic("critic", batch.observations, batch.actions)
        critic_loss, detached = squared_loss(target.unsqueeze(-2) - values, batch.valid), values.detach()
        match = flow_matching(self.networks["actor"], batch, draws)
        metrics = {
            "critic_loss": critic_loss.detach(),
            "flow_loss": match.loss.detach(),
            "value": detached.mean(dim=(-2, -1)),
            "value_spread": detached.std(dim=-2, correction=0).mean(dim=-1),
            "target": target.mean(dim=-1),
        }
        return critic_loss + match.loss, metrics

    @torch.no_grad()
    def target(self, batch: Batch, draws: QCDraws) -> Tensor:
        """Return a chunk's return plus the value (batch,) of the best of N chunks after it: chosen by the critics,
        valued by their averages.
        """
        chunks = self._best_chunks(self.networks["actor"], batch.next_observations, draws.target_noise)
        next_values = self.lower_bound(self.critic("critic_target", batch.next_observations, chunks))
        return self.chunk_target(batch, next_values)
