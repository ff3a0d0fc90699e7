"""Perceptrons in blocks, with their derivative written out, are perceptrons in plain operations, and those are what
their formula says.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rql_core.mlp import Blocks, Members, plain

BATCH, SIZES = 6, (5, 7, 4, 3)
#: Leading dimensions of the parameters, groups of inputs, and whether there is LayerNorm.
SHAPES = [((), 1, False), ((), 1, True), ((3,), 1, True), ((3,), 3, False), ((2, 3), 2, True), ((2, 3), 1, True)]
shapes = pytest.mark.parametrize(("leading", "groups", "norm"), SHAPES)


def make(leading: tuple[int, ...], norm: bool, dtype: torch.dtype = torch.float64) -> Members:
    generator = torch.Generator().manual_seed(4)
    row = (1,) if leading else ()

    def random(*shape: int) -> Tensor:
        return torch.randn(*leading, *shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    widths = SIZES[1:-1] if norm else ()
    return Members(
        [random(fan_in, fan_out) for fan_in, fan_out in pairwise(SIZES)],
        [random(*row, fan_out) for fan_out in SIZES[1:]],
        [random(*row, width) for width in widths],
        [random(*row, width) for width in widths],
    )


def make_inputs(groups: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(groups, BATCH, SIZES[0], generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def gradients(outputs: Tensor, *wanted: Tensor, retain_graph: bool = False) -> list[Tensor]:
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view(outputs.shape)
    return list(torch.autograd.grad((weights * outputs.square()).sum(), wanted, retain_graph=retain_graph))


def assert_close(found: list[Tensor], expected: list[Tensor], rtol: float = 1e-11) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol * float(theirs.detach().abs().max()))


@shapes
def test_plain_is_linear_gelu_layernorm_member_by_member(leading: tuple[int, ...], groups: int, norm: bool) -> None:
    members, inputs = make(leading, norm), make_inputs(groups)
    outputs = plain(inputs, members).detach()
    count = int(np.prod(leading))
    for member in range(count):
        weights = [weight.detach().view(count, *weight.shape[-2:])[member] for weight in members.weights]
        biases, scales, shifts = (
            [vector.detach().view(count, -1)[member] for vector in part]
            for part in (members.biases, members.scales, members.shifts)
        )
        hidden = inputs.detach()[member // (count // groups)]
        for layer, (weight, bias) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
            hidden = functional.gelu(hidden @ weight + bias, approximate="tanh")
            if norm:
                variance, mean = torch.var_mean(hidden, dim=1, correction=0, keepdim=True)
                hidden = (hidden - mean) / torch.sqrt(variance + 1e-6) * scales[layer] + shifts[layer]
        torch.testing.assert_close(outputs[member], hidden @ weights[-1] + biases[-1], rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        torch.testing.assert_close(plain(inputs, members), outputs, rtol=1e-12, atol=1e-12)


@shapes
def test_blocks_give_the_values_of_plain_operations(leading: tuple[int, ...], groups: int, norm: bool) -> None:
    members, inputs, blocks = make(leading, norm), make_inputs(groups), Blocks()
    expected = plain(inputs, members).detach()
    for _ in range(2):
        torch.testing.assert_close(blocks(inputs, members).detach(), expected, rtol=1e-12, atol=1e-12)
        with torch.no_grad():
            torch.testing.assert_close(blocks(inputs, members), expected, rtol=1e-12, atol=1e-12)


@shapes
def test_blocks_give_the_gradients_of_plain_operations(leading: tuple[int, ...], groups: int, norm: bool) -> None:
    members, inputs, blocks = make(leading, norm), make_inputs(groups), Blocks()
    wanted = [inputs, *members.tensors()]
    expected = gradients(plain(inputs, members), *wanted)
    for _ in range(2):
        assert_close(gradients(blocks(inputs, members), *wanted), expected)
        assert_close(gradients(blocks(inputs, members), *members.tensors()), expected[1:])
        assert_close(gradients(blocks(inputs, members, constant=True), inputs), expected[:1])
    assert_close(gradients(blocks(inputs.detach(), members), *members.tensors()), expected[1:])


@shapes
def test_the_written_out_derivative_is_the_difference_quotient(
    leading: tuple[int, ...], groups: int, norm: bool
) -> None:
    members, inputs, blocks = make(leading, norm), make_inputs(groups), Blocks()

    def outputs(inputs: Tensor, *tensors: Tensor) -> Tensor:
        return blocks(inputs, members.rebuilt(tensors))

    assert torch.autograd.gradcheck(outputs, (inputs, *members.tensors()), fast_mode=True)


def test_large_and_small_inputs_of_gelu_have_values_and_slopes_as_torchs_have() -> None:
    x = torch.linspace(-30, 30, 4001, dtype=torch.float64).view(1, -1, 1).requires_grad_()
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    members = Members([one, one], [zero, zero])
    expected = functional.gelu(x, approximate="tanh")
    for form in (Blocks(), plain):
        found = form(x, members)  # type: ignore[operator]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
        with torch.no_grad():
            torch.testing.assert_close(form(x, members), expected, rtol=0, atol=1e-14)  # type: ignore[operator]
        slope, other = (torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in (found, expected))
        torch.testing.assert_close(slope, other, rtol=0, atol=1e-12)


def test_float32_agrees_to_its_own_rounding() -> None:
    members, inputs = make((3,), True, torch.float32), make_inputs(1, torch.float32)
    exact, exact_inputs = make((3,), True), make_inputs(1)
    found = gradients(Blocks()(inputs, members), inputs, *members.tensors())
    expected = gradients(plain(exact_inputs, exact), exact_inputs, *exact.tensors())
    assert_close(found, [gradient.float() for gradient in expected], rtol=3e-5)


def test_inputs_parameters_and_earlier_outputs_are_left_alone() -> None:
    members, inputs, blocks = make((3,), True), make_inputs(1), Blocks()
    before = [tensor.detach().clone() for tensor in (inputs, *members.tensors())]
    outputs = blocks(inputs, members)
    kept = outputs.detach().clone()
    gradients(outputs, inputs, *members.tensors())
    del outputs
    outputs = blocks(inputs, members)
    blocks(2 * inputs, members).sum().backward()
    assert torch.equal(outputs, kept)
    assert all(torch.equal(*pair) for pair in zip((inputs, *members.tensors()), before, strict=True))


def test_passes_that_are_under_way_together_do_not_share_memory_and_one_may_be_used_twice() -> None:
    members, inputs, blocks = make((3,), True), make_inputs(1), Blocks()
    other = (inputs.detach() + 1).requires_grad_()
    expected = [gradients(plain(each, members), each, *members.tensors()) for each in (inputs, other)]
    first, second = blocks(inputs, members), blocks(other, members)
    assert_close(gradients(second, other, *members.tensors(), retain_graph=True), expected[1])
    assert_close(gradients(first, inputs, *members.tensors(), retain_graph=True), expected[0])
    assert_close(gradients(second, other, *members.tensors()), expected[1])
    assert_close(gradients(first, inputs, *members.tensors()), expected[0])


def test_memory_is_kept_for_the_next_pass_of_the_same_shape() -> None:
    members, inputs, blocks = make((3,), True), make_inputs(1), Blocks()
    places: list[int] = []
    for _ in range(3):
        lease = blocks.borrow(inputs, blocks.views_of(members))
        places.append(lease.kept.activations[0][0].data_ptr())
        del lease
        gradients(blocks(inputs, members), inputs)
    assert len(set(places)) == 1
    longer = torch.cat((inputs, inputs), dim=1)
    assert blocks(longer, members).shape == (3, 2 * BATCH, 3)
    assert_close(gradients(blocks(longer, members), inputs), gradients(plain(longer, members), inputs))


def test_gradients_go_where_a_place_is_offered_once_and_a_second_pass_has_its_own() -> None:
    members, inputs, blocks = make((3,), True), make_inputs(1), Blocks()
    expected = gradients(plain(inputs, members), *members.tensors())
    places = [torch.full_like(tensor, torch.nan) for tensor in members.tensors()]
    blocks.gradient_out = places
    found = gradients(blocks(inputs, members), *members.tensors())
    assert [a.data_ptr() for a in found] == [b.data_ptr() for b in places]
    assert_close(found, expected)
    again = gradients(blocks(inputs, members), *members.tensors())
    assert not {a.data_ptr() for a in again} & {b.data_ptr() for b in places}
    blocks.gradient_out = places
    twice = gradients(torch.cat([blocks(inputs, members), blocks(inputs, members)], dim=1), *members.tensors())
    assert_close(twice, gradients(torch.cat([plain(inputs, members)] * 2, dim=1), *members.tensors()))


@pytest.mark.parametrize("change", ["in place", "moved"])
def test_changed_parameters_are_seen(change: str) -> None:
    members, inputs, blocks = make((3,), True), make_inputs(1), Blocks()
    before = blocks(inputs, members).detach()
    for tensor in members.tensors():
        if change == "moved":
            tensor.data = tensor.data + 0.5
        else:
            tensor.data.add_(0.5)
    after = blocks(inputs, members).detach()
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, plain(inputs, members).detach(), rtol=1e-12, atol=1e-12)


def test_a_copy_has_memory_of_its_own() -> None:
    members, inputs, blocks = make((3,), True), make_inputs(1), Blocks()
    gradients(blocks(inputs, members), inputs)
    other: Callable[..., Tensor] = copy.deepcopy(blocks)
    copied = copy.deepcopy(members)
    for tensor in copied.tensors():
        tensor.data.mul_(2)
    assert_close([other(inputs, copied)], [plain(inputs, copied)])
    assert_close([blocks(inputs, members)], [plain(inputs, members)])
