"""Integration agrees with closed forms and with torchdiffeq, forwards and backwards, with a depth for each row, and its
errors shrink with the order that each method has."""

from __future__ import annotations

import builtins
import math
import sys
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torchdiffeq import odeint

from rql_core.errors import ConfigError
from rql_core.flow import Integrator, VelocityField, integrate, reverse, solve
from rql_core.networks import VelocityNetwork

RATE = 0.8


def linear(x: Tensor, time: Tensor) -> Tensor:
    """dx/dt = RATE x + t, whose solution is known."""
    return RATE * x + time


def linear_solution(x: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    constant = x + start / RATE + 1 / RATE**2
    return constant * torch.exp(RATE * (stop - start)) - stop / RATE - 1 / RATE**2


def curved(x: Tensor, time: Tensor) -> Tensor:
    return torch.sin(3 * x + 2 * time) + x.roll(1, dims=1)


@pytest.fixture
def network() -> VelocityField:
    """A random velocity network with weights large enough that the flow bends, at one observation a row."""
    generator = torch.Generator().manual_seed(2)
    field = VelocityNetwork(2, 3, (16, 16), generator).double().requires_grad_(False)
    for parameter in field.parameters():
        parameter.mul_(1.3).add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    observations = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    return lambda x, time: field(observations, x, time)


def exact_path(velocity: VelocityField, x: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Integrate with torchdiffeq's dopri5 to rounding; each row has a time of its own, start + s (stop - start)."""
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    span = stop - start
    path = odeint(lambda s, y: span * velocity(y, start + s * span), x, ends, rtol=1e-13, atol=1e-13, method="dopri5")
    return path[-1]


def orders(errors: list[Tensor]) -> list[float]:
    """Return the order that each halving of the step shows: log2 of how much the error of all rows shrinks."""
    return [math.log2(float(coarse.norm() / fine.norm())) for coarse, fine in pairwise(errors)]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def depth() -> Tensor:
    return torch.tensor([[0.0], [0.1], [0.35], [0.5], [0.99], [1.0]], dtype=torch.float64)


def test_one_euler_step_goes_along_the_velocity_at_time_0(x: Tensor) -> None:
    torch.testing.assert_close(integrate(linear, x, 1), x + RATE * x)


def test_euler_reverses_from_the_upper_point_in_equal_steps_of_depth(x: Tensor, depth: Tensor) -> None:
    expected, time = x.clone(), torch.ones_like(depth)
    for _ in range(5):
        expected = expected - curved(expected, time) * depth / 5
        time = time - depth / 5
    torch.testing.assert_close(reverse(curved, x, depth, 5), expected, rtol=0, atol=1e-14)


def test_depth_0_is_the_action_itself(x: Tensor) -> None:
    for method in ("euler", "midpoint", "dopri5"):
        torch.testing.assert_close(reverse(curved, x, torch.zeros(6, 1, dtype=torch.float64), 4, method), x)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2)])
def test_the_error_shrinks_with_the_methods_order(x: Tensor, depth: Tensor, method: str, order: int) -> None:
    start = torch.ones_like(depth)
    exact = linear_solution(x, start, start - depth)
    errors = [float((reverse(linear, x, depth, steps, method) - exact).abs().max()) for steps in (20, 40, 80)]  # type: ignore[arg-type]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2)])
@pytest.mark.parametrize("direction", ["forwards", "backwards"])
def test_a_networks_flow_converges_with_the_methods_order_at_a_depth_for_each_row(
    network: VelocityField, x: Tensor, depth: Tensor, method: Integrator, order: int, direction: str
) -> None:
    upper, lower = torch.ones_like(depth), 1 - depth
    if direction == "backwards":
        exact = exact_path(network, x, upper, lower)
        errors = [reverse(network, x, depth, steps, method) - exact for steps in (32, 64, 128)]
    else:
        exact = exact_path(network, x, lower, upper)
        errors = [solve(network, x, lower, upper, steps, method) - exact for steps in (32, 64, 128)]
    assert float((exact - x)[-1].norm()) > 1, "the flow must go somewhere"
    assert orders(errors) == pytest.approx([order, order], abs=0.1)
    assert all(not error[0].any() for error in errors), "depth 0 stays where it is"


@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_integrating_from_noise_converges_to_what_dopri5_gives(
    network: VelocityField, x: Tensor, method: Integrator
) -> None:
    start = torch.zeros(6, 1, dtype=torch.float64)
    exact = exact_path(network, x, start, start + 1)
    errors = [integrate(network, x, steps, method) - exact for steps in (32, 64, 128)]
    assert orders(errors) == pytest.approx([{"euler": 1, "midpoint": 2}[method]] * 2, abs=0.1)


