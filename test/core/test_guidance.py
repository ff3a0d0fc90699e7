"""Guided integration is the paper's formula: against explicit Jacobians, finite differences and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rql_core.errors import ConfigError
from rql_core.flow import VelocityField, integrate
from rql_core.guidance import Guidance, gain, guided_velocity, integrate_guided
from rql_core.networks import VelocityNetwork

ROWS, DIM = 4, 6


@pytest.fixture
def network() -> VelocityField:
    """A random velocity network that bends, at one observation a row."""
    generator = torch.Generator().manual_seed(2)
    field = VelocityNetwork(2, DIM, (16, 16), generator).double().requires_grad_(False)
    for parameter in field.parameters():
        parameter.mul_(1.3).add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    observations = torch.randn(ROWS, 2, generator=generator, dtype=torch.float64)
    return lambda x, time: field(observations[: len(x)], x, time)


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(ROWS, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def guidance() -> Guidance:
    generator = torch.Generator().manual_seed(3)
    previous = torch.rand(ROWS, DIM, dtype=torch.float64, generator=generator) * 2 - 1
    weights = torch.rand(ROWS, DIM, dtype=torch.float64, generator=generator)
    weights[:, 0], weights[:, -1] = 1.0, 0.0
    return Guidance(previous, weights)


def predicted(velocity: VelocityField, x: Tensor, time: float) -> Tensor:
    return x + (1 - time) * velocity(x, torch.full((len(x), 1), time, dtype=torch.float64))


def by_jacobian(velocity: VelocityField, x: Tensor, time: float, guidance: Guidance, *, differences: bool) -> Tensor:
    """The paper's formula written out: the gain, the whole Jacobian, its product with the weighted error."""
    jacobian = torch.zeros(len(x), DIM, DIM, dtype=torch.float64)
    if differences:
        for column in range(DIM):
            shift = torch.zeros(DIM, dtype=torch.float64)
            shift[column] = 1e-6
            moved = predicted(velocity, x + shift, time) - predicted(velocity, x - shift, time)
            jacobian[:, :, column] = moved / 2e-6
    else:
        whole = torch.autograd.functional.jacobian(lambda z: predicted(velocity, z, time), x)
        for row in range(len(x)):
            jacobian[row] = whole[row, :, row]
    variance = (1 - time) ** 2 / (time**2 + (1 - time) ** 2)
    strength = guidance.limit if time == 0 else min(guidance.limit, (1 - time) / (time * variance))
    error = guidance.weights * (guidance.previous - predicted(velocity, x, time))
    v = velocity(x, torch.full((len(x), 1), time, dtype=torch.float64))
    return v + strength * torch.einsum("bi,bij->bj", error, jacobian)


@pytest.mark.parametrize("time", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("differences", [False, True], ids=["autograd", "differences"])
def test_the_guided_velocity_is_the_papers_formula(
    network: VelocityField, noise: Tensor, guidance: Guidance, time: float, differences: bool
) -> None:
    expected = by_jacobian(network, noise, time, guidance, differences=differences)
    found = guided_velocity(network, noise, torch.full((ROWS, 1), time, dtype=torch.float64), guidance)
    torch.testing.assert_close(found, expected, rtol=1e-7 if differences else 0, atol=1e-7 if differences else 1e-12)
    assert float((found - network(noise, torch.full((ROWS, 1), time, dtype=torch.float64))).abs().max()) > 0.1


def test_the_gain_is_the_papers_and_bounded() -> None:
    times = torch.tensor([0.0, 0.05, 0.2, 0.5, 0.8, 0.95], dtype=torch.float64)
    plain = [float("inf"), (1 / 0.05) * (0.05**2 + 0.95**2) / 0.95, 4.25, 2.0, 4.25, 19.05263]
    torch.testing.assert_close(gain(times, 1e9)[1:], torch.tensor(plain[1:], dtype=torch.float64), rtol=1e-6, atol=0)
    assert gain(times, 5.0).tolist() == pytest.approx([5.0, 5.0, 4.25, 2.0, 4.25, 5.0])


@pytest.mark.parametrize("integrator", ["euler", "midpoint"])
@pytest.mark.parametrize("method", ["jacobian", "prefix"])
def test_without_weights_nothing_is_guided(
    network: VelocityField, noise: Tensor, guidance: Guidance, method: str, integrator: str
) -> None:
    free = Guidance(guidance.previous, torch.zeros_like(guidance.weights), method)  # type: ignore[arg-type]
    found = integrate_guided(network, noise, 10, free, integrator)  # type: ignore[arg-type]
    torch.testing.assert_close(found, integrate(network, noise, 10, integrator), rtol=0, atol=1e-13)  # type: ignore[arg-type]


def test_ten_guided_steps_are_the_papers_loop(network: VelocityField, noise: Tensor, guidance: Guidance) -> None:
    x = noise
    for step in range(10):
        x = x + by_jacobian(network, x, step / 10, guidance, differences=False) / 10
    torch.testing.assert_close(integrate_guided(network, noise, 10, guidance), x, rtol=0, atol=1e-12)


def test_the_prefix_is_put_on_the_line_before_each_step(
    network: VelocityField, noise: Tensor, guidance: Guidance
) -> None:
    prefix = Guidance(guidance.previous, guidance.weights, "prefix")
    x = noise
    for step in range(10):
        line = noise * (1 - step / 10) + guidance.previous * step / 10
        x = (1 - guidance.weights) * x + guidance.weights * line
        x = x + network(x, torch.full((ROWS, 1), step / 10, dtype=torch.float64)) / 10
    torch.testing.assert_close(integrate_guided(network, noise, 10, prefix), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["jacobian", "prefix"])
def test_what_is_held_comes_nearer_to_the_chunk_of_before(
    network: VelocityField, noise: Tensor, guidance: Guidance, method: str
) -> None:
    weights = torch.zeros_like(guidance.weights)
    weights[:, :3] = 1.0
    held = integrate_guided(network, noise, 10, Guidance(guidance.previous, weights, method))  # type: ignore[arg-type]
    free = integrate(network, noise, 10)
    distance = [(each - guidance.previous)[:, :3].abs().mean() for each in (held, free)]
    assert distance[0] < 0.5 * distance[1]


def test_a_row_is_guided_as_if_it_were_alone(network: VelocityField, noise: Tensor, guidance: Guidance) -> None:
    together = integrate_guided(network, noise, 5, guidance)
    alone = integrate_guided(network, noise[:1], 5, guidance.rows(0, 1))
    torch.testing.assert_close(alone, together[:1], rtol=0, atol=1e-13)


def test_a_solver_that_chooses_its_steps_is_refused(network: VelocityField, noise: Tensor, guidance: Guidance) -> None:
    with pytest.raises(ConfigError, match="dopri5 chooses its own flow steps"):
        integrate_guided(network, noise, 5, guidance, "dopri5")
