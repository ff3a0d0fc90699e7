"""Reversal Q-Learning (Oberai, Park and Levine, arXiv 2606.17551): Q-learning on a flow policy's refinement steps.

One value V(s, x, t) covers every point of the flow: V(s, a, 1) is the value of doing a, and V(s, x, t) that of the
action which finishing the flow from x makes.  Logged actions have no such points, so the current policy's flow is
integrated backwards from the action; the points met are on-policy, and all share the action's target.  The actor then
follows the critic's slope over one flow step, and never backpropagates through time.

``form`` selects between the published update (``paper``) and the one with its mistakes put right (``corrected``): a
return that stops at the first terminal, and a target inside the range that the data's rewards allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from rql_core.algorithms.algorithm import Algorithm, AlgorithmConfig, Average, HiddenSizes, Metrics
from rql_core.algorithms.batch import Batch, RewardRange
from rql_core.algorithms.flow_matching import FlowDraws, flow_matching, sample_flow_draws
from rql_core.flow import Integrator, reverse
from rql_core.networks import CriticEnsemble, VelocityNetwork

# The value of a state is a mean over flow noise.  16 draws put its standard error at a quarter of the spread over
# noise, which is below the spread over critics, and cost less than one acting step.
VALUE_DRAWS = 16


class RQLConfig(AlgorithmConfig):
    """The settings of RQL; where the published ones differ by task, the defaults are those of scene-play."""

    # Selects this algorithm.
    algorithm: Literal["rql"] = "rql"
    # Weight of the flow-matching loss: larger stays closer to the data; it must grow with the action dimension.
    alpha: float = Field(default=3.0, ge=0)
    # Expectile of the critic loss: above .5 the value leans towards the better outcomes.
    kappa: float = Field(default=0.7, gt=0, lt=1)
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
    # Divide the actor's critic term by the mean |V|, so that alpha does not depend on the scale of the rewards.
    q_normalisation: bool = False
    # Where the actor follows the critic: between noise and action (as published code), or at the reversed point
    # (paper's formula).
    actor_gradient_at: Literal["interpolant", "reversed"] = "interpolant"
    # How the flow is reversed.
    reversal_integrator: Integrator = "euler"
    # How deep: half the rows anywhere and half on the flow's grid, all anywhere, or all on the grid.
    depth_sampling: Literal["half", "continuous", "grid"] = "half"


@dataclass(frozen=True)
class RQLDraws(FlowDraws):
    """The random draws of one update."""

    target_noise: Tensor
    """(batch, h * d), normal: the flow noise at which the next state is valued (x'0)."""
    depth: Tensor
    """(batch, 1), in [0, 1]: how far each action is reversed (delta)."""


class RQL(Algorithm[RQLConfig, RQLDraws]):
    """An actor with its average, and an ensemble of critics with its target."""

    acting: ClassVar[tuple[str, ...]] = ("actor_average", "critic")

    def __init__(
        self,
        config: RQLConfig,
        observation_dim: int,
        action_dim: int,
        reward_range: RewardRange,
        *,
        generator: torch.Generator,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        chunk_dim = config.horizon * action_dim
        self._actor = VelocityNetwork(observation_dim, chunk_dim, config.actor_hidden, generator)
        self._critic = CriticEnsemble(observation_dim, chunk_dim, config.critic_hidden, config.critics, generator)
        super().__init__(
            config,
            observation_dim,
            action_dim,
            online={"actor": self._actor, "critic": self._critic},
            averages={
                "actor_average": Average("actor", 1.0 - config.act_average),
                "critic_target": Average("critic", config.tau),
            },
            device=device,
            dtype=dtype,
        )
        self._critic_target = self.networks["critic_target"]
        self._corrected = config.form == "corrected"
        self._low, self._high = reward_range.return_bounds(config.gamma)
        self._discounts = torch.tensor(
            [config.gamma**step for step in range(config.horizon)], dtype=dtype, device=self.device
        )
        fixed = torch.Generator().manual_seed(0)
        self._value_noise = torch.randn(VALUE_DRAWS, self.chunk_dim, generator=fixed).to(self.device, dtype)

    def sample_draws(self, batch_size: int, generator: torch.Generator) -> RQLDraws:
        """Draw the noise, depths and times of one update."""
        flow = sample_flow_draws(batch_size, self.chunk_dim, generator, self.device, self.dtype)
        noise = torch.randn(batch_size, self.chunk_dim, generator=generator, device=self.device, dtype=self.dtype)
        depth = torch.rand(batch_size, 1, generator=generator, device=self.device, dtype=self.dtype)
        on_grid = {"half": batch_size // 2, "continuous": 0, "grid": batch_size}[self.config.depth_sampling]
        if on_grid:
            steps = self.config.flow_steps
            grid = torch.randint(steps + 1, (on_grid, 1), generator=generator, device=self.device)
            depth[:on_grid] = grid.to(self.dtype) / steps
        return RQLDraws(flow.flow_noise, flow.flow_time, noise, depth)

    def loss(self, batch: Batch, draws: RQLDraws) -> tuple[Tensor, Metrics]:
        """Return the sum of the critics' and the actor's loss; no parameter takes a gradient from both."""
        reversed_chunks = self.reverse(batch, draws)
        critic_loss, critic_metrics = self.critic_loss(batch, draws, reversed_chunks)
        actor_loss, actor_metrics = self.actor_loss(batch, draws, reversed_chunks)
        return critic_loss + actor_loss, critic_metrics | actor_metrics

    @torch.no_grad()
    def reverse(self, batch: Batch, draws: RQLDraws) -> Tensor:
        """Return the points (batch, h * d) at flow time 1 - depth where the actor's flow passes to make the chunks."""
        field = partial(self._actor, batch.observations)
        return reverse(field, batch.actions, draws.depth, self.config.flow_steps, self.config.reversal_integrator)

    @torch.no_grad()
    def target(self, batch: Batch, draws: RQLDraws) -> Tensor:
        """Return what every point of a chunk's flow is worth (batch,): its return, and a pessimistic value after it."""
        config = self.config
        start = torch.zeros_like(draws.depth)
        values = self._critic_target(batch.next_observations, draws.target_noise, start)
        spread, mean = torch.std_mean(values, dim=0, correction=0)
        rewards, mask = batch.rewards, batch.masks[:, -1]
        if self._corrected:
            # alive[:, j] is 0 once a step before j, or j itself, was a terminal; step j's own reward still counts.
            alive = batch.masks.cummin(dim=1).values
            mask = alive[:, -1]
            rewards = torch.cat((rewards[:, :1], rewards[:, 1:] * alive[:, :-1]), dim=1)
        target = rewards @ self._discounts + config.gamma**config.horizon * mask * (mean - config.rho * spread)
        return target.clamp(self._low, self._high) if self._corrected else target

    def critic_loss(self, batch: Batch, draws: RQLDraws, reversed_chunks: Tensor) -> tuple[Tensor, Metrics]:
        """Return the expectile loss of every critic at the reversed points; its gradient reaches the critics alone."""
        kappa, target = self.config.kappa, self.target(batch, draws)
        values: Tensor = self._critic(batch.observations, reversed_chunks, 1.0 - draws.depth)
        error = target - values
        weight = (kappa - (error < 0).to(error.dtype)).abs() * batch.valid
        loss = (weight * error.square()).mean()
        detached = values.detach()
        metrics = {
            "critic_loss": loss.detach(),
            "value": detached.mean(),
            "value_spread": detached.std(dim=0, correction=0).mean(),
            "target": target.mean(),
        }
        return loss, metrics

    def actor_loss(self, batch: Batch, draws: RQLDraws, reversed_chunks: Tensor) -> tuple[Tensor, Metrics]:
        """Return -V after one flow step, plus alpha times flow matching; its gradient reaches the actor alone."""
        config, step = self.config, 1.0 / self.config.flow_steps
        match = flow_matching(self._actor, batch, draws)
        if config.actor_gradient_at == "interpolant":
            point, velocity, time = match.point, match.velocity, draws.flow_time
        else:
            point, time = reversed_chunks, 1.0 - draws.depth
            velocity = self._actor(batch.observations, point, time)
        stepped = torch.addcmul(point, velocity, (1.0 - time).clamp(max=step))
        values: Tensor = self._critic(batch.observations, stepped, (time + step).clamp(max=1.0), constant=True)
        policy_loss = -(values.mean(dim=0) * batch.valid).mean()
        if config.q_normalisation:
            policy_loss = policy_loss / values.detach().abs().mean().clamp(min=1e-6)
        metrics = {"policy_loss": policy_loss.detach(), "flow_loss": match.loss.detach()}
        return policy_loss + config.alpha * match.loss, metrics

    @torch.no_grad()
    def value(self, observations: Tensor) -> Tensor:
        """Return each critic's value (batch, critics) of normalised observations: V(s, x0, 0), mean over fixed x0."""
        rows = observations.shape[0]
        noise = self._value_noise.repeat(rows, 1)
        repeated = observations.repeat_interleave(VALUE_DRAWS, dim=0)
        values: Tensor = self._critic(repeated, noise, noise.new_zeros((len(noise), 1)))
        return values.view(self.config.critics, rows, VALUE_DRAWS).mean(dim=2).T

    @torch.no_grad()
    def action_value(self, observations: Tensor, chunks: Tensor) -> Tensor:
        """Return each critic's value (batch, critics) of doing chunks (batch, h * d) there: V(s, a, 1)."""
        values: Tensor = self._critic(observations, chunks, chunks.new_ones((len(chunks), 1)))
        return values.T
