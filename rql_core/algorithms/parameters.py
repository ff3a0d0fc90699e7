"""One flat vector that holds every parameter of a set of networks, so that an optimiser step or an average is one
operation.

A network of a few layers has dozens of small tensors; stepping them one by one costs more than the step itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rql_core.networks import Perceptrons


class ParameterVector:
    """Owns the storage of its networks' parameters: they become views of ``vector``, and must not be moved."""

    def __init__(self, networks: Mapping[str, Perceptrons], device: torch.device, dtype: torch.dtype) -> None:
        self.parameters: list[nn.Parameter] = [p for network in networks.values() for p in network.parameters()]
        flat = torch.cat([parameter.detach().reshape(-1).to(device, dtype) for parameter in self.parameters])
        self.vector = nn.Parameter(flat, requires_grad=False)
        self._parts: dict[str, slice] = {}
        offset = 0
        for name, network in networks.items():
            first = offset
            for parameter in network.parameters():
                end = offset + parameter.numel()
                parameter.data = self.vector.data[offset:end].view(parameter.shape)
                offset = end
            self._parts[name] = slice(first, offset)
        self._networks = list(networks.values())
        self._gradient: Tensor | None = None

    def part(self, name: str) -> Tensor:
        """Return the part of the vector that holds one network, as a view."""
        return self.vector.data[self._parts[name]]

    def views(self, flat: Tensor) -> list[Tensor]:
        """Return the parts of a vector like ``vector`` that belong to each parameter, in its shape."""
        parts = torch.split(flat, [parameter.numel() for parameter in self.parameters])
        return [part.view(parameter.shape) for part, parameter in zip(parts, self.parameters, strict=True)]

    def gradient(self, loss: Tensor) -> Tensor:
        """Return the gradient of a scalar loss with respect to the whole vector, flat; the next call overwrites it."""
        if self._gradient is None:
            self._gradient = torch.empty_like(self.vector.data)
            self._gradients = self.views(self._gradient)
            views = iter(self._gradients)
            self._offers = [(network, [next(views) for _ in network.parameters()]) for network in self._networks]
        # Tens of megabytes need not be copied where a backward pass writes them where they belong.
        for network, places in self._offers:
            network.offer_gradients(places)
        try:
            gradients = torch.autograd.grad(loss, self.parameters)
        finally:
            for network, _ in self._offers:
                network.offer_gradients(None)
        strays = [
            (place, gradient)
            for place, gradient in zip(self._gradients, gradients, strict=True)
            if gradient.data_ptr() != place.data_ptr()
        ]
        if len(strays) == len(gradients):
            return torch.cat([gradient.reshape(-1) for gradient in gradients], out=self._gradient)
        for place, gradient in strays:
            place.copy_(gradient)
        return self._gradient


class AdamOptimizer:
    """Adam over one vector, with its state as plain tensors (Kingma and Ba, 2015; betas .9 and .999, epsilon 1e-8)."""

    def __init__(self, parameters: ParameterVector, learning_rate: float) -> None:
        self._parameters = parameters
        vector = parameters.vector
        self._adam = torch.optim.Adam([vector], lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True)
        # Written out here rather than on the first step, so that the state exists, with its shapes, from the start.
        self._adam.state[vector] = {
            "step": torch.zeros((), dtype=torch.float32, device=vector.device),
            "exp_avg": torch.zeros_like(vector),
            "exp_avg_sq": torch.zeros_like(vector),
        }

    def step(self, gradient: Tensor) -> None:
        """Move the vector along a flat gradient."""
        self._parameters.vector.grad = gradient
        self._adam.step()

    def let_capture(self, capturing: bool) -> None:
        """Let steps be captured in a CUDA graph, or no more; outside of one torch would warn about them."""
        for group in self._adam.param_groups:
            group["capturable"] = capturing

    def state(self) -> dict[str, Tensor]:
        """Return the live state tensors: ``step``, ``first_moment`` and ``second_moment``."""
        state = self._adam.state[self._parameters.vector]
        return {"step": state["step"], "first_moment": state["exp_avg"], "second_moment": state["exp_avg_sq"]}
