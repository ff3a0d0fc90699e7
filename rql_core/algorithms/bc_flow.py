"""Behaviour cloning with a flow policy: the flow-matching loss alone, the zero point of every comparison."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rql_core.algorithms.algorithm import Algorithm, AlgorithmConfig, Average, Metrics
from rql_core.algorithms.batch import Batch, RewardRange
from rql_core.algorithms.flow_matching import FlowDraws, flow_matching, sample_flow_draws
from rql_core.networks import VelocityNetwork


class BCFlowConfig(AlgorithmConfig):
    """The settings of BC flow: those that every algorithm has."""

    # Selects this algorithm.
    algorithm: Literal["bc_flow"] = "bc_flow"


class BCFlow(Algorithm[BCFlowConfig, FlowDraws]):
    """One actor and its average; it has no critics and does not look at rewards."""

    def __init__(
        self,
        config: BCFlowConfig,
        observation_dim: int,
        action_dim: int,
        reward_range: RewardRange,
        *,
        generator: torch.Generator,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        actor = VelocityNetwork(observation_dim, config.horizon * action_dim, config.actor_hidden, generator)
        super().__init__(
            config,
            observation_dim,
            action_dim,
            online={"actor": actor},
            averages={"actor_average": Average("actor", 1.0 - config.act_average)},
            device=device,
            dtype=dtype,
        )

    def sample_draws(self, batch_size: int, generator: torch.Generator) -> FlowDraws:
        """Draw the noise and the times of the flow-matching loss."""
        return sample_flow_draws(batch_size, self.chunk_dim, generator, self.device, self.dtype)

    def loss(self, batch: Batch, draws: FlowDraws) -> tuple[Tensor, Metrics]:
        """Return the flow-matching loss."""
        match = flow_matching(self.networks["actor"], batch, draws)
        return match.loss, {"flow_loss": match.loss.detach()}
