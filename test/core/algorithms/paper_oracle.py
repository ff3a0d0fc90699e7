"""The published losses, written from their formulas in NumPy and float64: nothing here is shared with the product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """What the losses depend on besides weights, data and draws."""

    flow_steps: int
    horizon: int
    kappa: float
    rho: float
    gamma: float


@dataclass(frozen=True)
class Losses:
    """The three terms."""

    critic: float
    flow: float
    policy: float


def gelu(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def actor(weights: Mapping[str, Array], name: str, layers: int, s: Array, x: Array, t: Array) -> Array:
    hidden = np.concatenate([s, x, t], axis=1)
    for layer in range(layers + 1):
        hidden = hidden @ weights[f"{name}.weights.{layer}"] + weights[f"{name}.biases.{layer}"]
        if layer < layers:
            hidden = gelu(hidden)
    return hidden


def critics(weights: Mapping[str, Array], name: str, layers: int, s: Array, x: Array, t: Array) -> Array:
    values = []
    for member in range(len(weights[f"{name}.weights.0"])):
        hidden = np.concatenate([s, x, t], axis=1)
        for layer in range(layers):
            hidden = hidden @ weights[f"{name}.weights.{layer}"][member] + weights[f"{name}.biases.{layer}"][member]
            hidden = gelu(hidden)
            centred = hidden - hidden.mean(axis=1, keepdims=True)
            hidden = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)
            hidden = hidden * weights[f"{name}.scales.{layer}"][member] + weights[f"{name}.shifts.{layer}"][member]
        last = hidden @ weights[f"{name}.weights.{layers}"][member] + weights[f"{name}.biases.{layers}"][member]
        values.append(last[:, 0])
    return np.array(values)


def losses(
    online: Mapping[str, Array],
    frozen: Mapping[str, Array],
    layers: int,
    settings: Settings,
    data: Mapping[str, Array],
    draws: Mapping[str, Array],
) -> Losses:
    """Return the terms; ``frozen`` has the weights that the critic's target, the reversal and the policy term's critics
    take as constants, so that a difference quotient over ``online`` is the gradient of the published update.
    """
    s, a, h, f_steps = data["observations"], data["actions"], settings.horizon, settings.flow_steps
    batch = len(s)

    target_values = critics(
        frozen, "critic_target", layers, data["next_observations"], draws["target_noise"], np.zeros((batch, 1))
    )
    lower_bound = target_values.mean(axis=0) - settings.rho * target_values.std(axis=0, ddof=0)
    y = settings.gamma**h * data["masks"][:, h - 1] * lower_bound
    for j in range(h):
        y = y + settings.gamma**j * data["rewards"][:, j]

    x, f = a.copy(), np.ones((batch, 1))
    for _ in range(f_steps):
        x = x - actor(frozen, "actor", layers, s, x, f) * draws["depth"] / f_steps
        f = f - draws["depth"] / f_steps
    u = y[None] - critics(online, "critic", layers, s, x, f)
    critic = np.mean(np.where(u >= 0, settings.kappa, 1 - settings.kappa) * u**2 * data["valid"][None])

    x0, t = draws["flow_noise"], draws["flow_time"]
    x_t = (1 - t) * x0 + t * a
    p = actor(online, "actor", layers, s, x_t, t)
    steps_inside = np.repeat(data["step_mask"], a.shape[1] // h, axis=1)
    flow = np.mean((p - (a - x0)) ** 2 * steps_inside)

    z = x_t + p * np.minimum(1 / f_steps, 1 - t)
    after = np.minimum(t + 1 / f_steps, 1.0)
    policy = -np.mean(data["valid"] * critics(frozen, "critic", layers, s, z, after).mean(axis=0))
    return Losses(float(critic), float(flow), float(policy))
