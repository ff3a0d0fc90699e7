"""Multi-layer perceptrons, several of one shape at a time: in operations that every device and compiler can take, and
in blocks that stay in a CPU's cache, with the derivative written out.

Each layer is linear, GELU (its tanh form) and, where there are scales, LayerNorm; the last layer is linear.  The two
forms give the same values and gradients to rounding (test/core/test_mlp.py).  On a CPU the blocked one is a fifth
faster at 10 members of 4 x 512: what lies between two matrix products is done a member at a time, while its numbers are
in the cache, in memory that is kept from one update to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# GELU's tanh form is x/2 (1 + tanh(GELU_SCALE (x + GELU_CUBIC x^3))) (Hendrycks and Gimpel, arXiv 1606.08415).
GELU_SCALE = math.sqrt(2.0 / math.pi)
GELU_CUBIC = 0.044715
# The epsilon of the published networks (JAX's default; torch's own default is 1e-5).
LAYER_NORM_EPSILON = 1e-6

_layer_norm = torch.ops.aten.native_layer_norm.default
_layer_norm_backward = torch.ops.aten.native_layer_norm_backward.default
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


@dataclass(frozen=True)
class Members:
    """The parameters of N perceptrons of one shape, those of a layer in one tensor.

    N may be several dimensions, such as seeds and critics, or none for a lone perceptron.  Vectors may have a dimension
    of 1 before the last.
    """

    weights: Sequence[Tensor]
    """A tensor (N, in, out) a layer."""
    biases: Sequence[Tensor]
    """A tensor (N, out) a layer."""
    scales: Sequence[Tensor] = ()
    """A tensor (N, width) a hidden layer, or nothing where there is no LayerNorm."""
    shifts: Sequence[Tensor] = ()
    """As ``scales``."""

    def tensors(self) -> list[Tensor]:
        """Return all of them: weights, biases, scales, shifts."""
        return [*self.weights, *self.biases, *self.scales, *self.shifts]

    def rebuilt(self, tensors: Sequence[Tensor]) -> Members:
        """Return others of the same shape, given in the order of ``tensors()``."""
        layers, norms = len(self.weights), len(self.scales)
        ends = (layers, 2 * layers, 2 * layers + norms)
        return Members(tensors[: ends[0]], tensors[ends[0] : ends[1]], tensors[ends[1] : ends[2]], tensors[ends[2] :])


def plain(inputs: Tensor, members: Members) -> Tensor:
    """Return outputs (N, batch, out), N in one dimension, for inputs (groups, batch, in); each group has N / groups
    members in a row.
    """
    groups, batch, width = inputs.shape
    product: Callable[[Tensor, Tensor, Tensor], Tensor] = torch.addmm
    if members.weights[0].dim() == 2:
        # A lone one: a matrix product is faster than a batch of one.
        weights, biases, scales, shifts = members.weights, members.biases, members.scales, members.shifts
        count, hidden = 1, inputs[0]
    else:
        weights = [weight.flatten(0, -3) if weight.dim() > 3 else weight for weight in members.weights]
        biases, scales, shifts = _rows(members.biases), _rows(members.scales), _rows(members.shifts)
        count = len(weights[0])
        hidden = inputs.unsqueeze(1).expand(groups, count // groups, batch, width).reshape(count, batch, width)
        product = torch.baddbmm
    for layer in range(len(weights) - 1):
        hidden = _gelu(product(biases[layer], hidden, weights[layer]))
        if scales:
            hidden = functional.layer_norm(hidden, hidden.shape[-1:], eps=LAYER_NORM_EPSILON)
            hidden = torch.addcmul(shifts[layer], hidden, scales[layer])
    if torch.is_autocast_enabled(hidden.device.type):
        # A value of -50 to eight bits is off by an eighth: what comes out is computed in full.
        with torch.autocast(hidden.device.type, enabled=False):
            outputs = product(biases[-1], hidden.to(weights[-1].dtype), weights[-1])
    else:
        outputs = product(biases[-1], hidden, weights[-1])
    return outputs.view(count, batch, weights[-1].shape[-1])


def _rows(vectors: Sequence[Tensor]) -> list[Tensor]:
    """Return vectors (N, out) as (N, 1, out)."""
    return [vector if vector.dim() == 3 else vector.view(-1, 1, vector.shape[-1]) for vector in vectors]


def _gelu(x: Tensor) -> Tensor:
    if x.requires_grad or x.device.type != "cpu" or torch.compiler.is_compiling():
        return functional.gelu(x, approximate="tanh")
    # As (1 + tanh u) / 2 = sigmoid 2u, in 0.4 of the time: torch's kernel is slow on a CPU, and nothing has to be kept.
    one = x.new_full((), 2.0 * GELU_SCALE)
    return torch.addcmul(one, x, x, value=2.0 * GELU_SCALE * GELU_CUBIC).mul_(x).sigmoid_().mul_(x)


class Views:
    """Each member's own tensors, ``views.weights[layer][member]``, as constants; all but the weights are vectors.

    They share the members' memory, and so follow their values.
    """

    def __init__(self, members: Members) -> None:
        self.weights = [weight.detach().view(-1, *weight.shape[-2:]).unbind() for weight in members.weights]
        self.biases, self.scales, self.shifts = (
            [vector.detach().view(-1, vector.shape[-1]).unbind() for vector in vectors]
            for vectors in (members.biases, members.scales, members.shifts)
        )
        self.count = len(self.weights[0])
        """N."""
        self.widths = [weights[0].shape[1] for weights in self.weights]
        """Of each layer, the last one's included."""
        # What a product with a doubled activation is multiplied with: LayerNorm has taken the 2 off already.
        self.halved = 1.0 if self.scales else 0.5


