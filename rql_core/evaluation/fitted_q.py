"""Fitted Q evaluation: what a policy is worth, learned from logs alone (Le, Voloshin and Yue, arXiv 1903.08738).

Fresh critics learn Q(s, a) = R + gamma^h m Q(s', a'), where a' is what the policy does at s'. The policy is only asked,
never trained, so errors that its own critics made, and that it learned to exploit, do not come in again. What the logs
do not show, this cannot know either.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rql_core.algorithms import Acting, Algorithm, Batch, RewardRange
from rql_core.data.chunks import ChunkSampler
from rql_core.errors import ConfigError, TrainingError
from rql_core.networks import CriticEnsemble
from rql_core.progress import progress_bar

# Rows at a time through a policy or a critic: an ensemble of ten, 512 wide, asked for 16 noises a row, takes 80 MB a
# layer for them, and larger blocks are no faster on a CPU.
BLOCK_ROWS = 256


@dataclass(frozen=True)
class FittedQSettings:
    """How the critics are fitted; raises ConfigError for a number that makes no sense."""

    # The slowest error shrinks by e every 1 / (tau (1 - gamma^h)) updates, which is 500 at gamma .99 and h = 4.
    updates: int = 4000
    batch_size: int = 256
    # Updates that a chunk and what the policy does after it take part in, before others are drawn: asking a policy that
    # takes the best of 32 samples costs a hundred times what an update does.
    reuse: int = 8
    # Batches that are drawn together and mixed.
    batches: int = 32
    # Layers of each critic; None: those of the policy's actor, whose size somebody chose for this task.
    hidden: tuple[int, ...] | None = None
    # Four show whether the answer depends on the first weights, at 1.7 times the cost of two.
    critics: int = 4
    learning_rate: float = 1e-3
    # Ten times what training takes: the policy stands still here, so its value is no moving target.
    tau: float = 0.05
    # Points of the curve over updates.
    measurements: int = 50

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "reuse", "batches", "critics", "measurements"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected at least 1")


@dataclass(frozen=True)
class FittedQ:
    """The fitted critics, and how the value at the starts came about."""

    critics: CriticEnsemble
    gamma: float
    curve_updates: tuple[int, ...]
    """(measurements,): updates made at each."""
    curve: Tensor
    """(measurements, critics), on the CPU: mean value at the starts by each critic."""

    @torch.no_grad()
    def action_value(self, observations: Tensor, chunks: Tensor) -> Tensor:
        """Return each critic's value (batch, critics) of doing chunks (batch, h * d) and then what the policy does."""

        def value(rows: slice) -> Tensor:
            values: Tensor = self.critics(observations[rows], chunks[rows], chunks.new_ones((len(chunks[rows]), 1)))
            return values.T

        return in_blocks(value, len(observations))


