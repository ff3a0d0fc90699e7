"""Small algorithms and batches for the tests of this folder."""

from __future__ import annotations

from typing import Any

import torch

from rql_core.algorithms import RQL, Batch, RewardRange, RQLConfig, make_algorithm

OBSERVATION_DIM, ACTION_DIM = 3, 2
REWARDS = RewardRange(-1.0, 0.0, can_end=True)


def make_rql(*, dtype: torch.dtype = torch.float64, rewards: RewardRange = REWARDS, **settings: Any) -> RQL:
    """Return RQL with small networks whose averages differ from what they follow, and LayerNorms that do something."""
    values = {"horizon": 3, "flow_steps": 4, "actor_hidden": (9, 7), "critic_hidden": (8, 6), "critics": 3} | settings
    algorithm = make_algorithm(RQLConfig(**values), OBSERVATION_DIM, ACTION_DIM, rewards, seed=1, dtype=dtype)
    assert isinstance(algorithm, RQL)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for network in algorithm.networks.values():
            for parameter in network.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=dtype))
    return algorithm


def make_batch(horizon: int = 3, size: int = 12, dtype: torch.dtype = torch.float64) -> Batch:
    """Return a batch with a terminal in the middle of a chunk, at its end, and windows that pass an episode's end."""
    generator = torch.Generator().manual_seed(3)
    rewards = -torch.rand(size, horizon, generator=generator, dtype=torch.float64)
    masks, inside = torch.ones(size, horizon), torch.ones(size, horizon)
    masks[0, 0] = 0
    masks[1, -1] = 0
    if horizon > 1:
        inside[2, -1] = 0
        inside[3, 1:] = 0
    batch = Batch(
        observations=torch.randn(size, OBSERVATION_DIM, generator=generator),
        actions=torch.rand(size, horizon * ACTION_DIM, generator=generator) * 2 - 1,
        rewards=rewards * inside,
        masks=masks,
        next_observations=torch.randn(size, OBSERVATION_DIM, generator=generator),
        valid=inside[:, -1],
        step_mask=inside,
    )
    return batch.to(dtype)
