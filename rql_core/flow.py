"""Integrate a velocity field forwards (noise to action) and backwards (action to an earlier point of the flow).

A flow policy turns noise x(0) into an action x(1) along dx/dt = v(x, t).  Because the flow is deterministic, the same
field integrated backwards from a logged action gives the very points through which the policy would have made that
action. Every row of a batch has its own start and end time, so that one call reverses a batch by a different depth a
row.  Leading dimensions, such as that of several seeds, are taken as they come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor

from rql_core.errors import ConfigError

#: ``velocity(x (batch, dim), time (batch, 1)) -> (batch, dim)``
VelocityField = Callable[[Tensor, Tensor], Tensor]
Integrator = Literal["euler", "midpoint", "dopri5"]

# The adaptive solver's tolerances: float32 carries 1e-7, and a network's own error is far above 1e-4.
RELATIVE_TOLERANCE = 1e-5
ABSOLUTE_TOLERANCE = 1e-5


def integrate(velocity: VelocityField, noise: Tensor, steps: int, method: Integrator = "euler") -> Tensor:
    """Return the action x(1) (batch, dim) that the field makes from noise x(0) (batch, dim) in ``steps`` flow steps."""
    start = noise.new_zeros((*noise.shape[:-1], 1))
    return solve(velocity, noise, start, torch.ones_like(start), steps, method)


def reverse(velocity: VelocityField, action: Tensor, depth: Tensor, steps: int, method: Integrator = "euler") -> Tensor:
    """Return the point x(1 - depth) (batch, dim) from which the field leads to x(1) = action (batch, dim).

    ``depth`` (batch, 1) lies in [0, 1].  Euler takes ``steps`` sub-steps of depth / steps, each with the velocity at
    its upper point, as the published algorithm does.
    """
    start = torch.ones_like(depth)
    return solve(velocity, action, start, start - depth, steps, method)


def solve(
    velocity: VelocityField, x: Tensor, start: Tensor, stop: Tensor, steps: int, method: Integrator = "euler"
) -> Tensor:
    """Integrate each row of x (batch, dim) from its time ``start`` to its time ``stop``, both (batch, 1).

    ``steps`` is the number of equal sub-steps; the adaptive ``dopri5`` chooses its own and ignores it.
    """
    if method == "dopri5":
        return _solve_adaptive(velocity, x, start, stop)
    step = (stop - start) / steps
    time = start
    for _ in range(steps):
        if method == "midpoint":
            middle = torch.addcmul(x, step, velocity(x, time), value=0.5)
            x = torch.addcmul(x, step, velocity(middle, time + 0.5 * step))
        else:
            x = torch.addcmul(x, step, velocity(x, time))
        time = time + step
    return x


def _solve_adaptive(velocity: VelocityField, x: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Integrate with torchdiffeq in a rescaled time s in [0, 1] with t = start + s (stop - start), row by row.

    The solver controls its error over the whole batch at once, so a row's last digits depend on the other rows.
    """
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ConfigError(
            "the integrator 'dopri5' needs the package torchdiffeq, which is not installed: "
            "run `pip install torchdiffeq`, or choose 'euler' or 'midpoint'"
        ) from error
    span = stop - start

    def rescaled(s: Tensor, state: Tensor) -> Tensor:
        return span * velocity(state, start + s * span)

    ends = x.new_tensor([0.0, 1.0])
    path = odeint(rescaled, x, ends, rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE, method="dopri5")
    return cast(Tensor, path[-1])
