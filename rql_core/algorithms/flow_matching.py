"""The flow-matching loss: the behaviour cloning term that every flow policy has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rql_core.algorithms.batch import Batch


@dataclass(frozen=True)
class FlowDraws:
    """The random draws of flow matching; arguments of the loss, so that others can be compared on the same draws."""

    flow_noise: Tensor
    """(batch, h * d), normal: where each path starts (x0)."""
    flow_time: Tensor
    """(batch, 1), uniform in [0, 1): where on the path the field is compared (t)."""


@dataclass(frozen=True)
class FlowMatch:
    """The loss, and the point and the velocity it was taken at, which other losses go on from."""

    loss: Tensor
    """Scalar."""
    point: Tensor
    """(batch, h * d): x_t, between noise and action."""
    velocity: Tensor
    """(batch, h * d): v(observation, x_t, t), with its graph."""


def flow_matching(actor: nn.Module, batch: Batch, draws: FlowDraws) -> FlowMatch:
    """Compare the field with the straight path from noise to action (Lipman et al., arXiv 2210.02747).

    Steps past an episode's end count 0, and the mean still divides by every entry.
    """
    displacement = batch.actions - draws.flow_noise
    point = torch.addcmul(draws.flow_noise, displacement, draws.flow_time)
    velocity: Tensor = actor(batch.observations, point, draws.flow_time)
    squared = (velocity - displacement).square().view(*batch.step_mask.shape, -1)
    return FlowMatch((squared * batch.step_mask.unsqueeze(-1)).mean(dim=(-3, -2, -1)), point, velocity)


def sample_flow_draws(
    batch_size: int, chunk_dim: int, generator: torch.Generator, device: torch.device, dtype: torch.dtype
) -> FlowDraws:
    """Draw the noise and the times of one update."""
    noise = torch.randn(batch_size, chunk_dim, generator=generator, device=device, dtype=dtype)
    return FlowDraws(noise, torch.rand(batch_size, 1, generator=generator, device=device, dtype=dtype))