class Blocks:
    """The blocked form of one network, with the memory that it keeps.  One thread at a time may use it."""

    def __init__(self) -> None:
        self._kept: list[_Kept] = []
        self._views: Views | None = None
        self._places: list[int] = []
        self.gradient_out: Sequence[Tensor] | None = None
        """Where the next backward pass may write the parameters' gradients."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Blocks:
        """Return one without memory: a copied network has its own."""
        return Blocks()

    def __call__(self, inputs: Tensor, members: Members, *, constant: bool = False) -> Tensor:
        """Return what ``plain`` does; ``constant``: without a gradient to the parameters.

        A backward pass can be differentiated no further.
        """
        views, parameters = self.views_of(members), members.tensors()
        learns = not constant and any(parameter.requires_grad for parameter in parameters)
        if torch.is_grad_enabled() and (inputs.requires_grad or learns):
            parameters = parameters if learns else []
            outputs: Tensor = _Blocked.apply(self, members, views, inputs, *parameters)  # type: ignore[no-untyped-call]
            return outputs
        return _forward(inputs, views)

    def views_of(self, members: Members) -> Views:
        """Return the members' views, made anew where a tensor has moved."""
        places = [tensor.data_ptr() for tensor in members.tensors()]
        if self._views is None or places != self._places:
            self._views, self._places = Views(members), places
        return self._views

    def take_gradient_out(self, parameters: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return where to write the parameters' gradients: each place that was offered is used once."""
        offered, self.gradient_out = self.gradient_out, None
        return offered if offered is not None else [torch.empty_like(parameter) for parameter in parameters]

    def borrow(self, inputs: Tensor, views: Views) -> _Lease:
        """Return memory for what a forward pass leaves to its backward pass."""
        key = (views.count, inputs.shape[1], inputs.dtype)
        while self._kept:
            kept = self._kept.pop()
            if kept.key == key:
                break
        else:
            shapes = [(inputs.shape[1], width) for width in views.widths[:-1]]
            kept = _Kept(
                key, *([[inputs.new_empty(shape) for shape in shapes] for _ in range(views.count)] for _ in range(2))
            )
        return _Lease(self._kept, kept)


@dataclass(frozen=True)
class _Kept:
    """Of each member and hidden layer, (batch, width): twice its activation before LayerNorm, and twice its slope."""

    key: tuple[int, int, torch.dtype]
    activations: list[list[Tensor]]
    slopes: list[list[Tensor]]


class _Lease:
    """Memory on loan to one forward pass; it goes back when the pass's graph is gone, however often that was used."""

    def __init__(self, home: list[_Kept], kept: _Kept) -> None:
        self._home = home
        self.kept = kept

    def __del__(self) -> None:
        self._home.append(self.kept)


# Activations are doubled, z (1 + tanh u): one operation less a layer.  LayerNorm with four times the epsilon takes the
# factor off again; without LayerNorm, the next product is halved.
_NORM_EPSILON = 4.0 * LAYER_NORM_EPSILON


def _forward(inputs: Tensor, views: Views) -> Tensor:
    """Compute without anything kept for a backward pass."""
    outputs = inputs.new_empty(views.count, inputs.shape[1], views.widths[-1])
    one = inputs.new_full((), GELU_SCALE)
    per_group = views.count // len(inputs)
    for member, output in enumerate(outputs.unbind()):
        hidden, alpha = inputs[member // per_group], 1.0
        for layer in range(len(views.widths) - 1):
            linear = torch.addmm(views.biases[layer][member], hidden, views.weights[layer][member], alpha=alpha)
            tanh = torch.addcmul(one, linear, linear, value=GELU_SCALE * GELU_CUBIC).mul_(linear).tanh_()
            hidden, alpha = torch.addcmul(linear, linear, tanh, out=tanh), views.halved
            if views.scales:
                scale = views.scales[layer][member]
                hidden = _layer_norm(hidden, scale.shape, scale, views.shifts[layer][member], _NORM_EPSILON)[0]
        torch.addmm(views.biases[-1][member], hidden, views.weights[-1][member], alpha=alpha, out=output)
    return outputs


class _Blocked(torch.autograd.Function):
    """The same, keeping what a backward pass needs."""

    @staticmethod
    def forward(
        ctx: Any, blocks: Blocks, members: Members, views: Views, inputs: Tensor, *parameters: Tensor
    ) -> Tensor:
        lease = blocks.borrow(inputs, views)
        outputs = inputs.new_empty(views.count, inputs.shape[1], views.widths[-1])
        one = inputs.new_full((), GELU_SCALE)
        per_group = views.count // len(inputs)
        # Mean and reciprocal deviation of every member's LayerNorms; and their outputs, where weights learn from them.
        norms: list[list[tuple[Tensor, Tensor]]] = []
        outputs_of_norms: list[list[Tensor]] = []
        for member, output in enumerate(outputs.unbind()):
            hidden, alpha = inputs[member // per_group], 1.0
            norms.append([])
            outputs_of_norms.append([])
            for layer in range(len(views.widths) - 1):
                activation, slope = lease.kept.activations[member][layer], lease.kept.slopes[member][layer]
                linear = torch.addmm(views.biases[layer][member], hidden, views.weights[layer][member], alpha=alpha)
                # With u = s (z + c z^3), the slope of z (1 + tanh u) is 1 + tanh u + z (1 - tanh^2 u) u'.
                tanh = torch.addcmul(one, linear, linear, value=GELU_SCALE * GELU_CUBIC).mul_(linear).tanh_()
                torch.addcmul(one, linear, linear, value=3.0 * GELU_SCALE * GELU_CUBIC, out=slope)
                _tanh_backward(linear, tanh, grad_input=activation)
                tanh.add_(1.0)
                torch.addcmul(tanh, activation, slope, out=slope)
                hidden, alpha = torch.mul(linear, tanh, out=activation), views.halved
                if views.scales:
                    scale = views.scales[layer][member]
                    shift = views.shifts[layer][member]
                    hidden, mean, deviation = _layer_norm(hidden, scale.shape, scale, shift, _NORM_EPSILON)
                    norms[member].append((mean, deviation))
                    if parameters:
                        outputs_of_norms[member].append(hidden)
            torch.addmm(views.biases[-1][member], hidden, views.weights[-1][member], alpha=alpha, out=output)
        ctx.save_for_backward(inputs, *parameters)
        ctx.blocks, ctx.members, ctx.views, ctx.lease, ctx.norms = (
            blocks,
            members,
            views,
            lease,
            (norms, outputs_of_norms),
        )
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outputs_gradient: Tensor) -> tuple[Any, ...]:
        inputs, *parameters = ctx.saved_tensors
        views, (norms, outputs_of_norms) = ctx.views, ctx.norms
        activations, slopes = ctx.lease.kept.activations, ctx.lease.kept.slopes
        learned = ctx.blocks.take_gradient_out(parameters) if parameters else []
        gradients = Views(ctx.members.rebuilt(learned)) if parameters else None
        inputs_gradient = torch.zeros_like(inputs) if ctx.needs_input_grad[3] else None
        per_group = views.count // len(inputs)
        wanted = (True, gradients is not None, gradients is not None)
        last = len(views.widths) - 1
        # The last member first: what it left is still in the cache.
        for member in reversed(range(views.count)):
            gradient = outputs_gradient[member]
            for layer in range(last, -1, -1):
                if layer < last:
                    if views.scales:
                        scale, shift = views.scales[layer][member], views.shifts[layer][member]
                        activation, (mean, deviation) = activations[member][layer], norms[member][layer]
                        gradient, *norm_gradients = _layer_norm_backward(
                            gradient, activation, scale.shape, mean, deviation, scale, shift, wanted
                        )
                        if gradients is not None:
                            gradients.scales[layer][member].copy_(norm_gradients[0])
                            gradients.shifts[layer][member].copy_(norm_gradients[1])
                    gradient.mul_(slopes[member][layer])
                alpha = views.halved if layer else 1.0
                if gradients is not None:
                    if layer == 0:
                        hidden = inputs[member // per_group]
                    else:
                        hidden = (outputs_of_norms[member] or activations[member])[layer - 1]
                    weight = gradients.weights[layer][member]
                    torch.addmm(weight, hidden.t(), gradient, beta=0.0, alpha=alpha, out=weight)
                    torch.sum(gradient, 0, out=gradients.biases[layer][member])
                weight = views.weights[layer][member]
                if layer:
                    gradient = torch.mm(gradient, weight.t())
                    if alpha != 1.0:
                        gradient.mul_(alpha)
                elif inputs_gradient is not None:
                    group = inputs_gradient[member // per_group]
                    torch.addmm(group, gradient, weight.t(), out=group)
        return (None, None, None, inputs_gradient, *learned)
