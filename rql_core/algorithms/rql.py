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
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rql_core.acting import Acting
from rql_core.algorithms.algorithm import Metrics
from rql_core.algorithms.batch import Batch
from rql_core.algorithms.critics import VALUE_DRAWS, CriticAlgorithm, CriticConfig, expectile_loss
from rql_core.algorithms.flow_matching import FlowDraws, flow_matching, sample_flow_draws
from rql_core.flow import Integrator, reverse


class RQLConfig(CriticConfig):
    """The settings of RQL; where the published ones differ by task, the defaults are those of scene-play."""

    # Selects this algorithm.
    algorithm: Literal["rql"] = "rql"
    # Weight of the flow-matching loss: larger stays closer to the data; it must grow with the action dimension.
    alpha: float = Field(default=3.0, ge=0)
    # Expectile of the critic loss: above .5 the value leans towards the better outcomes.
    kappa: float = Field(default=0.7, gt=0, lt=1)
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
    """The random draws of one update, arguments of every loss: any implementation can be compared on the same draws."""

    target_noise: Tensor
    """(batch, h * d), normal: the flow noise at which the next state is valued (x'0)."""
    depth: Tensor
    """(batch, 1), in [0, 1]: how far each action is reversed (delta)."""


class RQL(CriticAlgorithm[RQLConfig, RQLDraws]):
    """An actor with its average, and an ensemble of critics with its target."""

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
        """Return the sum of the critics' and the actor's loss; no parameter takes a gradient from both.

        All randomness comes in as ``draws``: with the same weights, batch and draws any other implementation of the
        update must give the same losses and gradients (test/core/algorithms/test_exactness.py has one in NumPy).
        """
        reversed_chunks = self.reverse(batch, draws)
        critic_loss, critic_metrics = self.critic_loss(batch, draws, reversed_chunks)
        actor_loss, actor_metrics = self.actor_loss(batch, draws, reversed_chunks)
        return critic_loss + actor_loss, critic_metrics | actor_metrics

    @torch.no_grad()
    def reverse(self, batch: Batch, draws: RQLDraws) -> Tensor:
        """Return the points (batch, h * d) at flow time 1 - depth where the actor's flow passes to make the chunks."""
        field = partial(self.networks["actor"], batch.observations)
        return reverse(field, batch.actions, draws.depth, self.config.flow_steps, self.config.reversal_integrator)

    @torch.no_grad()
    def target(self, batch: Batch, draws: RQLDraws) -> Tensor:
        """Return what every point of a chunk's flow is worth (batch,): its return, and a pessimistic value after it."""
        start = torch.zeros_like(draws.depth)
        values: Tensor = self.networks["critic_target"](batch.next_observations, draws.target_noise, start)
        return self.chunk_target(batch, self.lower_bound(values))

    def critic_loss(self, batch: Batch, draws: RQLDraws, reversed_chunks: Tensor) -> tuple[Tensor, Metrics]:
        """Return the expectile loss of every critic at the reversed points; its gradient reaches the critics alone."""
        target = self.target(batch, draws)
        values: Tensor = self.networks["critic"](batch.observations, reversed_chunks, 1.0 - draws.depth)
        loss = expectile_loss(target.unsqueeze(-2) - values, self.config.kappa, batch.valid)
        detached = values.detach()
        metrics = {
            "critic_loss": loss.detach(),
            "value": detached.mean(dim=(-2, -1)),
            "value_spread": detached.std(dim=-2, correction=0).mean(dim=-1),
            "target": target.mean(dim=-1),
        }
        return loss, metrics

    def actor_loss(self, batch: Batch, draws: RQLDraws, reversed_chunks: Tensor) -> tuple[Tensor, Metrics]:
        """Return -V after one flow step, plus alpha times flow matching; its gradient reaches the actor alone."""
        config, step = self.config, 1.0 / self.config.flow_steps
        match = flow_matching(self.networks["actor"], batch, draws)
        if config.actor_gradient_at == "interpolant":
            point, velocity, time = match.point, match.velocity, draws.flow_time
        else:
            point, time = reversed_chunks, 1.0 - draws.depth
            velocity = self.networks["actor"](batch.observations, point, time)
        stepped = torch.addcmul(point, velocity, (1.0 - time).clamp(max=step))
        values: Tensor = self.networks["critic"](
            batch.observations, stepped, (time + step).clamp(max=1.0), constant=True
        )
        policy_loss = -(values.mean(dim=-2) * batch.valid).mean(dim=-1)
        if config.q_normalisation:
            policy_loss = policy_loss / values.detach().abs().mean(dim=(-2, -1)).clamp(min=1e-6)
        metrics = {"policy_loss": policy_loss.detach(), "flow_loss": match.loss.detach()}
        return policy_loss + config.alpha * match.loss, metrics

    @property
    def valued_acting(self) -> Acting:
        """One sample: V(s, x0, 0) is the value of what the flow makes of x0, and knows of no choice."""
        return Acting()

    @torch.no_grad()
    def value(self, observations: Tensor) -> Tensor:
        """Return each critic's value (batch, critics) of normalised observations: V(s, x0, 0), mean over fixed x0."""
        rows = observations.shape[0]
        noise = self._value_noise[:, 0].repeat(rows, 1)
        repeated = observations.repeat_interleave(VALUE_DRAWS, dim=0)
        values: Tensor = self.networks["critic"](repeated, noise, noise.new_zeros((len(noise), 1)))
        return values.view(self.config.critics, rows, VALUE_DRAWS).mean(dim=2).T