def test_dopri5_is_as_good_as_its_tolerance(
    network: VelocityField, x: Tensor, depth: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    upper, lower = torch.ones_like(depth), 1 - depth
    backwards, forwards = exact_path(network, x, upper, lower), exact_path(network, x, lower, upper)

    def meets(error: float) -> None:
        torch.testing.assert_close(reverse(network, x, depth, 1, "dopri5"), backwards, rtol=0, atol=error)
        torch.testing.assert_close(solve(network, x, lower, upper, 1, "dopri5"), forwards, rtol=0, atol=error)

    # The error of a whole way is some times that of a step, which is what the tolerance bounds.
    meets(1e-3)
    monkeypatch.setattr("rql_core.flow.RELATIVE_TOLERANCE", 1e-11)
    monkeypatch.setattr("rql_core.flow.ABSOLUTE_TOLERANCE", 1e-11)
    meets(1e-8)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 3)])
def test_a_round_trip_of_as_many_steps_back_as_forth_closes_with_the_methods_order(
    network: VelocityField, x: Tensor, depth: Tensor, method: Integrator, order: int
) -> None:
    # A step of Euler errs by c h^2 on either way, which adds up; the midpoint's c h^3 and c (-h)^3 cancel, so that its
    # round trip is one order better than each way.
    errors = []
    for steps in (32, 64, 128):
        earlier = reverse(network, x, depth, steps, method)
        errors.append(solve(network, earlier, 1 - depth, torch.ones_like(depth), steps, method) - x)
    assert orders(errors) == pytest.approx([order, order], abs=0.1)
    assert float(errors[-1].abs().max()) > 1e-12, "errors must be above rounding to show an order"


def test_dopri5_meets_the_closed_form_at_a_depth_for_each_row(x: Tensor, depth: Tensor) -> None:
    start = torch.ones_like(depth)
    exact = linear_solution(x, start, start - depth)
    torch.testing.assert_close(reverse(linear, x, depth, 1, "dopri5"), exact, rtol=0, atol=1e-4)


def test_every_method_agrees_with_torchdiffeq_run_row_by_row(x: Tensor, depth: Tensor) -> None:
    rows = []
    for row in range(len(x)):
        if depth[row] == 0:
            rows.append(x[row : row + 1])
            continue
        ends = torch.cat((torch.ones(1, dtype=torch.float64), 1 - depth[row]))
        path = odeint(lambda t, state: curved(state, t.reshape(1, 1)), x[row : row + 1], ends, rtol=1e-9, atol=1e-9)
        rows.append(path[-1])
    expected = torch.cat(rows)
    torch.testing.assert_close(reverse(curved, x, depth, 1, "dopri5"), expected, rtol=0, atol=2e-4)
    torch.testing.assert_close(reverse(curved, x, depth, 400, "midpoint"), expected, rtol=0, atol=2e-4)
    torch.testing.assert_close(reverse(curved, x, depth, 4000, "euler"), expected, rtol=0, atol=2e-2)


def test_euler_equals_torchdiffeqs_fixed_step_euler_on_the_same_grid(x: Tensor) -> None:
    path = odeint(
        lambda t, state: curved(state, t.reshape(1, 1)),
        x,
        torch.linspace(0, 1, 11, dtype=torch.float64),
        method="euler",
    )
    torch.testing.assert_close(integrate(curved, x, 10), path[-1], rtol=0, atol=1e-12)


def test_forwards_undoes_backwards_up_to_the_methods_error(x: Tensor) -> None:
    full = torch.ones(6, 1, dtype=torch.float64)
    round_trip = {
        method: float((integrate(linear, reverse(linear, x, full, 10, method), 10, method) - x).abs().max())  # type: ignore[arg-type]
        for method in ("euler", "midpoint", "dopri5")
    }
    assert round_trip["dopri5"] < round_trip["midpoint"] / 5 < round_trip["euler"] / 50


def test_a_missing_torchdiffeq_is_named_only_when_it_is_needed(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_torchdiffeq(name: str, *args: object, **kwargs: object) -> object:
        if name == "torchdiffeq":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "torchdiffeq", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_torchdiffeq)
    integrate(linear, x, 3)
    with pytest.raises(ConfigError, match="pip install torchdiffeq"):
        integrate(linear, x, 3, "dopri5")


def test_rows_start_and_stop_at_their_own_times(x: Tensor, depth: Tensor) -> None:
    start, stop = depth, torch.flip(depth, dims=[0])
    exact = linear_solution(x, start, stop)
    torch.testing.assert_close(solve(linear, x, start, stop, 200, "midpoint"), exact, rtol=0, atol=1e-4)
