"""Implicit flow Q-learning: the flow form of IDQL (Hansen-Estruch et al., arXiv 2304.10573), as in arXiv 2502.02538.

A state's value is an expectile of the critics' values of logged actions, so nothing is ever asked about an action that
was not logged.  The policy imitates; it improves when acting, by taking the best of N samples.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rql_core.algorithms.algorithm import Metrics
from rql_core.algorithms.batch import Batch
from rql_core.algorithms.critics import CriticAlgorithm, CriticConfig, expectile_loss, squared_loss
from rql_core.algorithms.flow_matching import FlowDraws, flow_matching, sample_flow_draws
from rql_core.networks import CriticEnsemble, Perceptrons


class IFQLConfig(CriticConfig):
    """The settings of IFQL."""

    # Selects this algorithm.
    algorithm: Literal["ifql"] = "ifql"
    # Expectile of the value: above .5 it leans towards the better of the logged actions.
    kappa: float = Field(default=0.9, gt=0, lt=1)
    # Chunks to choose from by the critics when acting (best of N).
    act_samples: int = Field(default=32, ge=1, le=1024)


class IFQL(CriticAlgorithm[IFQLConfig, FlowDraws]):
    """A flow that imitates, critics Q_k(s, a) with their target, and one value V(s)."""

    @staticmethod
    def other_networks(
        config: IFQLConfig, observation_dim: int, chunk_dim: int, generator: torch.Generator
    ) -> dict[str, Perceptrons]:
        """Make the value: a critic that sees no chunk."""
        return {"value": CriticEnsemble(observation_dim, 0, config.critic_hidden, 1, generator)}

    def sample_draws(self, batch_size: int, generator: torch.Generator) -> FlowDraws:
        """Draw the noise and the times of the flow-matching loss; the values need none."""
        return sample_flow_draws(batch_size, self.chunk_dim, generator, self.device, self.dtype)

    def loss(self, batch: Batch, draws: FlowDraws) -> tuple[Tensor, Metrics]:
        """Return the sum of the value's, the critics' and the flow's loss, which share no parameter."""
        value_loss, value = self.value_loss(batch)
        critic_loss, values = self.critic_loss(batch)
        match = flow_matching(self.networks["actor"], batch, draws)
        metrics = {
            "critic_loss": critic_loss.detach(),
            "value_loss": value_loss.detach(),
            "flow_loss": match.loss.detach(),
            "value": value.mean(dim=-1),
            "value_spread": values.std(dim=-2, correction=0).mean(dim=-1),
        }
        return value_loss + critic_loss + match.loss, metrics

    def value_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the expectile loss of V(s) against the target critics, and V(s) (batch,), detached."""
        with torch.no_grad():
            target = self.lower_bound(self.critic("critic_target", batch.observations, batch.actions))
        value = self.state_value(batch.observations)
        error = (target - value).unsqueeze(-2)
        return expectile_loss(error, self.config.kappa, batch.valid), value.detach()

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the squared error of every critic, and their values (critics, batch), detached."""
        with torch.no_grad():
            target = self.chunk_target(batch, self.state_value(batch.next_observations))
        values = self.critic("critic", batch.observations, batch.actions)
        return squared_loss(target.unsqueeze(-2) - values, batch.valid), values.detach()

    def state_value(self, observations: Tensor) -> Tensor:
        """Return V(s) (batch,) of normalised observations (batch, obs)."""
        nothing, time = observations[..., :0], observations.new_ones((*observations.shape[:-1], 1))
        value: Tensor = self.networks["value"](observations, nothing, time)
        return value.squeeze(-2)
