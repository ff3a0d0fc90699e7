"""The published update, whole, written from its formulas in NumPy and float64: nothing here is shared with the product.

It goes from raw episodes to the weights after a step: windows, target, reversal, three losses, Adam, both averages. The
losses take complex weights too, which makes gradients exact: the derivative of an analytic function along d is
Im loss(w + i e d) / e, without the subtraction that costs a difference quotient half its digits (Squire and Trapp,
SIAM Review 1998).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]

ADAM_BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8
ACTION_LIMIT = 1.0 - 1e-5
# A complex step cancels nothing, so it can be so small that its square is 0 beside any weight.
COMPLEX_STEP = 1e-30


@dataclass(frozen=True)
class Settings:
    """What an update depends on besides weights, data and draws."""

    flow_steps: int
    horizon: int
    alpha: float
    kappa: float
    rho: float
    gamma: float
    tau: float
    learning_rate: float
    act_average: float
    #: "interpolant", as in the published code, or "reversed", as in the paper's formula.
    actor_gradient_at: str


@dataclass(frozen=True)
class Episode:
    """One episode as it was logged: T + 1 observations, and T of everything else."""

    observations: Array
    actions: Array
    rewards: Array
    masks: Array


@dataclass(frozen=True)
class Constants:
    """What an update computes before any gradient: the target, and where the critics meet it."""

    target: Array
    reversed_chunks: Array
    reversed_time: Array


@dataclass(frozen=True)
class Losses:
    """The three terms; their sum with weights 1, alpha and 1 is what Adam minimises."""

    critic: Any
    flow: Any
    policy: Any


@dataclass(frozen=True)
class State:
    """Every network's weights by name, Adam's two moments of the online ones, and the steps made."""

    weights: dict[str, Array]
    first: dict[str, Array]
    second: dict[str, Array]
    step: int = 0


def window(episode: Episode, start: int, horizon: int) -> dict[str, Array]:
    """Return the chunk that starts in a row; past the end it repeats the last row, whose reward then counts 0."""
    last = len(episode.actions) - 1
    actions: list[float] = []
    rewards, masks, step_mask = [], [], []
    for step in range(horizon):
        row = start + step if start + step <= last else last
        inside = 1.0 if start + step <= last else 0.0
        actions += [min(max(float(number), -ACTION_LIMIT), ACTION_LIMIT) for number in episode.actions[row]]
        rewards.append(float(episode.rewards[row]) * inside)
        masks.append(float(episode.masks[row]))
        step_mask.append(inside)
    # Published logs hold one observation a row, so the one after the last row is that row's own again.
    after = start + horizon if start + horizon <= last else last
    return {
        "observations": episode.observations[start].astype(np.float64),
        "actions": np.array(actions),
        "rewards": np.array(rewards),
        "masks": np.array(masks),
        "next_observations": episode.observations[after].astype(np.float64),
        "valid": np.array(1.0 if start + horizon <= len(episode.actions) else 0.0),
        "step_mask": np.array(step_mask),
    }


def windows(episodes: Sequence[Episode], places: Sequence[tuple[int, int]], horizon: int) -> dict[str, Array]:
    """Return the chunks at (episode, row) places, stacked."""
    chunks = [window(episodes[episode], row, horizon) for episode, row in places]
    return {name: np.stack([chunk[name] for chunk in chunks]) for name in chunks[0]}


def gelu(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x * x * x)))


def hidden_layers(weights: Arrays, name: str) -> int:
    return sum(key.startswith(f"{name}.weights.") for key in weights) - 1


def actor(weights: Arrays, name: str, s: Array, x: Array, t: Array) -> Array:
    """Return velocities (batch, D)."""
    hidden, last = np.concatenate([s, x, t], axis=1), hidden_layers(weights, name)
    for layer in range(last):
        hidden = gelu(hidden @ weights[f"{name}.weights.{layer}"] + weights[f"{name}.biases.{layer}"])
    return hidden @ weights[f"{name}.weights.{last}"] + weights[f"{name}.biases.{last}"]


def critics(weights: Arrays, name: str, s: Array, x: Array, t: Array) -> Array:
    """Return values (critics, batch)."""
    inputs, last, values = np.concatenate([s, x, t], axis=1), hidden_layers(weights, name), []
    for member in range(len(weights[f"{name}.weights.0"])):
        hidden = inputs
        for layer in range(last):
            hidden = hidden @ weights[f"{name}.weights.{layer}"][member] + weights[f"{name}.biases.{layer}"][member]
            hidden = gelu(hidden)
            centred = hidden - hidden.mean(axis=1, keepdims=True)
            hidden = centred / np.sqrt((centred * centred).mean(axis=1, keepdims=True) + 1e-6)
            hidden = hidden * weights[f"{name}.scales.{layer}"][member] + weights[f"{name}.shifts.{layer}"][member]
        output = hidden @ weights[f"{name}.weights.{last}"][member] + weights[f"{name}.biases.{last}"][member]
        values.append(output[:, 0])
    return np.stack(values)


def target(weights: Arrays, settings: Settings, data: Arrays, draws: Arrays) -> Array:
    """Return y (batch,)."""
    h, noise = settings.horizon, draws["target_noise"]
    q = critics(weights, "critic_target", data["next_observations"], noise, np.zeros((len(noise), 1)))
    members = len(q)
    mean = sum(q) / members
    lcb = mean - settings.rho * np.sqrt(sum((member - mean) ** 2 for member in q) / members)
    y = settings.gamma**h * data["masks"][:, h - 1] * lcb
    for j in range(h):
        y = y + settings.gamma**j * data["rewards"][:, j]
    return np.asarray(y)


def reversal(weights: Arrays, settings: Settings, data: Arrays, draws: Arrays) -> tuple[Array, Array]:
    """Return x^f (batch, D) and f (batch, 1)."""
    x, f = data["actions"], np.ones_like(draws["depth"])
    for _ in range(settings.flow_steps):
        x = x - actor(weights, "actor", data["observations"], x, f) * draws["depth"] / settings.flow_steps
        f = f - draws["depth"] / settings.flow_steps
    return x, f


def constants(weights: Arrays, settings: Settings, data: Arrays, draws: Arrays) -> Constants:
    return Constants(target(weights, settings, data, draws), *reversal(weights, settings, data, draws))


def losses(online: Arrays, frozen: Arrays, fixed: Constants, settings: Settings, data: Arrays, draws: Arrays) -> Losses:
    """Return the terms for online weights; ``frozen`` has the critics that the policy term takes as constants, so that
    a derivative with respect to ``online`` is what the update steps along.
    """
    s, a, flow_steps = data["observations"], data["actions"], settings.flow_steps
    u = fixed.target[None] - critics(online, "critic", s, fixed.reversed_chunks, fixed.reversed_time)
    weight = np.where(u.real >= 0, settings.kappa, 1 - settings.kappa)
    critic = (weight * u * u * data["valid"][None]).sum() / u.size

    x0, t = draws["flow_noise"], draws["flow_time"]
    x_t = (1 - t) * x0 + t * a
    p = actor(online, "actor", s, x_t, t)
    gap = p - (a - x0)
    flow = (gap * gap * np.repeat(data["step_mask"], a.shape[1] // settings.horizon, axis=1)).sum() / gap.size

    point, time = x_t, t
    if settings.actor_gradient_at == "reversed":
        point, time = fixed.reversed_chunks, fixed.reversed_time
        p = actor(online, "actor", s, point, time)
    z = point + p * np.minimum(1 / flow_steps, 1 - time)
    after = np.minimum(time + 1 / flow_steps, 1.0)
    values = critics(frozen, "critic", s, z, after)
    policy = -(data["valid"] * values.mean(axis=0)).sum() / len(s)
    return Losses(critic, flow, policy)


def total(terms: Losses, settings: Settings) -> Any:
    return terms.critic + terms.policy + settings.alpha * terms.flow


def online_names(weights: Arrays) -> list[str]:
    return [name for name in weights if name.split(".")[0] in ("actor", "critic")]


def slope(
    weights: Arrays, name: str, direction: Array, fixed: Constants, settings: Settings, data: Arrays, draws: Arrays
) -> float:
    """Return the derivative of the whole loss as one tensor moves along a direction of its shape."""
    moved = {**weights, name: weights[name] + 1j * COMPLEX_STEP * direction}
    return float(total(losses(moved, weights, fixed, settings, data, draws), settings).imag / COMPLEX_STEP)


def gradient(weights: Arrays, settings: Settings, data: Arrays, draws: Arrays) -> dict[str, Array]:
    """Return the derivative with respect to every single online weight."""
    fixed = constants(weights, settings, data, draws)
    gradients = {}
    for name in online_names(weights):
        gradients[name] = np.zeros_like(weights[name])
        for entry in np.ndindex(gradients[name].shape):
            unit = np.zeros_like(weights[name])
            unit[entry] = 1.0
            gradients[name][entry] = slope(weights, name, unit, fixed, settings, data, draws)
    return gradients


def first_state(weights: Arrays) -> State:
    zeros = {name: np.zeros_like(weights[name]) for name in online_names(weights)}
    return State(dict(weights), zeros, dict(zeros))


def update(state: State, gradients: Arrays, settings: Settings) -> State:
    """Make one Adam step along a gradient of the online weights, then let both averages follow."""
    step = state.step + 1
    weights, first, second = dict(state.weights), {}, {}
    for name, g in gradients.items():
        first[name] = ADAM_BETAS[0] * state.first[name] + (1 - ADAM_BETAS[0]) * g
        second[name] = ADAM_BETAS[1] * state.second[name] + (1 - ADAM_BETAS[1]) * g * g
        m, v = first[name] / (1 - ADAM_BETAS[0] ** step), second[name] / (1 - ADAM_BETAS[1] ** step)
        weights[name] = weights[name] - settings.learning_rate * m / (np.sqrt(v) + ADAM_EPSILON)
    for name in gradients:
        network, key = name.split(".", 1)
        if network == "critic":
            follower = f"critic_target.{key}"
            weights[follower] = weights[follower] + settings.tau * (weights[name] - weights[follower])
        else:
            follower, decay = f"actor_average.{key}", settings.act_average
            weights[follower] = decay * weights[follower] + (1 - decay) * weights[name]
    return State(weights, first, second, step)
