"""The two networks that every algorithm shares: a velocity field (the actor) and an ensemble of critics.

Both take the concatenation [observation, x, t], where x is a flattened action chunk (or a noisy one) and t in [0, 1]
the flow time.  Weights are Glorot-uniform, biases zero, drawn from a generator that the caller owns.

``stack`` makes one network of several: its parameters and inputs have a dimension more, in front, and so do its
outputs.  All shapes below are those of a network that was not stacked.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from rql_core.mlp import Blocks, Members, plain

# Numbers that a layer makes for a batch, above which blocks are faster than plain operations on a CPU.
BLOCKED_FROM = 65_536


class Perceptrons(nn.Module):
    """What both networks are: parameters, computed with in blocks on a CPU where that is faster, else plainly."""

    form: Literal["fastest", "plain", "blocked"] = "fastest"
    """How to compute; a compiler takes the plain form only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.scales, self.shifts = nn.ParameterList(), nn.ParameterList()
        self._blocks = Blocks()

    def offer_gradients(self, places: Sequence[Tensor] | None) -> None:
        """Let the next backward pass write the gradients of ``parameters()`` there; it need not. None: no more."""
        self._blocks.gradient_out = places

    def outputs(self, inputs: Tensor, *, constant: bool = False) -> Tensor:
        """Return outputs (N, batch, out) of inputs (groups, batch, in); ``constant``: no gradient to the parameters."""
        # Not through the lists, which takes as long as a small layer.
        lists = (self.weights, self.biases, self.scales, self.shifts)
        members = Members(*(cast(list[Tensor], list(each._parameters.values())) for each in lists))
        if self._is_blocked(inputs):
            return self._blocks(inputs, members, constant=constant)
        if constant:
            members = members.rebuilt([tensor.detach() for tensor in members.tensors()])
        return plain(inputs, members)

    def _is_blocked(self, inputs: Tensor) -> bool:
        if self.form != "fastest":
            return self.form == "blocked"
        return inputs.device.type == "cpu" and inputs.shape[1] * self._width >= BLOCKED_FROM


class VelocityNetwork(Perceptrons):
    """The velocity field v(observation, x, t) of a flow policy: an MLP without normalisation or output squashing."""

    def __init__(self, observation_dim: int, chunk_dim: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__(max(hidden))
        self.observation_dim = observation_dim
        self.chunk_dim = chunk_dim
        sizes = [observation_dim + chunk_dim + 1, *hidden, chunk_dim]
        for fan_in, fan_out in pairwise(sizes):
            self.weights.append(nn.Parameter(glorot_uniform((fan_in, fan_out), generator)))
            self.biases.append(nn.Parameter(torch.zeros(fan_out)))

    def forward(self, observations: Tensor, x: Tensor, time: Tensor) -> Tensor:
        """Return velocities (batch, chunk_dim) for observations (batch, obs), x (batch, chunk_dim), time (batch, 1)."""
        inputs = torch.cat((observations, x, time), dim=-1)
        return self.outputs(_in_groups(inputs)).view_as(x)


class CriticEnsemble(Perceptrons):
    """K independent critics V_k(observation, x, t); each layer is linear, GELU, LayerNorm, and the last one linear."""

    def __init__(
        self,
        observation_dim: int,
        chunk_dim: int,
        hidden: Sequence[int],
        critics: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(max(hidden))
        self.critics = critics
        sizes = [observation_dim + chunk_dim + 1, *hidden, 1]
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
        inputs = torch.cat((observations, x, time), dim=-1)
        outputs = self.outputs(_in_groups(inputs), constant=constant)
        return outputs.view(*inputs.shape[:-2], self.critics, inputs.shape[-2])


def _in_groups(inputs: Tensor) -> Tensor:
    """Return inputs (..., batch, in) as (groups, batch, in); the batch may be empty."""
    return inputs.view(math.prod(inputs.shape[:-2]), *inputs.shape[-2:])


PerceptronsT = TypeVar("PerceptronsT", bound=nn.Module)


@torch.no_grad()
def stack(networks: Sequence[PerceptronsT]) -> PerceptronsT:
    """Return one network that holds copies of several of one shape, in the order given."""
    stacked = copy.deepcopy(networks[0])
    of_each = [dict(network.named_parameters()) for network in networks]
    for name, parameter in stacked.named_parameters():
        parameter.data = torch.stack([parameters[name].detach() for parameters in of_each])
    return stacked


def glorot_uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw a weight (..., fan_in, fan_out) uniformly from +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = math.sqrt(6.0 / (shape[-2] + shape[-1]))
    return torch.empty(*shape).uniform_(-bound, bound, generator=generator)
