"""What the algorithms that have critics share: their settings, a chunk's target, and the value of what a policy does.

A chunk of h steps counts as one action: its return is the discounted sum of its rewards, and what follows it is
discounted by gamma^h.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from rql_core.acting import MAX_SAMPLES, Acting
from rql_core.algorithms.algorithm import Algorithm, AlgorithmConfig, Average, DrawsT, HiddenSizes
from rql_core.algorithms.batch import Batch, RewardRange
from rql_core.networks import CriticEnsemble, Perceptrons, VelocityNetwork

# The value of a state is a mean over flow noise.  16 draws put its standard error at a quarter of the spread over
# noise, which is below the spread over critics, and cost less than one acting step.
VALUE_DRAWS = 16


class CriticConfig(AlgorithmConfig):
    """The settings of every algorithm that has critics."""

    # Pessimism: standard deviations over the ensemble that are taken off the target.
    rho: float = Field(default=0.5, ge=0)
    # Discount a step.
    gamma: float = Field(default=0.99, gt=0, lt=1)
    # Rate at which the target critics follow.
    tau: float = Field(default=0.005, gt=0, le=1)
    # Critics in the ensemble (K).
    critics: int = Field(default=10, ge=1, le=64)
    # Widths of each critic's hidden layers.
    critic_hidden: HiddenSizes = (512, 512, 512, 512)
    # Chunks to choose from by the critics when acting (best of N).
    act_samples: int = Field(default=1, ge=1, le=MAX_SAMPLES)
    # Pessimism of that choice, in standard deviations over the ensemble.
    act_rho: float = Field(default=0.0, ge=0)


CriticConfigT = TypeVar("CriticConfigT", bound=CriticConfig)


class CriticAlgorithm(Algorithm[CriticConfigT, DrawsT]):
    """An algorithm with the networks ``actor`` and ``critic``, an ensemble Q_k(s, a) = V_k(s, a, 1)."""

    acting: ClassVar[tuple[str, ...]] = ("actor_average", "critic")

    def __init__(
        self,
        config: CriticConfigT,
        observation_dim: int,
        action_dim: int,
        reward_range: RewardRange,
        *,
        generator: torch.Generator,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        chunk_dim = config.horizon * action_dim
        actor = VelocityNetwork(observation_dim, chunk_dim, config.actor_hidden, generator)
        others = self.other_networks(config, observation_dim, chunk_dim, generator)
        critic = CriticEnsemble(observation_dim, chunk_dim, config.critic_hidden, config.critics, generator)
        super().__init__(
            config,
            observation_dim,
            action_dim,
            online={"actor": actor, **others, "critic": critic},
            averages={
                "actor_average": Average("actor", 1.0 - config.act_average),
                "critic_target": Average("critic", config.tau),
            },
            device=device,
            dtype=dtype,
        )
        self._low, self._high = reward_range.return_bounds(config.gamma)
        self._discounts = torch.tensor(
            [config.gamma**step for step in range(config.horizon)], dtype=dtype, device=self.device
        )
        fixed = torch.Generator().manual_seed(0)
        self._value_noise = torch.randn(VALUE_DRAWS, config.act_samples, self.chunk_dim, generator=fixed).to(
            self.device, dtype
        )

    @staticmethod
    def other_networks(
        config: Any, observation_dim: int, chunk_dim: int, generator: torch.Generator
    ) -> dict[str, Perceptrons]:
        """Make the online networks that an algorithm has besides an actor and critics."""
        return {}

    @property
    def default_acting(self) -> Acting:
        """Best of N as configured."""
        return Acting(self.config.act_samples, self.config.act_rho)

    def lower_bound(self, values: Tensor) -> Tensor:
        """Return mean - rho * std (batch,) of an ensemble's values (critics, batch); std is the population's."""
        spread, mean = torch.std_mean(values, dim=-2, correction=0)
        return mean - self.config.rho * spread

    def chunk_target(self, batch: Batch, next_values: Tensor) -> Tensor:
        """Return a chunk's return plus what follows it (batch,), given the next observations' values (batch,).

        Rewards after the first terminal and the value after any terminal count nothing; without the correction
        ``first_terminal``, as in the published code, the last step's mask alone decides.
        """
        rewards, mask = batch.rewards, batch.masks[..., -1]
        if self.config.corrects("first_terminal"):
            # alive[:, j] is 0 once a step before j, or j itself, was a terminal; step j's own reward still counts.
            alive = batch.masks.cummin(dim=-1).values
            mask = alive[..., -1]
            rewards = torch.cat((rewards[..., :1], rewards[..., 1:] * alive[..., :-1]), dim=-1)
        target = rewards @ self._discounts + self.config.gamma**self.config.horizon * mask * next_values
        return target.clamp(self._low, self._high) if self.config.corrects("target_range") else target

    def critic(self, name: str, observations: Tensor, chunks: Tensor, *, constant: bool = False) -> Tensor:
        """Return Q_k (critics, batch) of chunks (batch, h * d) by the ensemble called ``name``."""
        values: Tensor = self.networks[name](
            observations, chunks, chunks.new_ones((*chunks.shape[:-1], 1)), constant=constant
        )
        return values

    @torch.no_grad()
    def action_value(self, observations: Tensor, chunks: Tensor) -> Tensor:
        """Return each critic's value (batch, critics) of doing chunks (batch, h * d) there."""
        return self.critic("critic", observations, chunks).mT

    @torch.no_grad()
    def value(self, observations: Tensor) -> Tensor:
        """Return each critic's value (batch, critics) of normalised observations: that of what the policy does there.

        It is a mean over fixed noises, so that a row's value does not depend on other rows.
        """
        draws = self._value_noise[: 1 if self.config.act_samples > 1 else VALUE_DRAWS]
        repeated = observations.repeat_interleave(len(draws), dim=0)
        noise = draws.repeat(len(observations), 1, 1)
        chunks = self.act(repeated, noise, rho=self.config.act_rho)
        return self.action_value(repeated, chunks).view(len(observations), len(draws), -1).mean(dim=1)


def expectile_loss(error: Tensor, kappa: float, valid: Tensor) -> Tensor:
    """Return the mean of |kappa - 1(error < 0)| error^2 over (critics, batch); rows that are not valid count 0."""
    weight = (kappa - (error < 0).to(error.dtype)).abs() * valid.unsqueeze(-2)
    return (weight * error.square()).mean(dim=(-2, -1))


def squared_loss(error: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of error^2 over (critics, batch); rows that are not valid count 0."""
    return (error.square() * valid.unsqueeze(-2)).mean(dim=(-2, -1))
