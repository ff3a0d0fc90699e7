"""RQL: the corrections and options one by one, and what may be stored; what it computes is in `test_exactness.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_algorithms import ACTION_DIM, OBSERVATION_DIM, REWARDS, make_batch, make_rql

from rql_core.algorithms import RewardRange, RQLConfig, make_algorithm
from rql_core.algorithms.flow_matching import flow_matching
from rql_core.errors import ConfigError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_corrected_stops_the_bootstrap_and_the_rewards_at_the_first_terminal() -> None:
    batch = make_batch()
    corrected, paper = make_rql(form="corrected"), make_rql(form="paper")
    draws = corrected.sample_draws(12, seeded())
    target, published = corrected.target(batch, draws), paper.target(batch, draws)
    # Row 0 ends at its first step: its own reward counts, and nothing after it.
    assert float(target[0]) == pytest.approx(float(batch.rewards[0, 0]))
    assert abs(float(published[0] - target[0])) > 1e-3
    # Row 1 ends at its last step: both forms drop the bootstrap alone.
    discounts = torch.tensor([1.0, 0.99, 0.99**2], dtype=torch.float64)
    assert float(target[1]) == pytest.approx(float(batch.rewards[1] @ discounts))
    assert float(published[1]) == pytest.approx(float(target[1]))


def test_corrected_clips_the_target_to_what_the_rewards_allow_and_paper_does_not() -> None:
    corrected, paper = make_rql(form="corrected", gamma=0.9), make_rql(form="paper", gamma=0.9)
    batch = make_batch()
    draws = corrected.sample_draws(12, seeded())
    for sign, bound in ((-1.0, -10.0), (1.0, 0.0)):
        for algorithm in (corrected, paper):
            with torch.no_grad():
                algorithm.networks["critic_target"].biases[-1].fill_(sign * 500.0)  # type: ignore[union-attr, operator, index]
        assert float(corrected.target(batch, draws)[4]) == pytest.approx(bound)
        assert abs(float(paper.target(batch, draws)[4])) > 300.0


@pytest.mark.parametrize(
    ("rewards", "bounds"),
    [
        (RewardRange(-1.0, 0.0, can_end=False), (-10.0, 0.0)),
        (RewardRange(-1.0, -0.5, can_end=False), (-10.0, -5.0)),
        (RewardRange(-1.0, -0.5, can_end=True), (-10.0, 0.0)),
        (RewardRange(0.5, 2.0, can_end=True), (0.0, 20.0)),
    ],
)
def test_return_bounds_hold_0_where_episodes_can_end(rewards: RewardRange, bounds: tuple[float, float]) -> None:
    assert rewards.return_bounds(0.9) == pytest.approx(bounds)


def test_pessimism_takes_rho_population_standard_deviations_off_the_target() -> None:
    bold, shy = make_rql(form="paper", rho=0.0), make_rql(form="paper", rho=2.0)
    batch, draws = make_batch(), bold.sample_draws(12, seeded())
    with torch.no_grad():
        values = bold.networks["critic_target"](
            batch.next_observations, draws.target_noise, torch.zeros_like(draws.depth)
        )
    gap = 0.99**3 * batch.masks[:, -1] * 2.0 * values.std(dim=0, correction=0)
    torch.testing.assert_close(bold.target(batch, draws) - shy.target(batch, draws), gap)


def test_rows_that_are_not_valid_count_nothing_for_critic_and_policy() -> None:
    algorithm = make_rql(form="paper")
    batch, draws = make_batch(), algorithm.sample_draws(12, seeded())
    changed = replace(batch, rewards=batch.rewards.clone(), next_observations=batch.next_observations.clone())
    changed.rewards[2:4] -= 5.0
    changed.next_observations[2:4] += 5.0
    first, second = algorithm.loss(batch, draws)[0], algorithm.loss(changed, draws)[0]
    assert float(first.detach()) == float(second.detach())
    changed.rewards[4] -= 5.0
    assert float(algorithm.loss(changed, draws)[0].detach()) != float(first.detach())


def test_steps_past_the_end_count_nothing_for_flow_matching() -> None:
    algorithm = make_rql()
    batch, draws = make_batch(), algorithm.sample_draws(12, seeded())
    masked = replace(batch, step_mask=torch.zeros_like(batch.step_mask))
    assert float(flow_matching(algorithm.networks["actor"], masked, draws).loss.detach()) == 0.0


def test_q_normalisation_makes_the_policy_loss_free_of_the_values_scale() -> None:
    algorithm = make_rql(q_normalisation=True)
    batch, draws = make_batch(), algorithm.sample_draws(12, seeded())
    reversed_chunks = algorithm.reverse(batch, draws)
    before = algorithm.actor_loss(batch, draws, reversed_chunks)[1]["policy_loss"].clone()
    with torch.no_grad():
        for parameter in (algorithm.networks["critic"].weights[-1], algorithm.networks["critic"].biases[-1]):  # type: ignore[union-attr, index]
            parameter.mul_(50.0)
    after = algorithm.actor_loss(batch, draws, reversed_chunks)[1]["policy_loss"]
    torch.testing.assert_close(after, before)


def test_the_actor_gradient_can_be_taken_at_the_reversed_point() -> None:
    algorithm = make_rql(actor_gradient_at="reversed")
    batch, draws = make_batch(), algorithm.sample_draws(12, seeded())
    x, t = algorithm.reverse(batch, draws), 1 - draws.depth
    with torch.no_grad():
        stepped = x + algorithm.networks["actor"](batch.observations, x, t) * torch.minimum(torch.tensor(0.25), 1 - t)
        values = algorithm.networks["critic"](batch.observations, stepped, (t + 0.25).clamp(max=1.0))
    _, metrics = algorithm.actor_loss(batch, draws, x)
    torch.testing.assert_close(metrics["policy_loss"], -(values.mean(0) * batch.valid).mean())


@pytest.mark.parametrize("integrator", ["midpoint", "dopri5"])
def test_reversal_with_a_better_integrator_is_undone_by_acting_with_it(integrator: str) -> None:
    algorithm = make_rql(reversal_integrator=integrator, act_integrator=integrator, flow_steps=40)
    algorithm.networks["actor_average"].load_state_dict(algorithm.networks["actor"].state_dict())
    batch, draws = make_batch(), algorithm.sample_draws(12, seeded())
    start = algorithm.reverse(batch, replace(draws, depth=torch.ones_like(draws.depth)))
    torch.testing.assert_close(algorithm.act(batch.observations, start), batch.actions, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("sampling", "on_grid"), [("half", 0.5), ("grid", 1.0), ("continuous", 0.0)])
def test_depths_lie_on_the_flows_grid_as_often_as_asked(sampling: str, on_grid: float) -> None:
    algorithm = make_rql(depth_sampling=sampling)
    depth = algorithm.sample_draws(4000, seeded()).depth[:, 0]
    scaled = depth * 4
    assert float(((scaled - scaled.round()).abs() < 1e-9).double().mean()) == pytest.approx(on_grid, abs=1e-3)
    assert float(depth.min()) >= 0.0
    assert float(depth.max()) <= 1.0
    if on_grid:
        found, counts = np.unique(depth[scaled == scaled.round()].numpy(), return_counts=True)
        np.testing.assert_allclose(found, [0.0, 0.25, 0.5, 0.75, 1.0])
        assert counts.min() > 0.8 * counts.mean()


def test_acting_integrates_the_averaged_actor_and_clips_once_at_the_end() -> None:
    algorithm = make_rql()
    with torch.no_grad():
        algorithm.networks["actor_average"].biases[-1].fill_(1.5)  # type: ignore[union-attr, operator, index]
    observations, noise = make_batch().observations, torch.randn(12, 6, dtype=torch.float64, generator=seeded())
    x = noise
    with torch.no_grad():
        for step in range(4):
            x = x + algorithm.networks["actor_average"](observations, x, torch.full((12, 1), step / 4).double()) / 4
    assert (x > 1).any()
    torch.testing.assert_close(algorithm.act(observations, noise), x.clamp(-1, 1))


def test_a_value_is_given_for_each_critic_and_does_not_depend_on_other_rows() -> None:
    algorithm, batch = make_rql(), make_batch()
    values = algorithm.value(batch.observations)
    assert values.shape == (12, 3)
    torch.testing.assert_close(algorithm.value(batch.observations[4:5]), values[4:5])
    assert algorithm.action_value(batch.observations, batch.actions).shape == (12, 3)


def test_a_policy_state_carries_over_what_acting_and_valuing_need() -> None:
    source, other, batch = make_rql(), make_rql(tau=0.5), make_batch()
    for _ in range(3):
        source.update(batch, source.sample_draws(12, seeded()))
    other.load_policy_state(source.policy_state())
    noise = torch.randn(12, 6, dtype=torch.float64, generator=seeded())
    assert torch.equal(other.act(batch.observations, noise), source.act(batch.observations, noise))
    assert torch.equal(other.value(batch.observations), source.value(batch.observations))
    state = other.training_state()
    assert torch.equal(state["actor.weights.0"], state["actor_average.weights.0"])
    assert torch.equal(state["critic_target.weights.0"], state["critic.weights.0"])


def test_a_training_state_goes_on_exactly() -> None:
    batch, straight, resumed = make_batch(), make_rql(), make_rql()
    generator = seeded()
    draws = [straight.sample_draws(12, generator) for _ in range(6)]
    for draw in draws[:3]:
        straight.update(batch, draw)
    resumed.load_training_state(straight.training_state())
    for draw in draws[3:]:
        straight.update(batch, draw)
        resumed.update(batch, draw)
    for name, tensor in straight.training_state().items():
        assert torch.equal(tensor, resumed.training_state()[name]), name


def test_states_are_copies_that_later_updates_leave_alone() -> None:
    algorithm, batch = make_rql(), make_batch()
    state = algorithm.training_state()
    before = {name: tensor.clone() for name, tensor in state.items()}
    algorithm.update(batch, algorithm.sample_draws(12, seeded()))
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
    assert not torch.equal(algorithm.training_state()["actor.weights.0"], before["actor.weights.0"])


def test_a_state_that_does_not_fit_is_refused_by_tensor_name_and_changes_nothing() -> None:
    algorithm = make_rql()
    before = algorithm.policy_state()
    state = {name: tensor + 1 for name, tensor in before.items()}
    missing = {name: tensor for name, tensor in state.items() if name != "critic.weights.0"}
    for bad, words in (
        (missing, "critic.weights.0' is missing"),
        (state | {"critic.extra": torch.zeros(1)}, "critic.extra' is unknown"),
        (state | {"actor_average.weights.0": torch.zeros(2, 2).double()}, r"actor_average.weights.0.*\(2, 2\)"),
        (state | {"actor_average.weights.0": state["actor_average.weights.0"].float()}, "float32"),
    ):
        with pytest.raises(ConfigError, match=words):
            algorithm.load_policy_state(bad)
    assert all(torch.equal(tensor, before[name]) for name, tensor in algorithm.policy_state().items())


@pytest.mark.parametrize(
    "wrong", [{"alpha": -1}, {"gamma": 1.0}, {"kappa": 0.0}, {"horizon": 0}, {"from": "paper"}, {"actor_hidden": ()}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RQLConfig.model_validate(wrong)


def test_one_seed_gives_one_algorithm() -> None:
    first, second, third = (
        make_algorithm(
            RQLConfig(actor_hidden=(8,), critic_hidden=(8,)), OBSERVATION_DIM, ACTION_DIM, REWARDS, seed=seed
        ).training_state()
        for seed in (0, 0, 1)
    )
    assert torch.equal(first["critic.weights.0"], second["critic.weights.0"])
    assert not torch.equal(first["critic.weights.0"], third["critic.weights.0"])
    assert torch.equal(first["critic_target.weights.0"], first["critic.weights.0"])
