"""The networks compute what their formulas say, and only the gradients that are asked for."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from rql_core.networks import CriticEnsemble, VelocityNetwork


def inputs(batch: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, 3, generator=generator),
        torch.randn(batch, 4, generator=generator),
        torch.rand(batch, 1, generator=generator),
    )


def test_an_ensemble_member_computes_linear_gelu_layernorm_and_nothing_of_its_neighbours() -> None:
    critic = CriticEnsemble(3, 4, (6, 5), critics=3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in [*critic.scales, *critic.shifts, *critic.biases]:
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    observations, x, time = inputs()
    values = critic(observations, x, time)
    for member in range(3):
        hidden = torch.cat((observations, x, time), dim=1)
        for layer in range(2):
            hidden = hidden @ critic.weights[layer][member] + critic.biases[layer][member]
            hidden = functional.gelu(hidden, approximate="tanh")
            mean, variance = hidden.mean(1, keepdim=True), hidden.var(1, keepdim=True, correction=0)
            hidden = (hidden - mean) / torch.sqrt(variance + 1e-6) * critic.scales[layer][member]
            hidden = hidden + critic.shifts[layer][member]
        expected = (hidden @ critic.weights[2][member] + critic.biases[2][member])[:, 0]
        torch.testing.assert_close(values[member], expected, rtol=1e-5, atol=1e-5)


def test_members_start_with_different_weights() -> None:
    critic = CriticEnsemble(3, 4, (8,), critics=2, generator=torch.Generator())
    assert not torch.equal(critic.weights[0][0], critic.weights[0][1])


def test_constant_critics_pass_a_gradient_to_x_and_none_to_their_weights() -> None:
    critic = CriticEnsemble(3, 4, (8, 8), critics=2, generator=torch.Generator())
    observations, x, time = inputs()
    x.requires_grad_()
    free = torch.autograd.grad(critic(observations, x, time).sum(), x)[0]
    critic(observations, x, time, constant=True).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, free)
    assert all(parameter.grad is None for parameter in critic.parameters())
    assert not critic(observations, x.detach(), time, constant=True).requires_grad


def test_weights_are_glorot_uniform_and_biases_zero() -> None:
    network = VelocityNetwork(100, 99, (300,), torch.Generator().manual_seed(0))
    bound = math.sqrt(6 / (200 + 300))
    weight = network.weights[0].detach()
    assert weight.shape == (200, 300)
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.999 * bound
    assert abs(float(weight.std()) - bound / math.sqrt(3)) < 0.01 * bound
    assert all(not bias.any() for bias in network.biases)


def test_the_same_generator_gives_the_same_weights() -> None:
    first = VelocityNetwork(3, 4, (8,), torch.Generator().manual_seed(5))
    second = VelocityNetwork(3, 4, (8,), torch.Generator().manual_seed(5))
    assert torch.equal(first.weights[1], second.weights[1])


def test_a_velocity_depends_on_observation_x_and_time() -> None:
    network = VelocityNetwork(3, 4, (8,), torch.Generator().manual_seed(5))
    observations, x, time = inputs()
    velocity = network(observations, x, time)
    assert velocity.shape == (7, 4)
    for changed in ((observations + 1, x, time), (observations, x + 1, time), (observations, x, time + 1)):
        assert not torch.allclose(network(*changed), velocity)


@pytest.mark.parametrize("critics", [None, 3])
def test_an_empty_batch_has_empty_outputs(critics: int | None) -> None:
    generator = torch.Generator()
    nothing = torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0, 1)
    if critics is None:
        assert VelocityNetwork(3, 4, (8,), generator)(*nothing).shape == (0, 4)
    else:
        assert CriticEnsemble(3, 4, (8,), critics, generator)(*nothing).shape == (critics, 0)


@pytest.mark.parametrize("form", ["plain", "blocked"])
def test_parameters_that_are_replaced_are_seen(form: str) -> None:
    network = VelocityNetwork(3, 4, (8,), torch.Generator())
    network.form = form  # type: ignore[assignment]
    zeros = {name: torch.zeros_like(parameter) for name, parameter in network.named_parameters()}
    assert network(*inputs()).any()
    assert not torch.func.functional_call(network, zeros, inputs()).any()
    assert network(*inputs()).any()
    network.load_state_dict(zeros, assign=True)
    assert not network(*inputs()).any()
