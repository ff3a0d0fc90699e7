"""Flow Q-learning (Park, Li and Levine, arXiv 2502.02538): a flow that imitates, distilled into one step that improves.

The one-step actor mu(s, z) stays near what the flow makes of the same noise and climbs the critics, so that no gradient
has to pass through the flow's steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from rql_core.acting import NO_FLOW_TO_GUIDE
from rql_core.algorithms.algorithm import Metrics
from rql_core.algorithms.batch import Batch
from rql_core.algorithms.critics import CriticAlgorithm, CriticConfig, squared_loss
from rql_core.algorithms.flow_matching import FlowDraws, flow_matching, sample_flow_draws
from rql_core.errors import ConfigError
from rql_core.flow import integrate
from rql_core.guidance import Guidance
from rql_core.networks import Perceptrons, VelocityNetwork


class FQLConfig(CriticConfig):
    """The settings of FQL."""

    # Selects this algorithm.
    algorithm: Literal["fql"] = "fql"
    # Weight of the distance between the one-step actor and the flow: larger stays closer to the data.
    alpha: float = Field(default=10.0, ge=0)
    # Pessimism: standard deviations over the ensemble that are taken off the target; the published target is the mean.
    rho: float = Field(default=0.0, ge=0)
    # Divide the actor's critic term by the mean |Q|, so that alpha does not depend on the scale of the rewards.
    q_normalisation: bool = False

    @property
    def acting_steps(self) -> int:
        """One: the actor is a flow's distillate."""
        return 1


@dataclass(frozen=True)
class FQLDraws(FlowDraws):
    """The random draws of one update, arguments of every loss: any implementation can be compared on the same draws."""

    target_noise: Tensor
    """(batch, h * d), normal: of which the next chunk is made (z')."""
    actor_noise: Tensor
    """(batch, h * d), normal: at which the one-step actor is compared with the flow (z)."""


class FQL(CriticAlgorithm[FQLConfig, FQLDraws]):
    """The networks ``flow`` (imitates), ``actor`` (one step, acts) and ``critic``."""

    @staticmethod
    def other_networks(
        config: FQLConfig, observation_dim: int, chunk_dim: int, generator: torch.Generator
    ) -> dict[str, Perceptrons]:
        """Make the flow; the one-step actor is the same kind of network, asked at time 0 only."""
        return {"flow": VelocityNetwork(observation_dim, chunk_dim, config.actor_hidden, generator)}

    def sample_draws(self, batch_size: int, generator: torch.Generator) -> FQLDraws:
        """Draw the noises and times of one update."""
        flow = sample_flow_draws(batch_size, self.chunk_dim, generator, self.device, self.dtype)
        noise = partial(torch.randn, batch_size, self.chunk_dim, device=self.device, dtype=self.dtype)
        return FQLDraws(flow.flow_noise, flow.flow_time, noise(generator=generator), noise(generator=generator))

    def loss(self, batch: Batch, draws: FQLDraws) -> tuple[Tensor, Metrics]:
        """Return the sum of the critics', the flow's and the one-step actor's loss, which share no parameter."""
        critic_loss, critic_metrics = self.critic_loss(batch, draws)
        actor_loss, actor_metrics = self.actor_loss(batch, draws)
        match = flow_matching(self.networks["flow"], batch, draws)
        return (
            critic_loss + actor_loss + match.loss,
            critic_metrics | actor_metrics | {"flow_loss": match.loss.detach()},
        )

    def critic_loss(self, batch: Batch, draws: FQLDraws) -> tuple[Tensor, Metrics]:
        """Return the squared error of every critic; its gradient reaches the critics alone."""
        with torch.no_grad():
            chunks = self._make_chunks(self.networks["actor"], batch.next_observations, draws.target_noise)
            next_values = self.lower_bound(self.critic("critic_target", batch.next_observations, chunks))
            target = self.chunk_target(batch, next_values)
        values = self.critic("critic", batch.observations, batch.actions)
        loss, detached = squared_loss(target.unsqueeze(-2) - values, batch.valid), values.detach()
        return loss, {
            "critic_loss": loss.detach(),
            "value": detached.mean(dim=(-2, -1)),
            "value_spread": detached.std(dim=-2, correction=0).mean(dim=-1),
            "target": target.mean(dim=-1),
        }

    def actor_loss(self, batch: Batch, draws: FQLDraws) -> tuple[Tensor, Metrics]:
        """Return alpha times the distance to the flow, minus the value; its gradient reaches the actor alone."""
        config = self.config
        with torch.no_grad():
            field = partial(self.networks["flow"], batch.observations)
            flow = integrate(field, draws.actor_noise, config.flow_steps, config.act_integrator).clamp(-1.0, 1.0)
        chunks = _one_step(self.networks["actor"], batch.observations, draws.actor_noise)
        distance = (chunks - flow).square().mean(dim=(-2, -1))
        values = self.critic("critic", batch.observations, chunks.clamp(-1.0, 1.0), constant=True)
        policy_loss = -(values.mean(dim=-2) * batch.valid).mean(dim=-1)
        if config.q_normalisation:
            policy_loss = policy_loss / values.detach().abs().mean(dim=(-2, -1)).clamp(min=1e-6)
        metrics = {"policy_loss": policy_loss.detach(), "distance": distance.detach()}
        return policy_loss + config.alpha * distance, metrics

    def _make_chunks(
        self,
        actor: Any,
        observations: Tensor,
        noise: Tensor,
        flow_steps: int | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        if guidance is not None:
            raise ConfigError(NO_FLOW_TO_GUIDE.format("fql"))
        if flow_steps not in (None, 1):
            raise ConfigError(f"fql acts in one step, flow_steps is {flow_steps}: leave it out")
        return _one_step(actor, observations, noise).clamp(-1.0, 1.0)


def _one_step(actor: Any, observations: Tensor, noise: Tensor) -> Tensor:
    chunks: Tensor = actor(observations, noise, noise.new_zeros((*noise.shape[:-1], 1)))
    return chunks