def fit_q(
    algorithm: Algorithm[Any, Any],
    sampler: ChunkSampler,
    starts: Tensor,
    rewards: RewardRange,
    gamma: float,
    *,
    settings: FittedQSettings | None = None,
    acting: Acting | None = None,
    seed: int = 0,
    progress: bool = False,
) -> FittedQ:
    """Fit critics to what `algorithm` does, on the chunks that `sampler` draws (whole ones: no padding is looked at).

    `starts` (starts, observation_dim) are normalised observations at which the curve is measured. Targets are clipped
    to the returns that `rewards` allow. On a CPU the same seed gives the same critics. Raises ConfigError for a gamma
    outside (0, 1), and TrainingError where the critics come to hold a number that is not finite.
    """
    if not 0.0 < gamma < 1.0:
        raise ConfigError(f"gamma is {gamma}: expected a number between 0 and 1")
    settings = settings or FittedQSettings()
    critics, target = _critics(algorithm, settings, seed)
    online_parameters = list(critics.parameters())
    followed = [parameter.detach() for parameter in online_parameters]
    optimizer = torch.optim.Adam(online_parameters, lr=settings.learning_rate, fused=True)
    generator = torch.Generator(algorithm.device).manual_seed(seed)
    low, high = rewards.return_bounds(gamma)
    end = torch.ones((settings.batch_size, 1), device=algorithm.device, dtype=algorithm.dtype)
    fitted = FittedQ(target, gamma, _measured_at(settings), torch.empty(0))
    start_chunks = policy_chunks(algorithm, starts, generator, acting)
    transitions = _transitions(algorithm, sampler, gamma, settings, acting, generator)
    curve: list[Tensor] = []
    updates = range(1, settings.updates + 1)
    for update in progress_bar(updates, unit="update", desc="fitted Q", disable=not progress):
        batch = next(transitions)
        with torch.no_grad():
            after = target(batch.next_observations, batch.next_chunks, end)
            wanted = (batch.returns + batch.remaining * after).clamp(low, high)
        loss = (critics(batch.observations, batch.chunks, end) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch._foreach_lerp_(list(target.parameters()), followed, settings.tau)
        if update == fitted.curve_updates[len(curve)]:
            curve.append(fitted.action_value(starts, start_chunks).mean(dim=0))
            if not torch.isfinite(curve[-1]).all():
                raise TrainingError(
                    f"fitted Q evaluation, update {update}: a critic's value is not finite; look for extreme values in "
                    "the dataset, or lower the learning rate"
                )
    return FittedQ(target, gamma, fitted.curve_updates, torch.stack(curve).cpu())


@torch.no_grad()
def policy_chunks(
    algorithm: Algorithm[Any, Any], observations: Tensor, generator: torch.Generator, acting: Acting | None = None
) -> Tensor:
    """Return what the policy does (batch, h * d) at normalised observations (batch, obs), with fresh noise."""
    acting = acting or algorithm.default_acting

    def act(rows: slice) -> Tensor:
        here = observations[rows]
        shape = (len(here), acting.samples, algorithm.chunk_dim)
        noise = torch.randn(shape, generator=generator, device=algorithm.device, dtype=algorithm.dtype)
        return algorithm.act(here, noise, rho=acting.rho, flow_steps=acting.flow_steps)

    return in_blocks(act, len(observations))


def chunk_return(batch: Batch, gamma: float) -> tuple[Tensor, Tensor]:
    """Return each chunk's discounted return up to its first terminal, and the factor of the value after it (batch,)."""
    horizon = batch.rewards.shape[1]
    alive = batch.masks.cummin(dim=1).values
    discounts = gamma ** torch.arange(horizon, device=alive.device, dtype=alive.dtype)
    # The step that ends the task still has its reward; those after it have none.
    rewards = torch.cat((batch.rewards[:, :1], batch.rewards[:, 1:] * alive[:, :-1]), dim=1)
    return rewards @ discounts, gamma**horizon * alive[:, -1]


def in_blocks(function: Callable[[slice], Tensor], rows: int) -> Tensor:
    """Return what a function gives for blocks of rows, joined: memory stays bounded however many rows there are."""
    return torch.cat([function(slice(first, first + BLOCK_ROWS)) for first in range(0, rows, BLOCK_ROWS)])


@dataclass(frozen=True)
class _Transitions:
    """Chunks as single actions (batch, ...), with what the policy does after them."""

    observations: Tensor
    chunks: Tensor
    returns: Tensor
    remaining: Tensor
    next_observations: Tensor
    next_chunks: Tensor


def _transitions(
    algorithm: Algorithm[Any, Any],
    sampler: ChunkSampler,
    gamma: float,
    settings: FittedQSettings,
    acting: Acting | None,
    generator: torch.Generator,
) -> Iterator[_Transitions]:
    """Draw batches without end: some of them together, which are mixed anew each time that they are used."""
    size, device = settings.batch_size, algorithm.device
    while True:
        drawn = sampler.sample(size * settings.batches, generator)
        returns, remaining = chunk_return(drawn, gamma)
        next_chunks = policy_chunks(algorithm, drawn.next_observations, generator, acting)
        every = (drawn.observations, drawn.actions, returns, remaining, drawn.next_observations, next_chunks)
        for _ in range(settings.reuse):
            order = torch.randperm(len(returns), generator=generator, device=device)
            for rows in order.view(-1, size):
                yield _Transitions(*(tensor[rows] for tensor in every))


def _critics(
    algorithm: Algorithm[Any, Any], settings: FittedQSettings, seed: int
) -> tuple[CriticEnsemble, CriticEnsemble]:
    hidden = settings.hidden or algorithm.config.actor_hidden
    generator = torch.Generator().manual_seed(seed)
    critics = CriticEnsemble(algorithm.observation_dim, algorithm.chunk_dim, hidden, settings.critics, generator)
    critics = critics.to(algorithm.device, algorithm.dtype)
    return critics, copy.deepcopy(critics).requires_grad_(False)


def _measured_at(settings: FittedQSettings) -> tuple[int, ...]:
    count = min(settings.measurements, settings.updates)
    return tuple(settings.updates * (index + 1) // count for index in range(count))
