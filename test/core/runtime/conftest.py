"""A checkpoint that nobody trained, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rql_core.algorithms import BCFlowConfig, RewardRange, make_algorithm
from rql_core.data import Statistics
from rql_core.training.checkpoint import save_checkpoint
from rql_core.training.policy import Policy

# Networks this small are slower on two threads than on one, and much slower where cores are shared.
torch.set_num_threads(1)


@pytest.fixture
def make_checkpoint(tmp_path: Path, contract_text: str) -> Callable[..., Path]:
    """Write a checkpoint of random weights under a contract (None: without one)."""

    def make(contract: str | None = contract_text, *, observation_dim: int = 7, action_dim: int = 2) -> Path:
        rewards = RewardRange(-1.0, 0.0, can_end=True)
        config = BCFlowConfig(horizon=4, flow_steps=3, actor_hidden=(16,))
        algorithm = make_algorithm(config, observation_dim, action_dim, rewards, seed=3)
        observations = np.random.default_rng(0).normal(0.5, 2.0, (50, observation_dim)).astype(np.float32)
        directory = tmp_path / "checkpoint"
        policy = Policy(algorithm, Statistics.of(observations))
        save_checkpoint(directory, policy, step=1, reward_range=rewards, contract_text=contract)
        return directory

    return make
