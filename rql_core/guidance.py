"""Integrate a velocity field so that the chunk it makes agrees with one of before: inpainting, at acting time alone.

A new chunk's first steps will be executed by the old chunk while the new one is being computed, and where the new one
takes over it should not jump.  Two ways to say so to a flow, x(0) noise and x(1) action, Y the old chunk and W the
weight of each of its numbers (1 frozen, 0 free):

``jacobian``: the field gets a pull towards Y, through the field's own derivative, so that the free numbers move with
the frozen ones (real-time chunking: Black, Galliker and Levine, arXiv 2506.07339, whose time runs as here).

``prefix``: before each step, x moves by W to the point of the straight path from its own noise to Y.  It costs nothing,
and the free numbers learn of the frozen ones only by the field.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rql_core.acting import GUIDANCE_LIMIT, GuideMethod
from rql_core.errors import ConfigError
from rql_core.flow import Integrator, VelocityField, solve


@dataclass(frozen=True)
class Guidance:
    """What a batch of chunks is held to, and how."""

    previous: Tensor
    """Y (batch, dim), in [-1, 1]."""
    weights: Tensor
    """W (batch, dim), in [0, 1]."""
    method: GuideMethod = "jacobian"
    limit: float = GUIDANCE_LIMIT
    """Greatest strength of the pull (beta)."""

    def rows(self, first: int, count: int) -> Guidance:
        """Return that of some rows."""
        rows = slice(first, first + count)
        return replace(self, previous=self.previous[rows], weights=self.weights[rows])

    def repeated(self, samples: int) -> Guidance:
        """Return that of as many samples of each row, one after the other."""
        return replace(
            self,
            previous=self.previous.repeat_interleave(samples, dim=0),
            weights=self.weights.repeat_interleave(samples, dim=0),
        )


def integrate_guided(
    velocity: VelocityField, noise: Tensor, steps: int, guidance: Guidance, method: Integrator = "euler"
) -> Tensor:
    """Return the action x(1) (batch, dim) that the guided field makes from noise x(0) (batch, dim).

    Raises ConfigError for ``dopri5``: the pull changes with the steps, which that solver would choose by it.
    """
    if method == "dopri5":
        raise ConfigError(
            "dopri5 chooses its own flow steps, which guidance needs to know: act with 'euler' or 'midpoint'"
        )

    def pulled(x: Tensor, time: Tensor) -> Tensor:
        return guided_velocity(velocity, x, time, guidance)

    x, start = noise, noise.new_zeros((*noise.shape[:-1], 1))
    step = torch.ones_like(start) / steps
    for _ in range(steps):
        if guidance.method == "prefix":
            path = torch.lerp(noise, guidance.previous, start)
            x = solve(velocity, torch.lerp(x, path, guidance.weights), start, start + step, 1, method)
        else:
            x = solve(pulled, x, start, start + step, 1, method)
        start = start + step
    return x


def guided_velocity(velocity: VelocityField, x: Tensor, time: Tensor, guidance: Guidance) -> Tensor:
    """Return v + gain(t) J^T W (Y - p) (batch, dim): p = x + (1 - t) v is where the flow seems to go, J = dp/dx."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(x, time)
        predicted = x + (1.0 - time) * v
    error = guidance.weights * (guidance.previous - predicted.detach())
    (pull,) = torch.autograd.grad(predicted, x, error)
    return v.detach() + gain(time, guidance.limit) * pull


def gain(time: Tensor, limit: float) -> Tensor:
    """Return min(limit, (1 - t) / (t r^2)) with r^2 = (1 - t)^2 / (t^2 + (1 - t)^2), which is the variance of an action
    given x(t) where both noise and actions are standard normal.
    """
    rest = 1.0 - time
    return ((time.square() + rest.square()) / (time * rest)).clamp(max=limit)
