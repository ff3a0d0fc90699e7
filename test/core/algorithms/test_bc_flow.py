"""BC flow is the flow-matching loss alone, behind the interface that every algorithm has."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from small_algorithms import ACTION_DIM, OBSERVATION_DIM, REWARDS, make_batch

from rql_core.algorithms import AnyAlgorithmConfig, BCFlow, BCFlowConfig, RQLConfig, make_algorithm


def make_bc_flow() -> BCFlow:
    config = BCFlowConfig(horizon=3, flow_steps=4, actor_hidden=(16,), learning_rate=1e-2, act_average=0.5)
    algorithm = make_algorithm(config, OBSERVATION_DIM, ACTION_DIM, REWARDS)
    assert isinstance(algorithm, BCFlow)
    return algorithm


def test_the_loss_is_the_squared_distance_to_the_straight_path() -> None:
    algorithm, batch = make_bc_flow(), make_batch(dtype=torch.float32)
    draws = algorithm.sample_draws(12, torch.Generator().manual_seed(0))
    x0, t = draws.flow_noise, draws.flow_time
    with torch.no_grad():
        error = algorithm.networks["actor"](batch.observations, (1 - t) * x0 + t * batch.actions, t) - (
            batch.actions - x0
        )
    expected = (error**2 * batch.step_mask.repeat_interleave(ACTION_DIM, dim=1)).sum() / error.numel()
    torch.testing.assert_close(algorithm.loss(batch, draws)[0].detach(), expected)


def test_rewards_change_nothing() -> None:
    algorithm, batch = make_bc_flow(), make_batch(dtype=torch.float32)
    draws = algorithm.sample_draws(12, torch.Generator().manual_seed(0))
    loss = algorithm.loss(batch, draws)[0]
    batch.rewards.add_(3.0)
    batch.masks.zero_()
    assert torch.equal(algorithm.loss(batch, draws)[0], loss)


def test_training_brings_actions_to_the_logged_ones() -> None:
    algorithm, batch = make_bc_flow(), make_batch(dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(12, 6, generator=generator)
    inside = batch.step_mask.repeat_interleave(ACTION_DIM, dim=1)

    def distance() -> float:
        return float(((algorithm.act(batch.observations, noise) - batch.actions).abs() * inside).mean())

    before = distance()
    for _ in range(300):
        algorithm.update(batch, algorithm.sample_draws(12, generator))
    assert distance() < before / 2


def test_it_has_no_values() -> None:
    algorithm, batch = make_bc_flow(), make_batch(dtype=torch.float32)
    assert algorithm.value(batch.observations).shape == (12, 0)
    assert algorithm.action_value(batch.observations, batch.actions).shape == (12, 0)
    assert {name.split(".")[0] for name in algorithm.policy_state()} == {"actor_average"}


def test_a_config_is_told_apart_by_its_algorithm() -> None:
    adapter: TypeAdapter[RQLConfig | BCFlowConfig] = TypeAdapter(AnyAlgorithmConfig)
    assert isinstance(adapter.validate_python({"algorithm": "bc_flow", "horizon": 2}), BCFlowConfig)
    assert isinstance(adapter.validate_python({"algorithm": "rql"}), RQLConfig)
    with pytest.raises(ValidationError, match="iql"):
        adapter.validate_python({"algorithm": "iql"})
    with pytest.raises(ValidationError, match="alpha"):
        adapter.validate_python({"algorithm": "bc_flow", "alpha": 1.0})
