"""The two networks that every algorithm shares: a velocity field (the actor) and an ensemble of critics.

Both take the concatenation [observation, x, t], where x is a flattened action chunk (or a noisy one) and t in [0, 1]
the flow time.  The ensemble keeps the weights of all members in one tensor a layer, so K critics cost one batched
matrix product instead of K small ones.  Weights are Glorot-uniform, biases zero, drawn from a generator that the
caller owns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

# 2 * sqrt(2 / pi): tanh(u) = 2 * sigmoid(2u) - 1 turns the tanh form of GELU into x * sigmoid(...).
GELU_SCALE = 2.0 * math.sqrt(2.0 / math.pi)
# The coefficient of the cubic term in the tanh approximation (Hendrycks and Gimpel, arXiv 1606.08415).
GELU_CUBIC = 0.044715
# The epsilon of the published networks (JAX's default; torch's own default is 1e-5).
LAYER_NORM_EPSILON = 1e-6


def gelu(x: Tensor) -> Tensor:
    """Return the tanh approximation of GELU, elementwise.

    Without gradients it is computed as ``x * sigmoid(1.5958 * (x + 0.044715 x^3))``, which takes 0.4 of the time of
    torch's kernel on a CPU.  With gradients torch's kernel is used: its backward pass is one kernel and keeps one
    tensor, not four.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return functional.gelu(x, approximate="tanh")
    scale = x.new_full((), GELU_SCALE)
    return torch.addcmul(scale, x, x, value=GELU_SCALE * GELU_CUBIC).mul_(x).sigmoid_().mul_(x)


class VelocityNetwork(nn.Module):
    """The velocity field v(observation, x, t) of a flow policy: an MLP without normalisation or output squashing."""

    def __init__(self, observation_dim: int, chunk_dim: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.observation_dim = observation_dim
        self.chunk_dim = chunk_dim
        sizes = [observation_dim + chunk_dim + 1, *hidden, chunk_dim]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            self.weights.append(nn.Parameter(glorot_uniform((fan_in, fan_out), generator)))
            self.biases.append(nn.Parameter(torch.zeros(fan_out)))

    def forward(self, observations: Tensor, x: Tensor, time: Tensor) -> Tensor:
        """Return velocities (batch, chunk_dim) for observations (batch, obs), x (batch, chunk_dim), time (batch, 1)."""
        hidden = torch.cat((observations, x, time), dim=1)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.addmm(bias, hidden, weight)
            if layer < last:
                hidden = gelu(hidden)
        return hidden


class CriticEnsemble(nn.Module):
    """K independent critics V_k(observation, x, t); each layer is linear, GELU, LayerNorm, and the last one linear."""

    def __init__(
        self,
        observation_dim: int,
        chunk_dim: int,
        hidden: Sequence[int],
        critics: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.critics = critics
        sizes = [observation_dim + chunk_dim + 1, *hidden, 1]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.scales = nn.ParameterList()
        self.shifts = nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            self.weights.append(nn.Parameter(glorot_uniform((critics, fan_in, fan_out), generator)))
            self.biases.append(nn.Parameter(torch.zeros(critics, 1, fan_out)))
        for width in hidden:
            self.scales.append(nn.Parameter(torch.ones(critics, 1, width)))
            self.shifts.append(nn.Parameter(torch.zeros(critics, 1, width)))

    def forward(self, observations: Tensor, x: Tensor, time: Tensor, *, constant: bool = False) -> Tensor:
        """Return values (critics, batch) for observations (batch, obs), x (batch, chunk_dim) and time (batch, 1).

        With ``constant`` the parameters are constants: the gradient flows to x alone, and no weight gradient is
        computed.
        """
        read = _detached if constant else _as_is
        weights, biases = read(self.weights), read(self.biases)
        scales, shifts = read(self.scales), read(self.shifts)
        inputs = torch.cat((observations, x, time), dim=1)
        hidden = inputs.expand(self.critics, *inputs.shape)
        for weight, bias, scale, shift in zip(weights, biases, scales, shifts, strict=False):
            hidden = gelu(torch.baddbmm(bias, hidden, weight))
            hidden = functional.layer_norm(hidden, hidden.shape[-1:], eps=LAYER_NORM_EPSILON)
            hidden = torch.addcmul(shift, hidden, scale)
        return torch.baddbmm(biases[-1], hidden, weights[-1]).squeeze(-1)


def glorot_uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw a weight (..., fan_in, fan_out) uniformly from +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = math.sqrt(6.0 / (shape[-2] + shape[-1]))
    return torch.empty(*shape).uniform_(-bound, bound, generator=generator)


def _as_is(parameters: nn.ParameterList) -> list[Tensor]:
    return list(parameters)


def _detached(parameters: nn.ParameterList) -> list[Tensor]:
    return [parameter.detach() for parameter in parameters]
